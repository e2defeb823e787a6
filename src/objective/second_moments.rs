//! Sketches flow in; of all their real rows the mean products of features with each other and with labels flow out, one extractor at a time.

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::kernels::ridge_solve;
use crate::objective::RIDGE;
use crate::sketch::{Header, MOMENT_UNITS, MomentsHeader, Sketches, moment_projection};

/// Of all real rows, with `f` the features of one extractor and a one, `[d + 1]`, and `y` the labels, one-hot less 1 / classes.
#[derive(Debug)]
pub(crate) struct SecondMoments {
    /// `G = E[f f^T]`, `[d + 1, d + 1]`.
    pub(crate) second: Tensor,
    /// `C = E[f y^T]`, `[d + 1, classes]`.
    pub(crate) cross: Tensor,
    /// `[feature_len, d]`; `None`: features as they are.
    pub(crate) projection: Option<Tensor>,
}

/// Refuses sketches without second moments of the rows that they count: `what` needs them, `otherwise` is the way out.
pub(crate) fn check(sketches: &Sketches, what: &str, otherwise: &str) -> Result<()> {
    header(sketches, what, otherwise)?;
    let rows: u64 = sketches.classes.values().map(|s| s.count).sum();
    let counted: u64 = sketches.classes.values().map(|s| s.moment_rows).sum();
    if rows != counted {
        return Err(Error::Sketch(format!(
            "the classes have {rows} rows, their second moments were taken of {counted}: of moments => 'pooled' all classes of a source \
             are needed, none added or left out; make the sketches with moments => 'class'"
        )));
    }
    Ok(())
}

fn header<'a>(sketches: &'a Sketches, what: &str, otherwise: &str) -> Result<&'a MomentsHeader> {
    sketches.header.moments.as_ref().ok_or_else(|| {
        Error::Sketch(format!(
            "{what} needs second moments, this sketch has none; make it with moments => 'pooled' and moment_dim => 1024, or {otherwise}"
        ))
    })
}

impl SecondMoments {
    /// Those of extractor `member`, on `device`.
    pub(crate) fn new(sketches: &Sketches, member: usize, device: &Device) -> Result<Self> {
        let moments = header(sketches, "this term of the loss", "leave it out")?;
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

    /// `(E[f f^T] + r mean(diag) I)^-1 B` in float64, of the features alone, `[d, classes]`, for `right` `B` as many: what ridge regression of all real rows on `f` is where `B` is
    /// `E[f y^T]`. There is no one among the features: they were rounded and clipped for their products, their means weren't, so that with a column of ones the matrix
    /// need not be positive definite where rows are few.
    pub(crate) fn ridge_of_features(&self, right: &Tensor) -> candle_core::Result<Tensor> {
        let d = self.second.dim(0)? - 1;
        let second = self.second.narrow(0, 0, d)?.narrow(1, 0, d)?.to_dtype(DType::F64)?.contiguous()?;
        let identity = Tensor::eye(d, DType::F64, second.device())?;
        let diagonal = (&second * &identity)?.sum(0)?.to_vec1::<f64>()?;
        // Of the features that aren't 0 always, as those that fill up shorter ones are. Where all are, any matrix will do.
        let used = diagonal.iter().filter(|square| **square > 0.0).count();
        let ridge = (RIDGE * diagonal.iter().sum::<f64>() / used.max(1) as f64).max(f64::MIN_POSITIVE.sqrt());
        ridge_solve(&(second + (identity * ridge)?)?, &right.to_dtype(DType::F64)?.contiguous()?)
    }

    /// Bytes of memory of one extractor's, for sketches with `header`, of `classes` classes.
    pub(crate) fn bytes_of(header: &Header, classes: usize) -> usize {
        let Some(moments) = &header.moments else { return 0 };
        let (d, feature_len) = (moments.dim, header.recipe.feature_len());
        let projection = if d < feature_len { d * feature_len } else { 0 };
        size_of::<f32>() * ((d + 1) * (d + 1 + classes) + projection)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::extract::{Pool, PoolRecipe};
    use crate::options::{Moments, Options};
    use crate::random;
    use crate::rows::{Label, Rows, Shape};
    use crate::sketch::{ClassSketch, Sketcher};

    const LEN: usize = 6;
    pub(in crate::objective) const WIDTH: usize = 16;
    /// Rows of the two classes.
    pub(in crate::objective) const COUNTS: [usize; 2] = [60, 30];

    /// Vectors of two classes that lie apart, with their sketches.
    pub(in crate::objective) fn sketched(options: &Options) -> (Rows, Arc<Pool>, Sketches) {
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

    pub(in crate::objective) fn options(moments: Moments, dim: usize) -> Options {
        Options {
            extractors: Some(2),
            width: Some(WIDTH),
            moments: Some(moments),
            moment_dim: Some(dim),
            frequencies: Some(0),
            ..Options::default()
        }
    }

    #[test]
    fn a_sketch_without_moments_or_with_those_of_other_rows_is_refused_with_what_to_do() {
        let (.., mut sketches) = sketched(&options(Moments::Pooled, 8));
        let error = |sketches: &Sketches| check(sketches, "a loss", "do without").unwrap_err().to_string();
        sketches.classes.pop_last();
        let e = error(&sketches);
        assert!(e.contains("60 rows") && e.contains("90") && e.contains("moments => 'class'"), "{e}");
        sketches.header.moments = None;
        assert!(error(&sketches).contains("moments => 'pooled'"));
    }
}
