use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor, Var};

use super::descent::Gradient;
use super::*;
use crate::objective;
use crate::options::{Allocation, Init, LabelKind, Method, OptimizerKind, Terms};
use crate::random;
use crate::rows::Rows;
use crate::sketch::{ClassSketch, Sketcher};

mod unroll;

const SHAPE: Shape = Shape::Picture { channels: 1, height: 8, width: 8 };

fn options() -> Options {
    Options {
        ipc: 2,
        extractors: Some(3),
        width: Some(8),
        frequencies: Some(64),
        steps: Some(30),
        ..Options::default()
    }
}

/// Pictures of three classes, each a bright band at another height, with a little noise.
fn pictures(n: usize) -> Rows {
    noisy(n, 20.0)
}

fn noisy(n: usize, deviation: f32) -> Rows {
    let noise = random::normal(&mut random::stream(1, "test"), n * 64);
    let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
    let value = |i: usize| {
        let (row, y) = (i / 64, i % 64 / 8);
        let bright = if y / 2 == labels[row] { 170.0 } else { 50.0 };
        (bright + deviation * noise[i]).clamp(0.0, 255.0)
    };
    let values = (0..n * 64).map(value).collect();
    Rows {
        shape: SHAPE,
        values,
        labels: labels.iter().map(|c| Label::Int(*c as i64)).collect(),
        exact: vec![],
        skipped: 0,
    }
}

fn sketches(options: &Options, rows: &Rows) -> Sketches {
    let recipe = extract::PoolRecipe::choose(SHAPE, (0.0, 255.0), options).unwrap();
    sketched(Arc::new(Pool::build(&recipe, &Device::Cpu).unwrap()), options, rows)
}

fn sketched(pool: Arc<Pool>, options: &Options, rows: &Rows) -> Sketches {
    let sketcher = Sketcher::new(pool, options).unwrap();
    let mut classes = vec![ClassSketch::empty(sketcher.header()); 3];
    let numbers: Vec<usize> = rows.labels.iter().map(|label| label.to_string().parse().unwrap()).collect();
    sketcher.fold(rows, &numbers, &mut classes, &AtomicBool::new(false)).unwrap();
    let mut sketches = Sketches::new(sketcher.header().clone());
    for (i, sketch) in classes.into_iter().enumerate() {
        sketches.add(Label::Int(i as i64), &sketches.header.clone(), sketch).unwrap();
    }
    sketches
}

fn run(sketches: &Sketches, options: &Options) -> (Synthetic, Vec<Progress>) {
    let mut told = vec![];
    let synthetic = synthesize(sketches, options, &mut |p| {
        told.push(p);
        ControlFlow::Continue(())
    });
    (synthetic.unwrap(), told)
}

/// The classes whose mean picture is nearest to each synthetic row.
fn nearest(synthetic: &Synthetic, rows: &Rows) -> Vec<usize> {
    let mean = |class: usize, j: usize| {
        let of_class = (0..rows.len()).filter(|i| i % 3 == class);
        of_class.map(|i| rows.values[i * 64 + j]).sum::<f32>() / (rows.len() / 3) as f32
    };
    let distance = |row: &[f32], class: usize| (0..64).map(|j| (row[j] - mean(class, j)).powi(2)).sum::<f32>();
    let best = |row: &[f32]| (0..3).min_by(|a, b| distance(row, *a).total_cmp(&distance(row, *b))).unwrap();
    synthetic.values.chunks(64).map(best).collect()
}

#[test]
fn the_loss_falls_and_rows_made_from_noise_become_their_classes() {
    let rows = pictures(60);
    for method in [Method::Mean, Method::Characteristic, Method::Ridge] {
        // A readout's error tells classes apart; it doesn't make a row a typical one.
        let typical = method != Method::Ridge;
        for optimizer in [OptimizerKind::Adam, OptimizerKind::Sgd] {
            let options = Options { method, optimizer, init: Init::Noise, steps: Some(90), ..options() };
            let (synthetic, told) = run(&sketches(&options, &rows), &options);
            let losses: Vec<f64> = (1..=90).map(|s| told.iter().find(|p| p.step == s).unwrap().loss.unwrap()).collect();
            let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
            assert!(mean(&losses[80..]) < 0.6 * mean(&losses[..6]), "{method} {optimizer} {losses:?}");
            assert!(!typical || nearest(&synthetic, &rows) == [0, 0, 1, 1, 2, 2], "{method} {optimizer}");
            assert!(synthetic.values.iter().all(|v| (0.0..=255.0).contains(v)));
        }
    }
}

