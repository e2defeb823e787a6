//! A sketch flows in, synthetic rows flow out.

mod descent;
mod init;
mod missing;
mod optimizer;
mod recipe;

pub use optimizer::{Adam, Optimizer, Sgd};
pub use recipe::{Recipe, Term};

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::extract::{self, Pool};
use crate::options::Options;
use crate::rows::{Label, Shape};
use crate::sketch::Sketches;

/// Synthetic rows, sorted by label, in the input's units.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// The shape of every row.
    pub shape: Shape,
    /// `[labels.len(), shape.len()]`.
    pub values: Vec<f32>,
    /// One label a row.
    pub labels: Vec<Label>,
}

/// How far the optimizer is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss of this step.
    pub loss: f64,
}

/// Optimizes `options.ipc` rows a class against `sketches` on the current rayon pool; `observer` is called after each step and can break
/// off ([`crate::Error::Cancelled`]).
///
/// Each step takes one extractor of the pool, all in turn, in shuffled passes. The rows that come out are those, of about twenty
/// states on the way, the start and the end among them, whose loss over a few extractors is lowest. Every class gets `ipc` rows, also one with fewer real rows
/// (see option `init`).
pub fn synthesize(
    sketches: &Sketches,
    options: &Options,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Synthetic> {
    options.check()?;
    check(sketches)?;
    let header = &sketches.header;
    let recipe = Recipe::choose(options, header)?;
    let start = init::rows(sketches, options)?;
    let values = if recipe.steps == 0 {
        start
    } else {
        let device = extract::device(&options.device)?;
        let pool = Pool::build(&header.recipe, &device)?;
        if pool.fingerprint() != header.pool {
            return Err(Error::Sketch(format!(
                "the pool it was made with had fingerprint {}, the one built from its recipe has {}: the pool file has changed, or another \
                 version of this crate made the sketch; make the sketch again",
                header.pool,
                pool.fingerprint()
            )));
        }
        descent::Descent::new(sketches, options, &recipe, &pool)?.run(start, observer)?
    };
    Ok(Synthetic {
        shape: header.recipe.shape,
        values: missing::reproduced(sketches, options.ipc, &values),
        labels: sketches.classes.keys().flat_map(|l| std::iter::repeat_n(l.clone(), options.ipc)).collect(),
    })
}

fn check(sketches: &Sketches) -> Result<()> {
    match sketches.classes.len() {
        0 => return Err(Error::Data("no rows to distill: the source is empty, or a filter leaves nothing".into())),
        1 => {
            let label = sketches.classes.keys().next().map(Label::to_string).unwrap_or_default();
            return Err(Error::Data(format!(
                "all rows have the same label, {label}: distillation needs at least two classes; is this the right label column?"
            )));
        }
        _ => {}
    }
    match sketches.classes.iter().find(|(_, sketch)| sketch.count == 0) {
        Some((label, _)) => Err(Error::Data(format!("class {label} has no rows; leave its sketch out"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
