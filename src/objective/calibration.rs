//! The cross-entropy of the synthetic rows under a classifier that is fitted to all real ones (the calibration of NCFM, Wang et al., CVPR 2025, section 3), from
//! streamed second moments.

use candle_core::{D, DType, Device, Tensor};

use crate::error::Result;
use crate::objective::second_moments::{self, SecondMoments};
use crate::objective::{Groups, Objective, of_member};
use crate::sketch::{Header, Sketches};

/// Most that the real rows' logit of their own class is above that of another on average: beyond it no row has a gradient.
const MOST_MARGIN: f64 = 10.0;

/// Mean cross-entropy of the synthetic rows' labels under a ridge regression of all real rows.
///
/// NCFM takes a trained network for it; the sketch has none, but it has what a linear readout of an extractor's features is fitted with. With `f` the features, `y` the labels,
/// one-hot less 1 / classes, and the means over all real rows `G = E[f f^T]` and `C = E[f y^T]`, the readout is `W = (G + r mean(diag G) I)^-1 C`, r a thousandth. What is then left on average,
/// `b = E[y] - W^T E[f]`, is added. (With a one among the features the matrix needn't be positive definite: G is of rounded and clipped features, their means aren't.)
///
/// Its outputs `z = W^T f + b` estimate the shares of the classes, less 1 / classes: as logits they would tell next to nothing. They are multiplied by the number that makes log odds of
/// them if, in each class, outputs are normal around its mean with the same spread (linear discriminant analysis; Hastie, Tibshirani and Friedman, *The Elements of Statistical
/// Learning*, equation 4.9): the log odds of two classes are the difference of their outputs times the distance of its two means over its variance. On average over all pairs of classes,
/// with `m_c` the mean output of the rows of class c and `V` the variance inside classes, that is
///
/// `s = sum_c m_c[c] / tr V`, with `tr V = E |z|^2 - sum_c share_c |m_c|^2`,
///
/// but no more than gives a row's own class ten more than another on average. So a row that lies as real rows of its class do has the loss that these have, whatever the extractor.
///
/// `L = mean_c mean_{x in S_c} -sum_k p_k log softmax(s z(x))_k`, p the labels, hard or soft: what an optimizer left below 0 is 0, and a row's shares are 1 in all. They
/// don't learn from it: the loss is linear in them, and the best label would be the classifier's own, alone.
#[derive(Debug)]
pub struct Calibration {
    /// One an extractor.
    readouts: Vec<Readout>,
}

/// The classifier on one extractor's features.
#[derive(Debug)]
struct Readout {
    /// `s W`, `[feature_len, classes]`.
    weights: Tensor,
    /// `s b`, `[1, classes]`.
    bias: Tensor,
}

impl Calibration {
    /// Classifiers from `sketches`, which have second moments of the rows that they count.
    pub fn new(sketches: &Sketches, device: &Device) -> Result<Self> {
        second_moments::check(sketches, "the term 'calibration'", "leave it out of terms")?;
        let readout = |member| Ok(Readout::new(&SecondMoments::new(sketches, member, &Device::Cpu)?, device)?);
        Ok(Self { readouts: (0..sketches.header.recipe.extractors).map(readout).collect::<Result<_>>()? })
    }

    /// Bytes of memory that it takes for sketches with `header`, of `classes` classes: the classifiers, and what one of them is made in.
    pub fn bytes_of(header: &Header, classes: usize) -> usize {
        let side = header.moments.as_ref().map_or(0, |moments| moments.dim + 1);
        // In float64, the matrix, with the ridge, and its decomposition.
        let making = 3 * side * side * size_of::<f64>() + SecondMoments::bytes_of(header, classes);
        header.recipe.extractors * (header.recipe.feature_len() + 1) * classes * size_of::<f32>() + making
    }
}