#[test]
fn rows_are_sorted_by_label_and_without_steps_they_are_real_rows() {
    let (rows, options) = (pictures(60), Options { steps: Some(0), ..options() });
    let (synthetic, told) = run(&sketches(&options, &rows), &options);
    assert_eq!(synthetic.labels, [0, 0, 1, 1, 2, 2].map(Label::Int));
    assert!(told.is_empty() && synthetic.shape == SHAPE);
    for (row, label) in synthetic.values.chunks(64).zip(&synthetic.labels) {
        let same = |i: &usize| rows.row(*i).iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!((0..60).filter(|i| rows.labels[*i] == *label).any(|i| same(&i)));
    }
}

#[test]
fn with_learned_frequencies_and_calibration_bytes_are_the_same_for_any_number_of_threads_and_others_than_without() {
    let rows = pictures(30);
    let terms = Some(Terms(vec![(Term::Characteristic, 1.0), (Term::Calibration, 0.1)]));
    let options = Options { terms, ..options() };
    let sketches = sketches(&options, &rows);
    let on = |threads: usize, options: &Options| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&sketches, options).0.values)
    };
    let learned = Options { learned_frequencies: 20, ..options.clone() };
    let one = on(1, &learned);
    assert_eq!(one, on(3, &learned));
    assert_ne!(one, on(1, &options));
    let more = working_bytes(&sketches, &learned).unwrap() - working_bytes(&sketches, &options).unwrap();
    // Of each of three extractors, the features of 30 rows at least.
    assert!(more > 3 * 30 * sketches.header.recipe.feature_len() * 4, "{more}");
}

#[test]
fn the_bytes_are_the_same_twice_and_for_any_number_of_threads() {
    let (rows, options) = (pictures(30), options());
    let sketches = sketches(&options, &rows);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&sketches, &options).0.values)
    };
    let one = on(1);
    assert_eq!(one, on(1));
    assert_eq!(one, on(2));
    assert_eq!(one, on(5));
    let other = Options { seed: 1, ..options.clone() };
    assert_ne!(one, run(&self::sketches(&other, &rows), &other).0.values);
}

#[test]
fn soft_labels_are_learned_with_the_rows_and_keep_their_class_on_top() {
    let rows = pictures(60);
    let options = Options { label_kind: LabelKind::Soft, method: Method::Ridge, steps: Some(150), ..options() };
    let sketches = sketches(&options, &rows);
    let (synthetic, _) = run(&sketches, &options);
    assert_eq!(synthetic.labels, [0, 0, 1, 1, 2, 2].map(Label::Int));
    let soft = synthetic.soft.unwrap();
    for row in 0..6 {
        let (shares, own) = (soft.row(row), soft.row(row)[row / 2]);
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5 && shares.iter().all(|s| (0.0..=own).contains(s)));
    }
    assert!(soft.shares.iter().any(|share| *share > 0.0 && *share < 1.0), "{soft:?}");
    let hard = Options { label_kind: LabelKind::Hard, ..options.clone() };
    assert_eq!(run(&sketches, &hard).0.soft, None);
}

#[test]
fn the_gradient_in_parts_is_the_gradient_at_once() {
    let (rows, options) = (pictures(30), Options { method: Method::Ridge, ..options() });
    let sketches = sketches(&options, &rows);
    let pool = Pool::build(&sketches.header.recipe, &Device::Cpu).unwrap();
    let recipe = Recipe::choose(&options, &sketches.header, 2).unwrap();
    let allotment = [3, 1, 2];
    let mut descent =
        descent::Descent::new(&sketches, &options, &recipe, &pool, Groups::new(&allotment), None).unwrap();
    let start = init::rows(&sketches, &options, &allotment, None, None).unwrap();
    let var = Var::from_vec(start, (6, 1, 8, 8), &Device::Cpu).unwrap();
    let labels = Var::from_tensor(&objective::one_hot(&Groups::new(&allotment), &Device::Cpu).unwrap()).unwrap();
    let mut of = |rows_at_once: usize| {
        descent.rows_at_once = rows_at_once;
        let Gradient { loss, rows, labels } = descent.gradient(1, var.as_tensor(), labels.as_tensor()).unwrap();
        let list = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (loss, [list(rows), list(labels.unwrap())].concat())
    };
    let ((whole_loss, whole), (parts_loss, parts)) = (of(6), of(4));
    let largest = whole.iter().fold(0f32, |m, g| m.max(g.abs()));
    assert!((whole_loss - parts_loss).abs() < 1e-6 && largest > 0.0);
    assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-4 * largest));
}

