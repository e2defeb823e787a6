//! A sketch flows in, synthetic rows flow out.

mod allotment;
mod batch;
mod descent;
mod init;
mod kept;
mod labels;
mod missing;
mod optimizer;
mod recipe;
mod selection;
mod teacher;
mod unpack;
mod unroll;

pub use batch::output_schema;
pub use init::Warm;
pub use labels::SoftLabels;
pub use optimizer::{Adam, Optimizer, Sgd};
pub use recipe::Recipe;

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::extract::{self, Pool};
use crate::objective::{Calibration, Characteristic, Groups, Ridge, one_hot};
use crate::options::{Options, Term};
use crate::rows::{Label, Mosaic, Rows, Shape};
use crate::sketch::Sketches;

/// Synthetic rows, sorted by label, in the input's units.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// The shape of every row.
    pub shape: Shape,
    /// `[labels.len(), shape.len()]`; with option `mosaic`, some of them hold several pictures, as `sides` says.
    pub values: Vec<f32>,
    /// Of real rows that were chosen, their numbers as they were read; see [`Rows::exact`](crate::rows::Rows::exact).
    pub exact: Vec<u8>,
    /// One label a row.
    pub labels: Vec<Label>,
    /// Of each row its shares of the classes, in the order of the sketches' labels, where labels are learned; `labels` have the largest ones. Of rows that hold several
    /// pictures, those of each picture.
    pub soft: Option<SoftLabels>,
    /// Pictures a side that each row holds; 1 where it is one.
    pub sides: Vec<usize>,
    /// How many real rows of its class each row stands for.
    pub weights: Vec<f64>,
}

/// How far the job is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done, also while networks are trained on kept rows, or look at them, for the next ones; classes done where real rows are chosen.
    pub step: usize,
    /// Steps in all, or classes.
    pub steps: usize,
    /// The loss of this step; `None` where real rows are chosen, and where none was taken since it was told before.
    pub loss: Option<f64>,
}

