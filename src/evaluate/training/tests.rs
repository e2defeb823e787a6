use super::*;

/// 8 x 8 pictures (or vectors of 64): class 0 is bright at the left, class 1 at the right, class 2 below.
fn toy(rows_per_class: usize, seed: u64, picture: bool) -> Dataset {
    let mut rng = random::stream(seed, "toy");
    let (mut values, mut labels) = (vec![], vec![]);
    for row in 0..3 * rows_per_class {
        let class = row % 3;
        let noise = random::normal(&mut rng, 64);
        values.extend(noise.iter().enumerate().map(|(i, n)| {
            let (y, x) = (i / 8, i % 8);
            let bright = match class {
                0 => x < 3,
                1 => x > 4,
                _ => y > 4,
            };
            100.0 + 15.0 * n + if bright { 60.0 } else { 0.0 }
        }));
        labels.push(class);
    }
    let stored = (0..3).map(|class| labels.iter().filter(|label| **label == class).count()).collect();
    let shape = if picture { Shape::Picture { channels: 1, height: 8, width: 8 } } else { Shape::Vector { len: 64 } };
    Dataset { shape, values, labels, classes: (0..3).map(Label::Int).collect(), soft: None, stored }
}

fn config(network: NetworkKind) -> EvaluateConfig {
    EvaluateConfig {
        network: Some(network),
        width: Some(16),
        epochs: 80,
        repeats: 2,
        batch: 20,
        learning_rate: 0.03,
        augment: Some("none".into()),
        ..Default::default()
    }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_network_learns_what_a_line_can_tell_apart() {
    for (network, picture) in [
        (NetworkKind::Linear, false),
        (NetworkKind::Mlp, false),
        (NetworkKind::Mlp, true),
        (NetworkKind::ConvNet, true),
    ] {
        let report = evaluate("toy", &toy(20, 1, picture), &toy(30, 2, picture), &config(network), &mut go_on).unwrap();
        assert!(report.mean > 0.95, "{network:?}: {report:?}");
        assert_eq!((report.rows, report.rows_per_class, report.accuracies.len()), (60, (20, 20), 2));
    }
}

#[test]
fn resnet18_learns_in_a_few_steps_the_same_for_any_thread_count() {
    // 9 x 9 pictures, for those of 8 x 8 are too small: bright at the left or at the right.
    let shape = Shape::Picture { channels: 1, height: 9, width: 9 };
    let noise = random::normal(&mut random::stream(1, "toy"), 6 * 81);
    let bright = |i: usize| (i % 9 > 4) == (i / 81 % 2 == 1);
    let values = noise.iter().enumerate().map(|(i, n)| n + if bright(i) { 3.0 } else { 0.0 }).collect();
    let classes = (0..2).map(Label::Int).collect();
    let set = Dataset { shape, values, labels: [0, 1].repeat(3), classes, soft: None, stored: vec![3; 2] };
    let config = EvaluateConfig { width: None, epochs: 6, repeats: 1, ..config(NetworkKind::ResNet18) };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut losses = vec![];
        let mut observer = |p: Progress| {
            losses.push(p.loss);
            ControlFlow::Continue(())
        };
        let report = pool.install(|| evaluate("toy", &set, &set, &config, &mut observer)).unwrap();
        (losses, report.losses)
    };
    let (losses, tested) = on(1);
    assert!(losses[5] < losses[0] / 2.0, "{losses:?}");
    assert_eq!((losses, tested), on(3));
}

#[test]
fn idcs_recipe_learns_from_mixed_pictures_and_from_soft_labels() {
    let (mut train, test) = (toy(20, 1, true), toy(30, 2, true));
    let config = EvaluateConfig {
        recipe: TrainingRecipe::Idc,
        epochs: 60,
        augment: Some("crop".into()),
        ..config(NetworkKind::ConvNet)
    };
    let hard = evaluate("toy", &train, &test, &config, &mut go_on).unwrap();
    assert!(hard.mean > 0.95, "{hard:?}");
    // The same as shares: the same loss, but for how sums are rounded.
    train.soft = Some(train.labels.iter().flat_map(|l| (0..3).map(|c| if c == *l { 1.0 } else { 0.0 })).collect());
    let soft = evaluate("toy", &train, &test, &config, &mut go_on).unwrap();
    assert!((hard.losses[0] - soft.losses[0]).abs() < 0.02, "{hard:?} {soft:?}");
}

#[test]
fn scores_are_the_same_for_any_thread_count_and_differ_by_seed() {
    let (train, test) = (toy(6, 1, true), toy(30, 2, true));
    let config = EvaluateConfig { epochs: 3, augment: None, ..config(NetworkKind::ConvNet) };
    let losses = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = EvaluateConfig { seed, ..config.clone() };
        pool.install(|| evaluate("toy", &train, &test, &config, &mut go_on)).unwrap().losses
    };
    let one = losses(1, 0);
    assert_eq!(one, losses(3, 0));
    assert_ne!(one, losses(1, 1));
    assert_ne!(one[0], one[1], "each network has weights of its own");
}

