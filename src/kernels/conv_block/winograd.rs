//! Padded grids of several pictures flow in; their 3x3 convolutions, and their gradients for the kernels, flow out, at a quarter of the multiplications.
//!
//! F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: each 6x6 tile of the input and each kernel are transformed, multiplied in
//! 36 frequencies (36 matrix products over channels), and transformed back to 4x4 pixels: 36 multiplications where the direct sum has 144. Its rounding error is a few times
//! that of the direct sum.

mod transforms;

use super::for_each;
use super::product::{Blocks, PASS};
use super::tiles::{Addresses, Offsets, multiply};
use crate::kernels::simd::Path;

/// Pixels of a side of a tile of the result.
const SIDE: usize = 4;
/// Pixels of a side that a tile reads.
const REACH: usize = SIDE + 2;
/// Frequencies of a tile.
const FREQUENCIES: usize = REACH * REACH;
/// Tiles that a group of pictures should have: enough to read the weights from a far cache once for many.
const TILES: usize = 32;
/// The most floats of transformed input: more than a far cache holds would be slower than the direct sum.
const MOST: usize = 1 << 20;

/// The input of groups of pictures, in tiles.
#[derive(Debug)]
struct Tiled {
    path: Path,
    from: Blocks,
    /// The pixel of the grid where the first tile starts.
    first: usize,
    /// Height and width of the result.
    result: [usize; 2],
    /// Pictures of a group.
    group: usize,
}

impl Tiled {
    /// For the convolution that reads `from` starting at pixel `first` of its grid, or `None` where the direct sum is better. `most_pictures` bounds a group.
    fn new(
        path: Path,
        from: Blocks,
        first: usize,
        result: [usize; 2],
        out: usize,
        most_pictures: usize,
    ) -> Option<Self> {
        let channels = from.blocks() * from.block;
        let tiles: usize = result.map(|n| n.div_ceil(SIDE)).into_iter().product();
        let lanes_fit = from.block.is_multiple_of(path.lanes());
        // Small planes have more waste at the edges, few channels too little to multiply.
        if !lanes_fit
            || channels < 16
            || out < 8
            || result[0].min(result[1]) < 3
            || FREQUENCIES * tiles * channels > MOST
        {
            return None;
        }
        let group = (TILES / tiles).clamp(1, most_pictures.max(1));
        Some(Self { path, from, first, result, group })
    }

    fn channels(&self) -> usize {
        self.from.blocks() * self.from.block
    }

    /// Rows and columns of one picture's tiles.
    fn sides(&self) -> [usize; 2] {
        self.result.map(|n| n.div_ceil(SIDE))
    }

    /// Tiles of one picture.
    fn tiles(&self) -> usize {
        self.sides().into_iter().product()
    }

    /// Tiles of a group, in whole register tiles.
    fn group_tiles(&self) -> usize {
        (self.group * self.tiles()).next_multiple_of(self.path.tile().0)
    }

    /// Floats from one frequency of the transformed input to the next: not a power of two, whose lines would all fall into one set of a cache.
    fn input_stride(&self) -> usize {
        self.group_tiles() * self.channels() + 16
    }

    /// Floats of a group's transformed input, `[frequency][tile][channel]`.
    fn input_len(&self) -> usize {
        FREQUENCIES * self.input_stride()
    }

    /// Transforms the grid of picture `picture` of the group.
    fn transform(&self, grid: &[f32], picture: usize, input: &mut [f32]) {
        let Blocks { grid: plane, block, .. } = self.from;
        let sides = self.sides();
        let (top, left) = (self.first / plane.row(), self.first % plane.row());
        let valid = [plane.len() / plane.row() - top, plane.row() - left];
        assert!(block.is_multiple_of(self.path.lanes()) && input.len() == self.input_len());
        assert!(self.from.blocks() * plane.len() * block <= grid.len() && self.first < plane.len());
        assert!((picture + 1) * self.tiles() <= self.group_tiles());
        let stride = self.input_stride();
        let channels = self.channels();
        let input = &mut input[picture * self.tiles() * channels..];
        for b in 0..self.from.blocks() {
            let grid = &grid[(b * plane.len() + self.first) * block..];
            let input = &mut input[b * block..];
            // SAFETY: the asserts bound every address that the body forms; `path` was detected.
            unsafe { transforms::input(self.path, grid, block, plane.row(), valid, sides, input, channels, stride) }
        }
    }
}

