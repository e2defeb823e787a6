//! A fresh network and the kept real rows flow in; its weights on the way through training on them flow out.

use candle_core::Tensor;
use rand_chacha::ChaCha12Rng;

use super::standard::Standard;
use super::student::Wanted;
use super::window::{MOMENTUM, Window, next};
use crate::error::Result;
use crate::kernels::Transform;

/// Training steps between two weights that are kept.
const LEG: usize = 10;

/// Such legs of an expert's training.
pub(super) const LEGS: usize = 40;

/// Real rows of a training step.
pub(super) const BATCH: usize = 128;

/// Rate of the training: higher than the field's, so that experts get as far in fewer steps.
const RATE: f64 = 0.03;

/// A network that is trained on real rows (MTT, Cazenavette et al., CVPR 2022, section 3.1).
pub(super) struct Expert {
    weights: Tensor,
    momentum: Tensor,
    /// The weights before the first leg and after each.
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

    /// Trains it for a leg, on the real rows of `window`, of `classes` classes, parallel if the caller isn't.
    pub(super) fn go_on(&mut self, window: &Window, classes: usize, standard: &Standard, parallel: bool) -> Result<()> {
        let kept = window.real_classes.len();
        let wanted = Wanted { weights: true, parallel, ..Wanted::default() };
        for _ in 0..LEG {
            let at = next(&mut self.order, BATCH.min(kept), kept, &mut self.draws);
            let transform = Transform::per_row(Transform::DSA, at.len(), window.student.input(), &mut self.draws);
            let (x, y) = window.real_batch(at, classes, standard)?;
            let gradient = window.student.gradient(&self.weights, &transform.apply(&x)?, &y, wanted)?.weights;
            self.momentum = ((&self.momentum * MOMENTUM)? + gradient)?;
            self.weights = (&self.weights - (&self.momentum * RATE)?)?;
        }
        self.trajectory.push(self.weights.clone());
        Ok(())
    }

    /// Its weights `legs` legs apart, the first of them after `start` legs.
    pub(super) fn stretch(&self, start: usize, legs: usize) -> (&Tensor, &Tensor) {
        (&self.trajectory[start], &self.trajectory[start + legs])
    }
}
