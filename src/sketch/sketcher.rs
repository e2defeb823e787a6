//! Decoded rows flow in; each class's sketch grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::{Device, Tensor};
use cpu_time::ThreadTime;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::extract::{Pool, PoolRecipe};
use crate::kernels::{self, CosSin, Frequencies, Wants};
use crate::options::Options;
use crate::rows::table::Missing;
use crate::rows::{Rows, Shape};
use crate::sketch::moments::{MomentSums, rows_after};
use crate::sketch::projection;
use crate::sketch::sums::count_after;
use crate::sketch::{ClassSketch, Header, MemberSums, Reservoir, needs};

/// Rows that go through an extractor at a time: fixed, and zero-padded where a kernel isn't row-wise, so that a row's features never
/// depend on the batch it came in.
pub const MICRO_BATCH: usize = 64;

/// CPU time spent in a fold.
#[derive(Clone, Copy, Debug, Default)]
pub struct FoldTimes {
    /// In the extractors.
    pub extract: Duration,
    /// In characteristic functions and sums.
    pub sketch: Duration,
}

impl std::ops::AddAssign for FoldTimes {
    fn add_assign(&mut self, other: Self) {
        self.extract += other.extract;
        self.sketch += other.sketch;
    }
}

/// Folds rows into sketches.
#[derive(Debug)]
pub struct Sketcher {
    pool: Arc<Pool>,
    header: Header,
    /// One entry an extractor; none where the sketch has no characteristic function.
    frequencies: Vec<Frequencies>,
    /// Where rows can miss a value.
    missing: Vec<Missing>,
    /// Second moments, where the sketch has any.
    moments: Option<MomentSums>,
}

impl Sketcher {
    /// A sketcher for `pool` with what `options` ask for (frequencies, reservoir, seed).
    ///
    /// Draws the frequencies on the current rayon pool: 4 bytes times feature length times frequencies times extractors.
    pub fn new(pool: Arc<Pool>, options: &Options) -> Result<Self> {
        let device = match pool.device() {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        };
        let header = Header {
            pool: pool.fingerprint().to_string(),
            recipe: pool.recipe().clone(),
            frequencies: needs::frequencies(options),
            frequency_scales: needs::frequency_scales(options),
            frequency_seed: options.seed,
            reservoir: options.reservoir(pool.recipe().shape),
            numerics: format!("{}-{} {} {device}", kernels::path(), kernels::REVISION, env!("CARGO_PKG_VERSION")),
            moments: None,
            origin: None,
        };
        let for_pictures = options.unrolled_by().or((options.passes > 1).then_some("passes"));
        if let Some(name) = for_pictures.filter(|_| !matches!(header.recipe.shape, Shape::Picture { .. })) {
            let message = format!("it is for pictures, and a row is a {}; leave it out", header.recipe.shape);
            return Err(Error::option(name, message));
        }
        let moments = MomentSums::new(&pool, &header, options)?;
        let header = Header { moments: moments.as_ref().map(|m| m.header().clone()), ..header };
        let members = if header.frequencies == 0 { 0 } else { header.recipe.extractors };
        let frequencies = (0..members)
            .into_par_iter()
            .map(|member| projection::draw(&header, member, pool.device()))
            .collect::<Result<_>>()?;
        let missing = header.missing();
        Ok(Self { pool, header, frequencies, missing, moments })
    }

    /// The header of the sketches it makes.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of memory it holds beside the pool.
    pub fn bytes(&self) -> usize {
        let frequencies = self.frequencies.iter().map(Frequencies::bytes).sum::<usize>();
        frequencies + self.moments.as_ref().map_or(0, MomentSums::bytes)
    }

