//! Weights and plane sizes flow in; a packed matrix product over a padded grid of pixels, and the moves to and from it, flow out.

use crate::kernels::conv_block::tiles::{Addresses, Offsets, multiply};
use crate::kernels::simd::Path;

/// A plane with a margin of zeros around it, so that every tap of a 3x3 kernel is one address away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Rows and columns inside.
    pub inner: [usize; 2],
    /// Zeros on each side.
    pub margin: usize,
}

impl Grid {
    /// Columns with their margins: the distance from a pixel to the one below.
    pub fn row(self) -> usize {
        self.inner[1] + 2 * self.margin
    }

    /// Pixels with their margins.
    pub fn len(self) -> usize {
        (self.inner[0] + 2 * self.margin) * self.row()
    }

    /// The first inner pixel.
    pub fn origin(self) -> usize {
        self.margin * (self.row() + 1)
    }

    /// Copies one plane (`inner` pixels in `from`) into every `step`th float of `to`, starting at `lane`.
    pub fn place(self, from: &[f32], to: &mut [f32], step: usize, lane: usize) {
        let [_, width] = self.inner;
        for (y, line) in from.chunks_exact(width).enumerate() {
            let start = (self.origin() + y * self.row()) * step;
            let line_to = to[start..start + width * step].chunks_exact_mut(step);
            line_to.zip(line).for_each(|(t, f)| t[lane] = *f);
        }
    }
}

/// How channels lie on a grid: `[blocks][pixel][block]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// The pixels.
    pub grid: Grid,
    /// Channels in use; the rest of the last block stays 0.
    pub channels: usize,
    /// Channels a block.
    pub block: usize,
}

impl Blocks {
    /// Few channels lie in one block, so that a row of a kernel is one run; many in blocks that a cache line holds.
    pub fn for_input(grid: Grid, channels: usize) -> Self {
        let block = if channels <= 16 {
            channels
        } else if channels.is_multiple_of(16) {
            16
        } else {
            8
        };
        Self { grid, channels, block }
    }

    pub fn blocks(self) -> usize {
        self.channels.div_ceil(self.block)
    }

    /// Floats in all.
    pub fn len(self) -> usize {
        self.blocks() * self.grid.len() * self.block
    }

    /// Sets all that lies outside of the planes to 0.
    pub fn clear_margins(self, to: &mut [f32]) {
        let [height, width] = self.grid.inner;
        let (row, step) = (self.grid.row(), self.block);
        for plane in to.chunks_exact_mut(self.grid.len() * step) {
            // From the end of each line of the plane to the start of the next one.
            let mut from = 0;
            for y in 0..height {
                let line = self.grid.origin() + y * row;
                plane[from * step..line * step].fill(0.0);
                from = line + width;
            }
            plane[from * step..].fill(0.0);
        }
    }

    /// Copies planes of pixels with their margins, `[channels][pixel]`, out of the blocks.
    pub fn planes(self, from: &[f32], to: &mut [f32]) {
        let pixels = self.grid.len();
        for (block, planes) in from.chunks_exact(pixels * self.block).zip(to.chunks_mut(pixels * self.block)) {
            block_to_planes(block, self.block, pixels, planes);
        }
    }

    /// Copies a picture `[channels][inner]` onto the grid; the margins are left as they are.
    pub fn place(self, picture: &[f32], to: &mut [f32]) {
        let [height, width] = self.grid.inner;
        let plane = height * width;
        for (channels, to) in picture.chunks(plane * self.block).zip(to.chunks_mut(self.grid.len() * self.block)) {
            // Row by row, so that the lines written to stay in the first cache for all channels of the block.
            for y in 0..height {
                let start = (self.grid.origin() + y * self.grid.row()) * self.block;
                let row = &mut to[start..start + width * self.block];
                for (lane, channel) in channels.chunks_exact(plane).enumerate() {
                    let line = &channel[y * width..(y + 1) * width];
                    row.chunks_exact_mut(self.block).zip(line).for_each(|(t, f)| t[lane] = *f);
                }
            }
        }
    }
}

/// The most floats of weights in one pass over the pixels: they stay in the first cache, with room for pixels.
pub(in crate::kernels) const PASS: usize = 18 * 256;

