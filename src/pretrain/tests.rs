use super::*;
use crate::kernels::Wants;
use crate::options::Layers;
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

fn asked(kind: PoolKind, extractors: usize) -> Options {
    Options { pool: kind, extractors: Some(extractors), width: Some(8), depth: Some(1), ..Options::default() }
}

fn made(kind: PoolKind, extractors: usize) -> Pool {
    made_by(asked(kind, extractors))
}

fn made_by(options: Options) -> Pool {
    let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap();
    pool(&recipe, &sample(), &options, &Device::Cpu).unwrap()
}

/// Mean distance of the classes' features over the distance of rows to their class's mean: how well extractor `n` tells them apart.
fn separation(pool: &Pool, n: usize) -> f64 {
    let sample = sample();
    let values: Vec<f32> = sample.rows().flat_map(|(row, _)| row.floats().into_owned()).collect();
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

fn weights(net: &ConvNet) -> Vec<Vec<f32>> {
    let tensors = net.blocks().iter().flat_map(|(weight, affine)| [weight, affine]);
    tensors.map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

#[test]
fn a_network_between_two_is_their_mean_and_noise_is_as_long_as_is_said() {
    let [a, b] = [0, 1].map(|n| {
        let mut stream = random::stream(n, "networks");
        ConvNet::random([1, 8, 8], 8, 1, &mut stream, &Device::Cpu).unwrap()
    });
    for share in [0.0, 0.5, 1.0] {
        let found = weights(&training::between(&a, &b, share).unwrap());
        for ((found, a), b) in
            found.iter().flatten().zip(weights(&a).iter().flatten()).zip(weights(&b).iter().flatten())
        {
            let expected = f64::from(*a) * (1.0 - share) + f64::from(*b) * share;
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{share}: {found} {expected}");
        }
    }
    let moved = training::perturbed(&a, 0.05, 3, 7).unwrap();
    let (of, moved_to) = (&weights(&a)[0], &weights(&moved)[0]);
    let length = |v: &[f32]| v.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
    for (filter, moved) in of.chunks(9).zip(moved_to.chunks(9)) {
        let noise: Vec<f32> = filter.iter().zip(moved).map(|(a, b)| b - a).collect();
        assert!((length(&noise) / length(filter) - 0.05).abs() < 1e-5, "{noise:?}");
    }
    assert_eq!(weights(&training::perturbed(&a, 0.0, 3, 7).unwrap()), weights(&a));
    assert_ne!(weights(&training::perturbed(&a, 0.05, 3, 8).unwrap()), weights(&moved));
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
fn how_far_extractors_of_a_run_are_moved_apart_can_be_said() {
    let of = |kind, perturb| {
        let pool = made_by(Options { perturb, ..asked(kind, 4) });
        ([0, 1, 2, 3].map(|n| separation(&pool, n)), pool.fingerprint().to_string())
    };
    let early = |perturb| of(PoolKind::Early, perturb);
    assert_eq!(early(None), early(Some(0.05)));
    assert_ne!(early(None), early(Some(0.1)));
    let (still, _) = early(Some(0.0));
    assert!(still[1..].iter().all(|v| *v == still[0]), "{still:?}");

    let trained = |perturb| of(PoolKind::Trained, perturb);
    let ((still, plain), (moved, other)) = (trained(None), trained(Some(0.1)));
    assert_eq!((trained(Some(0.0)).1, still[..2].to_vec()), (plain.clone(), moved[..2].to_vec()));
    assert!(still[2] != moved[2] && still[3] != moved[3] && plain != other, "{still:?} {moved:?}");
}

#[test]
fn extractors_of_a_run_have_one_size_and_mixed_sizes_need_as_many_runs() {
    let recipe = |sizes| {
        let options = Options { sizes, depth: Some(2), width: Some(16), ..asked(PoolKind::Trained, 40) };
        PoolRecipe::choose(SHAPE, (0.0, 255.0), &options).unwrap()
    };
    let same = recipe(Sizes::Same);
    assert!((0..40).all(|n| run_of(&same, n) == n / 4));
    let mixed = recipe(Sizes::Mixed);
    let mut of_run: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..40).for_each(|n| of_run.entry(run_of(&mixed, n)).or_default().push(n));
    assert_eq!(of_run.keys().copied().collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    for extractors in of_run.values() {
        assert!(extractors.iter().all(|n| mixed.size_of(*n) == mixed.size_of(extractors[0])), "{extractors:?}");
    }
    for extractors in of_run.values().take(8) {
        let kinds: std::collections::BTreeSet<usize> = extractors.iter().map(|n| n % OF_RUN).collect();
        assert_eq!(kinds.len(), OF_RUN, "each kind once: {extractors:?}");
    }
}

#[test]
fn layers_and_sizes_go_with_training() {
    let rich = |kind, layers| {
        let options = Options { layers, sizes: Sizes::Mixed, depth: Some(2), width: Some(16), ..asked(kind, 5) };
        made_by(options)
    };
    for kind in [PoolKind::Trained, PoolKind::Early] {
        let all = rich(kind, Layers::All);
        assert_eq!(all.recipe().feature_len(), 2 * 16 * 3 * 3);
        let bytes = all.to_bytes().unwrap();
        let from_file = asked(kind, 5).with_trained(bytes, "trained".into());
        let recipe = PoolRecipe::choose(SHAPE, (0.0, 255.0), &from_file).unwrap();
        let again = Pool::build_for(&recipe, &Device::Cpu, &from_file).unwrap();
        assert_eq!(again.fingerprint(), all.fingerprint());
        // Which layers are read changes no weight: the last block's features are those of the pool that reads it alone.
        let last = rich(kind, Layers::Last);
        let wants = Wants { input: false, weights: false, parallel: false };
        let sample = sample();
        let values: Vec<f32> = sample.rows().take(3).flat_map(|(row, _)| row.floats().into_owned()).collect();
        for (n, (width, depth)) in [(16, 2), (8, 2), (16, 1), (8, 1), (8, 2)].into_iter().enumerate() {
            let of = |pool: &Pool| -> Vec<Vec<f32>> {
                pool.features(n, &pool.scale(&values).unwrap(), wants).unwrap().to_vec2().unwrap()
            };
            let part = width * 3 * 3;
            for (all, last) in of(&all).iter().zip(of(&last)) {
                let end = &all[(depth - 1) * part..depth * part];
                let off = end.iter().zip(&last).map(|(a, b)| (a * (depth as f32).sqrt() - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-4 && last[part..].iter().all(|v| *v == 0.0), "{n}: {off}");
            }
        }
    }
}

#[test]
fn the_weights_are_the_same_for_any_number_of_threads() {
    let on = |threads: usize, sizes: Sizes| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = Options { sizes, ..asked(PoolKind::Trained, 6) };
        pool.install(|| made_by(options).fingerprint().to_string())
    };
    for sizes in [Sizes::Same, Sizes::Mixed] {
        assert_eq!(on(1, sizes), on(3, sizes));
    }
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
