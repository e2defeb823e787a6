//! Integer sums of stored sketches flow in; whether their rows can have them, and what they add up to or leave, flow out.
//!
//! Plain Rust, which the compiler turns into the widest instructions of each path: what limits is the memory that the sums are read from.

use std::mem::MaybeUninit;

use crate::kernels::simd::{self, Path, Simd, kernel};

/// Largest limit here. The difference of two sums within it that overflows, 2^63, wraps around to a number outside of it.
pub(crate) const MOST: i64 = 1 << 62;

/// Smallest and largest of some sums: of none, what any sum widens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    least: i64,
    most: i64,
}

impl Extent {
    const NONE: Self = Self { least: i64::MAX, most: i64::MIN };

    /// Two instructions a vector, where a comparison with a limit takes three or four.
    #[inline(always)]
    fn widen(&mut self, sum: i64) {
        self.least = self.least.min(sum);
        self.most = self.most.max(sum);
    }

    fn within(self, limit: i64) -> bool {
        self.most <= limit && self.least >= -limit
    }
}

/// Whether all of `sums` are within +-`limit`, at most [`MOST`].
pub(crate) fn within(sums: &[i64], limit: i64) -> bool {
    assert!((0..=MOST).contains(&limit), "a limit of {limit}");
    let mut extent = Extent::NONE;
    // SAFETY: safe code, for instructions that were detected.
    unsafe { extent_on(Path::detect(), sums, &mut extent) };
    extent.within(limit)
}

/// How many lists [`add_several`] adds at once.
pub(crate) const SEVERAL: usize = 4;

/// Adds `from` to `to`, of the same length; gives whether all of `from` is within +-`limit`, at most [`MOST`]. Sums that overflow wrap around: [`subtract`] takes them back.
pub(crate) fn add(to: &mut [i64], from: &[i64], limit: i64) -> bool {
    assert!((0..=MOST).contains(&limit), "a limit of {limit}");
    assert_eq!(to.len(), from.len(), "sums to add");
    let mut extent = Extent::NONE;
    // SAFETY: as in `within`.
    unsafe { add_on(Path::detect(), to, from, &mut extent) };
    extent.within(limit)
}

/// [`add`] of several lists, each with a limit of its own: `to`, which the cache may not hold beside what is read, is fetched and written once for all of them.
pub(crate) fn add_several(to: &mut [i64], from: [&[i64]; SEVERAL], limits: [i64; SEVERAL]) -> bool {
    assert!(limits.iter().all(|limit| (0..=MOST).contains(limit)), "limits of {limits:?}");
    assert!(from.iter().all(|from| from.len() == to.len()), "sums to add");
    let mut extents = [Extent::NONE; SEVERAL];
    // SAFETY: as in `within`.
    unsafe { add_several_on(Path::detect(), to, from, &mut extents) };
    extents.iter().zip(limits).all(|(extent, limit)| extent.within(limit))
}

/// Takes back `from` from `to`, of the same length, to which it was added.
pub(crate) fn subtract(to: &mut [i64], from: &[i64]) {
    assert_eq!(to.len(), from.len(), "sums to take back");
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.wrapping_sub(*from));
}

/// Appends `here - there`, all of the same length, to `left`; gives whether all of `here`, all of `there` and all that is left is within +- its limit of `limits`, at most [`MOST`] each.
/// Where the first two aren't, what is left means nothing.
///
/// `past_cache`: what is written isn't read again soon, so let it leave the caches to what is.
pub(crate) fn difference(
    here: &[i64],
    there: &[i64],
    limits: [i64; 3],
    left: &mut Vec<i64>,
    past_cache: bool,
) -> [bool; 3] {
    assert!(limits.iter().all(|limit| (0..=MOST).contains(limit)), "limits of {limits:?}");
    assert_eq!(here.len(), there.len(), "sums to subtract");
    let extents = difference_of(Path::detect(), here, there, left, past_cache);
    std::array::from_fn(|i| extents[i].within(limits[i]))
}

/// Gives the extents of `here`, of `there` and of what is left.
fn difference_of(path: Path, here: &[i64], there: &[i64], left: &mut Vec<i64>, past_cache: bool) -> [Extent; 3] {
    left.reserve(here.len());
    let room = &mut left.spare_capacity_mut()[..here.len()];
    // Where writes past the caches begin: at a whole line of them.
    let aligned = if past_cache { room.as_ptr().align_offset(64).min(room.len()) } else { room.len() };
    let mut extents = [Extent::NONE; 3];
    // SAFETY: the path was detected, and the part of `room` from `aligned` on begins at a multiple of 64 bytes.
    // All of `room` is written, so that `left` has as many more numbers.
    unsafe {
        difference_on(path, here, there, room, aligned, &mut extents);
        left.set_len(left.len() + here.len());
    }
    extents
}

