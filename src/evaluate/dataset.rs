//! Decoded batches flow in, one labelled set with numbered classes flows out.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::rows::{Label, Rows, Shape};

/// Labelled rows in the input's own units, all in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The shape of every row.
    pub shape: Shape,
    /// `[labels.len(), shape.len()]`, row-major; pictures channel first.
    pub values: Vec<f32>,
    /// One position in `classes` a row.
    pub labels: Vec<usize>,
    /// The label values, ascending.
    pub classes: Vec<Label>,
    /// `[labels.len(), classes.len()]`: each row's shares of the classes, where it has any; networks are then trained on them in place of `labels`.
    pub soft: Option<Vec<f32>>,
    /// Of each class, how many stored rows its rows are held by: fewer than they are where pictures hold several.
    pub stored: Vec<usize>,
}

impl Dataset {
    /// The rows of all `batches`; `name` goes into errors. No rows, or rows of different shapes, are an error.
    pub fn from_rows(name: &str, batches: Vec<Rows>) -> Result<Self> {
        let mut batches = batches.into_iter().filter(|rows| !rows.is_empty()).peekable();
        let Some(shape) = batches.peek().map(|rows| rows.shape) else {
            return Err(Error::Data(format!("{name}: no labelled rows to read")));
        };
        let (mut values, mut row_labels) = (vec![], vec![]);
        for rows in batches {
            if rows.shape != shape {
                return Err(Error::Data(format!("{name}: a {} among rows of {shape}", rows.shape)));
            }
            values.extend_from_slice(&rows.values);
            row_labels.extend(rows.labels);
        }
        let mut numbers: BTreeMap<&Label, usize> = row_labels.iter().map(|label| (label, 0)).collect();
        for (i, number) in numbers.values_mut().enumerate() {
            *number = i;
        }
        let labels: Vec<usize> = row_labels.iter().map(|label| numbers[label]).collect();
        let classes: Vec<Label> = numbers.into_keys().cloned().collect();
        let stored = counts(&labels, classes.len());
        Ok(Self { shape, values, labels, classes, soft: None, stored })
    }

    /// The set with `shares` `[rows, classes]` of the classes.
    pub fn with_soft_labels(self, shares: Vec<f32>) -> Self {
        Self { soft: Some(shares), ..self }
    }

    /// The set, of whose classes as many stored rows hold theirs.
    pub fn with_stored(self, stored: Vec<usize>) -> Self {
        Self { stored, ..self }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The numbers of row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.shape.len()..(i + 1) * self.shape.len()]
    }

    /// The positions of each class's rows, in the order of `classes`.
    pub fn rows_by_class(&self) -> Vec<Vec<usize>> {
        let mut rows = vec![vec![]; self.classes.len()];
        for (i, label) in self.labels.iter().enumerate() {
            rows[*label].push(i);
        }
        rows
    }

    /// The set of the rows at `positions`, with all of this set's classes.
    pub fn subset(&self, positions: &[usize]) -> Self {
        let labels: Vec<usize> = positions.iter().map(|i| self.labels[*i]).collect();
        Self {
            shape: self.shape,
            stored: counts(&labels, self.classes.len()),
            values: positions.iter().flat_map(|i| self.row(*i)).copied().collect(),
            labels,
            classes: self.classes.clone(),
            soft: self.soft.as_ref().map(|soft| {
                let row = |i: usize| &soft[i * self.classes.len()..(i + 1) * self.classes.len()];
                positions.iter().flat_map(|i| row(*i)).copied().collect()
            }),
        }
    }
}

/// How many of `labels` are of each class.
fn counts(labels: &[usize], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.iter().for_each(|label| counts[*label] += 1);
    counts
}

/// Mean and deviation of each channel of a picture, or of each number of a vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standardisation {
    /// Numbers that share a mean: the pixels of a channel, or 1.
    group: usize,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
}

