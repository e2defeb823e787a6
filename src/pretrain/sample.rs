//! Decoded rows flow in; a fixed number of each class, the same ones in whatever order they came, flow out.

use std::collections::BTreeMap;

use crate::rows::{Label, Rows};
use crate::sketch::{Kept, Numbers, Reservoir};

/// Real rows to train extractors on: of each class those with the smallest content hash.
#[derive(Clone, Debug)]
pub struct Sample {
    per_class: usize,
    seed: u64,
    classes: BTreeMap<Label, Reservoir>,
}

impl Sample {
    /// Of at most `per_class` rows of each class; `seed` keys the hash.
    pub fn new(per_class: usize, seed: u64) -> Self {
        Self { per_class, seed, classes: BTreeMap::new() }
    }

    /// Offers all of `rows`.
    pub fn offer(&mut self, rows: &Rows) {
        for (i, label) in rows.labels.iter().enumerate() {
            if !self.classes.contains_key(label) {
                self.classes.insert(label.clone(), Reservoir::new(self.per_class));
            }
            if let Some(reservoir) = self.classes.get_mut(label) {
                reservoir.offer(Reservoir::hash(self.seed, rows.row(i), &[]), 1, rows.row(i), &[]);
            }
        }
    }

    /// How many classes.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Each row's numbers, in the input's units, with the number of its class; classes in label order.
    pub fn rows(&self) -> impl Iterator<Item = (&Numbers, u32)> {
        self.classes.values().zip(0..).flat_map(|(of, class)| of.rows.iter().map(move |row| (&row.values, class)))
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        let rows = self.classes.values().flat_map(|of| &of.rows);
        rows.map(|row| row.values.bytes() + size_of::<Kept>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Shape;

    #[test]
    fn the_same_rows_are_kept_in_whatever_order_and_parts_they_come() {
        let rows = |from: usize, to: usize, rev: bool| {
            let mut at: Vec<usize> = (from..to).collect();
            if rev {
                at.reverse();
            }
            Rows {
                shape: Shape::Vector { len: 1 },
                values: at.iter().map(|i| *i as f32).collect(),
                labels: at.iter().map(|i| Label::Int((i % 2) as i64)).collect(),
                exact: vec![],
                skipped: 0,
            }
        };
        let kept = |parts: &[Rows]| {
            let mut sample = Sample::new(5, 3);
            parts.iter().for_each(|part| sample.offer(part));
            sample.rows().map(|(row, class)| (row.floats().into_owned(), class)).collect::<Vec<_>>()
        };
        let all = kept(&[rows(0, 50, false)]);
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(|(row, class)| row[0] as u32 % 2 == *class));
        assert_eq!(kept(&[rows(20, 50, true), rows(0, 20, false)]), all);
    }
}