#[test]
fn the_observer_can_break_off_after_any_step() {
    let options = options();
    let sketches = sketches(&options, &pictures(30));
    let mut last = 0;
    let result = synthesize(&sketches, &options, &mut |p| {
        assert!(last < 4, "called again after it broke off");
        last = p.step;
        if p.step == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Cancelled)) && last == 4);
}

#[test]
fn sketches_that_cannot_be_distilled_are_named() {
    let options = options();
    let whole = sketches(&options, &pictures(30));
    let fails = |change: &dyn Fn(&mut Sketches), part: &str| {
        let mut sketches = whole.clone();
        change(&mut sketches);
        let e = synthesize(&sketches, &options, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    };
    fails(&|s| s.classes.clear(), "no rows to distill");
    fails(&|s| s.classes.retain(|l, _| *l == Label::Int(2)), "the same label, 2");
    fails(&|s| s.classes.values_mut().for_each(|c| c.count = 0), "class 0 has no rows");
    fails(&|s| s.header.pool = "c3d4".into(), "fingerprint c3d4");
}

const SELECTIONS: [Method; 4] = [Method::Random, Method::Herding, Method::KCenter, Method::KMeans];

fn selection(method: Method) -> Options {
    Options { method, steps: None, frequencies: None, ipc: 4, ..options() }
}

/// For each synthetic row the positions of the rows of its class that have its very numbers.
fn originals(synthetic: &Synthetic, rows: &Rows) -> Vec<Vec<usize>> {
    let same = |row: &[f32], label: &Label| {
        (0..rows.len()).filter(|i| rows.row(*i) == row && rows.labels[*i] == *label).collect()
    };
    synthetic.values.chunks(64).zip(&synthetic.labels).map(|(row, label)| same(row, label)).collect()
}

#[test]
fn selection_methods_give_real_rows_of_each_class_unchanged_and_none_twice() {
    let rows = pictures(240);
    let mut choices = vec![];
    for method in SELECTIONS {
        let options = selection(method);
        let (synthetic, told) = run(&sketches(&options, &rows), &options);
        let mut positions: Vec<usize> = originals(&synthetic, &rows).concat();
        assert_eq!(synthetic.labels, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2].map(Label::Int));
        assert!(told.iter().enumerate().all(|(i, p)| (p.step, p.steps, p.loss) == (i + 1, 3, None)) && told.len() == 3);
        choices.push(positions.clone());
        positions.sort_unstable();
        positions.dedup();
        assert_eq!(positions.len(), 12, "{method}");
    }
    assert!((0..4).all(|i| (0..i).all(|j| choices[i] != choices[j])), "{choices:?}");
}

#[test]
fn a_random_choice_is_the_start_of_the_reservoir() {
    let options = selection(Method::Random);
    let sketches = sketches(&options, &pictures(60));
    let first =
        |s: &ClassSketch| s.reservoir.rows[..4].iter().flat_map(|r| r.values.floats().into_owned()).collect::<Vec<_>>();
    let expected: Vec<f32> = sketches.classes.values().flat_map(first).collect();
    assert_eq!(run(&sketches, &options).0.values, expected);
}

