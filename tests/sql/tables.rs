//! Tables of numbers and categories: roles, scaling, missing values, and that what comes out could have been in the source.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::cast::as_string_array;
use datafusion::prelude::SessionContext;

use crate::support::*;

/// Options that make a job over a table take milliseconds.
const QUICK: &str =
    "extractors => 2, width => 16, depth => 1, frequencies => 8, exclude => ['customer_id'], ipc => 4, steps => 5";

/// People: an id, a date, numbers with a heavy tail, categories of every type; every fifth income is missing.
fn people(rows: usize) -> RecordBatch {
    let at = |f: fn(usize) -> i64| -> ArrayRef { Arc::new((0..rows).map(f).collect::<Int64Array>()) };
    let colours = ["red", "green", "blue"];
    let income = (0..rows).map(|i| (i % 5 != 0).then_some(if i % 50 == 7 { 1e6 } else { (i % 90) as f64 / 10.0 }));
    let colour: DictionaryArray<Int32Type> = (0..rows).map(|i| Some(colours[(i / 3) % 3])).collect();
    let price = Decimal128Array::from_iter_values((0..rows).map(|i| (i % 70) as i128)).with_precision_and_scale(8, 2);
    RecordBatch::try_from_iter_with_nullable([
        ("customer_id", at(|i| 1000 + i as i64), false),
        ("day", Arc::new(Date32Array::from_iter_values(0..rows as i32)) as ArrayRef, true),
        ("age", at(|i| 18 + (i * 7 % 60) as i64), true),
        ("income", Arc::new(income.collect::<Float64Array>()), true),
        ("price", Arc::new(price.unwrap()), true),
        ("region", at(|i| (i % 4) as i64 * 10), true),
        ("colour", Arc::new(colour), true),
        ("member", Arc::new((0..rows).map(|i| Some(i % 2 == 0)).collect::<BooleanArray>()), true),
        ("note", Arc::new((0..rows).map(|i| Some(format!("note {i}"))).collect::<StringArray>()), true),
        (
            "label",
            Arc::new((0..rows).map(|i| Some(if i % 3 == 0 { "yes" } else { "no" })).collect::<StringArray>()),
            true,
        ),
    ])
    .unwrap()
}

fn call(options: &str) -> String {
    // What `options` give isn't given twice.
    let quick: Vec<&str> =
        QUICK.split(", ").filter(|o| !options.contains(&o[..o.find(" =>").unwrap_or(o.len())])).collect();
    format!("SELECT * FROM distill(t, {}, on_null => 'impute'{options})", quick.join(", "))
}

async fn distilled(ctx: &SessionContext, options: &str) -> RecordBatch {
    rows(ctx, &call(options)).await.unwrap()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap()
}

#[tokio::test]
async fn explain_lists_each_columns_role_with_the_reason() {
    let ctx = session_with_table("t", people(120));
    let plan = explained(&ctx, &call(", categorical => ['region']"), "").await;
    for part in [
        "customer_id: excluded (option exclude: not in the output)",
        "day: carried (a Date32: NULL in the synthetic rows)",
        "age: feature (number)",
        "price: feature (number)",
        "region: feature (category, option categorical)",
        "colour: feature (category)",
        "member: feature (category)",
        "note: carried (text with a value of its own in nearly every row: NULL in the synthetic rows)",
        "label: label (named 'label')",
        "rows=table of 6 columns",
        "network=mixed",
        "scans=2 (profile, sketch)",
        "ProfileExec: columns=[age, income, price, region, colour, member]",
    ] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    assert!(!plan.contains("sketch_bytes_per_class=known at run"), "{plan}");
}

