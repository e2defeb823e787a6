//! A stretch of an expert's trajectory and the rows a network is trained on flow in; how the rows should have been for the network to end where the expert did flows out, in parts.
//!
//! From the expert's weights `w0`, training on the synthetic rows leads to `wn`, and the expert's own, on real rows, to `w*`; the loss is
//! `|wn - w*|^2 / |w0 - w*|^2` (MTT, Cazenavette et al., CVPR 2022, equation 2).
//!
//! Its gradient for the rows is taken of a few training steps of each window, and directly: each of those steps should have moved the weights by more of what is missing at the window's end. How
//! rows change the weights that later steps start from is left out, as first-order MAML leaves it out (Finn et al., ICML 2017, section 5.2). MTT doesn't; it costs three
//! training steps for each, and rows learn no more by it. What a window says comes in parts, each of other steps, and each moves the rows: training to the window's end is most of
//! what it costs, and so says more (as several epochs of minibatches do in PPO, Schulman et al., 2017, algorithm 1). Where the loss is one on real rows it can't be left out: what is missing there isn't the same all along the way.

use candle_core::Tensor;
use rand_chacha::ChaCha12Rng;

use super::standard::Standard;
use super::window::{Gradient, Step, Trainee, Window, length};
use crate::error::Result;

/// The first window's rate, about where those of later windows end.
pub(super) const RATE: f64 = 0.04;

/// The first learning rate of the rows, in units of the extractors' input, and of soft labels.
pub(super) const ROWS_RATE: f64 = 0.02;
pub(super) const LABEL_RATE: f64 = 0.0035;

/// Legs of an expert's training that a window should be worth: more than it can be, so that each goes as far as it can.
pub(super) const STRETCH: usize = 20;

/// Training steps of a window, of how many one is gone back through, and in how many parts.
pub(super) const STEPS: usize = 80;
const EVERY: usize = 2;
pub(super) const PARTS: usize = 4;

/// Sets of weights that a window holds.
pub(super) const WEIGHTS: usize = STEPS / EVERY + 9;

/// What following an expert says.
pub(super) struct Followed {
    /// The loss at the window's end.
    pub(super) loss: f64,
    /// That loss's gradient, in parts of the window's steps.
    pub(super) parts: Vec<Gradient>,
    /// By what the rate should have been multiplied to end as near to the expert as can be, had the network gone the same way.
    pub(super) stride: f64,
}

impl Window<'_> {
    /// Trains a network at `rate`, from where the expert was at the beginning of a stretch, on rows `x` `[n, ..input]`, in the extractors' units, with shares of the classes
    /// `y` `[n, classes]`; compares it with the expert at its end, and goes back through the steps of each part: every fourth of those that are gone back through, so that each part
    /// has some of all the window.
    pub(super) fn follow(
        &self,
        (from, to): (&Tensor, &Tensor),
        rate: f64,
        (x, y): (&Tensor, &Tensor),
        standard: &Standard,
        mut draws: ChaCha12Rng,
    ) -> Result<Followed> {
        let x = standard.apply(x)?;
        let (after, steps) = self.train(&Trainee::new(from.clone(), 0)?, rate, (&x, y), (STEPS, EVERY), &mut draws)?;
        let (way, moved, off) = ((to - from)?, (&after.weights - from)?, (&after.weights - to)?);
        let whole = length(&way)?.powi(2);
        let loss = length(&off)?.powi(2) / whole;
        let along = f64::from((&moved * way)?.sum_all()?.to_scalar::<f32>()?);
        let stride = along / length(&moved)?.powi(2);
        let off = (off * (2.0 / whole))?;
        let mut parts: [Vec<Step>; PARTS] = Default::default();
        for (n, step) in steps.into_iter().enumerate() {
            parts[n % PARTS].push(step);
        }
        let gradient = |steps| {
            let (rows, labels) = self.back_directly(steps, rate, &off, (&x, y))?;
            self.gradient(&rows, labels, standard)
        };
        let parts = parts.into_iter().map(gradient).collect::<Result<_>>()?;
        Ok(Followed { loss, parts, stride })
    }
}
