//! Angles flow in, cosines and sines in fixed point flow out, added to integer sums.
//!
//! One polynomial of plain multiplications and additions (no tables, no library, no fused operations): its bits are the same on
//! every path.

use crate::kernels::simd::{Path, Plain, Simd, kernel};

/// Fixed-point units per 1.0 of a cosine or sine.
pub const COS_SCALE: f64 = (1u64 << 30) as f64;

/// Sines and cosines of `x` with an absolute error below 1.5e-7 for `|x| <= 8192`, all in `[-1, 1]`. Angles of
/// normalised features stay below the norm of a frequency, about the root of the feature length.
///
/// Reduction to `[-pi/4, pi/4]` in three parts (Cody and Waite), minimax polynomials of degree 7 and 8 (Moshier's Cephes `sinf.c`).
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
pub(super) unsafe fn sin_cos<S: Simd>(x: S::V) -> (S::V, S::V) {
    // Adding 1.5 * 2^23 rounds to the nearest integer, whose low bits then are those of the sum.
    const MAGIC: f32 = 12_582_912.0;
    // pi / 2 in three parts; the first two have 8 and 11 bits, so that their products with a quadrant number are exact.
    const HALF_PI: [f32; 3] = [1.570_312_5, 4.837_513e-4, 7.549_79e-8];
    // SAFETY: arithmetic only.
    unsafe {
        let by = |v: S::V, factor: f32| S::mul(v, S::splat(factor));
        let plus = |v: S::V, term: f32| S::add(v, S::splat(term));
        let quadrant = plus(by(x, std::f32::consts::FRAC_2_PI), MAGIC);
        let k = plus(quadrant, -MAGIC);
        let r = HALF_PI.into_iter().fold(x, |r, part| S::sub(r, by(k, part)));
        let z = S::mul(r, r);
        let s = plus(S::mul(plus(by(z, -1.951_529_6e-4), 8.332_161e-3), z), -1.666_665_5e-1);
        let s = S::add(S::mul(S::mul(s, z), r), r);
        let c = plus(S::mul(plus(by(z, 2.443_315_7e-5), -1.388_731_6e-3), z), 4.166_664_6e-2);
        let c = plus(S::sub(S::mul(S::mul(c, z), z), by(z, 0.5)), 1.0);
        let (sin, cos) = (S::where_odd(quadrant, c, s), S::where_odd(quadrant, s, c));
        // The cosine is the sine one quadrant on.
        let sin = S::negate_by_second_bit(quadrant, sin);
        let cos = S::negate_by_second_bit(plus(quadrant, 1.0), cos);
        (S::clamp_unit(sin), S::clamp_unit(cos))
    }
}

/// `x` rounded to the nearest integer, ties to even, for `|x| < 2^51`: a form that vectorizes.
#[inline(always)]
pub(crate) fn fixed(x: f64) -> i64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    ((x + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
}

/// Adds the cosine and the sine of each angle, in units of 1 / [`COS_SCALE`], to `cos` and `sin` of the same length.
pub(crate) fn add(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    add_on(Path::detect(), angles, cos, sin);
}

fn add_on(path: Path, angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    assert_eq!([cos.len(), sin.len()], [angles.len(); 2]);
    let lanes = path.lanes();
    let whole = angles.len() / lanes * lanes;
    // SAFETY: three slices of the same length; `path` was detected.
    unsafe { add_whole(path, &angles[..whole], &mut cos[..whole], &mut sin[..whole]) };
    // SAFETY: as above; one lane of plain Rust fits any length.
    unsafe { add_body::<Plain<1>, 1, 1>(&angles[whole..], &mut cos[whole..], &mut sin[whole..]) };
}

kernel!(fn add_whole(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) = add_body);

/// # Safety
/// All lengths are the same multiple of the lanes; for the rest see [`Simd`].
#[inline(always)]
unsafe fn add_body<S: Simd, const MR: usize, const NV: usize>(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    for i in (0..angles.len()).step_by(S::LANES) {
        // SAFETY: by the contract, LANES items are left from each index on.
        unsafe {
            let (s, c) = sin_cos::<S>(S::load(angles.as_ptr().add(i)));
            let scale = S::splat(COS_SCALE as f32);
            S::add_rounded(cos.as_mut_ptr().add(i), S::mul(c, scale));
            S::add_rounded(sin.as_mut_ptr().add(i), S::mul(s, scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Angles over the whole range, dense where they are common, and the hard ones near multiples of pi / 4.
    fn angles() -> Vec<f32> {
        let grid = (-200_000..=200_000).map(|i| i as f32 * 1e-4);
        let wide = (-40_000..=40_000).map(|i| i as f32 * (8192.0 / 40_000.0));
        let hard = (-10_000..=10_000).map(|i| (f64::from(i) * std::f64::consts::FRAC_PI_4) as f32);
        let tiny = [0.0, -0.0, f32::MIN_POSITIVE, 1e-40, -1e-40, f32::EPSILON];
        grid.chain(wide).chain(hard).chain(tiny).collect()
    }

    fn scalar(x: f32) -> (f32, f32) {
        // SAFETY: plain Rust.
        let ([s], [c]) = unsafe { sin_cos::<Plain<1>>([x]) };
        (s, c)
    }

    #[test]
    fn sine_and_cosine_are_right_to_1_5e_7_and_never_leave_the_unit_interval() {
        for x in angles() {
            let (s, c) = scalar(x);
            let (es, ec) = (f64::from(s) - f64::from(x).sin(), f64::from(c) - f64::from(x).cos());
            assert!(es.abs() < 1.5e-7 && ec.abs() < 1.5e-7, "{x}: {es:e} {ec:e}");
            assert!(s.abs() <= 1.0 && c.abs() <= 1.0);
        }
    }

    #[test]
    fn every_path_adds_the_bits_of_scalar_code() {
        let x = angles();
        for path in Path::usable() {
            let (mut cos, mut sin) = (vec![3; x.len()], vec![-5; x.len()]);
            add_on(path, &x, &mut cos, &mut sin);
            for i in 0..x.len() {
                let (s, c) = scalar(std::hint::black_box(x[i]));
                assert_eq!(cos[i], 3 + (f64::from(c) * COS_SCALE).round_ties_even() as i64, "{path:?} {}", x[i]);
                assert_eq!(sin[i], -5 + (f64::from(s) * COS_SCALE).round_ties_even() as i64, "{path:?} {}", x[i]);
            }
        }
    }

    #[test]
    fn fixed_rounds_to_nearest_with_ties_to_even() {
        for x in [0.0, 0.5, 1.5, -0.5, -2.5, 0.49999, -7.0, 4_294_967_296.0, -4_294_967_295.75] {
            assert_eq!(fixed(x), f64::round_ties_even(x) as i64, "{x}");
        }
    }
}
