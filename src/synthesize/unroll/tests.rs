use candle_core::{Device, Tensor};

use super::window::{Trainee, Window};
use super::*;
use crate::random::{normal, stream};

const INPUT: [usize; 3] = [1, 8, 8];
const CLASSES: usize = 3;

fn tensor(values: Vec<f32>, dims: &[usize]) -> Tensor {
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn pictures(n: usize, purpose: &str) -> Tensor {
    tensor(normal(&mut stream(1, purpose), n * 64), &[n, 1, 8, 8])
}

/// One of [`CLASSES`] a row, in turn.
fn shares(n: usize) -> Tensor {
    tensor(
        (0..n * CLASSES).map(|i| if i % CLASSES == i / CLASSES % CLASSES { 1.0 } else { 0.0 }).collect(),
        &[n, CLASSES],
    )
}

fn window(learn_labels: bool) -> Window {
    let student = Student::new(INPUT, (16, 2), CLASSES, &Device::Cpu).unwrap();
    let real_classes = (0..64).map(|i| i % CLASSES).collect();
    Window { student, real: pictures(64, "real"), real_classes, learn_labels, parallel: false }
}

fn product(a: &Tensor, b: &Tensor) -> f64 {
    f64::from((a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
}

/// The slope of the window's loss along a direction, by a difference over the whole window, against the gradient.
#[test]
fn a_window_s_gradient_is_the_slope_of_its_loss_for_rows_and_for_labels() {
    for rows in [12, 60] {
        let window = window(true);
        let (x, y) = (pictures(rows, "x"), shares(rows));
        let trainee = Trainee::new(window.student.random(&mut stream(2, "weights")).unwrap(), 10).unwrap();
        // Held still: what standardises the rows is no part of the gradient.
        let standard = Standard::of(&x).unwrap();
        let look = |x: &Tensor, y: &Tensor| window.look(&trainee, (x, y), &standard, stream(3, "draws")).unwrap();
        let here = look(&x, &y);
        let by_labels = here.labels.as_ref().unwrap();
        assert_eq!((here.rows.dims(), by_labels.dims()), (x.dims(), y.dims()));
        for (gradient, of_rows, reach) in [(&here.rows, true, 0.3), (by_labels, false, 0.1)] {
            let size = window::length(gradient).unwrap();
            assert!(size > 0.0);
            let direction = (gradient / size).unwrap();
            let at = |by: f64| match of_rows {
                true => look(&(&x + (&direction * by).unwrap()).unwrap(), &y).loss,
                false => look(&x, &(&y + (&direction * by).unwrap()).unwrap()).loss,
            };
            let slope = (at(reach) - at(-reach)) / (2.0 * reach);
            // The two smooth the rectifiers' kinks differently.
            let expected = product(gradient, &direction);
            assert!((slope / expected - 1.0).abs() < 0.2, "{rows} rows, of rows {of_rows}: {slope} {expected}");
        }
    }
}

#[test]
fn a_window_trains_its_network_and_asks_for_labels_only_where_they_are_learned() {
    let window = window(false);
    let (x, y) = (pictures(12, "x"), shares(12));
    let standard = Standard::of(&x).unwrap();
    let mut trainee = Trainee::new(window.student.random(&mut stream(2, "weights")).unwrap(), 100).unwrap();
    let loss = |trainee: &Trainee| {
        let x = standard.apply(&x).unwrap();
        window.student.gradient(&trainee.weights, &x, &y, student::Also::default()).unwrap().loss
    };
    let before = loss(&trainee);
    for left in [60, 20, 0] {
        let outcome = window.look(&trainee, (&x, &y), &standard, stream(3, "draws")).unwrap();
        assert!(outcome.labels.is_none() && outcome.loss.is_finite());
        trainee = outcome.after;
        assert_eq!(trainee.left, left);
    }
    assert!(loss(&trainee) < 0.7 * before, "{} {before}", loss(&trainee));
}

#[test]
fn what_moves_all_shares_of_a_row_alike_moves_none() {
    let shares = tensor(vec![0.7, 0.3, 0.0, 0.2, 0.3, 0.5], &[2, 3]);
    let gradient = tensor(vec![3.0, -1.0, 2.0, 5.0, 5.0, 5.0], &[2, 3]);
    let found: Vec<f32> = within_sum(&gradient, &shares).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // Of the loss <gradient, shares / sum>, by differences.
    let loss = |i: usize, by: f32| -> f32 {
        let mut moved: Vec<f32> = shares.flatten_all().unwrap().to_vec1().unwrap();
        moved[i] += by;
        let row = &moved[i / 3 * 3..i / 3 * 3 + 3];
        let along: Vec<f32> = gradient.get(i / 3).unwrap().to_vec1().unwrap();
        row.iter().zip(along).map(|(s, g)| s * g).sum::<f32>() / row.iter().sum::<f32>()
    };
    for (i, found) in found.iter().enumerate() {
        let slope = (loss(i, 1e-2) - loss(i, -1e-2)) / 2e-2;
        assert!((slope - found).abs() < 1e-2, "{i}: {slope} {found}");
    }
    assert!(found[3..].iter().all(|v| v.abs() < 1e-6));
}

#[test]
fn a_network_has_as_many_weights_as_are_drawn() {
    let student = window(false).student;
    assert_eq!(student.random(&mut stream(1, "weights")).unwrap().dims(), [student.weights_len()]);
}
