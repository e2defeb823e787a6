//! Frequencies flow in, packed once; the matrix products with them and with their transpose flow out, block by block.

use crate::kernels::arena::Arena;
use crate::kernels::conv_block::for_each;
use crate::kernels::conv_block::product::PASS;
use crate::kernels::conv_block::tiles::{Addresses, multiply};
use crate::kernels::simd::{Path, prefetch};

/// Rows that pass a block of frequencies before the next: their angles stay in the second cache. Whole tiles on every path.
const ROWS: usize = 528;
/// Columns of the features' gradient that a thread computes at a time.
const COLUMNS: usize = 128;

/// Frequencies `[feature_len, count]` in blocks of NR: `[count / NR][feature_len][NR]`, zeros after the last one.
#[derive(Debug)]
pub(super) struct Packed {
    pub path: Path,
    pub feature_len: usize,
    pub count: usize,
    values: Vec<f32>,
}

impl Packed {
    /// Packs `values` `[feature_len, count]`.
    pub fn new(path: Path, values: &[f32], feature_len: usize, count: usize) -> Self {
        assert_eq!(values.len(), feature_len * count, "frequencies of shape [{feature_len}, {count}]");
        let nr = path.tile().1;
        let mut packed = vec![0.0; count.div_ceil(nr) * feature_len * nr];
        if feature_len > 0 {
            let blocks = packed.chunks_mut(feature_len * nr).enumerate().collect();
            for_each(
                true,
                blocks,
                || (),
                |(), (block, to): (usize, &mut [f32])| {
                    let columns = block * nr..count.min((block + 1) * nr);
                    for (row, to) in values.chunks_exact(count).zip(to.chunks_exact_mut(nr)) {
                        to[..columns.len()].copy_from_slice(&row[columns.clone()]);
                    }
                },
            );
        }
        Self { path, feature_len, count, values: packed }
    }

