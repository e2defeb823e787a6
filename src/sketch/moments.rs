//! Features flow in, rounded once to small integers; the exact sums of their products flow out: an optional section of a sketch.
//!
//! A feature is projected, by seed, to `dim` numbers where it is longer, multiplied by `UNITS / bound`, rounded, and clipped to +-`UNITS`; the
//! products are then whole numbers, whose sums don't depend on order or split. The bound is a function of the pool alone: twice the largest number that
//! its features have on rows of noise, rounded up to a power of two.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::extract::Pool;
use crate::kernels::{Wants, second_moments};
use crate::options::{Moments, Options};
use crate::random;
use crate::sketch::{Header, MICRO_BATCH, MemberSums, needs};

/// Features are rounded to whole numbers of at most this size: 12 bits.
pub const UNITS: i16 = 2047;
/// Most rows in one section: with it no sum can overflow (2^40 rows of at most 2^22 units each).
pub const MAX_ROWS: u64 = 1 << 40;
/// Rows of noise that bounds are taken from.
const REFERENCE: usize = 4 * MICRO_BATCH;

/// How the second moments of a sketch were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MomentsHeader {
    /// Those of each class, or of all: then only the sum over the classes means something. Never `none`.
    pub kind: Moments,
    /// Dimensions; features that are longer were projected to so many.
    pub dim: usize,
    /// For each extractor, the size that [`UNITS`] stands for.
    pub bounds: Vec<f64>,
}

impl MomentsHeader {
    /// Length of the packed upper triangle of the sums of one extractor.
    pub fn len(&self) -> usize {
        self.dim * (self.dim + 1) / 2
    }

    /// Never: there is at least one dimension.
    pub fn is_empty(&self) -> bool {
        self.dim == 0
    }

    /// In words, for messages.
    pub(super) fn described(of: Option<&Self>) -> String {
        match of {
            None => "none".into(),
            Some(m) => format!("'{}' of {} dimensions, bounds {:?}", m.kind, m.dim, m.bounds),
        }
    }
}

/// What the features of extractor `member` are multiplied by before their second moments of `dim` dimensions are taken, `[feature_len, dim]`, drawn from the
/// header's frequency seed; `None`: nothing, they aren't longer.
pub(crate) fn projection(header: &Header, member: usize, dim: usize) -> Option<Vec<f32>> {
    let feature_len = header.recipe.feature_len();
    (dim < feature_len).then(|| {
        let mut stream = random::stream(header.frequency_seed, &format!("second moments of extractor {member}"));
        let scale = 1.0 / (dim as f32).sqrt();
        random::normal(&mut stream, feature_len * dim).into_iter().map(|v| v * scale).collect()
    })
}

/// The rows of a section after `more`, if no sum can overflow with them.
pub(crate) fn rows_after(rows: u64, more: u64) -> Result<u64> {
    rows.checked_add(more).filter(|n| *n <= MAX_ROWS).ok_or_else(|| {
        Error::Sketch(format!(
            "second moments of {rows} and {more} more rows; they hold at most {MAX_ROWS}: sample the source"
        ))
    })
}

/// Adds rows to the second moments of all extractors.
#[derive(Debug)]
pub(super) struct MomentSums {
    header: MomentsHeader,
    feature_len: usize,
    /// For each extractor, `[feature_len, dim]`; empty where features aren't projected.
    projections: Vec<Vec<f32>>,
}

