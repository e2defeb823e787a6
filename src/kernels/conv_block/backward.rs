//! The gradient for pooled planes flows in; gradients for pictures, weights and affine parameters flow out.

use super::convolution::{Convolution, Workspace};
use super::forward::Saved;
use super::product::{Blocks, Product, block_to_planes, planes_to_block};
use super::tiles::{multiply, norm_relu_pool_backward};
use super::{ConvBlock, Geometry, for_each};
use crate::kernels::arena::{Key, Lent};

/// The gradients that were wanted.
#[derive(Debug, Default)]
pub(super) struct Gradients {
    /// Like the pictures.
    pub input: Option<Vec<f32>>,
    /// Like the weights.
    pub weight: Option<Vec<f32>>,
    /// Like the affine parameters.
    pub affine: Option<Vec<f32>>,
}

/// What is known of a call before its rows.
struct Plan<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    saved: &'a Saved,
    affine: Vec<f32>,
    /// The convolution's gradient: blocks of NR output channels on a padded grid.
    conv_grad: Blocks,
    /// The convolution, where its result wasn't kept.
    again: Option<Convolution>,
    input: Option<InputGradient>,
    /// Of scratch memory.
    key: Key,
}

impl Plan<'_> {
    /// Rows that go through together.
    fn group(&self) -> usize {
        match &self.input {
            Some(InputGradient::Transposed(convolution)) => convolution.group(),
            _ => 1,
        }
    }
}

/// How the gradient for the pictures is computed from the convolution's.
#[derive(Debug)]
pub(super) enum InputGradient {
    /// As a convolution with the transposed, flipped kernels.
    Transposed(Convolution),
    /// Few channels would leave most lanes of a block empty: all taps of all channels as one block of results for each pixel of the
    /// convolution, added up where they belong.
    Columns(Product),
}

impl InputGradient {
    /// The cheaper way for convolutions of geometry `g`, in groups of at most `most` pictures.
    pub fn new(g: Geometry, weight: &[f32], most: usize) -> Self {
        let (conv_grad, nr) = (g.conv_grad(), g.nr());
        let row = conv_grad.grid.row();
        if (9 * g.inputs).next_multiple_of(nr) < 9 * g.inputs.next_multiple_of(nr) && g.inputs <= 8 {
            let [height, width] = g.conv;
            let origin = conv_grad.grid.origin();
            let pixels = (0..height).flat_map(|y| (0..width).map(move |x| origin + y * row + x));
            let by = |k: usize, o: usize, _| weight[o * 9 * g.inputs + k];
            Self::Columns(Product::new(g.path, conv_grad, pixels, 1, 9 * g.inputs, by))
        } else {
            Self::Transposed(Self::transposed(g, weight, most))
        }
    }

    /// The convolution with the transposed, flipped kernels.
    pub fn transposed(g: Geometry, weight: &[f32], most: usize) -> Convolution {
        let conv_grad = g.conv_grad();
        let first = g.padding.saturating_sub(2) * (conv_grad.grid.row() + 1);
        let by = |i: usize, o: usize, tap: usize| weight[(o * g.inputs + i) * 9 + 8 - tap];
        Convolution::new(g.path, conv_grad, first, g.input, g.inputs, most, by)
    }

    /// The gradient for one picture from the products of all taps, added up where they belong.
    pub fn add_columns(g: Geometry, product: &Product, conv_grad: &[f32], block: &mut [f32], input: &mut [f32]) {
        let nr = g.nr();
        let [height, width] = g.input;
        let [conv_height, conv_width] = g.conv;
        input.fill(0.0);
        for first in (0..9 * g.inputs).step_by(nr) {
            product.run(conv_grad, first / nr, block);
            for k in first..(first + nr).min(9 * g.inputs) {
                let (channel, ky, kx) = (k / 9, k % 9 / 3, k % 3);
                // Pixel (y, x) of the convolution read pixel (y + ky - padding, x + kx - padding) of the picture.
                let reached = |n: usize, conv: usize, tap: usize| {
                    g.padding.saturating_sub(tap)..conv.min((n + g.padding).saturating_sub(tap))
                };
                let columns = reached(width, conv_width, kx);
                for y in reached(height, conv_height, ky) {
                    let to = (channel * height + y + ky - g.padding) * width + columns.start + kx - g.padding;
                    let from = &block[(y * conv_width + columns.start) * nr..(y * conv_width + columns.end) * nr];
                    let line = &mut input[to..to + columns.len()];
                    line.iter_mut().zip(from.chunks_exact(nr)).for_each(|(t, f)| *t += f[k - first]);
                }
            }
        }
    }
}

