//! The gradient for pooled planes flows in; gradients for pictures, weights and affine parameters flow out.

use super::convolution::{Convolution, Workspace};
use super::forward::Saved;
use super::product::{Blocks, Product, block_to_planes, planes_to_block};
use super::tiles::{Offsets, multiply, norm_relu_pool_backward};
use super::winograd::KernelGradient;
use super::{ConvBlock, Geometry, for_each};
use crate::kernels::arena::{Key, Lent};

/// Where the gradients go that were wanted; what is there before doesn't matter.
#[derive(Debug, Default)]
pub(super) struct Gradients<'a> {
    /// Like the pictures.
    pub input: Option<&'a mut [f32]>,
    /// Like the weights and the affine parameters.
    pub weights: Option<(&'a mut [f32], &'a mut [f32])>,
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
    /// How the gradient for the weights is computed, where it is wanted.
    weights: Option<WeightGradient>,
    /// Of scratch memory.
    key: Key,
}

impl Plan<'_> {
    /// Rows whose gradients for the pictures are computed together.
    fn group(&self) -> usize {
        match &self.input {
            Some(InputGradient::Transposed(convolution)) => convolution.group(),
            _ => 1,
        }
    }

    /// Rows that a thread holds, and whose shares of the weights' gradient are computed together.
    fn held(&self) -> usize {
        match &self.weights {
            Some(WeightGradient::Tiles(gradient)) => gradient.group(),
            Some(WeightGradient::Taps { .. }) => self.group(),
            None => 1,
        }
    }
}

/// How the gradient for the weights is computed from the convolution's.
enum WeightGradient {
    /// One dot product for each tap of each input channel, of a shifted plane with the convolution's gradient.
    Taps {
        /// Where each tap's plane starts, in whole register tiles.
        offsets: Offsets,
        /// The rows of a plane.
        runs: Offsets,
    },
    /// In the frequencies of tiles.
    Tiles(KernelGradient),
}

impl WeightGradient {
    /// The cheaper way for a convolution of geometry `g` that reads `from`, for groups of at most `most` pictures.
    fn new(g: Geometry, from: Blocks, most: usize) -> Self {
        if let Some(gradient) = KernelGradient::new(g.path, from, g.conv, g.out, most) {
            return Self::Tiles(gradient);
        }
        let (taps, grid) = (9 * g.inputs, g.input_grid());
        let mut offsets: Vec<usize> = (0..taps).map(|k| k / 9 * grid.len() + k % 9 / 3 * grid.row() + k % 3).collect();
        offsets.resize(taps.next_multiple_of(g.path.tile().0), 0);
        let runs = Offsets::new((0..g.conv[0]).map(|y| y * grid.row()).collect());
        Self::Taps { offsets: Offsets::new(offsets), runs }
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
    pub fn new(g: Geometry, weight: &[f32], most: usize, parallel: bool) -> Self {
        let (conv_grad, nr) = (g.conv_grad(), g.nr());
        let row = conv_grad.grid.row();
        if (9 * g.inputs).next_multiple_of(nr) < 9 * g.inputs.next_multiple_of(nr) && g.inputs <= 8 {
            let [height, width] = g.conv;
            let origin = conv_grad.grid.origin();
            let pixels = (0..height).flat_map(|y| (0..width).map(move |x| origin + y * row + x));
            let by = |k: usize, o: usize, _| weight[o * 9 * g.inputs + k];
            Self::Columns(Product::new(g.path, conv_grad, pixels, 1, 9 * g.inputs, by))
        } else {
            Self::Transposed(Self::transposed(g, weight, most, parallel))
        }
    }

    /// The convolution with the transposed, flipped kernels.
    pub fn transposed(g: Geometry, weight: &[f32], most: usize, parallel: bool) -> Convolution {
        let conv_grad = g.conv_grad();
        let first = g.padding.saturating_sub(2) * (conv_grad.grid.row() + 1);
        let by = |i: usize, o: usize, tap: usize| weight[(o * g.inputs + i) * 9 + 8 - tap];
        Convolution::new(g.path, conv_grad, first, g.input, g.inputs, most, parallel, by)
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
    /// One for each row that is held.
    slots: Vec<Slot>,
    grid: Vec<f32>,
    conv: Vec<f32>,
    tiles: Tiles,
    pooled_grad: Vec<f32>,
    input_grad: Vec<f32>,
}

/// What [`KernelGradient`] needs.
#[derive(Default)]
struct Tiles {
    input: Vec<f32>,
    grad: Vec<f32>,
    /// Those of all blocks.
    sums: Vec<f32>,
}

/// One row's shares of what is written.
struct Row<'a> {
    row: usize,
    input: Option<&'a mut [f32]>,
}

/// Rows whose shares of the weights' gradient are summed in their order.
struct Part<'a> {
    rows: Vec<Row<'a>>,
    /// `[out / NR][tap][NR]`, taps in whole tiles.
    weight: &'a mut [f32],
    /// `[out / NR][2][NR]`.
    affine: &'a mut [f64],
}

