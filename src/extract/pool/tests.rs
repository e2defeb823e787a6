use std::collections::HashMap;

use candle_core::{DType, Var};

use super::*;
use crate::kernels::ConvStack;
use crate::random::normal;

const PICTURE: Shape = Shape::Picture { channels: 3, height: 8, width: 8 };
const VECTOR: Shape = Shape::Vector { len: 11 };
const READ: Wants = Wants { input: false, weights: false, parallel: false };

fn options() -> Options {
    Options { extractors: Some(2), width: Some(8), ..Options::default() }
}

fn pool(shape: Shape, options: &Options) -> Pool {
    Pool::build(&PoolRecipe::choose(shape, (0.0, 255.0), options).unwrap(), &Device::Cpu).unwrap()
}

fn rows(pool: &Pool, n: usize) -> Tensor {
    let values = normal(&mut stream(9, "rows"), n * pool.recipe().shape.len());
    pool.scale(&values.iter().map(|v| 128.0 + 50.0 * v).collect::<Vec<_>>()).unwrap()
}

fn features(pool: &Pool, member: usize, rows: &Tensor) -> Vec<Vec<f32>> {
    pool.features(member, rows, READ).unwrap().to_vec2().unwrap()
}

#[test]
fn the_recipe_follows_the_rows_and_the_options() {
    let fashion = Shape::Picture { channels: 1, height: 28, width: 28 };
    let sketched = Options { unroll: Some(0), ..Options::default() };
    let recipe = PoolRecipe::choose(fashion, (0.0, 255.0), &sketched).unwrap();
    assert_eq!((recipe.extractors, recipe.width, recipe.depth, recipe.feature_len()), (16, 64, 3, 1024));
    let recipe = PoolRecipe::choose(VECTOR, (0.0, 1.0), &Options::default()).unwrap();
    assert_eq!((recipe.extractors, recipe.width, recipe.depth, recipe.feature_len()), (16, 256, 2, 256));
    let asked = Options { width: Some(32), depth: Some(1), extractors: Some(3), seed: 7, ..Options::default() };
    let recipe = PoolRecipe::choose(PICTURE, (0.0, 255.0), &asked).unwrap();
    assert_eq!((recipe.extractors, recipe.width, recipe.depth, recipe.feature_len()), (3, 32, 1, 512));
    assert_eq!(recipe.source, Source::Random { seed: 7 });
}

#[test]
fn recipes_that_cannot_be_are_errors_that_name_the_option() {
    let error = |shape, range, options: Options| PoolRecipe::choose(shape, range, &options).unwrap_err().to_string();
    let deep = Options { depth: Some(5), ..Options::default() };
    assert!(error(PICTURE, (0.0, 255.0), deep).contains("option depth"));
    let augment = Options { augment: "flip".into(), ..Options::default() };
    assert!(error(VECTOR, (0.0, 255.0), augment).contains("option 'augment'"));
    for range in [(1.0, 0.0), (0.0, f32::INFINITY), (f32::NAN, 1.0)] {
        assert!(error(VECTOR, range, Options::default()).contains("option 'ranges'"));
    }
    for (name, asked) in [
        ("'layers'", Options { layers: Layers::All, ..Options::default() }),
        ("'sizes'", Options { sizes: Sizes::Mixed, ..Options::default() }),
    ] {
        let e = error(VECTOR, (0.0, 255.0), asked.clone());
        assert!(e.contains(name) && e.contains("for pictures") && e.contains("vector of 11"), "{e}");
        // Nor does a recipe that was read from somewhere.
        let read = PoolRecipe { layers: asked.layers, sizes: asked.sizes, ..pool(VECTOR, &options()).recipe };
        assert!(read.check_sound().unwrap_err().contains("is no network for a vector of 11"));
    }
    let missing = Options { pool_file: Some("no/such/file".into()), ..Options::default() };
    assert!(error(PICTURE, (0.0, 255.0), missing).contains("no/such/file"));
}