/// Whether none of `values` is infinite or NaN.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    let mut largest = 0;
    // SAFETY: as in `within`.
    unsafe { largest_on(Path::detect(), values, &mut largest) };
    largest < f32::INFINITY.to_bits()
}

kernel! {
    fn extent_on(sums: &[i64], extent: &mut Extent) = extent_body
}

kernel! {
    fn add_on(to: &mut [i64], from: &[i64], extent: &mut Extent) = add_body
}

kernel! {
    fn add_several_on(to: &mut [i64], from: [&[i64]; SEVERAL], extents: &mut [Extent; SEVERAL]) = add_several_body
}

kernel! {
    fn difference_on(here: &[i64], there: &[i64], left: &mut [MaybeUninit<i64>], aligned: usize, extents: &mut [Extent; 3]) = difference_body
}

kernel! {
    fn largest_on(values: &[f32], largest: &mut u32) = largest_body
}

#[inline(always)]
unsafe fn extent_body<S: Simd, const MR: usize, const NV: usize>(sums: &[i64], extent: &mut Extent) {
    let mut found = Extent::NONE;
    sums.iter().for_each(|sum| found.widen(*sum));
    *extent = found;
}

#[inline(always)]
unsafe fn add_body<S: Simd, const MR: usize, const NV: usize>(to: &mut [i64], from: &[i64], extent: &mut Extent) {
    let mut found = Extent::NONE;
    for (to, from) in to.iter_mut().zip(from) {
        found.widen(*from);
        *to = to.wrapping_add(*from);
    }
    *extent = found;
}

#[inline(always)]
unsafe fn add_several_body<S: Simd, const MR: usize, const NV: usize>(
    to: &mut [i64],
    from: [&[i64]; SEVERAL],
    extents: &mut [Extent; SEVERAL],
) {
    let mut found = [Extent::NONE; SEVERAL];
    let [a, b, c, d] = from;
    for ((((to, a), b), c), d) in to.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let sums = [*a, *b, *c, *d];
        found.iter_mut().zip(sums).for_each(|(found, sum)| found.widen(sum));
        *to = sums.into_iter().fold(*to, i64::wrapping_add);
    }
    *extents = found;
}

/// Extents of eight lists, side by side.
#[derive(Clone, Copy)]
struct Lanes {
    least: [i64; 8],
    most: [i64; 8],
}

impl Lanes {
    const NONE: Self = Self { least: [Extent::NONE.least; 8], most: [Extent::NONE.most; 8] };

    #[inline(always)]
    fn widen(&mut self, sums: &[i64; 8]) {
        self.least.iter_mut().zip(sums).for_each(|(least, sum)| *least = (*least).min(*sum));
        self.most.iter_mut().zip(sums).for_each(|(most, sum)| *most = (*most).max(*sum));
    }
}