/// What one row hands on to the weights' gradient.
struct Slot {
    conv_grad: Vec<f32>,
    /// The affine gradient, `[out / NR][2][NR]`.
    sums: Vec<f32>,
    /// The padded picture, `[in][grid]`, where the weights' gradient is computed by taps.
    planes: Vec<f32>,
}

impl ConvBlock {
    /// Writes the gradients that are wanted, given `grad` `[batch, out, h / 2, w / 2]`.
    pub(super) fn backward(&self, [x, weight, affine]: [&[f32]; 3], saved: &Saved, grad: &[f32], into: Gradients<'_>) {
        let g = self.geometry;
        let conv_grad = g.conv_grad();
        // Parts of the batch are what threads take where weights have a gradient.
        let most = if self.wants.weights { g.batch.div_ceil(g.parts()) } else { self.most_pictures() };
        let mut plan = Plan {
            key: g.key(&[]),
            x,
            grad,
            saved,
            affine: g.affine_blocks(affine),
            conv_grad,
            again: saved.conv.is_none().then(|| g.convolution(self.from(), weight, 1, self.wants.parallel)),
            input: self.wants.input.then(|| {
                let parallel = self.wants.parallel;
                if self.from_block {
                    InputGradient::Transposed(InputGradient::transposed(g, weight, most, parallel))
                } else {
                    InputGradient::new(g, weight, most, parallel)
                }
            }),
            weights: self.wants.weights.then(|| WeightGradient::new(g, self.from(), most)),
        };
        let flags = [self.wants.input, self.wants.weights, self.from_block, self.next.is_some()].map(usize::from);
        plan.key = g.key(&[&flags[..], &[plan.group(), plan.held()]].concat());
        let inputs: Vec<_> = match into.input {
            Some(input) => input.chunks_exact_mut(self.picture_grad_len()).map(Some).collect(),
            None => (0..g.batch).map(|_| None).collect(),
        };
        let mut rows: Vec<Row> = inputs.into_iter().enumerate().map(|(row, input)| Row { row, input }).collect();
        if let Some((weight, affine)) = into.weights {
            self.weight_gradient(&plan, rows, weight, affine);
        } else {
            let groups = rows.chunks_mut(plan.group()).collect();
            let scratch = || self.scratch(&plan);
            for_each(self.wants.parallel, groups, scratch, |scratch, rows| {
                self.backward_rows(&plan, scratch, rows, 0);
            });
        }
    }

