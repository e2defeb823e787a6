//! The same tensors flow into the kernels of the CPU and into those of the device that `auto` picks; the same values and gradients flow out.
//!
//! Without a GPU both are the CPU, and what is held is that the results don't hang on anything else.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Float32Type;
use datafusion_distill::extract::{Pool, PoolRecipe, device};
use datafusion_distill::kernels::{
    Frequencies, Groups, Transform, Wants, characteristic, characteristic_learned, conv_blocks, ridge_solve,
};
use datafusion_distill::random::{normal, stream};
use datafusion_distill::rows::Shape;
use datafusion_distill::{Options, options::Value, sketch};

use crate::support::{self, SMALL};

/// How far apart two devices may be, as a part of the values' length: sums of another order, and a rectifier that tips.
const APART: f64 = 1e-2;

fn assert_close(here: &[f32], there: &[f32], what: &str) {
    assert_eq!(here.len(), there.len(), "{what}");
    assert!(there.iter().all(|v| v.is_finite()), "{what}: not finite");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let length = norm(&mut here.iter().map(|v| f64::from(*v)));
    let apart = norm(&mut here.iter().zip(there).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    assert!(length > 0.0 && apart <= APART * length, "{what}: {apart:e} apart, of {length:e}");
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The value of `f` at `inputs`, then its gradient for each of them, weighted so that no two of its elements count alike.
fn value_and_gradients(
    inputs: &[(&[usize], f32)],
    on: &Device,
    f: &dyn Fn(&[Var], &Device) -> Result<Tensor>,
) -> Vec<Vec<f32>> {
    let variables: Vec<Var> = inputs
        .iter()
        .enumerate()
        .map(|(i, (shape, scale))| {
            let drawn = normal(&mut stream(7, &format!("input {i}")), shape.iter().product());
            let scaled: Vec<f32> = drawn.into_iter().map(|v| v * scale).collect();
            Var::from_vec(scaled, *shape, on).unwrap()
        })
        .collect();
    let value = f(&variables, on).unwrap();
    let weights = normal(&mut stream(7, "weights"), value.elem_count());
    let weights = Tensor::from_vec(weights, value.shape(), on).unwrap();
    let gradients = (&value * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |v: &Var| numbers(gradients.get(v).unwrap_or_else(|| panic!("a variable {:?} has no gradient", v.dims())));
    std::iter::once(numbers(&value)).chain(variables.iter().map(of)).collect()
}

fn same_on_both(what: &str, inputs: &[(&[usize], f32)], f: &dyn Fn(&[Var], &Device) -> Result<Tensor>) {
    let auto = device("auto").unwrap();
    let here = value_and_gradients(inputs, &Device::Cpu, f);
    let there = value_and_gradients(inputs, &auto, f);
    for (i, (here, there)) in here.iter().zip(&there).enumerate() {
        assert_close(
            here,
            there,
            &format!("{what}, {}", if i == 0 { "value".into() } else { format!("gradient {i}") }),
        );
    }
}

#[test]
fn convolution_blocks() {
    let wants = Wants { input: true, weights: true, parallel: false };
    for (what, [channels, height, width], padding) in
        [("28x28, padded by three", [1, 28, 28], 3), ("odd RGB", [3, 17, 13], 1)]
    {
        let (first, second) = ([32, channels, 3, 3], [40, 32, 3, 3]);
        let inputs: [(&[usize], f32); 5] =
            [(&[5, channels, height, width], 1.0), (&first, 0.3), (&[2, 32], 1.0), (&second, 0.1), (&[2, 40], 1.0)];
        same_on_both(what, &inputs, &|v, _| {
            let t: Vec<Tensor> = v.iter().map(|v| v.as_tensor().clone()).collect();
            let blocks = [(t[1].clone(), t[2].clone()), (t[3].clone(), t[4].clone())];
            conv_blocks(&t[0], &blocks, |n| if n == 0 { padding } else { 1 }, wants, &Arc::default())
        });
    }
}

#[test]
fn characteristic_functions_of_groups_of_one_size_and_of_several() {
    for sizes in [vec![4, 4, 4], vec![1, 7, 0, 4]] {
        let groups = Groups::new(&sizes);
        same_on_both("frozen frequencies", &[(&[12, 20], 1.0)], &|v, on| {
            let frequencies = Frequencies::new(&normal(&mut stream(7, "frequencies"), 20 * 33), 20, 33, on)?;
            let (real, imaginary) = characteristic(&v[0], &frequencies, &groups)?;
            Tensor::cat(&[real, imaginary], 1)
        });
        same_on_both("learned frequencies", &[(&[12, 20], 1.0), (&[20, 33], 0.2)], &|v, _| {
            let (real, imaginary) = characteristic_learned(&v[0], &v[1], &groups)?;
            Tensor::cat(&[real, imaginary], 1)
        });
        same_on_both("means", &[(&[12, 20], 1.0)], &|v, _| groups.mean(&v[0]));
    }
}

#[test]
fn ridge_systems() {
    same_on_both("ridge", &[(&[30, 50], 0.3), (&[30, 4], 1.0)], &|v, on| {
        let k = (v[0].matmul(&v[0].t()?)? + Tensor::eye(30, candle_core::DType::F32, on)?)?;
        ridge_solve(&k, &v[1])
    });
}

#[test]
fn augmentations() {
    for strategy in ["color", "crop", "cutout", "flip", "scale", "rotate"] {
        for (dims, siamese) in [([3, 12, 10], true), ([1, 9, 9], false)] {
            let mut rng = stream(3, strategy);
            let transform = match siamese {
                true => Transform::siamese(strategy, dims, &mut rng),
                false => Transform::per_row(strategy, 6, dims, &mut rng),
            };
            let shape = [6, dims[0], dims[1], dims[2]];
            same_on_both(strategy, &[(&shape, 1.0)], &|v, _| transform.apply(&v[0]));
        }
    }
}

#[test]
fn pools_have_the_same_networks_and_features() {
    let pictures = Shape::Picture { channels: 3, height: 16, width: 16 };
    for (shape, arguments) in
        [(pictures, [("width", 16), ("extractors", 2)]), (Shape::Vector { len: 9 }, [("width", 16), ("extractors", 2)])]
    {
        let mut options = Options::default();
        for (name, value) in arguments {
            options.set(name, &Value::Int(value)).unwrap();
        }
        let recipe = PoolRecipe::choose(shape, (0.0, 255.0), &options).unwrap();
        let build = |on: &Device| Pool::build(&recipe, on).unwrap();
        let (here, there) = (build(&Device::Cpu), build(&device("auto").unwrap()));
        assert_eq!(here.fingerprint(), there.fingerprint());
        let values: Vec<f32> = (0..8 * shape.len()).map(|i| (i * 37 % 256) as f32).collect();
        for member in 0..2 {
            let run = |pool: &Pool| {
                let wants = Wants { input: true, weights: false, parallel: false };
                let rows = Var::from_tensor(&pool.scale(&values).unwrap()).unwrap();
                let features = pool.features(member, &rows, wants).unwrap();
                let gradients = features.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                (numbers(&features), numbers(gradients.get(&rows).unwrap()))
            };
            let (here, there) = (run(&here), run(&there));
            assert_close(&here.0, &there.0, "features");
            assert_close(&here.1, &there.1, "gradient");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sketches_are_of_the_same_features_and_say_where_they_were_made() {
    let ctx = support::session_with_table("t", support::pictures(60, 3));
    let members = async |on: &str| {
        let options = format!("extractors=2 width=8 depth=1 frequencies=16 moments=class device={on}");
        let query =
            format!("SELECT label, distill_sketch_agg(image, '{options}') AS s FROM t GROUP BY label ORDER BY label");
        let found = support::rows(&ctx, &query).await.unwrap();
        let sketches = found.column(1).as_struct();
        let (header, _) = sketch::from_array(sketches, 0).unwrap();
        let of = |row| sketch::from_array(sketches, row).unwrap().1;
        (header.numerics.clone(), (0..3).map(of).collect::<Vec<_>>())
    };
    let (here, there) = (members("cpu").await, members("auto").await);
    let name = match device("auto").unwrap() {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    };
    assert!(here.0.ends_with(" cpu") && there.0.ends_with(name), "{} {}", here.0, there.0);
    let floats = |sums: &[i64]| -> Vec<f32> { sums.iter().map(|v| *v as f32).collect() };
    for (here, there) in here.1.iter().zip(&there.1) {
        assert_eq!(here.count, there.count);
        for (here, there) in here.members.iter().zip(&there.members) {
            assert_close(&floats(&here.embedding), &floats(&there.embedding), "embedding");
            assert_close(&floats(&here.cos), &floats(&there.cos), "cosines");
            assert_close(&floats(&here.sin), &floats(&there.sin), "sines");
        }
    }
}

/// The numbers of a column of (nested) lists of f32.
fn values(column: &dyn Array) -> Vec<f32> {
    if let Some(numbers) = column.as_primitive_opt::<Float32Type>() {
        numbers.values().to_vec()
    } else if let Some(lists) = column.as_fixed_size_list_opt() {
        values(lists.values())
    } else {
        values(column.as_list::<i32>().values())
    }
}

/// What the optimizer's first steps make of one start is the same to a level or two; bits are a matter of one device.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_every_kind_go_the_same_way_and_repeat() {
    let ctx = support::session_with_table("t", support::pictures(60, 3));
    for options in [
        "method => 'mean'",
        "method => 'characteristic', min_max => 0.5",
        "method => 'ridge'",
        "method => 'ridge', label_kind => 'soft', terms => 'ridge=1,mean=0.01'",
        "method => 'characteristic', mosaic => 2, mosaic_rows => 1, augment => 'color_crop_cutout_flip_scale_rotate'",
        "method => 'mean', pool => 'trained'",
        "method => 'herding'",
    ] {
        // Choosing takes no steps.
        let small = if options.contains("herding") { SMALL.replace("steps => 2, ", "") } else { SMALL.into() };
        let run = async |on: &str| {
            let query = format!(
                "SELECT * FROM distill(t, ipc => 2, device => '{on}', encoding => 'tensor', {small}, {options})"
            );
            support::rows(&ctx, &query).await.unwrap_or_else(|e| panic!("{options} on {on}: {e}"))
        };
        let (here, there) = (run("cpu").await, run("auto").await);
        let without_metadata = |batch: &RecordBatch| batch.schema().as_ref().clone().with_metadata(HashMap::new());
        assert_eq!(without_metadata(&here), without_metadata(&there), "{options}");
        assert_eq!(there, run("auto").await, "{options} gives other bytes when run again");
        assert_eq!(here.column_by_name("label"), there.column_by_name("label"), "{options}");
        let pixels = |batch: &RecordBatch| values(batch.column_by_name("image").unwrap());
        assert_close(&pixels(&here), &pixels(&there), options);
    }
}
