//! A block of angles `[row][NR]` flows in; its cosines and sines, summed or weighted, flow out.
//!
//! A safe function checks lengths once and calls the unsafe body that [`kernel!`] compiles for each path.

// Loops over constant bounds by index are what the compiler unrolls into registers.
#![allow(clippy::needless_range_loop)]

use crate::kernels::simd::{Path, Simd, kernel};
use crate::kernels::sincos::{COS_SCALE, sin_cos};

/// Where the cosines and the sines of one row are summed.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub cos: *mut i64,
    pub sin: *mut i64,
}

/// Adds each row's cosines and sines, in units of 1 / [`COS_SCALE`], to the integers `column..column + NR` of its sums.
///
/// # Safety
/// Each of `sums` points to at least `column + NR` integers that no one else reads or writes now; several rows may share them.
pub(super) unsafe fn add_sums(path: Path, angles: &[f32], sums: &[Sums], column: usize) {
    assert!(angles.len() >= sums.len() * path.tile().1);
    // SAFETY: the assert and the caller bound every address that the body forms; `path` was detected.
    unsafe { add_sums_on(path, angles, sums, column) }
}

kernel!(fn add_sums_on(angles: &[f32], sums: &[Sums], column: usize) = add_sums_body);

#[inline(always)]
unsafe fn add_sums_body<S: Simd, const MR: usize, const NV: usize>(angles: &[f32], sums: &[Sums], column: usize) {
    for (angles, sums) in angles.chunks_exact(NV * S::LANES).zip(sums) {
        for v in 0..NV {
            let lane = v * S::LANES;
            // SAFETY: `add_sums`'s contract.
            unsafe {
                let (s, c) = sin_cos::<S>(S::load(angles.as_ptr().add(lane)));
                let scale = S::splat(COS_SCALE as f32);
                S::add_rounded(sums.cos.add(column + lane), S::mul(c, scale));
                S::add_rounded(sums.sin.add(column + lane), S::mul(s, scale));
            }
        }
    }
}

/// The mean cosine and the mean sine of each class's rows, `[2][classes][NR]`, summed in the order of the rows; zeros for a class without
/// rows. `offsets` are where each class begins, and the number of rows at the end.
pub(super) fn means(path: Path, angles: &[f32], offsets: &[usize], to: &mut [f32]) {
    let (nr, classes) = (path.tile().1, offsets.len() - 1);
    assert!(offsets.is_sorted() && angles.len() >= offsets[classes] * nr && to.len() == 2 * classes * nr);
    // SAFETY: the assert bounds every address that the body forms; `path` was detected.
    unsafe { means_on(path, angles, offsets, to) }
}

kernel!(fn means_on(angles: &[f32], offsets: &[usize], to: &mut [f32]) = means_body);

#[inline(always)]
unsafe fn means_body<S: Simd, const MR: usize, const NV: usize>(angles: &[f32], offsets: &[usize], to: &mut [f32]) {
    let nr = NV * S::LANES;
    let (cos, sin) = to.split_at_mut(to.len() / 2);
    for (rows, (cos, sin)) in offsets.windows(2).zip(cos.chunks_exact_mut(nr).zip(sin.chunks_exact_mut(nr))) {
        // SAFETY: `means` checked the lengths.
        unsafe {
            let mut sums = [[S::splat(0.0); NV]; 2];
            for row in rows[0]..rows[1] {
                for v in 0..NV {
                    let (s, c) = sin_cos::<S>(S::load(angles.as_ptr().add(row * nr + v * S::LANES)));
                    sums[0][v] = S::add(sums[0][v], c);
                    sums[1][v] = S::add(sums[1][v], s);
                }
            }
            let share = S::splat(1.0 / (rows[1] - rows[0]).max(1) as f32);
            for v in 0..NV {
                S::store(cos.as_mut_ptr().add(v * S::LANES), S::mul(sums[0][v], share));
                S::store(sin.as_mut_ptr().add(v * S::LANES), S::mul(sums[1][v], share));
            }
        }
    }
}

/// The backward pass of [`means`]: its gradient `[2][classes][NR]` to that for the angles `[row][NR]`.
pub(super) fn means_backward(path: Path, angles: &[f32], offsets: &[usize], gradient: &[f32], to: &mut [f32]) {
    let (nr, classes) = (path.tile().1, offsets.len() - 1);
    let length = offsets[classes] * nr;
    assert!(offsets.is_sorted() && angles.len() >= length && to.len() >= length && gradient.len() == 2 * classes * nr);
    // SAFETY: the assert bounds every address that the body forms; `path` was detected.
    unsafe { backward_on(path, angles, offsets, gradient, to) }
}

kernel!(fn backward_on(angles: &[f32], offsets: &[usize], gradient: &[f32], to: &mut [f32]) = backward_body);

#[inline(always)]
unsafe fn backward_body<S: Simd, const MR: usize, const NV: usize>(
    angles: &[f32],
    offsets: &[usize],
    gradient: &[f32],
    to: &mut [f32],
) {
    let nr = NV * S::LANES;
    let (by_cos, by_sin) = gradient.split_at(gradient.len() / 2);
    for (rows, (by_cos, by_sin)) in offsets.windows(2).zip(by_cos.chunks_exact(nr).zip(by_sin.chunks_exact(nr))) {
        // SAFETY: `means_backward` checked the lengths.
        unsafe {
            let share = S::splat(1.0 / (rows[1] - rows[0]).max(1) as f32);
            let of = |by: &[f32], v: usize| S::mul(S::load(by.as_ptr().add(v * S::LANES)), share);
            let by_cos: [S::V; NV] = std::array::from_fn(|v| of(by_cos, v));
            let by_sin: [S::V; NV] = std::array::from_fn(|v| of(by_sin, v));
            for row in rows[0]..rows[1] {
                for v in 0..NV {
                    let at = row * nr + v * S::LANES;
                    let (s, c) = sin_cos::<S>(S::load(angles.as_ptr().add(at)));
                    // d cos(a) = -sin(a) da, d sin(a) = cos(a) da.
                    S::store(to.as_mut_ptr().add(at), S::sub(S::mul(c, by_sin[v]), S::mul(s, by_cos[v])));
                }
            }
        }
    }
}