#[tokio::test]
async fn ids_dates_uuids_and_partitions_are_no_features_unless_named() {
    let batch = people(60);
    let ids = RecordBatch::try_from_iter_with_nullable([
        ("user_id", column(&batch, "customer_id").clone(), true),
        ("shop_id", column(&batch, "region").clone(), true),
        (
            "uuid",
            Arc::new(
                (0..60).map(|i| Some(format!("123e4567-e89b-12d3-a456-4266141740{i:02}"))).collect::<StringArray>(),
            ) as ArrayRef,
            true,
        ),
        ("day", column(&batch, "day").clone(), true),
        ("age", column(&batch, "age").clone(), true),
        ("label", column(&batch, "label").clone(), true),
    ])
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (part, rows) in [("part=a", ids.slice(0, 30)), ("part=b", ids.slice(30, 30))] {
        std::fs::create_dir(dir.path().join(part)).unwrap();
        write_parquet(dir.path().join(part).join("x.parquet"), &rows);
    }
    let ctx = session();
    let query = |options: &str| format!("SELECT * FROM distill('{}/', {options})", dir.path().display());
    let explain = async |options: &str| explained(&ctx, &query(&format!("{SMALL}{options}")), "").await;
    let plan = explain("").await;
    for part in [
        "user_id: carried (an id:",
        // Named like one, but with few values.
        "shop_id: feature (number)",
        "uuid: carried (UUIDs:",
        "part: carried (a partition of the folders: NULL in the synthetic rows)",
        "day: carried (a Date32:",
        "age: feature (number)",
    ] {
        assert!(plan.contains(part), "{part} in {plan}");
    }
    let plan = explain(", features => ['part', 'user_id']").await;
    assert!(plan.contains("part: feature (option features)") && plan.contains("user_id: feature (option features)"));
}

#[tokio::test]
async fn synthetic_rows_have_the_schema_and_values_that_occur_in_the_source() {
    let source = people(120);
    let ctx = session_with_table("t", source.clone());
    let out = distilled(&ctx, ", categorical => ['region']").await;
    assert_eq!(out.num_rows(), 8);
    let expected: Vec<_> = source.schema().fields().iter().skip(1).cloned().collect();
    assert_eq!(out.schema().fields().to_vec(), expected);
    assert_eq!(column(&out, "day").null_count() + column(&out, "note").null_count(), 16);

    let colour = datafusion::arrow::compute::cast(column(&out, "colour"), &DataType::Utf8).unwrap();
    assert!(as_string_array(&colour).unwrap().iter().all(|c| ["red", "green", "blue"].contains(&c.unwrap())));
    let region = column(&out, "region").as_primitive::<Int64Type>();
    assert!(region.iter().all(|r| [0, 10, 20, 30].contains(&r.unwrap())));
    let age = column(&out, "age").as_primitive::<Int64Type>();
    assert!(age.iter().all(|a| (18..78).contains(&a.unwrap())));
    // At most 91 different incomes: more than are listed, so any number in their range.
    let income = column(&out, "income").as_primitive::<Float64Type>();
    assert!(income.iter().flatten().all(|v| (0.0..=1e6).contains(&v)));
    assert_eq!(ctx.sql(&call("")).await.unwrap().schema().field(0).name(), "day");
}