    fn scratch(&self, plan: &Plan) -> Lent<'_, Scratch> {
        self.arena.object(&plan.key, || self.new_scratch(plan))
    }

    fn new_scratch(&self, plan: &Plan) -> Scratch {
        let g = self.geometry;
        let (workspace, input_grad) = match &plan.input {
            Some(InputGradient::Transposed(c)) => {
                (c.workspace(), if self.from_block { 0 } else { g.block_len(g.input) })
            }
            Some(InputGradient::Columns(_)) => (Workspace::default(), g.conv_block_len()),
            None => (Workspace::default(), 0),
        };
        let if_again = |len: usize| vec![0.0; if plan.again.is_some() { len } else { 0 }];
        let tiles = match &plan.weights {
            Some(WeightGradient::Tiles(gradient)) => Tiles {
                input: vec![0.0; gradient.input_len()],
                grad: vec![0.0; gradient.grad_len()],
                sums: vec![0.0; g.out_blocks() * gradient.sums_len()],
            },
            _ => Tiles::default(),
        };
        let places = !self.from_block && (plan.again.is_some() || !tiles.input.is_empty());
        Scratch {
            workspace,
            again: plan.again.as_ref().map_or_else(Workspace::default, Convolution::workspace),
            slots: (0..plan.held()).map(|_| self.new_slot(plan)).collect(),
            grid: vec![0.0; if places { self.from().len() } else { 0 }],
            tiles,
            conv: if_again(self.geometry.conv_block_len()),
            pooled_grad: vec![0.0; if self.next.is_some() { 0 } else { g.pooled()[0] * g.pooled()[1] * g.nr() }],
            input_grad: vec![0.0; input_grad],
        }
    }

    fn new_slot(&self, plan: &Plan) -> Slot {
        let g = self.geometry;
        Slot {
            conv_grad: vec![0.0; plan.conv_grad.len()],
            sums: vec![0.0; plan.affine.len()],
            planes: match plan.weights {
                Some(WeightGradient::Taps { .. }) => vec![0.0; g.inputs * g.input_grid().len()],
                _ => vec![],
            },
        }
    }

    /// Fills the slots from `first` on for a group of rows, and the rows' gradients for the pictures.
    fn backward_rows(&self, plan: &Plan, scratch: &mut Scratch, rows: &mut [Row], first: usize) {
        let nr = self.geometry.path.tile().1;
        let plane = self.geometry.input[0] * self.geometry.input[1];
        let mut slots = std::mem::take(&mut scratch.slots);
        let own = |i: usize| if self.wants.weights { first + i } else { 0 };
        let count = rows.len();
        for (i, row) in rows.iter_mut().enumerate() {
            let slot = &mut slots[own(i)];
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
                    let Some(input) = &mut row.input else { continue };
                    let conv_grad = &slots[own(i)].conv_grad;
                    if self.from_block {
                        let len = self.geometry.block_len(self.geometry.input);
                        let to = &mut input[block * len..(block + 1) * len];
                        convolution.block(&scratch.workspace, conv_grad, i, block, to);
                        continue;
                    }
                    convolution.block(&scratch.workspace, conv_grad, i, block, &mut scratch.input_grad);
                    let planes = input.chunks_mut(nr * plane).nth(block).unwrap_or_default();
                    block_to_planes(&scratch.input_grad, nr, plane, planes);
                }
            }
        }
        scratch.slots = slots;
    }

    /// Fills `slot` for row `row`.
    fn backward_row(&self, plan: &Plan, row: usize, scratch: &mut Scratch, slot: &mut Slot) {
        let g = self.geometry;
        let nr = self.geometry.path.tile().1;
        let blocks = self.geometry.out_blocks();
        let [ph, pw] = g.pooled();
        let picture = &plan.x[row * self.picture_len()..(row + 1) * self.picture_len()];
        let pooled_grads = &plan.grad[row * self.result_grad_len()..(row + 1) * self.result_grad_len()];
        let stats = &plan.saved.stats[row * blocks * 2 * nr..(row + 1) * blocks * 2 * nr];
        let placed: &[f32] = match &plan.again {
            Some(_) if !self.from_block => {
                self.from().place(picture, &mut scratch.grid);
                &scratch.grid
            }
            _ => picture,
        };
        if let Some(convolution) = &plan.again {
            convolution.place(&mut scratch.again, placed, 0);
        }
        let grid = plan.conv_grad.grid;
        for block in 0..blocks {
            let conv = match (&plan.again, &plan.saved.conv) {
                (Some(convolution), _) => {
                    convolution.multiply(&mut scratch.again, 1, block);
                    convolution.block(&scratch.again, placed, 0, block, &mut scratch.conv);
                    &scratch.conv[..]
                }
                (None, Some(conv)) => {
                    let len = g.conv_block_len();
                    &conv[(row * blocks + block) * len..(row * blocks + block + 1) * len]
                }
                (None, None) => continue,
            };
            let pooled_grad = if self.next.is_some() {
                &pooled_grads[block * g.block_len(g.pooled())..][..ph * pw * nr]
            } else {
                let lanes = nr.min(g.out - block * nr);
                let planes = &pooled_grads[block * nr * ph * pw..(block * nr + lanes) * ph * pw];
                planes_to_block(planes, nr, ph * pw, &mut scratch.pooled_grad);
                if lanes < nr {
                    // Lanes of an earlier block may be left here.
                    scratch.pooled_grad.chunks_exact_mut(nr).for_each(|p| p[lanes..].fill(0.0));
                }
                &scratch.pooled_grad
            };
            let two = block * 2 * nr..(block + 1) * 2 * nr;
            norm_relu_pool_backward(
                self.geometry.path,
                conv,
                g.conv,
                &plan.affine[two.clone()],
                &stats[two.clone()],
                pooled_grad,
                &mut slot.sums[two],
                &mut slot.conv_grad[block * grid.len() * nr..(block + 1) * grid.len() * nr],
                [grid.origin(), grid.row()],
            );
        }
        if let (Some(WeightGradient::Taps { .. }), true) = (&plan.weights, self.from_block) {
            self.from().planes(picture, &mut slot.planes);
        } else if let Some(WeightGradient::Taps { .. }) = plan.weights {
            let grid = g.input_grid();
            let plane = g.input[0] * g.input[1];
            for (from, to) in picture.chunks_exact(plane).zip(slot.planes.chunks_exact_mut(grid.len())) {
                grid.place(from, to, 1, 0);
            }
        }
    }

    /// Writes the gradients for weights and affine parameters: each part of the batch sums up its rows in their order, in parallel over parts;
    /// then the parts are summed in theirs.
    fn weight_gradient(&self, plan: &Plan, rows: Vec<Row>, weight: &mut [f32], affine: &mut [f32]) {
        let g = self.geometry;
        let (nr, taps, count) = (g.nr(), 9 * g.inputs, g.parts());
        let (weight_len, affine_len) = (g.out_blocks() * g.padded_taps() * nr, plan.affine.len());
        let mut weights = self.arena.buffer(count * weight_len);
        let mut affines = vec![0.0; count * affine_len];
        let mut rows = rows.into_iter();
        let parts = weights
            .chunks_exact_mut(weight_len)
            .zip(affines.chunks_exact_mut(affine_len))
            .enumerate()
            .map(|(i, (weight, affine))| {
                let length = (i + 1) * g.batch / count - i * g.batch / count;
                Part { rows: rows.by_ref().take(length).collect(), weight, affine }
            })
            .collect();
        for_each(
            self.wants.parallel,
            parts,
            || self.scratch(plan),
            |scratch, part: Part| self.add_part(plan, scratch, part),
        );

        let blocks = weight.chunks_mut(nr * taps).enumerate().collect();
        for_each(
            self.wants.parallel,
            blocks,
            || vec![0.0; nr],
            |sum, (block, to): (usize, &mut [f32])| {
                for k in 0..taps {
                    sum.fill(0.0);
                    for part in weights.chunks_exact(weight_len).take(count) {
                        let from = &part[(block * g.padded_taps() + k) * nr..][..nr];
                        sum.iter_mut().zip(from).for_each(|(s, f)| *s += f);
                    }
                    to.iter_mut().skip(k).step_by(taps).zip(&*sum).for_each(|(t, s)| *t = *s);
                }
            },
        );
        self.arena.give_back(weights);
        let total = |at: usize| affines.iter().skip(at).step_by(affine_len).sum::<f64>() as f32;
        for o in 0..g.out {
            let (block, lane) = (o / nr, o % nr);
            affine[o] = total(block * 2 * nr + lane);
            affine[g.out + o] = total((block * 2 + 1) * nr + lane);
        }
    }

    /// Sums up the shares of one part's rows, whose own gradients are written on the way.
    fn add_part(&self, plan: &Plan, scratch: &mut Scratch, mut part: Part) {
        let Some(weights) = &plan.weights else { return };
        if part.rows.is_empty() {
            // A batch without rows.
            return part.weight.fill(0.0);
        }
        for (n, rows) in part.rows.chunks_mut(plan.held()).enumerate() {
            for (group, rows) in rows.chunks_mut(plan.group()).enumerate() {
                self.backward_rows(plan, scratch, rows, group * plan.group());
            }
            match weights {
                WeightGradient::Taps { offsets, runs } => {
                    self.add_taps(plan, &scratch.slots[..rows.len()], [offsets, runs], n > 0, part.weight);
                }
                WeightGradient::Tiles(gradient) => self.add_tiles(plan, gradient, scratch, rows, n > 0),
            }
            for slot in &scratch.slots[..rows.len()] {
                part.affine.iter_mut().zip(&slot.sums).for_each(|(s, v)| *s += f64::from(*v));
            }
        }
        if let WeightGradient::Tiles(gradient) = weights {
            let blocks = part.weight.chunks_exact_mut(self.geometry.padded_taps() * self.geometry.nr());
            for (sums, to) in scratch.tiles.sums.chunks_exact(gradient.sums_len()).zip(blocks) {
                gradient.transform_sums(sums, to);
            }
        }
    }

    /// The sums of the rows in `slots` by taps: to `weight`, or added to it if `accumulate`.
    fn add_taps(
        &self,
        plan: &Plan,
        slots: &[Slot],
        [offsets, runs]: [&Offsets; 2],
        accumulate: bool,
        weight: &mut [f32],
    ) {
        let (g, nr, grid) = (self.geometry, self.geometry.nr(), plan.conv_grad.grid);
        for (block, y) in weight.chunks_exact_mut(offsets.len() * nr).enumerate() {
            for (i, slot) in slots.iter().enumerate() {
                let start = (block * grid.len() + grid.origin()) * nr;
                let conv_grad = &slot.conv_grad[start..(block + 1) * grid.len() * nr];
                let stride = grid.row() * nr;
                multiply(
                    g.path,
                    &slot.planes,
                    offsets.all(),
                    runs.all(),
                    g.conv[1],
                    conv_grad,
                    stride,
                    y,
                    accumulate || i > 0,
                );
            }
        }
    }

    /// The sums of the rows whose gradients are in the first slots, in the frequencies of tiles: to the scratch memory's, or added to them if `accumulate`.
    fn add_tiles(&self, plan: &Plan, gradient: &KernelGradient, scratch: &mut Scratch, rows: &[Row], accumulate: bool) {
        let (nr, grid) = (self.geometry.nr(), plan.conv_grad.grid);
        for (i, row) in rows.iter().enumerate() {
            let picture = &plan.x[row.row * self.picture_len()..(row.row + 1) * self.picture_len()];
            if self.from_block {
                gradient.transform_input(picture, i, &mut scratch.tiles.input);
            } else {
                self.from().place(picture, &mut scratch.grid);
                gradient.transform_input(&scratch.grid, i, &mut scratch.tiles.input);
            }
        }
        let Tiles { input, grad, sums } = &mut scratch.tiles;
        for (block, sums) in sums.chunks_exact_mut(gradient.sums_len()).enumerate() {
            for (i, slot) in scratch.slots[..rows.len()].iter().enumerate() {
                let conv_grad = &slot.conv_grad[block * grid.len() * nr..(block + 1) * grid.len() * nr];
                gradient.transform_grad(&conv_grad[grid.origin() * nr..], grid.row(), i, grad);
            }
            gradient.multiply(input, grad, rows.len(), sums, accumulate);
        }
    }
}
