//! Kept real rows flow in; sketches of some of them by a further pool, of many small networks, flow out.
//!
//! More networks teach rows more (docs/results.md), but all real rows can't be put through so many. Those
//! that are kept can.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use crate::error::Result;
use crate::extract::{Pool, PoolRecipe, Source};
use crate::objective::Characteristic;
use crate::options::{AUGMENTS, Moments, Options, Term, tried_on};
use crate::rows::{Rows, Shape};
use crate::sketch::{ClassSketch, Header, MICRO_BATCH, Sketcher, Sketches};

/// Channels of a network for pictures.
const WIDTH: usize = 16;

/// Sketches of rows that `sketches` keep, of each class the first, each once, by as many further networks as `options` say, on `device`; they keep no rows themselves. `going` is asked before
/// each micro-batch, and its error ends it. Fails where a class keeps no rows.
pub(super) fn sketches(
    sketches: &Sketches,
    options: &Options,
    device: &Device,
    going: &mut dyn FnMut() -> Result<()>,
) -> Result<(Sketches, Arc<Pool>)> {
    let header = &sketches.header;
    let shape = header.recipe.shape;
    let most = tried_on(shape);
    sketches.check_kept("for further networks", most, "kept_extractors => 0")?;
    let pool = Arc::new(Pool::build(&recipe(header, options), device)?);
    let sketcher = Sketcher::new(Arc::clone(&pool), &asked(header, options))?;
    let mut classes = vec![ClassSketch::empty(sketcher.header()); sketches.classes.len()];
    for (class, (label, sketch)) in sketches.classes.iter().enumerate() {
        for part in sketch.reservoir.first(most).chunks(MICRO_BATCH) {
            going()?;
            let mut values = Vec::with_capacity(part.len() * shape.len());
            part.iter().for_each(|row| row.values.append_to(&mut values));
            let rows = Rows { shape, values, labels: vec![label.clone(); part.len()], exact: vec![], skipped: 0 };
            sketcher.fold(&rows, &vec![class; part.len()], &mut classes, &AtomicBool::new(false))?;
        }
    }
    let classes = sketches.classes.keys().cloned().zip(classes).collect();
    Ok((Sketches { header: sketcher.header().clone(), classes }, pool))
}

/// Bytes of memory that the further networks and their sketches take.
pub(super) fn working_bytes(sketches: &Sketches, options: &Options) -> usize {
    let recipe = recipe(&sketches.header, options);
    let (networks, frequencies) = (recipe.network_bytes(true), frequencies(&sketches.header, options));
    let header = Header { recipe, frequencies, moments: None, reservoir: 0, ..sketches.header.clone() };
    let classes = sketches.classes.len();
    networks + Characteristic::bytes_of(&header, classes) + classes * ClassSketch::bytes_of(&header)
}

/// Of pictures: narrow ConvNets, each with a transform of its own. Of other rows: networks as the sketches'.
fn recipe(header: &Header, options: &Options) -> PoolRecipe {
    let (width, augment) = match header.recipe.shape {
        Shape::Picture { .. } if header.recipe.augment == "none" => (WIDTH, AUGMENTS.join("_")),
        Shape::Picture { .. } => (WIDTH, header.recipe.augment.clone()),
        Shape::Vector { .. } => (header.recipe.width, header.recipe.augment.clone()),
    };
    let source = Source::Random { seed: seed(options) };
    PoolRecipe { source, extractors: options.kept_extractors, width, augment, ..header.recipe.clone() }
}

/// Never the seed of another pool: those that are given have 63 bits.
fn seed(options: &Options) -> u64 {
    options.seed ^ (1 << 63)
}

/// Of the characteristic function, where the loss looks at it.
fn frequencies(header: &Header, options: &Options) -> usize {
    if options.loss_terms().has(Term::Characteristic) { header.frequencies } else { 0 }
}

/// Options for sketches like those with `header`, without moments and rows.
fn asked(header: &Header, options: &Options) -> Options {
    Options {
        frequencies: Some(frequencies(header, options)),
        frequency_scales: header.frequency_scales.clone(),
        moments: Some(Moments::None),
        reservoir_per_class: Some(0),
        unroll: None,
        seed: seed(options),
        ..options.clone()
    }
}