/// What a thread needs for itself.
struct Scratch {
    workspace: Workspace,
    /// For the convolution that is done again.
    again: Workspace,
    /// For rows that bring no slot of their own: where weights have no gradient.
    slot: Option<Slot>,
    grid: Vec<f32>,
    conv: Vec<f32>,
    pooled_grad: Vec<f32>,
    input_grad: Vec<f32>,
}

/// One row's shares of what is written.
struct Row<'a> {
    row: usize,
    input: Option<&'a mut [f32]>,
    slot: Option<&'a mut Slot>,
}

/// What one row hands on to the weights' gradient.
struct Slot {
    conv_grad: Vec<f32>,
    /// The affine gradient, `[out / NR][2][NR]`.
    sums: Vec<f32>,
    /// The padded picture, `[in][grid]`.
    planes: Vec<f32>,
}

impl ConvBlock {
    /// The gradients that are wanted, given `grad` `[batch, out, h / 2, w / 2]`.
    pub(super) fn backward(&self, x: &[f32], weight: &[f32], affine: &[f32], saved: &Saved, grad: &[f32]) -> Gradients {
        let g = self.geometry;
        let conv_grad = g.conv_grad();
        let mut plan = Plan {
            key: g.key(0),
            x,
            grad,
            saved,
            affine: g.affine_blocks(affine),
            conv_grad,
            again: saved.conv.is_none().then(|| self.convolution(weight)),
            input: self.wants.input.then(|| InputGradient::new(g, weight, self.most_pictures())),
        };
        let flags = usize::from(self.wants.input) + 2 * usize::from(self.wants.weights);
        plan.key = g.key(4 * plan.group().max(plan.again.as_ref().map_or(1, Convolution::group)) + flags);
        let mut gradients = Gradients::default();
        if self.wants.input {
            gradients.input = Some(vec![0.0; g.batch * g.input_len()]);
        }
        let inputs: Vec<_> = match &mut gradients.input {
            Some(input) => input.chunks_exact_mut(g.input_len()).map(Some).collect(),
            None => (0..g.batch).map(|_| None).collect(),
        };
        if self.wants.weights {
            let (weight, affine) = self.weight_gradient(&plan, inputs);
            (gradients.weight, gradients.affine) = (Some(weight), Some(affine));
        } else {
            let rows = inputs.into_iter().enumerate();
            let mut rows: Vec<Row> = rows.map(|(row, input)| Row { row, input, slot: None }).collect();
            let groups = rows.chunks_mut(plan.group()).collect();
            let scratch = || self.scratch(&plan);
            for_each(self.wants.parallel, groups, scratch, |scratch, rows| self.backward_rows(&plan, scratch, rows));
        }
        gradients
    }