/// A 3x3 convolution of groups of pictures.
#[derive(Debug)]
pub(super) struct Winograd {
    tiled: Tiled,
    /// Where each tile's transformed channels start, in whole register tiles.
    offsets: Offsets,
    /// `[out / NR][frequency][channel][NR]`.
    weights: Vec<f32>,
}

impl Winograd {
    /// The convolution that reads `from` starting at pixel `first` of its grid, or `None` where the direct sum is better. `most_pictures` bounds a group;
    /// `weight(result, channel, tap)` gives the weights, packed on the current rayon pool where `parallel`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        path: Path,
        from: Blocks,
        first: usize,
        result: [usize; 2],
        out: usize,
        most_pictures: usize,
        parallel: bool,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Option<Self> {
        let tiled = Tiled::new(path, from, first, result, out, most_pictures)?;
        let (nr, channels) = (path.tile().1, tiled.channels());
        let offsets = Offsets::new((0..tiled.group_tiles()).map(|tile| tile * channels).collect());
        let mut weights = vec![0.0; out.next_multiple_of(nr) * FREQUENCIES * channels];
        let blocks = weights.chunks_exact_mut(FREQUENCIES * channels * nr).enumerate().collect();
        // The kernels of one channel to NR results, `[tap][NR]`: their transforms are runs.
        let kernels = || vec![0.0; 9 * nr];
        for_each(parallel, blocks, kernels, |kernels: &mut Vec<f32>, (block, weights): (usize, &mut [f32])| {
            let lanes = nr.min(out - block * nr);
            kernels.fill(0.0);
            for channel in 0..from.channels {
                for lane in 0..lanes {
                    for tap in 0..9 {
                        kernels[tap * nr + lane] = weight(block * nr + lane, channel, tap);
                    }
                }
                let to = &mut weights[channel * nr..];
                // SAFETY: `kernels` holds 9 NR floats, `to` reaches to the last frequency's of this channel; `path` was detected.
                unsafe { transforms::kernels(path, kernels, to, channels * nr) }
            }
        });
        Some(Self { tiled, offsets, weights })
    }

    /// Pictures of a group.
    pub fn group(&self) -> usize {
        self.tiled.group
    }

    /// Floats of packed weights.
    #[cfg(test)]
    pub fn packed_len(&self) -> usize {
        self.weights.len()
    }

    /// Floats from one frequency of the products to the next.
    fn product_stride(&self) -> usize {
        self.offsets.len() * self.tiled.path.tile().1 + 16
    }

    /// Floats of a group's transformed input, `[frequency][tile][channel]`.
    pub fn input_len(&self) -> usize {
        self.tiled.input_len()
    }

    /// Floats of a group's products, `[frequency][tile][NR]`.
    pub fn product_len(&self) -> usize {
        FREQUENCIES * self.product_stride()
    }

    /// Transforms the grid of picture `picture` of the group.
    pub fn transform_input(&self, grid: &[f32], picture: usize, input: &mut [f32]) {
        self.tiled.transform(grid, picture, input);
    }

    /// The products of the group's first `pictures` pictures with block `out_block` of the weights.
    pub fn multiply(&self, input: &[f32], pictures: usize, out_block: usize, products: &mut [f32]) {
        let path = self.tiled.path;
        let (mr, nr) = path.tile();
        let channels = self.tiled.channels();
        let tiles = (pictures * self.tiled.tiles()).next_multiple_of(mr).min(self.offsets.len());
        let weights = &self.weights[out_block * FREQUENCIES * channels * nr..];
        let pass = PASS / nr / 8 * 8;
        for frequency in 0..FREQUENCIES {
            let input = &input[frequency * self.tiled.input_stride()..];
            let weights = &weights[frequency * channels * nr..(frequency + 1) * channels * nr];
            let products = &mut products[frequency * self.product_stride()..][..tiles * nr];
            for first in (0..channels).step_by(pass) {
                let count = pass.min(channels - first);
                let weights = &weights[first * nr..(first + count) * nr];
                multiply(
                    path,
                    input,
                    self.offsets.first(tiles),
                    Addresses::of(&[first]),
                    count,
                    weights,
                    0,
                    products,
                    first > 0,
                );
            }
        }
    }

