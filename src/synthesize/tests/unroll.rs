//! Jobs that end with unrolled training.

use super::*;

/// Mean loss of networks that are trained on the rows, on other real ones.
fn loss_of(synthetic: &Synthetic, test: &Rows) -> f64 {
    use crate::evaluate::{Dataset, EvaluateConfig, evaluate};
    let rows = Rows { labels: synthetic.labels.clone(), values: synthetic.values.clone(), ..test.clone() };
    let set = |rows: &Rows| Dataset::from_rows("set", vec![rows.clone()]).unwrap();
    let mut train = set(&rows);
    if let Some(soft) = &synthetic.soft {
        train = train.with_soft_labels(soft.shares.clone());
    }
    let config = EvaluateConfig { width: Some(16), epochs: 40, repeats: 3, ..EvaluateConfig::default() };
    let report = evaluate("set", &train, &set(test), &config, &mut |_| ControlFlow::Continue(())).unwrap();
    report.losses.iter().sum::<f64>() / report.losses.len() as f64
}

#[test]
fn networks_learn_more_of_rows_after_unrolled_training() {
    let rows = noisy(120, 90.0);
    let mut test = noisy(240, 90.0);
    test.values.drain(..120 * 64);
    test.labels.drain(..120);
    for (label_kind, method, experts) in [
        (LabelKind::Hard, Method::Auto, 0),
        (LabelKind::Soft, Method::Ridge, 0),
        (LabelKind::Hard, Method::Auto, 2),
        (LabelKind::Soft, Method::Ridge, 2),
    ] {
        let options = Options { method, label_kind, ipc: 1, steps: Some(10), ..options() };
        let sketches = sketches(&options, &rows);
        let before = run(&sketches, &options).0;
        let options = Options { unroll: Some(60), experts: Some(experts), ..options };
        let (after, told) = run(&sketches, &options);
        // Training the experts is told of, and is no step.
        let steps = told.iter().filter(|p| p.loss.is_some()).map(|p| (p.step, p.steps));
        assert_eq!(steps.collect::<Vec<_>>(), (1..=70).map(|step| (step, 70)).collect::<Vec<_>>());
        assert_eq!(told.iter().any(|p| p.loss.is_none() && p.step == 10), experts > 0);
        assert_eq!(after.soft.is_some(), label_kind == LabelKind::Soft);
        assert!(after.values.iter().all(|v| (0.0..=255.0).contains(v)));
        let losses = [&before, &after].map(|synthetic| loss_of(synthetic, &test));
        assert!(losses[1] < 0.97 * losses[0], "{label_kind}, {experts} experts: {losses:?}");
    }
}

#[test]
fn learned_labels_start_anew_where_networks_are_tried_on_real_rows() {
    let (label_kind, method, steps) = (LabelKind::Soft, Method::Ridge, Some(150));
    let learned = Options { label_kind, method, steps, unroll: Some(0), experts: Some(0), ..options() };
    let sketches = sketches(&learned, &pictures(60));
    let least = |options: &Options| {
        let soft = run(&sketches, options).0.soft.unwrap();
        (0..6).map(|row| soft.row(row)[row / 2]).fold(1.0, f32::min)
    };
    assert!(least(&learned) < 0.98, "{}", least(&learned));
    // One slow step from the classes, if it finds any to move to.
    let tried = Options { unroll: Some(1), ..learned };
    assert!((0.99..=1.0).contains(&least(&tried)), "{}", least(&tried));
}

#[test]
fn unrolled_training_is_the_same_for_any_number_of_threads_and_can_be_broken_off() {
    let rows = pictures(60);
    for (mosaic, experts) in [(1, 0), (2, 0), (2, 2)] {
        // Ten of each class in mosaics: more rows than a batch.
        let ipc = if mosaic == 2 { 5 } else { 2 };
        let unroll = Some(5);
        let options = Options { unroll, experts: Some(experts), steps: Some(2), mosaic, ipc, ..options() };
        let sketches = sketches(&options, &rows);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&sketches, &options).0.values)
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3));
        let stop = &mut |p: Progress| if p.step == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert!(matches!(synthesize(&sketches, &options, stop), Err(Error::Cancelled)));
        let mut told = 0;
        let stop = &mut |p: Progress| {
            told += usize::from(p.loss.is_none());
            if told == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let whole = synthesize(&sketches, &options, stop).is_ok();
        assert_eq!((whole, told), if experts == 0 { (true, 0) } else { (false, 3) }, "between two legs of experts");
        let wide = Options { unroll_width: Some(64), ..options.clone() };
        let more = working_bytes(&sketches, &wide).unwrap() - working_bytes(&sketches, &options).unwrap();
        // Of each of 40 training steps, the weights of a last block of 64 channels.
        assert!(more > 40 * 64 * 9 * 32 * 4, "{more}");
    }
}

#[test]
fn unrolled_training_needs_real_rows_and_pictures() {
    let rows = pictures(30);
    let without = Options { init: Init::Noise, ..options() };
    let sketches = sketches(&without, &rows);
    let e = synthesize(&sketches, &Options { unroll: Some(3), ..without }, &mut |p| {
        panic!("step {} before it is refused", p.step)
    });
    let e = e.unwrap_err().to_string();
    assert!(e.contains("reservoir_per_class => 1000") && e.contains("unroll => 0"), "{e}");
}