    /// Adds `rows` (any number; micro-batches are cut inside) to `sketches[classes[i]]`. Runs on the current rayon pool:
    /// extractors in parallel where there are enough of them, rows otherwise. Checks `cancel` before each micro-batch of each extractor.
    ///
    /// The sums are the same for any split of the rows into calls, any order and any thread count.
    /// After an error (a value or a feature that is not finite, too many rows, cancelled) the sketches are incomplete: drop them.
    pub fn fold(
        &self,
        rows: &Rows,
        classes: &[usize],
        sketches: &mut [ClassSketch],
        cancel: &AtomicBool,
    ) -> Result<FoldTimes> {
        let mut times = FoldTimes::default();
        if rows.is_empty() {
            return Ok(times);
        }
        let start = ThreadTime::now();
        self.check(rows, classes, sketches)?;
        let hashes = self.hashes(rows);
        for (i, (class, hash)) in classes.iter().zip(&hashes).enumerate() {
            let sketch = &mut sketches[*class];
            sketch.count += 1;
            for (missing, place) in sketch.missing.iter_mut().zip(&self.missing) {
                *missing += u64::from(rows.row(i)[place.raw] == place.mark);
            }
            sketch.reservoir.offer(*hash, 1, rows.row(i), rows.exact_row(i));
            if let Some(moments) = &self.moments {
                let holder = &mut sketches[moments.holder(*class)];
                holder.moment_rows = rows_after(holder.moment_rows, 1)?;
            }
        }
        times.sketch += start.elapsed();

        // sums[member][class]: each extractor owns its sums, so that extractors can run in parallel.
        let members = self.header.recipe.extractors;
        let batches = if members == 0 { vec![] } else { self.scaled(rows)? };
        let mut sums: Vec<Vec<&mut MemberSums>> = (0..members).map(|_| Vec::with_capacity(sketches.len())).collect();
        let mut clipped = vec![];
        for sketch in sketches.iter_mut() {
            sums.iter_mut().zip(&mut sketch.members).for_each(|(sums, member)| sums.push(member));
            clipped.push(&mut sketch.clipped);
        }
        let run = |(member, sums): (usize, &mut Vec<&mut MemberSums>), parallel| {
            MemberFold { sketcher: self, member, parallel }.run(&batches, classes, sums, cancel)
        };
        let parts: Vec<(FoldTimes, Vec<u64>)> = if members >= rayon::current_num_threads() {
            sums.par_iter_mut().enumerate().map(|job| run(job, false)).collect::<Result<_>>()?
        } else {
            sums.iter_mut().enumerate().map(|job| run(job, true)).collect::<Result<_>>()?
        };
        for (member_times, member_clipped) in parts {
            times += member_times;
            clipped.iter_mut().zip(member_clipped).for_each(|(to, more)| **to += more);
        }
        Ok(times)
    }

    /// The frequencies of extractor `member`, `[feature_len, frequencies]`, on the pool's device: t ~ N(0, s^2 I) with the header's scales s in turn, for
    /// L2-normalised features.
    pub fn frequencies(header: &Header, member: usize, device: &Device) -> Result<Tensor> {
        Ok(projection::draw(header, member, device)?.tensor(device)?)
    }

    fn check(&self, rows: &Rows, classes: &[usize], sketches: &[ClassSketch]) -> Result<()> {
        let recipe = &self.header.recipe;
        if rows.shape != recipe.shape {
            return Err(Error::Sketch(format!(
                "the rows are {}s, the extractor pool is made for {}s",
                rows.shape, recipe.shape
            )));
        }
        if classes.len() != rows.len() || classes.iter().any(|c| *c >= sketches.len()) {
            let (n, c, s) = (rows.len(), classes.len(), sketches.len());
            return Err(Error::Sketch(format!("{n} rows with {c} class numbers for {s} sketches don't fit together")));
        }
        let feature_len = recipe.feature_len();
        for sketch in sketches {
            let fits = |m: &MemberSums| {
                [m.embedding.len(), m.cos.len(), m.sin.len()]
                    == [feature_len, self.header.frequencies, self.header.frequencies]
            };
            let missing = sketch.missing.len() == self.missing.len();
            if !missing || sketch.members.len() != recipe.extractors || !sketch.members.iter().all(fits) {
                return Err(Error::Sketch("the sketch was made for another extractor pool than the rows'".into()));
            }
        }
        let mut counts = vec![0u64; sketches.len()];
        classes.iter().for_each(|c| counts[*c] += 1);
        for (sketch, more) in sketches.iter().zip(counts) {
            count_after(sketch.count, more)?;
        }
        if let Some(at) = rows.values.iter().position(|v| !v.is_finite()) {
            let (row, number) = (at / rows.shape.len(), at % rows.shape.len());
            return Err(Error::Data(format!(
                "number {number} of row {row} of a batch, label {}, is {}; numbers must be finite: filter or replace such rows",
                rows.labels[row], rows.values[at]
            )));
        }
        Ok(())
    }

