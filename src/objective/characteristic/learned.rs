//! Kept real rows and synthetic features flow in; frequencies that tell them apart, and the discrepancy there, flow out.

use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{Device, Result, Tensor, Var};

use super::normalised;
use super::target::{Target, Weights};
use crate::extract::Pool;
use crate::kernels::{Groups, Wants, characteristic_learned};
use crate::objective::of_member;
use crate::options::FrequencyScales;
use crate::random;
use crate::sketch::projection::scale;
use crate::sketch::{MICRO_BATCH, Sketches};
use crate::synthesize::{Adam, Optimizer};

/// Most real rows of a class that frequencies are learned on: a quarter of what the sketch keeps of pictures by default, as each step looks at all of them.
const MOST_ROWS: usize = 250;

/// The learning rate of directions, whose numbers have a deviation of 1, and of the logarithms of scales.
const RATE: f64 = 0.02;

/// Most that a frequency's length becomes larger or smaller by, as a factor: far away from those that are drawn everything is apart, real rows from each other too.
const MOST_SCALING: f64 = 4.0;

/// The player who learns frequencies (NCFM, equation 3: the maximum, over a sampling network's parameters, of the discrepancy that the rows minimize).
///
/// The network of the paper turns normal noise into frequencies. Here each frequency has its own noise `e ~ N(0, I)`, drawn by seed as those of the sketch are, and what is learned is
/// where it points and how long it is: `t = exp(l) s |e| v / |v|`, with v = e and l = 0 at first, `|l|` at most log 4, and s the sketch's scale for it. After each step of
/// the rows, v and l of the step's extractor move once, by Adam, so that the mean over classes of the discrepancy grows.
///
/// The sketch has no sums at frequencies that nobody knew before the pass. So real rows are those that it keeps: a uniform draw of the distinct ones, at most 250 a class; what so few add to
/// amplitudes is taken off, as in [`Target`]. What chance adds to phases isn't, which is why these frequencies only help those of the sketch, in proportion to their numbers.
#[derive(Debug)]
pub(super) struct Learned<'a> {
    pool: &'a Pool,
    count: usize,
    seed: u64,
    scales: FrequencyScales,
    weights: Weights,
    /// Kept rows, sorted by class, in the extractors' units.
    rows: Tensor,
    groups: Groups,
    counts: Vec<u64>,
    /// Of each extractor, the kept rows' normalised features; computed when it is first used.
    features: Vec<OnceLock<Tensor>>,
    game: Mutex<Game>,
}

/// Where the game stands.
#[derive(Debug)]
struct Game {
    /// One an extractor that was used.
    banks: Vec<Option<Bank>>,
    last: Option<Last>,
}

/// One extractor's frequencies.
#[derive(Debug)]
struct Bank {
    /// v, `[feature_len, count]`.
    direction: Var,
    /// l, `[1, count]`.
    stretch: Var,
    /// `s |e|`, `[1, count]`.
    length: Tensor,
    optimizer: Adam,
}

/// What the player answers to.
#[derive(Debug)]
struct Last {
    member: usize,
    /// Of the synthetic rows, detached.
    features: Tensor,
    groups: Groups,
    /// With their graphs: the frequencies, and the characteristic function of the real rows there.
    frequencies: Tensor,
    real: (Tensor, Tensor),
}

impl<'a> Learned<'a> {
    /// `count` frequencies an extractor of `pool`, which are compared on the rows that `sketches` keep. Fails where they keep none of a class.
    pub(super) fn new(
        sketches: &Sketches,
        pool: &'a Pool,
        count: usize,
        seed: u64,
        weights: Weights,
    ) -> crate::error::Result<Self> {
        let (mut values, mut sizes) = (vec![], vec![]);
        sketches.check_kept("to learn frequencies on", MOST_ROWS, "learned_frequencies => 0")?;
        for sketch in sketches.classes.values() {
            let kept = sketch.reservoir.first(MOST_ROWS);
            kept.iter().for_each(|row| row.values.append_to(&mut values));
            sizes.push(kept.len());
        }
        let members = sketches.header.recipe.extractors;
        Ok(Self {
            pool,
            count,
            seed,
            scales: sketches.header.frequency_scales.clone(),
            weights,
            rows: pool.scale(&values)?,
            groups: Groups::new(&sizes),
            counts: sizes.into_iter().map(|size| size as u64).collect(),
            features: (0..members).map(|_| OnceLock::new()).collect(),
            game: Mutex::new(Game { banks: (0..members).map(|_| None).collect(), last: None }),
        })
    }

