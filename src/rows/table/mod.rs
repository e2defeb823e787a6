//! The columns of a table flow in, rows of plain numbers flow out, and the extractors' input from them; and back.
//!
//! A row of a table is kept as *raw* numbers: a number as it is, a category as its position among the column's categories, a list or a
//! picture as its numbers, and behind a number that may be missing a 1 where it is. The extractors see the row's *input*: numbers
//! scaled, categories as one-hot vectors, flags as they are. The optimizer works on inputs that lie between: probabilities in
//! place of categories. [`TableScaling`] knows both forms; it is found before the first row is sketched, and is part of the pool.

mod curve;
mod decode;
mod encode;
mod profile;
#[cfg(test)]
#[path = "tests.rs"]
mod round_trip;

pub use curve::{CurveScaling, NumberScaling};
pub(super) use decode::{TableBatch, TableDecoder};
pub(super) use encode::{Column, split};
pub(super) use profile::Seen;
pub use profile::{ColumnProfile, Profile};

use serde::{Deserialize, Serialize};

use crate::rows::{Label, Shape};

/// Most categories of a column.
pub const MAX_CATEGORIES: usize = 1000;

/// How the columns of a table are scaled, in the order of their raw numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableScaling {
    /// One entry a feature column; a column whose numbers may be missing has two.
    pub columns: Vec<ColumnScaling>,
}

/// How one column is scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnScaling {
    /// A number.
    Number(NumberScaling),
    /// Whether the number before it is missing: 0 or 1.
    Missing {
        /// The column's name.
        name: String,
    },
    /// A category.
    Category(CategoryScaling),
    /// The numbers of a list or a picture.
    Numbers(NumbersScaling),
}

/// The categories of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CategoryScaling {
    /// The column's name.
    pub name: String,
    /// The categories, ascending.
    pub values: Vec<Label>,
    /// Whether NULL is one more category, after them.
    pub missing: bool,
}

impl CategoryScaling {
    /// Positions of the one-hot vector.
    pub fn len(&self) -> usize {
        self.values.len() + usize::from(self.missing)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The affine map of a list's or a picture's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumbersScaling {
    /// The column's name.
    pub name: String,
    /// The shape of a row.
    pub shape: Shape,
    /// The lowest number.
    pub low: f32,
    /// The highest number.
    pub high: f32,
}

impl NumbersScaling {
    /// Half the range: the numbers become -1 to 1.
    fn half(&self) -> f32 {
        let half = (self.high - self.low) / 2.0;
        if half > 0.0 { half } else { 1.0 }
    }

    fn middle(&self) -> f32 {
        self.low + (self.high - self.low) / 2.0
    }
}

impl ColumnScaling {
    /// The column's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Number(s) => &s.name,
            Self::Missing { name } => name,
            Self::Category(s) => &s.name,
            Self::Numbers(s) => &s.name,
        }
    }

    /// How many raw numbers a row has of it.
    pub fn raw_len(&self) -> usize {
        match self {
            Self::Numbers(s) => s.shape.len(),
            _ => 1,
        }
    }

    /// How many numbers of input a row has of it.
    pub fn input_len(&self) -> usize {
        match self {
            Self::Numbers(s) => s.shape.len(),
            Self::Category(s) => s.len(),
            _ => 1,
        }
    }

    /// Appends the input of `raw`.
    fn scale(&self, raw: &[f32], out: &mut Vec<f32>) {
        match self {
            Self::Number(s) => out.push(s.scale(raw[0])),
            Self::Missing { .. } => out.push(raw[0]),
            Self::Category(s) => out.extend((0..s.len()).map(|i| f32::from(u8::from(i as f32 == raw[0])))),
            Self::Numbers(s) => out.extend(raw.iter().map(|v| (v - s.middle()) / s.half())),
        }
    }

