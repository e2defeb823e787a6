//! Pictures flow in, the features of a frozen stack of ConvNet blocks flow out, in one operation.
//!
//! What [`conv_block`](super::conv_block) does block by block, with the weights packed once, and with pictures that stay in the cache, and in
//! blocks of channels, from the first convolution to the last pool, and back.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::backward::InputGradient;
use super::convolution::{Convolution, Workspace};
use super::product::{Blocks, block_to_planes, planes_to_block};
use super::tiles::{norm_relu_pool, norm_relu_pool_backward};
use super::{Geometry, contiguous, for_each, with_slices};
use crate::kernels::arena::{Arena, Key, Lent};
use crate::kernels::simd::Path;

/// A frozen stack of blocks, each conv3x3, instance norm, ReLU and 2x2 average pool; its weights packed for the CPU.
#[derive(Debug)]
pub struct ConvStack {
    layers: Vec<Layer>,
    /// From this layer on pictures go through in groups.
    split: usize,
    /// Most pictures of a group.
    group: usize,
    /// Of scratch memory.
    key: Key,
    arena: Arc<Arena>,
}

/// One block.
#[derive(Debug)]
struct Layer {
    geometry: Geometry,
    /// How its padded input lies.
    from: Blocks,
    /// `[out / NR][2][NR]`.
    affine: Vec<f32>,
    convolution: Convolution,
    /// Whether the pictures come here.
    first: bool,
    /// For the way back, which is packed when a gradient is first asked for.
    weight: Tensor,
    gradient: OnceLock<InputGradient>,
}

/// What a thread needs for itself. Margins of grids are 0 and stay so.
#[derive(Debug)]
struct Scratch {
    /// The input of each layer: one grid, or from `split` on one for each picture of a group.
    grids: Vec<Vec<f32>>,
    workspaces: Vec<Workspace>,
    /// One block of a convolution's result.
    conv: Vec<f32>,
    stats: Vec<f32>,
    /// The last layer's pooled block.
    pooled: Vec<f32>,
    backward: Option<Backward>,
}

/// What a thread needs to go back.
#[derive(Debug)]
struct Backward {
    /// The gradient for each layer's convolution.
    conv_grads: Vec<Vec<f32>>,
    workspaces: Vec<Workspace>,
    /// The gradient for each layer's pooled result, one or as many as a group has pictures.
    pooled_grads: Vec<Vec<f32>>,
    /// A block of the gradient for the pictures.
    input_grad: Vec<f32>,
    /// The affine gradient, which nobody asks for.
    sums: Vec<f32>,
}

/// One picture's shares of what is read and written.
struct Row<'a> {
    picture: &'a [f32],
    features: &'a mut [f32],
    saved: Option<&'a mut [f32]>,
}

/// The same, on the way back.
struct BackwardRow<'a> {
    picture: &'a [f32],
    grad: &'a [f32],
    saved: &'a [f32],
    input: &'a mut [f32],
}

impl Layer {
    fn out_blocks(&self) -> usize {
        self.geometry.out_blocks()
    }

    /// Floats that a picture leaves for the way back: statistics, then the convolution's result unless it is done again.
    fn saved_len(&self) -> usize {
        let conv = if self.geometry.recomputes() { 0 } else { self.geometry.conv_block_len() };
        self.out_blocks() * (2 * self.geometry.nr() + conv)
    }

    /// Floats of a pooled result in blocks.
    fn pooled_len(&self) -> usize {
        let [height, width] = self.geometry.pooled();
        self.out_blocks() * self.geometry.nr() * height * width
    }

    fn gradient(&self) -> Result<&InputGradient> {
        if let Some(gradient) = self.gradient.get() {
            return Ok(gradient);
        }
        let packed = with_slices([&self.weight], |[weight]| {
            Ok(if self.first {
                InputGradient::new(self.geometry, weight, usize::MAX, false)
            } else {
                InputGradient::Transposed(InputGradient::transposed(self.geometry, weight, usize::MAX, false))
            })
        })?;
        Ok(self.gradient.get_or_init(|| packed))
    }
}