/// A product of gathered pixels with packed weights, for a whole plane of results.
#[derive(Debug)]
pub(super) struct Product {
    path: Path,
    from: Blocks,
    /// Where each result reads, in whole tiles.
    offsets: Offsets,
    /// The runs of one pass, relative to its first block.
    runs: Vec<usize>,
    run_len: usize,
    blocks_a_pass: usize,
    runs_a_block: usize,
    /// `[out / NR][block][tap][channel][NR]`.
    weights: Vec<f32>,
}

impl Product {
    /// A 3x3 kernel (`taps` 3) or a 1x1 one (`taps` 1) for each of `out` results, read from `from`; the result for `pixels` entry `i` is the one
    /// whose first tap lies there. `weight(result, channel, tap)` gives the weights.
    pub fn new(
        path: Path,
        from: Blocks,
        pixels: impl Iterator<Item = usize>,
        taps: usize,
        out: usize,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let (mr, nr) = path.tile();
        let mut offsets: Vec<usize> = pixels.map(|p| p * from.block).collect();
        offsets.resize(offsets.len().next_multiple_of(mr), offsets.last().copied().unwrap_or(0));
        let one_block = from.blocks() == 1;
        // In one block the taps of a kernel's row follow each other.
        let (columns, run_len) = if one_block { (1, taps * from.block) } else { (taps, from.block) };
        let runs_a_block = taps * columns;
        let blocks_a_pass = (PASS / (taps * taps * from.block * nr)).clamp(1, from.blocks());
        let runs = (0..blocks_a_pass * runs_a_block)
            .map(|r| {
                let (block, tap) = (r / runs_a_block, r % runs_a_block);
                (block * from.grid.len() + tap / columns * from.grid.row() + tap % columns) * from.block
            })
            .collect();
        let mut weights = Vec::with_capacity(out.next_multiple_of(nr) * from.blocks() * taps * taps * from.block);
        for first in (0..out).step_by(nr) {
            for block in 0..from.blocks() {
                for tap in 0..taps * taps {
                    for channel in block * from.block..(block + 1) * from.block {
                        let lane = |o| if o < out && channel < from.channels { weight(o, channel, tap) } else { 0.0 };
                        weights.extend((first..first + nr).map(lane));
                    }
                }
            }
        }
        Self { path, from, offsets: Offsets::new(offsets), runs, run_len, blocks_a_pass, runs_a_block, weights }
    }

    /// Floats of packed weights.
    #[cfg(test)]
    pub fn packed_len(&self) -> usize {
        self.weights.len()
    }

    /// Block `out_block` of the results, `[pixel][NR]`, pixels in whole tiles.
    pub fn run(&self, x: &[f32], out_block: usize, y: &mut [f32]) {
        let nr = self.path.tile().1;
        let per_block = self.runs_a_block * self.run_len * nr;
        let blocks = self.from.blocks();
        let weights = &self.weights[out_block * blocks * per_block..(out_block + 1) * blocks * per_block];
        for first in (0..blocks).step_by(self.blocks_a_pass) {
            let count = self.blocks_a_pass.min(blocks - first);
            multiply(
                self.path,
                &x[first * self.from.grid.len() * self.from.block..],
                self.offsets.all(),
                Addresses::of(&self.runs[..count * self.runs_a_block]),
                self.run_len,
                &weights[first * per_block..(first + count) * per_block],
                self.run_len * nr,
                y,
                first > 0,
            );
        }
    }
}

/// Copies a block `[pixel][nr]` to planes `[channels][pixel]`, as many channels as `to` has room for.
pub(super) fn block_to_planes(block: &[f32], nr: usize, pixels: usize, to: &mut [f32]) {
    for (lane, plane) in to.chunks_exact_mut(pixels).enumerate() {
        plane.iter_mut().zip(block.chunks_exact(nr)).for_each(|(t, f)| *t = f[lane]);
    }
}

/// Copies planes `[channels][pixel]` to a block `[pixel][nr]`.
pub(super) fn planes_to_block(planes: &[f32], nr: usize, pixels: usize, to: &mut [f32]) {
    for (lane, plane) in planes.chunks_exact(pixels).enumerate() {
        to.chunks_exact_mut(nr).zip(plane).for_each(|(t, f)| t[lane] = *f);
    }
}
