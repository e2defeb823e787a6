//! Pools as files, at URLs too, and rows that start where yesterday's ended.

use datafusion::object_store::memory::InMemory;
use datafusion::object_store::{ObjectStore, ObjectStoreExt};
use datafusion::prelude::SessionContext;

use super::*;
use crate::support::*;

/// A session with pictures `t`, a store at `mem://pools` with a pool for them, and the path of the same file.
async fn with_pool() -> (tempfile::TempDir, SessionContext, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.safetensors");
    let shape = Shape::Picture { channels: 1, height: 8, width: 8 };
    let options = Options { extractors: Some(2), width: Some(8), depth: Some(1), seed: 5, ..Options::default() };
    let recipe = PoolRecipe::choose(shape, (0.0, 255.0), &options).unwrap();
    Pool::build(&recipe, &candle_core::Device::Cpu).unwrap().save(&path).unwrap();
    let store = InMemory::new();
    store.put(&"nightly/pool.safetensors".into(), std::fs::read(&path).unwrap().into()).await.unwrap();
    let ctx = session();
    ctx.register_object_store(&url::Url::parse("mem://pools").unwrap(), Arc::new(store) as Arc<dyn ObjectStore>);
    ctx.register_batch("t", pictures(48, 3)).unwrap();
    (dir, ctx, path.to_str().unwrap().to_string())
}

const URL: &str = "mem://pools/nightly/pool.safetensors";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_file_at_a_url_is_the_same_pool() {
    let (_dir, ctx, path) = with_pool().await;
    let small = "ipc => 1, steps => 2, frequencies => 8";
    let of = async |pool: &str| {
        rows(&ctx, &format!("SELECT * FROM distill(t, pool_file => '{pool}', {small})")).await.unwrap()
    };
    let expected = of(&path).await;
    assert_eq!(of(URL).await.columns(), expected.columns());
    let make = |pool: &str| {
        format!(
            "SELECT label, distill_sketch_agg(image, {{'pool_file': '{pool}', 'frequencies': 8, 'ipc': 1}}) AS s FROM t GROUP BY label"
        )
    };
    for (query, pool) in
        [(make(URL), String::new()), (make(&path), String::new()), (make(&path), format!(", pool_file => '{URL}'"))]
    {
        rows(&ctx, &format!("CREATE OR REPLACE TABLE k AS {query}")).await.unwrap();
        let found = rows(&ctx, &format!("SELECT * FROM distill(k, ipc => 1, steps => 2{pool})")).await.unwrap();
        assert_eq!(found.columns(), expected.columns());
    }
    // The same pool from two places merges; another one doesn't.
    let both = format!("SELECT distill_union_agg(s)['count'] AS n FROM ({} UNION ALL {})", make(URL), make(&path));
    assert_eq!(ints(&rows(&ctx, &both).await.unwrap(), "n"), [96]);
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, pool_file => 'mem://pools/none')").await;
    assert!(e.contains("'pool_file'") && e.contains("mem://pools/none"), "{e}");
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, pool_file => 'gone://pools/p')").await;
    assert!(e.contains("no object store is registered for gone://pools"), "{e}");
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, pool_file => '/')").await;
    assert!(e.contains("is not a file"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sketches_are_tied_to_their_pool_by_its_fingerprint() {
    let (_dir, ctx, path) = with_pool().await;
    rows(&ctx, &format!("CREATE TABLE k AS SELECT label, distill_sketch_agg(image, {{'pool_file': '{path}', 'frequencies': 8, 'ipc': 1}}) AS s FROM t GROUP BY label")).await.unwrap();
    let shape = Shape::Picture { channels: 1, height: 8, width: 8 };
    let options = Options { extractors: Some(2), width: Some(8), depth: Some(1), seed: 6, ..Options::default() };
    let recipe = PoolRecipe::choose(shape, (0.0, 255.0), &options).unwrap();
    Pool::build(&recipe, &candle_core::Device::Cpu).unwrap().save(path.as_ref()).unwrap();
    let e = message(&ctx, "SELECT * FROM distill(k, ipc => 1, steps => 2)").await;
    assert!(e.contains("the pool file has changed"), "{e}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_start_begins_with_yesterday_s_rows() {
    let (dir, path) = train();
    let ctx = session();
    let yesterday = dir.path().join("yesterday.parquet");
    let small = "extractors => 2, width => 8, depth => 1, frequencies => 8";
    let copy = format!(
        "COPY (SELECT * FROM distill('{path}', ipc => 2, steps => 5, {small})) TO '{}' STORED AS PARQUET",
        yesterday.display()
    );
    rows(&ctx, &copy).await.unwrap();
    ctx.register_parquet("y", yesterday.to_str().unwrap(), Default::default()).await.unwrap();
    let start = format!("warm_start => '{}', {small}", yesterday.display());
    let warm =
        rows(&ctx, &format!("SELECT label, image['bytes'] AS b FROM distill('{path}', ipc => 2, steps => 0, {start})"))
            .await
            .unwrap();
    let before = rows(&ctx, "SELECT label, image['bytes'] AS b FROM y").await.unwrap();
    assert_eq!(warm.columns(), before.columns());
    let cold =
        rows(&ctx, &format!("SELECT label, image['bytes'] AS b FROM distill('{path}', ipc => 2, steps => 0, {small})"))
            .await
            .unwrap();
    assert_ne!(warm.columns(), cold.columns());
    ctx.register_batch("t", numbers(9, 3)).unwrap();
    for (call, part) in [
        (format!("'{path}', ipc => 2, method => 'herding', {start}"), "'warm_start'"),
        (
            "t, ipc => 2, ranges => '0,20', warm_start => '".to_string() + yesterday.to_str().unwrap() + "'",
            "no column 'features'",
        ),
        (format!("'{path}', ipc => 2, warm_start => 'nowhere.parquet'"), "nowhere.parquet"),
    ] {
        let e = message(&ctx, &format!("SELECT * FROM distill({call})")).await;
        assert!(e.contains(part), "{call}: {e}");
    }
}
