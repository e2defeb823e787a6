//! Tiles of pixels, kernels and gradients flow in, their frequencies flow out, and back: the transforms of F(4x4, 3x3) and of its gradient for the kernel.
//!
//! Points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, section 4.2; their matrices B, G and A). With a tile `d`, a kernel `g` and `*` element by element, the result is
//! `y = A^T [(G g G^T) * (B^T d B)] A`; so, given the gradient `e` for `y`, that for `g` is `G^T [(A e A^T) * (B^T d B)] G`, where the bracket may be summed over tiles first.
//! What a tile has beyond a plane's end counts as 0.

// Loops over constant bounds by index are what the compiler unrolls into registers.
#![allow(clippy::needless_range_loop)]

use std::array::from_fn;

use super::{REACH, SIDE};
use crate::kernels::simd::{Simd, kernel};

kernel!(pub(super) fn input(grid: &[f32], block: usize, row: usize, valid: [usize; 2], tiles: [usize; 2], input: &mut [f32], channels: usize, stride: usize) = input_body);

/// B^T d B for each of `tiles` and channel; `valid` rows and columns of the grid are read.
///
/// # Safety
/// `grid` holds `((valid[0] - 1) * row + valid[1]) * block` floats, and `input` `[..][block]` at `f * stride + t * channels` for each frequency `f` of each tile `t`; `block` is a
/// multiple of the lanes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn input_body<S: Simd, const MR: usize, const NV: usize>(
    grid: &[f32],
    block: usize,
    row: usize,
    valid: [usize; 2],
    [rows, columns]: [usize; 2],
    input: &mut [f32],
    channels: usize,
    stride: usize,
) {
    // SAFETY: by the contract above, pixels inside `valid` and frequencies of tiles are in bounds.
    unsafe {
        for tile in 0..rows * columns {
            let (top, left) = (SIDE * (tile / columns), SIDE * (tile % columns));
            let from = grid.as_ptr().wrapping_add((top * row + left) * block);
            let to = input.as_mut_ptr().add(tile * channels);
            let [high, wide] = [valid[0].saturating_sub(top), valid[1].saturating_sub(left)];
            if high >= REACH && wide >= REACH {
                input_tile::<S, true>(from, block, row, [REACH; 2], to, stride);
            } else {
                input_tile::<S, false>(from, block, row, [high, wide], to, stride);
            }
        }
    }
}

/// One tile, of which `high` rows and `wide` columns are read: all if `WHOLE`.
///
/// # Safety
/// As for [`input_body`].
#[inline(always)]
unsafe fn input_tile<S: Simd, const WHOLE: bool>(
    from: *const f32,
    block: usize,
    row: usize,
    [high, wide]: [usize; 2],
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: by the contract above.
    unsafe {
        for lane in (0..block).step_by(S::LANES) {
            let zero = S::splat(0.0);
            let mut d = [[zero; REACH]; REACH];
            for x in 0..REACH {
                let at = from.wrapping_add(x * block + lane);
                let column = from_fn(|y| {
                    let inside = WHOLE || (y < high && x < wide);
                    if inside { S::load(at.wrapping_add(y * row * block)) } else { zero }
                });
                let column = by_input::<S>(column);
                for y in 0..REACH {
                    d[y][x] = column[y];
                }
            }
            for y in 0..REACH {
                for (x, value) in by_input::<S>(d[y]).into_iter().enumerate() {
                    S::store(to.add((REACH * y + x) * stride + lane), value);
                }
            }
        }
    }
}

/// B^T of six values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn by_input<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: arithmetic only.
    unsafe {
        let (four, minus_four, minus_five) = (S::splat(4.0), S::splat(-4.0), S::splat(-5.0));
        let (even, odd) = (S::fma(minus_four, c, e), S::fma(minus_four, b, d));
        let (even_half, odd_half) = (S::sub(e, c), S::mul(S::splat(2.0), S::sub(d, b)));
        [
            S::fma(four, a, S::fma(minus_five, c, e)),
            S::add(even, odd),
            S::sub(even, odd),
            S::add(even_half, odd_half),
            S::sub(even_half, odd_half),
            S::fma(four, b, S::fma(minus_five, d, f)),
        ]
    }
}

kernel!(pub(super) fn output(products: &[f32], stride: usize, height: usize, width: usize, y: &mut [f32]) = output_body);

