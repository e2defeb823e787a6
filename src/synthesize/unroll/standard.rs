//! Pictures flow in; what a training standardises pictures by flows out: mean and deviation of the synthetic ones, or of the real ones that experts see.

use candle_core::{Device, Result, Tensor};

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

    /// That of all of `chunks`, each like pictures of [`Self::of`].
    pub(super) fn of_chunks(chunks: impl Iterator<Item = crate::error::Result<Tensor>>) -> crate::error::Result<Self> {
        let (mut sums, mut count, mut device) = (vec![], 0.0, Device::Cpu);
        for chunk in chunks {
            let chunk = chunk?;
            let rows = chunk.dim(0)? as f64;
            let means: Vec<f32> = chunk.mean((0, 2, 3))?.to_vec1()?;
            let squares: Vec<f32> = chunk.sqr()?.mean((0, 2, 3))?.to_vec1()?;
            sums.resize(means.len(), (0.0, 0.0));
            for (sum, (mean, square)) in sums.iter_mut().zip(means.into_iter().zip(squares)) {
                *sum = (sum.0 + rows * f64::from(mean), sum.1 + rows * f64::from(square));
            }
            (count, device) = (count + rows, chunk.device().clone());
        }
        let of = |number: &dyn Fn(f64, f64) -> f64| {
            let numbers = sums.iter().map(|(sum, squares)| number(sum / count, squares / count) as f32).collect();
            Tensor::from_vec(numbers, (1, sums.len(), 1, 1), &device)
        };
        let factor = |mean: f64, square: f64| ((square - mean * mean).max(0.0) + EPSILON).sqrt().recip();
        Ok(Self { mean: of(&|mean, _| mean)?, factor: of(&factor)? })
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
