//! Pictures flow in; convolved, instance-normalised, rectified and pooled pictures flow out.
//!
//! On a CPU a few pictures go through at a time, block of channels by block of channels: the convolution writes a block `[pixel][NR]` that stays
//! in the cache while it is normalised, rectified and pooled. Nothing is unfolded (im2col): the taps of a kernel are addresses on a padded grid,
//! or, with enough channels, tiles are multiplied in Winograd's domain.

mod backward;
mod convolution;
mod forward;
mod on_device;
pub(super) mod product;
mod stack;
pub(super) mod tiles;
mod trained;
mod winograd;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};

use crate::kernels::arena::{Arena, Key};
use crate::kernels::simd::Path;
use backward::Gradients;
use convolution::Convolution;
use forward::Saved;
use product::{Blocks, Grid};
pub use stack::ConvStack;
pub use trained::conv_blocks;

/// Added to the variance of instance norm.
const EPSILON: f64 = 1e-5;

/// Most parts of a batch whose weights' gradients are summed apart, and rows of a part at least, where there are more than one.
const PARTS: usize = 16;
const PART_ROWS: usize = 8;

/// Which gradients the caller will ask for: what isn't wanted isn't computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The gradient for the pictures.
    pub input: bool,
    /// The gradient for weights and affine parameters.
    pub weights: bool,
    /// Run rows in parallel on the current rayon pool (`false`: the caller is parallel already).
    pub parallel: bool,
}

/// One ConvNet block: conv3x3 (stride 1, `padding`), instance norm (eps 1e-5) with affine, ReLU, 2x2 average pool (odd rest dropped).
///
/// `x` `[batch, in, height, width]`, `weight` `[out, in, 3, 3]`, `affine` `[2, out]` (scale, then shift); gives `[batch, out, h/2, w/2]`
/// with `h = height + 2 * padding - 2`. Each row's result is independent of the batch, its position and the thread count; the weights'
/// gradient sums over rows in an order that the batch alone fixes. Gradients that `wants` leaves out are neither prepared nor computed. The ReLU's gradient at 0 is 0.
///
/// Scratch memory comes from `arena`. Wrong shapes and types other than f32 are errors. On a device other than the CPU
/// candle's own operations run, and bits may depend on the batch.
pub fn conv_block(
    x: &Tensor,
    weight: &Tensor,
    affine: &Tensor,
    padding: usize,
    wants: Wants,
    arena: &Arc<Arena>,
) -> Result<Tensor> {
    on_path(Path::detect(), x, weight, affine, padding, wants, arena)
}

fn on_path(
    path: Path,
    x: &Tensor,
    weight: &Tensor,
    affine: &Tensor,
    padding: usize,
    wants: Wants,
    arena: &Arc<Arena>,
) -> Result<Tensor> {
    let geometry = Geometry::check(path, x, weight, affine, padding)?;
    if let Some(t) = [x, weight, affine].into_iter().find(|t| t.dtype() != DType::F32) {
        bail!("conv_block: {:?} tensor, expected f32", t.dtype());
    }
    if !matches!(x.device(), Device::Cpu) {
        return on_device::conv_block(geometry, wants, x, weight, affine);
    }
    let (x, weight, affine) = (x.contiguous()?, weight.contiguous()?, affine.contiguous()?);
    let op = ConvBlock::alone(geometry, wants, arena);
    if wants.input || wants.weights {
        x.apply_op3(&weight, &affine, op)
    } else {
        x.apply_op3_no_bwd(&weight, &affine, &op)
    }
}

/// [`conv_block`] in plain candle operations, gradients too: the reference.
#[allow(clippy::disallowed_methods)] // avg_pool2d is right on the even planes that it gets here
pub fn conv_block_reference(x: &Tensor, weight: &Tensor, affine: &Tensor, padding: usize) -> Result<Tensor> {
    let g = Geometry::check(Path::detect(), x, weight, affine, padding)?;
    let y = x.contiguous()?.conv2d(&weight.contiguous()?, padding, 1, 1, 1)?;
    let centred = y.broadcast_sub(&y.mean_keepdim((2, 3))?)?;
    let deviation = (centred.sqr()?.mean_keepdim((2, 3))? + EPSILON)?.sqrt()?;
    let of_affine = |i: usize| affine.get(i)?.reshape((1, g.out, 1, 1));
    let z = centred.broadcast_div(&deviation)?.broadcast_mul(&of_affine(0)?)?.broadcast_add(&of_affine(1)?)?;
    // Narrow first: candle's avg_pool2d gives the dropped row and column of odd planes a gradient.
    let [ph, pw] = g.pooled();
    z.relu()?.narrow(2, 0, 2 * ph)?.narrow(3, 0, 2 * pw)?.contiguous()?.avg_pool2d(2)
}

