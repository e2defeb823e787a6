//! Synthetic pictures flow in, what a training on them standardises pictures by flows out.

use candle_core::{Result, Tensor};

/// What is added to a channel's variance: one that never changes keeps its scale, nearly.
const EPSILON: f64 = 1e-6;

/// Mean of each channel, and the factor that makes its deviation 1, both `[1, channels, 1, 1]`.
pub(super) struct Standard {
    mean: Tensor,
    factor: Tensor,
}

impl Standard {
    /// That of pictures `[n, channels, height, width]`.
    pub(super) fn of(x: &Tensor) -> Result<Self> {
        let mean = x.mean_keepdim((0, 2, 3))?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 2, 3))?;
        Ok(Self { mean, factor: (variance + EPSILON)?.sqrt()?.recip()? })
    }

    /// Pictures, standardised.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.broadcast_sub(&self.mean)?.broadcast_mul(&self.factor)
    }

    /// The gradient for pictures from that for standardised ones.
    pub(super) fn transposed(&self, gradient: &Tensor) -> Result<Tensor> {
        gradient.broadcast_mul(&self.factor)
    }
}
