//! Stored pictures flow in, the pictures that they decode to flow out, as tensors that a gradient flows back through.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use crate::error::Result;
use crate::rows::Mosaic;

/// [`Mosaic::unpack`] for tensors, of stored pictures of which some hold several and the others are whole.
#[derive(Clone)]
pub(super) struct Unpack {
    mosaic: Mosaic,
    /// Of each stored picture, whether it holds several.
    packed: Arc<[bool]>,
    channels: usize,
    /// `[tile height, height]` and `[tile width, width]`.
    lines: [Tensor; 2],
}

impl Unpack {
    /// Of stored pictures of `channels`, `height` and `width`, of which those hold several that `packed` says.
    pub(super) fn new(
        mosaic: Mosaic,
        packed: Arc<[bool]>,
        [channels, height, width]: [usize; 3],
        device: &Device,
    ) -> Result<Self> {
        let (tile_height, tile_width) = mosaic.tile();
        let line = |tile: usize, whole: usize| -> Result<Tensor> {
            let shares = Tensor::from_vec(Mosaic::interpolation(tile, whole), (whole, tile), device)?;
            Ok(shares.t()?.contiguous()?)
        };
        Ok(Self { mosaic, packed, channels, lines: [line(tile_height, height)?, line(tile_width, width)?] })
    }

    /// Stored pictures.
    pub(super) fn stored(&self) -> usize {
        self.packed.len()
    }

    /// Most pictures in a stored one.
    pub(super) fn most(&self) -> usize {
        self.mosaic.count()
    }

    /// Where the pictures that the stored ones `stored` hold are among all that are held.
    pub(super) fn pictures(&self, stored: Range<usize>) -> Range<usize> {
        let held = |packed: &[bool]| packed.iter().map(|packed| if *packed { self.most() } else { 1 }).sum::<usize>();
        let start = held(&self.packed[..stored.start]);
        start..start + held(&self.packed[stored])
    }

    /// `[n, channels, height, width]`, the stored pictures from number `first` on, as `[pictures, channels, height, width]`, those that they hold in order.
    pub(super) fn apply(&self, stored: &Tensor, first: usize) -> Result<Tensor> {
        let packed = &self.packed[first..first + stored.dim(0)?];
        match (packed.contains(&true), packed.contains(&false)) {
            (true, false) => return self.tiles(stored),
            (false, _) => return Ok(stored.clone()),
            (true, true) => {}
        }
        let numbers = |numbers: Vec<u32>| Tensor::new(numbers, stored.device());
        let of =
            |kind: bool| numbers((0..).zip(packed).filter(|(_, packed)| **packed == kind).map(|(i, _)| i).collect());
        let tiles = self.tiles(&stored.index_select(&of(true)?, 0)?)?;
        let (mut tile, mut whole) = (0u32, tiles.dim(0)? as u32);
        let both = Tensor::cat(&[tiles, stored.index_select(&of(false)?, 0)?], 0)?;
        let mut order = vec![];
        for packed in packed {
            let (next, count) = if *packed { (&mut tile, self.most() as u32) } else { (&mut whole, 1) };
            order.extend(*next..*next + count);
            *next += count;
        }
        Ok(both.index_select(&numbers(order)?, 0)?)
    }

    /// `[n, channels, height, width]`, each of which holds several, as `[n * most, channels, height, width]`.
    fn tiles(&self, stored: &Tensor) -> Result<Tensor> {
        let (tile_height, tile_width) = self.mosaic.tile();
        let [down, across] = &self.lines;
        let (height, width) = (down.dim(1)?, across.dim(1)?);
        let cut = |(top, left)| stored.narrow(2, top, tile_height)?.narrow(3, left, tile_width);
        let tiles = self.mosaic.corners().map(cut).collect::<candle_core::Result<Vec<_>>>()?;
        let planes = stored.dim(0)? * self.most() * self.channels;
        // Lines first, then columns, each as one product of matrices.
        let tiles = Tensor::stack(&tiles, 1)?.reshape((planes * tile_height, tile_width))?;
        let wide = tiles.matmul(across)?.reshape((planes, tile_height, width))?.transpose(1, 2)?.contiguous()?;
        let whole = wide.reshape((planes * width, tile_height))?.matmul(down)?.reshape((planes, width, height))?;
        let whole = whole.transpose(1, 2)?.contiguous()?;
        Ok(whole.reshape((stored.dim(0)? * self.most(), self.channels, height, width))?)
    }

    /// The gradient for all stored pictures from that for those they decode to, `[pictures, channels, height, width]`.
    pub(super) fn transposed(&self, gradient: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = gradient.dims4()?;
        let shape = (self.stored(), channels, height, width);
        // Decoding is linear: where the gradient is taken doesn't matter.
        let stored = Var::zeros(shape, gradient.dtype(), gradient.device())?;
        let along = (self.apply(stored.as_tensor(), 0)? * gradient)?.sum_all()?;
        Ok(along.backward()?.remove(stored.as_tensor()).map_or_else(|| stored.zeros_like(), Ok)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::rows::{Shape, unpack_each};

    #[test]
    fn tensors_decode_to_what_numbers_do_and_the_gradient_is_the_transpose() {
        for (side, channels, height, width) in [(2, 1, 28, 28), (3, 3, 11, 13)] {
            for packed in [[true, true, true], [true, false, true], [false, true, false], [false, false, false]] {
                let shape = Shape::Picture { channels, height, width };
                let mosaic = Mosaic::new(side, shape).unwrap().unwrap();
                let unpack = Unpack::new(mosaic, packed.into(), [channels, height, width], &Device::Cpu).unwrap();
                let sides = packed.map(|packed| if packed { side } else { 1 });
                let pictures: usize = sides.iter().map(|side| side * side).sum();
                let stored = random::normal(&mut random::stream(1, "stored"), 3 * shape.len());
                let along = random::normal(&mut random::stream(1, "along"), pictures * shape.len());
                let var = Var::from_slice(&stored, (3, channels, height, width), &Device::Cpu).unwrap();
                let whole = unpack.apply(var.as_tensor(), 0).unwrap();
                let found: Vec<f32> = whole.flatten_all().unwrap().to_vec1().unwrap();
                let expected = unpack_each(&stored, shape, &sides).unwrap();
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
                assert_eq!(found.len(), expected.len());

                // It is linear: <unpack(x), a> = <x, gradient>.
                let direction = Tensor::from_slice(&along, whole.dims(), &Device::Cpu).unwrap();
                let gradients = (whole * &direction).unwrap().sum_all().unwrap().backward().unwrap();
                let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                let (there, back) = (product(&expected, &along), product(&stored, &gradient));
                assert!((there - back).abs() < 1e-3 * there.abs().max(1.0), "{there} {back}");
                let transposed = unpack.transposed(&direction).unwrap().flatten_all().unwrap();
                assert_eq!(transposed.to_vec1::<f32>().unwrap(), gradient);

                // Part by part they decode to the same.
                let part = unpack.apply(&var.as_tensor().narrow(0, 1, 2).unwrap().contiguous().unwrap(), 1).unwrap();
                let held = unpack.pictures(1..3);
                assert_eq!((part.dim(0).unwrap(), held.end), (held.len(), pictures));
                let part: Vec<f32> = part.flatten_all().unwrap().to_vec1().unwrap();
                let of_them = &expected[held.start * shape.len()..];
                assert!(part.iter().zip(of_them).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}