impl Readout {
    fn new(moments: &SecondMoments, device: &Device) -> candle_core::Result<Self> {
        let SecondMoments { second, cross, projection } = moments;
        let d = cross.dim(0)? - 1;
        let weights = moments.ridge_of_features(&cross.narrow(0, 0, d)?)?;
        let (second, cross) = (second.to_dtype(DType::F64)?, cross.to_dtype(DType::F64)?);
        let mean = second.narrow(0, d, 1)?.narrow(1, 0, d)?;
        let bias = (cross.narrow(0, d, 1)? - mean.contiguous()?.matmul(&weights)?)?;
        let readout = Tensor::cat(&[&weights, &bias], 0)?;
        let scaled = (&readout * scale(&second, &cross, &readout)?)?.to_dtype(DType::F32)?;
        let (weights, bias) = (scaled.narrow(0, 0, d)?.contiguous()?, scaled.narrow(0, d, 1)?.contiguous()?);
        let weights = match projection {
            Some(projection) => projection.matmul(&weights)?,
            None => weights,
        };
        Ok(Self { weights: weights.to_device(device)?, bias: bias.to_device(device)? })
    }

    /// `[rows, classes]`.
    fn logits(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        features.matmul(&self.weights)?.broadcast_add(&self.bias)
    }
}

/// What the outputs of `readout` are multiplied by to be logits, see [`Calibration`]; 0 where they don't tell the classes apart.
fn scale(second: &Tensor, cross: &Tensor, readout: &Tensor) -> candle_core::Result<f64> {
    let (side, classes) = cross.dims2()?;
    // Of each class, the mean over all rows of its rows' features and ones: what `cross` is but for the mean of all, which is the last column of `second`.
    let all = second.narrow(1, side - 1, 1)?;
    let by_class = cross.broadcast_add(&(all / classes as f64)?)?;
    let shares = by_class.get(side - 1)?.to_vec1::<f64>()?;
    let sums = by_class.t()?.contiguous()?.matmul(readout)?.to_vec2::<f64>()?;
    let (mut own, mut between) = (0.0, 0.0);
    for (class, (sums, share)) in sums.iter().zip(shares).enumerate().filter(|(_, (_, share))| *share > 0.0) {
        own += sums[class] / share;
        between += sums.iter().map(|sum| sum * sum).sum::<f64>() / share;
    }
    let whole = (second.matmul(readout)? * readout)?.sum_all()?.to_scalar::<f64>()?;
    let (within, most) = (whole - between, MOST_MARGIN * (classes.max(2) - 1) as f64 / own);
    Ok(match own > 0.0 && own.is_finite() {
        true if within > 0.0 => (own / within).min(most),
        true => most,
        false => 0.0,
    })
}

/// Labels `[rows, classes]`, shares less 1 / classes of any size, as shares: none below 0, 1 in all.
fn shares(labels: &Tensor) -> candle_core::Result<Tensor> {
    let classes = labels.dim(1)?.max(1) as f64;
    let shares = (labels.detach() + 1.0 / classes)?.relu()?;
    let sum = shares.sum_keepdim(1)?.maximum(f64::from(f32::MIN_POSITIVE))?;
    shares.broadcast_div(&sum)
}