    /// The frequencies as they came, `[feature_len, count]`.
    pub fn unpacked(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.feature_len * self.count];
        self.unpack(&self.values, self.feature_len, &mut values);
        values
    }

    /// Copies blocks `[count / NR][rows][NR]` to `[feature_len, count]`, with as many rows as there are or more.
    fn unpack(&self, blocks: &[f32], rows: usize, to: &mut [f32]) {
        if self.count == 0 {
            return;
        }
        let nr = self.nr();
        let rows_to = to.chunks_mut(self.count).enumerate().collect();
        for_each(
            true,
            rows_to,
            || (),
            |(), (row, to): (usize, &mut [f32])| {
                for (block, to) in to.chunks_mut(nr).enumerate() {
                    let from = (block * rows + row) * nr;
                    to.copy_from_slice(&blocks[from..from + to.len()]);
                }
            },
        );
    }

    fn nr(&self) -> usize {
        self.path.tile().1
    }

    /// Blocks of frequencies.
    pub fn blocks(&self) -> usize {
        self.count.div_ceil(self.nr())
    }

    /// Floats of the angles of `rows` rows and one block: rows in whole register tiles.
    pub fn block_len(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.path.tile().0) * self.nr()
    }

    /// Rows `[n, feature_len]` times one block of the frequencies: `[n][NR]`, n in whole tiles.
    ///
    /// Each angle is summed over features in order and in passes of a fixed length: the same bits whatever other rows there are.
    pub fn angles(&self, rows: &[f32], block: usize, to: &mut [f32]) {
        let (d, nr) = (self.feature_len, self.nr());
        let t = &self.values[block * d * nr..];
        for (rows, to) in rows.chunks(ROWS * d).zip(to.chunks_mut(ROWS * nr)) {
            product(self.path, rows, rows.len() / d, d, t, to);
        }
    }

    /// The gradient for the rows `[n, feature_len]`: that for the angles times the transposed frequencies. `angle_gradient(block, to)`
    /// writes the gradient for the angles of one block, `[n][NR]`, n in whole tiles. Works in memory of `arena`.
    pub fn rows_backward(
        &self,
        n: usize,
        arena: &Arena,
        angle_gradient: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let (d, (mr, nr)) = (self.feature_len, self.path.tile());
        let (blocks, row_blocks) = (self.blocks(), n.div_ceil(nr));
        let mut out = vec![0.0; n * d];
        if n * d * blocks == 0 {
            return out;
        }
        // The gradient for the angles, transposed in squares: [block][row block][NR frequencies][NR rows].
        let square = nr * nr;
        let len = blocks * row_blocks * square;
        let mut w = arena.buffer(len);
        let by_block = w[..len].chunks_mut(row_blocks * square).enumerate().collect();
        for_each(
            true,
            by_block,
            || vec![0.0; self.block_len(n)],
            |angles: &mut Vec<f32>, (block, w): (usize, &mut [f32])| {
                angle_gradient(block, angles);
                for (rows, w) in angles[..n * nr].chunks(square).zip(w.chunks_exact_mut(square)) {
                    transpose(rows, nr, w, nr);
                }
            },
        );
        // [columns / COLUMNS][row block][COLUMNS][NR rows]: the frequencies pass once, the rows' gradients stay in the second cache.
        let columns = COLUMNS.next_multiple_of(mr);
        let panel = row_blocks * columns * nr;
        let len = d.div_ceil(COLUMNS) * panel;
        let mut transposed = arena.buffer(len);
        let blocks_a_pass = (PASS / square).max(1);
        let runs: Vec<usize> = (0..blocks_a_pass).map(|block| block * d * nr).collect();
        let panels = transposed[..len].chunks_mut(panel).enumerate().collect();
        for_each(true, panels, Vec::new, |offsets: &mut Vec<usize>, (first, to): (usize, &mut [f32])| {
            let of = |i: usize| (first * COLUMNS + i).min(d - 1) * nr;
            offsets.clear();
            offsets.extend((0..COLUMNS.min(d - first * COLUMNS).next_multiple_of(mr)).map(of));
            let count = offsets.len();
            for block in (0..blocks).step_by(blocks_a_pass) {
                let (offsets, runs) =
                    (Addresses::of(offsets), Addresses::of(&runs[..blocks_a_pass.min(blocks - block)]));
                let t = &self.values[block * d * nr..];
                for (row_block, to) in to.chunks_exact_mut(columns * nr).enumerate() {
                    let w = &w[(block * row_blocks + row_block) * square..];
                    let to = &mut to[..count * nr];
                    multiply(self.path, t, offsets, runs, nr, w, row_blocks * square, to, block > 0);
                }
            }
        });
        let by_rows = out.chunks_mut(nr * d).enumerate().collect();
        for_each(
            true,
            by_rows,
            || (),
            |(), (row_block, rows): (usize, &mut [f32])| {
                for (first, panel) in transposed[..len].chunks_exact(panel).enumerate() {
                    let from = &panel[row_block * columns * nr..(row_block + 1) * columns * nr];
                    let width = COLUMNS.min(d - first * COLUMNS);
                    for (row, to) in rows.chunks_exact_mut(d).enumerate() {
                        let to = &mut to[first * COLUMNS..first * COLUMNS + width];
                        to.iter_mut().zip(from[row..].iter().step_by(nr)).for_each(|(to, from)| *to = *from);
                    }
                }
            },
        );
        arena.give_back(w);
        arena.give_back(transposed);
        out
    }

    /// The gradient for the frequencies `[feature_len, count]`: the transposed rows `[n, feature_len]` times the gradient for the angles,
    /// which `angle_gradient(block, to)` writes as for [`Packed::rows_backward`]. Summed over rows in their order.
    pub fn frequencies_backward(
        &self,
        rows: &[f32],
        arena: &Arena,
        angle_gradient: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let (d, (mr, nr)) = (self.feature_len, self.path.tile());
        let mut out = vec![0.0; d * self.count];
        if rows.is_empty() || self.count == 0 {
            return out;
        }
        let n = rows.len() / d;
        let mut transposed = arena.buffer(n * d);
        transpose(rows, d, &mut transposed, n);
        let whole = d.next_multiple_of(mr);
        let len = self.blocks() * whole * nr;
        let mut packed = arena.buffer(len);
        let blocks = packed[..len].chunks_mut(whole * nr).enumerate().collect();
        for_each(
            true,
            blocks,
            || vec![0.0; self.block_len(n)],
            |gradient: &mut Vec<f32>, (block, to): (usize, &mut [f32])| {
                angle_gradient(block, gradient);
                product(self.path, &transposed[..n * d], d, n, gradient, to);
            },
        );
        self.unpack(&packed[..len], whole, &mut out);
        arena.give_back(transposed);
        arena.give_back(packed);
        out
    }
}

/// `x` `[n, k]` times packed `w` `[k][NR]`: `[n][NR]`, n in whole tiles. What lies after `w` is taken for what the next call wants.
fn product(path: Path, x: &[f32], n: usize, k: usize, w: &[f32], to: &mut [f32]) {
    let (mr, nr) = path.tile();
    let offsets: Vec<usize> = (0..n.next_multiple_of(mr)).map(|i| i.min(n - 1) * k).collect();
    for first in (0..k).step_by(PASS / nr) {
        let length = (PASS / nr).min(k - first);
        let (before, after) = w.split_at((first + length) * nr);
        // The frequencies come from memory: while a pass is computed, the next is on its way.
        prefetch(&after[..after.len().min(PASS)]);
        let w = &before[first * nr..];
        multiply(
            path,
            x,
            Addresses::of(&offsets),
            Addresses::of(&[first]),
            length,
            w,
            0,
            &mut to[..offsets.len() * nr],
            first > 0,
        );
    }
}

/// Copies `from` `[n][width]`, n at most `stride`, to `to` `[width][stride]`; columns after `n` become 0.
fn transpose(from: &[f32], width: usize, to: &mut [f32], stride: usize) {
    const TILE: usize = 32;
    let n = from.len() / width;
    for top in (0..stride).step_by(TILE) {
        let rows = top..stride.min(top + TILE);
        for left in (0..width).step_by(TILE) {
            for column in left..width.min(left + TILE) {
                let to = &mut to[column * stride..(column + 1) * stride];
                for row in rows.clone() {
                    to[row] = if row < n { from[row * width + column] } else { 0.0 };
                }
            }
        }
    }
}