#[tokio::test]
async fn synthetic_rows_miss_values_as_often_as_real_ones_or_such_rows_are_refused_or_skipped() {
    let ctx = session_with_table("t", people(150));
    let out = distilled(&ctx, ", ipc => 10").await;
    // Every fifth income is missing, in both classes.
    assert_eq!(column(&out, "income").null_count(), 4);
    assert_eq!(column(&out, "age").null_count() + column(&out, "colour").null_count(), 0);

    let strict = call("").replace("'impute'", "'error'");
    let refused = message(&ctx, &strict).await;
    for part in ["row 0, column 'income'", "on_null => 'skip'", "on_null => 'impute'"] {
        assert!(refused.contains(part), "{refused}");
    }
    let skipped = rows(&ctx, &call("").replace("'impute'", "'skip'")).await.unwrap();
    assert_eq!(column(&skipped, "income").null_count(), 0);
    let shown = shown(&ctx, &format!("EXPLAIN ANALYZE {}", call("").replace("'impute'", "'skip'"))).await;
    assert!(shown.contains("rows_skipped=30") && shown.contains("rows_sketched=120"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_batches_order_and_threads_do_not_change_a_byte_of_a_table() {
    let source = people(200);
    let distilled = async |partitions: usize, batch_size: usize, parts: Vec<Vec<RecordBatch>>, options: &str| {
        let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(batch_size));
        let table = datafusion::datasource::MemTable::try_new(source.schema(), parts).unwrap();
        ctx.register_table("t", Arc::new(table)).unwrap();
        self::distilled(&ctx, options).await
    };
    let pieces: Vec<RecordBatch> = (0..200).step_by(40).map(|i| source.slice(i, 40)).collect();
    let mut backwards = pieces.clone();
    backwards.reverse();
    let expected = distilled(1, 8192, vec![vec![source.clone()]], ", threads => 1").await;
    for (partitions, batch_size, parts) in
        [(3, 7, vec![backwards]), (2, 8192, pieces.into_iter().map(|p| vec![p]).collect())]
    {
        assert_eq!(distilled(partitions, batch_size, parts, ", threads => 2").await, expected);
    }
}

#[tokio::test]
async fn rows_of_a_table_are_chosen_from_real_ones_unless_an_optimizer_is_asked_for() {
    let source = people(60);
    let ctx = session_with_table("t", source.clone());
    let query = "SELECT * FROM distill(t, rows => 6, extractors => 2, width => 16, exclude => ['customer_id', 'day', 'note'], on_null => 'impute'";
    let plan = explained(&ctx, &format!("{query})"), "").await;
    assert!(plan.contains("method=herding (auto)") && plan.contains("steps=none"), "{plan}");
    let plan = explained(&ctx, &format!("{query}, steps => 3)"), "").await;
    assert!(plan.contains("method=auto") && plan.contains("steps=3"), "{plan}");

    let kept = source.project(&[2, 3, 4, 5, 6, 7, 9]).unwrap();
    let out = rows(&ctx, &format!("{query})")).await.unwrap();
    let shown = |batch: &RecordBatch, row: usize| {
        let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap());
        cells.collect::<Vec<_>>().join(", ")
    };
    let real: Vec<String> = (0..60).map(|row| shown(&kept, row)).collect();
    assert_eq!(out.num_rows(), 6);
    for row in 0..6 {
        assert!(real.contains(&shown(&out, row)), "{}", shown(&out, row));
    }
}

#[tokio::test]
async fn declared_columns_need_one_scan_and_hold_rows_to_what_was_declared() {
    let ctx = session_with_table("t", people(60));
    let options = ", features => ['age', 'colour'], ranges => 'age=0..120, colour=red|green|blue'";
    let plan = explained(&ctx, &call(options), "").await;
    assert!(plan.contains("scans=1") && !plan.contains("ProfileExec"), "{plan}");
    assert_eq!(distilled(&ctx, options).await.num_rows(), 8);
    let narrow = message(&ctx, &call(&options.replace("0..120", "0..30"))).await;
    assert!(narrow.contains("column 'age'") && narrow.contains("outside 0 to 30"), "{narrow}");
    let fewer = message(&ctx, &call(&options.replace("|blue", ""))).await;
    assert!(fewer.contains("column 'colour'") && fewer.contains("'blue' is none of the categories"), "{fewer}");
    let wrong = message(&ctx, &call(", ranges => 'agee=0..1'")).await;
    assert!(wrong.contains("did you mean 'age'"), "{wrong}");
}

#[tokio::test]
async fn wrong_columns_are_refused_by_name() {
    let ctx = session_with_table("t", people(60));
    for (options, part) in [
        (", categorical => ['income']", "column 'income' is a Float64; expected whole numbers or text"),
        (", categorical => ['label']", "column 'label' is the label"),
        (", categorical => ['regio']", "did you mean 'region'"),
        (", features => ['age', 'day']", "column 'day': a Date32 can't be a feature"),
        (", features => ['age', 'age']", "column 'age' is named twice"),
        (", label => 'income'", "column 'income': a Float64 can't be a label"),
        (", network => 'convnet'", "option 'network': 'convnet' is for pictures"),
        (", ranges => '0,1'", "this is a table; write 'age=0..1'"),
    ] {
        let message = message(&ctx, &call(options)).await;
        assert!(message.contains(part), "{options}: {message}");
    }
    let strict = message(&ctx, &call("").replace(", exclude => ['customer_id']", "")).await;
    assert!(
        strict.contains("column 'customer_id': is NOT NULL") && strict.contains("exclude => ['customer_id']"),
        "{strict}"
    );
}

#[tokio::test]
async fn pictures_and_lists_may_stand_beside_numbers_and_categories() {
    let pictures = pictures(24, 3);
    let lists = numbers(24, 3);
    let mixed = RecordBatch::try_from_iter_with_nullable([
        ("image", pictures.column(0).clone(), true),
        ("x", lists.column(0).clone(), true),
        ("size", Arc::new((0..24).map(|i| i % 5).collect::<Int32Array>()) as ArrayRef, true),
        ("label", pictures.column(1).clone(), true),
    ])
    .unwrap();
    let ctx = session_with_table("t", mixed.clone());
    let query = format!("SELECT * FROM distill(t, ipc => 1, features => ['image', 'x', 'size'], {SMALL})");
    let out = rows(&ctx, &query).await.unwrap();
    assert_eq!((out.num_rows(), out.schema().fields()), (3, mixed.schema().fields()));
    let bytes = out.column(0).as_struct().column_by_name("bytes").unwrap().as_binary::<i32>().value(0);
    let picture = image::load_from_memory(bytes).unwrap();
    assert_eq!((picture.width(), picture.height()), (8, 8));
    assert!(out.column(2).as_primitive::<Int32Type>().iter().all(|v| (0..5).contains(&v.unwrap())));
}

#[tokio::test]
async fn exact_values_survive_the_way_through_numbers() {
    let ctx = session_with_table("t", people(60));
    // No steps: the rows are real ones.
    let out = distilled(&ctx, ", steps => 0").await;
    let incomes: Vec<f64> =
        people(60).column_by_name("income").unwrap().as_primitive::<Float64Type>().iter().flatten().collect();
    let found = column(&out, "income").as_primitive::<Float64Type>();
    assert!(found.iter().flatten().all(|v| incomes.contains(&v)), "{found:?}");
}

#[tokio::test]
async fn a_pool_file_brings_the_scaling_and_refuses_other_columns_and_values() {
    use datafusion_distill::extract::{Pool, PoolRecipe, Scaling, device};
    use datafusion_distill::options::Options;
    use datafusion_distill::rows::{Decoder, Layout, Profile, Shape};

    let source = people(60).project(&[2, 6, 9]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.safetensors");
    let options = Options { extractors: Some(2), width: Some(16), depth: Some(1), ..Options::default() };
    let layout = Layout::infer(&source.schema(), &options).unwrap();
    let mut profile = Profile::new(&layout);
    Decoder::new(&layout, &options).unwrap().profile(source.columns(), &mut profile).unwrap();
    let table = profile.scaling(&layout, &options).unwrap();
    let shape = Shape::Vector { len: table.raw_len() };
    let recipe = PoolRecipe::choose_scaled(shape, Scaling::Table(table), &options).unwrap();
    Pool::build(&recipe, &device("cpu").unwrap()).unwrap().save(&path).unwrap();

    let ctx = session_with_table("t", source.clone());
    let query = |source: &str| {
        format!(
            "SELECT * FROM distill({source}, ipc => 2, steps => 5, frequencies => 8, pool_file => '{}')",
            path.display()
        )
    };
    let plan = explained(&ctx, &query("t"), "").await;
    assert!(plan.contains("scans=1") && plan.contains("extractors=2, width=16"), "{plan}");
    assert_eq!(rows(&ctx, &query("t")).await.unwrap().num_rows(), 4);
    let more = message(&ctx, &query("(SELECT *, age AS years FROM t)")).await;
    assert!(more.contains("for the feature columns age, colour, these are age, colour, years"), "{more}");
    let older = message(&ctx, &query("(SELECT age + 100 AS age, colour, label FROM t)")).await;
    assert!(older.contains("column 'age'") && older.contains("is outside 18 to 77"), "{older}");
}