/// A^T m A for each tile and result.
///
/// # Safety
/// `products` holds NR floats at `f * stride + t * NR` for each frequency `f` of each tile `t`, `y` `height * width` pixels of NR.
#[inline(always)]
unsafe fn output_body<S: Simd, const MR: usize, const NV: usize>(
    products: &[f32],
    stride: usize,
    height: usize,
    width: usize,
    y: &mut [f32],
) {
    let nr = NV * S::LANES;
    let columns = width.div_ceil(SIDE);
    // SAFETY: by the contract above.
    unsafe {
        for tile in 0..height.div_ceil(SIDE) * columns {
            let (top, left) = (SIDE * (tile / columns), SIDE * (tile % columns));
            for lane in (0..nr).step_by(S::LANES) {
                let from = products.as_ptr().add(tile * nr + lane);
                let mut half = [[S::splat(0.0); REACH]; SIDE];
                for x in 0..REACH {
                    let column = from_fn(|y| S::load(from.add((REACH * y + x) * stride)));
                    let column = by_output::<S>(column);
                    for y in 0..SIDE {
                        half[y][x] = column[y];
                    }
                }
                for (i, line) in half.into_iter().enumerate().take(height - top) {
                    let to = y.as_mut_ptr().add(((top + i) * width + left) * nr + lane);
                    for (j, value) in by_output::<S>(line).into_iter().enumerate().take(width - left) {
                        S::store(to.add(j * nr), value);
                    }
                }
            }
        }
    }
}

/// A^T of six values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn by_output<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: arithmetic only.
    unsafe {
        let (ones, halves) = (S::add(b, c), S::add(d, e));
        let (one, half) = (S::sub(b, c), S::sub(d, e));
        [
            S::add(a, S::add(ones, halves)),
            S::fma(S::splat(2.0), half, one),
            S::fma(S::splat(4.0), halves, ones),
            S::add(f, S::fma(S::splat(8.0), half, one)),
        ]
    }
}

kernel!(pub(super) fn kernels(kernels: &[f32], to: &mut [f32], stride: usize) = kernels_body);

/// `G g G^T` of NR kernels, `[tap][NR]`: frequency `f` goes to `to[f * stride..][..NR]`.
///
/// # Safety
/// `kernels` holds 9 NR floats, `to` NR at each `f * stride`.
#[inline(always)]
unsafe fn kernels_body<S: Simd, const MR: usize, const NV: usize>(kernels: &[f32], to: &mut [f32], stride: usize) {
    let nr = NV * S::LANES;
    // SAFETY: by the contract above.
    unsafe {
        for lane in (0..nr).step_by(S::LANES) {
            let at = kernels.as_ptr().add(lane);
            let mut half = [[S::splat(0.0); 3]; REACH];
            for x in 0..3 {
                let column = by_kernel::<S>(from_fn(|y| S::load(at.add((3 * y + x) * nr))));
                for y in 0..REACH {
                    half[y][x] = column[y];
                }
            }
            for (y, line) in half.into_iter().enumerate() {
                for (x, value) in by_kernel::<S>(line).into_iter().enumerate() {
                    S::store(to.as_mut_ptr().add((REACH * y + x) * stride + lane), value);
                }
            }
        }
    }
}

/// G of three values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn by_kernel<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 6] {
    // SAFETY: arithmetic only.
    unsafe {
        let sixth = S::splat(-1.0 / 6.0);
        let (ends, middle) = (S::mul(sixth, S::add(a, c)), S::mul(sixth, b));
        let (wide_ends, wide_middle) =
            (S::fma(S::splat(1.0 / 24.0), a, S::mul(S::splat(1.0 / 6.0), c)), S::mul(S::splat(1.0 / 12.0), b));
        [
            S::mul(S::splat(0.25), a),
            S::add(ends, middle),
            S::sub(ends, middle),
            S::add(wide_ends, wide_middle),
            S::sub(wide_ends, wide_middle),
            c,
        ]
    }
}

kernel!(pub(super) fn result_gradient(grad: &[f32], row: usize, size: [usize; 2], to: &mut [f32], stride: usize) = result_gradient_body);