impl ConvStack {
    /// Blocks of `(weight [out, in, 3, 3], affine [2, out])` for pictures `input` `[channels, height, width]`; `padding(n)` is that of block `n`'s
    /// convolution. Scratch memory comes from `arena`. The packed weights take four times
    /// the memory of weights of whole blocks of channels, and twice that once a gradient was asked for.
    ///
    /// Errors: no blocks, shapes that don't follow each other, tensors that are not f32 on the CPU.
    pub fn new(
        input: [usize; 3],
        blocks: &[(Tensor, Tensor)],
        padding: impl Fn(usize) -> usize,
        arena: Arc<Arena>,
    ) -> Result<Self> {
        Self::on_path(Path::detect(), input, blocks, padding, arena)
    }

    pub(super) fn on_path(
        path: Path,
        input: [usize; 3],
        blocks: &[(Tensor, Tensor)],
        padding: impl Fn(usize) -> usize,
        arena: Arc<Arena>,
    ) -> Result<Self> {
        let mut layers: Vec<Layer> = vec![];
        for (n, (weight, affine)) in blocks.iter().enumerate() {
            let [channels, height, width] = match layers.last() {
                Some(layer) => {
                    let [height, width] = layer.geometry.pooled();
                    [layer.geometry.out, height, width]
                }
                None => input,
            };
            let geometry = Geometry::of(path, [1, channels, height, width], weight, affine, padding(n))?;
            let from =
                if n == 0 { Blocks::for_input(geometry.input_grid(), channels) } else { geometry.handed_blocks() };
            if weight.dtype() != DType::F32 || affine.dtype() != DType::F32 {
                bail!("conv_stack: block {n} is {:?} and {:?}, expected f32", weight.dtype(), affine.dtype());
            }
            let (weight, affine) = (weight.detach().contiguous()?, affine.contiguous()?);
            let (convolution, affine) = with_slices([&weight, &affine], |[weight, affine]| {
                Ok((geometry.convolution(from, weight, usize::MAX, false), geometry.affine_blocks(affine)))
            })?;
            let (first, gradient) = (n == 0, OnceLock::new());
            layers.push(Layer { geometry, from, affine, convolution, first, weight, gradient });
        }
        if layers.is_empty() {
            bail!("conv_stack: no blocks");
        }
        let group = layers.iter().map(|l| l.convolution.group()).max().unwrap_or(1);
        let split = layers.iter().position(|l| l.convolution.group() > 1).unwrap_or(layers.len());
        let of = |l: &Layer| {
            let g = l.geometry;
            [g.path as usize, g.inputs, g.out, g.input[0], g.input[1], g.padding]
        };
        let key = layers.iter().flat_map(of).collect();
        Ok(Self { layers, split, group, key, arena })
    }

