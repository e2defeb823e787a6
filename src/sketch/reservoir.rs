//! Rows flow in; the k with the smallest content hash flow out, whatever the order and the splits; and out of those, rows that are taken back.

use crate::error::{Error, Result};
use crate::sketch::Numbers;

/// One kept row.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Keyed BLAKE3 of the row's numbers, first 16 bytes.
    pub hash: [u8; 16],
    /// How many rows had exactly these numbers.
    pub copies: u64,
    /// The row.
    pub values: Numbers,
    /// The row's numbers as they were read, see [`Rows::exact`](crate::rows::Rows::exact).
    pub exact: Vec<u8>,
}

/// Bottom-k by keyed content hash, sorted by hash; rows with equal content are one entry with its copies counted.
///
/// A row that is kept in the end was among the k smallest at all times before, in every part: so its copies are complete,
/// and the result is the same for any order, any split and any merge tree. As the hash is keyed and as good as random, the kept rows
/// are a uniform draw of the distinct rows, in random order.
///
/// Taking rows back leaves fewer than k: those up to the largest hash that was kept are all known, those above aren't. That bound is the
/// `threshold` from then on, and rows above it aren't taken in any more: what is kept stays a uniform draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservoir {
    /// Most entries.
    pub capacity: usize,
    /// Rows with a larger hash aren't known; `None`: only where there are `capacity` entries, above the last of them.
    pub threshold: Option<[u8; 16]>,
    /// The entries, smallest hash first.
    pub rows: Vec<Kept>,
}

