//! Initial rows flow in; rows optimized against the sketches flow out.

use std::ops::ControlFlow;

use candle_core::{Tensor, Var};
use rand::Rng;

use crate::error::{Error, Result};
use crate::extract::{Pool, Scaling};
use crate::kernels::Wants;
use crate::objective::{Calibration, Characteristic, Groups, Mean, Objective, Ridge, one_hot};
use crate::options::{OptimizerKind, Options, Term};
use crate::random;
use crate::rows::{Mosaic, Shape};
use crate::sketch::Sketches;
use crate::synthesize::SoftLabels;
use crate::synthesize::unpack::Unpack;
use crate::synthesize::{Adam, Optimizer, Progress, Recipe, Sgd};

/// Most rows whose intermediate results are held for the backward pass at once (some 0.6 MB a picture of 28x28 at width 128).
const ROWS_AT_ONCE: usize = 1024;

/// Most states that are judged, beside the start.
const JUDGED: usize = 20;

/// Most extractors that judge a state: their forward passes take about as long as one step.
const JUDGES: usize = 4;

/// The optimization of one job.
pub(crate) struct Descent<'a> {
    /// The sketches' own, which says what rows look like.
    pool: &'a Pool,
    recipe: &'a Recipe,
    options: &'a Options,
    /// Of the rows that the extractors see.
    groups: Groups,
    /// What makes those of stored rows; `None`: they are the same.
    unpack: Option<Unpack>,
    /// The sketches' own extractors, then further ones: members are counted through.
    matched: Vec<Matched<'a>>,
    pub(crate) rows_at_once: usize,
}

/// The extractors of a pool, and what is matched of their features.
struct Matched<'a> {
    pool: &'a Pool,
    objectives: Vec<(f64, Box<dyn Objective + 'a>)>,
}

impl<'a> Matched<'a> {
    fn new(sketches: &Sketches, options: &Options, recipe: &Recipe, pool: &'a Pool) -> Result<Self> {
        let mut objectives: Vec<(f64, Box<dyn Objective + 'a>)> = vec![];
        for (term, weight) in &recipe.terms.0 {
            let objective: Box<dyn Objective + 'a> = match term {
                Term::Mean => Box::new(Mean::new(sketches, pool.device())?),
                Term::Characteristic => Box::new(Characteristic::new(sketches, options, pool)?),
                Term::Ridge => Box::new(Ridge::new(sketches, pool.device())?),
                Term::Calibration => Box::new(Calibration::new(sketches, pool.device())?),
            };
            objectives.push((*weight, objective));
        }
        Ok(Self { pool, objectives })
    }

    fn extractors(&self) -> usize {
        self.pool.recipe().extractors
    }

    /// The weighted sum of the terms.
    fn sum(&self, of: impl Fn(&dyn Objective) -> candle_core::Result<Tensor>) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (weight, objective) in &self.objectives {
            let term = (of(objective.as_ref())? * *weight)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        sum.ok_or_else(|| Error::option("method", "nothing is matched"))
    }
}

/// A loss, and where it falls.
pub(crate) struct Gradient {
    pub(crate) loss: f64,
    pub(crate) rows: Tensor,
    /// `None`: the labels are given, or no term looks at them.
    pub(crate) labels: Option<Tensor>,
}

impl<'a> Descent<'a> {
    /// For synthetic rows of the classes of `sketches`, `groups` of them when they are unpacked.
    pub(crate) fn new(
        sketches: &Sketches,
        options: &'a Options,
        recipe: &'a Recipe,
        pool: &'a Pool,
        groups: Groups,
        unpack: Option<Unpack>,
    ) -> Result<Self> {
        let matched = vec![Matched::new(sketches, options, recipe, pool)?];
        Ok(Self { pool, recipe, options, groups, unpack, matched, rows_at_once: ROWS_AT_ONCE })
    }

    /// With the extractors of `pool` too, on the same device, which `sketches` of the same classes were made with.
    pub(crate) fn join(mut self, sketches: &Sketches, pool: &'a Pool) -> Result<Self> {
        // Frequencies are learned on kept rows, which only the first sketches have.
        let options = Options { learned_frequencies: 0, ..self.options.clone() };
        self.matched.push(Matched::new(sketches, &options, self.recipe, pool)?);
        Ok(self)
    }

    /// Extractors of all pools.
    pub(crate) fn members(&self) -> usize {
        self.matched.iter().map(Matched::extractors).sum()
    }

    /// What extractor `member` belongs to, and its number there.
    fn of_member(&self, member: usize) -> Result<(&Matched<'a>, usize)> {
        let mut number = member;
        for matched in &self.matched {
            match number.checked_sub(matched.extractors()) {
                Some(beyond) => number = beyond,
                None => return Ok((matched, number)),
            }
        }
        Err(Error::Pool(format!("there is no extractor {member}; there are {}, counted from 0", self.members())))
    }