impl Objective for Calibration {
    fn name(&self) -> &'static str {
        "calibration"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> candle_core::Result<Tensor> {
        let logits = of_member(&self.readouts, member)?.logits(features)?;
        let largest = logits.detach().max_keepdim(D::Minus1)?;
        let all = logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?.log()?.add(&largest)?;
        let right = (shares(labels)? * logits)?.sum_keepdim(D::Minus1)?;
        groups.mean(&(all - right)?)?.mean_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::Pool;
    use crate::kernels::Wants;
    use crate::objective::second_moments::tests::{COUNTS, WIDTH, options, sketched};
    use crate::objective::{RIDGE, gradient_check, one_hot};
    use crate::options::Moments;
    use crate::random;
    use crate::rows::{Label, Rows};
    use crate::sketch::moment_projection;

    fn real_features(rows: &Rows, pool: &Pool, member: usize) -> Tensor {
        let wants = Wants { input: false, weights: false, parallel: false };
        pool.features(member, &pool.scale(&rows.values).unwrap(), wants).unwrap()
    }

    fn value(calibration: &Calibration, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> f64 {
        f64::from(calibration.loss(member, features, groups, labels).unwrap().to_scalar::<f32>().unwrap())
    }

    /// The loss as its definition has it, in float64, with the classifier fitted to and scaled by each real row.
    fn by_rows(real: &[Vec<f64>], own: &[usize], synthetic: &[Vec<f64>], labels: &[[f64; 2]]) -> f64 {
        let side = real[0].len();
        let n = real.len() as f64;
        let mut matrix = vec![vec![0.0; side + 2]; side];
        for (f, own) in real.iter().zip(own) {
            for i in 0..side {
                (0..side).for_each(|j| matrix[i][j] += f[i] * f[j] / n);
                (0..2).for_each(|c| matrix[i][side + c] += f[i] * if c == *own { 0.5 } else { -0.5 } / n);
            }
        }
        let ridge = RIDGE * (0..side).map(|i| matrix[i][i]).sum::<f64>() / side as f64;
        (0..side).for_each(|i| matrix[i][i] += ridge);
        // Gauss and Jordan.
        for i in 0..side {
            let pivot = matrix[i].clone();
            for (at, line) in matrix.iter_mut().enumerate() {
                let factor = if at == i { 1.0 - 1.0 / pivot[i] } else { line[i] / pivot[i] };
                line.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
            }
        }
        let product = |f: &[f64]| [0, 1].map(|c| (0..side).map(|i| f[i] * matrix[i][side + c]).sum::<f64>());
        let ones = own.iter().sum::<usize>() as f64 / n;
        let left = |c: usize| if c == 1 { ones } else { 1.0 - ones } - 0.5 - real.iter().map(|f| product(f)[c]).sum::<f64>() / n;
        let bias = [left(0), left(1)];
        let output = |f: &Vec<f64>| [0, 1].map(|c| product(f)[c] + bias[c]);
        let mean = |class: usize| {
            let of: Vec<_> = real.iter().zip(own).filter(|(_, own)| **own == class).map(|(f, _)| output(f)).collect();
            [0, 1].map(|c| of.iter().map(|o| o[c]).sum::<f64>() / of.len() as f64)
        };
        let means = [mean(0), mean(1)];
        let apart = |(f, own): (&Vec<f64>, &usize)| -> f64 {
            output(f).iter().zip(&means[*own]).map(|(o, m)| (o - m).powi(2)).sum()
        };
        let within = real.iter().zip(own).map(apart).sum::<f64>() / n;
        let sum = means[0][0] + means[1][1];
        let scale = (sum / within).min(MOST_MARGIN / sum);
        let losses: Vec<f64> = synthetic
            .iter()
            .zip(labels)
            .map(|(f, p)| {
                let z = output(f).map(|o| o * scale);
                let all = (z[0].exp() + z[1].exp()).ln();
                p[0] * (all - z[0]) + p[1] * (all - z[1])
            })
            .collect();
        // Two rows of the first class, three of the second, which count alike.
        ((losses[0] + losses[1]) / 2.0 + losses[2..].iter().sum::<f64>() / 3.0) / 2.0
    }

    #[test]
    fn the_loss_is_that_of_a_classifier_fitted_to_every_real_row() {
        let noise = random::normal(&mut random::stream(5, "noise"), 5 * WIDTH);
        let noise = (Tensor::from_vec(noise, (5, WIDTH), &Device::Cpu).unwrap() * 0.05).unwrap();
        let groups = Groups::new(&[2, 3]);
        let hard = one_hot(&groups, &Device::Cpu).unwrap();
        for (moments, dim) in [(Moments::Pooled, WIDTH), (Moments::Class, WIDTH), (Moments::Class, 8)] {
            let (rows, pool, sketches) = sketched(&options(moments, dim));
            let calibration = Calibration::new(&sketches, &Device::Cpu).unwrap();
            let list = |f: &Tensor| -> Vec<Vec<f64>> {
                let f = match moment_projection(&sketches.header, 1, dim) {
                    Some(p) => f.matmul(&Tensor::from_vec(p, (WIDTH, dim), &Device::Cpu).unwrap()).unwrap(),
                    None => f.clone(),
                };
                f.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap()
            };
            let own: Vec<usize> = rows.labels.iter().map(|l| usize::from(*l == Label::Int(1))).collect();
            let real = real_features(&rows, &pool, 1);
            let features = (real.narrow(0, COUNTS[0] - 2, 5).unwrap() + &noise).unwrap();
            let real = list(&real);
            for (labels, shares) in [
                (hard.clone(), [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),
                ((&hard * 0.4).unwrap(), [[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.3, 0.7], [0.3, 0.7]]),
                // As an optimizer may leave them.
                ((&hard * 3.0).unwrap(), [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]),
            ] {
                let loss = value(&calibration, 1, &features, &groups, &labels);
                let expected = by_rows(&real, &own, &list(&features), &shares);
                // The features of the real rows were rounded to 12 bits.
                assert!((loss - expected).abs() < 1e-2 * expected, "{moments} {dim}: {loss} {expected}");
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (.., sketches) = sketched(&options(Moments::Pooled, 8));
        let calibration = Calibration::new(&sketches, &Device::Cpu).unwrap();
        let features = random::normal(&mut random::stream(6, "features"), 5 * WIDTH);
        gradient_check::check(&calibration, &features, &Groups::new(&[2, 3]), 3e-2);
    }

    #[test]
    fn rows_have_a_lower_loss_as_their_own_class_than_as_another_and_it_is_less_than_a_guess() {
        let (rows, pool, sketches) = sketched(&options(Moments::Pooled, WIDTH));
        let calibration = Calibration::new(&sketches, &Device::Cpu).unwrap();
        let features = real_features(&rows, &pool, 0);
        let swapped = Tensor::cat(
            &[features.narrow(0, COUNTS[0], COUNTS[1]).unwrap(), features.narrow(0, 0, COUNTS[0]).unwrap()],
            0,
        )
        .unwrap();
        let of = |features: &Tensor, sizes: &[usize]| {
            let groups = Groups::new(sizes);
            value(&calibration, 0, features, &groups, &one_hot(&groups, &Device::Cpu).unwrap())
        };
        let (right, wrong) = (of(&features, &COUNTS), of(&swapped, &[COUNTS[1], COUNTS[0]]));
        assert!(right < 2f64.ln() && wrong > 2.0 * right, "{right} {wrong}");
    }

    #[test]
    fn logits_are_finite_for_rows_far_away_and_where_features_tell_nothing() {
        let (.., mut sketches) = sketched(&options(Moments::Pooled, 8));
        let groups = Groups::new(&[1, 1]);
        let labels = one_hot(&groups, &Device::Cpu).unwrap();
        let far = Tensor::from_vec(vec![1e6f32; 2 * WIDTH], (2, WIDTH), &Device::Cpu).unwrap();
        let calibration = Calibration::new(&sketches, &Device::Cpu).unwrap();
        assert!(value(&calibration, 0, &far, &groups, &labels).is_finite());
        for sketch in sketches.classes.values_mut() {
            sketch.members[0].moments.to_mut().fill(0);
            sketch.members[0].embedding.to_mut().fill(0);
            sketch.count = 45;
        }
        let blind = Calibration::new(&sketches, &Device::Cpu).unwrap();
        let loss = value(&blind, 0, &far, &groups, &labels);
        assert!((loss - 2f64.ln()).abs() < 1e-6, "{loss}");
    }
}
