//! Characteristic functions, amplitude and phase apart (NCFM, Wang et al., CVPR 2025, equations 5 and 6).

use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;
use crate::objective::{Groups, Objective, of_member};
use crate::options::Options;
use crate::sketch::projection::{Frequencies, blocks};
use crate::sketch::{Header, NORM_EPSILON, Sketches, sincos};

/// Inside the square roots of amplitudes and of the distance: their gradients stay finite at 0.
const ROOT_EPSILON: f64 = 1e-12;

/// Mean over frequencies and classes of the characteristic-function discrepancy.
///
/// The empirical characteristic function of the rows `x` of a class at frequency t is `P(t) = mean_x exp(i <t, f(x)>)`, with `f(x)`
/// the L2-normalised features. With `P_r` of the real and `P_s` of the synthetic rows, and a = `alpha`, b = `beta`,
///
/// `L = mean_{c,t} sqrt( a (|P_r| - |P_s|)^2 + 2 b (|P_r| |P_s| - Re P_r Re P_s - Im P_r Im P_s) )`:
///
/// the first term compares amplitudes (diversity), the second phases (typical content). As `|P_r - P_s|^2` is
/// `(|P_r| - |P_s|)^2 + 2 (|P_r| |P_s| - Re Re - Im Im)`, it is computed as `sqrt((a - b)(|P_r| - |P_s|)^2 + b |P_r - P_s|^2)`, which doesn't
/// lose small distances to cancellation.
#[derive(Debug)]
pub struct Characteristic {
    header: Header,
    alpha: f64,
    beta: f64,
    targets: Vec<Target>,
    /// Drawn when an extractor is first used.
    frequencies: Vec<OnceLock<Arc<Frequencies>>>,
}

/// The real rows' characteristic functions for one extractor, `[classes, frequencies]` each.
#[derive(Debug)]
struct Target {
    real: Tensor,
    imaginary: Tensor,
    amplitude: Tensor,
}

impl Characteristic {
    /// Targets and frequencies from `sketches`; `alpha` and `beta` from `options`.
    pub fn new(sketches: &Sketches, options: &Options, device: &Device) -> Result<Self> {
        let (classes, members) = (sketches.classes.len(), sketches.header.recipe.extractors);
        let target = |member: usize| -> Result<Target> {
            let (mut real, mut imaginary) = (vec![], vec![]);
            for sketch in sketches.classes.values() {
                let (re, im) = sketch.characteristic(member);
                real.extend(re);
                imaginary.extend(im);
            }
            let shape = (classes, sketches.header.frequencies);
            let real = Tensor::from_vec(real, shape, device)?;
            let imaginary = Tensor::from_vec(imaginary, shape, device)?;
            let amplitude = amplitude(&real, &imaginary)?;
            Ok(Target { real, imaginary, amplitude })
        };
        Ok(Self {
            header: sketches.header.clone(),
            alpha: options.alpha,
            beta: options.beta,
            targets: (0..members).map(target).collect::<Result<_>>()?,
            frequencies: (0..members).map(|_| OnceLock::new()).collect(),
        })
    }

    fn frequencies(&self, member: usize, device: &Device) -> candle_core::Result<&Arc<Frequencies>> {
        let slot = of_member(&self.frequencies, member)?;
        if let Some(frequencies) = slot.get() {
            return Ok(frequencies);
        }
        let drawn = Frequencies::draw(&self.header, member, device).map_err(candle_core::Error::wrap)?;
        Ok(slot.get_or_init(|| Arc::new(drawn)))
    }
}

fn amplitude(real: &Tensor, imaginary: &Tensor) -> candle_core::Result<Tensor> {
    ((real.sqr()? + imaginary.sqr()?)? + ROOT_EPSILON)?.sqrt()
}

