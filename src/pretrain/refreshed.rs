//! Synthetic rows flow in; the pool that the next pass sketches with, of networks that were trained on them, flows out.
//!
//! FRePo (Zhou et al., NeurIPS 2022, section 3.3) matches under networks that it trains on the synthetic rows as it goes: their features are those that whoever trains
//! on these rows will see, which features of random networks, or of such as know the real rows, are not. A sketch's networks are frozen, so here they are
//! renewed between scans.

use std::sync::atomic::AtomicBool;

use candle_core::Device;

use super::training::{BATCH, Examples};
use super::{Duration, OF_RUN, pool_of};
use crate::error::Result;
use crate::extract::{Pool, PoolRecipe};
use crate::kernels::LARGEST_BLOCK;
use crate::options::Options;
use crate::rows::{Shape, unpack_each};
use crate::sketch::Numbers;
use crate::synthesize::Synthetic;

/// Least steps of a training run: synthetic rows are few, and ten passes over them teach nothing. Runs that evaluate such rows have some 300, of which the last ones
/// change little.
const STEPS: usize = 200;

/// The pool that `recipe` says, of networks trained on `synthetic` rows, pictures unpacked where they hold several, by their soft labels where they
/// have any; of the kinds that [`pool`](super::pool) makes. What is random about it is drawn from `options.seed`, which should be another than that of the pool before.
///
/// Runs on the current rayon pool; the weights don't depend on its size. Fails for rows that aren't pictures, and with [`Error::Cancelled`](crate::Error::Cancelled)
/// once `cancel` is set.
pub fn pool_of_synthetic(
    recipe: &PoolRecipe,
    synthetic: &Synthetic,
    options: &Options,
    device: &Device,
    cancel: &AtomicBool,
) -> Result<Pool> {
    let unpacked;
    let values = if synthetic.sides.iter().any(|side| *side > 1) {
        unpacked = unpack_each(&synthetic.values, synthetic.shape, &synthetic.sides)?;
        &unpacked
    } else {
        &synthetic.values
    };
    // Rows are sorted by label.
    let numbers = synthetic.labels.iter().scan((None, 0), |(last, number), label| {
        *number += u32::from(last.is_some_and(|last| last != label));
        *last = Some(label);
        Some(*number)
    });
    let numbers: Vec<u32> =
        numbers.zip(&synthetic.sides).flat_map(|(number, side)| std::iter::repeat_n(number, side * side)).collect();
    let classes = numbers.last().map_or(0, |last| *last as usize + 1);
    let shares = synthetic.soft.as_ref().map(|soft| soft.shares.as_slice());
    let values: Vec<Numbers> = values.chunks_exact(synthetic.shape.len().max(1)).map(Numbers::of).collect();
    let rows = values.iter().zip(numbers).collect();
    pool_of(recipe, &Examples { rows, classes, shares }, options, device, Duration { steps: STEPS, cancel })
}

