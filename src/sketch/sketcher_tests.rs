use super::*;
use crate::extract::PoolRecipe;
use crate::options::Method;
use crate::random;
use crate::rows::{Label, Shape};
use crate::sketch::MAX_COUNT;

const PICTURE: Shape = Shape::Picture { channels: 1, height: 8, width: 8 };
const VECTOR: Shape = Shape::Vector { len: 11 };

fn sketcher(shape: Shape) -> Sketcher {
    sketcher_for(shape, Method::Auto)
}

fn sketcher_for(shape: Shape, method: Method) -> Sketcher {
    let options = Options {
        method,
        extractors: Some(3),
        width: Some(16),
        depth: Some(2),
        frequencies: Some(140),
        reservoir_per_class: Some(10),
        seed: 4,
        ..Options::default()
    };
    let recipe = PoolRecipe::choose(shape, (0.0, 255.0), &options).unwrap();
    Sketcher::new(Arc::new(Pool::build(&recipe, &Device::Cpu).unwrap()), &options).unwrap()
}

/// `n` rows of noise and the number of each row's class, of three.
fn rows(shape: Shape, n: usize) -> (Rows, Vec<usize>) {
    let noise = random::normal(&mut random::stream(8, "test"), n * shape.len());
    let values = noise.iter().map(|v| (127.0 + 60.0 * v).clamp(0.0, 255.0).round()).collect();
    let classes: Vec<usize> = (0..n).map(|i| (i * i + 1) % 3).collect();
    let labels = classes.iter().map(|c| Label::Int(*c as i64)).collect();
    (Rows { shape, values, labels, exact: vec![], skipped: 0 }, classes)
}

fn part(rows: &Rows, positions: &[usize]) -> Rows {
    Rows {
        shape: rows.shape,
        values: positions.iter().flat_map(|i| rows.row(*i)).copied().collect(),
        labels: positions.iter().map(|i| rows.labels[*i].clone()).collect(),
        exact: vec![],
        skipped: 0,
    }
}

#[test]
fn a_method_that_looks_at_no_features_keeps_counts_and_the_same_rows() {
    let (rows, classes) = rows(VECTOR, 50);
    let folded = |method| {
        let sketcher = sketcher_for(VECTOR, method);
        let mut sketches = empty(&sketcher);
        sketcher.fold(&rows, &classes, &mut sketches, &AtomicBool::new(false)).unwrap();
        sketches
    };
    let (random, herding) = (folded(Method::Random), folded(Method::Herding));
    for (random, herding) in random.iter().zip(&herding) {
        assert!(random.members.is_empty() && !herding.members.is_empty());
        assert_eq!((random.count, &random.reservoir), (herding.count, &herding.reservoir));
    }
}

fn empty(sketcher: &Sketcher) -> Vec<ClassSketch> {
    vec![ClassSketch::empty(sketcher.header()); 3]
}

/// The sketches of the rows in this order, in calls of `cut` rows, on `threads` threads.
fn folded(
    sketcher: &Sketcher,
    rows: &Rows,
    classes: &[usize],
    order: &[usize],
    cut: usize,
    threads: usize,
) -> Vec<ClassSketch> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut sketches = empty(sketcher);
    for positions in order.chunks(cut) {
        let numbers: Vec<usize> = positions.iter().map(|i| classes[*i]).collect();
        let rows = part(rows, positions);
        pool.install(|| sketcher.fold(&rows, &numbers, &mut sketches, &AtomicBool::new(false))).unwrap();
    }
    sketches
}