#[test]
fn herding_follows_the_mean_of_all_rows_also_of_those_that_the_reservoir_dropped() {
    let rows = pictures(600);
    let options = Options { reservoir_per_class: Some(40), ..selection(Method::Herding) };
    let sketches = sketches(&options, &rows);
    let pool = Pool::build(&sketches.header.recipe, &Device::Cpu).unwrap();
    let wants = crate::kernels::Wants { input: false, weights: false, parallel: false };
    // Over all extractors, the distance of the chosen rows' mean embedding to that of all 200 rows, relative to its length.
    let distance = |method: Method| -> f64 {
        let (synthetic, _) = run(&sketches, &Options { method, ..options.clone() });
        let mut sum = 0.0;
        for (class, chosen) in sketches.classes.values().zip(synthetic.values.chunks(4 * 64)) {
            for member in 0..3 {
                let features = pool.features(member, &pool.scale(chosen).unwrap(), wants).unwrap();
                let mean: Vec<f32> = features.mean(0).unwrap().to_vec1().unwrap();
                let target = class.mean(member);
                let square = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                let apart: Vec<f32> = mean.iter().zip(&target).map(|(a, b)| a - b).collect();
                sum += square(&apart) / square(&target);
            }
        }
        sum
    };
    let (herding, random) = (distance(Method::Herding), distance(Method::Random));
    assert!(herding < 0.7 * random, "{herding} {random}");
}

#[test]
fn a_class_with_fewer_rows_than_ipc_has_them_again_unchanged() {
    let rows = pictures(9);
    for method in SELECTIONS {
        let options = Options { ipc: 7, ..selection(method) };
        let (synthetic, _) = run(&sketches(&options, &rows), &options);
        let positions: Vec<usize> = originals(&synthetic, &rows).concat();
        for class in positions.chunks(7) {
            assert_eq!((&class[..3], &class[..1]), (&class[3..6], &class[6..]), "{method}");
            assert_eq!(class[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{method}");
        }
    }
}

#[test]
fn choices_are_the_same_for_any_number_of_threads_and_for_a_class_more_or_less() {
    for method in SELECTIONS {
        let options = selection(method);
        let sketches = sketches(&options, &pictures(240));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&sketches, &options).0.values)
        };
        let all = on(1);
        assert_eq!(all, on(3), "{method}");
        let mut fewer = sketches.clone();
        fewer.classes.remove(&Label::Int(0));
        assert_eq!(all[4 * 64..], run(&fewer, &options).0.values, "{method}");
    }
}