/// The sizes of one call, and the path that it takes.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    path: Path,
    batch: usize,
    inputs: usize,
    out: usize,
    /// Height and width of the input.
    input: [usize; 2],
    /// Height and width of the convolution's result.
    conv: [usize; 2],
    padding: usize,
}

impl Geometry {
    fn check(path: Path, x: &Tensor, weight: &Tensor, affine: &Tensor, padding: usize) -> Result<Self> {
        let (batch, inputs, height, width) = x.dims4()?;
        Self::of(path, [batch, inputs, height, width], weight, affine, padding)
    }

    /// For pictures `x`, `[batch, in, height, width]`.
    fn of(path: Path, x: [usize; 4], weight: &Tensor, affine: &Tensor, padding: usize) -> Result<Self> {
        let [batch, inputs, height, width] = x;
        let (out, of, kh, kw) = weight.dims4()?;
        if [of, kh, kw] != [inputs, 3, 3] || inputs == 0 || out == 0 {
            bail!("conv_block: weight is {:?}, expected [out, {inputs}, 3, 3] for pictures {:?}", weight.dims(), x);
        }
        if affine.dims() != [2, out] {
            bail!("conv_block: affine is {:?}, expected [2, {out}]", affine.dims());
        }
        if height.min(width) + 2 * padding < 4 || height.min(width) == 0 {
            bail!("conv_block: a {height}x{width} picture padded by {padding} leaves less than 2x2 pixels to pool");
        }
        let conv = [height + 2 * padding - 2, width + 2 * padding - 2];
        Ok(Self { path, batch, inputs, out, input: [height, width], conv, padding })
    }

    fn pooled(self) -> [usize; 2] {
        self.conv.map(|n| n / 2)
    }

    /// Floats of one input picture.
    fn input_len(self) -> usize {
        self.inputs * self.input[0] * self.input[1]
    }

    /// Floats of one result.
    fn output_len(self) -> usize {
        self.out * self.pooled()[0] * self.pooled()[1]
    }

    /// The input with its padding.
    fn input_grid(self) -> Grid {
        Grid { inner: self.input, margin: self.padding }
    }

    /// What scratch memory depends on: the sizes, and `more`.
    fn key(self, more: &[usize]) -> Key {
        let [height, width] = self.input;
        let sizes = [self.path as usize, self.inputs, self.out, height, width, self.padding];
        sizes.iter().chain(more).copied().collect()
    }

    /// Whether the convolution is cheaper to do again on the way back than to keep: with few input channels.
    fn recomputes(self) -> bool {
        self.inputs <= 4
    }

    /// Channels of a block.
    fn nr(self) -> usize {
        self.path.tile().1
    }

    /// How the input of a convolution lies that a block before has written.
    fn handed_blocks(self) -> Blocks {
        Blocks { grid: self.input_grid(), channels: self.inputs, block: self.nr() }
    }

    /// Parts of the batch whose rows' shares of the weights' gradient are summed one after the other. They depend on the batch alone, so that the sums don't depend
    /// on the threads that take the parts.
    fn parts(self) -> usize {
        (self.batch / PART_ROWS).clamp(1, PARTS)
    }

    /// Taps of a kernel of all input channels, in whole register tiles.
    fn padded_taps(self) -> usize {
        (9 * self.inputs).next_multiple_of(self.path.tile().0)
    }

    /// Blocks of output channels.
    fn out_blocks(self) -> usize {
        self.out.div_ceil(self.nr())
    }

    /// Floats of one block of the convolution's result, pixels in whole register tiles.
    fn conv_block_len(self) -> usize {
        self.block_len(self.conv)
    }

    /// Floats of one block of so many pixels, in whole register tiles.
    fn block_len(self, [height, width]: [usize; 2]) -> usize {
        let (mr, nr) = self.path.tile();
        (height * width).next_multiple_of(mr) * nr
    }

    /// How the convolution's gradient lies: blocks of output channels, with a margin for the taps that reach over the edge; none where the
    /// padding was wider than the kernel.
    fn conv_grad(self) -> Blocks {
        let grid = Grid { inner: self.conv, margin: 2usize.saturating_sub(self.padding) };
        Blocks { grid, channels: self.out, block: self.nr() }
    }

    /// Scale and shift in blocks, `[out / NR][2][NR]`.
    fn affine_blocks(self, affine: &[f32]) -> Vec<f32> {
        let nr = self.nr();
        let mut blocks = vec![0.0; self.out_blocks() * 2 * nr];
        for (kind, values) in affine.chunks_exact(self.out).enumerate() {
            for (o, value) in values.iter().enumerate() {
                blocks[(o / nr * 2 + kind) * nr + o % nr] = *value;
            }
        }
        blocks
    }

    /// The convolution of a padded input that lies like `from`, with groups of at most `most` pictures; packed on the current
    /// rayon pool where `parallel`.
    fn convolution(self, from: Blocks, weight: &[f32], most: usize, parallel: bool) -> Convolution {
        let by = |o: usize, i: usize, tap: usize| weight[(o * self.inputs + i) * 9 + tap];
        Convolution::new(self.path, from, 0, self.conv, self.out, most, parallel, by)
    }
}