    /// Appends the raw numbers nearest to `input`.
    fn unscale(&self, input: &[f32], out: &mut Vec<f32>) {
        match self {
            Self::Number(s) => out.push(s.unscale(input[0])),
            Self::Missing { .. } => out.push(if input[0] >= 0.5 { 1.0 } else { 0.0 }),
            Self::Category(_) => out.push(largest(input) as f32),
            Self::Numbers(s) => out.extend(input.iter().map(|v| (v * s.half() + s.middle()).clamp(s.low, s.high))),
        }
    }

    /// Moves `input` to the nearest point that the column's rows, or mixtures of them, can have.
    fn project(&self, input: &mut [f32]) {
        match self {
            Self::Number(s) => {
                let (low, high) = s.bounds();
                input[0] = input[0].clamp(low, high);
            }
            Self::Missing { .. } => input[0] = input[0].clamp(0.0, 1.0),
            Self::Category(_) => to_simplex(input),
            Self::Numbers(_) => input.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0)),
        }
    }
}

/// The position of the largest number; of equals the first.
fn largest(values: &[f32]) -> usize {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better)
}

/// The nearest point whose coordinates are at least 0 and add up to 1 (Duchi et al., ICML 2008, figure 1).
fn to_simplex(values: &mut [f32]) {
    let mut sorted: Vec<f32> = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let (mut sum, mut shift) = (0.0f64, 0.0f64);
    for (i, v) in sorted.iter().enumerate() {
        sum += f64::from(*v);
        let candidate = (sum - 1.0) / (i + 1) as f64;
        if f64::from(*v) > candidate {
            shift = candidate;
        }
    }
    values.iter_mut().for_each(|v| *v = (f64::from(*v) - shift).max(0.0) as f32);
}

impl TableScaling {
    /// Raw numbers of a row.
    pub fn raw_len(&self) -> usize {
        self.columns.iter().map(ColumnScaling::raw_len).sum()
    }

    /// Numbers of input of a row.
    pub fn input_len(&self) -> usize {
        self.columns.iter().map(ColumnScaling::input_len).sum()
    }

    /// Raw rows `[n, raw_len]` to inputs `[n, input_len]`.
    pub fn scale(&self, raw: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(raw.len() / self.raw_len().max(1) * self.input_len());
        for row in raw.chunks_exact(self.raw_len().max(1)) {
            let mut rest = row;
            for column in &self.columns {
                let (own, others) = rest.split_at(column.raw_len());
                column.scale(own, &mut out);
                rest = others;
            }
        }
        out
    }

    /// Inputs `[n, input_len]` to the nearest raw rows `[n, raw_len]`.
    pub fn unscale(&self, input: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(input.len() / self.input_len().max(1) * self.raw_len());
        for row in input.chunks_exact(self.input_len().max(1)) {
            let mut rest = row;
            for column in &self.columns {
                let (own, others) = rest.split_at(column.input_len());
                column.unscale(own, &mut out);
                rest = others;
            }
        }
        out
    }

    /// Moves inputs `[n, input_len]` into the domain: numbers into their range, categories onto the simplex.
    pub fn project(&self, input: &mut [f32]) {
        for row in input.chunks_exact_mut(self.input_len().max(1)) {
            let mut rest = row;
            for column in &self.columns {
                let (own, others) = rest.split_at_mut(column.input_len());
                column.project(own);
                rest = others;
            }
        }
    }

    /// Whether every column's map is one: what a scaling read from a file must be.
    pub(crate) fn is_sound(&self) -> bool {
        let column = |column: &ColumnScaling| match column {
            ColumnScaling::Number(s) => {
                s.low.is_finite() && s.high.is_finite() && s.low <= s.high && s.curve.is_sound()
            }
            ColumnScaling::Missing { .. } => true,
            ColumnScaling::Category(s) => {
                !s.values.is_empty() && s.values.len() <= MAX_CATEGORIES && s.values.windows(2).all(|w| w[0] < w[1])
            }
            ColumnScaling::Numbers(s) => {
                let len = s.shape.dims().into_iter().try_fold(1usize, usize::checked_mul);
                s.low.is_finite()
                    && s.high.is_finite()
                    && s.low <= s.high
                    && len.is_some_and(|n| (1..=1 << 24).contains(&n))
            }
        };
        !self.columns.is_empty() && self.columns.iter().all(column)
    }