    /// The result of picture `picture` of the group: `[pixel][NR]`.
    pub fn transform_output(&self, products: &[f32], picture: usize, y: &mut [f32]) {
        let Tiled { path, result: [height, width], .. } = self.tiled;
        let (nr, stride) = (path.tile().1, self.product_stride());
        assert!(products.len() == self.product_len() && y.len() >= height * width * nr);
        assert!((picture + 1) * self.tiled.tiles() <= self.offsets.len());
        let products = &products[picture * self.tiled.tiles() * nr..];
        // SAFETY: the asserts bound every address that the body forms; `path` was detected.
        unsafe { transforms::output(path, products, stride, height, width, y) }
    }
}

/// The gradient of a convolution for its 3x3 kernels, of groups of pictures.
#[derive(Debug)]
pub(super) struct KernelGradient {
    tiled: Tiled,
    /// Each channel, in whole register tiles.
    offsets: Offsets,
    /// Where each tile of a group starts.
    runs: Offsets,
}

impl KernelGradient {
    /// For the convolution that reads `from` from its first pixel on and writes `result`, or `None` where the direct sum is better. `most_pictures` bounds a group.
    pub fn new(path: Path, from: Blocks, result: [usize; 2], out: usize, most_pictures: usize) -> Option<Self> {
        let tiled = Tiled::new(path, from, 0, result, out, most_pictures)?;
        let mut offsets: Vec<usize> = (0..from.channels).collect();
        offsets.resize(from.channels.next_multiple_of(path.tile().0), 0);
        let runs = (0..tiled.group * tiled.tiles()).map(|tile| tile * tiled.channels()).collect();
        Some(Self { tiled, offsets: Offsets::new(offsets), runs: Offsets::new(runs) })
    }

    /// Pictures of a group.
    pub fn group(&self) -> usize {
        self.tiled.group
    }

    /// Floats of a group's transformed input.
    pub fn input_len(&self) -> usize {
        self.tiled.input_len()
    }

    /// Floats of one block of a group's transformed gradient, `[frequency][tile][NR]`.
    pub fn grad_len(&self) -> usize {
        FREQUENCIES * self.grad_stride()
    }

    /// Floats of one block's sums, `[frequency][channel][NR]`.
    pub fn sums_len(&self) -> usize {
        FREQUENCIES * self.sums_stride()
    }

    fn grad_stride(&self) -> usize {
        self.runs.len() * self.tiled.path.tile().1 + 16
    }

    fn sums_stride(&self) -> usize {
        self.offsets.len() * self.tiled.path.tile().1 + 16
    }

    /// Transforms the grid of picture `picture` of the group.
    pub fn transform_input(&self, grid: &[f32], picture: usize, input: &mut [f32]) {
        self.tiled.transform(grid, picture, input);
    }

    /// Transforms one block of the gradient for picture `picture`'s result: pixels of `[NR]`, a row `row` pixels after the one before.
    pub fn transform_grad(&self, result_grad: &[f32], row: usize, picture: usize, grad: &mut [f32]) {
        let Tiled { path, result: [height, width], .. } = self.tiled;
        let nr = path.tile().1;
        assert!(
            width <= row && ((height - 1) * row + width) * nr <= result_grad.len() && grad.len() == self.grad_len()
        );
        assert!((picture + 1) * self.tiled.tiles() <= self.runs.len());
        let grad = &mut grad[picture * self.tiled.tiles() * nr..];
        // SAFETY: the asserts bound every address that the body forms; `path` was detected.
        unsafe { transforms::result_gradient(path, result_grad, row, [height, width], grad, self.grad_stride()) }
    }

