use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Geometry, Path, Wants, conv_block_reference, on_device};
use crate::random::{normal, stream};

const ALL: Wants = Wants { input: true, weights: true, parallel: false };

fn on_path(path: Path, x: &Tensor, w: &Tensor, a: &Tensor, padding: usize, wants: Wants) -> Result<Tensor> {
    super::on_path(path, x, w, a, padding, wants, &Arc::default())
}

fn tensor(shape: &[usize], purpose: &str) -> Tensor {
    let values = normal(&mut stream(5, purpose), shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Pictures, weights and affine parameters, as variables.
fn variables(batch: usize, inputs: usize, out: usize, height: usize, width: usize) -> [Var; 3] {
    let affine = (tensor(&[2, out], "affine") * 0.3).unwrap();
    let affine = affine.broadcast_add(&Tensor::new(&[[1f32], [0.1]], &Device::Cpu).unwrap()).unwrap();
    let weight = (tensor(&[out, inputs, 3, 3], "weight") / (9.0 * inputs as f64).sqrt()).unwrap();
    let x = (tensor(&[batch, inputs, height, width], "x") + 0.5).unwrap();
    [x, weight, affine].map(|t| Var::from_tensor(&t).unwrap())
}

/// The result, and the gradients of its product with fixed random numbers.
fn run(variables: &[Var; 3], f: impl Fn([&Tensor; 3]) -> Result<Tensor>) -> Vec<Option<Tensor>> {
    let y = f(variables.each_ref().map(Var::as_tensor)).unwrap();
    let direction = tensor(y.dims(), "direction").to_dtype(y.dtype()).unwrap();
    let gradients = (&y * direction).unwrap().sum_all().unwrap().backward().unwrap();
    let mut all = vec![Some(y)];
    all.extend(variables.iter().map(|v| gradients.get(v).cloned()));
    all
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Distance of two tensors over the length of the second.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let off: f64 = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
    (off / b.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// Batch, in, out, height, width, padding.
const SHAPES: [[usize; 6]; 15] = [
    [2, 1, 16, 28, 28, 3],
    [2, 3, 32, 32, 32, 1],
    [3, 16, 16, 16, 16, 1],
    [2, 128, 128, 8, 8, 1],
    [2, 64, 40, 4, 4, 1],
    [2, 8, 24, 7, 7, 1],
    [1, 24, 8, 5, 9, 1],
    [1, 20, 12, 6, 11, 2],
    [2, 1, 8, 1, 2, 3],
    [1, 48, 64, 9, 6, 0],
    [1, 3, 8, 128, 128, 1],
    [1, 9, 8, 31, 17, 4],
    [5, 32, 48, 7, 5, 1],
    // Several parts of a batch, each of several groups; a convolution back that starts inside of the grid.
    [19, 16, 16, 12, 12, 1],
    [3, 20, 40, 10, 7, 3],
];

#[test]
fn results_and_gradients_equal_the_twins_in_double_precision_on_every_path() {
    for [batch, inputs, out, height, width, padding] in SHAPES {
        let single = variables(batch, inputs, out, height, width);
        let double = single.each_ref().map(|v| Var::from_tensor(&v.to_dtype(DType::F64).unwrap()).unwrap());
        let expected = run(&double, |[x, w, a]| conv_block_reference(x, w, a, padding));
        for path in Path::usable() {
            let found = run(&single, |[x, w, a]| on_path(path, x, w, a, padding, ALL));
            // Tiles of 4x4 pixels round more than direct sums; and a rectifier whose input is within rounding of 0 may flip: gradients get more room.
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let off = distance(found.as_ref().unwrap(), expected.as_ref().unwrap());
                let bound = if i == 0 { 3e-6 } else { 1e-4 };
                assert!(off < bound, "{path:?} {inputs}x{height}x{width} -> {out}, padding {padding}, part {i}: {off}");
            }
        }
    }
}

#[test]
fn what_gpus_run_gives_the_twins_results_and_gradients() {
    for [batch, inputs, out, height, width, padding] in SHAPES {
        let double = variables(batch, inputs, out, height, width)
            .map(|v| Var::from_tensor(&v.to_dtype(DType::F64).unwrap()).unwrap());
        let expected = run(&double, |[x, w, a]| conv_block_reference(x, w, a, padding));
        for wants in [ALL, Wants { weights: false, ..ALL }, Wants { input: false, ..ALL }] {
            let found = run(&double, |[x, w, a]| {
                let geometry = Geometry::check(Path::detect(), x, w, a, padding)?;
                on_device::conv_block(geometry, wants, x, w, a)
            });
            let wanted = [true, wants.input, wants.weights, wants.weights];
            for (i, wanted) in wanted.into_iter().enumerate() {
                assert_eq!(found[i].is_some(), wanted, "part {i}, {wants:?}");
                if let (Some(found), Some(expected)) = (&found[i], &expected[i]) {
                    let off = distance(found, expected);
                    assert!(off < 1e-12, "{inputs}x{height}x{width} -> {out}, padding {padding}, part {i}: {off}");
                }
            }
        }
    }
}

#[test]
fn the_twins_gradients_are_the_slopes_of_its_results() {
    let [x, w, a] = variables(2, 3, 8, 7, 6).map(|v| v.to_dtype(DType::F64).unwrap());
    let double = [x, w, a].map(|t| Var::from_tensor(&t).unwrap());
    let gradients = run(&double, |[x, w, a]| conv_block_reference(x, w, a, 1));
    let loss = |[x, w, a]: [&Tensor; 3]| -> f64 {
        let y = conv_block_reference(x, w, a, 1).unwrap();
        let direction = tensor(y.dims(), "direction").to_dtype(DType::F64).unwrap();
        (y * direction).unwrap().sum_all().unwrap().to_scalar().unwrap()
    };
    for part in 0..3 {
        let step = tensor(double[part].dims(), "step").to_dtype(DType::F64).unwrap();
        let at = |h: f64| {
            let moved = (double[part].as_tensor() + (&step * h).unwrap()).unwrap();
            let mut parts = double.each_ref().map(Var::as_tensor);
            parts[part] = &moved;
            loss(parts)
        };
        let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
        let gradient = gradients[part + 1].as_ref().unwrap();
        let expected: f64 = (gradient * step).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!((slope - expected).abs() < 1e-5 * (1.0 + expected.abs()), "part {part}: {slope} {expected}");
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_its_batch_or_position() {
    for [_, inputs, out, height, width, padding] in SHAPES {
        let [x, w, a] = variables(5, inputs, out, height, width);
        let features = |x: &Tensor| {
            let x = Var::from_tensor(x).unwrap();
            let y = on_path(Path::detect(), &x, &w, &a, padding, Wants { weights: false, ..ALL }).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            (y, gradients.get(&x).unwrap().clone())
        };
        let (all, all_gradients) = features(&x);
        for row in [0, 3, 4] {
            let (one, one_gradient) = features(&x.narrow(0, row, 1).unwrap());
            assert_eq!(bits(&one), bits(&all.narrow(0, row, 1).unwrap()));
            assert_eq!(bits(&one_gradient), bits(&all_gradients.narrow(0, row, 1).unwrap()));
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    for [_, inputs, out, height, width, padding] in [SHAPES[0], SHAPES[2], SHAPES[3], SHAPES[4], SHAPES[5]] {
        let variables = variables(19, inputs, out, height, width);
        let with = |threads: usize, parallel: bool| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let wants = Wants { parallel, ..ALL };
            let all = pool.install(|| run(&variables, |[x, w, a]| on_path(Path::detect(), x, w, a, padding, wants)));
            all.iter().map(|t| bits(t.as_ref().unwrap())).collect::<Vec<_>>()
        };
        let sequential = with(1, false);
        for threads in [1, 2, 3] {
            assert_eq!(with(threads, true), sequential, "{threads} threads");
        }
    }
}

#[test]
fn gradients_that_are_not_wanted_are_not_given_and_do_not_change_the_others() {
    let variables = variables(3, 8, 16, 8, 8);
    let with = |input, weights| {
        run(&variables, |[x, w, a]| on_path(Path::detect(), x, w, a, 1, Wants { input, weights, parallel: false }))
    };
    let (all, input, weights) = (with(true, true), with(true, false), with(false, true));
    let same =
        |a: &Option<Tensor>, b: &Option<Tensor>| assert_eq!(bits(a.as_ref().unwrap()), bits(b.as_ref().unwrap()));
    same(&all[0], &input[0]);
    same(&all[1], &input[1]);
    same(&all[2], &weights[2]);
    same(&all[3], &weights[3]);
    assert!(input[2].is_none() && input[3].is_none() && weights[1].is_none());
    let [x, w, a] = &variables;
    assert!(!on_path(Path::detect(), x, w, a, 1, Wants::default()).unwrap().track_op());
}

#[test]
fn pictures_may_be_views_of_other_tensors() {
    let [x, w, a] = variables(2, 3, 8, 6, 10);
    let view = x.transpose(2, 3).unwrap().narrow(2, 1, 8).unwrap();
    let found = on_path(Path::detect(), &view, &w, &a, 1, ALL).unwrap();
    let expected = on_path(Path::detect(), &view.contiguous().unwrap().copy().unwrap(), &w, &a, 1, ALL).unwrap();
    assert_eq!(bits(&found), bits(&expected));
}

#[test]
fn constant_and_empty_pictures_give_finite_results_and_gradients() {
    for path in Path::usable() {
        for value in [0.0, 3.7] {
            let [x, w, a] = variables(2, 3, 8, 9, 9);
            let x = Var::from_tensor(&(x.zeros_like().unwrap() + value).unwrap()).unwrap();
            // Without padding the convolution is constant too: its deviation is 0.
            let all = run(&[x, w, a], |[x, w, a]| on_path(path, x, w, a, 0, ALL));
            for t in all.iter().flatten() {
                assert!(values(t).iter().all(|v| v.is_finite()), "{path:?} {value}");
            }
        }
        let [_, w, a] = variables(1, 3, 8, 9, 9);
        let none = Tensor::zeros((0, 3, 9, 9), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(on_path(path, &none, &w, &a, 1, ALL).unwrap().dims(), [0, 8, 4, 4]);
    }
}

#[test]
fn not_a_number_is_not_hidden() {
    for path in Path::usable() {
        let [x, w, a] = variables(1, 1, 8, 8, 8);
        let x = (x.as_tensor() * f64::NAN).unwrap();
        assert!(values(&on_path(path, &x, &w, &a, 1, ALL).unwrap()).iter().all(|v| v.is_nan()), "{path:?}");
    }
}

#[test]
fn gradient_steps_on_weights_and_affine_parameters_lower_a_loss() {
    let [x, w, a] = variables(8, 3, 8, 8, 8);
    let target = tensor(&[8, 8, 4, 4], "target").abs().unwrap();
    let mut losses = vec![];
    for _ in 0..20 {
        let y = on_path(Path::detect(), &x, &w, &a, 1, Wants { input: false, weights: true, parallel: true }).unwrap();
        let loss = (y - &target).unwrap().sqr().unwrap().mean_all().unwrap();
        let gradients = loss.backward().unwrap();
        for v in [&w, &a] {
            v.set(&(v.as_tensor() - (gradients.get(v).unwrap() * 0.2).unwrap()).unwrap()).unwrap();
        }
        losses.push(loss.to_scalar::<f32>().unwrap());
    }
    assert!(losses.windows(2).all(|l| l[1] < l[0]), "{losses:?}");
}

#[test]
fn wrong_shapes_are_errors_that_say_what_was_expected() {
    let [x, w, a] = variables(1, 3, 8, 8, 8);
    let error = |x: &Tensor, w: &Tensor, a: &Tensor, padding| {
        on_path(Path::detect(), x, w, a, padding, ALL).unwrap_err().to_string()
    };
    assert!(error(&x, &w.narrow(1, 0, 2).unwrap(), &a, 1).contains("expected [out, 3, 3, 3]"));
    assert!(error(&x, &w, &a.narrow(1, 0, 4).unwrap(), 1).contains("expected [2, 8]"));
    assert!(error(&x.narrow(2, 0, 3).unwrap(), &w, &a, 0).contains("3x8 picture padded by 0"));
    assert!(error(&x.to_dtype(DType::F64).unwrap(), &w, &a, 1).contains("expected f32"));
}