    fn scratch(&self, plan: &Plan) -> Lent<'_, Scratch> {
        self.arena.object(&plan.key, || self.new_scratch(plan))
    }

    fn new_scratch(&self, plan: &Plan) -> Scratch {
        let g = self.geometry;
        let (mr, nr) = self.geometry.path.tile();
        let whole_tiles = |[height, width]: [usize; 2]| (height * width).next_multiple_of(mr) * nr;
        let (workspace, input_grad) = match &plan.input {
            Some(InputGradient::Transposed(c)) => (c.workspace(), whole_tiles(g.input)),
            Some(InputGradient::Columns(_)) => (Workspace::default(), whole_tiles(g.conv)),
            None => (Workspace::default(), 0),
        };
        let if_again = |len: usize| vec![0.0; if plan.again.is_some() { len } else { 0 }];
        Scratch {
            workspace,
            again: plan.again.as_ref().map_or_else(Workspace::default, Convolution::workspace),
            slot: (!self.wants.weights).then(|| self.new_slot(plan)),
            grid: if_again(self.input_blocks().len()),
            conv: if_again(self.geometry.conv_block_len()),
            pooled_grad: vec![0.0; g.pooled()[0] * g.pooled()[1] * nr],
            input_grad: vec![0.0; input_grad],
        }
    }

    fn slot(&self, plan: &Plan) -> Lent<'_, Slot> {
        self.arena.object(&plan.key, || self.new_slot(plan))
    }

    fn new_slot(&self, plan: &Plan) -> Slot {
        let g = self.geometry;
        Slot {
            conv_grad: vec![0.0; plan.conv_grad.len()],
            sums: vec![0.0; plan.affine.len()],
            planes: vec![0.0; if self.wants.weights { g.inputs * g.input_grid().len() } else { 0 }],
        }
    }

    /// Fills the slots of a group of rows, and their gradients for the pictures.
    fn backward_rows(&self, plan: &Plan, scratch: &mut Scratch, rows: &mut [Row]) {
        let nr = self.geometry.path.tile().1;
        let plane = self.geometry.input[0] * self.geometry.input[1];
        let mut own_slot = scratch.slot.take();
        let count = rows.len();
        for (i, row) in rows.iter_mut().enumerate() {
            let Some(slot) = row.slot.as_deref_mut().or(own_slot.as_mut()) else { continue };
            self.backward_row(plan, row.row, scratch, slot);
            match (&plan.input, &mut row.input) {
                (Some(InputGradient::Columns(product)), Some(input)) => {
                    InputGradient::add_columns(self.geometry, product, &slot.conv_grad, &mut scratch.input_grad, input);
                }
                (Some(InputGradient::Transposed(convolution)), Some(_)) => {
                    convolution.place(&mut scratch.workspace, &slot.conv_grad, i);
                }
                _ => {}
            }
        }
        if let Some(InputGradient::Transposed(convolution)) = &plan.input {
            for block in 0..self.geometry.inputs.div_ceil(nr) {
                convolution.multiply(&mut scratch.workspace, count, block);
                for (i, row) in rows.iter_mut().enumerate() {
                    let (Some(slot), Some(input)) = (row.slot.as_deref().or(own_slot.as_ref()), &mut row.input) else {
                        continue;
                    };
                    convolution.block(&scratch.workspace, &slot.conv_grad, i, block, &mut scratch.input_grad);
                    let planes = input.chunks_mut(nr * plane).nth(block).unwrap_or_default();
                    block_to_planes(&scratch.input_grad, nr, plane, planes);
                }
            }
        }
        scratch.slot = own_slot;
    }

    /// Fills `slot` for row `row`.
    fn backward_row(&self, plan: &Plan, row: usize, scratch: &mut Scratch, slot: &mut Slot) {
        let g = self.geometry;
        let nr = self.geometry.path.tile().1;
        let blocks = self.geometry.out_blocks();
        let [ph, pw] = g.pooled();
        let picture = &plan.x[row * g.input_len()..(row + 1) * g.input_len()];
        let pooled_grads = &plan.grad[row * g.output_len()..(row + 1) * g.output_len()];
        let stats = &plan.saved.stats[row * blocks * 2 * nr..(row + 1) * blocks * 2 * nr];
        if let Some(convolution) = &plan.again {
            self.input_blocks().place(picture, &mut scratch.grid);
            convolution.place(&mut scratch.again, &scratch.grid, 0);
        }
        let grid = plan.conv_grad.grid;
        for block in 0..blocks {
            let conv = match (&plan.again, &plan.saved.conv) {
                (Some(convolution), _) => {
                    convolution.multiply(&mut scratch.again, 1, block);
                    convolution.block(&scratch.again, &scratch.grid, 0, block, &mut scratch.conv);
                    &scratch.conv[..]
                }
                (None, Some(conv)) => {
                    let len = g.conv_block_len();
                    &conv[(row * blocks + block) * len..(row * blocks + block + 1) * len]
                }
                (None, None) => continue,
            };
            let lanes = nr.min(g.out - block * nr);
            let planes = &pooled_grads[block * nr * ph * pw..(block * nr + lanes) * ph * pw];
            planes_to_block(planes, nr, ph * pw, &mut scratch.pooled_grad);
            if lanes < nr {
                // Lanes of an earlier block may be left here.
                scratch.pooled_grad.chunks_exact_mut(nr).for_each(|p| p[lanes..].fill(0.0));
            }
            let two = block * 2 * nr..(block + 1) * 2 * nr;
            norm_relu_pool_backward(
                self.geometry.path,
                conv,
                g.conv,
                &plan.affine[two.clone()],
                &stats[two.clone()],
                &scratch.pooled_grad,
                &mut slot.sums[two],
                &mut slot.conv_grad[block * grid.len() * nr..(block + 1) * grid.len() * nr],
                [grid.origin(), grid.row()],
            );
        }
        if self.wants.weights {
            let grid = g.input_grid();
            let plane = g.input[0] * g.input[1];
            for (from, to) in picture.chunks_exact(plane).zip(slot.planes.chunks_exact_mut(grid.len())) {
                grid.place(from, to, 1, 0);
            }
        }
    }

    /// The gradients for weights and affine parameters, summed over rows in their order. Rows are prepared in waves, in parallel; then each
    /// piece of the weights adds up the wave's rows, in parallel over pieces.
    fn weight_gradient(&self, plan: &Plan, inputs: Vec<Option<&mut [f32]>>) -> (Vec<f32>, Vec<f32>) {
        let g = self.geometry;
        let (mr, nr) = self.geometry.path.tile();
        let blocks = self.geometry.out_blocks();
        let taps = 9 * g.inputs;
        let picture_grid = g.input_grid();
        // One result for each tap of each input channel: the dot product of a shifted plane with the convolution's gradient.
        let mut offsets: Vec<usize> =
            (0..taps).map(|k| k / 9 * picture_grid.len() + k % 9 / 3 * picture_grid.row() + k % 3).collect();
        offsets.resize(taps.next_multiple_of(mr), 0);
        let runs: Vec<usize> = (0..g.conv[0]).map(|y| y * picture_grid.row()).collect();
        let grid = plan.conv_grad.grid;

        let parallel = self.wants.parallel && rayon::current_num_threads() > 1;
        let wave = plan.group() * if parallel { 4 * rayon::current_num_threads() } else { 1 };
        let mut slots: Vec<Lent<Slot>> = (0..wave.min(g.batch)).map(|_| self.slot(plan)).collect();
        let mut sums = vec![0.0f64; plan.affine.len()];
        let mut weight_blocks = self.arena.buffer(blocks * offsets.len() * nr);
        weight_blocks.truncate(blocks * offsets.len() * nr);
        weight_blocks.fill(0.0);
        // Small enough for all threads to have work, large enough to reuse the block of gradients in the first cache.
        let piece = if parallel { 16 * mr } else { offsets.len() };

        let mut inputs = inputs.into_iter();
        let mut scratch = (!parallel).then(|| self.scratch(plan));
        for first in (0..g.batch).step_by(wave) {
            let mut rows: Vec<Row> = (first..g.batch)
                .zip(slots.iter_mut().map(|slot| Some(&mut **slot)))
                .zip(inputs.by_ref().take(wave))
                .map(|((row, slot), input)| Row { row, input, slot })
                .collect();
            let count = rows.len();
            let groups = rows.chunks_mut(plan.group());
            match &mut scratch {
                Some(scratch) => groups.for_each(|rows| self.backward_rows(plan, scratch, rows)),
                None => {
                    let scratch = || self.scratch(plan);
                    for_each(true, groups.collect(), scratch, |scratch, rows| self.backward_rows(plan, scratch, rows));
                }
            }
            let pieces = weight_blocks
                .chunks_exact_mut(offsets.len() * nr)
                .enumerate()
                .flat_map(|(block, all)| {
                    all.chunks_mut(piece * nr).zip(offsets.chunks(piece)).map(move |(y, offsets)| (block, offsets, y))
                })
                .collect();
            for_each(
                parallel,
                pieces,
                || (),
                |(), (block, offsets, y): (usize, &[usize], &mut [f32])| {
                    for slot in &slots[..count] {
                        let start = (block * grid.len() + grid.origin()) * nr;
                        let conv_grad = &slot.conv_grad[start..(block + 1) * grid.len() * nr];
                        multiply(
                            self.geometry.path,
                            &slot.planes,
                            offsets,
                            &runs,
                            g.conv[1],
                            conv_grad,
                            grid.row() * nr,
                            y,
                            true,
                        );
                    }
                },
            );
            for slot in &slots[..count] {
                sums.iter_mut().zip(&slot.sums).for_each(|(s, v)| *s += f64::from(*v));
            }
        }

        let mut weight = vec![0.0; g.out * taps];
        let mut affine = vec![0.0; 2 * g.out];
        for o in 0..g.out {
            let (block, lane) = (o / nr, o % nr);
            let from = &weight_blocks[block * offsets.len() * nr..];
            weight[o * taps..(o + 1) * taps].iter_mut().zip(from.chunks_exact(nr)).for_each(|(w, f)| *w = f[lane]);
            affine[o] = sums[block * 2 * nr + lane] as f32;
            affine[g.out + o] = sums[(block * 2 + 1) * nr + lane] as f32;
        }
        self.arena.give_back(weight_blocks);
        (weight, affine)
    }
}
