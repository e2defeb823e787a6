//! `distill_sketch_agg`: what `distill` makes inside, as a value.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::SortColumn;
use datafusion::arrow::compute::{concat_batches, lexsort_to_indices, take};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;

use super::*;
use crate::support::*;

const OPTIONS: &str = "'extractors=2 width=8 depth=1 frequencies=8 ipc=1'";

/// The sketches that a query with `distill` makes inside, by label.
pub(super) async fn inside(ctx: &SessionContext, query: &str) -> RecordBatch {
    let plan = ctx.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    let mut node: Arc<dyn ExecutionPlan> = plan;
    while node.name() != "AggregateExec" {
        node = Arc::clone(node.children()[0]);
    }
    sorted(collect(node, ctx.task_ctx()).await.unwrap())
}

/// The rows of `query`, by their first column.
async fn made(ctx: &SessionContext, query: &str) -> RecordBatch {
    sorted(ctx.sql(query).await.unwrap().collect().await.unwrap())
}

fn sorted(batches: Vec<RecordBatch>) -> RecordBatch {
    let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
    let order = lexsort_to_indices(&[SortColumn { values: batch.column(0).clone(), options: None }], None).unwrap();
    let columns = batch.columns().iter().map(|c| take(c, &order, None).unwrap()).collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sketch_made_in_sql_and_one_made_inside_distill_are_the_same_bytes() {
    let (_dir, path) = train();
    let ctx = session();
    let expected = inside(&ctx, &format!("SELECT * FROM distill('{path}', ipc => 1, {SMALL})")).await;
    assert_eq!(expected.num_rows(), 3);
    let options = "{'extractors': 2, 'width': 8, 'depth': 1, 'frequencies': 8, 'ipc': 1}";
    for options in [options, OPTIONS] {
        let query = format!("SELECT label, distill_sketch_agg(image, {options}) AS s FROM '{path}' GROUP BY label");
        let ctx = session_with(config().with_target_partitions(3));
        ctx.register_parquet(&path, &path, Default::default()).await.unwrap();
        let found = made(&ctx, &query.replace(&format!("'{path}'"), &format!("\"{path}\""))).await;
        assert_eq!(found.columns(), expected.columns());
    }
    let (header, sketch) = sketch::from_array(expected.column(1).as_struct(), 2).unwrap();
    let origin = header.origin.unwrap();
    assert_eq!(origin.label.as_deref(), Some("label"));
    assert_eq!(origin.label_names.unwrap(), ["zero", "one", "two"]);
    assert_eq!((origin.schema.fields().len(), sketch.count), (3, 16));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_batches_and_order_do_not_change_a_byte() {
    let batch = pictures(200, 3);
    let slices = |n: usize| (0..200).step_by(n).map(|i| batch.slice(i, n.min(200 - i))).collect::<Vec<_>>();
    let mut expected: Option<RecordBatch> = None;
    let mut backwards = slices(7);
    backwards.reverse();
    for (partitions, batch_size, parts) in [
        (1, 8192, vec![vec![batch.clone()]]),
        (3, 16, slices(50).into_iter().map(|b| vec![b]).collect()),
        (2, 3, vec![backwards]),
    ] {
        let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(batch_size));
        ctx.register_table("t", Arc::new(MemTable::try_new(batch.schema(), parts).unwrap())).unwrap();
        let query = format!("SELECT label, distill_sketch_agg(image, {OPTIONS}) AS s FROM t GROUP BY label");
        let found = made(&ctx, &query).await;
        let expected = expected.get_or_insert(found.clone());
        assert_eq!(found.columns(), expected.columns(), "{partitions} partitions, batches of {batch_size}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_of_many_partitions_that_all_make_the_extractors_at_once_end() {
    // A worker thread that waits for its share of the extractors must not take up a group that waits for them too.
    let batch = pictures(160, 4);
    let parts: Vec<_> = (0..8).map(|i| vec![batch.slice(20 * i, 20)]).collect();
    let options = "'extractors=6 width=16 depth=1 frequencies=64 threads=3'";
    for _ in 0..25 {
        let ctx = session_with(config().with_target_partitions(8));
        ctx.register_table("t", Arc::new(MemTable::try_new(batch.schema(), parts.clone()).unwrap())).unwrap();
        let query = format!(
            "SELECT sum(s['count']) AS n FROM (SELECT distill_sketch_agg(image, {options}) AS s FROM t GROUP BY label)"
        );
        assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "n"), [160]);
    }
}

#[tokio::test]
async fn tables_lists_and_settings_are_those_of_distill() {
    let ctx = session();
    ctx.register_batch("n", numbers(30, 3)).unwrap();
    let create = "CREATE TABLE people AS SELECT value % 50 AS age, CASE WHEN value % 3 = 0 THEN 'a' ELSE 'b' END AS sex, value % 2 AS y FROM generate_series(1, 60)";
    rows(&ctx, create).await.unwrap();
    for setting in ["extractors = 2", "width = 8", "depth = 1", "frequencies = 8", "ipc = 1", "seed = 3"] {
        rows(&ctx, &format!("SET distill.{setting}")).await.unwrap();
    }
    let lists = inside(&ctx, "SELECT * FROM distill(n, ranges => '0,20')").await;
    let found =
        made(&ctx, "SELECT label, distill_sketch_agg(features, 'ranges=0,20') AS s FROM n GROUP BY label").await;
    assert_eq!(found.columns(), lists.columns());
    let ranges = "age=0..50, sex=a|b";
    let table = inside(&ctx, &format!("SELECT * FROM distill(people, ranges => '{ranges}')")).await;
    // The order of the arguments is that of nobody's columns.
    let query = format!("SELECT y, distill_sketch_agg(sex, age, {{'ranges': '{ranges}'}}) AS s FROM people GROUP BY y");
    assert_eq!(made(&ctx, &query).await.columns(), table.columns());
    assert_eq!(sketch::from_array(table.column(1).as_struct(), 0).unwrap().0.frequency_seed, 3);
}

#[tokio::test]
async fn days_and_labels_group_and_the_union_over_days_is_the_sketch_of_all_rows() {
    let ctx = session();
    ctx.register_batch("t", pictures(90, 3)).unwrap();
    let by_day =
        format!("SELECT id % 4 AS day, label, distill_sketch_agg(image, {OPTIONS}) AS s FROM t GROUP BY id % 4, label");
    let union = format!("SELECT label, distill_union_agg(s) AS s FROM ({by_day}) GROUP BY label");
    let all = format!("SELECT label, distill_sketch_agg(image, {OPTIONS}) AS s FROM t GROUP BY label");
    assert_eq!(made(&ctx, &by_day).await.num_rows(), 12);
    let (found, expected) = (made(&ctx, &union).await, made(&ctx, &all).await);
    assert_eq!(found.columns(), expected.columns());
    // A day taken back: the sums of the others.
    let rest = format!(
        "SELECT label, distill_difference(a.s, d.s) AS s FROM ({all}) AS a JOIN ({by_day}) AS d USING (label) WHERE d.day = 2"
    );
    let others =
        format!("SELECT label, distill_sketch_agg(image, {OPTIONS}) AS s FROM t WHERE id % 4 <> 2 GROUP BY label");
    let (rest, others) = (made(&ctx, &rest).await, made(&ctx, &others).await);
    for row in 0..3 {
        let [rest, others] = [&rest, &others].map(|b| sketch::from_array(b.column(1).as_struct(), row).unwrap());
        assert_eq!((&rest.1.members, rest.1.count), (&others.1.members, others.1.count));
        assert_eq!(rest.0, others.0);
    }
}

#[tokio::test]
async fn rows_without_a_picture_stop_the_query_or_are_left_out() {
    let bytes = (0..10).map(|i| (i != 4).then(|| png(i % 2, i, 8))).collect();
    let ctx = session();
    ctx.register_batch("t", pictures_of(bytes, (0..10).map(|i| Some(i % 2)).collect())).unwrap();
    let query = |on_null: &str| {
        format!(
            "SELECT label, distill_sketch_agg(image, {{'extractors': 2, 'width': 8, 'depth': 1, 'on_null': '{on_null}'}})['count'] AS n FROM t GROUP BY label ORDER BY label"
        )
    };
    let e = message(&ctx, &query("error")).await;
    assert!(e.contains("distill_sketch_agg: of a group, row 2, column 'image'") && e.contains("on_null"), "{e}");
    assert_eq!(ints(&rows(&ctx, &query("skip")).await.unwrap(), "n"), [4, 5]);
    let none = rows(&ctx, "SELECT distill_sketch_agg(image, 'extractors=2') IS NULL AS n FROM t WHERE label = 7")
        .await
        .unwrap();
    assert!(none.column(0).as_boolean().value(0));
}

#[tokio::test]
async fn calls_that_cannot_be_planned_say_why() {
    let ctx = session();
    ctx.register_batch("t", pictures(9, 3)).unwrap();
    ctx.register_batch("n", numbers(9, 3)).unwrap();
    for (select, part) in [
        ("distill_sketch_agg(image, 'extractor=2') FROM t", "did you mean 'extractors'"),
        ("distill_sketch_agg(image, {'steps': 2}) FROM t", "option 'steps' says nothing about a sketch"),
        ("distill_sketch_agg(image, {'extractors': 'many'}) FROM t", "whole number"),
        ("distill_sketch_agg(image, 7) FROM t", "a struct literal"),
        (
            "distill_sketch_agg(image, {'label': 'id'}) FROM t GROUP BY label",
            "'id' is no column of GROUP BY, which has label",
        ),
        ("distill_sketch_agg(DISTINCT image) FROM t", "DISTINCT"),
        ("distill_sketch_agg(features) FROM n", "'ranges': '0,16'"),
        ("distill_sketch_agg() FROM n", "has no feature"),
        ("distill_sketch_agg(image, {'device': 'cuda:9'}) FROM t", "device"),
        ("distill_sketch_agg(image) OVER () FROM t", "no window function"),
    ] {
        let e = message(&ctx, &format!("SELECT {select}")).await;
        assert!(e.contains(part), "{select}: {e}");
    }
    let plan = explained(&ctx, "SELECT label, distill_sketch_agg(image) FROM t GROUP BY label", "").await;
    assert!(plan.contains("distill_sketch_agg(t.image)") && !plan.contains("datafusion-distill call"), "{plan}");
    let names = rows(&ctx, "SELECT distill_sketch_agg(image, 'extractors=2 width=8') FROM t").await.unwrap();
    assert_eq!(names.schema().field(0).name(), "distill_sketch_agg(t.image,Utf8(\"extractors=2 width=8\"))");
    assert_eq!(names.column(0).as_struct().column_by_name("count").unwrap().as_primitive::<Int64Type>().value(0), 9);
}
