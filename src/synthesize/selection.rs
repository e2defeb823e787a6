//! Sketches flow in; real rows, chosen from their reservoirs and unchanged, flow out.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::extract::Pool;
use crate::kernels::Wants;
use crate::options::{Method, Options};
use crate::rows::Label;
use crate::sketch::{ClassSketch, MICRO_BATCH, Sketches};
use crate::synthesize::{Progress, pool};
use crate::{random, select};

/// `allotment[i]` rows of class i, classes in label order, `[rows, shape.len()]` in the input's units, exactly the numbers that were read; those that an
/// f32 can't hold as bytes beside them.
///
/// Candidates are the rows of the class's reservoir, a uniform draw of its distinct rows: `random` takes the first, the other
/// methods look at the candidates' features, see [`Embedding`]. A class with fewer distinct rows than it is to give gives all it has, again
/// and again; where only the sketch kept too few of them, that is an error. Each class is chosen for itself: one more or less changes nothing in the others.
pub(super) fn rows(
    sketches: &Sketches,
    options: &Options,
    allotment: &[usize],
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<f32>, Vec<u8>)> {
    let (method, kept) = (options.method, sketches.header.reservoir);
    // A random choice needs no features.
    let pool = if method.extracts() { Some(pool(sketches, options)?) } else { None };
    let steps = sketches.classes.len();
    let mut out = Vec::with_capacity(allotment.iter().sum::<usize>() * sketches.header.recipe.shape.len());
    let mut exact = vec![];
    for (done, ((label, sketch), count)) in sketches.classes.iter().zip(allotment).enumerate() {
        let (candidates, count) = (&sketch.reservoir.rows, *count);
        // A full reservoir: likely the class has more rows than were kept.
        if candidates.is_empty() || (candidates.len() >= kept && kept < count) {
            return Err(Error::Sketch(format!(
                "method => '{method}' chooses {count} real rows of class {label}, the sketch keeps {kept} a class; make it with \
                 reservoir_per_class => {count}"
            )));
        }
        let chosen = match &pool {
            None => (0..count.min(candidates.len())).collect(),
            Some(pool) => choose(method, count, options.seed, label, sketch, &Embedding::of(pool, sketch)?),
        };
        for row in chosen.iter().cycle().take(count) {
            candidates[*row].values.append_to(&mut out);
            exact.extend_from_slice(&candidates[*row].exact);
        }
        if observer(Progress { step: done + 1, steps, loss: None }).is_break() {
            return Err(Error::Cancelled);
        }
    }
    Ok((out, exact))
}

fn choose(
    method: Method,
    count: usize,
    seed: u64,
    label: &Label,
    sketch: &ClassSketch,
    embedding: &Embedding,
) -> Vec<usize> {
    let Embedding { features, mean } = embedding;
    let d = mean.len();
    match method {
        Method::Herding => select::herding(features, d, count, mean),
        Method::KCenter => select::k_center(features, d, count, mean),
        Method::KMeans => {
            let weights: Vec<f64> = sketch.reservoir.rows.iter().map(|row| row.copies as f64).collect();
            let mut draws = random::stream(seed, &format!("k-means of class {label}"));
            select::k_means(features, d, count, &weights, &mut draws)
        }
        Method::Auto | Method::Mean | Method::Characteristic | Method::Ridge | Method::Random => {
            (0..count.min(sketch.reservoir.rows.len())).collect()
        }
    }
}

/// What a class's candidates are compared by: the features of all extractors, one after the other.
///
/// Each extractor's features are divided by the length of the class's mean embedding of that extractor, so that all extractors weigh
/// alike. A factor a class, not a row: so the mean of *all* rows of the class, which the sketch has exactly, stays the mean (of features
/// normalised row by row it isn't known).
struct Embedding {
    /// `[candidates, extractors * feature_len]`.
    features: Vec<f32>,
    /// Of all rows of the class, `[extractors * feature_len]`.
    mean: Vec<f64>,
}

impl Embedding {
    /// Runs the candidates through the pool, a micro-batch at a time.
    fn of(pool: &Pool, sketch: &ClassSketch) -> Result<Self> {
        let members = pool.recipe().extractors;
        let mut mean: Vec<f64> = vec![];
        let mut factors = vec![];
        for member in 0..members {
            let of_member = sketch.mean(member);
            let length = of_member.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            // An extractor that gives zeros tells nothing, at any scale.
            let factor = if length > 0.0 { 1.0 / length } else { 1.0 };
            mean.extend(of_member.iter().map(|v| f64::from(*v) * factor));
            factors.push(factor as f32);
        }
        let feature_len = mean.len() / members.max(1);
        let wants = Wants { input: false, weights: false, parallel: true };
        let mut features = vec![0.0; sketch.reservoir.rows.len() * mean.len()];
        let batches = sketch.reservoir.rows.chunks(MICRO_BATCH);
        for (batch, to) in batches.zip(features.chunks_mut(MICRO_BATCH * mean.len().max(1))) {
            let mut values = vec![];
            batch.iter().for_each(|row| row.values.append_to(&mut values));
            let rows = pool.scale(&values)?;
            for (member, factor) in factors.iter().enumerate() {
                let of_member: Vec<f32> = pool.features(member, &rows, wants)?.flatten_all()?.to_vec1()?;
                let from = member * feature_len..(member + 1) * feature_len;
                for (to, row) in to.chunks_mut(mean.len().max(1)).zip(of_member.chunks(feature_len.max(1))) {
                    to[from.clone()].iter_mut().zip(row).for_each(|(to, v)| *to = v * factor);
                }
            }
        }
        Ok(Self { features, mean })
    }
}

/// Bytes of the largest class's features and centres, where the classes give `allotment` rows.
pub(super) fn working_bytes(sketches: &Sketches, options: &Options, allotment: &[usize]) -> usize {
    let recipe = &sketches.header.recipe;
    let length = recipe.extractors * recipe.feature_len();
    let candidates = sketches.classes.values().map(|sketch| sketch.reservoir.rows.len()).max().unwrap_or(0);
    let centres = allotment.iter().copied().max().unwrap_or(0).min(candidates);
    match options.method {
        Method::Herding | Method::KCenter => length * candidates * size_of::<f32>(),
        Method::KMeans => length * (candidates * size_of::<f32>() + centres * size_of::<f64>()),
        Method::Auto | Method::Mean | Method::Characteristic | Method::Ridge | Method::Random => 0,
    }
}