impl Reservoir {
    /// An empty one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, threshold: None, rows: vec![] }
    }

    /// The hash of a row under `seed`: of its numbers, where `-0.0` counts as `0.0`, and of its `exact` numbers, if it has any.
    pub fn hash(seed: u64, values: &[f32], exact: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key("datafusion-distill reservoir 1");
        hasher.update(&seed.to_le_bytes());
        let mut bytes = [0u8; 4096];
        for chunk in values.chunks(bytes.len() / 4) {
            for (to, value) in bytes.chunks_exact_mut(4).zip(chunk) {
                to.copy_from_slice(&(value + 0.0).to_le_bytes());
            }
            hasher.update(&bytes[..chunk.len() * 4]);
        }
        hasher.update(exact);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        hash
    }

    /// Offers a row that occurred `copies` times, with its `exact` numbers.
    pub fn offer(&mut self, hash: [u8; 16], copies: u64, values: &[f32], exact: &[u8]) {
        self.take_in(hash, copies, || (Numbers::of(values), exact.to_vec()));
    }

    fn take_in(&mut self, hash: [u8; 16], copies: u64, row: impl FnOnce() -> (Numbers, Vec<u8>)) {
        if self.threshold.is_some_and(|threshold| hash > threshold) {
            return;
        }
        match self.rows.binary_search_by(|kept| kept.hash.cmp(&hash)) {
            Ok(at) => self.rows[at].copies += copies,
            Err(at) if at < self.capacity => {
                if self.rows.len() == self.capacity {
                    self.rows.pop();
                }
                let (values, exact) = row();
                self.rows.insert(at, Kept { hash, copies, values, exact });
            }
            Err(_) => {}
        }
    }

    /// The first entries, at most so many: as uniform a draw of the distinct rows as all are.
    pub(crate) fn first(&self, most: usize) -> &[Kept] {
        &self.rows[..self.rows.len().min(most)]
    }

    /// Refuses an entry whose numbers don't have its hash under `seed`, which [`SketchColumn::read`](super::SketchColumn::read) doesn't look at.
    pub fn check(&self, seed: u64) -> Result<()> {
        match self.rows.iter().position(|row| row.hash != Self::hash(seed, &row.values.floats(), &row.exact)) {
            None => Ok(()),
            Some(at) => Err(Error::Sketch(format!(
                "field 'reservoir[{at}]': the numbers don't have the hash that is stored with them; the sketch is damaged, make it again"
            ))),
        }
    }

    /// Offers all rows of another one of the same capacity.
    pub fn merge(&mut self, other: &Reservoir) {
        // A full one's own bound needs no threshold: its rows push out what is above it.
        self.lower(other.threshold);
        for kept in &other.rows {
            self.take_in(kept.hash, kept.copies, || (kept.values.to_own(), kept.exact.clone()));
        }
        self.settle();
    }

    /// This one without the rows of `part`, of the same capacity, all of which must have been offered here before.
    ///
    /// A row that is kept here and was offered there is kept there too, with all its copies, since fewer rows compete: so what remains is exact.
    pub fn without(&self, part: &Reservoir) -> Result<Reservoir> {
        let known = self.bound();
        let mut left: Vec<u64> = self.rows.iter().map(|row| row.copies).collect();
        for taken in part.rows.iter().filter(|row| known.is_none_or(|bound| row.hash <= bound)) {
            let at = self.rows.binary_search_by(|kept| kept.hash.cmp(&taken.hash)).ok();
            let rest = at.and_then(|at| Some((at, left[at].checked_sub(taken.copies)?)));
            let Some((at, rest)) = rest else {
                let here = at.map_or(0, |at| left[at]);
                return Err(Error::Sketch(format!(
                    "the second isn't part of the first: a row that the second has {} times is {here} times in the first; subtract only what \
                     was added",
                    taken.copies
                )));
            };
            left[at] = rest;
        }
        let bound = self.threshold.into_iter().chain(known).chain(part.bound()).min();
        let stay =
            self.rows.iter().zip(left).filter(|(row, left)| *left > 0 && bound.is_none_or(|bound| row.hash <= bound));
        let rows = stay.map(|(row, copies)| Kept { copies, ..row.clone() }).collect();
        let mut rest = Self { capacity: self.capacity, threshold: bound, rows };
        rest.settle();
        Ok(rest)
    }

    /// The hash above which rows aren't known; `None`: all rows are.
    pub(crate) fn bound(&self) -> Option<[u8; 16]> {
        match self.rows.last() {
            Some(last) if self.rows.len() >= self.capacity => Some(last.hash),
            _ => self.threshold,
        }
    }

    fn lower(&mut self, threshold: Option<[u8; 16]>) {
        let Some(threshold) = threshold else { return };
        let lowest = self.threshold.map_or(threshold, |own| own.min(threshold));
        self.threshold = Some(lowest);
        self.rows.retain(|row| row.hash <= lowest);
    }

    /// The one way to write what is kept: a full reservoir, and one that keeps nothing anyway, have no threshold.
    fn settle(&mut self) {
        if self.rows.len() >= self.capacity {
            self.threshold = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offered(capacity: usize, rows: &[Vec<f32>]) -> Reservoir {
        let mut reservoir = Reservoir::new(capacity);
        rows.iter().for_each(|row| reservoir.offer(Reservoir::hash(7, row, &[]), 1, row, &[]));
        reservoir
    }

    /// What it should be, without streaming: count distinct rows, sort by hash, cut.
    fn expected(capacity: usize, rows: &[Vec<f32>]) -> Vec<([u8; 16], u64)> {
        let mut all = std::collections::BTreeMap::new();
        rows.iter().for_each(|row| *all.entry(Reservoir::hash(7, row, &[])).or_default() += 1);
        all.into_iter().take(capacity).collect()
    }

    proptest! {
        #[test]
        fn any_order_and_any_merge_tree_give_the_k_smallest_hashes_with_complete_copies(
            rows in prop::collection::vec(prop::collection::vec((0i8..3).prop_map(|v| 0.5 * f32::from(v)), 2), 0..60),
            cuts in prop::collection::vec(0usize..60, 3),
            capacity in 0usize..8,
            rotate in 0usize..60,
        ) {
            let whole = offered(capacity, &rows);
            let shown: Vec<_> = whole.rows.iter().map(|k| (k.hash, k.copies)).collect();
            prop_assert_eq!(shown, expected(capacity, &rows));

            let mut turned = rows.clone();
            turned.reverse();
            if !turned.is_empty() {
                turned.rotate_left(rotate % rows.len());
            }
            prop_assert_eq!(&offered(capacity, &turned), &whole);

            let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (rows.len() + 1)).collect();
            cuts.sort_unstable();
            let parts = [&rows[..cuts[0]], &rows[cuts[0]..cuts[1]], &rows[cuts[1]..cuts[2]], &rows[cuts[2]..]];
            let [a, b, c, d] = parts.map(|part| offered(capacity, part));
            let (mut left, mut right) = (d, b);
            left.merge(&a);
            right.merge(&c);
            right.merge(&left);
            prop_assert_eq!(&right, &whole);
        }
    }

    proptest! {
        #[test]
        fn what_is_left_after_rows_were_taken_back_is_the_lower_part_of_what_a_fresh_one_keeps(
            kept in prop::collection::vec(prop::collection::vec((0i8..4).prop_map(f32::from), 2), 0..40),
            taken in prop::collection::vec(prop::collection::vec((0i8..4).prop_map(f32::from), 2), 0..40),
            more in prop::collection::vec(prop::collection::vec((0i8..4).prop_map(f32::from), 2), 0..40),
            capacity in 0usize..12,
        ) {
            let all = [kept.clone(), taken.clone()].concat();
            let mut left = offered(capacity, &all);
            left = left.without(&offered(capacity, &taken)).unwrap();
            let lower = |reservoir: &Reservoir, rows: &[Vec<f32>]| {
                let fresh = expected(capacity, rows);
                let found: Vec<_> = reservoir.rows.iter().map(|k| (k.hash, k.copies)).collect();
                // A prefix, and all of it where every row was known.
                fresh[..found.len()] == found && (reservoir.bound().is_some() || capacity == 0 || found == fresh)
            };
            prop_assert!(lower(&left, &kept));
            // Rows that come later are taken in below the threshold alone, on whichever side the merge is written.
            let added = offered(capacity, &more);
            let (mut here, mut there) = (left.clone(), added.clone());
            here.merge(&added);
            there.merge(&left);
            prop_assert_eq!(&here, &there);
            prop_assert!(lower(&here, &[kept, more].concat()));
        }
    }

    #[test]
    fn what_was_never_offered_cannot_be_taken_back() {
        let row = |v: f32| vec![v, v];
        let mut all = offered(4, &[row(1.0), row(2.0), row(2.0)]);
        let before = all.clone();
        for part in [vec![row(3.0)], vec![row(1.0), row(1.0)]] {
            let e = all.without(&offered(4, &part)).unwrap_err().to_string();
            assert!(e.contains("isn't part of the first"), "{e}");
            assert_eq!(all, before);
        }
        all = all.without(&offered(4, &[row(2.0), row(1.0)])).unwrap();
        assert_eq!((all.rows.len(), all.rows[0].copies, all.threshold), (1, 1, None));
    }

    #[test]
    fn negative_zero_is_zero_and_the_seed_changes_the_order() {
        assert_eq!(offered(4, &[vec![-0.0, 1.0], vec![0.0, 1.0]]).rows[0].copies, 2);
        let first = |seed| (0..100).map(|i| i as f32).min_by_key(|v| Reservoir::hash(seed, &[*v], &[]));
        assert!((0..20).any(|seed| first(seed) != first(20)));
    }

    #[test]
    fn rows_whose_f32_are_the_same_but_not_their_digits_are_different_rows() {
        let row = [16_777_216.0];
        let mut reservoir = Reservoir::new(4);
        for exact in [5u8, 3, 4, 3] {
            reservoir.offer(Reservoir::hash(7, &row, &[exact]), 1, &row, &[exact]);
        }
        let mut kept: Vec<_> = reservoir.rows.iter().map(|kept| (kept.exact[0], kept.copies)).collect();
        kept.sort_unstable();
        assert_eq!(kept, [(3, 2), (4, 1), (5, 1)]);
    }
}
