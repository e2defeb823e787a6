//! The loss, on all real rows, of a ridge regression that is fitted to the synthetic rows (KIP, Nguyen et al., ICLR 2021, equation 7; FRePo, Zhou et
//! al., NeurIPS 2022, equation 5), from streamed second moments.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::ridge_solve;
use crate::objective::{Groups, Objective, of_member};
use crate::sketch::{Header, MOMENT_UNITS, MomentsHeader, Sketches, moment_projection};

/// What is added to the diagonal of the synthetic rows' kernel, as a share of its mean.
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
    targets: Vec<Target>,
}

/// What the loss of one extractor needs: the real rows' moments.
#[derive(Debug)]
pub(crate) struct Target {
    /// `G`, `[d + 1, d + 1]`.
    pub(crate) second: Tensor,
    /// `C`, `[d + 1, classes]`.
    pub(crate) cross: Tensor,
    /// `[feature_len, d]`; `None`: features as they are.
    pub(crate) projection: Option<Tensor>,
}

impl Ridge {
    /// Targets from `sketches`, which have second moments of the rows that they count.
    pub fn new(sketches: &Sketches, device: &Device) -> Result<Self> {
        let instead = "use method => 'characteristic' or 'mean'";
        let moments = moments_of(sketches, "a ridge regression's loss", instead)?;
        let members = 0..sketches.header.recipe.extractors;
        Ok(Self {
            targets: members.map(|member| Target::new(sketches, moments, member, device)).collect::<Result<_>>()?,
        })
    }

    /// Bytes of memory that it takes for sketches with `header`, of `classes` classes.
    pub fn bytes_of(header: &Header, classes: usize) -> usize {
        let Some(moments) = &header.moments else { return 0 };
        let (d, feature_len) = (moments.dim, header.recipe.feature_len());
        let projection = if d < feature_len { d * feature_len } else { 0 };
        header.recipe.extractors * size_of::<f32>() * ((d + 1) * (d + 1 + classes) + projection)
    }
}

/// What the header says of the second moments, which must be those of all rows; an error says that `user` needs them, and what to do `instead`.
pub(crate) fn moments_of<'a>(sketches: &'a Sketches, user: &str, instead: &str) -> Result<&'a MomentsHeader> {
    let Some(moments) = &sketches.header.moments else {
        return Err(Error::Sketch(format!(
            "{user} needs second moments, this sketch has none; make it with moments => 'pooled' and moment_dim => 1024, or {instead}"
        )));
    };
    let rows: u64 = sketches.classes.values().map(|s| s.count).sum();
    let counted: u64 = sketches.classes.values().map(|s| s.moment_rows).sum();
    if rows != counted {
        return Err(Error::Sketch(format!(
            "the classes have {rows} rows, their second moments were taken of {counted}: of moments => 'pooled' all classes of a source \
             are needed, none added or left out; make the sketches with moments => 'class'"
        )));
    }
    Ok(moments)
}

impl Target {
    /// Of extractor `member`, by the `moments` that [`moments_of`] gives.
    pub(crate) fn new(sketches: &Sketches, moments: &MomentsHeader, member: usize, device: &Device) -> Result<Self> {
        let (d, classes, feature_len) = (moments.dim, sketches.classes.len(), sketches.header.recipe.feature_len());
        let rows = sketches.classes.values().map(|s| s.count).sum::<u64>().max(1) as f64;
        let shares: Vec<f32> = sketches.classes.values().map(|s| (s.count as f64 / rows) as f32).collect();
        let means = sketches.classes.values().zip(&shares);
        let means = means.flat_map(|(sketch, share)| sketch.mean(member).into_iter().map(move |mean| mean * share));
        let means = Tensor::from_vec(means.collect::<Vec<f32>>(), (classes, feature_len), device)?;
        let projection = moment_projection(&sketches.header, member, d);
        let projection = projection.map(|p| Tensor::from_vec(p, (feature_len, d), device)).transpose()?;
        let means = match &projection {
            Some(projection) => means.matmul(projection)?,
            None => means,
        };
        // Of each class, the sum of its rows' features and ones over the number of all rows: [classes, d + 1].
        let by_class = Tensor::cat(&[&means, &Tensor::from_vec(shares, (classes, 1), device)?], 1)?;
        let all = by_class.sum(0)?;
        // E[f (y - 1 / classes)^T].
        let cross = by_class.broadcast_sub(&(&all / classes as f64)?)?.t()?.contiguous()?;

        let unit = (moments.bounds[member] / f64::from(MOMENT_UNITS)).powi(2) / rows;
        let mut packed = vec![0i64; moments.len()];
        for sketch in sketches.classes.values() {
            packed.iter_mut().zip(sketch.members[member].moments.iter()).for_each(|(to, from)| *to += from);
        }
        let mut packed = packed.into_iter().map(|sum| (sum as f64 * unit) as f32);
        let mut square = vec![0.0; (d + 1) * (d + 1)];
        for (i, mean) in all.to_vec1::<f32>()?.into_iter().enumerate() {
            for (j, value) in (i..d).zip(&mut packed) {
                square[i * (d + 1) + j] = value;
                square[j * (d + 1) + i] = value;
            }
            square[i * (d + 1) + d] = mean;
            square[d * (d + 1) + i] = mean;
        }
        Ok(Self { second: Tensor::from_vec(square, (d + 1, d + 1), device)?, cross, projection })
    }
}

