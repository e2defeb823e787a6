//! The loss, on all real rows, of a ridge regression that is fitted to the synthetic rows (KIP, Nguyen et al., ICLR 2021, equation 7; FRePo, Zhou et
//! al., NeurIPS 2022, equation 5), from streamed second moments.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::ridge_solve;
use crate::objective::{Groups, Objective, of_member};
use crate::sketch::{Header, MOMENT_UNITS, MomentsHeader, Sketches, moment_projection};

/// What is added to the diagonal of the synthetic rows' kernel, as a share of its mean.
const RIDGE: f64 = 1e-3;

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

/// What the loss of one extractor needs.
#[derive(Debug)]
struct Target {
    /// `G`, `[d + 1, d + 1]`.
    second: Tensor,
    /// `C`, `[d + 1, classes]`.
    cross: Tensor,
    /// `[feature_len, d]`; `None`: features as they are.
    projection: Option<Tensor>,
}

impl Ridge {
    /// Targets from `sketches`, which have second moments of the rows that they count.
    pub fn new(sketches: &Sketches, device: &Device) -> Result<Self> {
        let Some(moments) = &sketches.header.moments else {
            return Err(Error::Sketch(
                "a ridge regression's loss needs second moments, this sketch has none; make it with moments => 'pooled' and moment_dim => \
                 1024, or use method => 'characteristic' or 'mean'"
                    .into(),
            ));
        };
        let rows: u64 = sketches.classes.values().map(|s| s.count).sum();
        let counted: u64 = sketches.classes.values().map(|s| s.moment_rows).sum();
        if rows != counted {
            return Err(Error::Sketch(format!(
                "the classes have {rows} rows, their second moments were taken of {counted}: of moments => 'pooled' all classes of a source \
                 are needed, none added or left out; make the sketches with moments => 'class'"
            )));
        }
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

impl Target {
    fn new(sketches: &Sketches, moments: &MomentsHeader, member: usize, device: &Device) -> Result<Self> {
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
            packed.iter_mut().zip(&sketch.members[member].moments).for_each(|(to, from)| *to += from);
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
        let error = ((second.matmul(&readout)? - (cross * 2.0)?)? * &readout)?.sum_all()?;
        // E |y|^2 of one-hot labels less 1 / classes.
        error + (1.0 - 1.0 / groups.classes() as f64)
    }
}
