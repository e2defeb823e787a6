//! A sketch with second moments flows in; a teacher, who says how much of each class rows have, flows out.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::extract::Pool;
use crate::kernels::{Groups, Wants};
use crate::objective::second_moments::{self, SecondMoments};
use crate::sketch::Sketches;
use crate::synthesize::SoftLabels;
use crate::synthesize::unpack::Unpack;

/// Most rows whose features are held at once.
const ROWS_AT_ONCE: usize = 1024;

/// The readout that ridge regression fits to the features of *all* real rows, one an extractor.
///
/// With `f` a real row's features, `y` its one-hot label, `p = E[y]` the classes' shares of the rows, `G = E[f f^T]` and `C = E[f (y - p)^T]`, which are sums over
/// rows and so in the sketch, an extractor's readout is
///
/// `W = (G + r mean(diag(G)) I)^-1 C`,
///
/// the primal form of what [`Ridge`](crate::objective::Ridge) fits to synthetic rows, with `p` in place of a bias: `G` is of rounded features and means are
/// not, so that with a column of ones it need not be positive definite where rows are few. Least squares on one-hot labels estimates the shares of the classes
/// themselves, so there is no temperature: what a row gets is `p` and the mean of `W^T f` over the extractors, what is negative cut off, no class
/// more than the row's own, and 1 in all. Real rows count alike: a large class has more of every row.
pub(super) struct Teacher<'a> {
    pool: &'a Pool,
    /// `p` less 1 / classes, `[1, classes]`.
    prior: Tensor,
    /// `W` of each extractor, `[feature_len, classes]`: where second moments are of projected features, the projection is in it.
    readouts: Vec<Tensor>,
}

impl<'a> Teacher<'a> {
    /// From `sketches`, which have second moments of the rows that they count, and the `pool` that they were made with.
    pub(super) fn new(sketches: &Sketches, pool: &'a Pool) -> Result<Self> {
        second_moments::check(sketches, "a teacher of soft labels", "use soft_labels => 'learned'")?;
        let rows = sketches.classes.values().map(|s| s.count).sum::<u64>().max(1) as f64;
        let even = 1.0 / sketches.classes.len().max(1) as f64;
        let prior: Vec<f32> = sketches.classes.values().map(|s| (s.count as f64 / rows - even) as f32).collect();
        // In float64, which not every device has.
        let prior = Tensor::from_vec(prior, (1, sketches.classes.len()), &Device::Cpu)?;
        let members = 0..sketches.header.recipe.extractors;
        let of = |member| readout(&SecondMoments::new(sketches, member, &Device::Cpu)?, &prior, pool.device());
        let readouts = members.map(of).collect::<Result<_>>()?;
        Ok(Self { pool, readouts, prior: prior.to_device(pool.device())? })
    }

    /// The labels of `stored` rows `[stored rows, input_shape.len()]`, in the extractors' units, each of the rows that they are unpacked to: as many as `groups`
    /// has, whose classes it says.
    pub(super) fn labels(&self, stored: &[f32], unpack: Option<&Unpack>, groups: &Groups) -> Result<SoftLabels> {
        let wants = Wants { input: false, weights: false, parallel: true };
        let at_once = (ROWS_AT_ONCE / unpack.map_or(1, Unpack::most)).max(1);
        let input = self.pool.recipe().input_shape();
        let mut parts = vec![];
        for (i, part) in stored.chunks(at_once * input.len().max(1)).enumerate() {
            let dims = [vec![part.len() / input.len().max(1)], input.dims()].concat();
            let rows = Tensor::from_slice(part, dims, self.pool.device())?;
            let rows = match unpack {
                Some(unpack) => unpack.apply(&rows, i * at_once)?,
                None => rows,
            };
            let mut sum: Option<Tensor> = None;
            for (member, readout) in self.readouts.iter().enumerate() {
                let said = self.pool.features(member, &rows, wants)?.matmul(readout)?;
                sum = Some(match sum {
                    Some(sum) => (sum + said)?,
                    None => said,
                });
            }
            parts.extend(sum);
        }
        let said = (Tensor::cat(&parts, 0)? / self.readouts.len().max(1) as f64)?;
        SoftLabels::of(&said.broadcast_add(&self.prior)?, groups)
    }
}

