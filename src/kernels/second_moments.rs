//! Rows of small integers flow in; the exact sums of the products of their values, two at a time, flow out.
//!
//! Rows are packed in pairs, so that one 32-bit lane holds the same column of both: the processor's dot product of 16-bit pairs then sums
//! over rows. Integer sums don't depend on order: the results are the same on every path and for every thread count.

use rayon::prelude::*;

use crate::kernels::simd::Path;

/// Largest absolute value of a row's integers: 12 bits with their sign.
pub const MOMENT_BOUND: i16 = 2047;

/// Rows whose products of two 12-bit integers a 32-bit sum holds: 512 * 2047^2 < 2^31.
const ROWS: usize = 512;

/// Below so many products, threads cost more than they save.
const PARALLEL: usize = 1 << 20;

/// Adds the sum over rows r of `r[i] * r[j]`, for i <= j, to the upper triangle `sums`, packed row by row: element (i, j) is at
/// `i * dim - i * (i - 1) / 2 + j - i`, `dim * (dim + 1) / 2` in all.
///
/// `rows` are whole rows of `dim` values in +-[`MOMENT_BOUND`]. Runs on the current rayon pool where there is enough to do. Exact: any split
/// of the rows into calls, any order and any thread count give the same sums.
///
/// Panics if lengths don't fit together or a value is out of bounds.
pub fn second_moments(rows: &[i16], dim: usize, sums: &mut [i64]) {
    add(Instructions::of(Path::detect()), rows, dim, sums);
}

fn add(instructions: Instructions, rows: &[i16], dim: usize, sums: &mut [i64]) {
    assert!(dim > 0 && rows.len().is_multiple_of(dim), "{} numbers are no rows of {dim}", rows.len());
    assert_eq!(sums.len(), dim * (dim + 1) / 2, "the triangle's length for rows of {dim}");
    let nr = instructions.tile().1;
    let blocks = dim.div_ceil(nr);
    let most_pairs = (rows.len() / dim).min(ROWS).div_ceil(2);
    let mut packed = vec![0i16; blocks * most_pairs * 2 * nr];
    for rows in rows.chunks(ROWS * dim) {
        let count = rows.len() / dim;
        let pairs = count.div_ceil(2);
        let packed = &mut packed[..blocks * pairs * 2 * nr];
        let parallel = rayon::current_num_threads() > 1 && count * dim * dim >= PARALLEL;
        let work = packed.chunks_mut(pairs * 2 * nr).enumerate();
        in_turns(parallel, work, |(block, packed)| {
            assert!(pack(rows, dim, block * nr, nr, packed), "a value lies outside of +-{MOMENT_BOUND}");
        });
        let packed = &*packed;
        in_turns(parallel, row_blocks(dim, nr, sums), |(first, sums)| {
            assert!(first < dim && packed.len() == blocks * pairs * 2 * nr);
            assert!(sums.len() == start(dim, (first + nr).min(dim)) - start(dim, first));
            // SAFETY: the asserts are the body's contract; the instructions were detected.
            unsafe { add_block_on(instructions, packed, pairs, dim, first, sums) };
        });
    }
}

/// Calls `f` on each item, on the current rayon pool or here.
fn in_turns<T: Send>(parallel: bool, work: impl Iterator<Item = T> + Send, f: impl Fn(T) + Send + Sync) {
    if parallel { work.par_bridge().for_each(f) } else { work.for_each(f) }
}

/// Where row `i` of the packed triangle begins.
fn start(dim: usize, i: usize) -> usize {
    i * (2 * dim + 1 - i) / 2
}

/// The triangle in blocks of `nr` rows, each with its first row.
fn row_blocks(dim: usize, nr: usize, sums: &mut [i64]) -> impl Iterator<Item = (usize, &mut [i64])> {
    let mut rest = sums;
    (0..dim).step_by(nr).map(move |first| {
        let length = start(dim, (first + nr).min(dim)) - start(dim, first);
        let (block, others) = std::mem::take(&mut rest).split_at_mut(length);
        rest = others;
        (first, block)
    })
}

