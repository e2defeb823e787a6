//! Pictures flow in, channels last; pictures whose every channel has mean 0 and deviation 1, then scaled and shifted, flow out.

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::conv_block::{contiguous, with_slices};

/// Added to the variance, as PyTorch does.
const EPSILON: f32 = 1e-5;

/// Instance norm: of `x` `[batch, height, width, channels]` each picture's each channel by its own mean and deviation (of n, plus 1e-5 in the
/// variance), with `affine` `[2, channels]`, scale, then shift. PyTorch's `GroupNorm(channels, channels)`. Differentiable in both.
///
/// The same bits for any number of threads, and a row's for any batch. Runs on the current rayon pool. Wrong shapes and types other than f32 are
/// errors; on a device other than the CPU candle's own operations run.
pub fn instance_norm(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    normalised(x, affine, false)
}

/// [`instance_norm`], then ReLU, in one: less memory goes through the processor. The ReLU's gradient at 0 is 0.
pub fn instance_norm_relu(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    normalised(x, affine, true)
}

fn normalised(x: &Tensor, affine: &Tensor, rectified: bool) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    if affine.dims() != [2, channels] || height * width * channels == 0 {
        bail!("instance norm: affine is {:?}, expected [2, {channels}] for pictures {:?}", affine.dims(), x.dims());
    }
    if [x, affine].iter().any(|t| t.dtype() != DType::F32) {
        bail!("instance norm: {:?} pictures and {:?} affine, expected f32", x.dtype(), affine.dtype());
    }
    if !matches!(x.device(), Device::Cpu) {
        let y = instance_norm_reference(x, affine)?;
        return if rectified { y.relu() } else { Ok(y) };
    }
    let op = InstanceNorm { channels, picture: height * width * channels, rectified };
    x.contiguous()?.apply_op2(&affine.contiguous()?, op)
}

/// [`instance_norm`] in plain candle operations, gradients too: the reference.
pub fn instance_norm_reference(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let flat = x.reshape((batch, height * width, channels))?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + f64::from(EPSILON))?.sqrt()?;
    let of_affine = |i: usize| affine.get(i)?.reshape((1, 1, channels));
    let normal = centred.broadcast_div(&deviation)?;
    normal.broadcast_mul(&of_affine(0)?)?.broadcast_add(&of_affine(1)?)?.reshape(x.shape())
}

struct InstanceNorm {
    channels: usize,
    /// Floats of a picture.
    picture: usize,
    /// Whether negative results become 0.
    rectified: bool,
}

impl InstanceNorm {
    /// Mean and 1 / deviation of each channel of `picture` `[pixels, channels]`.
    fn moments(&self, picture: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let share = self.channels as f32 / self.picture as f32;
        let mut mean = vec![0f32; self.channels];
        for pixel in picture.chunks_exact(self.channels) {
            mean.iter_mut().zip(pixel).for_each(|(m, v)| *m += v);
        }
        mean.iter_mut().for_each(|m| *m *= share);
        let mut inverse = vec![0f32; self.channels];
        for pixel in picture.chunks_exact(self.channels) {
            inverse.iter_mut().zip(&mean).zip(pixel).for_each(|((sum, m), v)| *sum += (v - m) * (v - m));
        }
        inverse.iter_mut().for_each(|sum| *sum = 1.0 / (*sum * share + EPSILON).sqrt());
        (mean, inverse)
    }

    fn forward(&self, picture: &[f32], affine: &[f32], out: &mut [f32]) {
        let (mean, mut slope) = self.moments(picture);
        let (scale, shift) = affine.split_at(self.channels);
        slope.iter_mut().zip(scale).for_each(|(slope, scale)| *slope *= scale);
        // A NaN stays one.
        let rectify = |v: f32| if self.rectified && v < 0.0 { 0.0 } else { v };
        for (out, pixel) in out.chunks_exact_mut(self.channels).zip(picture.chunks_exact(self.channels)) {
            let of_channel = mean.iter().zip(&slope).zip(shift);
            out.iter_mut()
                .zip(pixel)
                .zip(of_channel)
                .for_each(|((out, v), ((m, k), s))| *out = rectify((v - m) * k + s));
        }
    }

    /// With g the gradient for the result, z the normalised picture, d its deviation and E the mean over pixels: the gradient for the picture is
    /// `scale / d (g - E g - z E (g z))` (Ioffe and Szegedy 2015, section 3), for scale and shift the sums of `g z` and of `g`.
    fn backward(&self, picture: &[f32], affine: &[f32], grad: &[f32], by_picture: &mut [f32], by_affine: &mut [f32]) {
        let n = self.channels;
        let (mean, inverse) = self.moments(picture);
        let (by_scale, by_shift) = by_affine.split_at_mut(n);
        for (pixel, grad) in picture.chunks_exact(n).zip(grad.chunks_exact(n)) {
            by_shift.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g);
            let normal = pixel.iter().zip(&mean).zip(&inverse).map(|((v, m), i)| (v - m) * i);
            by_scale.iter_mut().zip(grad).zip(normal).for_each(|((sum, g), z)| *sum += g * z);
        }
        // g - E g - z E (g z), with z = (v - m) / d, is g - a - (v - m) b.
        let share = n as f32 / self.picture as f32;
        let a: Vec<f32> = by_shift.iter().map(|sum| sum * share).collect();
        let b: Vec<f32> = by_scale.iter().zip(&inverse).map(|(sum, i)| sum * share * i).collect();
        let slope: Vec<f32> = inverse.iter().zip(affine).map(|(i, scale)| i * scale).collect();
        let pixels = picture.chunks_exact(n).zip(grad.chunks_exact(n));
        for (to, (pixel, grad)) in by_picture.chunks_exact_mut(n).zip(pixels) {
            let of_channel = mean.iter().zip(&slope).zip(a.iter().zip(&b));
            let to = to.iter_mut().zip(pixel.iter().zip(grad));
            to.zip(of_channel).for_each(|((to, (v, g)), ((m, k), (a, b)))| *to = k * (g - a - (v - m) * b));
        }
    }
}

