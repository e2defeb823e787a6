//! Rows flow in; the k with the smallest content hash flow out, whatever the order and the splits.

/// One kept row.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Keyed BLAKE3 of the row's numbers, first 16 bytes.
    pub hash: [u8; 16],
    /// How many rows had exactly these numbers.
    pub copies: u64,
    /// The row, in the input's units; `-0.0` is `0.0`.
    pub values: Vec<f32>,
    /// The row's numbers as they were read, see [`Rows::exact`](crate::rows::Rows::exact); of copies that differ there, the smallest.
    pub exact: Vec<u8>,
}

/// Bottom-k by keyed content hash, sorted by hash; rows with equal content are one entry with its copies counted.
///
/// A row that is kept in the end was among the k smallest at all times before, in every part: so its copies are complete,
/// and the result is the same for any order, any split and any merge tree. As the hash is keyed and as good as random, the kept rows
/// are a uniform draw of the distinct rows, in random order.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservoir {
    /// Most entries.
    pub capacity: usize,
    /// The entries, smallest hash first.
    pub rows: Vec<Kept>,
}

impl Reservoir {
    /// An empty one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, rows: vec![] }
    }

    /// The hash of a row under `seed`. `-0.0` counts as `0.0`.
    pub fn hash(seed: u64, values: &[f32]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key("datafusion-distill reservoir 1");
        hasher.update(&seed.to_le_bytes());
        let mut bytes = [0u8; 4096];
        for chunk in values.chunks(bytes.len() / 4) {
            for (to, value) in bytes.chunks_exact_mut(4).zip(chunk) {
                to.copy_from_slice(&(value + 0.0).to_le_bytes());
            }
            hasher.update(&bytes[..chunk.len() * 4]);
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        hash
    }

    /// Offers a row that occurred `copies` times, with its `exact` numbers.
    pub fn offer(&mut self, hash: [u8; 16], copies: u64, values: &[f32], exact: &[u8]) {
        match self.rows.binary_search_by(|kept| kept.hash.cmp(&hash)) {
            Ok(at) => {
                let kept = &mut self.rows[at];
                kept.copies += copies;
                if *exact < kept.exact[..] {
                    kept.exact = exact.to_vec();
                }
            }
            Err(at) if at < self.capacity => {
                if self.rows.len() == self.capacity {
                    self.rows.pop();
                }
                let values = values.iter().map(|v| v + 0.0).collect();
                self.rows.insert(at, Kept { hash, copies, values, exact: exact.to_vec() });
            }
            Err(_) => {}
        }
    }

    /// Offers all rows of another one of the same capacity.
    pub fn merge(&mut self, other: &Reservoir) {
        for kept in &other.rows {
            self.offer(kept.hash, kept.copies, &kept.values, &kept.exact);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offered(capacity: usize, rows: &[Vec<f32>]) -> Reservoir {
        let mut reservoir = Reservoir::new(capacity);
        rows.iter().for_each(|row| reservoir.offer(Reservoir::hash(7, row), 1, row, &[]));
        reservoir
    }

    /// What it should be, without streaming: count distinct rows, sort by hash, cut.
    fn expected(capacity: usize, rows: &[Vec<f32>]) -> Vec<([u8; 16], u64)> {
        let mut all = std::collections::BTreeMap::new();
        rows.iter().for_each(|row| *all.entry(Reservoir::hash(7, row)).or_default() += 1);
        all.into_iter().take(capacity).collect()
    }

    proptest! {
        #[test]
        fn any_order_and_any_merge_tree_give_the_k_smallest_hashes_with_complete_copies(
            rows in prop::collection::vec(prop::collection::vec((0i8..3).prop_map(f32::from), 2), 0..60),
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

    #[test]
    fn negative_zero_is_zero_and_the_seed_changes_the_order() {
        assert_eq!(offered(4, &[vec![-0.0, 1.0], vec![0.0, 1.0]]).rows[0].copies, 2);
        let first = |seed| (0..100).map(|i| i as f32).min_by_key(|v| Reservoir::hash(seed, &[*v]));
        assert!((0..20).any(|seed| first(seed) != first(20)));
    }

    #[test]
    fn of_rows_whose_f32_are_the_same_the_one_with_the_smallest_bytes_is_kept() {
        let row = [16_777_216.0];
        let offered = |exact: &[u8]| {
            let mut reservoir = Reservoir::new(2);
            exact.iter().for_each(|e| reservoir.offer(Reservoir::hash(7, &row), 1, &row, &[*e]));
            reservoir
        };
        let whole = offered(&[5, 3, 4]);
        assert_eq!((whole.rows.len(), whole.rows[0].copies, &whole.rows[0].exact[..]), (1, 3, &[3][..]));
        let (mut left, mut right) = (offered(&[5]), offered(&[4, 3]));
        left.merge(&right);
        right.merge(&offered(&[5]));
        assert_eq!((&left, &right), (&whole, &whole));
    }
}
