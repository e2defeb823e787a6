//! The same seed and rows give the same bytes, however they are read.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::datasource::MemTable;

use crate::support::*;

async fn distilled(partitions: usize, batch_size: usize, parts: Vec<Vec<RecordBatch>>, options: &str) -> RecordBatch {
    let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(batch_size));
    let schema = parts[0][0].schema();
    ctx.register_table("t", Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
    rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 2, {SMALL}{options})")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_batches_order_and_threads_do_not_change_a_byte() {
    let batch = pictures(200, 3);
    let slices = |n: usize| (0..200).step_by(n).map(|i| batch.slice(i, n.min(200 - i))).collect::<Vec<_>>();
    let mut backwards = slices(7);
    backwards.reverse();
    let expected = distilled(1, 8192, vec![vec![batch.clone()]], ", threads => 1").await;
    for (partitions, batch_size, parts, options) in [
        (1, 8192, vec![vec![batch.clone()]], ", threads => 3"),
        (4, 8192, vec![vec![batch.clone()]], ""),
        (1, 3, vec![vec![batch.clone()]], ", threads => 2"),
        (3, 16, slices(50).into_iter().map(|b| vec![b]).collect(), ", threads => 2"),
        (2, 8192, vec![backwards], ", threads => 2"),
    ] {
        let found = distilled(partitions, batch_size, parts, options).await;
        assert_eq!(found.columns(), expected.columns(), "{partitions} partitions, batches of {batch_size}{options}");
    }
    let other = distilled(1, 8192, vec![vec![batch]], ", seed => 1").await;
    assert_ne!(other.columns(), expected.columns());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_write_the_same_file() {
    let (dir, path) = train();
    let copy = async |name: &str, partitions: usize, threads: usize| {
        let ctx = session_with(config().with_target_partitions(partitions));
        let out = dir.path().join(name);
        let query = format!(
            "COPY (SELECT * FROM distill('{path}', ipc => 2, threads => {threads}, {SMALL})) TO '{}' STORED AS PARQUET",
            out.display()
        );
        rows(&ctx, &query).await.unwrap();
        std::fs::read(out).unwrap()
    };
    assert_eq!(copy("a.parquet", 1, 1).await, copy("b.parquet", 3, 2).await);
}