    /// The rows in the extractors' units, cut into micro-batches on the pool's device.
    fn scaled(&self, rows: &Rows) -> Result<Vec<Tensor>> {
        let recipe = &self.header.recipe;
        let input = recipe.input_shape();
        rows.values
            .chunks(MICRO_BATCH * rows.shape.len())
            .map(|chunk| {
                let dims = [vec![chunk.len() / rows.shape.len()], input.dims()].concat();
                Ok(Tensor::from_vec(recipe.scaling.scale(chunk), dims, self.pool.device())?)
            })
            .collect()
    }

    fn hashes(&self, rows: &Rows) -> Vec<[u8; 16]> {
        if self.header.reservoir == 0 {
            return vec![[0; 16]; rows.len()];
        }
        let seed = self.header.frequency_seed;
        let hash = |i| Reservoir::hash(seed, rows.row(i), rows.exact_row(i));
        (0..rows.len()).into_par_iter().with_min_len(64).map(hash).collect()
    }
}

/// The fold of one extractor.
struct MemberFold<'a> {
    sketcher: &'a Sketcher,
    member: usize,
    /// Whether this extractor has the rayon pool for itself.
    parallel: bool,
}

impl MemberFold<'_> {
    /// Gives the time spent and the clipped values of each class.
    fn run(
        &self,
        batches: &[Tensor],
        classes: &[usize],
        sums: &mut [&mut MemberSums],
        cancel: &AtomicBool,
    ) -> Result<(FoldTimes, Vec<u64>)> {
        let Sketcher { pool, header, frequencies, .. } = self.sketcher;
        let feature_len = header.recipe.feature_len();
        // In parallel work every thread is as busy as this one.
        let threads = if self.parallel { rayon::current_num_threads() as u32 } else { 1 };
        let wants = Wants { input: false, weights: false, parallel: self.parallel };
        let mut times = FoldTimes::default();
        let mut clipped = vec![0; sums.len()];
        let mut normalised = vec![0.0; MICRO_BATCH * feature_len];
        for (batch, classes) in batches.iter().zip(classes.chunks(MICRO_BATCH)) {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let start = ThreadTime::now();
            let features: Vec<f32> = pool.features(self.member, batch, wants)?.flatten_all()?.to_vec1()?;
            times.extract += start.elapsed() * threads;
            if features.len() != classes.len() * feature_len {
                return Err(Error::Pool(format!(
                    "extractor {} gave {} numbers for {} rows, expected {feature_len} a row",
                    self.member,
                    features.len(),
                    classes.len()
                )));
            }
            let start = ThreadTime::now();
            normalised.fill(0.0);
            let rows = features.chunks(feature_len).zip(normalised.chunks_mut(feature_len));
            for ((row, to), class) in rows.zip(classes) {
                if !projection::normalise(row, to) {
                    return Err(Error::Data(format!(
                        "extractor {} gives a feature that is not finite: are the values far outside {}?",
                        self.member,
                        header.recipe.scaling.described()
                    )));
                }
                clipped[*class] += sums[*class].add_embedding(row);
            }
            if let Some(moments) = &self.sketcher.moments {
                moments.add(self.member, &features, classes, sums);
            }
            times.sketch += start.elapsed();
            if let Some(frequencies) = frequencies.get(self.member) {
                let start = ThreadTime::now();
                let mut to: Vec<_> = sums.iter_mut().map(|s| CosSin { cos: &mut s.cos, sin: &mut s.sin }).collect();
                frequencies.add(&normalised, classes, &mut to, self.parallel)?;
                times.sketch += start.elapsed() * threads;
            }
        }
        Ok((times, clipped))
    }
}

/// Bytes that the extractors work in, about: activations of a micro-batch a thread, and its features.
pub(crate) fn working_bytes(recipe: &PoolRecipe, frequencies: usize, threads: usize) -> usize {
    let activations = match recipe.shape {
        Shape::Picture { height, width, .. } => 3 * recipe.width * (height + 4) * (width + 4),
        Shape::Vector { .. } => 2 * recipe.width,
    };
    let floats = recipe.shape.len() + recipe.input_shape().len() + activations + recipe.feature_len() + 2 * frequencies;
    threads * MICRO_BATCH * floats * size_of::<f32>()
}

#[cfg(test)]
#[path = "sketcher_tests.rs"]
mod tests;
