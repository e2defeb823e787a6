//! `distill((SELECT label, s FROM ...))`: sketches in place of rows.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, StructArray};
use datafusion::prelude::SessionContext;

use crate::support::*;

const MAKE: &str = "'extractors=2 width=8 depth=1 frequencies=8 ipc=1'";

/// A session with a folder of sketches of [`train`] by class, and the number of rows modulo 2 as `part`.
async fn stored() -> (tempfile::TempDir, SessionContext, String, String) {
    let (dir, path) = train();
    let ctx = session().enable_url_table();
    ctx.register_parquet("t", &path, Default::default()).await.unwrap();
    std::fs::create_dir(dir.path().join("sketches")).unwrap();
    for part in 0..2 {
        let file = dir.path().join(format!("sketches/{part}.parquet"));
        let query = format!(
            "COPY (SELECT {part} AS part, label, distill_sketch_agg(image, {MAKE}) AS s FROM t WHERE id / 10 % 2 = {part} GROUP BY label) TO '{}' STORED AS PARQUET",
            file.display()
        );
        rows(&ctx, &query).await.unwrap();
    }
    let sketches = format!("{}/sketches/*.parquet", dir.path().display());
    (dir, ctx, path, sketches)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_sketches_give_the_rows_that_the_source_gives_in_the_source_s_schema() {
    let (_dir, ctx, path, sketches) = stored().await;
    let distilled = rows(&ctx, &format!("SELECT * FROM distill('{path}', ipc => 1, {SMALL})")).await.unwrap();
    let schema = |query: String| {
        let ctx = ctx.clone();
        async move { ctx.sql(&query).await.unwrap().schema().as_arrow().clone() }
    };
    let source = schema(format!("SELECT * FROM distill('{path}', ipc => 1, {SMALL})")).await;
    for query in [
        format!("(SELECT label, s FROM '{sketches}')"),
        format!("(SELECT s, label FROM '{sketches}' ORDER BY label DESC)"),
        format!("(SELECT label, distill_union_agg(s) AS merged FROM '{sketches}' GROUP BY label)"),
        format!("(SELECT label AS kind, s FROM '{sketches}')"),
        format!("'{sketches}'"),
        format!("(SELECT label, distill_sketch_agg(image, {MAKE}) AS s FROM t GROUP BY label)"),
        "(SELECT a.label, distill_difference(a.u, b.s) AS s FROM (SELECT label, distill_union_agg(s) AS u FROM k GROUP BY label) AS a \
         JOIN (SELECT label, s FROM k WHERE part = 2) AS b ON a.label = b.label)".to_string(),
    ] {
        if query.contains(" k ") {
            // A third part that is added and taken back.
            let k = format!(
                "CREATE TABLE k AS SELECT * FROM '{sketches}' UNION ALL SELECT 2 AS part, label, distill_sketch_agg(image, {MAKE}) AS s FROM t WHERE id > 30 GROUP BY label"
            );
            rows(&ctx, &k).await.unwrap();
        }
        // The reservoir may be thinner after a difference, and the rows start from it.
        let init = if query.contains(" k ") { ", init => 'noise'" } else { "" };
        let call = format!("SELECT * FROM distill({query}, ipc => 1, steps => 2{init})");
        let found = rows(&ctx, &call).await.unwrap_or_else(|e| panic!("{query}: {e}"));
        let expected = match init {
            "" => distilled.clone(),
            _ => rows(&ctx, &format!("SELECT * FROM distill('{path}', ipc => 1, {SMALL}{init})")).await.unwrap(),
        };
        assert_eq!(found.columns(), expected.columns(), "{query}");
        let mut theirs = schema(call).await;
        assert_eq!(theirs.fields(), source.fields(), "{query}");
        assert_eq!(theirs.metadata.remove("huggingface"), source.metadata().get("huggingface").cloned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_keep_some_and_explain_shows_no_scan_of_rows() {
    let (_dir, ctx, _, sketches) = stored().await;
    let source = format!("(SELECT label, s FROM '{sketches}')");
    let found =
        rows(&ctx, &format!("SELECT label FROM distill({source}, ipc => 2, steps => 1, classes => ['two', 'zero'])"))
            .await
            .unwrap();
    assert_eq!(ints(&found, "label"), [0, 0, 2, 2]);
    let plan = explained(&ctx, &format!("SELECT * FROM distill({source}, ipc => 2)"), "").await;
    assert!(plan.contains("aggr=[sketch]") && !plan.contains("ExtractExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_sketches_is_refused_with_both_values() {
    let (_dir, ctx, _, sketches) = stored().await;
    let source = format!("(SELECT label, s FROM '{sketches}')");
    let pairs = format!("(SELECT part, label AS l, s FROM '{sketches}')");
    let mixed = format!(
        "(SELECT label, s FROM '{sketches}' UNION ALL SELECT label, distill_sketch_agg(image, 'extractors=2 width=8 depth=1 frequencies=8 ipc=1 seed=9') FROM t GROUP BY label)"
    );
    for (call, parts) in [
        (format!("{source}, extractors => 3"), ["3 is asked for", "made with 2"]),
        (format!("{source}, frequencies => 16"), ["16 is asked for", "made with 8"]),
        (format!("{source}, input => 'rows'"), ["feature", "columns are label"]),
        ("t, input => 'sketches'".to_string(), ["option 'input'", "image, label, id"]),
        (pairs, ["label => '...'", "part, l"]),
        (format!("{source}, label => 'colour'"), ["no column 'colour'", "label"]),
        (mixed, ["frequency seed 0 here, 9 there", "random (seed 9)"]),
        (format!("(SELECT label, s, s AS again FROM '{sketches}')"), ["several columns hold sketches", "s, again"]),
        (format!("(SELECT label, s FROM '{sketches}' WHERE label > 7)"), ["has no sketches", "the query"]),
        (format!("(SELECT NULL::BIGINT AS label, s FROM '{sketches}')"), ["label is NULL", "column 'label'"]),
    ] {
        let e = message(&ctx, &format!("SELECT * FROM distill({call}, ipc => 1)")).await;
        assert!(parts.iter().all(|part| e.contains(part)), "{call}: {e}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sketches_of_other_machines_add_up_and_say_so_and_unlabelled_ones_are_refused() {
    let (_dir, ctx, _, sketches) = stored().await;
    let batch = rows(&ctx, &format!("SELECT label, s FROM '{sketches}' ORDER BY part, label")).await.unwrap();
    let structs = batch.column(1).as_struct();
    let tag = structs.column_by_name("numerics").unwrap().as_string::<i32>().value(0).to_string();
    let tags = (0..6).map(|i| if i < 3 { tag.clone() } else { "other 9.9.9 cpu".into() });
    let columns = structs.fields().iter().zip(structs.columns()).map(|(field, column)| match field.name().as_str() {
        "numerics" => (
            field.clone(),
            Arc::new(tags.clone().collect::<Vec<String>>().into_iter().map(Some).collect::<StringArray>()) as ArrayRef,
        ),
        _ => (field.clone(), column.clone()),
    });
    let structs: ArrayRef = Arc::new(StructArray::from(columns.collect::<Vec<_>>()));
    ctx.register_batch(
        "mixed",
        RecordBatch::try_from_iter([("label", batch.column(0).clone()), ("s", structs)]).unwrap(),
    )
    .unwrap();
    let numerics = "SELECT distill_describe(distill_union_agg(s))['numerics'] AS n FROM mixed";
    let both = rows(&ctx, numerics).await.unwrap().column(0).as_string::<i32>().value(0).to_string();
    assert!(both.contains(&tag) && both.contains("other 9.9.9 cpu") && both.contains(" + "), "{both}");
    let query =
        |source: &str| format!("SELECT label, image['bytes'] AS b FROM distill({source}, ipc => 1, steps => 2)");
    let found = rows(&ctx, &query("mixed")).await.unwrap();
    assert_eq!(
        found.columns(),
        rows(&ctx, &query(&format!("(SELECT label, s FROM '{sketches}')"))).await.unwrap().columns()
    );
    let e = message(&ctx, &query("(SELECT label - 1 AS label, s FROM mixed)")).await;
    assert!(e.contains("a sketch of label -1") && e.contains("WHERE"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_back_in_the_order_and_the_form_that_their_source_has_them_in() {
    let ctx = session();
    let pixel = "make_array(value % 5, value % 7, value % 11)";
    let row = format!("make_array({pixel}, {pixel}, {pixel}, {pixel}, {pixel})");
    let last = format!("make_array({row}, {row}, {row}, {row})");
    let flat = format!("flatten(flatten({last}))");
    for (column, how) in [(last, ""), (flat.clone(), ""), (flat, ", image_size => '4x5x3'")] {
        let create =
            format!("CREATE OR REPLACE TABLE p AS SELECT {column} AS x, value % 2 AS y FROM generate_series(1, 20)");
        rows(&ctx, &create).await.unwrap();
        let small = "extractors => 1, width => 8, depth => 1, frequencies => 4, ranges => '0,10', ipc => 2";
        let expected = rows(&ctx, &format!("SELECT * FROM distill(p, steps => 2, {small}{how})")).await.unwrap();
        let options =
            format!("{small}{how}").replace(" => ", "=").replace(',', " ").replace("'0 10'", "0,10").replace('\'', "");
        let made = format!("SELECT y, distill_sketch_agg(x, '{options}') AS s FROM p GROUP BY y");
        let found = rows(&ctx, &format!("SELECT * FROM distill(({made}), ipc => 2, steps => 2)")).await.unwrap();
        assert_eq!(found.schema().fields(), expected.schema().fields());
        assert_eq!(found.columns(), expected.columns(), "{column}{how}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_s_sketches_give_back_its_columns() {
    let ctx = session();
    let create = "CREATE TABLE people AS SELECT nullif(value % 50, 7) AS age, CASE WHEN value % 3 = 0 THEN 'a' ELSE 'b' END AS sex, value % 4 AS zip, \
                  value % 2 = 0 AS y, nullif(value, 0) AS id FROM generate_series(1, 80)";
    rows(&ctx, create).await.unwrap();
    let how = "ranges => 'age=0..50, sex=a|b, zip=0|1|2|3', categorical => ['zip'], on_null => 'impute'";
    let small = "extractors => 2, width => 8, depth => 1, ipc => 3";
    let expected = rows(&ctx, &format!("SELECT * FROM distill(people, {how}, {small})")).await.unwrap();
    let make = "{'ranges': 'age=0..50, sex=a|b, zip=0|1|2|3', 'categorical': 'zip', 'on_null': 'impute', 'extractors': 2, 'width': 8, 'depth': 1, 'ipc': 3}";
    let make = format!("SELECT y, distill_sketch_agg(age, sex, zip, {make}) AS s FROM people GROUP BY y");
    let found = rows(&ctx, &format!("SELECT * FROM distill(({make}), ipc => 3)")).await.unwrap();
    assert_eq!(found.schema().fields(), expected.schema().fields());
    assert_eq!(found.columns(), expected.columns());
}
