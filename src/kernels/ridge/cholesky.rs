//! A symmetric positive definite matrix flows in; its Cholesky factor, and solutions of systems with it, flow out, in float64.
//!
//! The factor is upper triangular, `K = U^T U`, and lies in panels of [`WIDTH`] columns: panel p holds rows `0..WIDTH * (p + 1)`, row by
//! row. One product of tiles does nearly all the work: of the factor, of both triangular solves and of the gradient's outer product. Every
//! number is computed by one thread in one order.

// Loops over constant bounds by index are what the compiler unrolls into registers.
#![allow(clippy::needless_range_loop)]

use crate::kernels::simd::Path;

/// Columns of a panel, and rows and columns of a tile.
pub(super) const WIDTH: usize = 16;
/// Floats of a tile.
const TILE: usize = WIDTH * WIDTH;

/// The factor of one matrix.
#[derive(Debug)]
pub(super) struct Cholesky {
    path: Path,
    /// Panels.
    blocks: usize,
    panels: Vec<f64>,
    /// 1 / diagonal.
    inverse: Vec<f64>,
}

/// A pivot that is not positive: the matrix has no factor.
#[derive(Debug)]
pub(super) struct BadPivot {
    pub row: usize,
    pub pivot: f64,
}

/// Where panel `p` begins.
fn start(p: usize) -> usize {
    TILE * p * (p + 1) / 2
}

impl Cholesky {
    /// Factors the matrix of `n` rows whose element `(i, j)`, `i <= j`, is `at(i, j)`.
    pub fn new(path: Path, n: usize, at: impl Fn(usize, usize) -> f64) -> Result<Self, BadPivot> {
        let blocks = n.div_ceil(WIDTH);
        let mut panels = vec![0.0; start(blocks)];
        for p in 0..blocks {
            // Tile by tile: `at` may read the transposed element too.
            for (row_block, tile) in panels[start(p)..start(p + 1)].chunks_exact_mut(TILE).enumerate() {
                for (row, to) in tile.chunks_exact_mut(WIDTH).enumerate() {
                    let i = row_block * WIDTH + row;
                    for (column, to) in to.iter_mut().enumerate() {
                        let j = p * WIDTH + column;
                        // After the last row goes the identity.
                        *to = if i > j {
                            0.0
                        } else if j < n {
                            at(i, j)
                        } else {
                            f64::from(i == j)
                        };
                    }
                }
            }
        }
        // A pivot that is nothing but the rounding of its row's diagonal element says nothing.
        let least = |i: usize| if i < n { (at(i, i) * f64::EPSILON * n as f64).max(0.0) } else { 0.0 };
        let least: Vec<f64> = (0..blocks * WIDTH).map(least).collect();
        let mut factor = Self { path, blocks, panels, inverse: vec![0.0; blocks * WIDTH] };
        // SAFETY: the lengths are the body's contract; `path` was detected.
        match unsafe { factor_on(path, &mut factor.panels, blocks, &least, &mut factor.inverse) } {
            None => Ok(factor),
            Some(bad) => Err(bad),
        }
    }

    /// Rows of the systems, in whole tiles.
    pub fn rows(&self) -> usize {
        self.blocks * WIDTH
    }

    /// Solves `K x = y` in place for one panel `[rows][WIDTH]` of right sides.
    pub fn solve(&self, y: &mut [f64]) {
        assert_eq!(y.len(), self.blocks * TILE);
        // SAFETY: the assert is the body's contract; `path` was detected.
        unsafe { solve_on(self.path, &self.panels, self.blocks, &self.inverse, y) }
    }

    /// `tile - sum over k of a[k][i] * b[k][j]` for panels `a` and `b`, `[k][WIDTH]` each, into `tile` `[WIDTH][WIDTH]`.
    pub fn subtract_outer(&self, a: &[f64], b: &[f64], tile: &mut [f64]) {
        assert!(a.len() == b.len() && a.len().is_multiple_of(WIDTH) && tile.len() == TILE);
        // SAFETY: the assert is the body's contract; `path` was detected.
        unsafe { outer_on(self.path, a, b, tile) }
    }
}

