//! Rows flow in, a sample of real ones or synthetic ones; a pool of extractors that were trained on them flows out.

mod refreshed;
mod sample;
mod training;

pub use refreshed::{pool_of_synthetic, working_bytes};
pub use sample::Sample;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::extract::{ConvNet, Pool, PoolRecipe, sizes};
use crate::options::{Options, PoolKind, Sizes};
use crate::random;
use crate::rows::Shape;
use candle_core::Device;

use training::{Examples, Run, Snapshots};

/// Least passes over the rows of one training run.
const EPOCHS: usize = 10;

/// The share of a run's steps after which a network is early (Acc-DD, Zhang et al., CVPR 2023, uses two epochs of IDC's ten and more).
const EARLY: f64 = 0.1;

/// Size of the filter-wise perturbation of early networks (Acc-DD, section 3.3), where option `perturb` doesn't say.
const PERTURBATION: f32 = 0.05;

/// Makes the pool that `recipe` says, of networks trained on `sample`, as option `pool` says:
///
/// - `trained`: four kinds in turn, as the diversity of a pool counts for more than how well its networks are trained: random ones; half-way between
///   random and trained weights (NCFM, Wang et al., CVPR 2025, section 4.1, mixes them by chance); early ones; trained ones. Those of one training run are
///   three extractors.
/// - `early`: early ones, each perturbed filter by filter by noise of the filter's size (Acc-DD, Zhang et al., CVPR 2023, equation 5), four of a run.
///
/// The first extractor of four is as it was trained, the others are moved by one, two and three times what option `perturb` says, each in its own direction;
/// random ones, of which each has its own already, aren't. Extractors of one run have one size; of mixed sizes each has a run of its own, for the four
/// of every sixteen that have it. Training is the same whichever `layers` are read: it looks at the last block.
///
/// Runs on the current rayon pool; the weights don't depend on its size. Fails for rows that aren't pictures and for a sample of one class.
pub fn pool(recipe: &PoolRecipe, sample: &Sample, options: &Options, device: &Device) -> Result<Pool> {
    let examples = Examples { rows: sample.rows().collect(), classes: sample.classes(), shares: None };
    pool_of(recipe, &examples, options, device, Duration { steps: 0, cancel: &AtomicBool::new(false) })
}

/// How long training runs last.
struct Duration<'a> {
    /// Steps, at least.
    steps: usize,
    /// Ends them, with [`Error::Cancelled`], before the next step.
    cancel: &'a AtomicBool,
}

fn pool_of(
    recipe: &PoolRecipe,
    examples: &Examples,
    options: &Options,
    device: &Device,
    Duration { steps, cancel }: Duration,
) -> Result<Pool> {
    let Shape::Picture { channels, height, width } = recipe.input_shape() else {
        let message = format!("'{}' is for pictures, and a row is a {}; use 'random'", options.pool, recipe.shape);
        return Err(Error::option("pool", message));
    };
    if examples.classes < 2 {
        return Err(Error::Data("extractors can't be trained on rows of fewer than two classes".into()));
    }
    let input = [channels, height, width];
    let seed = options.seed;
    let network = |n: usize| {
        let (width, depth) = recipe.size_of(n);
        ConvNet::random(input, width, depth, &mut random::stream(seed, &format!("extractor {n}")), device)
    };
    let early = options.pool == PoolKind::Early;
    let is_random = |n: usize| !early && n % OF_RUN == 1;
    // Each run starts from the random network of its first extractor.
    let mut starts = BTreeMap::new();
    for n in (0..recipe.extractors).filter(|n| !is_random(*n)) {
        starts.entry(run_of(recipe, n)).or_insert(n);
    }
    // Where there are fewer runs than threads, the rows of a step are spread over them; the bits are the same.
    let parallel = starts.len() < rayon::current_num_threads();
    let epochs = EPOCHS.max(steps.div_ceil(examples.rows.len().div_ceil(training::BATCH).max(1)));
    let run = Run { recipe, examples, epochs, seed, device, parallel, early, cancel };
    let runs: BTreeMap<usize, Snapshots> =
        starts.into_par_iter().map(|(r, n)| Ok((r, run.train(r, network(n)?)?))).collect::<Result<_>>()?;
    let default = if early { PERTURBATION } else { 0.0 };
    let perturb = options.perturb.map_or(default, |size| size as f32);
    let nets = (0..recipe.extractors).map(|n| {
        let Some(snapshots) = runs.get(&run_of(recipe, n)).filter(|_| !is_random(n)) else { return network(n) };
        let net = match (options.pool, n % OF_RUN) {
            (PoolKind::Early, _) | (_, 3) => snapshots.early.clone(),
            (_, 2) => training::between(&snapshots.start, &snapshots.trained, 0.5)?,
            _ => snapshots.trained.clone(),
        };
        let size = perturb * (n % OF_RUN) as f32;
        if early || size > 0.0 { training::perturbed(&net, size, seed, n) } else { Ok(net) }
    });
    Pool::of_networks(recipe, nets.collect::<Result<_>>()?, seed, device)
}

/// Extractors that one training run is for.
const OF_RUN: usize = 4;

/// The training run that extractor `n` is of.
fn run_of(recipe: &PoolRecipe, n: usize) -> usize {
    match recipe.sizes {
        Sizes::Same => n / OF_RUN,
        Sizes::Mixed => n / (OF_RUN * sizes::SIZES) * sizes::SIZES + sizes::turn(n),
    }
}

#[cfg(test)]
mod tests;
