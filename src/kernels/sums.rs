//! Integer sums of stored sketches flow in; whether their rows can have them, and what they add up to or leave, flow out.
//!
//! Plain Rust, which the compiler turns into the widest instructions of each path: what limits is the memory that the sums are read from.

use crate::kernels::simd::{Path, Simd, kernel};

/// Largest limit here, just below 2^62: a sum and a limit of that size don't overflow when they are added.
pub(crate) const MOST: i64 = (1 << 62) - 1;

/// Whether all of `sums` are within +-`limit`, at most [`MOST`].
pub(crate) fn within(sums: &[i64], limit: i64) -> bool {
    assert!((0..=MOST).contains(&limit), "a limit of {limit}");
    let mut signs = 0;
    // SAFETY: safe code, for instructions that were detected.
    unsafe { within_on(Path::detect(), sums, limit, &mut signs) };
    signs >= 0
}

/// Adds `from` to `to`, of the same length; gives whether all of `from` is within +-`limit`, at most [`MOST`]. Sums that overflow wrap around: [`subtract`] takes them back.
pub(crate) fn add(to: &mut [i64], from: &[i64], limit: i64) -> bool {
    assert!((0..=MOST).contains(&limit), "a limit of {limit}");
    assert_eq!(to.len(), from.len(), "sums to add");
    let mut signs = 0;
    // SAFETY: as in `within`.
    unsafe { add_on(Path::detect(), to, from, limit, &mut signs) };
    signs >= 0
}

/// Takes back `from` from `to`, of the same length, to which it was added.
pub(crate) fn subtract(to: &mut [i64], from: &[i64]) {
    assert_eq!(to.len(), from.len(), "sums to take back");
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.wrapping_sub(*from));
}

/// Writes `here - there`, numbers within +-[`MOST`], to `left`, all of the same length; gives whether all of it is within +-`limit`, at most [`MOST`].
pub(crate) fn difference(here: &[i64], there: &[i64], limit: i64, left: &mut [i64]) -> bool {
    assert!((0..=MOST).contains(&limit), "a limit of {limit}");
    assert_eq!([here.len(); 2], [there.len(), left.len()], "sums to subtract");
    let mut signs = 0;
    // SAFETY: as in `within`.
    unsafe { difference_on(Path::detect(), here, there, limit, left, &mut signs) };
    signs >= 0
}

/// Whether none of `values` is infinite or NaN.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    let mut largest = 0;
    // SAFETY: as in `within`.
    unsafe { largest_on(Path::detect(), values, &mut largest) };
    largest < f32::INFINITY.to_bits()
}

kernel! {
    fn within_on(sums: &[i64], limit: i64, signs: &mut i64) = within_body
}

kernel! {
    fn add_on(to: &mut [i64], from: &[i64], limit: i64, signs: &mut i64) = add_body
}

kernel! {
    fn difference_on(here: &[i64], there: &[i64], limit: i64, left: &mut [i64], signs: &mut i64) = difference_body
}

kernel! {
    fn largest_on(values: &[f32], largest: &mut u32) = largest_body
}

/// Negative if and only if `sum` isn't within +-`limit`, for a limit of at most [`MOST`]: signs that are or-ed together answer for many sums without a branch.
#[inline(always)]
fn outside(sum: i64, limit: i64) -> i64 {
    sum.wrapping_add(limit) | limit.wrapping_sub(sum)
}

#[inline(always)]
unsafe fn within_body<S: Simd, const MR: usize, const NV: usize>(sums: &[i64], limit: i64, signs: &mut i64) {
    *signs = sums.iter().fold(0, |signs, sum| signs | outside(*sum, limit));
}

#[inline(always)]
unsafe fn add_body<S: Simd, const MR: usize, const NV: usize>(
    to: &mut [i64],
    from: &[i64],
    limit: i64,
    signs: &mut i64,
) {
    let mut found = 0;
    for (to, from) in to.iter_mut().zip(from) {
        found |= outside(*from, limit);
        *to = to.wrapping_add(*from);
    }
    *signs = found;
}

#[inline(always)]
unsafe fn difference_body<S: Simd, const MR: usize, const NV: usize>(
    here: &[i64],
    there: &[i64],
    limit: i64,
    left: &mut [i64],
    signs: &mut i64,
) {
    let mut found = 0;
    for ((left, here), there) in left.iter_mut().zip(here).zip(there) {
        // Of numbers within 2^62 the difference doesn't overflow.
        *left = here.wrapping_sub(*there);
        found |= outside(*left, limit);
    }
    *signs = found;
}

#[inline(always)]
unsafe fn largest_body<S: Simd, const MR: usize, const NV: usize>(values: &[f32], largest: &mut u32) {
    // Without their sign, the bits of numbers have the order of their sizes, those of infinity and NaN are the largest.
    *largest = values.iter().fold(0, |largest, value| largest.max(value.to_bits() & i32::MAX as u32));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_path_finds_what_is_outside_and_adds_and_subtracts(
            pairs in prop::collection::vec((-MOST..=MOST, -MOST..=MOST), 0..70),
            limit in prop_oneof![0..=MOST, Just(MOST)],
            values in prop::collection::vec(any::<f32>(), 0..40),
        ) {
            let (here, there): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
            let wide = |f: fn(i128, i128) -> i128| {
                here.iter().zip(&there).map(|(a, b)| f(i128::from(*a), i128::from(*b))).collect::<Vec<_>>()
            };
            let inside = |sums: &[i128]| sums.iter().all(|sum| sum.unsigned_abs() <= limit.unsigned_abs().into());
            for path in Path::usable() {
                let (mut signs, mut of_sum, mut of_left, mut largest) = (0, 0, 0, 0);
                let (mut sum, mut left) = (here.clone(), vec![0; here.len()]);
                // SAFETY: safe code, for instructions that were detected.
                unsafe {
                    within_on(path, &here, limit, &mut signs);
                    add_on(path, &mut sum, &there, limit, &mut of_sum);
                    difference_on(path, &here, &there, limit, &mut left, &mut of_left);
                    largest_on(path, &values, &mut largest);
                }
                prop_assert_eq!(signs >= 0, inside(&wide(|a, _| a)));
                prop_assert_eq!(of_sum >= 0, inside(&wide(|_, b| b)));
                prop_assert_eq!(of_left >= 0, inside(&wide(|a, b| a - b)));
                prop_assert_eq!(&sum, &wide(|a, b| a + b).iter().map(|v| *v as i64).collect::<Vec<_>>());
                subtract(&mut sum, &there);
                prop_assert_eq!(&sum, &here);
                prop_assert_eq!(left, wide(|a, b| a - b).iter().map(|v| *v as i64).collect::<Vec<_>>());
                prop_assert_eq!(largest < f32::INFINITY.to_bits(), values.iter().all(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn the_public_forms_say_the_same() {
        assert!(within(&[5, -5], 5) && !within(&[i64::MIN], MOST) && !within(&[6], 5));
        let mut left = [0; 2];
        assert!(difference(&[5, MOST], &[2, MOST], 3, &mut left) && left == [3, 0]);
        assert!(!difference(&[MOST, 0], &[-MOST, 0], MOST, &mut left));
        assert!(all_finite(&[1.0, -0.0, f32::MIN]) && !all_finite(&[f32::NAN]) && !all_finite(&[f32::NEG_INFINITY]));
        let mut to = [1, 2];
        assert!(add(&mut to, &[3, 4], 4) && to == [4, 6]);
        assert!(!add(&mut to, &[3, i64::MIN], 4));
        subtract(&mut to, &[3, i64::MIN]);
        assert_eq!(to, [4, 6]);
    }
}
