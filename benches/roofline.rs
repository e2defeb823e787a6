//! The kernels' times flow in, beside what one core can do, measured in the same run; a Markdown table of GFLOP/s and GB/s flows out.
//!
//! A case's operations are those of its definition: a direct convolution's, although Winograd's way needs 36 of 144 multiplications, so that more than the peak
//! is possible; instance norm, pooling, sines and cosines come for nothing. Its bytes are those that have to move at least once: rows, results, gradients, weights, and what is kept for the
//! way back, written and read.

#[path = "peer/cases.rs"]
mod cases;

use std::hint::black_box;
use std::time::Instant;

use cases::{Case, FEATURES, FREQUENCIES, MOMENTS, prepare};
use datafusion_distill::kernels::path;

/// Floats that no cache holds.
const FAR: usize = 64 << 20;
const ROUNDS: usize = 9;

fn seconds(mut f: impl FnMut()) -> f64 {
    f();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// Independent sums, enough to fill the pipelines of two units.
const SUMS: usize = 12;

/// `count` rounds of fused multiply-adds on so many independent registers, by intrinsics.
macro_rules! fma_loop {
    ($name:ident, $feature:literal, $splat:ident, $fma:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $feature)]
        fn $name(count: usize, factor: f32) {
            use std::arch::x86_64::*;
            let (factor, one) = ($splat(factor), $splat(0.5));
            // Variables of their own stay in registers; of an array, or in a closure, they don't.
            let (mut a, mut b, mut c, mut d, mut e, mut f) = (one, one, one, one, one, one);
            let (mut g, mut h, mut i, mut j, mut k, mut l) = (one, one, one, one, one, one);
            for _ in 0..count {
                (a, b, c) = ($fma(a, factor, one), $fma(b, factor, one), $fma(c, factor, one));
                (d, e, f) = ($fma(d, factor, one), $fma(e, factor, one), $fma(f, factor, one));
                (g, h, i) = ($fma(g, factor, one), $fma(h, factor, one), $fma(i, factor, one));
                (j, k, l) = ($fma(j, factor, one), $fma(k, factor, one), $fma(l, factor, one));
            }
            black_box([a, b, c, d, e, f, g, h, i, j, k, l]);
        }
    };
}

fma_loop!(fma_avx512, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
fma_loop!(fma_avx2, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);

/// Floating point operations a second of one core that does nothing but fused multiply-adds in registers.
fn peak_flops() -> f64 {
    const COUNT: usize = 4_000_000;
    let factor = black_box(0.5f32);
    #[cfg(target_arch = "x86_64")]
    {
        if path() == "avx512" {
            // SAFETY: the path was detected.
            let took = seconds(|| unsafe { fma_avx512(COUNT, factor) });
            return (2 * COUNT * SUMS * 16) as f64 / took;
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            // SAFETY: just detected.
            let took = seconds(|| unsafe { fma_avx2(COUNT, factor) });
            return (2 * COUNT * SUMS * 8) as f64 / took;
        }
        f64::NAN
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // Not written for other processors: the shares of the peak are not told there.
        _ = (COUNT, factor);
        f64::NAN
    }
}

/// Bytes a second of one core that copies from memory to memory, read and written bytes counted.
fn peak_bytes() -> f64 {
    let (from, mut to) = (vec![1.0f32; FAR], vec![0.0f32; FAR]);
    (2 * 4 * FAR) as f64 / seconds(|| black_box(&mut to).copy_from_slice(black_box(&from)))
}

/// Operations and bytes of one run.
fn work(case: &Case) -> (f64, f64) {
    let Case { channels, side, width, rows, .. } = case;
    let net_flop = |first: bool| {
        let of = |n: usize| 2 * 9 * width * (if n == 0 { *channels } else { *width }) * (1024 >> (2 * n));
        (usize::from(!first)..3).map(of).sum::<usize>()
    };
    let weights = 9 * width * (channels + 2 * width);
    let (pictures, features) = (rows * channels * side * side, rows * width * 16);
    // The results of the second and third convolution.
    let kept = rows * width * (256 + 64);
    let (flop, floats) = match case.case.as_str() {
        "forward" => (rows * net_flop(true), pictures + features + weights),
        "input gradient" => (2 * rows * net_flop(true), 3 * pictures + 2 * features + 2 * weights + 2 * kept),
        // And what the blocks hand on to each other, there and back.
        "training step" => (
            rows * (2 * net_flop(true) + net_flop(false)),
            2 * pictures + 2 * features + 7 * weights + 2 * kept + 4 * rows * width * (256 + 64),
        ),
        "characteristic function" => (2 * rows * FEATURES * FREQUENCIES, FEATURES * (rows + FREQUENCIES)),
        "characteristic function, gradient" => {
            (4 * rows * FEATURES * FREQUENCIES, 2 * FEATURES * (rows + FREQUENCIES) + 2 * rows * FREQUENCIES)
        }
        // Integers of 16 bits; sums of 64.
        _ => (rows * MOMENTS * (MOMENTS + 1), rows * MOMENTS / 2 + 2 * MOMENTS * (MOMENTS + 1)),
    };
    (flop as f64, 4.0 * floats as f64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let (peak, bandwidth) = (peak_flops(), peak_bytes());
    println!(
        "One thread, path {}: {:.0} GFLOP/s of fused multiply-adds, {:.1} GB/s of copying (read and written).",
        path(),
        peak / 1e9,
        bandwidth / 1e9
    );
    println!();
    println!("| kernel | ms | GFLOP/s | of the peak | GB/s | of copying | FLOP a byte |");
    println!("|---|---|---|---|---|---|---|");
    let cases = [128, 64, 32].into_iter().flat_map(|width| {
        [(1, 28), (3, 32)].into_iter().flat_map(move |(channels, side)| {
            [("forward", 256), ("input gradient", 100), ("training step", 100)].map(|(case, rows)| Case {
                case: case.into(),
                channels,
                side,
                width,
                rows,
                threads: 1,
                repeat: 1,
            })
        })
    });
    let others =
        [("characteristic function", 256), ("characteristic function, gradient", 256), ("second moments", 1024)].map(
            |(case, rows)| Case { case: case.into(), channels: 0, side: 0, width: 0, rows, threads: 1, repeat: 1 },
        );
    for case in cases.chain(others) {
        let took = pool.install(|| -> candle_core::Result<f64> {
            let mut step = prepare(&case)?;
            step()?;
            Ok(seconds(|| step().expect("it ran before")))
        })?;
        let (flop, bytes) = work(&case);
        let Case { case, channels, side, width, rows, .. } = case;
        let net = if width > 0 { format!(", width {width}, {channels}x{side}x{side}") } else { String::new() };
        println!(
            "| {case}{net}, {rows} rows | {:.1} | {:.0} | {:.0} % | {:.1} | {:.0} % | {:.0} |",
            1e3 * took,
            flop / took / 1e9,
            100.0 * flop / took / peak,
            bytes / took / 1e9,
            100.0 * bytes / took / bandwidth,
            flop / bytes
        );
    }
    Ok(())
}
