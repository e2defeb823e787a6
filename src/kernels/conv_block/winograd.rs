//! Padded grids of several pictures flow in; their 3x3 convolutions, at 16 multiplications for 4 pixels instead of 36, flow out.
//!
//! F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: each 4x4 tile of the input and each kernel are
//! transformed, multiplied in 16 frequencies (16 matrix products over channels), and transformed back to 2x2 pixels. Its rounding error is about
//! that of the direct sum. At the end of an odd plane a tile reaches one pixel too far; what it reads there only enters the pixel that is dropped.

// Loops over constant bounds by index are what the compiler unrolls into registers.
#![allow(clippy::needless_range_loop)]

use super::for_each;
use super::product::{Blocks, PASS};
use super::tiles::multiply;
use crate::kernels::simd::{Path, Simd, kernel};

/// Frequencies of a tile.
const FREQUENCIES: usize = 16;
/// Tiles that a group of pictures should have: enough to read the weights from a far cache once for many.
const TILES: usize = 64;
/// The most floats of transformed input: more than a far cache holds would be slower than the direct sum.
const MOST: usize = 1 << 20;

/// A 3x3 convolution of groups of pictures.
#[derive(Debug)]
pub(super) struct Winograd {
    path: Path,
    from: Blocks,
    /// The pixel of the grid where the first tile starts.
    first: usize,
    /// Height and width of the result.
    result: [usize; 2],
    /// Pictures of a group.
    pub group: usize,
    /// Where each tile's transformed channels start, in whole register tiles.
    offsets: Vec<usize>,
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
        let (mr, nr) = path.tile();
        let channels = from.blocks() * from.block;
        let tiles = result[0].div_ceil(2) * result[1].div_ceil(2);
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
        let offsets = (0..(group * tiles).next_multiple_of(mr)).map(|tile| tile * channels).collect();
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
                transform_kernels(kernels, nr, &mut weights[channel * nr..], channels * nr);
            }
        });
        Some(Self { path, from, first, result, group, offsets, weights })
    }

    /// Floats from one frequency of the transformed input to the next: not a power of two, whose lines would all fall into one set of a cache.
    fn input_stride(&self) -> usize {
        self.offsets.len() * self.channels() + 16
    }

    /// Floats from one frequency of the products to the next.
    fn product_stride(&self) -> usize {
        self.offsets.len() * self.path.tile().1 + 16
    }

    fn channels(&self) -> usize {
        self.from.blocks() * self.from.block
    }

    /// Tiles of one picture.
    fn tiles(&self) -> usize {
        self.result[0].div_ceil(2) * self.result[1].div_ceil(2)
    }

    /// Floats of a group's transformed input, `[frequency][tile][channel]`.
    pub fn input_len(&self) -> usize {
        FREQUENCIES * self.input_stride()
    }

    /// Floats of a group's products, `[frequency][tile][NR]`.
    pub fn product_len(&self) -> usize {
        FREQUENCIES * self.product_stride()
    }

    /// Transforms the grid of picture `picture` of the group.
    pub fn transform_input(&self, grid: &[f32], picture: usize, input: &mut [f32]) {
        let Blocks { grid: plane, block, .. } = self.from;
        let [rows, columns] = self.result.map(|n| n.div_ceil(2));
        let last = (self.first + (2 * rows + 1) * plane.row() + 2 * columns + 2) * block;
        assert!(rows > 0 && columns > 0 && block.is_multiple_of(self.path.lanes()) && input.len() == self.input_len());
        assert!((self.from.blocks() - 1) * plane.len() * block + last <= grid.len());
        assert!((picture + 1) * self.tiles() <= self.offsets.len());
        let stride = self.input_stride();
        let channels = self.channels();
        let input = &mut input[picture * self.tiles() * channels..];
        for b in 0..self.from.blocks() {
            let grid = &grid[(b * plane.len() + self.first) * block..];
            let input = &mut input[b * block..];
            // SAFETY: the asserts bound every address that the body forms; `path` was detected.
            unsafe { input_on(self.path, grid, block, plane.row(), rows, columns, input, channels, stride) }
        }
    }

    /// The products of the group's first `pictures` pictures with block `out_block` of the weights.
    pub fn multiply(&self, input: &[f32], pictures: usize, out_block: usize, products: &mut [f32]) {
        let (mr, nr) = self.path.tile();
        let channels = self.channels();
        let tiles = (pictures * self.tiles()).next_multiple_of(mr).min(self.offsets.len());
        let weights = &self.weights[out_block * FREQUENCIES * channels * nr..];
        let pass = PASS / nr / 8 * 8;
        for frequency in 0..FREQUENCIES {
            let input = &input[frequency * self.input_stride()..];
            let weights = &weights[frequency * channels * nr..(frequency + 1) * channels * nr];
            let products = &mut products[frequency * self.product_stride()..][..tiles * nr];
            for first in (0..channels).step_by(pass) {
                let count = pass.min(channels - first);
                let weights = &weights[first * nr..(first + count) * nr];
                multiply(self.path, input, &self.offsets[..tiles], &[first], count, weights, 0, products, first > 0);
            }
        }
    }

    /// The result of picture `picture` of the group: `[pixel][NR]`.
    pub fn transform_output(&self, products: &[f32], picture: usize, y: &mut [f32]) {
        let nr = self.path.tile().1;
        let [height, width] = self.result;
        assert!(products.len() == self.product_len() && y.len() >= height * width * nr);
        assert!((picture + 1) * self.tiles() <= self.offsets.len());
        let products = &products[picture * self.tiles() * nr..];
        // SAFETY: the asserts bound every address that the body forms; `path` was detected.
        unsafe { output_on(self.path, products, self.product_stride(), height, width, y) }
    }
}