#[test]
fn the_range_is_scaled_to_two_deviations_either_way() {
    let pool = pool(VECTOR, &options());
    let scaled = pool.scale(&[0.0, 127.5, 255.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    assert_eq!(scaled.dims(), [1, 11]);
    assert_eq!(scaled.to_vec2::<f32>().unwrap()[0][..3], [-2.0, 0.0, 2.0]);
    assert!(pool.scale(&[0.0; 12]).unwrap_err().to_string().contains("12 numbers"));
    assert_eq!(Scaling::for_range((3.0, 3.0)).unwrap().scale(&[3.0]), [0.0]);
}

#[test]
fn a_rows_features_do_not_depend_on_its_neighbours() {
    let plain = [(PICTURE, "none"), (PICTURE, "color"), (PICTURE, "rotate"), (VECTOR, "none")];
    let plain = plain.map(|(shape, augment)| (shape, Options { augment: augment.into(), ..options() }));
    for (shape, options) in plain.into_iter().chain([(PICTURE, rich())]) {
        let pool = pool(shape, &options);
        let rows = rows(&pool, 70);
        let all = features(&pool, 1, &rows);
        for (start, count) in [(0, 1), (3, 5), (66, 2), (5, 65)] {
            assert_eq!(features(&pool, 1, &rows.narrow(0, start, count).unwrap()), all[start..start + count]);
        }
    }
}

#[test]
fn members_differ_and_gradients_come_only_where_wanted() {
    for shape in [PICTURE, VECTOR] {
        let pool = pool(shape, &options());
        let rows = Var::from_tensor(&rows(&pool, 3)).unwrap();
        assert_ne!(features(&pool, 0, &rows), features(&pool, 1, &rows));
        let gradient = |input| {
            let features = pool.features(0, &rows, Wants { input, ..READ }).unwrap();
            let loss = features.sqr().unwrap().sum_all().unwrap();
            loss.backward().unwrap().get(&rows).map(|g| g.dims().to_vec())
        };
        assert_eq!(gradient(true), Some(rows.dims().to_vec()));
        assert_eq!(gradient(false), None);
        assert!(pool.features(2, &rows, READ).unwrap_err().to_string().contains("no extractor 2; the pool has 2"));
    }
}

#[test]
fn the_fingerprint_changes_with_whatever_changes_features_and_with_nothing_else() {
    for shape in [PICTURE, VECTOR] {
        let of = |options: &Options| pool(shape, options).fingerprint().to_owned();
        let first = of(&options());
        assert_eq!(first, of(&Options { ipc: 3, steps: Some(5), ..options() }));
        let mut others = vec![
            of(&Options { seed: 1, ..options() }),
            of(&Options { width: Some(16), ..options() }),
            of(&Options { depth: Some(3), ..options() }),
            of(&Options { extractors: Some(3), ..options() }),
        ];
        let recipe = PoolRecipe::choose(shape, (0.0, 1.0), &options()).unwrap();
        others.push(Pool::build(&recipe, &Device::Cpu).unwrap().fingerprint().to_owned());
        if shape == PICTURE {
            others.push(of(&Options { augment: "rotate".into(), ..options() }));
            others.push(of(&Options { layers: Layers::All, ..options() }));
            others.push(of(&Options { sizes: Sizes::Mixed, ..options() }));
            others.push(of(&Options { layers: Layers::All, sizes: Sizes::Mixed, ..options() }));
        }
        others.push(first);
        let distinct: std::collections::HashSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
    }
}

/// Of all layers and mixed sizes.
fn rich() -> Options {
    Options {
        extractors: Some(5),
        width: Some(16),
        depth: Some(2),
        layers: Layers::All,
        sizes: Sizes::Mixed,
        ..Options::default()
    }
}

#[test]
fn pools_made_before_there_was_a_choice_of_layers_and_sizes_are_the_same_still() {
    let shape = Shape::Picture { channels: 1, height: 8, width: 8 };
    let pool = pool(shape, &Options { depth: Some(1), ..options() });
    assert_eq!(pool.fingerprint(), "c0a41b015c95989fdc376064dffc0aed67cff2c56229c721bd8c3920f1595527");
    let json = r#"{"shape":{"picture":{"channels":1,"height":8,"width":8}},"scaling":{"affine":{"low":0.0,"high":255.0,"scale":0.015686275,"offset":-2.0}},"source":{"random":{"seed":0}},"extractors":2,"network":"convnet","width":8,"depth":1,"augment":"none"}"#;
    assert_eq!(serde_json::to_string(pool.recipe()).unwrap(), json);
    assert_eq!(serde_json::from_str::<PoolRecipe>(json).unwrap(), *pool.recipe());
    let rich = PoolRecipe::choose(shape, (0.0, 255.0), &rich()).unwrap();
    let json = serde_json::to_string(&rich).unwrap();
    assert!(json.contains(r#""layers":"all","sizes":"mixed""#), "{json}");
    assert_eq!(serde_json::from_str::<PoolRecipe>(&json).unwrap(), rich);
}

#[test]
fn a_mixed_pools_features_are_as_long_as_those_of_its_largest_extractor() {
    for layers in [Layers::Last, Layers::All] {
        let pool = pool(PICTURE, &Options { layers, ..rich() });
        let recipe = pool.recipe();
        recipe.check_sound().unwrap();
        let (rows, read) = (rows(&pool, 3), |depth| if layers == Layers::All { depth } else { 1 });
        assert_eq!(recipe.feature_len(), 16 * 2 * 2 * read(2));
        for (n, (width, depth)) in [(16, 2), (8, 2), (16, 1), (8, 1), (8, 2)].into_iter().enumerate() {
            assert_eq!(recipe.size_of(n), (width, depth));
            let net = ConvNet::random([3, 8, 8], width, depth, &mut stream(0, &format!("extractor {n}")), &Device::Cpu);
            let net = net.unwrap().reading(layers, 2 - depth).unwrap();
            let own = net.forward(&rows, READ).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(own[0].len(), width * 2 * 2 * read(depth));
            for (found, own) in features(&pool, n, &rows).iter().zip(own) {
                assert_eq!((found.len(), &found[..own.len()]), (recipe.feature_len(), &own[..]));
                assert!(found[own.len()..].iter().all(|v| *v == 0.0));
            }
        }
        let rows = Var::from_tensor(&rows).unwrap();
        let loss = pool.features(3, &rows, Wants { input: true, ..READ }).unwrap().sqr().unwrap().sum_all().unwrap();
        assert_eq!(loss.backward().unwrap().get(&rows).unwrap().dims(), rows.dims());
    }
}

#[test]
fn the_memory_of_a_mixed_pools_networks_is_that_of_each() {
    let of = |options: &Options| PoolRecipe::choose(PICTURE, (0.0, 255.0), options).unwrap().network_bytes(true);
    let one = |width, depth| {
        let (width, depth) = (Some(width), Some(depth));
        of(&Options { extractors: Some(1), width, depth, sizes: Sizes::Same, ..rich() })
    };
    assert_eq!(of(&rich()), one(16, 2) + one(8, 2) + one(16, 1) + one(8, 1) + one(8, 2));
    assert_eq!(of(&rich()), of(&Options { layers: Layers::Last, ..rich() }));
}

#[test]
fn the_memory_of_networks_is_no_less_than_their_weights_and_what_is_packed_of_them() {
    for (width, depth) in [(8, 3), (16, 3), (40, 2), (64, 3)] {
        let options = Options { extractors: Some(2), width: Some(width), depth: Some(depth), ..Options::default() };
        // Large enough that all blocks but the first are multiplied in Winograd's domain.
        let shape = Shape::Picture { channels: 3, height: 16, width: 16 };
        let recipe = PoolRecipe::choose(shape, (0.0, 255.0), &options).unwrap();
        let net = ConvNet::random([3, 16, 16], width, depth, &mut stream(1, "network"), &Device::Cpu).unwrap();
        let weights: usize = net.blocks().iter().map(|(weight, _)| weight.elem_count()).sum();
        let stack = Arc::new(ConvStack::new([3, 16, 16], net.blocks(), |_| 1, Arc::default()).unwrap());
        let held = |stack: &ConvStack| 2 * size_of::<f32>() * (weights + stack.packed_len());
        assert!(recipe.network_bytes(false) >= held(&stack), "width {width}, forward");
        let rows = Var::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
        stack.forward(&rows, false).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(recipe.network_bytes(true) >= held(&stack), "width {width}, with gradients");
    }
}

#[test]
fn a_saved_pool_comes_back_with_the_same_fingerprint_and_features() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pool.safetensors");
    let augmented = Options { augment: "color_crop_rotate".into(), seed: 5, ..options() };
    for (shape, options) in [(PICTURE, augmented), (VECTOR, Options { seed: 5, ..options() }), (PICTURE, rich())] {
        let pool = pool(shape, &options);
        pool.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        pool.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same pool gives the same bytes");
        let from_file = Options { pool_file: Some(path.to_str().unwrap().into()), ..Options::default() };
        // The file's scaling counts, not the range.
        let recipe = PoolRecipe::choose(shape, (0.0, 1.0), &from_file).unwrap();
        assert_eq!((recipe.layers, recipe.sizes), (options.layers, options.sizes));
        let again = Pool::build(&recipe, &Device::Cpu).unwrap();
        assert_eq!(again.fingerprint(), pool.fingerprint());
        assert_eq!(features(&again, 1, &rows(&pool, 4)), features(&pool, 1, &rows(&pool, 4)));
        again.save(&path).unwrap();
        assert_eq!(Pool::build(&recipe, &Device::Cpu).unwrap().fingerprint(), pool.fingerprint());
        let other = Shape::Vector { len: 12 };
        let e = PoolRecipe::choose(other, (0.0, 1.0), &from_file).unwrap_err().to_string();
        assert!(e.contains("pool.safetensors") && e.contains("found vector of 12"), "{e}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
}

#[test]
fn a_file_without_metadata_works_and_a_broken_one_is_named_with_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let name = path.to_str().unwrap().to_owned();
    let pool = pool(PICTURE, &options());
    let all: HashMap<String, Tensor> =
        (0..2).flat_map(|n| pool.members[n].net.tensors(&format!("extractors.{n}"))).collect();
    let read = |tensors: &HashMap<String, Tensor>, shape| {
        candle_core::safetensors::save(tensors, &path).unwrap();
        let from_file = Options { pool_file: Some(name.clone()), ..Options::default() };
        Pool::build(&PoolRecipe::choose(shape, (0.0, 255.0), &from_file)?, &Device::Cpu)
    };
    assert_eq!(read(&all, PICTURE).unwrap().fingerprint(), pool.fingerprint());

    type Change = fn(&mut HashMap<String, Tensor>);
    let changes: [(Change, &str); 5] = [
        (|t| drop(t.remove("extractors.1.blocks.0.affine")), "'extractors.1.blocks.0.affine' is missing"),
        (|t| drop(t.remove("extractors.0.blocks.0.weight")), "'extractors.0.blocks.0.weight' is missing"),
        (
            |t| {
                let affine = t["extractors.0.blocks.0.affine"].t().unwrap().contiguous().unwrap();
                t.insert("extractors.0.blocks.0.affine".into(), affine);
            },
            "'extractors.0.blocks.0.affine' is [8, 2], expected [2, 8]",
        ),
        (
            |t| {
                let bad = (&t["extractors.1.blocks.0.weight"] * f64::NAN).unwrap();
                t.insert("extractors.1.blocks.0.weight".into(), bad);
            },
            "'extractors.1.blocks.0.weight' holds NaN",
        ),
        (
            |t| {
                let wide = Tensor::ones((16, 3, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
                t.insert("extractors.1.blocks.0.weight".into(), wide);
                let affine = Tensor::ones((2, 16), candle_core::DType::F32, &Device::Cpu).unwrap();
                t.insert("extractors.1.blocks.0.affine".into(), affine);
            },
            "'extractors.1' has width 16 and depth 1, expected width 8",
        ),
    ];
    for (change, part) in changes {
        let mut tensors = all.clone();
        change(&mut tensors);
        let e = read(&tensors, PICTURE).unwrap_err().to_string();
        assert!(e.contains(part) && e.contains(&name), "{e}");
    }
    assert!(read(&all, VECTOR).unwrap_err().to_string().contains("for rows of another kind"));
    std::fs::write(&path, b"not safetensors").unwrap();
    let from_file = Options { pool_file: Some(name.clone()), ..Options::default() };
    let e = PoolRecipe::choose(PICTURE, (0.0, 255.0), &from_file).unwrap_err().to_string();
    assert!(e.contains(&name) && e.contains("can't be read as safetensors"), "{e}");
}