    /// `x` `[batch, channels, height, width]` f32 on the CPU to `[batch, features]`, in the order of a flattened `[channels, height, width]`;
    /// differentiable for `x` if it is tracked. On the current rayon pool where `parallel`. A row's bits depend on nothing but the row.
    pub fn forward(self: &Arc<Self>, x: &Tensor, parallel: bool) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let g = self.layers[0].geometry;
        if [channels, height, width] != [g.inputs, g.input[0], g.input[1]] || x.dtype() != DType::F32 {
            let [h, w] = g.input;
            bail!("conv_stack: {:?} {:?}, expected f32 pictures of {}x{h}x{w}", x.dtype(), &x.dims()[1..], g.inputs);
        }
        if batch == 0 {
            return Tensor::zeros((0, self.feature_len()), DType::F32, &Device::Cpu);
        }
        let op = Frozen { stack: self.clone(), parallel, keep: x.track_op(), saved: Mutex::new(None) };
        if op.keep { x.contiguous()?.apply_op1(op) } else { x.contiguous()?.apply_op1_no_bwd(&op) }
    }

    /// Floats of packed weights.
    #[cfg(test)]
    pub(crate) fn packed_len(&self) -> usize {
        let gradient = |layer: &Layer| match layer.gradient.get() {
            Some(InputGradient::Transposed(convolution)) => convolution.packed_len(),
            Some(InputGradient::Columns(product)) => product.packed_len(),
            None => 0,
        };
        self.layers.iter().map(|layer| layer.convolution.packed_len() + gradient(layer)).sum()
    }

    fn last(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }

    fn feature_len(&self) -> usize {
        self.last().geometry.output_len()
    }

    fn saved_len(&self) -> usize {
        self.layers.iter().map(Layer::saved_len).sum()
    }

    /// Pictures of layer `n`'s input that a thread holds.
    fn held(&self, n: usize) -> usize {
        if n >= self.split { self.group } else { 1 }
    }

    /// Cuts rows into tasks: whole groups where there are many, and as many tasks as keep all threads busy to the end.
    fn tasks<'a, T>(&self, mut rows: &'a mut [T], parallel: bool) -> Vec<&'a mut [T]> {
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        let batch = rows.len();
        let count = batch.div_ceil(self.group).next_multiple_of(threads).clamp(1, batch.max(1));
        let mut tasks = Vec::with_capacity(count);
        for i in 0..count {
            let (task, rest) = rows.split_at_mut((i + 1) * batch / count - i * batch / count);
            tasks.push(task);
            rows = rest;
        }
        tasks
    }

    fn scratch(&self) -> Lent<'_, Scratch> {
        self.arena.object(&self.key, || self.new_scratch())
    }

    fn new_scratch(&self) -> Scratch {
        let most = |f: &dyn Fn(&Layer) -> usize| self.layers.iter().map(f).max().unwrap_or(0);
        let [height, width] = self.last().geometry.pooled();
        Scratch {
            grids: self.layers.iter().enumerate().map(|(n, l)| vec![0.0; self.held(n) * l.from.len()]).collect(),
            workspaces: self.layers.iter().map(|l| l.convolution.workspace()).collect(),
            conv: vec![0.0; most(&|l| l.geometry.conv_block_len())],
            stats: vec![0.0; most(&|l| l.out_blocks() * 2 * l.geometry.nr())],
            pooled: vec![0.0; height * width * self.last().geometry.nr()],
            backward: None,
        }
    }

    fn backward_scratch(&self) -> Result<Backward> {
        let nr = self.last().geometry.nr();
        let gradients = self.layers.iter().map(Layer::gradient).collect::<Result<Vec<_>>>()?;
        let workspace = |gradient: &&InputGradient| match gradient {
            InputGradient::Transposed(convolution) => convolution.workspace(),
            InputGradient::Columns(_) => Workspace::default(),
        };
        let g = self.layers[0].geometry;
        Ok(Backward {
            conv_grads: self.layers.iter().map(|l| vec![0.0; l.geometry.conv_grad().len()]).collect(),
            workspaces: gradients.iter().map(workspace).collect(),
            pooled_grads: self
                .layers
                .iter()
                .enumerate()
                .map(|(n, l)| {
                    let [height, width] = l.geometry.pooled();
                    let beyond = l.geometry.block_len([height, width]) - height * width * nr;
                    vec![0.0; self.held(n + 1) * (l.pooled_len() + beyond)]
                })
                .collect(),
            input_grad: vec![0.0; g.block_len(g.conv).max(g.block_len(g.input))],
            sums: vec![0.0; 2 * nr],
        })
    }

    /// Layers `from..to` forward for the pictures of a group. `saved[i]` is what picture `i` leaves.
    fn run_forward(&self, from: usize, to: usize, first: usize, rows: &mut [Row], s: &mut Scratch) {
        let Scratch { grids, workspaces, conv, stats, pooled, .. } = s;
        let mut at: usize = self.layers[..from].iter().map(Layer::saved_len).sum();
        for n in from..to {
            let layer = &self.layers[n];
            let (g, nr) = (layer.geometry, layer.geometry.nr());
            let workspace = &mut workspaces[n];
            let (grid, next) = {
                let (a, b) = grids.split_at_mut(n + 1);
                (&mut a[n], b.first_mut())
            };
            let grid_len = layer.from.len();
            let stats_len = layer.out_blocks() * 2 * nr;
            let mut next = next.map(|grids| (grids, self.layers[n + 1].from));
            for (group, rows) in rows.chunks_mut(layer.convolution.group()).enumerate() {
                let picture = |i: usize| first + group * layer.convolution.group() + i;
                for (i, row) in rows.iter().enumerate() {
                    let own = if self.held(n) > 1 { picture(i) } else { 0 };
                    let grid = &mut grid[own * grid_len..(own + 1) * grid_len];
                    if n == 0 {
                        layer.from.place(row.picture, grid);
                    }
                    layer.convolution.place(workspace, grid, i);
                }
                for block in 0..layer.out_blocks() {
                    layer.convolution.multiply(workspace, rows.len(), block);
                    for (i, row) in rows.iter_mut().enumerate() {
                        let own = if self.held(n) > 1 { picture(i) } else { 0 };
                        let (stats, conv) = match &mut row.saved {
                            Some(saved) => {
                                let (stats, convs) = saved[at..at + layer.saved_len()].split_at_mut(stats_len);
                                let conv_len = g.conv_block_len();
                                let conv = if g.recomputes() {
                                    &mut conv[..conv_len]
                                } else {
                                    &mut convs[block * conv_len..(block + 1) * conv_len]
                                };
                                (&mut stats[block * 2 * nr..(block + 1) * 2 * nr], conv)
                            }
                            None => (&mut stats[..2 * nr], &mut conv[..g.conv_block_len()]),
                        };
                        let affine = &layer.affine[block * 2 * nr..(block + 1) * 2 * nr];
                        layer.convolution.block(workspace, &grid[own * grid_len..(own + 1) * grid_len], i, block, conv);
                        match &mut next {
                            Some((grids, blocks)) => {
                                let own = if self.held(n + 1) > 1 { picture(i) } else { 0 };
                                let len = blocks.grid.len() * nr;
                                let to = &mut grids[own * blocks.len() + block * len..][..len];
                                let place = [blocks.grid.origin(), blocks.grid.row()];
                                norm_relu_pool(g.path, conv, g.conv, affine, stats, to, place);
                            }
                            None => {
                                let [ph, pw] = g.pooled();
                                norm_relu_pool(g.path, conv, g.conv, affine, stats, pooled, [0, pw]);
                                let planes = row.features.chunks_mut(nr * ph * pw).nth(block).unwrap_or_default();
                                block_to_planes(pooled, nr, ph * pw, planes);
                            }
                        }
                    }
                }
            }
            at += layer.saved_len();
        }
    }

    /// All layers forward for the rows of a task: one by one as far as `split`, then together.
    fn forward_rows(&self, rows: &mut [Row], s: &mut Scratch) {
        for i in 0..rows.len() {
            self.run_forward(0, self.split, i, &mut rows[i..=i], s);
        }
        self.run_forward(self.split, self.layers.len(), 0, rows, s);
    }

    /// The gradients for the pictures of a task.
    fn backward_rows(&self, rows: &mut [BackwardRow], s: &mut Scratch) -> Result<()> {
        let mut back = match s.backward.take() {
            Some(back) => back,
            None => self.backward_scratch()?,
        };
        self.run_backward(self.split, self.layers.len(), 0, rows, s, &mut back)?;
        for i in 0..rows.len() {
            self.run_backward(0, self.split, i, &mut rows[i..=i], s, &mut back)?;
        }
        s.backward = Some(back);
        Ok(())
    }

    /// Layers `from..to` backward for the pictures of a group.
    fn run_backward(
        &self,
        from: usize,
        to: usize,
        first: usize,
        rows: &mut [BackwardRow],
        s: &mut Scratch,
        back: &mut Backward,
    ) -> Result<()> {
        let Backward { conv_grads, workspaces, pooled_grads, input_grad, sums } = back;
        let mut end: usize = self.layers[..to].iter().map(Layer::saved_len).sum();
        for n in (from..to).rev() {
            let layer = &self.layers[n];
            let (g, nr) = (layer.geometry, layer.geometry.nr());
            let [ph, pw] = g.pooled();
            let at = end - layer.saved_len();
            let gradient = layer.gradient()?;
            let group = match gradient {
                InputGradient::Transposed(convolution) => convolution.group(),
                InputGradient::Columns(_) => 1,
            };
            let conv_grad = &mut conv_grads[n];
            let grad_grid = g.conv_grad().grid;
            let grad_len = grad_grid.len() * nr;
            let (below, own_grads) = {
                let (a, b) = pooled_grads.split_at_mut(n);
                (a.last_mut(), &mut b[0])
            };
            let own_len = own_grads.len() / self.held(n + 1);
            let mut below = below.map(|grads| {
                let len = grads.len() / self.held(n);
                (grads, len)
            });
            for (number, rows) in rows.chunks_mut(group).enumerate() {
                let picture = |i: usize| first + number * group + i;
                for (i, row) in rows.iter_mut().enumerate() {
                    let own = if self.held(n + 1) > 1 { picture(i) } else { 0 };
                    let pooled_grad = &mut own_grads[own * own_len..(own + 1) * own_len];
                    if n + 1 == self.layers.len() {
                        for (block, planes) in row.grad.chunks(nr * ph * pw).enumerate() {
                            let to = &mut pooled_grad[block * nr * ph * pw..(block + 1) * nr * ph * pw];
                            planes_to_block(planes, nr, ph * pw, to);
                        }
                    }
                    let (stats, convs) = row.saved[at..end].split_at(layer.out_blocks() * 2 * nr);
                    if g.recomputes() {
                        layer.from.place(row.picture, &mut s.grids[n]);
                        layer.convolution.place(&mut s.workspaces[n], &s.grids[n], 0);
                    }
                    for block in 0..layer.out_blocks() {
                        let two = block * 2 * nr..(block + 1) * 2 * nr;
                        let conv_len = g.conv_block_len();
                        let conv = if g.recomputes() {
                            layer.convolution.multiply(&mut s.workspaces[n], 1, block);
                            let conv = &mut s.conv[..conv_len];
                            layer.convolution.block(&s.workspaces[n], &s.grids[n], 0, block, conv);
                            conv
                        } else {
                            &convs[block * conv_len..(block + 1) * conv_len]
                        };
                        norm_relu_pool_backward(
                            g.path,
                            conv,
                            g.conv,
                            &layer.affine[two.clone()],
                            &stats[two],
                            &pooled_grad[block * nr * ph * pw..(block + 1) * nr * ph * pw],
                            sums,
                            &mut conv_grad[block * grad_len..(block + 1) * grad_len],
                            [grad_grid.origin(), grad_grid.row()],
                        );
                    }
                    match gradient {
                        InputGradient::Transposed(convolution) => {
                            convolution.place(&mut workspaces[n], conv_grad, i);
                        }
                        InputGradient::Columns(product) => {
                            let block = &mut input_grad[..g.conv_block_len()];
                            InputGradient::add_columns(g, product, conv_grad, block, row.input);
                        }
                    }
                }
                let InputGradient::Transposed(convolution) = gradient else { continue };
                let plane = g.input[0] * g.input[1];
                for block in 0..g.inputs.div_ceil(nr) {
                    convolution.multiply(&mut workspaces[n], rows.len(), block);
                    for (i, row) in rows.iter_mut().enumerate() {
                        match &mut below {
                            Some((grads, len)) => {
                                let own = if self.held(n) > 1 { picture(i) } else { 0 };
                                // A direct product writes whole tiles, beyond the last pixel: into the next block, which comes later.
                                let to = &mut grads[own * *len..(own + 1) * *len][block * plane * nr..];
                                let to = &mut to[..g.block_len(g.input)];
                                convolution.block(&workspaces[n], conv_grad, i, block, to);
                            }
                            None => {
                                let block_grad = &mut input_grad[..g.block_len(g.input)];
                                convolution.block(&workspaces[n], conv_grad, i, block, block_grad);
                                let planes = row.input.chunks_mut(nr * plane).nth(block).unwrap_or_default();
                                block_to_planes(block_grad, nr, plane, planes);
                            }
                        }
                    }
                }
            }
            end = at;
        }
        Ok(())
    }
}