struct ConvBlock {
    geometry: Geometry,
    wants: Wants,
    arena: Arc<Arena>,
    saved: Mutex<Option<Saved>>,
    /// Whether pictures come from a block before, on padded grids in blocks of NR channels, and their gradient goes back to it, `[in / NR][pixel][NR]`; else both are planes.
    from_block: bool,
    /// How the next block's input lies: results are written there, and their gradient comes back as `[out / NR][pixel][NR]`; `None`: both are planes.
    next: Option<Blocks>,
}

impl ConvBlock {
    /// From planes to planes.
    fn alone(geometry: Geometry, wants: Wants, arena: &Arc<Arena>) -> Self {
        Self { geometry, wants, arena: arena.clone(), saved: Mutex::new(None), from_block: false, next: None }
    }

    /// How the convolution's input lies.
    fn from(&self) -> Blocks {
        let g = self.geometry;
        if self.from_block { g.handed_blocks() } else { Blocks::for_input(g.input_grid(), g.inputs) }
    }

    /// Floats of a picture as it comes here.
    fn picture_len(&self) -> usize {
        if self.from_block { self.from().len() } else { self.geometry.input_len() }
    }

    /// Floats of a picture's gradient as it goes back.
    fn picture_grad_len(&self) -> usize {
        let g = self.geometry;
        if self.from_block { g.inputs.div_ceil(g.nr()) * g.block_len(g.input) } else { g.input_len() }
    }

    /// Floats of a result as it goes on.
    fn result_len(&self) -> usize {
        self.next.map_or(self.geometry.output_len(), Blocks::len)
    }

    /// Floats of a result's gradient as it comes back.
    fn result_grad_len(&self) -> usize {
        let g = self.geometry;
        if self.next.is_some() { g.out_blocks() * g.block_len(g.pooled()) } else { g.output_len() }
    }
}

impl CustomOp3 for ConvBlock {
    fn name(&self) -> &'static str {
        "conv-block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(x, x_layout)?;
        let mut out = vec![0.0; self.geometry.batch * self.geometry.output_len()];
        let (weight, affine) = (contiguous(weight, weight_layout)?, contiguous(affine, affine_layout)?);
        let saved = self.forward(x, weight, affine, &mut out);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        let [ph, pw] = self.geometry.pooled();
        Ok((CpuStorage::F32(out), Shape::from((self.geometry.batch, self.geometry.out, ph, pw))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        affine: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = saved.as_ref() else { bail!("conv_block: backward without forward") };
        let grad = grad.contiguous()?;
        let zeros = |wanted: bool, like: &Tensor| vec![0.0; if wanted { like.elem_count() } else { 0 }];
        let Wants { input, weights, .. } = self.wants;
        let (mut by_x, mut by_weight, mut by_affine) =
            (zeros(input, x), zeros(weights, weight), zeros(weights, affine));
        with_slices([x, weight, affine, &grad], |[x, weight, affine, grad]| {
            let into = Gradients {
                input: input.then_some(&mut by_x),
                weights: weights.then_some((&mut by_weight, &mut by_affine)),
            };
            self.backward([x, weight, affine], saved, grad, into);
            Ok(())
        })?;
        let tensor = |wanted: bool, values: Vec<f32>, like: &Tensor| {
            wanted.then(|| Tensor::from_vec(values, like.shape(), &Device::Cpu)).transpose()
        };
        Ok((tensor(input, by_x, x)?, tensor(weights, by_weight, weight)?, tensor(weights, by_affine, affine)?))
    }
}

impl Drop for ConvBlock {
    fn drop(&mut self) {
        if let Some(saved) = self.saved.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            saved.free(&self.arena);
        }
    }
}

/// The values of a contiguous f32 storage.
pub(super) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("conv_block: not contiguous") };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Calls `f` with the values of contiguous f32 tensors on the CPU.
pub(super) fn with_slices<const N: usize, T>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> Result<T>,
) -> Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices = [&[] as &[f32]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { bail!("conv_block: not on the CPU") };
        *slice = contiguous(storage, layout)?;
    }
    f(slices)
}

/// Calls `f` on each item, with one scratch for each thread: on the current rayon pool or here, with the same results.
pub(super) fn for_each<T: Send, S>(
    parallel: bool,
    items: Vec<T>,
    scratch: impl Fn() -> S + Send + Sync,
    f: impl Fn(&mut S, T) + Send + Sync,
) {
    use rayon::prelude::*;
    if parallel && items.len() > 1 && rayon::current_num_threads() > 1 {
        items.into_par_iter().for_each_init(scratch, f);
    } else {
        let mut scratch = scratch();
        items.into_iter().for_each(|item| f(&mut scratch, item));
    }
}