impl MomentSums {
    /// What `options` ask for, for `pool` and the frequency seed of `header`; `None`: nothing.
    pub(super) fn new(pool: &Pool, header: &Header, options: &Options) -> Result<Option<Self>> {
        let feature_len = header.recipe.feature_len();
        let Some((kind, dim)) = needs::moments(options, feature_len) else { return Ok(None) };
        let projection = |member: usize| projection(header, member, dim).unwrap_or_default();
        let projections = (0..header.recipe.extractors).map(projection).collect();
        let mut sums = Self { header: MomentsHeader { kind, dim, bounds: vec![] }, feature_len, projections };
        let rows = reference(pool)?;
        let mut scratch = vec![];
        for member in 0..header.recipe.extractors {
            let mut largest = 0.0f32;
            for batch in &rows {
                let wants = Wants { input: false, weights: false, parallel: true };
                let features: Vec<f32> = pool.features(member, batch, wants)?.flatten_all()?.to_vec1()?;
                for row in features.chunks(feature_len) {
                    let projected = sums.projected(member, row, &mut scratch);
                    largest = projected.iter().fold(largest, |most, v| most.max(v.abs()));
                }
            }
            // An extractor that gives zeros alone has zeros as moments, whatever the bound.
            let bound =
                if largest > 0.0 && largest.is_finite() { f64::from(2.0 * largest).log2().ceil().exp2() } else { 1.0 };
            sums.header.bounds.push(bound);
        }
        Ok(Some(sums))
    }

    pub(super) fn header(&self) -> &MomentsHeader {
        &self.header
    }

    /// The position of the class that rows of class `class` are counted in.
    pub(super) fn holder(&self, class: usize) -> usize {
        if self.header.kind == Moments::Pooled { 0 } else { class }
    }

    /// Adds `features` `[classes.len(), feature_len]` of extractor `member` to the sums of their classes.
    pub(super) fn add(&self, member: usize, features: &[f32], classes: &[usize], sums: &mut [&mut MemberSums]) {
        let scale = (f64::from(UNITS) / self.header.bounds[member]) as f32;
        let limit = f32::from(UNITS);
        let mut scratch = vec![];
        let mut of_class: std::collections::BTreeMap<usize, Vec<i16>> = Default::default();
        for (row, class) in features.chunks(self.feature_len).zip(classes) {
            let holder = self.holder(*class);
            let rounded = of_class.entry(holder).or_default();
            for value in self.projected(member, row, &mut scratch) {
                let units = (value * scale).round_ties_even();
                sums[holder].moments_clipped += u64::from(units.abs() > limit);
                rounded.push(units.clamp(-limit, limit) as i16);
            }
        }
        for (holder, rows) in of_class {
            let to = &mut sums[holder].moments;
            to.to_mut().resize(self.header.len(), 0);
            second_moments(&rows, self.header.dim, to);
        }
    }

    /// One row's features `[feature_len]` as `[dim]`, in `out` where they are projected: in a fixed order of additions, whatever the rest of the batch.
    fn projected<'a>(&self, member: usize, row: &'a [f32], out: &'a mut Vec<f32>) -> &'a [f32] {
        let projection = &self.projections[member];
        if projection.is_empty() {
            return row;
        }
        out.clear();
        out.resize(self.header.dim, 0.0);
        for (value, weights) in row.iter().zip(projection.chunks(self.header.dim)) {
            out.iter_mut().zip(weights).for_each(|(out, weight)| *out += value * weight);
        }
        out
    }

    /// Bytes of memory it holds.
    pub(super) fn bytes(&self) -> usize {
        self.projections.iter().map(|p| 4 * p.len()).sum()
    }
}

/// Rows of noise, in micro-batches: the same for every pool of the same shape and scaling.
fn reference(pool: &Pool) -> Result<Vec<Tensor>> {
    let recipe = pool.recipe();
    let input = recipe.input_shape();
    let mut stream = random::stream(0, "rows of noise for the bounds of second moments");
    let mut values = random::normal(&mut stream, REFERENCE * input.len());
    recipe.scaling.project(&mut values);
    let batches = values.chunks(MICRO_BATCH * input.len());
    let dims = [vec![MICRO_BATCH], input.dims()].concat();
    batches.map(|batch| Ok(Tensor::from_slice(batch, dims.as_slice(), pool.device())?)).collect()
}

#[cfg(test)]
#[path = "moments_tests.rs"]
mod tests;
