use candle_core::Var;
use proptest::prelude::*;

use super::*;
use crate::kernels::COS_SCALE;
use crate::random;

fn values(purpose: &str, n: usize, scale: f32) -> Vec<f32> {
    random::normal(&mut random::stream(9, purpose), n).into_iter().map(|v| v * scale).collect()
}

fn tensor(values: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
}

fn list(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Angles in float64, `[n, count]`.
fn exact_angles(rows: &[f32], t: &[f32], d: usize, count: usize) -> Vec<f64> {
    let dot = |row: &[f32], j: usize| (0..d).map(|k| f64::from(row[k]) * f64::from(t[k * count + j])).sum::<f64>();
    rows.chunks(d).flat_map(|row| (0..count).map(move |j| dot(row, j))).collect()
}

/// Sums of cosines and sines of all rows, one class.
fn sums(packed: &Packed, rows: &[f32], parallel: bool) -> (Vec<i64>, Vec<i64>) {
    let (mut cos, mut sin) = (vec![5; packed.count], vec![-5; packed.count]);
    let classes = vec![0; rows.len() / packed.feature_len];
    add(packed, rows, &classes, &mut [CosSin { cos: &mut cos, sin: &mut sin }], parallel);
    (cos, sin)
}

type Operation<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>;

/// Loss whose gradient has no symmetry: `sum(re * w) + sum(im^2)`; gives the means and the gradients for features and frequencies.
fn run(features: &[f32], t: &[f32], groups: &Groups, of: Operation) -> [Vec<f32>; 3] {
    let d = features.len() / groups.rows();
    let features = Var::from_tensor(&tensor(features, groups.rows())).unwrap();
    let t = Var::from_tensor(&tensor(t, d)).unwrap();
    let (re, im) = of(features.as_tensor(), t.as_tensor()).unwrap();
    let w = tensor(&values("weights", re.elem_count(), 1.0), groups.classes());
    let loss = ((&re * w).unwrap() + im.sqr().unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let of = |var: &Var| gradients.get(var).map(list).unwrap_or_default();
    [[list(&re), list(&im)].concat(), of(&features), of(&t)]
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * (1.0 + b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn sums_of_any_shape_are_those_of_float64_on_every_path(d in 1usize..400, count in 1usize..100, n in 0usize..30, classes in 1usize..4) {
        let rows = values("rows", n * d, 1.0 / (d as f32).sqrt());
        let t = values("t", d * count, 1.0);
        let of_row: Vec<usize> = (0..n).map(|row| row * 7 % classes).collect();
        let angles = exact_angles(&rows, &t, d, count);
        for path in Path::usable() {
            let packed = Packed::new(path, &t, d, count);
            prop_assert_eq!(&packed.unpacked(), &t);
            let (mut cos, mut sin) = (vec![vec![0; count]; classes], vec![vec![0; count]; classes]);
            let mut to: Vec<CosSin> = cos.iter_mut().zip(&mut sin).map(|(cos, sin)| CosSin { cos, sin }).collect();
            add(&packed, &rows, &of_row, &mut to, true);
            for class in 0..classes {
                for j in 0..count {
                    let of = |f: fn(f64) -> f64| -> f64 {
                        (0..n).filter(|row| of_row[*row] == class).map(|row| f(angles[row * count + j])).sum()
                    };
                    prop_assert!((cos[class][j] as f64 / COS_SCALE - of(f64::cos)).abs() < 1e-4, "{:?}", path);
                    prop_assert!((sin[class][j] as f64 / COS_SCALE - of(f64::sin)).abs() < 1e-4, "{:?}", path);
                }
            }
        }
    }

    #[test]
    fn the_operations_and_their_twin_agree_forward_and_backward(d in 1usize..300, count in 1usize..80, sizes in prop::collection::vec(0usize..20, 1..4)) {
        let groups = Groups::new(&sizes);
        let n = groups.rows();
        prop_assume!(n > 0);
        let (features, t) = (values("rows", n * d, 1.0 / (d as f32).sqrt()), values("t", d * count, 1.0));
        let expected = run(&features, &t, &groups, &|x, t| characteristic_reference(x, t, &groups));
        for path in Path::usable() {
            let (packed, arena) = (Arc::new(Packed::new(path, &t, d, count)), Arc::<Arena>::default());
            // What others left: longer than is asked for, and of any value.
            (0..4).for_each(|_| arena.give_back(vec![f32::NAN; 100_000]));
            let [means, by_features, _] = run(&features, &t, &groups, &|x, _| frozen(x, &packed, &groups, &arena));
            let learned = run(&features, &t, &groups, &|x, t| learned(path, x, t, &groups));
            prop_assert_eq!(&means, &learned[0]);
            prop_assert_eq!(&by_features, &learned[1]);
            for (a, b) in learned.iter().zip(&expected) {
                prop_assert!(close(a, b, 2e-5), "{:?} {:?} {:?}", path, a, b);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (d, count, groups) = (9, 70, Groups::new(&[3, 2]));
    let (features, t) = (values("rows", 5 * d, 0.3), values("t", d * count, 1.0));
    // The loss in float64.
    let loss = |features: &[f32], t: &[f32]| -> f64 {
        let angles = exact_angles(features, t, d, count);
        let w = values("weights", 2 * count, 1.0);
        let mut loss = 0.0;
        for class in 0..2 {
            for j in 0..count {
                let mean = |f: fn(f64) -> f64| {
                    let range = groups.range(class);
                    range.clone().map(|row| f(angles[row * count + j])).sum::<f64>() / range.len() as f64
                };
                loss += f64::from(w[class * count + j]) * mean(f64::cos) + mean(f64::sin).powi(2);
            }
        }
        loss
    };
    for path in Path::usable() {
        let [_, by_features, by_frequencies] = run(&features, &t, &groups, &|x, t| learned(path, x, t, &groups));
        let check = |gradient: &[f32], moved: &dyn Fn(usize, f32) -> f64| {
            for (i, g) in gradient.iter().enumerate() {
                let numeric = (moved(i, 1e-3) - moved(i, -1e-3)) / 2e-3;
                assert!((numeric - f64::from(*g)).abs() < 2e-3 * (1.0 + numeric.abs()), "{path:?} {i}: {numeric} {g}");
            }
        };
        let by = |values: &[f32], i: usize, by: f32| {
            let mut values = values.to_vec();
            values[i] += by;
            values
        };
        check(&by_features, &|i, step| loss(&by(&features, i, step), &t));
        check(&by_frequencies, &|i, step| loss(&features, &by(&t, i, step)));
        assert!(by_features.iter().chain(&by_frequencies).all(|g| *g != 0.0));
    }
}

#[test]
fn the_bits_of_a_row_depend_neither_on_its_neighbours_nor_on_its_position_nor_on_threads() {
    let (d, count, n) = (700, 130, 543);
    let (rows, t) = (values("rows", n * d, 0.04), values("t", d * count, 1.0));
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (one, three) = (pool(1), pool(3));
    for path in Path::usable() {
        let packed = Packed::new(path, &t, d, count);
        let all = one.install(|| sums(&packed, &rows, true));
        assert_eq!(all, three.install(|| sums(&packed, &rows, true)), "{path:?}");
        assert_eq!(all, sums(&packed, &rows, false), "{path:?}");
        // Integer sums: equal only if each row contributes the same bits alone, turned round and together.
        let turned: Vec<f32> = rows.chunks(d).rev().flatten().copied().collect();
        assert_eq!(all, sums(&packed, &turned, true), "{path:?}");
        let (mut cos, mut sin) = (vec![5; count], vec![-5; count]);
        for row in rows.chunks(d) {
            add(&packed, row, &[0], &mut [CosSin { cos: &mut cos, sin: &mut sin }], false);
        }
        assert_eq!(all, (cos, sin), "{path:?}");
    }
}

#[test]
fn means_and_gradients_of_a_class_depend_neither_on_the_other_classes_nor_on_threads() {
    let (d, count, sizes) = (260, 70, [5, 600, 40]);
    let (rows, t) = (values("rows", 645 * d, 0.06), values("t", d * count, 1.0));
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    // A loss in which a class's gradient is the same whatever classes are beside it.
    let run = |path, rows: &[f32], sizes: &[usize]| {
        let packed = Arc::new(Packed::new(path, &t, d, count));
        let var = Var::from_tensor(&tensor(rows, sizes.iter().sum())).unwrap();
        let (re, im) = frozen(var.as_tensor(), &packed, &Groups::new(sizes), &Arc::default()).unwrap();
        let loss = (re.sqr().unwrap().sum_all().unwrap() + im.sum_all().unwrap()).unwrap();
        (list(&re), list(loss.backward().unwrap().get(&var).unwrap()))
    };
    for path in Path::usable() {
        let (means, gradient) = pool(1).install(|| run(path, &rows, &sizes));
        assert_eq!((means.clone(), gradient.clone()), pool(3).install(|| run(path, &rows, &sizes)), "{path:?}");
        let (alone, its_gradient) = run(path, &rows[605 * d..], &sizes[2..]);
        assert_eq!(means[2 * count..], alone[..], "{path:?}");
        assert_eq!(gradient[605 * d..], its_gradient[..], "{path:?}");
    }
}

#[test]
fn zeros_denormals_constants_and_large_features_give_finite_results_in_range() {
    let (d, count) = (33, 40);
    let t = values("t", d * count, 1.0);
    for value in [0.0, 1e-40, 1.0, -1.0, 10.0] {
        let rows = vec![value; 3 * d];
        let angles = exact_angles(&rows, &t, d, count);
        for path in Path::usable() {
            let packed = Packed::new(path, &t, d, count);
            let (cos, sin) = sums(&packed, &rows, true);
            for j in 0..count {
                let error = |sum: i64, exact: f64| (sum as f64 / COS_SCALE - 3.0 * exact).abs();
                assert!(error(cos[j] - 5, angles[j].cos()) < 3e-5 * (1.0 + angles[j].abs()), "{path:?} {value}");
                assert!(error(sin[j] + 5, angles[j].sin()) < 3e-5 * (1.0 + angles[j].abs()), "{path:?} {value}");
            }
        }
    }
    // Far beyond what normalised features reach nothing is promised but the range.
    for path in Path::usable() {
        let groups = Groups::new(&[2]);
        let [means, gradient, _] = run(&vec![1e6; 2 * d], &t, &groups, &|x, t| learned(path, x, t, &groups));
        assert!(means.iter().all(|m| m.abs() <= 1.0) && gradient.iter().all(|g| g.is_finite()), "{path:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let frequencies = Frequencies::new(&[1.0; 12], 4, 3, &Device::Cpu).unwrap();
    let message = |result: Result<(Tensor, Tensor)>| result.unwrap_err().to_string();
    let groups = Groups::new(&[2, 2]);
    let e = message(characteristic(&tensor(&[0.0; 20], 4), &frequencies, &groups));
    assert!(e.contains("4 features of length 5") && e.contains("length is 4"), "{e}");
    let e = message(characteristic(&tensor(&[0.0; 12], 3), &frequencies, &groups));
    assert!(e.contains("3 features") && e.contains("have 4 rows"), "{e}");
    assert!(Frequencies::new(&[1.0; 11], 4, 3, &Device::Cpu).is_err());
    let (mut cos, mut sin) = ([0; 3], [0; 2]);
    let sums = &mut [CosSin { cos: &mut cos, sin: &mut sin }];
    assert!(frequencies.add(&[0.0; 4], &[0], sums, true).is_err());
}
