//! Slices of blocked activations flow in; products, normalised and pooled planes, and their gradients, flow out.
//!
//! Everything here works on *blocks* of `NR` channels: `[pixel][NR]`, so that a vector holds channels and no pixel of a plane is wasted,
//! whatever its width. A safe function checks lengths once and calls the unsafe body that [`kernel!`] compiles for each path.

// Loops over constant bounds by index are what the compiler unrolls into registers.
#![allow(clippy::needless_range_loop)]

use crate::kernels::simd::{Path, Simd, kernel};

/// Addresses, and the farthest of them: what [`multiply`] checks, found once for many calls.
#[derive(Debug)]
pub(in crate::kernels) struct Offsets {
    at: Vec<usize>,
    far: usize,
}

impl Offsets {
    pub fn new(at: Vec<usize>) -> Self {
        let far = Addresses::of(&at).far;
        Self { at, far }
    }

    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn all(&self) -> Addresses<'_> {
        self.first(self.len())
    }

    /// The first `count`, as if the farthest of all were one of them: what they are read from has to reach that far.
    pub fn first(&self, count: usize) -> Addresses<'_> {
        Addresses { at: &self.at[..count], far: self.far }
    }
}

/// Some addresses, none farther than `far`.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Addresses<'a> {
    at: &'a [usize],
    far: usize,
}

impl<'a> Addresses<'a> {
    pub fn of(at: &'a [usize]) -> Self {
        Self { at, far: at.iter().copied().max().unwrap_or(0) }
    }
}

/// `y[i][j] (+)= sum over runs r, k < run_len of x[offsets[i] + runs[r] + k] * w[r * w_stride + k * NR + j]`: a matrix product whose left
/// side is gathered by address. A convolution's runs are its taps; a weight gradient's are the rows of a plane.
///
/// `offsets` comes in whole tiles (a multiple of MR), `y` is `[offsets.len()][NR]`. Each element is summed over runs in order, from 0,
/// and then added to what `y` holds if `accumulate`: the same bits whatever else is computed beside it.
#[allow(clippy::too_many_arguments)]
pub(in crate::kernels) fn multiply(
    path: Path,
    x: &[f32],
    offsets: Addresses,
    runs: Addresses,
    run_len: usize,
    w: &[f32],
    w_stride: usize,
    y: &mut [f32],
    accumulate: bool,
) {
    let (mr, nr) = path.tile();
    assert!(offsets.at.len().is_multiple_of(mr) && y.len() == offsets.at.len() * nr && !runs.at.is_empty());
    assert!(offsets.far + runs.far + run_len <= x.len());
    assert!((runs.at.len() - 1) * w_stride + run_len * nr <= w.len());
    // SAFETY: the asserts bound every address that the body forms; `path` was detected.
    unsafe { multiply_on(path, x, offsets.at, runs.at, run_len, w, w_stride, y, accumulate) }
}

kernel!(fn multiply_on(x: &[f32], offsets: &[usize], runs: &[usize], run_len: usize, w: &[f32], w_stride: usize, y: &mut [f32], accumulate: bool) = multiply_body);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn multiply_body<S: Simd, const MR: usize, const NV: usize>(
    x: &[f32],
    offsets: &[usize],
    runs: &[usize],
    run_len: usize,
    w: &[f32],
    w_stride: usize,
    y: &mut [f32],
    accumulate: bool,
) {
    let nr = NV * S::LANES;
    for (tile, y) in offsets.chunks_exact(MR).zip(y.chunks_exact_mut(MR * nr)) {
        // SAFETY: `multiply` checked the farthest address of x and w; y's chunk holds MR * NR floats.
        unsafe {
            let at: [*const f32; MR] = std::array::from_fn(|i| x.as_ptr().add(tile[i]));
            let mut acc = [[S::splat(0.0); NV]; MR];
            let mut w_run = w.as_ptr();
            for &run in runs {
                let mut wk = w_run;
                for k in run..run + run_len {
                    let b: [S::V; NV] = std::array::from_fn(|v| S::load(wk.add(v * S::LANES)));
                    for i in 0..MR {
                        let a = S::splat(*at[i].add(k));
                        for v in 0..NV {
                            acc[i][v] = S::fma(a, b[v], acc[i][v]);
                        }
                    }
                    wk = wk.add(nr);
                }
                w_run = w_run.wrapping_add(w_stride);
            }
            for i in 0..MR {
                for v in 0..NV {
                    let to = y.as_mut_ptr().add(i * nr + v * S::LANES);
                    S::store(to, if accumulate { S::add(S::load(to), acc[i][v]) } else { acc[i][v] });
                }
            }
        }
    }
}

/// Added to the variance, as the field's instance norm does.
const EPSILON: f32 = 1e-5;

