//! The loss, on all real rows, of a ridge regression that is fitted to the synthetic rows (KIP, Nguyen et al., ICLR 2021, equation 7; FRePo, Zhou et
//! al., NeurIPS 2022, equation 5), from streamed second moments.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kernels::ridge_solve;
use crate::objective::second_moments::{self, SecondMoments};
use crate::objective::{Groups, Objective, of_member};
use crate::sketch::{Header, Sketches};

/// What is added to the diagonal of a ridge regression's matrix, as a share of its mean.
pub(crate) const RIDGE: f64 = 1e-3;

/// Mean squared error of the readout that is fitted to the synthetic rows, over all real rows.
///
/// With `F` the synthetic rows' features and a column of ones, `[rows, d + 1]`, and `Y` their labels, `[rows, classes]`, less 1 / classes, the readout is
///
/// `W = F^T (F F^T + r mean(diag(F F^T)) I)^-1 Y`.
///
/// Of the real rows' features `f` (with a one) and labels `y` (one-hot, less 1 / classes), the loss needs two sums: `G = E[f f^T]` and
/// `C = E[f y^T]`:
///
/// `L = E |y - W^T f|^2 = E |y|^2 - 2 tr(W^T C) + tr(W^T G W)`.
///
/// The published methods draw a batch of real rows a step; these sums are those of every row, and no row is touched. Real rows count
/// alike, so classes by their share.
#[derive(Debug)]
pub struct Ridge {
    /// One an extractor.
    targets: Vec<SecondMoments>,
}

impl Ridge {
    /// Targets from `sketches`, which have second moments of the rows that they count.
    pub fn new(sketches: &Sketches, device: &Device) -> Result<Self> {
        second_moments::check(sketches, "a ridge regression's loss", "use method => 'characteristic' or 'mean'")?;
        let members = 0..sketches.header.recipe.extractors;
        Ok(Self { targets: members.map(|member| SecondMoments::new(sketches, member, device)).collect::<Result<_>>()? })
    }

    /// Bytes of memory that it takes for sketches with `header`, of `classes` classes.
    pub fn bytes_of(header: &Header, classes: usize) -> usize {
        header.recipe.extractors * SecondMoments::bytes_of(header, classes)
    }
}

impl Objective for Ridge {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> candle_core::Result<Tensor> {
        let SecondMoments { second, cross, projection } = of_member(&self.targets, member)?;
        let (n, device) = (groups.rows(), features.device());
        let features = match projection {
            Some(projection) => features.matmul(projection)?,
            None => features.clone(),
        };
        let features = Tensor::cat(&[&features, &Tensor::ones((n, 1), features.dtype(), device)?], 1)?;
        let transposed = features.t()?.contiguous()?;
        let kernel = features.matmul(&transposed)?;
        let ridge = (features.sqr()?.sum_all()? * (RIDGE / n as f64))?;
        let diagonal = Tensor::eye(n, features.dtype(), device)?.broadcast_mul(&ridge)?;
        let readout = transposed.matmul(&ridge_solve(&(kernel + diagonal)?, labels)?)?;
        // tr(W^T G W) - 2 tr(W^T C), with the gradient 2 (G W - C). Of a product candle computes both gradients: that for G, which no one wants, would cost as
        // much memory as G again.
        let constant = readout.detach();
        let product = second.matmul(&constant)?;
        let error = ((&product - cross)? * (&readout * 2.0)?)?.sum_all()?;
        let error = (error - (product * constant)?.sum_all()?)?;
        // E |y|^2 of one-hot labels less 1 / classes.
        error + (1.0 - 1.0 / groups.classes() as f64)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::extract::Pool;
    use crate::kernels::Wants;
    use crate::objective::second_moments::tests::{WIDTH, options, sketched};
    use crate::objective::{gradient_check, one_hot};
    use crate::options::Moments;
    use crate::random;
    use crate::rows::{Label, Rows};
    use crate::sketch::moment_projection;