    /// Where rows can miss a value: positions in the raw row and in the input, and the raw number that says so.
    pub fn missing(&self) -> Vec<Missing> {
        let (mut raw, mut input, mut found) = (0, 0, vec![]);
        for column in &self.columns {
            match column {
                ColumnScaling::Missing { .. } => found.push(Missing { raw, input, len: 1, at: 0, mark: 1.0 }),
                ColumnScaling::Category(s) if s.missing => {
                    found.push(Missing { raw, input, len: s.len(), at: s.values.len(), mark: s.values.len() as f32 });
                }
                _ => {}
            }
            raw += column.raw_len();
            input += column.input_len();
        }
        found
    }
}

/// A value that rows can miss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Missing {
    /// The position in the raw row.
    pub raw: usize,
    /// The first position in the input.
    pub input: usize,
    /// How many positions of input the column has there.
    pub len: usize,
    /// Which of them is how much the value is missing.
    pub at: usize,
    /// The raw number of rows that miss it.
    pub mark: f32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number that may be missing, a category with a missing one, a list.
    pub(super) fn scaling() -> TableScaling {
        TableScaling {
            columns: vec![
                ColumnScaling::Number(NumberScaling {
                    name: "age".into(),
                    low: 10.0,
                    high: 30.0,
                    curve: CurveScaling::Linear { center: 20.0, unit: 5.0 },
                    whole: true,
                    values: vec![],
                }),
                ColumnScaling::Missing { name: "age".into() },
                ColumnScaling::Category(CategoryScaling {
                    name: "sex".into(),
                    values: vec![Label::Text("f".into()), Label::Text("m".into())],
                    missing: true,
                }),
                ColumnScaling::Numbers(NumbersScaling {
                    name: "x".into(),
                    shape: Shape::Vector { len: 2 },
                    low: 0.0,
                    high: 4.0,
                }),
            ],
        }
    }

    #[test]
    fn raw_rows_become_inputs_and_come_back() {
        let scaling = scaling();
        let raw = [25.0, 0.0, 1.0, 0.0, 4.0, 20.0, 1.0, 2.0, 2.0, 2.0];
        let input = scaling.scale(&raw);
        assert_eq!(input, [1.0, 0.0, 0.0, 1.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!((scaling.raw_len(), scaling.input_len()), (5, 7));
        assert_eq!(scaling.unscale(&input), raw);
        let missing = scaling.missing();
        assert_eq!(missing[0], Missing { raw: 1, input: 1, len: 1, at: 0, mark: 1.0 });
        assert_eq!(missing[1], Missing { raw: 2, input: 2, len: 3, at: 2, mark: 2.0 });
    }

    #[test]
    fn projection_leaves_what_is_inside_and_moves_what_is_outside() {
        let scaling = scaling();
        let inside = vec![1.0, 0.25, 0.5, 0.25, 0.25, -1.0, 0.5];
        let mut moved = inside.clone();
        scaling.project(&mut moved);
        assert_eq!(moved, inside);
        let mut outside = vec![9.0, -1.0, 2.0, 0.0, 0.0, -3.0, 3.0];
        scaling.project(&mut outside);
        assert_eq!(outside, [2.0, 0.0, 1.0, 0.0, 0.0, -1.0, 1.0]);
    }

    proptest! {
        #[test]
        fn the_projection_onto_the_simplex_is_the_nearest_point(
            values in prop::collection::vec(-3f32..3.0, 1..6),
            other in prop::collection::vec(0.01f32..1.0, 6),
        ) {
            let mut nearest = values.clone();
            to_simplex(&mut nearest);
            prop_assert!(nearest.iter().all(|v| *v >= 0.0));
            prop_assert!((nearest.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let total: f32 = other[..values.len()].iter().sum();
            let distance = |point: &mut dyn Iterator<Item = f32>| point.zip(&values).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            let there = distance(&mut other[..values.len()].iter().map(|v| v / total));
            prop_assert!(distance(&mut nearest.iter().copied()) <= there + 1e-5);
        }
    }
}