/// Instance norm, affine, ReLU and 2x2 average pool of one block: `y` `[height * width][NR]` to `pooled`, pixel `(i, j)` of the
/// `(height / 2) * (width / 2)` at `(origin + i * row + j) * NR`. `affine` is scale `[NR]`, then shift `[NR]`; `stats` receives mean `[NR]`, then 1 / sqrt(variance + eps) `[NR]`.
pub(super) fn norm_relu_pool(
    path: Path,
    y: &[f32],
    [height, width]: [usize; 2],
    affine: &[f32],
    stats: &mut [f32],
    pooled: &mut [f32],
    [origin, row]: [usize; 2],
) {
    let nr = path.tile().1;
    assert!(y.len() >= height * width * nr && affine.len() == 2 * nr && stats.len() == 2 * nr);
    assert!(height >= 2 && width >= 2 && (origin + (height / 2 - 1) * row + width / 2) * nr <= pooled.len());
    // SAFETY: the asserts bound every address that the body forms; `path` was detected.
    unsafe { norm_relu_pool_on(path, y, height, width, affine, stats, pooled, origin, row) }
}

kernel!(fn norm_relu_pool_on(y: &[f32], height: usize, width: usize, affine: &[f32], stats: &mut [f32], pooled: &mut [f32], origin: usize, row: usize) = norm_relu_pool_body);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn norm_relu_pool_body<S: Simd, const MR: usize, const NV: usize>(
    y: &[f32],
    height: usize,
    width: usize,
    affine: &[f32],
    stats: &mut [f32],
    pooled: &mut [f32],
    origin: usize,
    row: usize,
) {
    let nr = NV * S::LANES;
    let pixels = height * width;
    // SAFETY: `norm_relu_pool` checked the lengths; every index below is under them.
    unsafe {
        let n = S::splat(1.0 / pixels as f32);
        let sums = sum_pixels::<S, NV>(pixels, |i, v| S::load(y.as_ptr().add(i * nr + v * S::LANES)));
        let mean: [S::V; NV] = std::array::from_fn(|v| S::mul(sums[v], n));
        let squares = sum_pixels::<S, NV>(pixels, |i, v| {
            let d = S::sub(S::load(y.as_ptr().add(i * nr + v * S::LANES)), mean[v]);
            S::mul(d, d)
        });
        for v in 0..NV {
            S::store(stats.as_mut_ptr().add(v * S::LANES), mean[v]);
            S::store(stats.as_mut_ptr().add(nr + v * S::LANES), S::mul(squares[v], n));
        }
        for s in &mut stats[nr..] {
            *s = 1.0 / (*s + EPSILON).sqrt();
        }
        let (scale, shift) = scale_and_shift::<S, NV>(affine, stats);
        let quarter = S::splat(0.25);
        for py in 0..height / 2 {
            for px in 0..width / 2 {
                let from = y.as_ptr().add((2 * py * width + 2 * px) * nr);
                for v in 0..NV {
                    let z = |pixel: usize| {
                        let d = S::sub(S::load(from.add(pixel * nr + v * S::LANES)), mean[v]);
                        S::relu(S::fma(d, scale[v], shift[v]))
                    };
                    let sum = S::add(S::add(z(0), z(1)), S::add(z(width), z(width + 1)));
                    S::store(
                        pooled.as_mut_ptr().add((origin + py * row + px) * nr + v * S::LANES),
                        S::mul(sum, quarter),
                    );
                }
            }
        }
    }
}

/// The backward pass of [`norm_relu_pool`] for one block: `pooled_grad` `[(height / 2) * (width / 2)][NR]` to the gradient for `y`, written to
/// `grad`, pixel `(i, j)` at `(origin + i * row + j) * NR`. `sums` receives the affine gradient: scale `[NR]`, then shift `[NR]`.
#[allow(clippy::too_many_arguments)]
pub(super) fn norm_relu_pool_backward(
    path: Path,
    y: &[f32],
    [height, width]: [usize; 2],
    affine: &[f32],
    stats: &[f32],
    pooled_grad: &[f32],
    sums: &mut [f32],
    grad: &mut [f32],
    [origin, row]: [usize; 2],
) {
    let nr = path.tile().1;
    assert!(y.len() >= height * width * nr && affine.len() == 2 * nr && stats.len() == 2 * nr && sums.len() == 2 * nr);
    assert!(pooled_grad.len() == (height / 2) * (width / 2) * nr && height >= 2 && width >= 2);
    assert!((origin + (height - 1) * row + width) * nr <= grad.len());
    // SAFETY: the asserts bound every address that the body forms; `path` was detected.
    unsafe { backward_on(path, y, height, width, affine, stats, pooled_grad, sums, grad, origin, row) }
}

