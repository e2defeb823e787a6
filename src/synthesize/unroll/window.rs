//! A network in training and the rows it is trained on flow in; the network after a few steps flows out, and how the rows should have been.
//!
//! With weights `w`, momentum `m`, rate `r` and the training loss's gradient `g(w, x)`, a training step is `m' = u m + g(w, x)`, `w' = w - r m'`. From the last to
//! the first one, with `a` and `b` the real loss's gradients for `w'` and `m'`: `b <- b - r a`, then `x` gets `(dg/dx)^T b`, `a <- a + (dg/dw)^T b` and `b <- u b` (Maclaurin,
//! Duvenaud and Adams, ICML 2015, algorithm 2). Both products are differences of gradients at `w + e b` and `w - e b` (as DARTS takes them, Liu, Simonyan and
//! Yang, ICLR 2019, equation 8): nothing but the training's own gradients is needed, and memory for a window's weights. A difference to one side only is a third
//! cheaper, and worthless here: its error grows from step to step.

use candle_core::{Tensor, Var};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use super::real::Real;
use super::standard::Standard;
use super::student::{Student, Wanted};
use crate::error::Result;
use crate::kernels::Transform;

/// Training steps of a window: at the same cost, ten or twenty teach less, as what happens after a window isn't seen in it.
const STEPS: usize = 40;

/// Rows of a training step.
const BATCH: usize = 50;

/// Real rows that a network is tried on.
const REAL_BATCH: usize = 128;

/// Rate and momentum of the training, those of the field's evaluation.
pub(super) const RATE: f64 = 0.01;
pub(super) const MOMENTUM: f64 = 0.9;

/// Length of the differences, as a part of the weights'.
const DIFFERENCE: f64 = 0.02;

/// Sets of weights that a window holds.
pub(super) const WEIGHTS: usize = STEPS + 8;

/// Most rows that a network sees at once.
pub(super) const LARGEST_BATCH: usize = if REAL_BATCH > BATCH { REAL_BATCH } else { BATCH };

/// Pictures that a window of training on `rows` rows holds.
pub(super) fn pictures(rows: usize) -> usize {
    3 * rows + 8 * BATCH.min(rows) + 2 * REAL_BATCH
}

/// What all windows have in common.
pub(super) struct Window<'a> {
    pub(super) student: Student,
    pub(super) real: Real<'a>,
    /// Whether gradients for the labels are wanted.
    pub(super) learn_labels: bool,
    /// Whether a step's rows are spread over the threads.
    pub(super) parallel: bool,
}

/// A network in training.
pub(super) struct Trainee {
    pub(super) weights: Tensor,
    momentum: Tensor,
    /// Training steps until it is replaced.
    pub(super) left: usize,
}

impl Trainee {
    /// One that wasn't trained yet.
    pub(super) fn new(weights: Tensor, left: usize) -> Result<Self> {
        Ok(Self { momentum: weights.zeros_like()?, weights, left })
    }
}

/// What a window says.
pub(super) struct Outcome {
    /// The loss at its end.
    pub(super) loss: f64,
    pub(super) gradient: Gradient,
}

/// A loss's gradient, or a part of it.
pub(super) struct Gradient {
    /// For the rows.
    pub(super) rows: Tensor,
    /// And for the labels, where it is wanted.
    pub(super) labels: Option<Tensor>,
}

/// A training step as it was taken, to go back through.
pub(super) struct Step {
    /// The weights before it.
    weights: Tensor,
    /// Which rows; `None`: all.
    at: Option<Tensor>,
    /// How they were augmented.
    transform: Transform,
    /// Training steps from here to the window's end, this one among them.
    to_end: usize,
}

/// How what a network learns in a step changes, for weights that are moved.
struct Slopes {
    /// As the weights; `None`: not asked for.
    weights: Option<Tensor>,
    /// As the step's rows, before their augmentation.
    rows: Tensor,
    /// As their labels; `None`: not learned.
    labels: Option<Tensor>,
}