#[test]
fn a_choice_can_be_broken_off_after_any_class_and_needs_candidates() {
    let options = selection(Method::KMeans);
    let mut sketches = sketches(&options, &pictures(60));
    let mut calls = 0;
    let result = synthesize(&sketches, &options, &mut |_| {
        calls += 1;
        if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(Error::Cancelled)) && calls == 2);
    sketches.header.reservoir = 3;
    let e = synthesize(&sketches, &options, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(e.contains("'k_means'") && e.contains("reservoir_per_class => 4"), "{e}");
}

/// [`pictures`] of which the classes 0, 1 and 2 keep 40, 12 and 4.
fn imbalanced() -> Rows {
    let all = pictures(120);
    let mut left = [40, 12, 4];
    let kept: Vec<usize> = (0..120)
        .filter(|i| {
            let more = left[i % 3] > 0;
            left[i % 3] -= usize::from(more);
            more
        })
        .collect();
    let values = kept.iter().flat_map(|i| all.row(*i)).copied().collect();
    Rows { values, labels: kept.iter().map(|i| all.labels[*i].clone()).collect(), ..all }
}

#[test]
fn rows_are_split_by_the_counts_and_their_weights_give_the_counts_back() {
    for (allocation, expected) in
        [(Allocation::Equal, [5, 5, 4]), (Allocation::Proportional, [10, 3, 1]), (Allocation::Sqrt, [8, 4, 2])]
    {
        for method in [Method::Mean, Method::Characteristic, Method::Herding] {
            let steps = if method.selects() { None } else { Some(2) };
            let options = Options { rows: Some(14), allocation, method, steps, ..options() };
            let (synthetic, _) = run(&sketches(&options, &imbalanced()), &options);
            let of = |class: i64| (0..14).filter(|i| synthetic.labels[*i] == Label::Int(class)).collect::<Vec<_>>();
            assert_eq!([0, 1, 2].map(|class| of(class).len()), expected, "{allocation} {method}");
            assert!(synthetic.labels.is_sorted() && synthetic.values.len() == 14 * 64);
            for (class, count) in [(0, 40.0), (1, 12.0), (2, 4.0)] {
                let weight: f64 = of(class).iter().map(|i| synthetic.weights[*i]).sum();
                assert!((weight - count).abs() < 1e-9, "{allocation} {method}");
            }
        }
    }
}

#[test]
fn classes_of_different_size_become_their_classes_too() {
    let rows = pictures(60);
    for method in [Method::Mean, Method::Characteristic] {
        let options = Options { method, init: Init::Noise, steps: Some(90), rows: Some(9), ..options() };
        let mut sketches = sketches(&options, &rows);
        // The counts alone decide the split; the means stay what they are.
        for (sketch, factor) in sketches.classes.values_mut().zip([6, 2, 1]) {
            sketch.count *= factor;
            for member in &mut sketch.members {
                let sums = [&mut member.embedding, &mut member.cos, &mut member.sin];
                sums.into_iter().flat_map(|sums| sums.iter_mut()).for_each(|sum| *sum *= factor as i64);
            }
        }
        let options = Options { allocation: Allocation::Proportional, ..options };
        let (synthetic, _) = run(&sketches, &options);
        assert_eq!(nearest(&synthetic, &rows), [0, 0, 0, 0, 0, 0, 1, 1, 2], "{method}");
    }
}

#[test]
fn as_many_rows_in_all_as_ipc_gives_are_the_same_rows() {
    let rows = pictures(60);
    let (by_ipc, in_all) = (options(), Options { rows: Some(6), ..options() });
    let values = |options: &Options| run(&sketches(options, &rows), options).0.values;
    assert_eq!(values(&by_ipc), values(&in_all));
}

#[test]
fn fewer_rows_than_classes_are_refused_with_both_numbers() {
    let options = Options { rows: Some(2), ..options() };
    let e = synthesize(&sketches(&options, &pictures(30)), &options, &mut |_| ControlFlow::Continue(()));
    let e = e.unwrap_err().to_string();
    assert!(e.contains("2 rows") && e.contains("3 classes") && e.contains("rows => 3"), "{e}");
}

#[test]
fn a_class_that_is_to_give_more_rows_than_were_kept_starts_with_noise_or_is_refused() {
    let rows = pictures(120);
    let options = Options { rows: Some(30), reservoir_per_class: Some(4), steps: Some(0), ..options() };
    let (synthetic, _) = run(&sketches(&options, &rows), &options);
    let real = |row: &[f32]| (0..120).any(|i| rows.row(i).iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-3));
    assert_eq!(synthetic.values.chunks(64).filter(|row| real(row)).count(), 12);
    let options = Options { method: Method::Herding, steps: None, ..options };
    let e = synthesize(&sketches(&options, &rows), &options, &mut |_| ControlFlow::Continue(()));
    let e = e.unwrap_err().to_string();
    assert!(e.contains("10 real rows of class 0") && e.contains("reservoir_per_class => 10"), "{e}");
}