kernel!(fn backward_on(y: &[f32], height: usize, width: usize, affine: &[f32], stats: &[f32], pooled_grad: &[f32], sums: &mut [f32], grad: &mut [f32], origin: usize, row: usize) = backward_body);

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn backward_body<S: Simd, const MR: usize, const NV: usize>(
    y: &[f32],
    height: usize,
    width: usize,
    affine: &[f32],
    stats: &[f32],
    pooled_grad: &[f32],
    sums: &mut [f32],
    grad: &mut [f32],
    origin: usize,
    row: usize,
) {
    let nr = NV * S::LANES;
    let (ph, pw) = (height / 2, width / 2);
    // SAFETY: `norm_relu_pool_backward` checked the lengths; every index below is under them.
    unsafe {
        let (scale, shift) = scale_and_shift::<S, NV>(affine, stats);
        let quarter = S::splat(0.25);
        for v in 0..NV {
            let lane = v * S::LANES;
            let mean = S::load(stats.as_ptr().add(lane));
            let inverse = S::load(stats.as_ptr().add(nr + lane));
            // d is y - mean; the gradient at the affine's output is the pooled one where the ReLU let through.
            let centred = |pixel: usize| S::sub(S::load(y.as_ptr().add(pixel * nr + lane)), mean);
            let masked = |d: S::V, g: S::V| S::where_positive(S::fma(d, scale[v], shift[v]), g);
            let pooled = |i: usize| S::mul(S::load(pooled_grad.as_ptr().add(i * nr + lane)), quarter);
            let zero = S::splat(0.0);
            // One chain of sums for each pixel of the 2x2 window.
            let (mut sum, mut dot) = ([zero; 4], [zero; 4]);
            for py in 0..ph {
                for px in 0..pw {
                    let g = pooled(py * pw + px);
                    let first = 2 * py * width + 2 * px;
                    for (chain, pixel) in [first, first + 1, first + width, first + width + 1].into_iter().enumerate() {
                        let d = centred(pixel);
                        let dz = masked(d, g);
                        sum[chain] = S::add(sum[chain], dz);
                        dot[chain] = S::fma(dz, d, dot[chain]);
                    }
                }
            }
            let sum = S::add(S::add(sum[0], sum[1]), S::add(sum[2], sum[3]));
            let dot = S::mul(S::add(S::add(dot[0], dot[1]), S::add(dot[2], dot[3])), inverse);
            S::store(sums.as_mut_ptr().add(lane), dot);
            S::store(sums.as_mut_ptr().add(nr + lane), sum);
            // dy = scale * (dz - mean(dz) - xhat * mean(dz * xhat)), with xhat = d * inverse.
            let n = S::splat(1.0 / (height * width) as f32);
            let mean_dz = S::mul(sum, n);
            let slope = S::mul(S::mul(dot, n), inverse);
            for i in 0..height {
                for j in 0..width {
                    let d = centred(i * width + j);
                    let rest = S::add(mean_dz, S::mul(d, slope));
                    let inside = i / 2 < ph && j / 2 < pw;
                    let dz = if inside { masked(d, pooled((i / 2) * pw + j / 2)) } else { zero };
                    let to = grad.as_mut_ptr().add((origin + i * row + j) * nr + lane);
                    S::store(to, S::mul(S::sub(dz, rest), scale[v]));
                }
            }
        }
    }
}

/// Scale times 1 / deviation, and shift.
///
/// # Safety
/// `affine` and `stats` hold 2 NR floats each; for the rest see [`Simd`].
#[inline(always)]
unsafe fn scale_and_shift<S: Simd, const NV: usize>(affine: &[f32], stats: &[f32]) -> ([S::V; NV], [S::V; NV]) {
    let nr = NV * S::LANES;
    // SAFETY: by the contract above.
    unsafe {
        let at = |from: &[f32], i: usize| S::load(from.as_ptr().add(i));
        (
            std::array::from_fn(|v| S::mul(at(affine, v * S::LANES), at(stats, nr + v * S::LANES))),
            std::array::from_fn(|v| at(affine, nr + v * S::LANES)),
        )
    }
}

/// The sum of `value(pixel, vector)` over pixels, in four chains: short sums round less and don't wait for each other.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn sum_pixels<S: Simd, const NV: usize>(pixels: usize, value: impl Fn(usize, usize) -> S::V) -> [S::V; NV] {
    // SAFETY: arithmetic only.
    unsafe {
        let mut chains = [[S::splat(0.0); NV]; 4];
        let whole = pixels / 4 * 4;
        let mut i = 0;
        while i < whole {
            for (c, chain) in chains.iter_mut().enumerate() {
                for v in 0..NV {
                    chain[v] = S::add(chain[v], value(i + c, v));
                }
            }
            i += 4;
        }
        for i in whole..pixels {
            for v in 0..NV {
                chains[0][v] = S::add(chains[0][v], value(i, v));
            }
        }
        std::array::from_fn(|v| S::add(S::add(chains[0][v], chains[1][v]), S::add(chains[2][v], chains[3][v])))
    }
}