impl Window<'_> {
    /// Trains `trainee` on rows `x` `[n, ..input]`, in the extractors' units, with shares of the classes `y` `[n, classes]`, tries it on real rows and goes back. Gives the
    /// network after it, too.
    pub(super) fn look(
        &self,
        trainee: &Trainee,
        (x, y): (&Tensor, &Tensor),
        standard: &Standard,
        mut draws: ChaCha12Rng,
    ) -> Result<(Outcome, Trainee)> {
        let x = standard.apply(x)?;
        let (after, steps) = self.train(trainee, RATE, (&x, y), (STEPS, 1), &mut draws)?;
        let kept = self.real.len();
        let at: Vec<u32> = (0..REAL_BATCH.min(kept)).map(|_| draws.random_range(0..kept as u32)).collect();
        let (real_x, real_y) = self.real.batch(&at, standard)?;
        let wanted = Wanted { weights: true, parallel: self.parallel, ..Wanted::default() };
        let real = self.student.gradient(&after.weights, &real_x, &real_y, wanted)?;
        let (rows, labels) = self.back(steps, RATE, real.weights, (&x, y))?;
        Ok((Outcome { loss: f64::from(real.loss), gradient: self.gradient(&rows, labels, standard)? }, after))
    }

    /// That for rows as they were before `standard`, of that for `rows` that are standardised; of `labels` if they are learned.
    pub(super) fn gradient(&self, rows: &Tensor, labels: Tensor, standard: &Standard) -> Result<Gradient> {
        let rows = standard.transposed(rows)?.detach();
        Ok(Gradient { rows, labels: self.learn_labels.then_some(labels) })
    }

    /// So many steps of training at `rate`, by batches of the shuffled rows. Gives one of each `every`, counted from the window's end, to go back through.
    pub(super) fn train(
        &self,
        trainee: &Trainee,
        rate: f64,
        (x, y): (&Tensor, &Tensor),
        (steps, every): (usize, usize),
        draws: &mut ChaCha12Rng,
    ) -> Result<(Trainee, Vec<Step>)> {
        let n = x.dim(0)?;
        let batch = BATCH.min(n);
        let (mut weights, mut momentum) = (trainee.weights.clone(), trainee.momentum.clone());
        let mut order: Vec<u32> = vec![];
        let mut taken = Vec::with_capacity(steps / every + 1);
        for to_end in (1..=steps).rev() {
            let at = match batch < n {
                true => Some(Tensor::new(next(&mut order, batch, n, draws), x.device())?),
                false => None,
            };
            let transform = Transform::per_row(Transform::DSA, batch, self.student.input(), draws);
            let (augmented, y) = (transform.apply(&picked(x, &at)?)?, picked(y, &at)?);
            let wanted = Wanted { weights: true, parallel: self.parallel, ..Wanted::default() };
            let gradient = self.student.gradient(&weights, &augmented, &y, wanted)?.weights;
            momentum = ((momentum * MOMENTUM)? + gradient)?;
            let after = (&weights - (&momentum * rate)?)?;
            let before = std::mem::replace(&mut weights, after);
            if to_end % every == every / 2 % every {
                taken.push(Step { weights: before, at, transform, to_end });
            }
        }
        Ok((Trainee { weights, momentum, left: trainee.left.saturating_sub(steps) }, taken))
    }

    /// The gradients for standardised rows `x` and labels `y`, from `a`, that for the weights after `steps`, all of the window's, at `rate`. Batches are made anew, not kept.
    pub(super) fn back(
        &self,
        steps: Vec<Step>,
        rate: f64,
        mut a: Tensor,
        (x, y): (&Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor)> {
        let mut b = a.zeros_like()?;
        let (mut by_rows, mut by_labels) = (x.zeros_like()?, y.zeros_like()?);
        for step in steps.into_iter().rev() {
            b = (b - (&a * rate)?)?;
            let Some(slopes) = self.slopes(&step, &b, (x, y), true)? else { break };
            if let Some(weights) = &slopes.weights {
                a = (a + weights)?;
            }
            slopes.add_to(&mut by_rows, &mut by_labels, &step)?;
            b = (b * MOMENTUM)?;
        }
        Ok((by_rows, by_labels))
    }

    /// What [`Self::back`] gives, of those `steps` that are there, as if the weights that a step starts from were given: how rows change them, and so what later steps learn, is left
    /// out. The gradient `a` is the same for all steps then.
    pub(super) fn back_directly(
        &self,
        steps: Vec<Step>,
        rate: f64,
        a: &Tensor,
        (x, y): (&Tensor, &Tensor),
    ) -> Result<(Tensor, Tensor)> {
        let (mut by_rows, mut by_labels) = (x.zeros_like()?, y.zeros_like()?);
        for step in steps.into_iter().rev() {
            // By momentum a step moves the weights again in each that follows.
            let moves = (1.0 - MOMENTUM.powi(step.to_end as i32)) / (1.0 - MOMENTUM);
            let Some(slopes) = self.slopes(&step, &(a * (-rate * moves))?, (x, y), false)? else { break };
            slopes.add_to(&mut by_rows, &mut by_labels, &step)?;
        }
        Ok((by_rows, by_labels))
    }

    /// How the gradient of `step` changes along `b`: (dg/dw)^T b, if it is wanted, and (dg/dx)^T b. `None`: `b` has no length.
    fn slopes(&self, step: &Step, b: &Tensor, (x, y): (&Tensor, &Tensor), of_weights: bool) -> Result<Option<Slopes>> {
        let size = length(b)?;
        if !(size > 0.0 && size.is_finite()) {
            return Ok(None);
        }
        let x = Var::from_tensor(&picked(x, &step.at)?)?;
        let (augmented, y) = (step.transform.apply(x.as_tensor())?, picked(y, &step.at)?);
        let by = DIFFERENCE * length(&step.weights)? / size;
        let moved = |by: f64| {
            let weights = (&step.weights + (b * by)?)?;
            let wanted = Wanted { weights: of_weights, rows: true, labels: self.learn_labels, parallel: self.parallel };
            self.student.gradient(&weights, &augmented, &y, wanted)
        };
        let (plus, minus) = (moved(by)?, moved(-by)?);
        let slope = |plus: &Tensor, minus: &Tensor| (plus - minus)?.affine(0.5 / by, 0.0);
        let rows = match (&plus.rows, &minus.rows) {
            (Some(plus), Some(minus)) => {
                let along = (&augmented * slope(plus, minus)?)?.sum_all()?;
                along.backward()?.remove(x.as_tensor())
            }
            _ => None,
        };
        let labels = match (&plus.labels, &minus.labels) {
            (Some(plus), Some(minus)) => Some(slope(plus, minus)?),
            _ => None,
        };
        let rows = rows.map_or_else(|| x.zeros_like(), Ok)?;
        let weights = of_weights.then(|| slope(&plus.weights, &minus.weights)).transpose()?;
        Ok(Some(Slopes { weights, rows, labels }))
    }
}