/// `W`, for the classes' `prior` less 1 / classes, `[1, classes]`.
fn readout(moments: &SecondMoments, prior: &Tensor, device: &Device) -> Result<Tensor> {
    let d = moments.second.dim(0)? - 1;
    let means = moments.second.narrow(0, 0, d)?.narrow(1, d, 1)?.contiguous()?;
    // E[f (y - 1 / classes)^T] less E[f] (p - 1 / classes)^T.
    let cross = (moments.cross.narrow(0, 0, d)? - means.matmul(prior)?)?;
    let weights = moments.ridge_of_features(&cross)?.to_dtype(DType::F32)?;
    let weights = match &moments.projection {
        Some(projection) => projection.matmul(&weights)?,
        None => weights,
    };
    Ok(weights.to_device(device)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::extract::PoolRecipe;
    use crate::objective::RIDGE;
    use crate::options::{LabelKind, LabelSource, Moments, Options};
    use crate::random;
    use crate::rows::{Label, Rows, Shape};
    use crate::sketch::{ClassSketch, Sketcher, moment_projection};

    const LEN: usize = 6;
    const WIDTH: usize = 16;
    const COUNT: usize = 90;
    const MEMBERS: usize = 2;

    fn class_of(row: usize) -> usize {
        if row < 45 { 0 } else { 1 + (row - 45) % 2 }
    }

    /// Vectors of three classes, which overlap, with their sketches.
    fn sketched(dim: usize) -> (Rows, Arc<Pool>, Sketches) {
        let options = Options {
            extractors: Some(MEMBERS),
            width: Some(WIDTH),
            moment_dim: Some(dim),
            frequencies: Some(0),
            label_kind: LabelKind::Soft,
            soft_labels: LabelSource::Teacher,
            ..Options::default()
        };
        let shape = Shape::Vector { len: LEN };
        let mut values = random::normal(&mut random::stream(4, "rows"), COUNT * LEN);
        for (i, row) in values.chunks_mut(LEN).enumerate() {
            row[class_of(i)] += 1.5;
        }
        let labels = (0..COUNT).map(|i| Label::Int(class_of(i) as i64)).collect();
        let rows = Rows { shape, values, labels, exact: vec![], skipped: 0 };
        let recipe = PoolRecipe::choose(shape, (-5.0, 5.0), &options).unwrap();
        let pool = Arc::new(Pool::build(&recipe, &Device::Cpu).unwrap());
        let sketcher = Sketcher::new(Arc::clone(&pool), &options).unwrap();
        assert_eq!(sketcher.header().moments.as_ref().map(|m| m.kind), Some(Moments::Pooled));
        let mut of = vec![ClassSketch::empty(sketcher.header()); 3];
        let classes: Vec<usize> = (0..COUNT).map(class_of).collect();
        sketcher.fold(&rows, &classes, &mut of, &AtomicBool::new(false)).unwrap();
        let mut sketches = Sketches::new(sketcher.header().clone());
        for (label, sketch) in (0..).zip(of) {
            sketches.classes.insert(Label::Int(label), sketch);
        }
        (rows, pool, sketches)
    }

    /// `A X = B` by Gaussian elimination with the largest pivot.
    fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let n = a.len();
        for i in 0..n {
            let pivot = (i..n).max_by(|p, q| a[*p][i].abs().total_cmp(&a[*q][i].abs())).unwrap();
            a.swap(i, pivot);
            b.swap(i, pivot);
            for row in (0..n).filter(|row| *row != i) {
                let factor = a[row][i] / a[i][i];
                let (pivot_a, pivot_b) = (a[i].clone(), b[i].clone());
                a[row].iter_mut().zip(pivot_a).for_each(|(v, p)| *v -= factor * p);
                b[row].iter_mut().zip(pivot_b).for_each(|(v, p)| *v -= factor * p);
            }
        }
        (0..n).map(|i| b[i].iter().map(|v| v / a[i][i]).collect()).collect()
    }

    /// What the definition has rows be told, each real row by itself, in float64.
    fn by_rows(rows: &Rows, pool: &Pool, sketches: &Sketches, dim: usize, asked: &[f32]) -> Vec<Vec<f64>> {
        let wants = Wants { input: false, weights: false, parallel: false };
        let shares = [45.0 / 90.0, 23.0 / 90.0, 22.0 / 90.0];
        let mut told = vec![shares.to_vec(); asked.len() / LEN];
        for member in 0..MEMBERS {
            let of = |values: &[f32]| -> Vec<Vec<f64>> {
                let features = pool.features(member, &pool.scale(values).unwrap(), wants).unwrap();
                let features = match moment_projection(&sketches.header, member, dim) {
                    Some(p) => features.matmul(&Tensor::from_vec(p, (WIDTH, dim), &Device::Cpu).unwrap()).unwrap(),
                    None => features,
                };
                let rows = features.to_vec2::<f32>().unwrap().into_iter();
                rows.map(|row| row.into_iter().map(f64::from).collect()).collect()
            };
            let mut g = vec![vec![0.0; dim]; dim];
            let mut c = vec![vec![0.0; 3]; dim];
            for (row, f) in of(&rows.values).iter().enumerate() {
                for i in 0..dim {
                    (0..dim).for_each(|j| g[i][j] += f[i] * f[j] / COUNT as f64);
                    (0..3).for_each(|k| {
                        c[i][k] += f[i] * (f64::from(u8::from(k == class_of(row))) - shares[k]) / COUNT as f64;
                    });
                }
            }
            let ridge = RIDGE * (0..dim).map(|i| g[i][i]).sum::<f64>() / dim as f64;
            (0..dim).for_each(|i| g[i][i] += ridge);
            let readout = solved(g, c);
            for (told, f) in told.iter_mut().zip(of(asked)) {
                for k in 0..3 {
                    told[k] += f.iter().zip(&readout).map(|(f, w)| f * w[k]).sum::<f64>() / MEMBERS as f64;
                }
            }
        }
        told
    }

    #[test]
    fn rows_are_told_what_a_ridge_regression_of_every_real_row_says() {
        let groups = Groups::new(&[2, 1, 1]);
        for dim in [WIDTH, 8] {
            let (rows, pool, sketches) = sketched(dim);
            let asked: Vec<f32> = [3, 7, 45, 46].iter().flat_map(|row| rows.row(*row)).copied().collect();
            let scaled = pool.recipe().scaling.scale(&asked);
            let labels = Teacher::new(&sketches, &pool).unwrap().labels(&scaled, None, &groups).unwrap();
            for (i, told) in by_rows(&rows, &pool, &sketches, dim, &asked).into_iter().enumerate() {
                let own = told[groups.class_of(i)];
                assert!(own > 0.0);
                let cut: Vec<f64> = told.iter().map(|share| share.clamp(0.0, own)).collect();
                let sum: f64 = cut.iter().sum();
                for (found, expected) in labels.row(i).iter().zip(cut) {
                    // The real rows' features were rounded to 12 bits.
                    let apart = (f64::from(*found) - expected / sum).abs();
                    assert!(apart < 1e-2, "{dim}, row {i}: {:?} {told:?}", labels.row(i));
                }
            }
        }
    }

    #[test]
    fn a_sketch_without_moments_is_refused_with_what_to_do() {
        let (_, pool, mut sketches) = sketched(8);
        sketches.header.moments = None;
        let e = Teacher::new(&sketches, &pool).err().unwrap().to_string();
        assert!(e.contains("a teacher of soft labels") && e.contains("moments => 'pooled'"), "{e}");
        assert!(e.contains("soft_labels => 'learned'"), "{e}");
    }
}