impl Objective for Ridge {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> candle_core::Result<Tensor> {
        let Target { second, cross, projection } = of_member(&self.targets, member)?;
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
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use candle_core::{DType, Var};

    use super::*;
    use crate::extract::{Pool, PoolRecipe};
    use crate::kernels::Wants;
    use crate::objective::{gradient_check, one_hot};
    use crate::options::{Moments, Options};
    use crate::random;
    use crate::rows::{Label, Rows, Shape};
    use crate::sketch::{ClassSketch, Sketcher};

    const LEN: usize = 6;
    const WIDTH: usize = 16;
    /// Rows of the two classes.
    const COUNTS: [usize; 2] = [60, 30];

    /// Vectors of two classes that lie apart, with their sketches.
    fn sketched(options: &Options) -> (Rows, Arc<Pool>, Sketches) {
        let shape = Shape::Vector { len: LEN };
        let mut values = random::normal(&mut random::stream(4, "rows"), (COUNTS[0] + COUNTS[1]) * LEN);
        let labels: Vec<Label> = (0..COUNTS[0] + COUNTS[1]).map(|i| Label::Int(i64::from(i >= COUNTS[0]))).collect();
        for (row, label) in values.chunks_mut(LEN).zip(&labels) {
            row[0] += if *label == Label::Int(0) { -1.0 } else { 1.0 };
        }
        let rows = Rows { shape, values, labels, exact: vec![], skipped: 0 };
        let recipe = PoolRecipe::choose(shape, (-4.0, 4.0), options).unwrap();
        let pool = Arc::new(Pool::build(&recipe, &Device::Cpu).unwrap());
        let sketcher = Sketcher::new(Arc::clone(&pool), options).unwrap();
        let mut of = [ClassSketch::empty(sketcher.header()), ClassSketch::empty(sketcher.header())];
        let classes: Vec<usize> = rows.labels.iter().map(|l| usize::from(*l == Label::Int(1))).collect();
        sketcher.fold(&rows, &classes, &mut of, &AtomicBool::new(false)).unwrap();
        let mut sketches = Sketches::new(sketcher.header().clone());
        for (label, sketch) in [0, 1].into_iter().zip(of) {
            sketches.classes.insert(Label::Int(label), sketch);
        }
        (rows, pool, sketches)
    }

    fn options(moments: Moments, dim: usize) -> Options {
        Options {
            extractors: Some(2),
            width: Some(WIDTH),
            moments: Some(moments),
            moment_dim: Some(dim),
            frequencies: Some(0),
            ..Options::default()
        }
    }

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

    #[test]
    fn a_sketch_without_moments_or_with_those_of_other_rows_is_refused_with_what_to_do() {
        let (.., mut sketches) = sketched(&options(Moments::Pooled, 8));
        let error = |sketches: &Sketches| Ridge::new(sketches, &Device::Cpu).unwrap_err().to_string();
        sketches.classes.pop_last();
        let e = error(&sketches);
        assert!(e.contains("60 rows") && e.contains("90") && e.contains("moments => 'class'"), "{e}");
        sketches.header.moments = None;
        assert!(error(&sketches).contains("moments => 'pooled'"));
    }
}
