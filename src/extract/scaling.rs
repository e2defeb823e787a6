//! Rows as they are decoded flow in, the extractors' input flows out; and back. The map is part of the pool.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rows::{Shape, TableScaling};

/// The extractor's input spans -SPAN to SPAN: the inputs' range as about two standard deviations either way, like the standardised pictures that
/// the field's ConvNet is trained on.
const SPAN: f32 = 2.0;

/// The input scaling of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// One map for all numbers of pictures or lists.
    Affine(Affine),
    /// Each column of a table its own.
    Table(TableScaling),
}

/// The affine map `x * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// Lowest value in the input's units.
    pub low: f32,
    /// Highest value in the input's units.
    pub high: f32,
    /// Factor.
    pub scale: f32,
    /// Offset.
    pub offset: f32,
}

impl Scaling {
    /// The map from `low..=high` to -2..=2; from a single value to 0.
    pub fn for_range((low, high): (f32, f32)) -> Result<Self> {
        if !(low.is_finite() && high.is_finite() && low <= high && (high - low).is_finite()) {
            return Err(Error::option(
                "ranges",
                format!("values from {low} to {high} can't be scaled; expected finite low <= high"),
            ));
        }
        let scale = if low < high { 2.0 * SPAN / (high - low) } else { 1.0 };
        let scale = if scale.is_finite() { scale } else { 1.0 };
        Ok(Self::Affine(Affine { low, high, scale, offset: -(low + (high - low) / 2.0) * scale }))
    }

    /// Whether the inputs' range is that of bytes, as pictures' is.
    pub(crate) fn of_bytes(&self) -> bool {
        matches!(self, Self::Affine(Affine { low: 0.0, high: 255.0, .. }))
    }

    /// That of a table.
    pub fn table(&self) -> Option<&TableScaling> {
        match self {
            Self::Affine(_) => None,
            Self::Table(table) => Some(table),
        }
    }

    /// That of a table; [`Error::Pool`] where `source` is one, and the pool file was made for lists or pictures.
    pub(crate) fn of_table(&self, source: &str) -> Result<&TableScaling> {
        self.table()
            .ok_or_else(|| Error::Pool(format!("the pool file was made for lists or pictures, {source} is a table")))
    }

    /// The shape of the input of rows of `shape`.
    pub fn input_shape(&self, shape: Shape) -> Shape {
        match self {
            Self::Affine(_) => shape,
            Self::Table(table) => Shape::Vector { len: table.input_len() },
        }
    }

    /// Whole rows to their inputs.
    pub fn scale(&self, rows: &[f32]) -> Vec<f32> {
        match self {
            Self::Affine(Affine { scale, offset, .. }) => rows.iter().map(|v| v * scale + offset).collect(),
            Self::Table(table) => table.scale(rows),
        }
    }

    /// Inputs to the nearest rows.
    pub fn unscale(&self, inputs: &[f32]) -> Vec<f32> {
        match self {
            Self::Affine(Affine { low, high, scale, offset }) => {
                inputs.iter().map(|v| ((v - offset) / scale).clamp(*low, *high)).collect()
            }
            Self::Table(table) => table.unscale(inputs),
        }
    }

    /// Moves inputs to the nearest ones that rows, or mixtures of rows, can have.
    pub fn project(&self, inputs: &mut [f32]) {
        match self {
            Self::Affine(affine) => {
                let (low, high) = affine.bounds();
                inputs.iter_mut().for_each(|v| *v = v.clamp(low, high));
            }
            Self::Table(table) => table.project(inputs),
        }
    }

    /// The lowest and the highest value of the rows' numbers, or which columns they are of, for messages.
    pub fn described(&self) -> String {
        match self {
            Self::Affine(affine) => format!("{}..{}", affine.low, affine.high),
            Self::Table(table) => {
                let names: Vec<&str> = table.columns.iter().map(|c| c.name()).collect();
                format!("columns {}", names.join(", "))
            }
        }
    }

    /// Whether it is a map at all: what one read from a file must be.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Affine(a) => {
                [a.low, a.high, a.scale, a.offset].iter().all(|v| v.is_finite()) && a.scale != 0.0 && a.low <= a.high
            }
            Self::Table(table) => table.is_sound(),
        }
    }
}

impl Affine {
    /// The lowest and the highest input.
    pub fn bounds(&self) -> (f32, f32) {
        let ends = [self.low, self.high].map(|v| v * self.scale + self.offset);
        (ends[0].min(ends[1]), ends[0].max(ends[1]))
    }
}
