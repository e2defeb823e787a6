//! Methods that choose real rows: `method => 'random' | 'herding' | 'k_center' | 'k_means'`.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::cast::as_struct_array;
use datafusion::datasource::MemTable;

use crate::support::*;

const METHODS: [&str; 4] = ["random", "herding", "k_center", "k_means"];

/// A job that takes milliseconds.
fn call(source: &str, method: &str, options: &str) -> String {
    format!("SELECT * FROM distill({source}, method => '{method}', extractors => 2, width => 8, depth => 1{options})")
}

/// Each row's feature and label as comparable bytes.
fn keys(batch: &RecordBatch, columns: [&str; 2]) -> Vec<Vec<u8>> {
    let columns = columns.map(|c| batch.column_by_name(c).unwrap().clone());
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
    let real: HashSet<_> = keys(&batch, ["features", "label"]).into_iter().collect();
    let ctx = session_with_table("n", batch);
    for method in METHODS {
        // The range scales the extractors' input; it doesn't touch the rows.
        for ranges in ["", ", ranges => '-5,50'"] {
            let out = rows(&ctx, &call("n", method, &format!(", ipc => 4{ranges}"))).await.unwrap();
            let chosen: HashSet<_> = keys(&out, ["features", "label"]).into_iter().collect();
            assert_eq!(out.num_rows(), 12);
            assert!(chosen.is_subset(&real), "{method}{ranges}");
        }
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
                ExtractExec: rows=1x8x8 picture, network=convnet, extractors=2, width=8, depth=1, features=288, frequencies=0, sketch_bytes_per_class=65744, micro_batch=64, scans=1
                  DataSourceExec: file_groups={1 group: [[.../train.parquet]]}, projection=[image, label], file_type=parquet
    ");
    let analyzed = shown(&ctx, &format!("EXPLAIN ANALYZE {}", call(&source, "k_means", ", ipc => 2"))).await;
    for metric in ["steps=0", "classes=3", "rows_sketched=48"] {
        assert!(analyzed.contains(metric), "{metric} in {analyzed}");
    }
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