/// Packs columns `first..first + nr` as `[pair][nr][2]`, zeros where rows or columns end. `false` if a value is out of bounds.
fn pack(rows: &[i16], dim: usize, first: usize, nr: usize, packed: &mut [i16]) -> bool {
    let width = nr.min(dim - first);
    let mut inside = true;
    for (rows, to) in rows.chunks(2 * dim).zip(packed.chunks_exact_mut(2 * nr)) {
        let (even, odd) = rows.split_at(dim);
        let even = &even[first..first + width];
        let odd = if odd.is_empty() { &[0; 64][..width] } else { &odd[first..first + width] };
        let mut outside = 0;
        for ((to, e), o) in to.chunks_exact_mut(2).zip(even).zip(odd) {
            to[0] = *e;
            to[1] = *o;
            outside |= i16::from(e.wrapping_abs() as u16 > MOMENT_BOUND as u16);
            outside |= i16::from(o.wrapping_abs() as u16 > MOMENT_BOUND as u16);
        }
        to[2 * width..].fill(0);
        inside &= outside == 0;
    }
    inside
}

/// The instructions that the moments use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // each processor family knows only its own
enum Instructions {
    /// AVX-512 with VNNI: products and their sum in one.
    Vnni,
    /// AVX-512BW.
    Avx512,
    Avx2,
    Neon,
    Portable,
    /// The sizes of AVX-512 in plain Rust, so that tests meet them on any processor.
    #[cfg(test)]
    Wide,
}

impl Instructions {
    /// The widest that `path` and the processor allow.
    fn of(path: Path) -> Self {
        match path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") => {
                Self::Vnni
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if is_x86_feature_detected!("avx512bw") => Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 | Path::Avx2 if is_x86_feature_detected!("avx2") => Self::Avx2,
            #[cfg(target_arch = "aarch64")]
            Path::Neon => Self::Neon,
            #[cfg(test)]
            Path::Wide => Self::Wide,
            _ => Self::Portable,
        }
    }

    /// Rows and columns of the register tile, as [`add_block_on`] instantiates it; the rows divide the columns.
    fn tile(self) -> (usize, usize) {
        match self {
            Self::Vnni | Self::Avx512 => (8, 32),
            Self::Avx2 => (4, 16),
            Self::Neon | Self::Portable => (4, 8),
            #[cfg(test)]
            Self::Wide => (8, 32),
        }
    }
}