    /// Frequencies an extractor.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The mean discrepancy of synthetic rows' normalised `features` at the frequencies of extractor `member` as they are, differentiable in the features alone.
    pub(super) fn loss(&self, member: usize, features: &Tensor, groups: &Groups) -> Result<Tensor> {
        let of_real = self.features(member)?;
        let mut game = self.game.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = game.banks.get_mut(member) else {
            candle_core::bail!("extractor {member} asked for, there are {}", self.features.len())
        };
        let bank = match slot {
            Some(bank) => bank,
            None => slot.insert(Bank::new(self, member, features.dim(1)?, features.device())?),
        };
        let frequencies = bank.frequencies()?;
        let real = characteristic_learned(of_real, &frequencies, &self.groups)?;
        let (re, im) = characteristic_learned(features, &frequencies.detach(), groups)?;
        let target = Target::new(real.0.detach(), real.1.detach(), &self.counts)?;
        let features = features.detach();
        game.last = Some(Last { member, features, groups: groups.clone(), frequencies, real });
        target.gaps((&re, &im), self.weights)?.mean_all()
    }

    /// After a step of the rows, one step up for the frequencies of the last loss.
    pub(super) fn respond(&self) -> Result<()> {
        let mut game = self.game.lock().unwrap_or_else(PoisonError::into_inner);
        let Game { banks, last } = &mut *game;
        let Some(Last { member, features, groups, frequencies, real }) = last.take() else { return Ok(()) };
        let Some(bank) = banks.get_mut(member).and_then(Option::as_mut) else { return Ok(()) };
        let (re, im) = characteristic_learned(&features, &frequencies, &groups)?;
        let gaps = Target::new(real.0, real.1, &self.counts)?.gaps((&re, &im), self.weights)?;
        // A frequency's gradient shouldn't depend on how many others there are.
        bank.climb(&gaps.mean(0)?.sum_all()?)
    }

    fn features(&self, member: usize) -> Result<&Tensor> {
        let slot = of_member(&self.features, member)?;
        if let Some(features) = slot.get() {
            return Ok(features);
        }
        let wants = Wants { input: false, weights: false, parallel: true };
        let n = self.rows.dim(0)?;
        let part = |start: usize| {
            let rows = self.rows.narrow(0, start, MICRO_BATCH.min(n - start))?.contiguous()?;
            normalised(&self.pool.features(member, &rows, wants).map_err(candle_core::Error::wrap)?)
        };
        let parts = (0..n).step_by(MICRO_BATCH).map(part).collect::<Result<Vec<_>>>()?;
        let features = Tensor::cat(&parts, 0)?;
        Ok(slot.get_or_init(|| features))
    }
}

impl Bank {
    fn new(of: &Learned<'_>, member: usize, feature_len: usize, device: &Device) -> Result<Self> {
        let mut stream = random::stream(of.seed, &format!("learned frequencies of extractor {member}"));
        let noise = random::normal(&mut stream, feature_len * of.count);
        let mut scaled = noise.clone();
        scale(&mut scaled, of.count, &of.scales);
        let shape = (feature_len, of.count);
        let length = Tensor::from_vec(scaled, shape, device)?.sqr()?.sum_keepdim(0)?.sqrt()?;
        let direction = Var::from_vec(noise, shape, device)?;
        let stretch = Var::from_tensor(&length.zeros_like()?)?;
        let optimizer = Adam::new(vec![direction.clone(), stretch.clone()], Adam::BETAS)?;
        Ok(Self { direction, stretch, length, optimizer })
    }

    /// t, `[feature_len, count]`.
    fn frequencies(&self) -> Result<Tensor> {
        let direction = self.direction.as_tensor();
        let norm = direction.sqr()?.sum_keepdim(0)?.sqrt()?;
        let length = (self.stretch.exp()? * &self.length)?;
        direction.broadcast_mul(&(length / norm)?)
    }

    /// One step so that `gain` grows.
    fn climb(&mut self, gain: &Tensor) -> Result<()> {
        let mut gradients = gain.neg()?.backward()?;
        let mut of = |variable: &Var| match gradients.remove(variable) {
            Some(gradient) => Ok(gradient),
            None => variable.zeros_like(),
        };
        let gradients = [of(&self.direction)?, of(&self.stretch)?];
        self.optimizer.step(&gradients, RATE)?;
        let most = MOST_SCALING.ln();
        let clamped = self.stretch.as_detached_tensor().clamp(-most, most)?;
        self.stretch.set(&clamped)
    }
}

/// Bytes of memory that `count` learned frequencies an extractor take, for `rows` synthetic rows.
pub(super) fn bytes(sketches: &Sketches, count: usize, rows: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let recipe = &sketches.header.recipe;
    let (members, feature_len) = (recipe.extractors, recipe.feature_len());
    let kept: usize = sketches.classes.values().map(|sketch| sketch.reservoir.first(MOST_ROWS).len()).sum();
    // Real rows and their features; of each extractor the directions and the optimizer's two moments; in a step the frequencies, packed for both sides,
    // and their gradients; the angles of all rows and their gradients.
    let rows_held = kept * (recipe.input_shape().len() + members * feature_len) + rows * feature_len;
    let floats = rows_held + (3 * members + 8) * feature_len * count + 3 * (kept + rows) * count;
    floats * size_of::<f32>()
}

#[cfg(test)]
#[path = "learned_tests.rs"]
mod tests;
