use super::*;
use crate::kernels::Wants;
use crate::rows::{Label, Rows};

const SHAPE: Shape = Shape::Picture { channels: 1, height: 8, width: 8 };

/// Pictures of two classes, bright above or below.
fn sample() -> Sample {
    let noise = random::normal(&mut random::stream(1, "test"), 40 * 64);
    let bright = |row: usize, i: usize| (i / 32 == row % 2) as u8 as f32 * 120.0;
    let values = (0..40 * 64).map(|i| (60.0 + bright(i / 64, i % 64) + 10.0 * noise[i]).clamp(0.0, 255.0)).collect();
    let labels = (0..40).map(|i| Label::Int(i % 2)).collect();
    let mut sample = Sample::new(20, 0);
    sample.offer(&Rows { shape: SHAPE, values, labels, exact: vec![], skipped: 0 });
    sample
}

fn made(kind: PoolKind, extractors: usize) -> Pool {
    let options =
        Options { pool: kind, extractors: Some(extractors), width: Some(8), depth: Some(1), ..Options::default() };
    let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap();
    pool(&recipe, &sample(), &options, &Device::Cpu).unwrap()
}

/// Mean distance of the classes' features over the distance of rows to their class's mean: how well extractor `n` tells them apart.
fn separation(pool: &Pool, n: usize) -> f64 {
    let sample = sample();
    let values: Vec<f32> = sample.rows().flat_map(|(row, _)| row).copied().collect();
    let wants = Wants { input: false, weights: false, parallel: false };
    let features = pool.features(n, &pool.scale(&values).unwrap(), wants).unwrap().to_vec2::<f32>().unwrap();
    let mean = |rows: &[Vec<f32>]| -> Vec<f64> {
        (0..rows[0].len()).map(|j| rows.iter().map(|r| f64::from(r[j])).sum::<f64>() / rows.len() as f64).collect()
    };
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let (of, means) = ([&features[..20], &features[20..]], [mean(&features[..20]), mean(&features[20..])]);
    let within = |c: usize| {
        let row = |r: &Vec<f32>| square(&r.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), &means[c]);
        of[c].iter().map(row).sum::<f64>() / 20.0
    };
    square(&means[0], &means[1]) / (within(0) + within(1))
}

#[test]
fn a_trained_pool_is_of_four_kinds_and_training_pulls_the_classes_apart() {
    let pool = made(PoolKind::Trained, 4);
    let [trained, random, half, _early] = [0, 1, 2, 3].map(|n| separation(&pool, n));
    let options = Options { extractors: Some(2), width: Some(8), depth: Some(1), ..Options::default() };
    let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap();
    let start = Pool::build(&recipe, &Device::Cpu).unwrap();
    assert_eq!(random, separation(&start, 1));
    assert!(
        trained > separation(&start, 0) && half > separation(&start, 0),
        "{trained} {half} {}",
        separation(&start, 0)
    );
}

#[test]
fn early_extractors_of_one_run_are_perturbed_each_in_its_own_way() {
    let pool = made(PoolKind::Early, 3);
    let fingerprints = [1, 2, 3].map(|n| made(PoolKind::Early, n).fingerprint().to_string());
    assert_eq!(pool.fingerprint(), fingerprints[2]);
    let values: Vec<f64> = [0, 1, 2].map(|n| separation(&pool, n)).to_vec();
    assert!(values[0] != values[1] && values[1] != values[2], "{values:?}");
}

#[test]
fn the_weights_are_the_same_for_any_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| made(PoolKind::Trained, 6).fingerprint().to_string())
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn what_can_not_be_trained_is_refused() {
    let options = Options { pool: PoolKind::Trained, ..Options::default() };
    let vector = PoolRecipe::choose(Shape::Vector { len: 6 }, (0.0, 1.0), &options).unwrap();
    let e = pool(&vector, &sample(), &options, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("'pool'") && e.contains("vector of 6") && e.contains("'random'"), "{e}");
    let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap();
    let e = pool(&recipe, &Sample::new(3, 0), &options, &Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("two classes"), "{e}");
}
