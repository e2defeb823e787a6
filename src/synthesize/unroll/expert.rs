//! A fresh network and the kept real rows flow in; its weights on the way through training on them flow out.

use candle_core::{D, Tensor};
use candle_nn::ops::softmax;
use rand_chacha::ChaCha12Rng;

use super::standard::Standard;
use super::student::{Student, Wanted};
use super::window::{LARGEST_BATCH, MOMENTUM, Window, next};
use crate::error::Result;
use crate::kernels::{Transform, Wants};

/// Training steps between two weights that are kept.
const LEG: usize = 40;

/// Such legs of an expert's training that `rows` rows of `classes` classes follow: more rows can follow what is learned later (DATM, Guo et al., ICLR 2024, section 3).
pub(super) fn legs(rows: usize, classes: usize) -> usize {
    if rows <= FEW * classes { 40 } else { 80 }
}

/// Most rows a class that are few.
const FEW: usize = 20;

/// Real rows of a training step.
///
/// Of as many rows in all, many small steps get further than few large ones; what is random about them goes out of a leg's mean.
pub(super) const BATCH: usize = 32;

/// Rate of the training.
const RATE: f64 = 0.015;

/// Sets of weights that an expert holds while it is trained, but for those after each leg.
pub(super) const WEIGHTS: usize = 6;

/// A network that is trained on real rows (MTT, Cazenavette et al., CVPR 2022, section 3.1).
pub(super) struct Expert {
    weights: Tensor,
    momentum: Tensor,
    /// The weights before the first leg, and their mean over the steps of each: better networks than any step's, on a smoother way (Izmailov et al., UAI 2018).
    trajectory: Vec<Tensor>,
    /// Rows that weren't seen yet in this pass over them.
    order: Vec<u32>,
    draws: ChaCha12Rng,
}

impl Expert {
    /// One that wasn't trained yet, whose batches come from `draws`.
    pub(super) fn new(weights: Tensor, draws: ChaCha12Rng) -> Result<Self> {
        Ok(Self { momentum: weights.zeros_like()?, trajectory: vec![weights.clone()], weights, order: vec![], draws })
    }

    /// Trains it for a leg, on the real rows of `window`, parallel if the caller isn't.
    pub(super) fn go_on(&mut self, window: &Window, standard: &Standard, parallel: bool) -> Result<()> {
        let kept = window.real.len();
        let wanted = Wanted { weights: true, parallel, ..Wanted::default() };
        let mut sum = self.weights.zeros_like()?;
        for _ in 0..LEG {
            let at = next(&mut self.order, BATCH.min(kept), kept, &mut self.draws);
            let transform = Transform::per_row(Transform::DSA, at.len(), window.student.input(), &mut self.draws);
            let (x, y) = window.real.batch(&at, standard)?;
            let gradient = window.student.gradient(&self.weights, &transform.apply(&x)?, &y, wanted)?.weights;
            self.momentum = ((&self.momentum * MOMENTUM)? + gradient)?;
            self.weights = (&self.weights - (&self.momentum * RATE)?)?;
            sum = (sum + &self.weights)?;
        }
        self.trajectory.push((sum / LEG as f64)?);
        Ok(())
    }

    /// Its weights `legs` legs apart, the first of them after `start` legs.
    pub(super) fn stretch(&self, start: usize, legs: usize) -> (&Tensor, &Tensor) {
        (&self.trajectory[start], &self.trajectory[start + legs])
    }
}

/// What `experts` say of standardised rows `x` `[rows, ..input]` at the end of their training: the mean of their shares of the classes, `[rows, classes]`.
pub(super) fn shares(experts: &[Expert], student: &Student, x: &Tensor) -> Result<Tensor> {
    let wants = Wants { input: false, weights: false, parallel: true };
    let rows = x.dim(0)?;
    let mut parts = vec![];
    for start in (0..rows).step_by(LARGEST_BATCH) {
        let part = x.narrow(0, start, LARGEST_BATCH.min(rows - start))?;
        let of = |expert: &Expert| {
            let weights = expert.trajectory.last().unwrap_or(&expert.weights);
            Ok(softmax(&student.logits(weights, &part, wants)?, D::Minus1)?)
        };
        let said = experts.iter().map(of).collect::<Result<Vec<_>>>()?;
        parts.push(Tensor::stack(&said, 0)?.mean(0)?);
    }
    Ok(Tensor::cat(&parts, 0)?)
}