/// One call of a stack.
struct Frozen {
    stack: Arc<ConvStack>,
    parallel: bool,
    /// Whether a gradient will be asked for.
    keep: bool,
    /// Each row's share, borrowed from the arena.
    saved: Mutex<Option<Vec<f32>>>,
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "conv-stack"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let stack = &self.stack;
        let x = contiguous(x, layout)?;
        let (input_len, feature_len) = (stack.layers[0].geometry.input_len(), stack.feature_len());
        let batch = x.len() / input_len;
        let mut features = vec![0.0; batch * feature_len];
        let saved_len = stack.saved_len();
        let mut saved = self.keep.then(|| stack.arena.buffer(batch * saved_len));
        let mut saved_rows = saved.as_mut().map(|s| s.chunks_exact_mut(saved_len));
        let mut rows: Vec<Row> = x
            .chunks_exact(input_len)
            .zip(features.chunks_exact_mut(feature_len))
            .map(|(picture, features)| Row { picture, features, saved: saved_rows.as_mut().and_then(Iterator::next) })
            .collect();
        let tasks = stack.tasks(&mut rows, self.parallel);
        for_each(self.parallel, tasks, || stack.scratch(), |scratch, rows| stack.forward_rows(rows, scratch));
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok((CpuStorage::F32(features), Shape::from((batch, feature_len))))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let stack = &self.stack;
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = saved.as_ref() else { bail!("conv_stack: backward without forward") };
        // Packed here, so that a failure is seen before the rows.
        stack.layers.iter().try_for_each(|layer| layer.gradient().map(drop))?;
        let grad = grad.contiguous()?;
        let input = with_slices([x, &grad], |[x, grad]| {
            let (input_len, feature_len) = (stack.layers[0].geometry.input_len(), stack.feature_len());
            let mut input = vec![0.0; x.len()];
            let mut rows: Vec<BackwardRow> = x
                .chunks_exact(input_len)
                .zip(grad.chunks_exact(feature_len))
                .zip(saved.chunks_exact(stack.saved_len()))
                .zip(input.chunks_exact_mut(input_len))
                .map(|(((picture, grad), saved), input)| BackwardRow { picture, grad, saved, input })
                .collect();
            let tasks = stack.tasks(&mut rows, self.parallel);
            let failure = Mutex::new(None);
            for_each(
                self.parallel,
                tasks,
                || stack.scratch(),
                |scratch, rows| {
                    if let Err(e) = stack.backward_rows(rows, scratch) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    }
                },
            );
            match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(e) => Err(e),
                None => Ok(input),
            }
        })?;
        Ok(Some(Tensor::from_vec(input, x.shape(), &Device::Cpu)?))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(saved) = self.saved.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            self.stack.arena.give_back(saved);
        }
    }
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
