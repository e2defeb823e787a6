//! Characteristic functions, amplitude and phase apart (NCFM, Wang et al., CVPR 2025, equations 5 and 6).

use std::sync::OnceLock;

use candle_core::{D, Device, Tensor};

use crate::error::Result;
use crate::kernels::{Frequencies, characteristic};
use crate::objective::{Groups, Objective, of_member};
use crate::options::Options;
use crate::sketch::projection;
use crate::sketch::{Header, NORM_EPSILON, Sketches};

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
    frequencies: Vec<OnceLock<Frequencies>>,
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

    fn frequencies(&self, member: usize, device: &Device) -> candle_core::Result<&Frequencies> {
        let slot = of_member(&self.frequencies, member)?;
        if let Some(frequencies) = slot.get() {
            return Ok(frequencies);
        }
        let drawn = projection::draw(&self.header, member, device).map_err(candle_core::Error::wrap)?;
        Ok(slot.get_or_init(|| drawn))
    }
}

fn amplitude(real: &Tensor, imaginary: &Tensor) -> candle_core::Result<Tensor> {
    ((real.sqr()? + imaginary.sqr()?)? + ROOT_EPSILON)?.sqrt()
}

impl Objective for Characteristic {
    fn name(&self) -> &'static str {
        "characteristic"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, _labels: &Tensor) -> candle_core::Result<Tensor> {
        let target = of_member(&self.targets, member)?;
        let frequencies = self.frequencies(member, features.device())?;
        let norm = (features.sqr()?.sum_keepdim(D::Minus1)? + NORM_EPSILON)?.sqrt()?;
        let (real, imaginary) = characteristic(&features.broadcast_div(&norm)?, frequencies, groups)?;
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

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::kernels::characteristic_reference;
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
        let frequencies = frequencies(20, 150);
        let norm = real.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
        let (real, imaginary) =
            characteristic(&real.broadcast_div(&norm).unwrap(), &frequencies, &Groups::new(&[7; 3])).unwrap();
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
            let (re, im) =
                characteristic_reference(&rows.broadcast_div(&norm).unwrap(), &t, &Groups::new(&sizes)).unwrap();
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
            let loss =
                objective(&real_rows(), alpha, beta).loss(0, &synthetic, &Groups::new(&sizes), &synthetic).unwrap();
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
            let loss = objective.loss(0, var.as_tensor(), &groups, &real).unwrap();
            let gradients = loss.backward().unwrap();
            let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()) && loss.to_scalar::<f32>().unwrap().is_finite());
        }
        assert!(objective.loss(0, &real, &groups, &real).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
    }
}
