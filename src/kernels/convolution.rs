//! Pictures flow in, channels last; their convolution flows out: one matrix product for the unfolded pixels of a few pictures at a time.

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::conv_block::{contiguous, with_slices};

/// Floats that pictures are unfolded to at a time, or one picture's: enough for a product, few enough to be soon read again.
const UNFOLDED: usize = 1 << 22;

/// `x` `[batch, height, width, in]` convolved with `weight` `[out, k, k, in]`, k odd, padded by `(k - 1) / 2` zeros, without a bias; gives
/// `[batch, ceil(height / stride), ceil(width / stride), out]`. Differentiable in both.
///
/// The same bits for any number of threads; a row's may depend on the batch. What is unfolded is not kept for the way back but unfolded again.
/// Runs on the current rayon pool. Wrong shapes and types other than f32 are errors; on a device other than the CPU candle's own convolution runs.
pub fn convolution(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
    let geometry = Geometry::check(x, weight, stride)?;
    if !matches!(x.device(), Device::Cpu) {
        return convolution_reference(x, weight, stride);
    }
    x.contiguous()?.apply_op2(&weight.contiguous()?, Convolution(geometry))
}

/// [`convolution`] in plain candle operations, gradients too: the reference.
pub fn convolution_reference(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
    let geometry = Geometry::check(x, weight, stride)?;
    let (kernel, padding) = (geometry.kernel, geometry.kernel / 2);
    let mut x = x.clone();
    for (side, output) in [1, 2].into_iter().zip(geometry.output) {
        // Padded here, and less what no step reaches: candle's gradient takes for granted that as much is left over in height as in width.
        x = x.pad_with_zeros(side, padding, padding)?.narrow(side, 0, (output - 1) * stride + kernel)?;
    }
    let channels_first = |t: &Tensor| t.permute((0, 3, 1, 2))?.contiguous();
    let y = channels_first(&x)?.conv2d(&channels_first(weight)?, 0, stride, 1, 1)?;
    y.permute((0, 2, 3, 1))?.contiguous()
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: usize,
    /// Height and width of the pictures.
    input: [usize; 2],
    /// Height and width of the result.
    output: [usize; 2],
    channels: usize,
    out: usize,
    kernel: usize,
    stride: usize,
}