    /// From `start` `[stored rows, shape.len()]`, in the extractors' units, to rows of the same form; with their labels, where these are learned, from `soft` on
    /// or else those of the rows' classes.
    pub(crate) fn run(
        &self,
        start: Vec<f32>,
        soft: Option<&SoftLabels>,
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Vec<f32>, Option<SoftLabels>)> {
        let Recipe { steps, .. } = *self.recipe;
        let mut dims = vec![self.unpack.as_ref().map_or(self.groups.rows(), Unpack::stored)];
        dims.extend(self.pool.recipe().input_shape().dims());
        let rows = Var::from_vec(start, dims, self.pool.device())?;
        let learned = self.options.learns_labels();
        let labels = Var::from_tensor(&match soft.filter(|_| learned) {
            Some(soft) => soft.centred(self.pool.device())?,
            None => one_hot(&self.groups, self.pool.device())?,
        })?;
        let optimizer = |variable: &Var| -> Result<Box<dyn Optimizer>> {
            Ok(match self.options.optimizer {
                OptimizerKind::Adam => Box::new(Adam::new(vec![variable.clone()], Adam::BETAS)?),
                OptimizerKind::Sgd => Box::new(Sgd::new(vec![variable.clone()], 0.5, 0.0)?),
            })
        };
        let (mut of_rows, mut of_labels) = (optimizer(&rows)?, optimizer(&labels)?);
        let order = passes(self.options.seed, self.members(), steps);
        let interval = steps.div_ceil(JUDGED).max(1);
        let mut best: Option<(f64, Tensor, Tensor)> = None;
        for (i, member) in order.into_iter().enumerate() {
            let moving = if learned { labels.as_tensor().clone() } else { labels.as_detached_tensor() };
            let Gradient { loss, rows: by_rows, labels: by_labels } =
                self.gradient(member, rows.as_tensor(), &moving)?;
            if !loss.is_finite() {
                return Err(Error::option(
                    "learning_rate",
                    format!("{}: the loss is {loss} in step {}; choose a lower one", self.recipe.rate, i + 1),
                ));
            }
            if best.is_none() {
                let (rows, labels) = (rows.as_detached_tensor(), labels.as_detached_tensor());
                best = Some((self.judge(&rows, &labels)?, rows.copy()?, labels.copy()?));
            }
            self.of_member(member)?.0.objectives.iter().try_for_each(|(_, objective)| objective.respond())?;
            of_rows.step(&[by_rows], self.recipe.rate_at(i))?;
            if let Some(gradient) = by_labels {
                of_labels.step(&[gradient], self.recipe.label_rate_at(i))?;
            }
            let clamped = project(&self.pool.recipe().scaling, &rows.as_detached_tensor())?;
            rows.set(&clamped)?;
            if observer(Progress { step: i + 1, steps, loss: Some(loss) }).is_break() {
                return Err(Error::Cancelled);
            }
            if (steps - i - 1) % interval == 0 {
                let labels = labels.as_detached_tensor();
                let judged = self.judge(&clamped, &labels)?;
                if best.as_ref().is_none_or(|(least, ..)| judged < *least) {
                    best = Some((judged, clamped, labels.copy()?));
                }
            }
        }
        let (rows, labels) = match best {
            Some((_, rows, labels)) => (rows, labels),
            None => (rows.as_detached_tensor(), labels.as_detached_tensor()),
        };
        let soft = learned.then(|| SoftLabels::of(&labels, &self.groups)).transpose()?;
        Ok((rows.flatten_all()?.to_vec1()?, soft))
    }

    /// The rows that the extractors see of the stored ones from number `first` on.
    fn unpacked(&self, stored: &Tensor, first: usize) -> Result<Tensor> {
        match &self.unpack {
            Some(unpack) => unpack.apply(stored, first),
            None => Ok(stored.clone()),
        }
    }