#[test]
fn standardisation_is_that_of_the_training_rows() {
    // A test set in other units is met with the training set's mean and deviation, so it is met badly.
    let (train, mut test) = (toy(20, 1, false), toy(30, 2, false));
    let accuracy =
        |test: &Dataset| evaluate("toy", &train, test, &config(NetworkKind::Linear), &mut go_on).unwrap().mean;
    assert!(accuracy(&test) > 0.95);
    // Undone by a standardisation of the test set alone; by that of the training set it is far from what was learned.
    test.values.iter_mut().for_each(|v| *v = -*v);
    assert!(accuracy(&test) < 0.5);
    // The same change of units in both sets changes nothing.
    let scaled = |mut set: Dataset| {
        set.values.iter_mut().for_each(|v| *v = *v / 32.0 + 7.0);
        set
    };
    let report = evaluate(
        "toy",
        &scaled(toy(20, 1, false)),
        &scaled(toy(30, 2, false)),
        &config(NetworkKind::Linear),
        &mut go_on,
    );
    assert!(report.unwrap().mean > 0.95);
}

#[test]
fn a_class_that_training_lacks_counts_as_wrong_with_a_warning() {
    let (train, mut test) = (toy(20, 1, false), toy(30, 2, false));
    test.classes = vec![Label::Int(0), Label::Int(1), Label::Int(9)];
    let report = evaluate("toy", &train, &test, &config(NetworkKind::Linear), &mut go_on).unwrap();
    assert!((0.6..=2.0 / 3.0 + 1e-9).contains(&report.mean), "{report:?}");
    assert!(report.warnings[0].contains("'9'") && report.warnings[0].contains("30 test rows"), "{report:?}");

    test.classes = ["a", "b", "c"].map(|l| Label::Text(l.into())).to_vec();
    let e = evaluate("toy", &train, &test, &config(NetworkKind::Linear), &mut go_on).unwrap_err().to_string();
    assert!(e.contains("'a', 'b', 'c'") && e.contains("'0', '1', '2'"), "{e}");
}

#[test]
fn what_does_not_fit_together_is_refused_with_both_named() {
    let (vectors, pictures) = (toy(2, 1, false), toy(2, 1, true));
    let message = |train, test, config: &EvaluateConfig| {
        evaluate("toy", train, test, config, &mut go_on).unwrap_err().to_string()
    };
    let e = message(&vectors, &pictures, &config(NetworkKind::Mlp));
    assert!(e.contains("vector of 64") && e.contains("1x8x8 picture"), "{e}");
    let e = message(&vectors, &vectors, &config(NetworkKind::ConvNet));
    assert!(e.contains("'convnet' needs pictures"), "{e}");
    let e = message(&vectors, &vectors, &config(NetworkKind::LeNet));
    assert!(e.contains("'lenet' needs pictures"), "{e}");
    for network in [NetworkKind::LeNet, NetworkKind::ResNet18] {
        let e = message(&pictures, &pictures, &EvaluateConfig { width: Some(8), ..config(network) });
        assert!(e.contains(&format!("'{}'", network.as_str())) && e.contains("leave out width and depth"), "{e}");
    }
    let e = message(&pictures, &pictures, &EvaluateConfig { width: None, ..config(NetworkKind::ResNet18) });
    assert!(e.contains("'resnet18' needs pictures of more than 8 pixels"), "{e}");
    let e = message(&vectors, &vectors, &EvaluateConfig { augment: Some("crop".into()), ..config(NetworkKind::Mlp) });
    assert!(e.contains("'augment'"), "{e}");
    let e = message(&vectors, &vectors, &EvaluateConfig { recipe: TrainingRecipe::Idc, ..config(NetworkKind::Mlp) });
    assert!(e.contains("'recipe'") && e.contains("use 'dc'"), "{e}");
}

#[test]
fn the_observer_sees_every_epoch_and_can_break_off() {
    let mut seen = vec![];
    let set = toy(2, 1, false);
    let error = evaluate("toy", &set, &set, &config(NetworkKind::Linear), &mut |p| {
        seen.push((p.repeat, p.epoch));
        if p.repeat == 1 && p.epoch == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    let expected: Vec<(usize, usize)> = (1..=80).map(|e| (0, e)).chain([(1, 1), (1, 2)]).collect();
    assert_eq!(seen, expected);
}

#[test]
fn baselines_choose_real_rows_of_every_class_anew_for_each_network() {
    let original = toy(20, 1, true);
    for baseline in [Baseline::Random, Baseline::Herding, Baseline::KCenter, Baseline::KMeans] {
        let draw = |n| baseline.choose(&original, 3, 0, n, &Device::Cpu).unwrap();
        let set = draw(0);
        assert_eq!(set.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2], "{baseline:?}");
        for (i, label) in set.labels.iter().enumerate() {
            let real = (0..original.len()).any(|j| original.row(j) == set.row(i) && original.labels[j] == *label);
            assert!(real, "{baseline:?}");
        }
        assert_eq!(set, draw(0), "{baseline:?}");
        assert_ne!(set, draw(1), "{baseline:?}");
        let report =
            evaluate_baseline(baseline, &original, 3, &original, &config(NetworkKind::ConvNet), &mut go_on).unwrap();
        assert!(report.mean > 0.6 && report.rows == 9, "{report:?}");
    }
    assert_eq!(Baseline::Random.choose(&original, 100, 0, 0, &Device::Cpu).unwrap().len(), 60);
}
