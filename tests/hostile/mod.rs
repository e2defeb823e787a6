//! Sketches, pool files, options and rows that anyone may have written are errors, never a panic or a flood of memory.
//!
//! The targets are those of `cargo fuzz`; cases that it, or anyone, found lie in `fuzz/corpus`.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StructArray};
use datafusion::arrow::datatypes::Field;
use datafusion_distill::extract::{Pool, PoolRecipe, device};
use datafusion_distill::options::{Options, PoolBytes};
use datafusion_distill::rows::Shape;
use datafusion_distill::sketch;
use proptest::prelude::*;

use crate::support::*;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("sketch_reader", targets::sketch_reader),
    ("pool_reader", targets::pool_reader),
    ("option_parser", targets::option_parser),
    ("row_decoder", targets::row_decoder),
];

#[test]
fn cases_that_were_found_stay_errors() {
    for (name, target) in TARGETS {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name} has no cases");
        files.iter().for_each(|file| target(&std::fs::read(file).unwrap()));
    }
}

/// A pool file of two small networks.
fn pool_file() -> Vec<u8> {
    let options = Options { extractors: Some(2), width: Some(8), depth: Some(1), ..Options::default() };
    let recipe = PoolRecipe::choose(Shape::Vector { len: 3 }, (0.0, 1.0), &options).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    Pool::build(&recipe, &device("cpu").unwrap()).unwrap().save(file.path()).unwrap();
    std::fs::read(file.path()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn random_bytes_do_not_make_any_target_panic(data in prop::collection::vec(any::<u8>(), 0..80)) {
        TARGETS.iter().for_each(|(_, target)| target(&data));
    }

    #[test]
    fn options_with_anything_in_them_are_set_or_refused(text in "[a-z_]{0,9}=?['0-9a-z=. ,|-]{0,20}( (seed|ranges|image_size|augment|device)=[-'0-9a-zx=.,|]{0,12})?") {
        targets::option_parser(text.as_bytes());
    }
}

#[test]
fn damaged_pool_files_are_errors() {
    let good = pool_file();
    targets::pool_reader(&good);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    runner
        .run(&(damage, any::<Option<prop::sample::Index>>()), |(changes, cut)| {
            let mut bytes = good.clone();
            // The header is where the sizes are.
            changes.iter().for_each(|(at, byte)| {
                let at = at.index(bytes.len().min(900));
                bytes[at] = *byte;
            });
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            targets::pool_reader(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn absurd_pool_files_name_what_is_wrong() {
    let good = String::from_utf8_lossy(&pool_file()).into_owned();
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        // The metadata is JSON inside JSON; the header's length is its first eight bytes.
        let text = pool_file();
        let length = u64::from_le_bytes(text[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(text[8..8 + length].to_vec()).unwrap().replace(from, to);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &text[8 + length..]].concat();
        let bytes = Some(PoolBytes(Arc::new(bytes)));
        let options = Options { pool_file: Some("p".into()), pool_bytes: bytes, ..Options::default() };
        let recipe = PoolRecipe::choose(Shape::Vector { len: 3 }, (0.0, 1.0), &options);
        recipe.and_then(|r| Pool::build_for(&r, &device("cpu").unwrap(), &options)).unwrap_err().to_string()
    };
    for (from, to, part) in [
        (r#"\"extractors\":2"#, r#"\"extractors\":4000000000"#, "impossible sizes"),
        (r#"\"extractors\":2"#, r#"\"extractors\":3"#, "'extractors.2"),
        (r#"\"depth\":1"#, r#"\"depth\":0"#, "impossible sizes"),
        (r#"\"network\":\"mlp\""#, r#"\"network\":\"convnet\""#, "no network for a vector of 3"),
        (r#"\"augment\":\"none\""#, r#"\"augment\":\"melt\""#, "'melt' is no augmentation"),
        (r#"\"scale\":4.0"#, r#"\"scale\":0.0"#, "not a map"),
        (r#""shape":[8,3]"#, r#""shape":[8,4611686018427387904]"#, "safetensors"),
        (r#""data_offsets":[0,"#, r#""data_offsets":[9,"#, "safetensors"),
    ] {
        let e = refused(from, to);
        assert!(e.contains(part), "{to}: {e}");
    }
}

#[tokio::test]
async fn an_absurd_recipe_in_a_sketch_is_an_error_of_every_function_that_reads_it() {
    let ctx = session();
    ctx.register_batch("t", pictures(6, 2)).unwrap();
    let made = "SELECT label, distill_sketch_agg(image, 'extractors=1 width=8 depth=1 frequencies=2') AS s FROM t GROUP BY label";
    let batch = rows(&ctx, made).await.unwrap();
    let array = batch.column(1).as_struct();
    let recipe = array.column_by_name("recipe").unwrap().as_string::<i32>().value(0).to_string();
    for (i, (from, to, part)) in [
        ("\"width\":8", "\"width\":1048576", "288 sums, expected"),
        ("\"height\":8", "\"height\":8589934592", "impossible sizes"),
        ("\"depth\":1", "\"depth\":40", "no network for a 1x8x8 picture"),
        ("\"random\"", "\"elsewhere\"", "unknown variant"),
        ("{", "{{{{{{{{{{{{{{{{{{{{{", "recipe"),
        ("\"extractors\":1", "\"extractors\":-1", "invalid value"),
    ]
    .into_iter()
    .enumerate()
    {
        let damaged =
            with(array, "recipe", Arc::new(StringArray::from(vec![recipe.replacen(from, to, 1); batch.num_rows()])));
        let table = format!("k{i}");
        let columns = [("label", batch.column(0).clone()), ("s", Arc::new(damaged) as ArrayRef)];
        ctx.register_batch(&table, RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        for query in [
            format!("SELECT distill_union_agg(s) FROM {table}"),
            format!("SELECT distill_difference(s, s) FROM {table}"),
            format!("SELECT distill_distance(s, s) FROM {table}"),
            format!("SELECT distill_describe(s) FROM {table}"),
            format!("SELECT * FROM distill({table}, ipc => 1)"),
        ] {
            let e = message(&ctx, &query).await;
            assert!(e.contains("the sketch is damaged") && e.contains(part), "{query}: {e}");
        }
    }
}

/// `array` with field `name` replaced.
fn with(array: &StructArray, name: &str, column: ArrayRef) -> StructArray {
    let fields = array.fields().iter().zip(array.columns()).map(|(field, old)| {
        let new = if field.name() == name { column.clone() } else { old.clone() };
        (Arc::new(Field::new(field.name(), new.data_type().clone(), true)), new)
    });
    let (fields, columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = fields.unzip();
    let found = StructArray::try_new(fields.into(), columns, None).unwrap();
    assert!(sketch::is_sketch(found.data_type()));
    found
}