impl Geometry {
    fn check(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Self> {
        let (batch, height, width, channels) = x.dims4()?;
        let (out, kernel, across, of) = weight.dims4()?;
        if [across, of] != [kernel, channels] || kernel % 2 == 0 || out == 0 {
            let x = x.dims();
            bail!(
                "convolution: weight is {:?}, expected [out, k, k, {channels}], k odd, for pictures {x:?}",
                weight.dims()
            );
        }
        if stride * height * width * channels == 0 {
            bail!("convolution: pictures {:?} in steps of {stride}, expected at least 1 of each", x.dims());
        }
        if [x, weight].iter().any(|t| t.dtype() != DType::F32) {
            bail!("convolution: {:?} pictures and {:?} weights, expected f32", x.dtype(), weight.dtype());
        }
        let output = [height, width].map(|side| side.div_ceil(stride));
        Ok(Self { batch, input: [height, width], output, channels, out, kernel, stride })
    }

    /// Floats of one picture.
    fn picture(self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Pixels of one result.
    fn pixels(self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Numbers that one pixel of the result is made of.
    fn taps(self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Pictures that are unfolded at a time: by their size alone, so that the order of all sums is.
    fn group(self) -> usize {
        (UNFOLDED / (self.pixels() * self.taps())).max(1)
    }

    /// Calls `f` with each run of numbers that lie side by side both unfolded and in the picture: where it begins there, where here, its length.
    fn runs(self, mut f: impl FnMut(usize, usize, usize)) {
        let ([height, width], padding) = (self.input, self.kernel / 2);
        // The taps of a line that are inside, for a kernel that begins at `start - padding`.
        let inside = |start: usize, side: usize| {
            padding.saturating_sub(start)..self.kernel.min((side + padding).saturating_sub(start))
        };
        for y in 0..self.output[0] {
            for x in 0..self.output[1] {
                let (top, left) = (y * self.stride, x * self.stride);
                let columns = inside(left, width);
                for row in inside(top, height) {
                    let pixel = (y * self.output[1] + x) * self.taps();
                    let unfolded = pixel + (row * self.kernel + columns.start) * self.channels;
                    let here = ((top + row - padding) * width + left + columns.start - padding) * self.channels;
                    f(unfolded, here, columns.len() * self.channels);
                }
            }
        }
    }

    /// `pictures` `[n, height, width, in]` to `[n * pixels, taps]`.
    fn unfold(self, pictures: &[f32]) -> Result<Tensor> {
        let (picture, unfolded) = (self.picture(), self.pixels() * self.taps());
        let count = pictures.len() / picture;
        let mut all = vec![0f32; count * unfolded];
        all.par_chunks_exact_mut(unfolded).zip(pictures.par_chunks_exact(picture)).for_each(|(to, from)| {
            self.runs(|there, here, n| to[there..there + n].copy_from_slice(&from[here..here + n]));
        });
        Tensor::from_vec(all, (count * self.pixels(), self.taps()), &Device::Cpu)
    }

    /// Adds `unfolded` `[n * pixels, taps]` to where it came from in `pictures` `[n, height, width, in]`.
    fn fold(self, unfolded: &[f32], pictures: &mut [f32]) {
        let from = unfolded.par_chunks_exact(self.pixels() * self.taps());
        pictures.par_chunks_exact_mut(self.picture()).zip(from).for_each(|(to, from)| {
            self.runs(|there, here, n| {
                to[here..here + n].iter_mut().zip(&from[there..there + n]).for_each(|(to, v)| *to += v);
            });
        });
    }
}

struct Convolution(Geometry);

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = self.0;
        let (x, weight) = (contiguous(x, x_layout)?, contiguous(weight, weight_layout)?);
        let weight = Tensor::from_slice(weight, (g.out, g.taps()), &Device::Cpu)?.t()?;
        let mut out = Vec::with_capacity(g.batch * g.pixels() * g.out);
        for pictures in x.chunks(g.group() * g.picture()) {
            let y = g.unfold(pictures)?.matmul(&weight)?;
            with_slices([&y], |[y]| {
                out.extend_from_slice(y);
                Ok(())
            })?;
        }
        let [height, width] = g.output;
        Ok((CpuStorage::F32(out), (g.batch, height, width, g.out).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = self.0;
        let flat = weight.detach().reshape((g.out, g.taps()))?;
        let grad = grad.reshape((g.batch * g.pixels(), g.out))?;
        let mut by_x = vec![0f32; x.elem_count()];
        let mut by_weight: Option<Tensor> = None;
        with_slices([x], |[x]| {
            let group = g.group() * g.picture();
            let mut done = 0;
            for (pictures, by_pictures) in x.chunks(group).zip(by_x.chunks_mut(group)) {
                let pixels = pictures.len() / g.picture() * g.pixels();
                let grad = grad.narrow(0, done, pixels)?;
                let of_group = grad.t()?.matmul(&g.unfold(pictures)?)?;
                by_weight = Some(match by_weight.take() {
                    Some(sum) => (sum + of_group)?,
                    None => of_group,
                });
                with_slices([&grad.matmul(&flat)?], |[unfolded]| {
                    g.fold(unfolded, by_pictures);
                    Ok(())
                })?;
                done += pixels;
            }
            Ok(())
        })?;
        let by_x = Tensor::from_vec(by_x, x.shape(), &Device::Cpu)?;
        Ok((Some(by_x), by_weight.map(|sum| sum.reshape(weight.shape())).transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::random::{normal, stream};

    fn var(purpose: &str, shape: [usize; 4]) -> Var {
        Var::from_vec(normal(&mut stream(1, purpose), shape.iter().product()), &shape, &Device::Cpu).unwrap()
    }

    fn list(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The result and both gradients of a loss that tells all pixels apart.
    fn all(f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>, x: &Var, weight: &Var) -> [Vec<f32>; 3] {
        let y = f(x, weight).unwrap();
        let by_y = var("gradient", y.dims4().unwrap().into());
        let loss = (&y * by_y.as_tensor()).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        [list(&y), list(gradients.get(x).unwrap()), list(gradients.get(weight).unwrap())]
    }

    #[test]
    fn result_and_gradients_are_those_of_candle_for_odd_and_even_sides_kernels_and_strides() {
        for (input, kernel, stride) in
            [([7, 6], 3, 1), ([7, 6], 3, 2), ([4, 5], 1, 2), ([2, 1], 3, 1), ([5, 5], 5, 2), ([1, 1], 3, 2)]
        {
            let (x, weight) = (var("x", [3, input[0], input[1], 4]), var("weight", [5, kernel, kernel, 4]));
            let found = all(|x, w| convolution(x, w, stride), &x, &weight);
            let expected = all(|x, w| convolution_reference(x, w, stride), &x, &weight);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len());
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4 * (1.0 + b.abs());
                assert!(found.iter().zip(expected).all(near), "{input:?} {kernel} {stride}");
            }
            assert!(found.iter().all(|values| values.iter().any(|v| *v != 0.0)));
        }
    }

    #[test]
    fn pictures_of_several_groups_are_put_together_and_threads_change_no_bit() {
        // A group has 9 of them.
        let (x, weight) = (var("x", [20, 28, 28, 64]), var("weight", [2, 3, 3, 64]));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all(|x, w| convolution(x, w, 1), &x, &weight))
        };
        let one = on(1);
        assert_eq!(one, on(3));
        let last = convolution(&x.narrow(0, 19, 1).unwrap(), &weight, 1).unwrap();
        let found = &one[0][one[0].len() - 28 * 28 * 2..];
        assert!(found.iter().zip(list(&last)).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_shape() {
        let x = var("x", [1, 4, 4, 3]);
        let error =
            |weight: [usize; 4], stride| convolution(&x, &var("weight", weight), stride).unwrap_err().to_string();
        assert!(error([2, 3, 3, 4], 1).contains("[2, 3, 3, 4], expected [out, k, k, 3]"));
        assert!(error([2, 2, 2, 3], 1).contains("k odd"));
        assert!(error([2, 3, 3, 3], 0).contains("steps of 0"));
    }
}