/// A vector of 32-bit sums, and of pairs of 16-bit integers.
///
/// # Safety
/// Every function needs the instructions of its implementor. Loads touch `LANES` pairs, stores `LANES` sums.
#[allow(clippy::missing_safety_doc)] // the trait's section holds for each function
trait PairDot: Copy {
    type Pairs: Copy;
    type Sums: Copy;
    const LANES: usize;
    unsafe fn zero() -> Self::Sums;
    unsafe fn load(from: *const i16) -> Self::Pairs;
    /// The pair at `from` in every lane.
    unsafe fn splat(from: *const i16) -> Self::Pairs;
    /// `sums + a.0 * b.0 + a.1 * b.1`.
    unsafe fn dot(sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums;
    unsafe fn store(to: *mut i32, sums: Self::Sums);
}

#[derive(Clone, Copy)]
struct Plain<const N: usize>;

impl<const N: usize> PairDot for Plain<N> {
    type Pairs = [[i16; 2]; N];
    type Sums = [i32; N];
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        [0; N]
    }
    #[inline(always)]
    unsafe fn load(from: *const i16) -> Self::Pairs {
        // SAFETY: the caller vouches for N pairs; arrays of i16 are aligned as i16 is.
        unsafe { *from.cast::<[[i16; 2]; N]>() }
    }
    #[inline(always)]
    unsafe fn splat(from: *const i16) -> Self::Pairs {
        // SAFETY: as in `load`.
        unsafe { [*from.cast::<[i16; 2]>(); N] }
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, a: Self::Pairs, b: Self::Pairs) -> Self::Sums {
        let product = |a: i16, b: i16| i32::from(a) * i32::from(b);
        std::array::from_fn(|i| sums[i] + product(a[i][0], b[i][0]) + product(a[i][1], b[i][1]))
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, sums: Self::Sums) {
        // SAFETY: the caller vouches for N sums.
        unsafe { *to.cast::<[i32; N]>() = sums }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::PairDot;
    use crate::kernels::simd::intrinsics;

    intrinsics! {
        "Sixteen lanes of AVX-512 with VNNI.", Vnni: PairDot, { type Pairs = __m512i; type Sums = __m512i; } 16,
        zero() -> __m512i = _mm512_setzero_si512();
        load(from: *const i16) -> __m512i = _mm512_loadu_si512(from.cast());
        splat(from: *const i16) -> __m512i = _mm512_set1_epi32(from.cast::<i32>().read_unaligned());
        dot(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_dpwssd_epi32(sums, a, b);
        store(to: *mut i32, sums: __m512i) -> () = _mm512_storeu_si512(to.cast(), sums);
    }

    intrinsics! {
        "Sixteen lanes of AVX-512BW.", Avx512: PairDot, { type Pairs = __m512i; type Sums = __m512i; } 16,
        zero() -> __m512i = _mm512_setzero_si512();
        load(from: *const i16) -> __m512i = _mm512_loadu_si512(from.cast());
        splat(from: *const i16) -> __m512i = _mm512_set1_epi32(from.cast::<i32>().read_unaligned());
        dot(sums: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
        store(to: *mut i32, sums: __m512i) -> () = _mm512_storeu_si512(to.cast(), sums);
    }

    intrinsics! {
        "Eight lanes of AVX2.", Avx2: PairDot, { type Pairs = __m256i; type Sums = __m256i; } 8,
        zero() -> __m256i = _mm256_setzero_si256();
        load(from: *const i16) -> __m256i = _mm256_loadu_si256(from.cast());
        splat(from: *const i16) -> __m256i = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
        dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
        store(to: *mut i32, sums: __m256i) -> () = _mm256_storeu_si256(to.cast(), sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::PairDot;
    use crate::kernels::simd::intrinsics;

    // The sums of four lanes in two halves, the two products of a lane beside each other until they are stored.
    intrinsics! {
        "Four lanes of NEON.", Neon: PairDot, { type Pairs = int16x8_t; type Sums = [int32x4_t; 2]; } 4,
        zero() -> [int32x4_t; 2] = [vdupq_n_s32(0); 2];
        load(from: *const i16) -> int16x8_t = vld1q_s16(from);
        splat(from: *const i16) -> int16x8_t = vreinterpretq_s16_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned()));
        dot(sums: [int32x4_t; 2], a: int16x8_t, b: int16x8_t) -> [int32x4_t; 2] =
            [vmlal_s16(sums[0], vget_low_s16(a), vget_low_s16(b)), vmlal_high_s16(sums[1], a, b)];
        store(to: *mut i32, sums: [int32x4_t; 2]) -> () = vst1q_s32(to, vpaddq_s32(sums[0], sums[1]));
    }
}

/// Adds rows `first..first + NR` of the triangle to `sums`.
///
/// # Safety
/// `packed` is `[dim / NR, rounded up][pairs][NR][2]`, `first` a multiple of NR below `dim`, `sums` the triangle's rows from `first` on, NR
/// of them or what is left; the processor has the instructions.
unsafe fn add_block_on(
    instructions: Instructions,
    packed: &[i16],
    pairs: usize,
    dim: usize,
    first: usize,
    sums: &mut [i64],
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn vnni(packed: &[i16], pairs: usize, dim: usize, first: usize, sums: &mut [i64]) {
        // SAFETY: the caller's contract; the instructions are enabled here.
        unsafe { add_block::<x86::Vnni, 8, 2, 32>(packed, pairs, dim, first, sums) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn avx512(packed: &[i16], pairs: usize, dim: usize, first: usize, sums: &mut [i64]) {
        // SAFETY: the caller's contract; the instructions are enabled here.
        unsafe { add_block::<x86::Avx512, 8, 2, 32>(packed, pairs, dim, first, sums) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn avx2(packed: &[i16], pairs: usize, dim: usize, first: usize, sums: &mut [i64]) {
        // SAFETY: the caller's contract; the instructions are enabled here.
        unsafe { add_block::<x86::Avx2, 4, 2, 16>(packed, pairs, dim, first, sums) }
    }
    // SAFETY: the caller's contract.
    unsafe {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Vnni => vnni(packed, pairs, dim, first, sums),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => avx512(packed, pairs, dim, first, sums),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => avx2(packed, pairs, dim, first, sums),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => add_block::<arm::Neon, 4, 2, 8>(packed, pairs, dim, first, sums),
            #[cfg(test)]
            Instructions::Wide => add_block::<Plain<16>, 8, 2, 32>(packed, pairs, dim, first, sums),
            _ => add_block::<Plain<4>, 4, 2, 8>(packed, pairs, dim, first, sums),
        }
    }
}

/// The body of [`add_block_on`], with `NR = NV * LANES`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // what the compiler unrolls into registers
unsafe fn add_block<D: PairDot, const MR: usize, const NV: usize, const NR: usize>(
    packed: &[i16],
    pairs: usize,
    dim: usize,
    first: usize,
    sums: &mut [i64],
) {
    let panel = pairs * 2 * NR;
    let mut tile = [[0i32; NR]; MR];
    // The panel of the columns stays in the first cache while the tiles of the block's rows go by.
    for column in (first..dim).step_by(NR) {
        let width = NR.min(dim - column);
        for row in (first..dim.min(first + NR)).step_by(MR) {
            // SAFETY: both panels lie in `packed` by the contract; the tile has MR * NR sums.
            unsafe {
                let mut a = packed.as_ptr().add(first / NR * panel + 2 * (row - first));
                let mut b = packed.as_ptr().add(column / NR * panel);
                let mut acc = [[D::zero(); NV]; MR];
                for _ in 0..pairs {
                    let columns: [D::Pairs; NV] = std::array::from_fn(|v| D::load(b.add(v * 2 * D::LANES)));
                    for i in 0..MR {
                        let value = D::splat(a.add(2 * i));
                        for v in 0..NV {
                            acc[i][v] = D::dot(acc[i][v], value, columns[v]);
                        }
                    }
                    a = a.add(2 * NR);
                    b = b.add(2 * NR);
                }
                for i in 0..MR {
                    for v in 0..NV {
                        D::store(tile[i].as_mut_ptr().add(v * D::LANES), acc[i][v]);
                    }
                }
            }
            for (i, tile) in (row..dim.min(row + MR)).zip(&tile) {
                let from = start(dim, i) - start(dim, first);
                let (begin, skip) = if column > i { (from + column - i, 0) } else { (from, i - column) };
                let to = &mut sums[begin..begin + width - skip];
                to.iter_mut().zip(&tile[skip..width]).for_each(|(to, sum)| *to += i64::from(*sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;
    use crate::random;

    fn usable() -> Vec<Instructions> {
        let mut usable: Vec<Instructions> = Path::usable().into_iter().map(Instructions::of).collect();
        if usable.contains(&Instructions::Vnni) {
            usable.push(Instructions::Avx512);
        }
        usable
    }

    fn draw(count: usize, seed: u64) -> Vec<i16> {
        let mut stream = random::stream(seed, "test");
        (0..count).map(|_| stream.random_range(-MOMENT_BOUND..=MOMENT_BOUND)).collect()
    }

    fn plainly(rows: &[i16], dim: usize) -> Vec<i64> {
        let mut sums = vec![];
        for i in 0..dim {
            for j in i..dim {
                sums.push(rows.chunks(dim).map(|r| i64::from(r[i]) * i64::from(r[j])).sum());
            }
        }
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn every_path_adds_the_exact_sums_for_any_shape(dim in 1usize..150, count in 0usize..40, seed in 0u64..1000) {
            let rows = draw(dim * count, seed);
            let expected: Vec<i64> = plainly(&rows, dim).iter().map(|s| s - 7).collect();
            for instructions in usable() {
                let mut sums = vec![-7; dim * (dim + 1) / 2];
                add(instructions, &rows, dim, &mut sums);
                prop_assert_eq!(&sums, &expected, "{:?}", instructions);
            }
        }
    }

    #[test]
    fn more_rows_than_a_32_bit_sum_holds_are_exact_at_the_bounds() {
        for (count, dim) in [(ROWS, 3), (ROWS + 1, 33), (3 * ROWS - 1, 5)] {
            for instructions in usable() {
                for value in [MOMENT_BOUND, -MOMENT_BOUND] {
                    let mut sums = vec![0; dim * (dim + 1) / 2];
                    add(instructions, &vec![value; count * dim], dim, &mut sums);
                    let each = count as i64 * i64::from(value) * i64::from(value);
                    assert!(sums.iter().all(|s| *s == each), "{instructions:?} {count} {dim}");
                }
            }
        }
    }

    #[test]
    fn threads_and_splits_into_calls_change_nothing() {
        let (dim, count) = (130, 700);
        let rows = draw(dim * count, 1);
        let expected = plainly(&rows, dim);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for rows_a_call in [count, 256, 33] {
                let mut sums = vec![0; dim * (dim + 1) / 2];
                pool.install(|| {
                    rows.chunks(rows_a_call * dim).for_each(|rows| second_moments(rows, dim, &mut sums));
                });
                assert_eq!(sums, expected, "{threads} threads, {rows_a_call} rows a call");
            }
        }
    }

    #[test]
    fn values_out_of_bounds_are_refused_wherever_they_stand() {
        for (at, value) in [(0, 2048), (5, -2048), (19, i16::MIN)] {
            let mut rows = [1i16; 20];
            rows[at] = value;
            let refused = std::panic::catch_unwind(|| second_moments(&rows, 4, &mut [0; 10]));
            assert!(refused.is_err(), "{value} at {at}");
        }
    }
}
