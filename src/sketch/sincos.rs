//! Angles flow in, cosines and sines in fixed point flow out, added to integer sums.
//!
//! One polynomial of plain multiplications and additions (no tables, no library, no fused operations): the compiler turns
//! it into vector code, and its bits are the same on every CPU.

/// Sine and cosine of `x` with an absolute error below 1.5e-7 for `|x| <= 8192`, both in `[-1, 1]`. Angles of
/// normalised features stay below the norm of a frequency, about the root of the feature length.
///
/// Reduction to `[-pi/4, pi/4]` in three parts (Cody and Waite), minimax polynomials of degree 7 and 8 (Moshier's Cephes `sinf.c`).
#[inline(always)]
pub(crate) fn sin_cos(x: f32) -> (f32, f32) {
    // Adding 1.5 * 2^23 rounds to the nearest integer, whose low bits then are those of the sum.
    const MAGIC: f32 = 12_582_912.0;
    // pi / 2 in three parts; the first two have 8 and 11 bits, so that their products with a quadrant number are exact.
    const HALF_PI: [f32; 3] = [1.570_312_5, 4.837_513e-4, 7.549_79e-8];
    let shifted = x * std::f32::consts::FRAC_2_PI + MAGIC;
    let quadrant = shifted.to_bits();
    let k = shifted - MAGIC;
    let r = ((x - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2];
    let z = r * r;
    let s = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let c = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (s, c) = if quadrant & 1 == 0 { (s, c) } else { (c, s) };
    let s = f32::from_bits(s.to_bits() ^ ((quadrant & 2) << 30));
    let c = f32::from_bits(c.to_bits() ^ ((quadrant.wrapping_add(1) & 2) << 30));
    (s.clamp(-1.0, 1.0), c.clamp(-1.0, 1.0))
}

/// `x` rounded to the nearest integer, ties to even, for `|x| < 2^51`: a form that vectorizes.
#[inline(always)]
pub(crate) fn fixed(x: f64) -> i64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    ((x + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
}

#[inline(always)]
fn add_body(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    for ((x, cos), sin) in angles.iter().zip(cos).zip(sin) {
        let (s, c) = sin_cos(*x);
        *cos += fixed(f64::from(c) * super::COS_SCALE);
        *sin += fixed(f64::from(s) * super::COS_SCALE);
    }
}

#[inline(always)]
fn fill_body(angles: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    for ((x, cos), sin) in angles.iter().zip(cos).zip(sin) {
        (*sin, *cos) = sin_cos(*x);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_avx2(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    add_body(angles, cos, sin);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(angles: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    fill_body(angles, cos, sin);
}

/// Adds the cosine and the sine of each angle, in units of 1 / [`COS_SCALE`](super::COS_SCALE), to `cos` and `sin`.
pub(crate) fn add(angles: &[f32], cos: &mut [i64], sin: &mut [i64]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, the only thing the function asks for. Same operations, same bits, wider vectors.
        return unsafe { add_avx2(angles, cos, sin) };
    }
    add_body(angles, cos, sin);
}

/// Writes the cosine and the sine of each angle to `cos` and `sin`.
pub(crate) fn fill(angles: &[f32], cos: &mut [f32], sin: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: as in `add`.
        return unsafe { fill_avx2(angles, cos, sin) };
    }
    fill_body(angles, cos, sin);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Angles over the whole range, dense where they are common, and the hard ones near multiples of pi / 4.
    fn angles() -> Vec<f32> {
        let grid = (-200_000..=200_000).map(|i| i as f32 * 1e-4);
        let wide = (-40_000..=40_000).map(|i| i as f32 * (8192.0 / 40_000.0));
        let hard = (-10_000..=10_000).map(|i| (f64::from(i) * std::f64::consts::FRAC_PI_4) as f32);
        grid.chain(wide).chain(hard).collect()
    }

    #[test]
    fn sine_and_cosine_are_right_to_1_5e_7_and_never_leave_the_unit_interval() {
        for x in angles() {
            let (s, c) = sin_cos(x);
            let (es, ec) = (f64::from(s) - f64::from(x).sin(), f64::from(c) - f64::from(x).cos());
            assert!(es.abs() < 1.5e-7 && ec.abs() < 1.5e-7, "{x}: {es:e} {ec:e}");
            assert!(s.abs() <= 1.0 && c.abs() <= 1.0);
        }
    }

    #[test]
    fn vector_code_has_the_bits_of_scalar_code() {
        let x = angles();
        let (mut cos, mut sin) = (vec![3; x.len()], vec![-5; x.len()]);
        let (mut cos_f, mut sin_f) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        add(&x, &mut cos, &mut sin);
        fill(&x, &mut cos_f, &mut sin_f);
        for i in 0..x.len() {
            let (s, c) = sin_cos(std::hint::black_box(x[i]));
            assert_eq!((s, c), (sin_f[i], cos_f[i]), "{}", x[i]);
            assert_eq!(cos[i], 3 + (f64::from(c) * super::super::COS_SCALE).round_ties_even() as i64);
            assert_eq!(sin[i], -5 + (f64::from(s) * super::super::COS_SCALE).round_ties_even() as i64);
        }
    }

    #[test]
    fn fixed_rounds_to_nearest_with_ties_to_even() {
        for x in [0.0, 0.5, 1.5, -0.5, -2.5, 0.49999, -7.0, 4_294_967_296.0, -4_294_967_295.75] {
            assert_eq!(fixed(x), f64::round_ties_even(x) as i64, "{x}");
        }
    }
}