    /// Loss and gradient of rows and labels, for one extractor.
    ///
    /// The loss couples rows only through their features. So where the rows are many, the features are computed without a
    /// graph, then the loss's gradient for them, then each part of the rows once more with its graph: a third more work, bounded memory.
    pub(crate) fn gradient(&self, member: usize, rows: &Tensor, labels: &Tensor) -> Result<Gradient> {
        let wants = Wants { input: true, weights: false, parallel: true };
        let missing = || Error::Pool(format!("extractor {member} gives no gradient for its input"));
        let (matched, number) = self.of_member(member)?;
        let loss_of = |features: &Tensor| matched.sum(|term| term.loss(number, features, &self.groups, labels));
        let (n, at_once) = (rows.dim(0)?, self.stored_at_once());
        if n <= at_once {
            let loss = loss_of(&matched.pool.features(number, &self.unpacked(rows, 0)?, wants)?)?;
            let mut gradients = loss.backward()?;
            let by_rows = gradients.remove(rows).ok_or_else(missing)?;
            return Ok(Gradient { loss: scalar(&loss)?, rows: by_rows, labels: gradients.remove(labels) });
        }
        let features = Var::from_tensor(&self.features(member, &rows.detach())?)?;
        let loss = loss_of(features.as_tensor())?;
        let mut gradients = loss.backward()?;
        let by_features = gradients.remove(features.as_tensor()).ok_or_else(missing)?;
        let mut parts = vec![];
        for start in (0..n).step_by(at_once) {
            let len = at_once.min(n - start);
            let part = Var::from_tensor(&rows.narrow(0, start, len)?.detach().contiguous()?)?;
            let features = matched.pool.features(number, &self.unpacked(part.as_tensor(), start)?, wants)?;
            let seen = self.unpack.as_ref().map_or(start..start + len, |unpack| unpack.pictures(start..start + len));
            let product = (features * by_features.narrow(0, seen.start, seen.len())?)?;
            parts.push(product.sum_all()?.backward()?.remove(part.as_tensor()).ok_or_else(missing)?);
        }
        Ok(Gradient { loss: scalar(&loss)?, rows: Tensor::cat(&parts, 0)?, labels: gradients.remove(labels) })
    }

    /// Stored rows whose intermediate results are held at once.
    fn stored_at_once(&self) -> usize {
        (self.rows_at_once / self.unpack.as_ref().map_or(1, Unpack::most)).max(1)
    }

    /// Features of detached rows, without a graph, a bounded number of rows at a time.
    fn features(&self, member: usize, rows: &Tensor) -> Result<Tensor> {
        let wants = Wants { input: false, weights: false, parallel: true };
        let (matched, number) = self.of_member(member)?;
        let (n, at_once) = (rows.dim(0)?, self.stored_at_once());
        if n <= at_once {
            return matched.pool.features(number, &self.unpacked(rows, 0)?, wants);
        }
        let part = |start: usize| {
            let len = at_once.min(n - start);
            matched.pool.features(number, &self.unpacked(&rows.narrow(0, start, len)?.contiguous()?, start)?, wants)
        };
        let parts = (0..n).step_by(at_once).map(part).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The loss of detached rows, summed over a few extractors, always the same, spread over all pools.
    fn judge(&self, rows: &Tensor, labels: &Tensor) -> Result<f64> {
        let members = self.members();
        let judges = members.min(JUDGES);
        let mut sum = 0.0;
        for member in (0..judges).map(|i| i * members / judges) {
            let features = self.features(member, rows)?;
            let (matched, number) = self.of_member(member)?;
            sum += scalar(&matched.sum(|term| term.judged(number, &features, &self.groups, labels))?)?;
        }
        Ok(sum)
    }
}

/// What makes the rows that networks see of stored ones, of which row i holds `sides[i]` pictures a side; `None`: they are the same.
pub(super) fn unpack(mosaic: Option<Mosaic>, sides: &[usize], pool: &Pool) -> Result<Option<Unpack>> {
    Ok(match (mosaic, pool.recipe().input_shape()) {
        (Some(mosaic), Shape::Picture { channels, height, width }) => {
            let packed = sides.iter().map(|side| *side > 1).collect();
            Some(Unpack::new(mosaic, packed, [channels, height, width], pool.device())?)
        }
        _ => None,
    })
}

/// The nearest inputs that rows, or mixtures of them, can have.
pub(super) fn project(scaling: &Scaling, rows: &Tensor) -> Result<Tensor> {
    match scaling {
        Scaling::Affine(affine) => {
            let (low, high) = affine.bounds();
            Ok(rows.clamp(low, high)?)
        }
        Scaling::Table(table) => {
            let mut values: Vec<f32> = rows.flatten_all()?.to_vec1()?;
            table.project(&mut values);
            Ok(Tensor::from_vec(values, rows.dims(), rows.device())?)
        }
    }
}

fn scalar(loss: &Tensor) -> Result<f64> {
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

/// The extractor of each step: all of them in a shuffled order, then all again in another.
fn passes(seed: u64, members: usize, steps: usize) -> Vec<usize> {
    let mut draws = random::stream(seed, "order");
    let mut order = Vec::with_capacity(steps + members);
    while order.len() < steps && members > 0 {
        let from = order.len();
        order.extend(0..members);
        for i in (1..members).rev() {
            order.swap(from + i, from + draws.random_range(0..=i as u64) as usize);
        }
    }
    order.truncate(steps);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pass_takes_every_extractor_once_in_its_own_order() {
        let order = passes(3, 8, 20);
        assert_eq!(order.len(), 20);
        for pass in order[..16].chunks(8) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..8).collect::<Vec<_>>());
        }
        assert_ne!(order[..8], order[8..16]);
        assert_eq!(order, passes(3, 8, 20));
    }
}
