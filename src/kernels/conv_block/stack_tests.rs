use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;

use super::ConvStack;
use crate::kernels::simd::Path;
use crate::kernels::{Arena, conv_block_reference};
use crate::random::{normal, stream};

fn tensor(shape: &[usize], purpose: &str) -> Tensor {
    let values = normal(&mut stream(6, purpose), shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn padding(input: [usize; 3], n: usize) -> usize {
    if n == 0 && input[0] == 1 { 3 } else { 1 }
}

fn blocks(input: [usize; 3], width: usize, depth: usize) -> Vec<(Tensor, Tensor)> {
    let block = |n: usize| {
        let inputs = if n == 0 { input[0] } else { width };
        let weight = (tensor(&[width, inputs, 3, 3], &format!("weight {n}")) / (9.0 * inputs as f64).sqrt()).unwrap();
        let affine = (tensor(&[2, width], &format!("affine {n}")) * 0.3).unwrap();
        (weight, affine.broadcast_add(&Tensor::new(&[[1f32], [0.1]], &Device::Cpu).unwrap()).unwrap())
    };
    (0..depth).map(block).collect()
}

fn stack(path: Path, input: [usize; 3], width: usize, depth: usize) -> Arc<ConvStack> {
    let blocks = blocks(input, width, depth);
    Arc::new(ConvStack::on_path(path, input, &blocks, |n| padding(input, n), Arc::default()).unwrap())
}

fn pictures(batch: usize, [channels, height, width]: [usize; 3]) -> Tensor {
    (tensor(&[batch, channels, height, width], "x") + 0.5).unwrap()
}

/// The features, and the gradient of their product with fixed random numbers.
fn run(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> [Tensor; 2] {
    let x = Var::from_tensor(x).unwrap();
    let y = f(&x).unwrap();
    // Each row has the same direction, so that a row's gradient is its own.
    let direction = tensor(&[1, y.dim(1).unwrap()], "direction").to_dtype(y.dtype()).unwrap();
    let gradients = y.broadcast_mul(&direction).unwrap().sum_all().unwrap().backward().unwrap();
    [y, gradients.get(&x).unwrap().clone()]
}

fn reference(input: [usize; 3], width: usize, depth: usize, x: &Tensor) -> [Tensor; 2] {
    let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let blocks: Vec<_> = blocks(input, width, depth).iter().map(|(w, a)| (double(w), double(a))).collect();
    run(&double(x), |x| {
        let mut x = x.clone();
        for (n, (weight, affine)) in blocks.iter().enumerate() {
            x = conv_block_reference(&x, weight, affine, padding(input, n))?;
        }
        x.flatten_from(1)
    })
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// Distance of two tensors over the length of the second, and over an absolute floor.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let off: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    off.sqrt() / (b.iter().map(|b| b * b).sum::<f64>().sqrt() + 1e-9)
}

/// `room`: what the gradient may be off by. A rectifier whose input is within rounding of 0 may flip, which moves the gradient of a small picture by a hundredth.
fn holds(path: Path, input: [usize; 3], width: usize, depth: usize, batch: usize, parallel: bool, room: f64) {
    let x = pictures(batch, input);
    let stack = stack(path, input, width, depth);
    let found = run(&x, |x| stack.forward(x, parallel));
    let expected = reference(input, width, depth, &x);
    let off = [0, 1].map(|i| distance(&found[i], &expected[i]));
    assert!(off[0] < 3e-6 && off[1] < room, "{path:?} {input:?}, width {width}, depth {depth}, batch {batch}: {off:?}");
}

#[test]
fn features_and_gradients_equal_the_twins_in_double_precision_on_every_path() {
    for path in Path::usable() {
        for (input, width, depth, batch) in [
            ([1, 28, 28], 40, 3, 5),
            ([3, 32, 32], 32, 3, 3),
            ([3, 17, 13], 24, 2, 4),
            ([1, 8, 8], 64, 2, 9),
            ([2, 33, 64], 8, 4, 2),
            ([9, 12, 10], 16, 1, 3),
            ([3, 128, 128], 8, 5, 1),
            ([48, 9, 14], 48, 2, 2),
        ] {
            holds(path, input, width, depth, batch, false, 1e-2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_gives_the_twins_result(
        channels in 1usize..6,
        height in 8usize..40,
        width in 8usize..40,
        eighths in 1usize..6,
        depth in 1usize..3,
        batch in 1usize..7,
    ) {
        holds(Path::detect(), [channels, height, width], 8 * eighths, depth, batch, true, 3e-2);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_result() {
    let (input, width) = ([3, 12, 11], 16);
    let stack = stack(Path::detect(), input, width, 2);
    let x = pictures(2, input);
    let [y, gradient] = run(&x, |x| stack.forward(x, false));
    let (step, direction) = (tensor(x.dims(), "step"), tensor(&[1, y.dim(1).unwrap()], "direction"));
    let loss = |h: f64| -> f64 {
        let moved = (&x + (&step * h).unwrap()).unwrap();
        values(&stack.forward(&moved, false).unwrap().broadcast_mul(&direction).unwrap()).iter().sum()
    };
    let slope = (loss(1e-4) - loss(-1e-4)) / 2e-4;
    let expected: f64 = values(&(gradient * step).unwrap()).iter().sum();
    assert!((slope - expected).abs() < 2e-2 * (1.0 + expected.abs()), "{slope} {expected}");
}

#[test]
fn a_rows_bits_depend_neither_on_its_batch_nor_on_its_position_nor_on_threads() {
    for (input, width, depth) in [([1, 28, 28], 32, 3), ([3, 16, 16], 64, 2), ([3, 9, 14], 24, 2)] {
        let stack = stack(Path::detect(), input, width, depth);
        let x = pictures(11, input);
        let all = run(&x, |x| stack.forward(x, false));
        for row in [0, 3, 10] {
            let one = run(&x.narrow(0, row, 1).unwrap(), |x| stack.forward(x, false));
            for (one, all) in one.iter().zip(&all) {
                assert_eq!(bits(one), bits(&all.narrow(0, row, 1).unwrap()), "{input:?} row {row}");
            }
        }
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let again = pool.install(|| run(&x, |x| stack.forward(x, true)));
            for (again, all) in again.iter().zip(&all) {
                assert_eq!(bits(again), bits(all), "{input:?} {threads} threads");
            }
        }
    }
}

#[test]
fn memory_that_is_used_again_leaves_nothing_behind() {
    let input = [3, 17, 13];
    for path in Path::usable() {
        let arena = Arc::new(Arena::default());
        let new = |width: usize| {
            let blocks = blocks(input, width, 2);
            Arc::new(ConvStack::on_path(path, input, &blocks, |n| padding(input, n), arena.clone()).unwrap())
        };
        let (narrow, wide) = (new(24), new(40));
        let x = pictures(6, input);
        let fresh = [&narrow, &wide].map(|s| run(&x, |x| s.forward(x, false)));
        let poison = (&x * f64::NAN).unwrap();
        for stack in [&narrow, &wide] {
            let features = run(&poison, |x| stack.forward(x, false));
            assert!(values(&features[0]).iter().all(|v| v.is_nan()), "{path:?}: not a number must not be hidden");
        }
        for (stack, fresh) in [&narrow, &wide].into_iter().zip(&fresh) {
            let again = run(&x, |x| stack.forward(x, false));
            assert!(again.iter().zip(fresh).all(|(a, b)| bits(a) == bits(b)), "{path:?}");
        }
    }
}

#[test]
fn extreme_pictures_give_the_twins_result_or_finite_ones() {
    let input = [3, 16, 16];
    for path in Path::usable() {
        let stack = stack(path, input, 16, 2);
        let x = pictures(2, input);
        // Instance norm undoes a scale, but for its epsilon.
        let large = (&x * 1e6).unwrap();
        let off = distance(&stack.forward(&large, false).unwrap(), &reference(input, 16, 2, &large)[0]);
        assert!(off < 3e-6, "{path:?}: {off}");
        for value in [0.0, 3.7, 1e-42] {
            let constant = (x.zeros_like().unwrap() + value).unwrap();
            let found = run(&constant, |x| stack.forward(x, false));
            assert!(found.iter().all(|t| values(t).iter().all(|v| v.is_finite())), "{path:?} {value}");
        }
    }
}

#[test]
fn wrong_shapes_and_empty_batches_are_told_apart() {
    let stack = stack(Path::detect(), [3, 16, 16], 8, 2);
    assert_eq!(stack.forward(&pictures(0, [3, 16, 16]), true).unwrap().dims(), [0, 128]);
    let e = stack.forward(&pictures(1, [3, 16, 15]), true).unwrap_err().to_string();
    assert!(e.contains("expected f32 pictures of 3x16x16"), "{e}");
    let new = |blocks: &[(Tensor, Tensor)]| ConvStack::new([3, 16, 16], blocks, |_| 1, Arc::default()).unwrap_err();
    assert!(new(&[]).to_string().contains("no blocks"));
    let of_four = blocks([4, 16, 16], 8, 1);
    assert!(new(&of_four).to_string().contains("expected [out, 3, 3, 3]"));
}
