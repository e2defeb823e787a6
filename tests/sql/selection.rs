//! Methods that choose real rows: `method => 'random' | 'herding' | 'k_center' | 'k_means'`.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, UInt64Array,
};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_struct_array;
use datafusion::datasource::MemTable;

use crate::support::*;

const METHODS: [&str; 4] = ["random", "herding", "k_center", "k_means"];

/// A job that takes milliseconds.
fn call(source: &str, method: &str, options: &str) -> String {
    format!("SELECT * FROM distill({source}, method => '{method}', extractors => 2, width => 8, depth => 1{options})")
}

/// These columns of each row as comparable bytes.
fn keys(batch: &RecordBatch, columns: &[&str]) -> Vec<Vec<u8>> {
    let columns: Vec<_> = columns.iter().map(|c| batch.column_by_name(c).unwrap().clone()).collect();
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
    rows.iter().map(|row| row.as_ref().to_vec()).collect()
}

/// Label and pixels of each picture.
fn pixels(batch: &RecordBatch) -> Vec<(i64, Vec<u8>)> {
    let images = as_struct_array(batch.column_by_name("image").unwrap()).unwrap();
    let bytes: &BinaryArray = images.column_by_name("bytes").unwrap().as_binary();
    let decoded = bytes.iter().map(|b| image::load_from_memory(b.unwrap()).unwrap().to_luma8().into_raw());
    ints(batch, "label").into_iter().zip(decoded).collect()
}

#[tokio::test]
async fn pictures_come_out_with_the_pixels_of_rows_of_their_class() {
    let batch = pictures(240, 3);
    let real: HashSet<_> = pixels(&batch).into_iter().collect();
    let ctx = session_with_table("t", batch);
    for method in METHODS {
        let out = rows(&ctx, &call("t", method, ", ipc => 5")).await.unwrap();
        assert_eq!(ints(&out, "label"), [[0; 5], [1; 5], [2; 5]].concat());
        let chosen: HashSet<_> = pixels(&out).into_iter().collect();
        assert!(chosen.is_subset(&real), "{method}");
        assert_eq!(chosen.len(), 15, "{method}");
    }
}

#[tokio::test]
async fn lists_come_out_byte_by_byte_as_they_went_in() {
    let batch = numbers(120, 3);
    let real: HashSet<_> = keys(&batch, &["features", "label"]).into_iter().collect();
    let ctx = session_with_table("n", batch);
    for method in METHODS {
        // The range scales the extractors' input; it doesn't touch the rows.
        for ranges in ["", ", ranges => '-5,50'"] {
            let out = rows(&ctx, &call("n", method, &format!(", ipc => 4{ranges}"))).await.unwrap();
            let chosen: HashSet<_> = keys(&out, &["features", "label"]).into_iter().collect();
            assert_eq!(out.num_rows(), 12);
            assert!(chosen.is_subset(&real), "{method}{ranges}");
        }
    }
}

/// `rows` rows of numbers that an f32 can't hold, some of them NULL, a category and a label of two classes.
fn amounts(rows: i64) -> RecordBatch {
    let number = |i: i64| (1 << 60) + i * i * 7919;
    let some = |i: i64| (i % 5 != 0).then(|| number(i));
    let whole = Int64Array::from_iter((0..rows).map(some));
    let unsigned = UInt64Array::from_iter((0..rows).map(|i| u64::MAX - (i * 31) as u64));
    let small = Int32Array::from_iter((0..rows).map(|i| i32::MAX - i as i32 * 3));
    let float = Float64Array::from_iter((0..rows).map(|i| (i % 7 != 0).then(|| 0.1 + i as f64 / 3.0)));
    let decimal = Decimal128Array::from_iter((0..rows).map(|i| some(i).map(|n| i128::from(n) * 1_000_003)));
    let kind = StringArray::from_iter((0..rows).map(|i| Some(format!("kind {}", i % 4))));
    let label = Int64Array::from_iter((0..rows).map(|i| i % 2));
    RecordBatch::try_from_iter_with_nullable([
        ("whole", Arc::new(whole) as ArrayRef, true),
        ("unsigned", Arc::new(unsigned), false),
        ("small", Arc::new(small), true),
        ("float", Arc::new(float), true),
        ("decimal", Arc::new(decimal.with_precision_and_scale(38, 5).unwrap()), true),
        ("kind", Arc::new(kind), true),
        ("label", Arc::new(label), false),
    ])
    .unwrap()
}

