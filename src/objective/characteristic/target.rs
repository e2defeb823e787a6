//! The characteristic functions of real rows flow in; how far those of synthetic rows are from them flows out.

use candle_core::Tensor;

/// Inside the square roots of amplitudes and of the distance: their gradients stay finite at 0.
const ROOT_EPSILON: f64 = 1e-12;

/// The real rows' characteristic functions for one extractor, `[classes, frequencies]` each.
///
/// `P_r` is of n rows. Of the rows behind them it is an unbiased estimate, but `|P_r|^2` is too large by `(1 - |P|^2) / n` on average: the amplitude is that of the unbiased
/// `(n |P_r|^2 - 1) / (n - 1)`, which matters for classes of few rows. `|P_r - P_s|^2` is too large by as much, whatever the synthetic rows: it is left as it is, since
/// under the root a constant taken off would give distances near it gradients without bound.
#[derive(Debug)]
pub(super) struct Target {
    real: Tensor,
    imaginary: Tensor,
    /// Corrected for the number of rows.
    pub(super) amplitude: Tensor,
}

/// The weights of the two parts of the discrepancy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// Of the amplitude.
    pub(super) alpha: f64,
    /// Of the phase.
    pub(super) beta: f64,
}

impl Target {
    /// Of classes of `counts` rows.
    pub(super) fn new(real: Tensor, imaginary: Tensor, counts: &[u64]) -> candle_core::Result<Self> {
        let column = |of: fn(f64) -> f64| {
            let values: Vec<f32> = counts.iter().map(|n| of(*n as f64) as f32).collect();
            Tensor::from_vec(values, (counts.len(), 1), real.device())
        };
        let squared = (real.sqr()? + imaginary.sqr()?)?;
        // One row tells nothing of the spread: it is taken as it is.
        let excess = column(|n| if n > 1.0 { 1.0 / (n - 1.0) } else { 0.0 })?;
        let excess = squared.affine(-1.0, 1.0)?.relu()?.broadcast_mul(&excess)?;
        let amplitude = ((squared - &excess)?.relu()? + ROOT_EPSILON)?.sqrt()?;
        Ok(Self { real, imaginary, amplitude })
    }

    /// The discrepancy of each class at each frequency from rows whose characteristic function is `(real, imaginary)`, `[classes, frequencies]`, see
    /// [`Characteristic`](super::Characteristic).
    pub(super) fn gaps(&self, (real, imaginary): (&Tensor, &Tensor), weights: Weights) -> candle_core::Result<Tensor> {
        let Weights { alpha, beta } = weights;
        let apart = ((real - &self.real)?.sqr()? + (imaginary - &self.imaginary)?.sqr()?)?;
        let mut squared = (apart * beta)?;
        if alpha != beta {
            let amplitudes = (amplitude(real, imaginary)? - &self.amplitude)?.sqr()?;
            // Never negative but for rounding and the correction.
            squared = (squared + (amplitudes * (alpha - beta))?)?.relu()?;
        }
        (squared + ROOT_EPSILON)?.sqrt()
    }
}

fn amplitude(real: &Tensor, imaginary: &Tensor) -> candle_core::Result<Tensor> {
    ((real.sqr()? + imaginary.sqr()?)? + ROOT_EPSILON)?.sqrt()
}
