//! The real rows that a sketch keeps flow in; batches of them, as networks see them, flow out.

use candle_core::{Device, Tensor};

use super::standard::Standard;
use crate::error::Result;
use crate::extract::{Pool, Scaling};
use crate::sketch::{Numbers, Sketches};

/// Rows that are looked at together.
const CHUNK: usize = 1024;

/// Pictures that are held as numbers at a time: a chunk, scaled, with what its deviation is taken of.
pub(super) const HELD: usize = 4 * CHUNK;

/// Kept rows with their classes. They stay as they are kept: scaled ones would take four times the memory.
pub(super) struct Real<'a> {
    pub(super) rows: Vec<(&'a Numbers, usize)>,
    pub(super) classes: usize,
    pub(super) scaling: &'a Scaling,
    /// `[channels, height, width]`
    pub(super) input: [usize; 3],
    pub(super) device: Device,
}

impl<'a> Real<'a> {
    /// All that `sketches` keep, in the units and on the device of `pool`, whose rows are `input`.
    pub(super) fn of(sketches: &'a Sketches, pool: &'a Pool, input: [usize; 3]) -> Self {
        let classes = sketches.classes.values().enumerate();
        let rows = classes.flat_map(|(class, of)| of.reservoir.rows.iter().map(move |row| (&row.values, class)));
        let (scaling, device) = (&pool.recipe().scaling, pool.device().clone());
        Self { rows: rows.collect(), classes: sketches.classes.len(), scaling, input, device }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows `at`, standardised `[at.len(), ..input]`, with their shares of the classes `[at.len(), classes]`.
    pub(super) fn batch(&self, at: &[u32], standard: &Standard) -> Result<(Tensor, Tensor)> {
        let rows = at.iter().map(|at| &self.rows[*at as usize]);
        let mut shares = vec![0f32; at.len() * self.classes];
        rows.clone().enumerate().for_each(|(row, (_, class))| shares[row * self.classes + class] = 1.0);
        let shares = Tensor::from_vec(shares, (at.len(), self.classes), &self.device)?;
        Ok((standard.apply(&self.scaled(rows.map(|(numbers, _)| *numbers))?)?, shares))
    }

    /// What all of them are standardised by.
    pub(super) fn standard(&self) -> Result<Standard> {
        let chunks = self.rows.chunks(CHUNK);
        Standard::of_chunks(chunks.map(|chunk| self.scaled(chunk.iter().map(|(numbers, _)| *numbers))))
    }

    /// `[rows, ..input]`, in the extractors' units.
    fn scaled<'b>(&self, rows: impl Iterator<Item = &'b Numbers>) -> Result<Tensor> {
        let mut values = vec![];
        rows.for_each(|row| row.append_to(&mut values));
        let [channels, height, width] = self.input;
        let count = values.len() / (channels * height * width).max(1);
        Ok(Tensor::from_vec(self.scaling.scale(&values), (count, channels, height, width), &self.device)?)
    }
}