/// A vector of f64 lanes in one register.
///
/// # Safety
/// Every function needs the instructions of its implementor. Loads and stores touch `LANES` numbers at the pointer.
#[allow(clippy::missing_safety_doc)] // the trait's section holds for each function
trait Doubles: Copy {
    type V: Copy;
    const LANES: usize;
    unsafe fn splat(value: f64) -> Self::V;
    unsafe fn load(from: *const f64) -> Self::V;
    unsafe fn store(to: *mut f64, v: Self::V);
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `c - a * b`, rounded once where the processor can.
    unsafe fn minus_product(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

#[derive(Clone, Copy)]
struct Plain;

impl Doubles for Plain {
    type V = [f64; 2];
    const LANES: usize = 2;
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self::V {
        [value; 2]
    }
    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self::V {
        // SAFETY: the caller vouches for the lanes; an array of f64 is aligned as f64 is.
        unsafe { *from.cast::<[f64; 2]>() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f64, v: Self::V) {
        // SAFETY: as in `load`.
        unsafe { *to.cast::<[f64; 2]>() = v }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        [a[0] * b[0], a[1] * b[1]]
    }
    #[inline(always)]
    unsafe fn minus_product(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [c[0] - a[0] * b[0], c[1] - a[1] * b[1]]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Doubles;
    use crate::kernels::simd::intrinsics;

    intrinsics! {
        "Four lanes of AVX2 with FMA.", Avx2: Doubles, { type V = __m256d; } 4,
        splat(value: f64) -> __m256d = _mm256_set1_pd(value);
        load(from: *const f64) -> __m256d = _mm256_loadu_pd(from);
        store(to: *mut f64, v: __m256d) -> () = _mm256_storeu_pd(to, v);
        mul(a: __m256d, b: __m256d) -> __m256d = _mm256_mul_pd(a, b);
        minus_product(a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fnmadd_pd(a, b, c);
    }

    intrinsics! {
        "Eight lanes of AVX-512F.", Avx512: Doubles, { type V = __m512d; } 8,
        splat(value: f64) -> __m512d = _mm512_set1_pd(value);
        load(from: *const f64) -> __m512d = _mm512_loadu_pd(from);
        store(to: *mut f64, v: __m512d) -> () = _mm512_storeu_pd(to, v);
        mul(a: __m512d, b: __m512d) -> __m512d = _mm512_mul_pd(a, b);
        minus_product(a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fnmadd_pd(a, b, c);
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Doubles;
    use crate::kernels::simd::intrinsics;

    intrinsics! {
        "Two lanes of NEON.", Neon: Doubles, { type V = float64x2_t; } 2,
        splat(value: f64) -> float64x2_t = vdupq_n_f64(value);
        load(from: *const f64) -> float64x2_t = vld1q_f64(from);
        store(to: *mut f64, v: float64x2_t) -> () = vst1q_f64(to, v);
        mul(a: float64x2_t, b: float64x2_t) -> float64x2_t = vmulq_f64(a, b);
        minus_product(a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t = vfmsq_f64(c, a, b);
    }
}

/// Compiles `body::<D, MR, NV>` for each path, with `NV * LANES = WIDTH`, and calls the one that is asked for.
macro_rules! on_path {
    (fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:ident) => {
        unsafe fn $name(path: Path, $($arg: $ty),*) -> $ret {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) -> $ret {
                // SAFETY: the caller's contract; the instructions are enabled here.
                unsafe { $body::<x86::Avx2, 2, 4>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($arg: $ty),*) -> $ret {
                // SAFETY: the caller's contract; the instructions are enabled here.
                unsafe { $body::<x86::Avx512, 8, 2>($($arg),*) }
            }
            // SAFETY: the caller's contract; paths come from `Path::usable`, so the processor has the instructions.
            unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    Path::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Path::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Path::Neon => $body::<arm::Neon, 2, 8>($($arg),*),
                    _ => $body::<Plain, 1, 8>($($arg),*),
                }
            }
        }
    };
}

on_path!(fn factor_on(panels: &mut [f64], blocks: usize, least: &[f64], inverse: &mut [f64]) -> Option<BadPivot> = factor);
on_path!(fn solve_on(panels: &[f64], blocks: usize, inverse: &[f64], y: &mut [f64]) -> () = solve);
on_path!(fn outer_on(a: &[f64], b: &[f64], tile: &mut [f64]) -> () = outer);

/// Factors the matrix in `panels` in place.
///
/// # Safety
/// `panels` holds `start(blocks)` numbers, `least` and `inverse` a number for each row; for the rest see [`Doubles`].
#[inline(always)]
unsafe fn factor<D: Doubles, const MR: usize, const NV: usize>(
    panels: &mut [f64],
    blocks: usize,
    least: &[f64],
    inverse: &mut [f64],
) -> Option<BadPivot> {
    for block in 0..blocks {
        let (first, rows) = (block * WIDTH, block * WIDTH..(block + 1) * WIDTH);
        let diagonal = start(block) + block * TILE;
        // SAFETY: rows 0..first of panel p lie before its tile `block`, which is in `panels` as p >= block.
        unsafe {
            let all = panels.as_mut_ptr();
            let a = all.add(start(block));
            subtract::<D, MR, NV>(all.add(diagonal), a, [WIDTH, 1], a, first);
        }
        let tile = &mut panels[diagonal..diagonal + TILE];
        if let Some((row, pivot)) = factor_tile(tile, &least[rows.clone()], &mut inverse[rows.clone()]) {
            return Some(BadPivot { row: first + row, pivot });
        }
        for p in block + 1..blocks {
            // SAFETY: as above; the diagonal tile is another one.
            unsafe {
                let all = panels.as_mut_ptr();
                let tile = all.add(start(p) + block * TILE);
                subtract::<D, MR, NV>(tile, all.add(start(block)), [WIDTH, 1], all.add(start(p)), first);
                solve_tile::<D, NV>(all.add(diagonal), &inverse[rows.clone()], tile, false);
            }
        }
    }
    None
}

/// Factors one tile on the diagonal. Gives the row and the pivot that is not above its least.
fn factor_tile(tile: &mut [f64], least: &[f64], inverse: &mut [f64]) -> Option<(usize, f64)> {
    for j in 0..WIDTH {
        let pivot = tile[j * WIDTH + j];
        if pivot.is_nan() || pivot <= least[j] || pivot.is_infinite() {
            return Some((j, pivot));
        }
        let root = pivot.sqrt();
        inverse[j] = 1.0 / root;
        tile[j * WIDTH + j] = root;
        let (above, below) = tile.split_at_mut((j + 1) * WIDTH);
        let row = &mut above[j * WIDTH..];
        row[j + 1..].iter_mut().for_each(|u| *u *= inverse[j]);
        for (k, to) in (j + 1..WIDTH).zip(below.chunks_exact_mut(WIDTH)) {
            let factor = row[k];
            to[k..].iter_mut().zip(&row[k..]).for_each(|(to, u)| *to -= factor * u);
        }
    }
    None
}

/// Solves `U^T U x = y` in place.
///
/// # Safety
/// `panels` holds `start(blocks)` numbers, `inverse` one for each row, `y` a tile for each block; for the rest see [`Doubles`].
#[inline(always)]
unsafe fn solve<D: Doubles, const MR: usize, const NV: usize>(
    panels: &[f64],
    blocks: usize,
    inverse: &[f64],
    y: &mut [f64],
) {
    let all = panels.as_ptr();
    let y = y.as_mut_ptr();
    for block in 0..blocks {
        // SAFETY: rows before `block` of y, and of the factor's panel, lie before the tiles that are written.
        unsafe {
            let (panel, tile) = (all.add(start(block)), y.add(block * TILE));
            subtract::<D, MR, NV>(tile, panel, [WIDTH, 1], y, block * WIDTH);
            solve_tile::<D, NV>(panel.add(block * TILE), &inverse[block * WIDTH..], tile, false);
        }
    }
    for block in (0..blocks).rev() {
        // SAFETY: as above; tile `block` of panel p is there as p >= block.
        unsafe {
            let tile = y.add(block * TILE);
            for p in block + 1..blocks {
                let u = all.add(start(p) + block * TILE);
                subtract::<D, MR, NV>(tile, u, [1, WIDTH], y.add(p * TILE), WIDTH);
            }
            let diagonal = all.add(start(block) + block * TILE);
            solve_tile::<D, NV>(diagonal, &inverse[block * WIDTH..], tile, true);
        }
    }
}

/// `tile - a^T b`.
///
/// # Safety
/// `a` and `b` are panels of the same length, `tile` is one tile; for the rest see [`Doubles`].
#[inline(always)]
unsafe fn outer<D: Doubles, const MR: usize, const NV: usize>(a: &[f64], b: &[f64], tile: &mut [f64]) {
    // SAFETY: the contract above.
    unsafe { subtract::<D, MR, NV>(tile.as_mut_ptr(), a.as_ptr(), [WIDTH, 1], b.as_ptr(), a.len() / WIDTH) }
}

/// Subtracts from each row i of `tile` the sum over `k < count` of `a[k * step + i * stride]` times row k of `b`, in the order of k.
///
/// # Safety
/// `tile` holds a tile, `b` `count` rows of a panel, `a` all that is read; what is written is nothing that is read; for the rest see
/// [`Doubles`].
#[inline(always)]
unsafe fn subtract<D: Doubles, const MR: usize, const NV: usize>(
    tile: *mut f64,
    a: *const f64,
    [step, stride]: [usize; 2],
    b: *const f64,
    count: usize,
) {
    for first in (0..WIDTH).step_by(MR) {
        // SAFETY: the contract above.
        unsafe {
            let at = |i: usize, v: usize| tile.add((first + i) * WIDTH + v * D::LANES);
            let mut acc: [[D::V; NV]; MR] = std::array::from_fn(|i| std::array::from_fn(|v| D::load(at(i, v))));
            for k in 0..count {
                let b: [D::V; NV] = std::array::from_fn(|v| D::load(b.add(k * WIDTH + v * D::LANES)));
                for i in 0..MR {
                    let a = D::splat(*a.add(k * step + (first + i) * stride));
                    for v in 0..NV {
                        acc[i][v] = D::minus_product(a, b[v], acc[i][v]);
                    }
                }
            }
            for i in 0..MR {
                for v in 0..NV {
                    D::store(at(i, v), acc[i][v]);
                }
            }
        }
    }
}

/// Solves `U^T x = tile` (or `U x = tile`, if `upper`) in place for the tile `u` on the diagonal.
///
/// # Safety
/// `u` and `tile` hold a tile each, `inverse` a number for each row; for the rest see [`Doubles`].
#[inline(always)]
unsafe fn solve_tile<D: Doubles, const NV: usize>(u: *const f64, inverse: &[f64], tile: *mut f64, upper: bool) {
    for turn in 0..WIDTH {
        let (j, rest) = if upper { (WIDTH - 1 - turn, 0..WIDTH - 1 - turn) } else { (turn, turn + 1..WIDTH) };
        // SAFETY: the contract above.
        unsafe {
            let at = |i: usize, v: usize| tile.add(i * WIDTH + v * D::LANES);
            let scale = D::splat(inverse[j]);
            let x: [D::V; NV] = std::array::from_fn(|v| D::mul(D::load(at(j, v)), scale));
            for v in 0..NV {
                D::store(at(j, v), x[v]);
            }
            for i in rest {
                let factor = D::splat(*u.add(if upper { i * WIDTH + j } else { j * WIDTH + i }));
                for v in 0..NV {
                    D::store(at(i, v), D::minus_product(factor, x[v], D::load(at(i, v))));
                }
            }
        }
    }
}