/// Makes `options.ipc` rows a class, or `options.rows` in all, from `sketches` on the current rayon pool; `observer` is called after each
/// step and can break off ([`crate::Error::Cancelled`]).
///
/// The method decides how:
/// - optimized: each step takes one extractor of the pool, all in turn, in shuffled passes. The rows that come out are those, of about
///   twenty states on the way, the start and the end among them, whose loss over a few extractors is lowest. A class gets its rows also
///   where it has fewer real ones (see option `init`). Steps of unrolled training follow, as option `unroll` says.
/// - chosen: rows of each class's reservoir, exactly as they were read; a class with fewer distinct rows than it is to give has them
///   again, in turn. The observer is called after each class.
pub fn synthesize(
    sketches: &Sketches,
    options: &Options,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Synthetic> {
    synthesize_from(sketches, options, None, observer)
}

/// [`synthesize`], with the rows `start`, in the input's units, in place of what `init` says: of a class as many as it is to get that hold as many pictures; where
/// there are fewer of it, the others start as `init` says. Labels that no sketch has are passed over.
pub fn synthesize_from(
    sketches: &Sketches,
    options: &Options,
    start: Option<&Warm>,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Synthetic> {
    // Said here, as later passes come in by `synthesize_on`: once a job.
    let mosaic = Mosaic::new(options.mosaic, sketches.header.recipe.shape)?;
    if let Some(coarse) = mosaic.filter(|mosaic| mosaic.is_coarse() && options.mosaic_rows != Some(0)) {
        let (height, width) = coarse.tile();
        tracing::warn!(
            "mosaic => {} leaves {height}x{width} pixels of each picture: plain rows, mosaic => 1, are likely to teach more",
            options.mosaic
        );
    }
    synthesize_at(sketches, options, Start { rows: start, soft: None }, observer)
}

/// [`synthesize`] from the rows `made` by an earlier pass, and their soft labels where these are learned: option `passes`. The sketches are of the same rows, by
/// other extractors. Fails where their classes ask for other rows.
pub fn synthesize_on(
    sketches: &Sketches,
    options: &Options,
    made: Synthetic,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Synthetic> {
    let Synthetic { shape, values, labels, soft, sides, .. } = made;
    let rows = Rows { shape, values, labels, exact: vec![], skipped: 0 };
    let allotment = allotment::of(sketches, options)?;
    if !labels_of(sketches, &allotment).eq(&rows.labels) {
        return Err(Error::Data(
            "the rows changed between two passes: their classes aren't as many or as large as before; use passes => 1, or a source that gives the \
             same rows each time it is read"
                .into(),
        ));
    }
    let start = Start { rows: Some(&Warm { rows, sides }), soft: soft.as_ref() };
    synthesize_at(sketches, options, start, observer)
}

/// What rows start from, where it isn't what `init` says.
#[derive(Clone, Copy)]
struct Start<'a> {
    rows: Option<&'a Warm>,
    soft: Option<&'a SoftLabels>,
}

fn synthesize_at(
    sketches: &Sketches,
    options: &Options,
    start: Start,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Synthetic> {
    options.check()?;
    check(sketches)?;
    let allotment = allotment::of(sketches, options)?;
    let sides: Vec<usize> = allotment.iter().flat_map(|rows| options.sides(*rows)).collect();
    // None where no row is to hold several.
    let mosaic = Mosaic::new(sides.iter().copied().max().unwrap_or(1), sketches.header.recipe.shape)?;
    let decoded: Vec<usize> = allotment.iter().map(|rows| options.pictures(*rows)).collect();
    let (values, exact, soft) = if options.method.selects() {
        let (values, exact) = selection::rows(sketches, options, &decoded, observer)?;
        match mosaic {
            Some(mosaic) => (mosaic.pack_each(&values, &sides), vec![], None),
            None => (values, exact, None),
        }
    } else {
        let (values, soft) = optimized(sketches, options, (&allotment, &sides), mosaic, start, observer)?;
        (values, vec![], soft)
    };
    let weight = |count: u64, rows: usize| count as f64 / rows as f64;
    let classes = sketches.classes.values().zip(&allotment);
    Ok(Synthetic {
        shape: sketches.header.recipe.shape,
        values,
        exact,
        labels: labels_of(sketches, &allotment).cloned().collect(),
        soft,
        sides,
        weights: classes.flat_map(|(sketch, n)| std::iter::repeat_n(weight(sketch.count, *n), *n)).collect(),
    })
}

/// The label of each of `allotment` rows of each class.
fn labels_of<'a>(sketches: &'a Sketches, allotment: &'a [usize]) -> impl Iterator<Item = &'a Label> {
    sketches.classes.keys().zip(allotment).flat_map(|(label, rows)| std::iter::repeat_n(label, *rows))
}

/// Optimized rows in the input's units, `allotment` of each class as they are stored, of which row i holds `sides[i]` pictures a side.
fn optimized(
    sketches: &Sketches,
    options: &Options,
    (allotment, sides): (&[usize], &[usize]),
    mosaic: Option<Mosaic>,
    start: Start,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<f32>, Option<SoftLabels>)> {
    let decoded: Vec<usize> = allotment.iter().map(|rows| options.pictures(*rows)).collect();
    let groups = Groups::new(&decoded);
    let recipe = recipe(sketches, options, allotment)?;
    let steps = recipe.steps + recipe.unroll;
    let mut values = init::rows(sketches, options, allotment, mosaic, start.rows)?;
    let mut soft = match start.soft.filter(|_| options.learns_labels()) {
        Some(soft) => Some(soft.clone()),
        None if options.learns_labels() => {
            Some(SoftLabels::of(&one_hot(&groups, &candle_core::Device::Cpu)?, &groups)?)
        }
        None => None,
    };
    if steps > 0 || options.has_teacher() {
        let pool = pool(sketches, options)?;
        let unpack = descent::unpack(mosaic, sides, &pool)?;
        let teacher = options.has_teacher().then(|| teacher::Teacher::new(sketches, &pool)).transpose()?;
        let taught = |values: &[f32]| teacher.as_ref().map(|t| t.labels(values, unpack.as_ref(), &groups)).transpose();
        // Before the first step: what can't be unrolled should say so at once.
        let unroll = match recipe.unroll {
            0 => None,
            _ => Some(unroll::Unroll::new(sketches, options, &recipe, &pool, &groups, unpack.clone())?),
        };
        if recipe.steps > 0 {
            let mut observer = |progress: Progress| observer(Progress { steps, ..progress });
            // Declared first: the descent borrows it.
            let further;
            let mut descent = descent::Descent::new(sketches, options, &recipe, &pool, groups.clone(), unpack.clone())?;
            if options.kept_extractors > 0 {
                let mut going = || match observer(Progress { step: 0, steps, loss: None }) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::Cancelled),
                };
                let (of_kept, their_pool) = kept::sketches(sketches, options, pool.device(), &mut going)?;
                further = their_pool;
                descent = descent.join(&of_kept, &further)?;
            }
            (values, soft) = descent.run(values, start.soft, &mut observer)?;
        }
        if let Some(unroll) = unroll {
            // Networks are tried with the labels that will be there, as far as they are known; learned ones start anew.
            let given = if options.learns_labels() { None } else { taught(&values)? };
            (values, soft) = unroll.run(values, given, (recipe.steps, steps), observer)?;
        }
        soft = match (soft, taught(&values)?) {
            (Some(learned), Some(taught)) => Some(learned.mean(&taught)),
            (learned, taught) => taught.or(learned),
        };
    }
    Ok((missing::reproduced(sketches, allotment, values), soft))
}

/// Steps that [`synthesize`] takes: those of the optimizer, and those of unrolled training after them. None where real rows are chosen.
pub(crate) fn steps(sketches: &Sketches, options: &Options) -> Result<(usize, usize)> {
    if options.method.selects() {
        return Ok((0, 0));
    }
    let recipe = recipe(sketches, options, &allotment::of(sketches, options)?)?;
    Ok((recipe.steps, recipe.unroll))
}

/// How `allotment` rows of each class are optimized.
fn recipe(sketches: &Sketches, options: &Options, allotment: &[usize]) -> Result<Recipe> {
    let stored = allotment.iter().sum::<usize>();
    let mut recipe = Recipe::choose(options, &sketches.header, stored.div_ceil(allotment.len().max(1)))?;
    if options.unroll.is_none() && sketches.classes.values().any(|sketch| sketch.reservoir.rows.is_empty()) {
        // All that were kept of a class have been taken back: nothing to try networks on, and nobody asked for it.
        recipe.unroll = 0;
    }
    Ok(recipe)
}

/// The extractors that `sketches` were made with.
fn pool(sketches: &Sketches, options: &Options) -> Result<Pool> {
    let header = &sketches.header;
    let pool = Pool::build_for(&header.recipe, &extract::device(&options.device)?, options)?;
    if pool.fingerprint() != header.pool {
        return Err(Error::Sketch(format!(
            "the pool it was made with had fingerprint {}, the one built from its recipe has {}: the pool file has changed, or another \
             version of this crate made the sketch; make the sketch again",
            header.pool,
            pool.fingerprint()
        )));
    }
    Ok(pool)
}

/// Bytes of memory that [`synthesize`] works in, beside the sketches. Fails where there are fewer rows than classes.
pub(crate) fn working_bytes(sketches: &Sketches, options: &Options) -> Result<usize> {
    let allotment = allotment::of(sketches, options)?;
    let networks = sketches.header.recipe.network_bytes(!options.method.selects());
    let count = allotment.iter().map(|rows| options.pictures(*rows)).sum::<usize>();
    let rows = count * sketches.header.recipe.input_shape().len() * size_of::<f32>();
    let (header, classes) = (&sketches.header, sketches.classes.len());
    let term_bytes = |term: Term| match term {
        Term::Ridge => Ridge::bytes_of(header, classes),
        Term::Calibration => Calibration::bytes_of(header, classes),
        Term::Characteristic => {
            Characteristic::bytes_of(header, classes) + Characteristic::learned_bytes(sketches, options, count)
        }
        Term::Mean => 0,
    };
    let teacher_bytes = if options.has_teacher() { Calibration::bytes_of(header, classes) } else { 0 };
    let objective_bytes: usize =
        teacher_bytes + options.loss_terms().0.iter().map(|(term, _)| term_bytes(*term)).sum::<usize>();
    let kept = if options.kept_extractors > 0 { kept::working_bytes(sketches, options) } else { 0 };
    let unrolled = match options.method.selects() {
        true => 0,
        false => match recipe(sketches, options, &allotment)? {
            Recipe { unroll: 0, .. } => 0,
            recipe => unroll::working_bytes(sketches, &recipe, count)?,
        },
    };
    Ok(match options.method.selects() {
        true => networks + rows + selection::working_bytes(sketches, options, &allotment),
        // The rows, their gradients, the optimizer's two moments and the best state.
        // Where some hold several, pictures are put in order twice.
        false => networks + (if options.mixes_mosaics() { 7 } else { 5 }) * rows + objective_bytes + kept + unrolled,
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