/// Bytes that [`pool_of_synthetic`] works in for `rows` rows, as networks see them: the rows, the weights of runs and of what comes of them, and what the runs that go on at
/// once hold of a batch, of pictures padded by up to 3 pixels.
pub fn working_bytes(recipe: &PoolRecipe, rows: usize, threads: usize) -> usize {
    let within = match recipe.input_shape() {
        Shape::Picture { height, width, .. } => {
            2 * recipe.width.next_multiple_of(LARGEST_BLOCK) * (height + 6) * (width + 6)
        }
        Shape::Vector { len } => len,
    };
    let runs = recipe.extractors.div_ceil(OF_RUN).min(threads);
    let batches = runs * rows.min(BATCH) * within;
    size_of::<f32>() * (rows * recipe.shape.len() + batches) + 3 * recipe.network_bytes(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::rows::Label;
    use crate::synthesize::SoftLabels;

    const SHAPE: Shape = Shape::Picture { channels: 1, height: 8, width: 8 };

    fn synthetic() -> Synthetic {
        let noise = random::normal(&mut random::stream(2, "test"), 6 * 64);
        let bright = |row: usize, i: usize| if (i / 32 == 0) == (row < 3) { 120.0 } else { 0.0 };
        let values = (0..6 * 64).map(|i| (60.0 + bright(i / 64, i % 64) + 10.0 * noise[i]).clamp(0.0, 255.0)).collect();
        let labels = (0..6).map(|row| Label::Int(row / 3 * 7)).collect();
        Synthetic { shape: SHAPE, values, exact: vec![], labels, soft: None, sides: vec![1; 6], weights: vec![1.0; 6] }
    }

    fn made(synthetic: &Synthetic, options: &Options) -> Pool {
        let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), options).unwrap();
        pool_of_synthetic(&recipe, synthetic, options, &Device::Cpu, &AtomicBool::new(false)).unwrap()
    }

    fn options() -> Options {
        Options { extractors: Some(4), width: Some(8), depth: Some(1), ..Options::default() }
    }

    #[test]
    fn another_seed_other_rows_and_other_labels_make_another_pool_and_threads_do_not() {
        let (rows, options) = (synthetic(), options());
        let fingerprint = |rows: &Synthetic, options: &Options| made(rows, options).fingerprint().to_string();
        let first = fingerprint(&rows, &options);
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(threads.install(|| fingerprint(&rows, &options)), first);
        assert_ne!(fingerprint(&rows, &Options { seed: 1, ..options.clone() }), first);
        let mut brighter = rows.clone();
        brighter.values.iter_mut().for_each(|v| *v *= 0.9);
        assert_ne!(fingerprint(&brighter, &options), first);
        let shares = |own: f32| -> Vec<f32> {
            (0..6).flat_map(|row| if row < 3 { [own, 1.0 - own] } else { [1.0 - own, own] }).collect()
        };
        let soft = |own| Synthetic { soft: Some(SoftLabels { shares: shares(own), classes: 2 }), ..rows.clone() };
        assert_ne!(fingerprint(&soft(0.6), &options), first);
    }

    #[test]
    fn shares_that_are_one_class_give_the_gradient_of_that_class() {
        let rows = synthetic();
        let logits = candle_core::Var::from_slice(&[0.5f32, -1.0, 2.0, 0.1, -0.3, 0.7], (3, 2), &Device::Cpu).unwrap();
        let shares = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
        let of = |shares| {
            let numbers = [0u32, 0, 0, 1, 1, 1];
            let values: Vec<Numbers> = rows.values.chunks(64).map(Numbers::of).collect();
            let rows = values.iter().zip(numbers).collect();
            let examples = Examples { rows, classes: 2, shares };
            let loss = examples.loss(logits.as_tensor(), &[1, 4, 5], &Device::Cpu).unwrap();
            let gradients = loss.backward().unwrap();
            gradients.get(&logits).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (hard, soft) = (of(None), of(Some(&shares[..])));
        assert!(hard.iter().zip(&soft).all(|(a, b)| (a - b).abs() < 1e-6), "{hard:?} {soft:?}");
    }

    #[test]
    fn a_mosaic_is_trained_on_as_it_decodes() {
        // Two rows that hold four, and one whole one, of each class.
        let rows = Synthetic { sides: vec![2, 2, 1, 2, 2, 1], ..synthetic() };
        let labels =
            rows.labels.iter().zip(&rows.sides).flat_map(|(l, side)| std::iter::repeat_n(l.clone(), side * side));
        let values = unpack_each(&rows.values, SHAPE, &rows.sides).unwrap();
        let unpacked = Synthetic { values, labels: labels.collect(), sides: vec![1; 18], ..rows.clone() };
        assert_eq!(made(&rows, &options()).fingerprint(), made(&unpacked, &options()).fingerprint());
    }

    #[test]
    fn a_set_flag_ends_the_training() {
        let options = options();
        let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap();
        let error = pool_of_synthetic(&recipe, &synthetic(), &options, &Device::Cpu, &AtomicBool::new(true));
        assert!(matches!(error, Err(crate::error::Error::Cancelled)));
    }
}