    /// The loss as its definition has it: the readout of the synthetic `features` and `labels`, tried on each real row, in float64.
    fn by_rows(rows: &Rows, pool: &Pool, sketches: &Sketches, dim: usize, features: &Tensor, labels: &Tensor) -> f64 {
        let wants = Wants { input: false, weights: false, parallel: false };
        let real = pool.features(1, &pool.scale(&rows.values).unwrap(), wants).unwrap();
        let with_ones = |f: &Tensor| {
            let f = match moment_projection(&sketches.header, 1, dim) {
                Some(p) => f.matmul(&Tensor::from_vec(p, (WIDTH, dim), &Device::Cpu).unwrap()).unwrap(),
                None => f.clone(),
            };
            let ones = Tensor::ones((f.dim(0).unwrap(), 1), DType::F32, &Device::Cpu).unwrap();
            Tensor::cat(&[&f, &ones], 1).unwrap().to_dtype(DType::F64).unwrap()
        };
        let (real, synthetic) = (with_ones(&real), with_ones(features));
        let labels = labels.to_dtype(DType::F64).unwrap();
        let n = synthetic.dim(0).unwrap();
        let kernel = synthetic.matmul(&synthetic.t().unwrap()).unwrap();
        let diagonal: f64 = (0..n).map(|i| kernel.get(i).unwrap().get(i).unwrap().to_scalar::<f64>().unwrap()).sum();
        let ridge = (Tensor::eye(n, DType::F64, &Device::Cpu).unwrap() * (RIDGE * diagonal / n as f64)).unwrap();
        let weights = ridge_solve(&(kernel + ridge).unwrap(), &labels).unwrap();
        let readout = synthetic.t().unwrap().matmul(&weights).unwrap();
        let predicted = real.matmul(&readout).unwrap().to_vec2::<f64>().unwrap();
        let error = |(row, label): (&Vec<f64>, &Label)| -> f64 {
            let own = usize::from(*label == Label::Int(1));
            row.iter().enumerate().map(|(c, p)| (p - if c == own { 0.5 } else { -0.5 }).powi(2)).sum()
        };
        predicted.iter().zip(&rows.labels).map(error).sum::<f64>() / rows.labels.len() as f64
    }

    #[test]
    fn the_loss_is_that_of_every_real_row_under_the_readout_of_the_synthetic_ones() {
        let features = random::normal(&mut random::stream(5, "features"), 5 * WIDTH);
        let features = Tensor::from_vec(features, (5, WIDTH), &Device::Cpu).unwrap();
        let groups = Groups::new(&[2, 3]);
        let labels = one_hot(&groups, &Device::Cpu).unwrap();
        for (moments, dim) in [(Moments::Pooled, WIDTH), (Moments::Class, WIDTH), (Moments::Class, 8)] {
            let (rows, pool, sketches) = sketched(&options(moments, dim));
            let ridge = Ridge::new(&sketches, &Device::Cpu).unwrap();
            for labels in [&labels, &(&labels * 0.3).unwrap()] {
                let loss = ridge.loss(1, &features, &groups, labels).unwrap().to_scalar::<f32>().unwrap();
                let expected = by_rows(&rows, &pool, &sketches, dim, &features, labels);
                let apart = (f64::from(loss) - expected).abs();
                // The features of the real rows were rounded to 12 bits.
                assert!(apart < 2e-3 * expected, "{moments} {dim}: {loss} {expected}");
            }
        }
    }

    #[test]
    fn the_gradients_are_those_of_finite_differences() {
        let (.., sketches) = sketched(&options(Moments::Pooled, 8));
        let ridge = Ridge::new(&sketches, &Device::Cpu).unwrap();
        let features = random::normal(&mut random::stream(6, "features"), 5 * WIDTH);
        let groups = Groups::new(&[2, 3]);
        gradient_check::check(&ridge, &features, &groups, 3e-2);

        let features = Tensor::from_vec(features, (5, WIDTH), &Device::Cpu).unwrap();
        let labels = Var::from_tensor(&one_hot(&groups, &Device::Cpu).unwrap()).unwrap();
        let loss = |labels: &Tensor| ridge.loss(0, &features, &groups, labels).unwrap();
        let gradients = loss(labels.as_tensor()).backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&labels).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f32> = labels.as_detached_tensor().flatten_all().unwrap().to_vec1().unwrap();
        for (i, g) in gradient.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                loss(&Tensor::from_vec(values, (5, 2), &Device::Cpu).unwrap()).to_scalar::<f32>().unwrap()
            };
            let numeric = (moved(0.05) - moved(-0.05)) / 0.1;
            assert!((numeric - g).abs() < 1e-3 + 2e-2 * g.abs(), "{i}: {numeric} {g}");
        }
    }
}