impl Slopes {
    /// Adds what they say of the rows of `step` to sums for all rows.
    fn add_to(&self, by_rows: &mut Tensor, by_labels: &mut Tensor, step: &Step) -> Result<()> {
        *by_rows = added(by_rows, &self.rows, &step.at)?;
        if let Some(labels) = &self.labels {
            *by_labels = added(by_labels, labels, &step.at)?;
        }
        Ok(())
    }
}

/// The next `batch` of `n` rows, of those left of `order`; shuffled anew where they don't suffice.
pub(super) fn next(order: &mut Vec<u32>, batch: usize, n: usize, draws: &mut ChaCha12Rng) -> Vec<u32> {
    if order.len() < batch {
        *order = (0..n as u32).collect();
        order.shuffle(draws);
    }
    order.split_off(order.len().saturating_sub(batch))
}

/// The rows of `from` at `at`; `None`: all.
fn picked(from: &Tensor, at: &Option<Tensor>) -> Result<Tensor> {
    Ok(match at {
        Some(at) => from.index_select(at, 0)?,
        None => from.clone(),
    })
}

/// `sum` with `part` added to its rows at `at`; `None`: to all.
fn added(sum: &Tensor, part: &Tensor, at: &Option<Tensor>) -> Result<Tensor> {
    Ok(match at {
        Some(at) => sum.index_add(at, part, 0)?,
        None => (sum + part)?,
    })
}

/// The Euclidean length.
pub(super) fn length(of: &Tensor) -> Result<f64> {
    Ok(f64::from(of.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt())
}