/// G g G^T of `nr` kernels, `[tap][nr]`: frequency `f` goes to `to[f * stride..][..nr]`.
fn transform_kernels(kernels: &[f32], nr: usize, to: &mut [f32], stride: usize) {
    let line = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    for lane in 0..nr {
        let g = |tap: usize| kernels[tap * nr + lane];
        let columns: [[f32; 4]; 3] = std::array::from_fn(|x| line(g(x), g(3 + x), g(6 + x)));
        for y in 0..4 {
            for (x, value) in line(columns[0][y], columns[1][y], columns[2][y]).into_iter().enumerate() {
                to[(4 * y + x) * stride + lane] = value;
            }
        }
    }
}

kernel!(fn input_on(grid: &[f32], block: usize, row: usize, rows: usize, columns: usize, input: &mut [f32], channels: usize, stride: usize) = input_body);

/// B^T d B for each tile and channel.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn input_body<S: Simd, const MR: usize, const NV: usize>(
    grid: &[f32],
    block: usize,
    row: usize,
    rows: usize,
    columns: usize,
    input: &mut [f32],
    channels: usize,
    stride: usize,
) {
    // SAFETY: `transform_input` checked the farthest addresses.
    unsafe {
        for tile in 0..rows * columns {
            let from = grid.as_ptr().add((2 * (tile / columns) * row + 2 * (tile % columns)) * block);
            let to = input.as_mut_ptr().add(tile * channels);
            for lane in (0..block).step_by(S::LANES) {
                let mut d = [[S::splat(0.0); 4]; 4];
                for x in 0..4 {
                    let at = from.add(x * block + lane);
                    let column = transform_four::<S>([
                        S::load(at),
                        S::load(at.add(row * block)),
                        S::load(at.add(2 * row * block)),
                        S::load(at.add(3 * row * block)),
                    ]);
                    for y in 0..4 {
                        d[y][x] = column[y];
                    }
                }
                for (y, line) in d.into_iter().enumerate() {
                    for (x, value) in transform_four::<S>(line).into_iter().enumerate() {
                        S::store(to.add((4 * y + x) * stride + lane), value);
                    }
                }
            }
        }
    }
}

/// B^T of four values.
///
/// # Safety
/// See [`Simd`].
#[inline(always)]
unsafe fn transform_four<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
    // SAFETY: arithmetic only.
    unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
}

kernel!(fn output_on(products: &[f32], stride: usize, height: usize, width: usize, y: &mut [f32]) = output_body);

/// A^T m A for each tile and result.
#[inline(always)]
unsafe fn output_body<S: Simd, const MR: usize, const NV: usize>(
    products: &[f32],
    stride: usize,
    height: usize,
    width: usize,
    y: &mut [f32],
) {
    let nr = NV * S::LANES;
    let columns = width.div_ceil(2);
    // SAFETY: `transform_output` checked the farthest addresses.
    unsafe {
        for tile in 0..height.div_ceil(2) * columns {
            let (top, left) = (2 * (tile / columns), 2 * (tile % columns));
            for lane in (0..nr).step_by(S::LANES) {
                let from = products.as_ptr().add(tile * nr + lane);
                let mut half = [[S::splat(0.0); 4]; 2];
                for x in 0..4 {
                    let at = from.add(x * stride);
                    let [m0, m1, m2, m3] = [
                        S::load(at),
                        S::load(at.add(4 * stride)),
                        S::load(at.add(8 * stride)),
                        S::load(at.add(12 * stride)),
                    ];
                    half[0][x] = S::add(S::add(m0, m1), m2);
                    half[1][x] = S::sub(S::sub(m1, m2), m3);
                }
                for (i, [m0, m1, m2, m3]) in half.into_iter().enumerate() {
                    if top + i < height {
                        let to = y.as_mut_ptr().add(((top + i) * width + left) * nr + lane);
                        S::store(to, S::add(S::add(m0, m1), m2));
                        if left + 1 < width {
                            S::store(to.add(nr), S::sub(S::sub(m1, m2), m3));
                        }
                    }
                }
            }
        }
    }
}