/// A e A^T for each tile of one block of NR channels, of which a pixel is `[NR]` and `size` are there, a row `row` pixels after the one before: tile `t`'s frequency
/// `f` goes to `to[f * stride + t * NR..][..NR]`.
///
/// # Safety
/// `grad` holds `((size[0] - 1) * row + size[1]) * NR` floats, `to` NR at each `f * stride + t * NR`.
#[inline(always)]
unsafe fn result_gradient_body<S: Simd, const MR: usize, const NV: usize>(
    grad: &[f32],
    row: usize,
    [height, width]: [usize; 2],
    to: &mut [f32],
    stride: usize,
) {
    let nr = NV * S::LANES;
    let columns = width.div_ceil(SIDE);
    // SAFETY: by the contract above; only pixels inside `size` are read.
    unsafe {
        for tile in 0..height.div_ceil(SIDE) * columns {
            let (top, left) = (SIDE * (tile / columns), SIDE * (tile % columns));
            let (high, wide) = (height - top, width - left);
            for lane in (0..nr).step_by(S::LANES) {
                let zero = S::splat(0.0);
                let from = grad.as_ptr().add((top * row + left) * nr + lane);
                let mut half = [[zero; SIDE]; REACH];
                for x in 0..SIDE {
                    let column =
                        from_fn(|y| if y < high && x < wide { S::load(from.add((y * row + x) * nr)) } else { zero });
                    let column = by_result::<S>(column);
                    for y in 0..REACH {
                        half[y][x] = column[y];
                    }
                }
                let to = to.as_mut_ptr().add(tile * nr + lane);
                for (y, line) in half.into_iter().enumerate() {
                    for (x, value) in by_result::<S>(line).into_iter().enumerate() {
                        S::store(to.add((REACH * y + x) * stride), value);
                    }
                }
            }
        }
    }
}

/// A of four values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn by_result<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 6] {
    // SAFETY: arithmetic only.
    unsafe {
        let (even, odd) = (S::add(a, c), S::add(b, d));
        let (wide_even, wide_odd) = (S::fma(S::splat(4.0), c, a), S::mul(S::splat(2.0), S::fma(S::splat(4.0), d, b)));
        [a, S::add(even, odd), S::sub(even, odd), S::add(wide_even, wide_odd), S::sub(wide_even, wide_odd), d]
    }
}

kernel!(pub(super) fn kernels_gradient(sums: &[f32], stride: usize, channels: usize, to: &mut [f32]) = kernels_gradient_body);

/// G^T s G for each of `channels` and NR results: frequency `f` of channel `c` is `sums[f * stride + c * NR..][..NR]`, the gradient for its taps
/// `to[9 * c * NR..][..9 * NR]`.
///
/// # Safety
/// `sums` holds NR floats at each `f * stride + c * NR`, `to` `9 * channels * NR`.
#[inline(always)]
unsafe fn kernels_gradient_body<S: Simd, const MR: usize, const NV: usize>(
    sums: &[f32],
    stride: usize,
    channels: usize,
    to: &mut [f32],
) {
    let nr = NV * S::LANES;
    // SAFETY: by the contract above.
    unsafe {
        for channel in 0..channels {
            for lane in (0..nr).step_by(S::LANES) {
                let from = sums.as_ptr().add(channel * nr + lane);
                let mut half = [[S::splat(0.0); REACH]; 3];
                for x in 0..REACH {
                    let column = by_frequency::<S>(from_fn(|y| S::load(from.add((REACH * y + x) * stride))));
                    for y in 0..3 {
                        half[y][x] = column[y];
                    }
                }
                let to = to.as_mut_ptr().add(9 * channel * nr + lane);
                for (y, line) in half.into_iter().enumerate() {
                    for (x, value) in by_frequency::<S>(line).into_iter().enumerate() {
                        S::store(to.add((3 * y + x) * nr), value);
                    }
                }
            }
        }
    }
}

/// G^T of six values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn by_frequency<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 3] {
    // SAFETY: arithmetic only.
    unsafe {
        let sixth = S::splat(1.0 / 6.0);
        let (ones, twos) = (S::add(b, c), S::add(d, e));
        let (one, two) = (S::sub(c, b), S::sub(d, e));
        [
            S::fma(S::splat(0.25), a, S::sub(S::mul(S::splat(1.0 / 24.0), twos), S::mul(sixth, ones))),
            S::fma(S::splat(1.0 / 12.0), two, S::mul(sixth, one)),
            S::fma(sixth, S::sub(twos, ones), f),
        ]
    }
}