impl CustomOp2 for InstanceNorm {
    fn name(&self) -> &'static str {
        "instance norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, affine) = (contiguous(x, x_layout)?, contiguous(affine, affine_layout)?);
        let mut out = vec![0f32; x.len()];
        let pictures = out.par_chunks_exact_mut(self.picture).zip(x.par_chunks_exact(self.picture));
        pictures.for_each(|(out, picture)| self.forward(picture, affine, out));
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut by_x = vec![0f32; x.elem_count()];
        // Each picture's own, added up in the order of the pictures.
        let mut parts = vec![0f32; x.dim(0)? * 2 * self.channels];
        with_slices([x, affine, res, &grad], |[x, affine, res, grad]| {
            let grad = res.par_chunks_exact(self.picture).zip(grad.par_chunks_exact(self.picture));
            let from = x.par_chunks_exact(self.picture).zip(grad);
            let into = by_x.par_chunks_exact_mut(self.picture).zip(parts.par_chunks_exact_mut(2 * self.channels));
            from.zip(into).for_each(|((x, (res, grad)), (by_x, part))| {
                if self.rectified {
                    let kept = res.iter().zip(grad).map(|(r, g)| if *r == 0.0 { 0.0 } else { *g });
                    self.backward(x, affine, &kept.collect::<Vec<_>>(), by_x, part);
                } else {
                    self.backward(x, affine, grad, by_x, part);
                }
            });
            Ok(())
        })?;
        let mut by_affine = vec![0f32; 2 * self.channels];
        for part in parts.chunks_exact(2 * self.channels) {
            by_affine.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
        }
        let by_affine = Tensor::from_vec(by_affine, affine.shape(), &Device::Cpu)?;
        Ok((Some(Tensor::from_vec(by_x, x.shape(), &Device::Cpu)?), Some(by_affine)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::random::{normal, stream};

    fn var(purpose: &str, shape: &[usize]) -> Var {
        Var::from_vec(normal(&mut stream(1, purpose), shape.iter().product()), shape, &Device::Cpu).unwrap()
    }

    fn list(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn all(f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>, x: &Var, affine: &Var) -> [Vec<f32>; 3] {
        let y = f(x, affine).unwrap();
        let loss = (&y * var("gradient", y.dims()).as_tensor()).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        [list(&y), list(gradients.get(x).unwrap()), list(gradients.get(affine).unwrap())]
    }

    #[test]
    fn result_and_gradients_are_those_of_candle_and_threads_change_no_bit() {
        for shape in [[3, 5, 4, 7], [2, 1, 2, 1], [4, 3, 3, 16]] {
            let (x, affine) = (var("x", &shape), var("affine", &[2, shape[3]]));
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| [all(instance_norm, &x, &affine), all(instance_norm_relu, &x, &affine)])
            };
            let rectified = |x: &Tensor, affine: &Tensor| instance_norm_reference(x, affine)?.relu();
            let expected = [all(instance_norm_reference, &x, &affine), all(rectified, &x, &affine)];
            let found = on(1);
            assert_eq!(found, on(3));
            assert!(found[1][0].contains(&0.0));
            for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
                assert_eq!(found.len(), expected.len());
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3 * (1.0 + b.abs());
                assert!(found.iter().zip(expected).all(near), "{shape:?}: {found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn every_channel_of_a_picture_has_the_mean_and_the_deviation_that_it_is_given() {
        let x = (var("x", &[2, 4, 4, 2]).as_tensor() * 9.0).unwrap();
        let affine = Tensor::new(&[[2f32, 3.0], [-1.0, 5.0]], &Device::Cpu).unwrap();
        let y = list(&instance_norm(&x, &affine).unwrap());
        for picture in y.chunks(32) {
            for (channel, (deviation, mean)) in [(2.0, -1.0), (3.0, 5.0)].into_iter().enumerate() {
                let values: Vec<f64> = picture.iter().skip(channel).step_by(2).map(|v| f64::from(*v)).collect();
                let found = values.iter().sum::<f64>() / 16.0;
                let spread = (values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / 16.0).sqrt();
                assert!((found - mean).abs() < 1e-4 && (spread - deviation).abs() < 1e-4, "{found} {spread}");
            }
        }
    }

    #[test]
    fn an_affine_of_another_size_is_refused() {
        let e = instance_norm(&var("x", &[1, 2, 2, 3]), &var("affine", &[2, 4])).unwrap_err().to_string();
        assert!(e.contains("[2, 4], expected [2, 3]"), "{e}");
    }
}
