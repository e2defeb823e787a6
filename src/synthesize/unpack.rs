//! Stored pictures flow in, the pictures that they decode to flow out, as tensors that a gradient flows back through.

use candle_core::{Device, Tensor, Var};

use crate::error::Result;
use crate::rows::Mosaic;

/// [`Mosaic::unpack`] for tensors.
#[derive(Clone)]
pub(super) struct Unpack {
    mosaic: Mosaic,
    channels: usize,
    /// `[tile height, height]` and `[tile width, width]`.
    lines: [Tensor; 2],
}

impl Unpack {
    /// Of pictures of `channels`, `height` and `width`.
    pub(super) fn new(mosaic: Mosaic, [channels, height, width]: [usize; 3], device: &Device) -> Result<Self> {
        let (tile_height, tile_width) = mosaic.tile();
        let line = |tile: usize, whole: usize| -> Result<Tensor> {
            let shares = Tensor::from_vec(Mosaic::interpolation(tile, whole), (whole, tile), device)?;
            Ok(shares.t()?.contiguous()?)
        };
        Ok(Self { mosaic, channels, lines: [line(tile_height, height)?, line(tile_width, width)?] })
    }

    /// Pictures in a stored one.
    pub(super) fn count(&self) -> usize {
        self.mosaic.count()
    }

    /// `[n, channels, height, width]` as `[n * count, channels, height, width]`.
    pub(super) fn apply(&self, stored: &Tensor) -> Result<Tensor> {
        let (tile_height, tile_width) = self.mosaic.tile();
        let [down, across] = &self.lines;
        let (height, width) = (down.dim(1)?, across.dim(1)?);
        let cut = |(top, left)| stored.narrow(2, top, tile_height)?.narrow(3, left, tile_width);
        let tiles = self.mosaic.corners().map(cut).collect::<candle_core::Result<Vec<_>>>()?;
        let planes = stored.dim(0)? * self.count() * self.channels;
        // Lines first, then columns, each as one product of matrices.
        let tiles = Tensor::stack(&tiles, 1)?.reshape((planes * tile_height, tile_width))?;
        let wide = tiles.matmul(across)?.reshape((planes, tile_height, width))?.transpose(1, 2)?.contiguous()?;
        let whole = wide.reshape((planes * width, tile_height))?.matmul(down)?.reshape((planes, width, height))?;
        let whole = whole.transpose(1, 2)?.contiguous()?;
        Ok(whole.reshape((stored.dim(0)? * self.count(), self.channels, height, width))?)
    }

    /// The gradient for stored pictures from that for those they decode to, `[n * count, channels, height, width]`.
    pub(super) fn transposed(&self, gradient: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = gradient.dims4()?;
        let shape = (rows / self.count(), channels, height, width);
        // Decoding is linear: where the gradient is taken doesn't matter.
        let stored = Var::zeros(shape, gradient.dtype(), gradient.device())?;
        let along = (self.apply(stored.as_tensor())? * gradient)?.sum_all()?;
        Ok(along.backward()?.remove(stored.as_tensor()).map_or_else(|| stored.zeros_like(), Ok)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::rows::Shape;

    #[test]
    fn tensors_decode_to_what_numbers_do_and_the_gradient_is_the_transpose() {
        for (side, channels, height, width) in [(2, 1, 28, 28), (3, 3, 11, 13)] {
            let mosaic = Mosaic::new(side, Shape::Picture { channels, height, width }).unwrap().unwrap();
            let unpack = Unpack::new(mosaic, [channels, height, width], &Device::Cpu).unwrap();
            let length = channels * height * width;
            let stored = random::normal(&mut random::stream(1, "stored"), 2 * length);
            let along = random::normal(&mut random::stream(1, "along"), 2 * length * side * side);
            let var = candle_core::Var::from_slice(&stored, (2, channels, height, width), &Device::Cpu).unwrap();
            let whole = unpack.apply(var.as_tensor()).unwrap();
            let found: Vec<f32> = whole.flatten_all().unwrap().to_vec1().unwrap();
            let expected = mosaic.unpack(&stored);
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
            assert_eq!(found.len(), expected.len());

            // It is linear: <unpack(x), a> = <x, gradient>.
            let direction = Tensor::from_slice(&along, whole.dims(), &Device::Cpu).unwrap();
            let gradients = (whole * direction).unwrap().sum_all().unwrap().backward().unwrap();
            let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (there, back) = (product(&expected, &along), product(&stored, &gradient));
            assert!((there - back).abs() < 1e-3 * there.abs().max(1.0), "{there} {back}");
            let direction =
                Tensor::from_slice(&along, (2 * side * side, channels, height, width), &Device::Cpu).unwrap();
            let transposed: Vec<f32> = unpack.transposed(&direction).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(transposed, gradient);
        }
    }
}