    /// The sums over the tiles of the group's first `pictures` pictures, in their order: into `sums`, or added to them if `accumulate`.
    pub fn multiply(&self, input: &[f32], grad: &[f32], pictures: usize, sums: &mut [f32], accumulate: bool) {
        let path = self.tiled.path;
        let nr = path.tile().1;
        let runs = self.runs.first(pictures * self.tiled.tiles());
        for frequency in 0..FREQUENCIES {
            let input = &input[frequency * self.tiled.input_stride()..];
            let grad = &grad[frequency * self.grad_stride()..];
            let sums = &mut sums[frequency * self.sums_stride()..][..self.offsets.len() * nr];
            multiply(path, input, self.offsets.all(), runs, 1, grad, nr, sums, accumulate);
        }
    }

    /// The gradient for the kernels of one block, `[channel][tap][NR]`, from its sums.
    pub fn transform_sums(&self, sums: &[f32], to: &mut [f32]) {
        let (path, channels) = (self.tiled.path, self.tiled.from.channels);
        assert!(sums.len() == self.sums_len() && to.len() >= 9 * channels * path.tile().1);
        // SAFETY: the assert bounds every address that the body forms; `path` was detected.
        unsafe { transforms::kernels_gradient(path, sums, self.sums_stride(), channels, to) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product::Grid;
    use super::*;
    use crate::random::{normal, stream};

    #[test]
    fn sums_over_groups_are_the_gradient_of_the_definition() {
        const CHANNELS: usize = 16;
        let [height, width] = [7, 9];
        for path in Path::usable() {
            let nr = path.tile().1;
            let from = Blocks { grid: Grid { inner: [height, width], margin: 1 }, channels: CHANNELS, block: 16 };
            let gradient = KernelGradient::new(path, from, [height, width], nr, 2).expect("enough channels for tiles");
            assert_eq!(gradient.group(), 2);
            let (mut input, mut grad) = (vec![0.0; gradient.input_len()], vec![0.0; gradient.grad_len()]);
            let mut sums = vec![f32::NAN; gradient.sums_len()];
            let mut expected = vec![0f64; CHANNELS * 9 * nr];
            // A group of two pictures, then one of one.
            for (n, pictures) in [2, 1].into_iter().enumerate() {
                for picture in 0..pictures {
                    let drawn = |what: &str, len| normal(&mut stream(picture as u64, &format!("{what} {n}")), len);
                    let (x, e) = (drawn("x", CHANNELS * height * width), drawn("gradient", height * width * nr));
                    let mut placed = vec![0.0; from.len()];
                    from.place(&x, &mut placed);
                    gradient.transform_input(&placed, picture, &mut input);
                    gradient.transform_grad(&e, width, picture, &mut grad);
                    for (at, sum) in expected.iter_mut().enumerate() {
                        let (channel, tap, out) = (at / nr / 9, at / nr % 9, at % nr);
                        for (y, column) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                            // The pixel that tap (ky, kx) reads for pixel (y, x), of a picture padded by one.
                            let (py, px) = ((y + tap / 3).wrapping_sub(1), (column + tap % 3).wrapping_sub(1));
                            if py < height && px < width {
                                let pixel = f64::from(x[(channel * height + py) * width + px]);
                                *sum += pixel * f64::from(e[(y * width + column) * nr + out]);
                            }
                        }
                    }
                }
                gradient.multiply(&input, &grad, pictures, &mut sums, n > 0);
            }
            let mut found = vec![0.0; expected.len()];
            gradient.transform_sums(&sums, &mut found);
            let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
            let off = length(&mut found.iter().zip(&expected).map(|(f, e)| f64::from(*f) - e))
                / length(&mut expected.iter().copied());
            assert!(off < 1e-5, "{path:?}: {off}");
        }
    }

    #[test]
    fn few_channels_and_small_planes_are_left_to_the_direct_sum() {
        let new = |channels: usize, result: [usize; 2]| {
            let from = Blocks { grid: Grid { inner: result, margin: 1 }, channels, block: 16 };
            Winograd::new(Path::detect(), from, 0, result, 32, 1, false, |_, _, _| 1.0).is_some()
        };
        assert!(new(16, [3, 3]) && new(64, [16, 16]));
        assert!(!new(16, [2, 9]) && !new(64, [200, 200]));
    }
}