#[tokio::test]
async fn rows_of_tables_come_out_with_every_digit_and_every_null() {
    let batch = amounts(200);
    let columns = ["whole", "unsigned", "small", "float", "decimal", "kind", "label"];
    let real: HashSet<_> = keys(&batch, &columns).into_iter().collect();
    let ctx = session_with_table("t", batch);
    for method in METHODS {
        for (options, more) in [("rows => 30, on_null => 'impute'", 30), ("ipc => 4, on_null => 'skip'", 8)] {
            let out = rows(&ctx, &call("t", method, &format!(", {options}"))).await.unwrap();
            let chosen: HashSet<_> = keys(&out, &columns).into_iter().collect();
            assert_eq!((out.num_rows(), chosen.len()), (more, more), "{method}, {options}");
            assert!(chosen.is_subset(&real), "{method}, {options}");
        }
    }
}

#[tokio::test]
async fn lists_of_wide_numbers_come_out_with_every_digit() {
    let ctx = session();
    let wide = "SELECT [v * 1e-3 + 0.1, v / 7] AS x, i % 2 AS label FROM (SELECT CAST(value AS DOUBLE) AS v, value AS i FROM generate_series(1, 60))";
    let whole = "SELECT [[i * 1000000007, 5], [i, 4611686018427387904 + i]] AS x, i % 2 AS label FROM (SELECT value AS i FROM generate_series(1, 60))";
    // Colours last: the numbers are turned to channels first, and back.
    let colours = "SELECT [[[i * 1000000007, i, 1], [2, 3, i * 7]], [[4, 5, 6], [7, 8, 4611686018427387904 + i]]] AS x, i % 2 AS label \
                   FROM (SELECT value AS i FROM generate_series(1, 60))";
    for source in [wide, whole, colours] {
        let real: HashSet<_> = keys(&rows(&ctx, source).await.unwrap(), &["x", "label"]).into_iter().collect();
        for method in METHODS {
            let out = rows(&ctx, &call(&format!("({source})"), method, ", ipc => 4")).await.unwrap();
            let chosen: HashSet<_> = keys(&out, &["x", "label"]).into_iter().collect();
            assert_eq!((out.num_rows(), chosen.len()), (8, 8), "{method}, {source}");
            assert!(chosen.is_subset(&real), "{method}, {source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_and_order_do_not_change_which_of_rows_alike_as_f32_comes_out() {
    let batch = amounts(200);
    let slices = |n: usize| (0..200).step_by(n).map(|i| batch.slice(i, n.min(200 - i))).collect::<Vec<_>>();
    let mut backwards = slices(3);
    backwards.reverse();
    let chosen = async |partitions, parts: Vec<Vec<RecordBatch>>| {
        let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(16));
        ctx.register_table("t", Arc::new(MemTable::try_new(batch.schema(), parts).unwrap())).unwrap();
        // By this column alone, many rows are alike.
        let options = ", features => ['unsigned'], on_null => 'impute', ipc => 2, exclude => ['whole']";
        rows(&ctx, &call("(SELECT unsigned, label, whole FROM t)", "herding", options)).await.unwrap()
    };
    let expected = chosen(1, vec![vec![batch.clone()]]).await;
    for (partitions, parts) in [(3, slices(50).into_iter().map(|b| vec![b]).collect()), (2, vec![backwards])] {
        assert_eq!(chosen(partitions, parts).await.columns(), expected.columns(), "{partitions} partitions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_batches_order_and_threads_do_not_change_the_choice() {
    let batch = pictures(300, 3);
    let slices = |n: usize| (0..300).step_by(n).map(|i| batch.slice(i, n.min(300 - i))).collect::<Vec<_>>();
    let mut backwards = slices(7);
    backwards.reverse();
    let chosen = async |method: &str, partitions, batch_size, parts: Vec<Vec<RecordBatch>>, threads: usize| {
        let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(batch_size));
        ctx.register_table("t", Arc::new(MemTable::try_new(batch.schema(), parts).unwrap())).unwrap();
        rows(&ctx, &call("t", method, &format!(", ipc => 4, threads => {threads}"))).await.unwrap()
    };
    for method in METHODS {
        let expected = chosen(method, 1, 8192, vec![vec![batch.clone()]], 1).await;
        for (partitions, batch_size, parts, threads) in [
            (1, 5, vec![vec![batch.clone()]], 3),
            (3, 16, slices(50).into_iter().map(|b| vec![b]).collect(), 2),
            (2, 8192, vec![backwards.clone()], 2),
        ] {
            let found = chosen(method, partitions, batch_size, parts, threads).await;
            assert_eq!(found.columns(), expected.columns(), "{method}: {partitions} partitions, {threads} threads");
        }
    }
}

#[tokio::test]
async fn a_class_with_fewer_distinct_rows_than_ipc_has_them_again() {
    let ctx = session_with_table("t", pictures(6, 3));
    for method in METHODS {
        let out = pixels(&rows(&ctx, &call("t", method, ", ipc => 5")).await.unwrap());
        assert_eq!(out.len(), 15);
        for class in out.chunks(5) {
            assert_eq!((&class[0], &class[1]), (&class[2], &class[3]), "{method}");
            assert!(class[0] == class[4] && class[0] != class[1], "{method}");
        }
    }
}

#[tokio::test]
async fn explain_shows_the_method_no_steps_and_the_larger_reservoir() {
    let (dir, path) = train();
    let ctx = session();
    let source = format!("'{path}'");
    let query = call(&source, "herding", ", ipc => 20");
    insta::assert_snapshot!(explained(&ctx, &query, dir.path().to_str().unwrap()).await, @r"
    DistillExec: source=/.../train.parquet, ipc=20, method=herding, steps=none, seed=0, roles=[image: feature (Hugging Face Image), label: label (Hugging Face ClassLabel with 3 names), id: carried (neither label nor feature: NULL in the synthetic rows)]
      CoalescePartitionsExec
        AggregateExec: mode=FinalPartitioned, gby=[class@0 as class], aggr=[sketch]
          RepartitionExec: partitioning=Hash([class@0], 3), input_partitions=3
            AggregateExec: mode=Partial, gby=[class@0 as class], aggr=[sketch]
              RepartitionExec: partitioning=RoundRobinBatch(3), input_partitions=1
                ExtractExec: rows=1x8x8 picture, network=convnet, extractors=2, width=8, depth=1, features=288, frequencies=0, sketch_bytes_per_class=33808, micro_batch=64, scans=1
                  DataSourceExec: file_groups={1 group: [[.../train.parquet]]}, projection=[image, label], file_type=parquet
    ");
    let analyzed = shown(&ctx, &format!("EXPLAIN ANALYZE {}", call(&source, "k_means", ", ipc => 2"))).await;
    for metric in ["steps=0", "classes=3", "rows_sketched=48"] {
        assert!(analyzed.contains(metric), "{metric} in {analyzed}");
    }
}

#[tokio::test]
async fn a_random_choice_looks_at_no_features() {
    let (_dir, path) = train();
    let ctx = session();
    let source = format!("'{path}'");
    let plan = explained(&ctx, &call(&source, "random", ", ipc => 2, frequencies => 8"), "").await;
    assert!(plan.contains("extractors=0") && plan.contains("frequencies=0"), "{plan}");
    // Whatever would be extracted, the rows are the same.
    let one = rows(&ctx, &call(&source, "random", ", ipc => 2")).await.unwrap();
    let other = format!("SELECT * FROM distill({source}, method => 'random', ipc => 2)");
    assert_eq!(rows(&ctx, &other).await.unwrap().columns(), one.columns());
}

#[tokio::test]
async fn what_only_an_optimizer_can_do_is_refused_by_name() {
    let ctx = session_with_table("t", pictures(12, 3));
    for method in METHODS {
        for (options, part) in [
            (", init => 'noise'", "option 'init': method => '"),
            (", steps => 10", "option 'steps': method => '"),
            (", ipc => 5, reservoir_per_class => 4", "option 'reservoir_per_class': method => '"),
        ] {
            let message = message(&ctx, &call("t", method, options)).await;
            assert!(message.contains(&format!("{part}{method}'")), "{message}");
        }
    }
    let misspelt = message(&ctx, &call("t", "k_mean", "")).await;
    assert!(misspelt.contains("did you mean 'k_means'?"), "{misspelt}");
}