/// Writes all of `left`; from `aligned` on, at a multiple of 64 bytes, past the caches.
#[inline(always)]
unsafe fn difference_body<S: Simd, const MR: usize, const NV: usize>(
    here: &[i64],
    there: &[i64],
    left: &mut [MaybeUninit<i64>],
    aligned: usize,
    extents: &mut [Extent; 3],
) {
    let mut found = [Extent::NONE; 3];
    // Numbers of any size may be met here.
    let mut plainly = |left: &mut [MaybeUninit<i64>], here: &[i64], there: &[i64]| {
        for ((left, here), there) in left.iter_mut().zip(here).zip(there) {
            let difference = here.wrapping_sub(*there);
            left.write(difference);
            found.iter_mut().zip([*here, *there, difference]).for_each(|(found, sum)| found.widen(sum));
        }
    };
    let (left, rest) = left.split_at_mut(aligned);
    plainly(left, &here[..aligned], &there[..aligned]);
    let (here, there) = (&here[aligned..], &there[aligned..]);
    let end = rest.len() / 8 * 8;
    plainly(&mut rest[end..], &here[end..], &there[end..]);
    let (left, _) = rest.as_chunks_mut::<8>();
    let ((here, _), (there, _)) = (here.as_chunks::<8>(), there.as_chunks::<8>());
    // Three of their own, not a list of them: else the compiler keeps them in memory.
    let (mut of_here, mut of_there, mut of_left) = (Lanes::NONE, Lanes::NONE, Lanes::NONE);
    for ((left, here), there) in left.iter_mut().zip(here).zip(there) {
        let block: [i64; 8] = std::array::from_fn(|i| here[i].wrapping_sub(there[i]));
        of_here.widen(here);
        of_there.widen(there);
        of_left.widen(&block);
        // SAFETY: eight numbers at a multiple of 64 bytes, as the caller vouches for the first of them.
        unsafe { S::stream(left.as_mut_ptr().cast(), block) };
    }
    if end > 0 {
        simd::written();
        for (found, lanes) in found.iter_mut().zip([of_here, of_there, of_left]) {
            lanes.least.into_iter().chain(lanes.most).for_each(|sum| found.widen(sum));
        }
    }
    *extents = found;
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
                let (mut of_here, mut of_there, mut largest) = (Extent::NONE, Extent::NONE, 0);
                let mut sum = here.clone();
                // SAFETY: safe code, for instructions that were detected.
                unsafe {
                    extent_on(path, &here, &mut of_here);
                    add_on(path, &mut sum, &there, &mut of_there);
                    largest_on(path, &values, &mut largest);
                }
                prop_assert_eq!(of_here.within(limit), inside(&wide(|a, _| a)));
                prop_assert_eq!(of_there.within(limit), inside(&wide(|_, b| b)));
                prop_assert_eq!(&sum, &wide(|a, b| a + b).iter().map(|v| *v as i64).collect::<Vec<_>>());
                subtract(&mut sum, &there);
                prop_assert_eq!(&sum, &here);
                for (before, past_cache) in [(0, false), (0, true), (1, true), (5, true)] {
                    let mut left = vec![7; before];
                    let extents = difference_of(path, &here, &there, &mut left, past_cache);
                    let expected = [inside(&wide(|a, _| a)), inside(&wide(|_, b| b)), inside(&wide(|a, b| a - b))];
                    prop_assert_eq!(extents.map(|extent| extent.within(limit)), expected);
                    prop_assert_eq!(&left[..before], &vec![7; before]);
                    prop_assert_eq!(&left[before..], wide(|a, b| a - b).iter().map(|v| *v as i64).collect::<Vec<_>>());
                }
                let (mut one_by_one, mut at_once) = (there.clone(), there.clone());
                let mut extents = [Extent::NONE; SEVERAL];
                let lists = [&here, &there, &here, &here].map(|list| &list[..]);
                // SAFETY: as above.
                unsafe { add_several_on(path, &mut at_once, lists, &mut extents) };
                let fits = lists.map(|list| add(&mut one_by_one, list, limit));
                prop_assert_eq!(extents.map(|extent| extent.within(limit)), fits);
                prop_assert_eq!(at_once, one_by_one);
                prop_assert_eq!(largest < f32::INFINITY.to_bits(), values.iter().all(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn the_public_forms_say_the_same() {
        assert!(within(&[5, -5], 5) && !within(&[i64::MIN], MOST) && !within(&[6], 5));
        let mut left = vec![9];
        assert_eq!(difference(&[5, MOST], &[2, MOST], [MOST, MOST, 3], &mut left, true), [true; 3]);
        assert_eq!(left, [9, 3, 0]);
        let fits = difference(&[MOST, 0], &[-MOST, 0], [MOST; 3], &mut left, false);
        assert_eq!(fits, [true, true, false]);
        assert_eq!(difference(&[i64::MIN], &[5], [MOST, 4, MOST], &mut left, false)[..2], [false; 2]);
        let mut sums = [1, 2];
        assert!(add_several(&mut sums, [&[1, 1], &[2, 2], &[3, 3], &[4, -4]], [1, 2, 3, 4]) && sums == [11, 4]);
        assert!(!add_several(&mut sums, [&[1, 1], &[2, 2], &[3, 4], &[4, -4]], [1, 2, 3, 4]));
        assert!(all_finite(&[1.0, -0.0, f32::MIN]) && !all_finite(&[f32::NAN]) && !all_finite(&[f32::NEG_INFINITY]));
        let mut to = [1, 2];
        assert!(add(&mut to, &[3, 4], 4) && to == [4, 6]);
        assert!(!add(&mut to, &[3, i64::MIN], 4));
        subtract(&mut to, &[3, i64::MIN]);
        assert_eq!(to, [4, 6]);
    }
}