impl Objective for Characteristic {
    fn name(&self) -> &'static str {
        "characteristic"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups) -> candle_core::Result<Tensor> {
        let target = of_member(&self.targets, member)?;
        let frequencies = self.frequencies(member, features.device())?;
        let norm = (features.sqr()?.sum_keepdim(D::Minus1)? + NORM_EPSILON)?.sqrt()?;
        let (real, imaginary) = empirical(&features.broadcast_div(&norm)?, groups, frequencies)?;
        let apart = ((&real - &target.real)?.sqr()? + (&imaginary - &target.imaginary)?.sqr()?)?;
        let mut squared = (apart * self.beta)?;
        if self.alpha != self.beta {
            let amplitudes = (amplitude(&real, &imaginary)? - &target.amplitude)?.sqr()?;
            // Never negative but for rounding.
            squared = (squared + (amplitudes * (self.alpha - self.beta))?)?.relu()?;
        }
        (squared + ROOT_EPSILON)?.sqrt()?.mean_all()
    }
}

/// The empirical characteristic function of each class, `(real, imaginary)` `[classes, frequencies]` each, of normalised features
/// `[groups.rows(), feature_len]`.
fn empirical(
    features: &Tensor,
    groups: &Groups,
    frequencies: &Arc<Frequencies>,
) -> candle_core::Result<(Tensor, Tensor)> {
    let (rows, feature_len) = features.dims2()?;
    if (rows, feature_len) != (groups.rows(), frequencies.feature_len) {
        let (expected, sketched) = (groups.rows(), frequencies.feature_len);
        bail!(
            "{rows} features of length {feature_len}; the classes have {expected} rows, the sketch's length is {sketched}"
        );
    }
    if let Some(tensor) = frequencies.on_device() {
        return empirical_reference(features, groups, tensor);
    }
    let keep = features.track_op().then(|| Mutex::new(vec![]));
    let operation = Empirical { frequencies: frequencies.clone(), groups: groups.clone(), keep };
    let both = features.contiguous()?.apply_op1(operation)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// [`empirical`] in plain candle operations: the reference, and the path of GPUs.
fn empirical_reference(
    features: &Tensor,
    groups: &Groups,
    frequencies: &Tensor,
) -> candle_core::Result<(Tensor, Tensor)> {
    let angles = features.matmul(frequencies)?;
    Ok((groups.mean(&angles.cos()?)?, groups.mean(&angles.sin()?)?))
}

/// Projection, cosine, sine and their means over each class in one operation: `[rows, feature_len]` to `[2, classes, frequencies]`.
///
/// Beside candle's own operations it saves the gradient of the frequencies, which nobody asks for, and libm's cosines.
struct Empirical {
    frequencies: Arc<Frequencies>,
    groups: Groups,
    /// The angles of each block of frequencies, for the backward pass.
    keep: Option<Mutex<Vec<Vec<f32>>>>,
}

impl CustomOp1 for Empirical {
    fn name(&self) -> &'static str {
        "empirical characteristic function"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the features must be contiguous") };
        let features = &storage.as_slice::<f32>()?[start..end];
        let (count, classes) = (self.frequencies.count, self.groups.classes());
        // Blocks in parallel: each has its own angles, and its own columns of the means.
        let done: Vec<(Vec<f32>, Vec<f32>, Vec<f32>)> = blocks(count)
            .into_par_iter()
            .map(|block| {
                let width = block.len();
                let angles = self.frequencies.angles(features, block);
                let (mut cos, mut sin) = (vec![0.0; width], vec![0.0; width]);
                let mut means = [vec![0.0; classes * width], vec![0.0; classes * width]];
                for (row, angles) in angles.chunks(width).enumerate() {
                    sincos::fill(angles, &mut cos, &mut sin);
                    let class = self.groups.class_of(row);
                    let (at, size) = (class * width, self.groups.range(class).len() as f32);
                    for (means, values) in means.iter_mut().zip([&cos, &sin]) {
                        means[at..at + width].iter_mut().zip(values).for_each(|(m, v)| *m += v / size);
                    }
                }
                let [real, imaginary] = means;
                (angles, real, imaginary)
            })
            .collect();
        let mut out = vec![0.0; 2 * classes * count];
        let (real, imaginary) = out.split_at_mut(classes * count);
        for (block, (_, re, im)) in blocks(count).into_iter().zip(&done) {
            for class in 0..classes {
                let from = class * block.len()..(class + 1) * block.len();
                let to = class * count + block.start..class * count + block.end;
                real[to.clone()].copy_from_slice(&re[from.clone()]);
                imaginary[to].copy_from_slice(&im[from]);
            }
        }
        if let Some(keep) = &self.keep {
            let mut keep = keep.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?;
            *keep = done.into_iter().map(|(angles, ..)| angles).collect();
        }
        Ok((CpuStorage::F32(out), (2, classes, count).into()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(keep) = &self.keep else { bail!("the angles were not kept") };
        let kept = keep.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?;
        let grad: Vec<f32> = grad.flatten_all()?.to_vec1()?;
        let (rows, count, feature_len) = (self.groups.rows(), self.frequencies.count, self.frequencies.feature_len);
        // d cos(a) = -sin(a) da, d sin(a) = cos(a) da.
        let (by_real, by_imaginary) = grad.split_at(self.groups.classes() * count);
        let mut angles = vec![0.0; rows * count];
        angles.par_chunks_mut(count).enumerate().for_each(|(row, to)| {
            let class = self.groups.class_of(row);
            let (at, size) = (class * count, self.groups.range(class).len() as f32);
            for (block, kept) in blocks(count).into_iter().zip(kept.iter()) {
                let width = block.len();
                let (mut cos, mut sin) = (vec![0.0; width], vec![0.0; width]);
                sincos::fill(&kept[row * width..(row + 1) * width], &mut cos, &mut sin);
                for (i, j) in block.enumerate() {
                    to[j] = (cos[i] * by_imaginary[at + j] - sin[i] * by_real[at + j]) / size;
                }
            }
        });
        let columns: Vec<Vec<f32>> =
            blocks(feature_len).into_par_iter().map(|block| self.frequencies.angles_backward(&angles, block)).collect();
        let mut out = vec![0.0; rows * feature_len];
        for (block, columns) in blocks(feature_len).into_iter().zip(columns) {
            for (to, from) in out.chunks_mut(feature_len).zip(columns.chunks(block.len())) {
                to[block.clone()].copy_from_slice(from);
            }
        }
        Ok(Some(Tensor::from_vec(out, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::objective::gradient_check;
    use crate::random;
    use crate::sketch::projection::tests::frequencies;

    /// Six rows of three classes, as many of each and not.
    const SIZES: [[usize; 3]; 2] = [[2, 2, 2], [1, 3, 2]];
    const DIMS: (usize, usize) = (6, 20);

    fn values(purpose: &str, n: usize) -> Vec<f32> {
        random::normal(&mut random::stream(9, purpose), n)
    }

    /// An objective whose targets are the characteristic functions of `real` `[21, 20]`, seven rows a class.
    fn objective(real: &Tensor, alpha: f64, beta: f64) -> Characteristic {
        let frequencies = Arc::new(frequencies(20, 150));
        let norm = real.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
        let (real, imaginary) =
            empirical(&real.broadcast_div(&norm).unwrap(), &Groups::new(&[7; 3]), &frequencies).unwrap();
        let target = Target { amplitude: amplitude(&real, &imaginary).unwrap(), real, imaginary };
        let header = crate::sketch::Header { frequencies: 150, ..crate::sketch::test_header() };
        Characteristic { header, alpha, beta, targets: vec![target], frequencies: vec![OnceLock::from(frequencies)] }
    }

    fn real_rows() -> Tensor {
        Tensor::from_vec(values("real", 21 * 20), (21, 20), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_loss_is_amplitude_and_phase_as_published() {
        let synthetic = Tensor::from_vec(values("synthetic", 120), DIMS, &Device::Cpu).unwrap();
        let cf = |rows: &Tensor, sizes: [usize; 3]| -> Vec<(f64, f64)> {
            let norm = rows.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
            let t = frequencies(20, 150).tensor(&Device::Cpu).unwrap();
            let (re, im) = empirical_reference(&rows.broadcast_div(&norm).unwrap(), &Groups::new(&sizes), &t).unwrap();
            let list = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            list(re).into_iter().zip(list(im)).map(|(a, b)| (f64::from(a), f64::from(b))).collect()
        };
        for (alpha, beta, sizes) in [
            (0.5, 0.5, SIZES[0]),
            (0.5, 0.5, SIZES[1]),
            (0.9, 0.1, SIZES[1]),
            (0.0, 1.0, SIZES[0]),
            (1.0, 0.0, SIZES[0]),
        ] {
            let expected: f64 = cf(&real_rows(), [7; 3])
                .iter()
                .zip(cf(&synthetic, sizes))
                .map(|((ar, ai), (br, bi))| {
                    let (a, b) = (ar.hypot(*ai), br.hypot(bi));
                    (alpha * (a - b).powi(2) + 2.0 * beta * (a * b - ar * br - ai * bi)).max(0.0).sqrt()
                })
                .sum::<f64>()
                / 450.0;
            let loss = objective(&real_rows(), alpha, beta).loss(0, &synthetic, &Groups::new(&sizes)).unwrap();
            let loss = loss.to_scalar::<f32>().unwrap();
            assert!((f64::from(loss) - expected).abs() < 1e-5, "{alpha} {beta}: {loss} {expected}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        for (alpha, beta, sizes) in [(0.5, 0.5, SIZES[0]), (0.8, 0.2, SIZES[0]), (0.5, 0.5, SIZES[1])] {
            let objective = objective(&real_rows(), alpha, beta);
            gradient_check::check(&objective, &values("synthetic", 120), &Groups::new(&sizes), 2e-2);
        }
    }

    #[test]
    fn at_the_target_and_at_zero_features_loss_and_gradient_are_finite() {
        let real = real_rows();
        let (objective, groups) = (objective(&real, 0.7, 0.3), Groups::new(&[7; 3]));
        for start in [real.clone(), real.zeros_like().unwrap()] {
            let var = Var::from_tensor(&start).unwrap();
            let loss = objective.loss(0, var.as_tensor(), &groups).unwrap();
            let gradients = loss.backward().unwrap();
            let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()) && loss.to_scalar::<f32>().unwrap().is_finite());
        }
        assert!(objective.loss(0, &real, &groups).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn the_operation_and_its_plain_twin_agree_forward_and_backward() {
        let frequencies = Arc::new(frequencies(20, 150));
        let plain = frequencies.tensor(&Device::Cpu).unwrap();
        let weights = Tensor::from_vec(values("weights", 450), (3, 150), &Device::Cpu).unwrap();
        let run = |fused: bool, groups: &Groups| -> (Vec<f32>, Vec<f32>) {
            let var = Var::from_vec(values("synthetic", 120), DIMS, &Device::Cpu).unwrap();
            let (re, im) = if fused {
                empirical(var.as_tensor(), groups, &frequencies).unwrap()
            } else {
                empirical_reference(var.as_tensor(), groups, &plain).unwrap()
            };
            let sum = ((re * &weights).unwrap() + (im * &weights).unwrap().sqr().unwrap()).unwrap();
            let gradients = sum.sum_all().unwrap().backward().unwrap();
            let list = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (list(&sum), list(gradients.get(&var).unwrap()))
        };
        for groups in SIZES.map(|sizes| Groups::new(&sizes)) {
            let ((a, ga), (b, gb)) = (run(true, &groups), run(false, &groups));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
            assert!(ga.iter().zip(&gb).all(|(a, b)| (a - b).abs() < 1e-3), "{ga:?} {gb:?}");
        }
    }
}
