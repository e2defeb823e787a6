use super::*;
use crate::objective::second_moments::tests::{WIDTH, options, sketched};
use crate::objective::{Characteristic, Objective, gradient_check};
use crate::options::{Moments, Options};
use std::sync::Arc;

const COUNT: usize = 24;

fn job() -> (Arc<Pool>, Sketches, Options) {
    let options = Options { frequencies: Some(40), learned_frequencies: COUNT, ..options(Moments::None, 8) };
    let (_, pool, sketches) = sketched(&options);
    (pool, sketches, options)
}

fn synthetic() -> (Tensor, Groups) {
    let values = random::normal(&mut random::stream(8, "synthetic"), 5 * WIDTH);
    (Tensor::from_vec(values, (5, WIDTH), &Device::Cpu).unwrap(), Groups::new(&[2, 3]))
}

fn value(loss: Result<Tensor>) -> f64 {
    f64::from(loss.unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn each_answer_takes_frequencies_to_where_rows_are_further_apart_and_they_stay_as_long_as_they_may_be() {
    let (pool, sketches, options) = job();
    let weights = Weights { alpha: 0.6, beta: 0.4 };
    let learned = Learned::new(&sketches, &pool, COUNT, options.seed, weights).unwrap();
    let (features, groups) = synthetic();
    let features = normalised(&features).unwrap();
    let first = value(learned.loss(1, &features, &groups));
    // Without an answer nothing moves, and other extractors have frequencies of their own.
    assert_eq!(value(learned.loss(1, &features, &groups)), first);
    value(learned.loss(0, &features, &groups));
    learned.respond().unwrap();
    learned.respond().unwrap();
    assert_eq!(value(learned.loss(1, &features, &groups)), first);
    let mut before = first;
    for answer in 0..60 {
        learned.respond().unwrap();
        let now = value(learned.loss(1, &features, &groups));
        assert!(answer >= 20 || now > before, "{answer}: {now} {before}");
        before = now;
    }
    assert!(before > 1.5 * first, "{before} {first}");
    let game = learned.game.lock().unwrap();
    let bank = game.banks[1].as_ref().unwrap();
    let lengths = bank.frequencies().unwrap().sqr().unwrap().sum_keepdim(0).unwrap().sqrt().unwrap();
    let ratios: Vec<f32> = (lengths / &bank.length).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let most = MOST_SCALING as f32 * 1.001;
    assert!(ratios.iter().all(|r| (1.0 / most..most).contains(r)), "{ratios:?}");
    assert!(ratios.iter().any(|r| (r - 1.0).abs() > 0.1), "{ratios:?}");
}

#[test]
fn the_loss_mixes_both_by_their_numbers_and_states_are_judged_by_the_sketch_alone() {
    let (pool, sketches, options) = job();
    let (features, groups) = synthetic();
    let with = Characteristic::new(&sketches, &options, &pool).unwrap();
    let without = Options { learned_frequencies: 0, ..options.clone() };
    let without = Characteristic::new(&sketches, &without, &pool).unwrap();
    let plain = value(without.loss(1, &features, &groups, &features));
    let alone = Learned::new(&sketches, &pool, COUNT, options.seed, with.weights).unwrap();
    for _ in 0..4 {
        let own = value(alone.loss(1, &normalised(&features).unwrap(), &groups));
        let loss = value(with.loss(1, &features, &groups, &features));
        let expected = (40.0 * plain + COUNT as f64 * own) / (40.0 + COUNT as f64);
        assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
        assert_eq!(value(with.judged(1, &features, &groups, &features)), plain);
        with.respond().unwrap();
        alone.respond().unwrap();
    }
}

#[test]
fn the_gradient_for_the_rows_is_that_of_finite_differences() {
    let (pool, sketches, options) = job();
    let with = Characteristic::new(&sketches, &options, &pool).unwrap();
    let values = random::normal(&mut random::stream(8, "synthetic"), 5 * WIDTH);
    gradient_check::check(&with, &values, &Groups::new(&[2, 3]), 3e-2);
}

#[test]
fn a_class_without_kept_rows_is_named_and_memory_is_asked_for() {
    let (pool, mut sketches, options) = job();
    assert_eq!(bytes(&sketches, 0, 100), 0);
    assert!(bytes(&sketches, COUNT, 100) > 94 * (6 + 2 * WIDTH) * 4);
    sketches.classes.values_mut().last().unwrap().reservoir.rows.clear();
    let e = Characteristic::new(&sketches, &options, &pool).unwrap_err().to_string();
    assert!(e.contains("class 1") && e.contains("learned_frequencies => 0"), "{e}");
}
