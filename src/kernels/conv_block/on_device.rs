//! What [`conv_block`](super::conv_block) does, for devices other than the CPU: pictures flow in, pooled pictures flow out, by a dozen of candle's operations and as many back.
//!
//! Left to itself, candle goes back through twice as many operations, computes gradients that nobody wants, and those of the pictures by a transposed convolution, which has
//! no fast kernel there: a convolution with the kernels flipped has.

use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail};

use super::{Geometry, Wants};

/// The block `g`: `x` `[batch, in, height, width]`, `weight` `[out, in, 3, 3]` and `affine` `[2, out]` to `[batch, out, h/2, w/2]`, differentiable as `wants` says.
pub(super) fn conv_block(g: Geometry, wants: Wants, x: &Tensor, weight: &Tensor, affine: &Tensor) -> Result<Tensor> {
    // candle's backward pass takes it for granted that what leads to a variable gets a gradient.
    let wanted = |t: &Tensor, wanted: bool| if wanted { t.clone() } else { t.detach() };
    let x = wanted(x, wants.input);
    let (weight, affine) = (wanted(weight, wants.weights), wanted(affine, wants.weights));
    let convolved = x.detach().contiguous()?.conv2d(&weight.detach().contiguous()?, g.padding, 1, 1, 1)?;
    // One row for each channel of each picture.
    let planes = convolved.reshape((g.batch * g.out, g.conv[0] * g.conv[1]))?;
    let centred = planes.broadcast_sub(&planes.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + super::EPSILON)?.sqrt()?;
    let normal = centred.broadcast_div(&deviation)?;
    let [scale, shift] = rows_of_affine(g, &affine.detach())?;
    let scaled = normal.broadcast_mul(&scale)?.broadcast_add(&shift)?;
    let pooled = pool(g, &scaled.relu()?)?;
    if !(wants.input || wants.weights) {
        return Ok(pooled);
    }
    let positive = scaled.gt(0f64)?.to_dtype(scaled.dtype())?;
    x.apply_op3(&weight, &affine, Block { g, wants, pooled, normal, deviation, positive })
}

/// The scale and the shift of each plane, `[batch * out, 1]` each.
fn rows_of_affine(g: Geometry, affine: &Tensor) -> Result<[Tensor; 2]> {
    let of = |i: usize| affine.get(i)?.reshape((1, g.out))?.repeat((g.batch, 1))?.reshape((g.batch * g.out, 1));
    Ok([of(0)?, of(1)?])
}

/// Planes `[batch * out, height * width]` to `[batch, out, height / 2, width / 2]`.
fn pool(g: Geometry, planes: &Tensor) -> Result<Tensor> {
    let [ph, pw] = g.pooled();
    let pictures = planes.reshape((g.batch, g.out, g.conv[0], g.conv[1]))?;
    let even = pictures.narrow(2, 0, 2 * ph)?.narrow(3, 0, 2 * pw)?.contiguous()?;
    even.avg_pool2d(2)
}

/// One call whose result is known, and what its backward pass needs.
struct Block {
    g: Geometry,
    wants: Wants,
    /// The result.
    pooled: Tensor,
    /// Normalised planes, `[batch * out, height * width]`.
    normal: Tensor,
    /// Of each plane, `[batch * out, 1]`.
    deviation: Tensor,
    /// 1 where the rectifier lets through, else 0; as `normal`.
    positive: Tensor,
}

impl Block {
    /// The gradient for the convolution's result and, if wanted, for the affine parameters.
    fn back_to_convolution(&self, affine: &Tensor, gradient: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let g = self.g;
        let ([ph, pw], [height, width]) = (g.pooled(), g.conv);
        let each = (gradient.contiguous()? * 0.25)?.upsample_nearest2d(2 * ph, 2 * pw)?;
        let each = each.pad_with_zeros(2, 0, height - 2 * ph)?.pad_with_zeros(3, 0, width - 2 * pw)?;
        let passed = (each.reshape((g.batch * g.out, height * width))? * &self.positive)?;
        let along = (&passed * &self.normal)?.sum_keepdim(1)?;
        let total = passed.sum_keepdim(1)?;
        let affine_gradient = self.wants.weights.then(|| {
            let over_pictures = |rows: &Tensor| rows.reshape((g.batch, g.out))?.sum_keepdim(0);
            Tensor::cat(&[over_pictures(&along)?, over_pictures(&total)?], 0)
        });
        // Instance norm: what moves a plane's mean or deviation is taken out.
        let share = 1.0 / (height * width) as f64;
        let moved = passed.broadcast_sub(&(total * share)?)?.sub(&self.normal.broadcast_mul(&(along * share)?)?)?;
        let [scale, _] = rows_of_affine(g, affine)?;
        let convolved = moved.broadcast_mul(&scale.div(&self.deviation)?)?;
        Ok((convolved.reshape((g.batch, g.out, height, width))?, affine_gradient.transpose()?))
    }

    /// The gradient for the pictures: each pixel's is a convolution of the result's gradient with the kernels flipped.
    fn back_to_input(&self, weight: &Tensor, convolved: &Tensor) -> Result<Tensor> {
        let flipped = weight.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?;
        let padding = self.g.padding;
        let (around, cut) = (2usize.saturating_sub(padding), padding.saturating_sub(2));
        let [height, width] = self.g.conv;
        let inner = convolved.narrow(2, cut, height - 2 * cut)?.narrow(3, cut, width - 2 * cut)?.contiguous()?;
        inner.conv2d(&flipped, around, 1, 1, 1)
    }

    /// The gradient for the kernels: for each pair of channels, of the input and of the result, the correlation of all pictures' planes.
    fn back_to_weight(&self, x: &Tensor, convolved: &Tensor) -> Result<Tensor> {
        let of_channels = |t: &Tensor| t.transpose(0, 1)?.contiguous();
        of_channels(x)?.conv2d(&of_channels(convolved)?, self.g.padding, 1, 1, 1)?.transpose(0, 1)?.contiguous()
    }
}

/// The forward pass `$name` on a device with `$storage`: the result is known.
macro_rules! known {
    ($name:ident, $kind:ident($storage:ident)) => {
        fn $name(
            &self,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
        ) -> Result<($storage, Shape)> {
            let (storage, layout) = self.pooled.storage_and_layout();
            match storage.try_clone(layout)? {
                Storage::$kind(storage) => Ok((storage, self.pooled.shape().clone())),
                _ => bail!("conv_block: the tensors are on different devices"),
            }
        }
    };
}

impl CustomOp3 for Block {
    fn name(&self) -> &'static str {
        "conv_block"
    }

    known!(cpu_fwd, Cpu(CpuStorage));
    known!(cuda_fwd, Cuda(CudaStorage));
    known!(metal_fwd, Metal(MetalStorage));

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        affine: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (convolved, of_affine) = self.back_to_convolution(&affine.detach(), gradient)?;
        let of_input = self.wants.input.then(|| self.back_to_input(&weight.detach(), &convolved));
        let of_weight = self.wants.weights.then(|| self.back_to_weight(&x.detach(), &convolved));
        Ok((of_input.transpose()?, of_weight.transpose()?, of_affine))
    }
}