impl Standardisation {
    /// That of `set`; what never changes keeps its scale.
    pub(super) fn of(set: &Dataset) -> Self {
        let group = match set.shape {
            Shape::Picture { height, width, .. } => height * width,
            Shape::Vector { .. } => 1,
        };
        let groups = set.shape.len() / group.max(1);
        let (mut sum, mut square) = (vec![0f64; groups], vec![0f64; groups]);
        let count = (set.len() * group) as f64;
        for row in set.values.chunks_exact(set.shape.len()) {
            for (g, values) in row.chunks_exact(group).enumerate() {
                sum[g] += values.iter().map(|v| f64::from(*v)).sum::<f64>();
            }
        }
        let mean: Vec<f64> = sum.iter().map(|s| s / count).collect();
        for row in set.values.chunks_exact(set.shape.len()) {
            for (g, values) in row.chunks_exact(group).enumerate() {
                square[g] += values.iter().map(|v| (f64::from(*v) - mean[g]).powi(2)).sum::<f64>();
            }
        }
        let inverse = |variance: f64| if variance > 1e-12 { 1.0 / variance.sqrt() } else { 1.0 };
        Self {
            group,
            mean: mean.iter().map(|m| *m as f32).collect(),
            inverse_deviation: square.iter().map(|s| inverse(s / count) as f32).collect(),
        }
    }

    /// All numbers of `set`, standardised.
    pub(super) fn apply(&self, set: &Dataset) -> Vec<f32> {
        let mut out = set.values.clone();
        self.apply_to(&mut out);
        out
    }

    /// Standardises whole rows.
    pub(super) fn apply_to(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.group * self.mean.len()) {
            for (g, values) in row.chunks_exact_mut(self.group).enumerate() {
                values.iter_mut().for_each(|v| *v = (*v - self.mean[g]) * self.inverse_deviation[g]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(shape: Shape, values: Vec<f32>, labels: &[i64]) -> Rows {
        Rows { shape, values, labels: labels.iter().map(|l| Label::Int(*l)).collect(), exact: vec![], skipped: 0 }
    }

    #[test]
    fn classes_are_numbered_in_label_order_over_all_batches() {
        let shape = Shape::Vector { len: 1 };
        let set =
            Dataset::from_rows("t", vec![rows(shape, vec![1.0, 2.0], &[7, 3]), rows(shape, vec![3.0], &[5])]).unwrap();
        assert_eq!(set.classes, [Label::Int(3), Label::Int(5), Label::Int(7)]);
        assert_eq!(set.labels, [2, 0, 1]);
        assert_eq!(set.rows_by_class(), [vec![1], vec![2], vec![0]]);
        assert_eq!(set.subset(&[2, 0]).values, [3.0, 1.0]);
    }

    #[test]
    fn no_rows_and_mixed_shapes_are_errors_that_name_the_set() {
        let none = Dataset::from_rows("'a.parquet'", vec![]).unwrap_err().to_string();
        assert!(none.contains("'a.parquet'"), "{none}");
        let (one, two) = (Shape::Vector { len: 1 }, Shape::Vector { len: 2 });
        let mixed = Dataset::from_rows("b", vec![rows(one, vec![1.0], &[0]), rows(two, vec![1.0, 2.0], &[0])]);
        assert_eq!(mixed.unwrap_err().to_string(), "b: a vector of 2 among rows of vector of 1");
    }

    #[test]
    fn pictures_are_standardised_by_channel_and_a_constant_channel_keeps_its_scale() {
        let shape = Shape::Picture { channels: 2, height: 1, width: 2 };
        let set = Dataset::from_rows("t", vec![rows(shape, vec![0.0, 2.0, 9.0, 9.0, 4.0, 6.0, 9.0, 9.0], &[0, 1])]);
        let set = set.unwrap();
        let standard = Standardisation::of(&set).apply(&set);
        let deviation = 5f32.sqrt();
        let expected = [-3.0 / deviation, -1.0 / deviation, 0.0, 0.0, 1.0 / deviation, 3.0 / deviation, 0.0, 0.0];
        for (found, expected) in standard.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{standard:?}");
        }
    }
}