#[test]
fn the_sums_are_the_same_for_any_split_any_order_and_any_number_of_threads() {
    for shape in [PICTURE, VECTOR] {
        let sketcher = sketcher(shape);
        let (rows, classes) = rows(shape, 150);
        let forwards: Vec<usize> = (0..150).collect();
        let mut shuffled = forwards.clone();
        shuffled.sort_by_key(|i| (i * 67) % 150);
        let whole = folded(&sketcher, &rows, &classes, &forwards, 150, 1);
        assert_eq!(whole.iter().map(|s| s.count).sum::<u64>(), 150);
        // Four threads are more than the extractors: rows run in parallel instead.
        for (order, cut, threads) in
            [(&forwards, 150, 2), (&forwards, 1, 1), (&shuffled, 150, 4), (&shuffled, 7, 2), (&forwards, 65, 4)]
        {
            let other = folded(&sketcher, &rows, &classes, order, cut, threads);
            assert!(whole == other, "{shape}, calls of {cut} rows, {threads} threads");
        }
        // Two halves, merged.
        let mut halves = folded(&sketcher, &rows, &classes, &shuffled[..70], 70, 1);
        let rest = folded(&sketcher, &rows, &classes, &shuffled[70..], 9, 2);
        halves.iter_mut().zip(&rest).for_each(|(a, b)| a.merge(b).unwrap());
        assert!(whole == halves, "{shape}, merged");
    }
}

#[test]
fn the_sums_are_those_of_the_extractor_features() {
    let sketcher = sketcher(PICTURE);
    let (rows, classes) = rows(PICTURE, 40);
    let order: Vec<usize> = (0..40).collect();
    let sketches = folded(&sketcher, &rows, &classes, &order, 40, 1);
    let scaled = sketcher.header().recipe.scaling.scale(&rows.values);
    let input = Tensor::from_vec(scaled, (40, 1, 8, 8), &Device::Cpu).unwrap();
    for member in 0..3 {
        let features = sketcher.pool.features(member, &input, Wants::default()).unwrap().to_vec2::<f32>().unwrap();
        let t = Sketcher::frequencies(sketcher.header(), member, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        for (class, sketch) in sketches.iter().enumerate() {
            let of_class: Vec<&Vec<f32>> = (0..40).filter(|i| classes[*i] == class).map(|i| &features[i]).collect();
            let mean =
                |f: &dyn Fn(&[f32]) -> f64| of_class.iter().map(|row| f(row)).sum::<f64>() / of_class.len() as f64;
            if of_class.is_empty() {
                assert_eq!(sketch, &ClassSketch::empty(sketcher.header()));
                continue;
            }
            for (j, found) in sketch.mean(member).iter().enumerate() {
                assert!((mean(&|row| f64::from(row[j])) - f64::from(*found)).abs() < 1e-5);
            }
            let (re, im) = sketch.characteristic(member);
            for j in 0..140 {
                let angle = |row: &[f32]| {
                    let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                    row.iter().zip(&t).map(|(v, t)| f64::from(*v) * f64::from(t[j])).sum::<f64>() / norm
                };
                assert!((mean(&|row| angle(row).cos()) - f64::from(re[j])).abs() < 1e-5);
                assert!((mean(&|row| angle(row).sin()) - f64::from(im[j])).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn what_cannot_be_folded_is_an_error() {
    let sketcher = sketcher(VECTOR);
    let (good, classes) = rows(VECTOR, 5);
    let fold = |rows: &Rows, classes: &[usize], sketches: &mut [ClassSketch], cancel: bool| {
        sketcher.fold(rows, classes, sketches, &AtomicBool::new(cancel)).map(|_| ()).unwrap_err()
    };
    assert!(matches!(fold(&good, &classes, &mut empty(&sketcher), true), Error::Cancelled));

    let mut bad = good.clone();
    bad.values[2 * 11 + 3] = f32::NAN;
    let e = fold(&bad, &classes, &mut empty(&sketcher), false).to_string();
    assert!(e.contains("number 3 of row 2") && e.contains("NaN"), "{e}");

    let mut full = empty(&sketcher);
    full.iter_mut().for_each(|s| s.count = MAX_COUNT);
    let before = full.clone();
    assert!(matches!(fold(&good, &classes, &mut full, false), Error::Sketch(_)));
    assert_eq!(full, before);

    let e = fold(&rows(PICTURE, 5).0, &classes, &mut empty(&sketcher), false).to_string();
    assert!(e.contains("1x8x8 picture") && e.contains("vector of 11"), "{e}");
    assert!(matches!(fold(&good, &[0, 1, 2, 3, 0], &mut empty(&sketcher), false), Error::Sketch(_)));
    assert!(matches!(fold(&good, &classes[..4], &mut empty(&sketcher), false), Error::Sketch(_)));
}
