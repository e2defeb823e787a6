//! Rows flow in, a sample of real ones or synthetic ones; a pool of extractors that were trained on them flows out.

mod refreshed;
mod sample;
mod training;

pub use refreshed::{pool_of_synthetic, working_bytes};
pub use sample::Sample;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::extract::{ConvNet, Pool, PoolRecipe};
use crate::options::{Options, PoolKind};
use crate::random;
use crate::rows::Shape;
use candle_core::Device;

use training::{Examples, Run, Snapshots};

/// Least passes over the rows of one training run.
const EPOCHS: usize = 10;

/// The share of a run's steps after which a network is early (Acc-DD, Zhang et al., CVPR 2023, uses two epochs of IDC's ten and more).
const EARLY: f64 = 0.1;

/// Size of the filter-wise perturbation of early networks (Acc-DD, section 3.3).
const PERTURBATION: f32 = 0.05;

/// Makes the pool that `recipe` says, of networks trained on `sample`, as option `pool` says:
///
/// - `trained`: four kinds in turn, as the diversity of a pool counts for more than how well its networks are trained: random ones; half-way between
///   random and trained weights (NCFM, Wang et al., CVPR 2025, section 4.1, mixes them by chance); early ones; trained ones. Those of one training run are
///   three extractors.
/// - `early`: early ones, each perturbed filter by filter by noise of the filter's size (Acc-DD, Zhang et al., CVPR 2023, equation 5), four of a run.
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
        ConvNet::random(input, recipe.width, recipe.depth, &mut random::stream(seed, &format!("extractor {n}")), device)
    };
    let count = recipe.extractors.div_ceil(OF_RUN);
    // Where there are fewer runs than threads, the rows of a step are spread over them; the bits are the same.
    let parallel = count < rayon::current_num_threads();
    let early = options.pool == PoolKind::Early;
    let epochs = EPOCHS.max(steps.div_ceil(examples.rows.len().div_ceil(training::BATCH).max(1)));
    let run = Run { recipe, examples, epochs, seed, device, parallel, early, cancel };
    let runs: Vec<Snapshots> =
        (0..count).into_par_iter().map(|r| run.train(r, network(OF_RUN * r)?)).collect::<Result<_>>()?;
    let nets = (0..recipe.extractors).map(|n| {
        let snapshots = &runs[n / OF_RUN];
        match (options.pool, n % OF_RUN) {
            (PoolKind::Early, i) => training::perturbed(&snapshots.early, PERTURBATION * i as f32, seed, n),
            (_, 0) => Ok(snapshots.trained.clone()),
            (_, 1) => network(n),
            (_, 2) => training::between(&snapshots.start, &snapshots.trained, 0.5),
            _ => Ok(snapshots.early.clone()),
        }
    });
    Pool::of_networks(recipe, nets.collect::<Result<_>>()?, seed, device)
}

/// Extractors that one training run is for.
const OF_RUN: usize = 4;

#[cfg(test)]
mod tests;