#[test]
fn a_further_pass_goes_on_from_rows_of_the_same_classes_and_can_be_broken_off() {
    let options = Options { rows: Some(6), allocation: Allocation::Proportional, ..options() };
    let before = sketches(&options, &pictures(60));
    let made = || run(&before, &options).0;
    let after = synthesize_on(&before, &options, made(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(after.labels == made().labels && after.values != made().values);
    let stop = &mut |p: Progress| if p.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(matches!(synthesize_on(&before, &options, made(), stop), Err(Error::Cancelled)));
    // By the second scan two classes have lost most of their rows.
    let mut changed = pictures(60);
    let left: Vec<usize> = (0..60).filter(|i| i % 3 == 0 || *i < 6).collect();
    changed.labels = left.iter().map(|i| changed.labels[*i].clone()).collect();
    changed.values = left.iter().flat_map(|i| changed.row(*i).to_vec()).collect();
    let e = synthesize_on(&sketches(&options, &changed), &options, made(), &mut |p| panic!("step {}", p.step));
    let e = e.unwrap_err().to_string();
    assert!(e.contains("changed between two passes") && e.contains("passes => 1"), "{e}");
}

fn kept_sketches(sketches: &Sketches, options: &Options) -> (Sketches, Arc<Pool>) {
    kept::sketches(sketches, options, &Device::Cpu, &mut || Ok(())).unwrap()
}

#[test]
fn further_networks_see_each_kept_row_once() {
    let (rows, options) = (pictures(30), Options { kept_extractors: 4, ..options() });
    let whole = sketches(&options, &rows);
    let (kept, pool) = kept_sketches(&whole, &options);
    assert_eq!((pool.recipe().extractors, pool.recipe().width), (4, 16));
    assert_eq!(pool.recipe().augment, "color_crop_cutout_flip_scale_rotate");
    assert_ne!(pool.recipe().source, whole.header.recipe.source);
    // All of these few are kept.
    let plain =
        Options { reservoir_per_class: Some(0), init: Init::Noise, seed: kept.header.frequency_seed, ..options };
    let expected = sketched(pool, &plain, &rows);
    assert!(kept.header == expected.header && kept.classes == expected.classes);
}

#[test]
fn extractors_of_both_pools_are_counted_through() {
    let options = Options { learned_frequencies: 8, kept_extractors: 5, ..options() };
    let sketches = sketches(&options, &pictures(30));
    let (kept, further) = kept_sketches(&sketches, &options);
    let pool = Pool::build(&sketches.header.recipe, &Device::Cpu).unwrap();
    let recipe = Recipe::choose(&options, &sketches.header, 2).unwrap();
    let plain = Options { learned_frequencies: 0, ..options.clone() };
    let groups = Groups::new(&[2, 2, 2]);
    let own = descent::Descent::new(&sketches, &options, &recipe, &pool, groups.clone(), None).unwrap();
    let others = descent::Descent::new(&kept, &plain, &recipe, &further, groups.clone(), None).unwrap();
    let both = descent::Descent::new(&sketches, &options, &recipe, &pool, groups.clone(), None).unwrap();
    let both = both.join(&kept, &further).unwrap();
    assert_eq!([&own, &others, &both].map(|descent| descent.members()), [3, 5, 8]);
    let start = init::rows(&sketches, &options, &[2, 2, 2], None, None).unwrap();
    let rows = Var::from_vec(start, (6, 1, 8, 8), &Device::Cpu).unwrap();
    let labels = objective::one_hot(&groups, &Device::Cpu).unwrap();
    let of = |descent: &descent::Descent<'_>, member| {
        let Gradient { loss, rows, .. } = descent.gradient(member, rows.as_tensor(), &labels).unwrap();
        (loss, rows.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    for member in 0..8 {
        let alone = if member < 3 { of(&own, member) } else { of(&others, member - 3) };
        assert_eq!(of(&both, member), alone, "{member}");
    }
    let e = both.gradient(8, rows.as_tensor(), &labels).err().unwrap().to_string();
    assert!(e.contains("no extractor 8") && e.contains("there are 8"), "{e}");
}

#[test]
fn further_networks_change_rows_alike_for_any_number_of_threads_and_need_kept_rows() {
    let plain = options();
    let mut sketches = sketches(&plain, &pictures(30));
    let with = |n| Options { kept_extractors: n, ..plain.clone() };
    let on = |threads: usize, options: &Options| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&sketches, options).0.values)
    };
    let one = on(1, &with(6));
    assert_eq!(one, on(3, &with(6)));
    assert_ne!(one, on(1, &plain));
    let bytes = |options: &Options| working_bytes(&sketches, options).unwrap();
    // At least the sums of cosines and sines of three classes.
    assert!(bytes(&with(6)) - bytes(&plain) > 6 * 3 * 2 * 64 * 8);

    let mut told = vec![];
    let result = synthesize(&sketches, &with(6), &mut |p| {
        told.push((p.step, p.steps, p.loss));
        ControlFlow::Break(())
    });
    assert!(matches!(result, Err(Error::Cancelled)) && told == [(0, 30, None)], "{told:?}");

    sketches.classes.get_mut(&Label::Int(1)).unwrap().reservoir.rows.clear();
    // Of rows that start as noise only the networks miss the kept ones.
    let noise = Options { init: Init::Noise, ..with(6) };
    let e = synthesize(&sketches, &noise, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(e.contains("class 1") && e.contains("kept_extractors => 0"), "{e}");
}
