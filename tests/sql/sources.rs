//! What can be distilled: files of every kind, tables, views, queries.

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::prelude::SessionContext;

use crate::support::*;

async fn labels(ctx: &SessionContext, source: &str) -> Vec<i64> {
    let query = format!("SELECT label FROM distill({source}, ipc => 1, {SMALL})");
    ints(&rows(ctx, &query).await.unwrap(), "label")
}

#[tokio::test]
async fn a_path_a_directory_a_glob_and_a_url_are_sources() {
    let (dir, path) = train();
    let ctx = session();
    let directory = dir.path().to_str().unwrap();
    for source in [
        format!("'{path}'"),
        format!("'{directory}'"),
        format!("'{directory}/'"),
        format!("'{directory}/tr*.parquet'"),
        format!("'file://{path}'"),
        format!("('{directory}/' || 'train.parquet')"),
        format!("source => '{path}'"),
    ] {
        assert_eq!(labels(&ctx, &source).await, [0, 1, 2], "{source}");
    }
}

#[tokio::test]
async fn csv_json_and_arrow_files_are_sources() {
    let dir = tempfile::tempdir().unwrap();
    let ctx = session_with_table("n", numbers(12, 2));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    for (name, format) in [("n.json", "JSON"), ("n.arrow", "ARROW")] {
        rows(&ctx, &format!("COPY n TO '{}' STORED AS {format}", path(name))).await.unwrap();
        let query = format!("SELECT * FROM distill('{}', ipc => 1, {SMALL})", path(name));
        assert_eq!(rows(&ctx, &query).await.unwrap().num_rows(), 2, "{name}");
    }
    // CSV holds no lists: it is read as a table.
    let columns = "label, features[1] AS a, features[2] AS b";
    rows(&ctx, &format!("COPY (SELECT {columns} FROM n) TO '{}' STORED AS CSV", path("n.csv"))).await.unwrap();
    let query = format!("SELECT a, b FROM distill('{}', ipc => 1, {SMALL})", path("n.csv"));
    assert_eq!(rows(&ctx, &query).await.unwrap().num_rows(), 2);
}

#[tokio::test]
async fn hive_partitions_are_columns() {
    let dir = tempfile::tempdir().unwrap();
    for day in ["mon", "tue"] {
        let folder = dir.path().join(format!("day={day}"));
        std::fs::create_dir(&folder).unwrap();
        write_parquet(folder.join("part.parquet"), &pictures(24, 3));
    }
    let (ctx, source) = (session(), format!("'{}'", dir.path().to_str().unwrap()));
    let carried = rows(&ctx, &format!("SELECT * FROM distill({source}, ipc => 1, {SMALL})")).await.unwrap();
    assert_eq!(ints(&carried, "label"), [0, 1, 2]);
    assert_eq!(carried.column_by_name("day").unwrap().null_count(), 3);
    // A column like the others: it may be the label.
    let query = format!("SELECT CAST(day AS VARCHAR) AS day FROM distill({source}, label => 'day', ipc => 1, {SMALL})");
    insta::assert_snapshot!(shown(&ctx, &query).await, @r"
    +-----+
    | day |
    +-----+
    | mon |
    | tue |
    +-----+
    ");
}

#[tokio::test]
async fn a_view_over_files_sees_those_there_when_it_is_read() {
    let (dir, _) = train();
    let ctx = session();
    let source = format!("'{}/*.parquet'", dir.path().to_str().unwrap());
    rows(&ctx, &format!("CREATE VIEW v AS SELECT label FROM distill({source}, ipc => 1, {SMALL})")).await.unwrap();
    assert_eq!(ints(&rows(&ctx, "SELECT label FROM v").await.unwrap(), "label"), [0, 1, 2]);
    write_parquet(dir.path().join("more.parquet"), &pictures_of(vec![Some(png(1, 1, 8))], vec![Some(7)]));
    assert_eq!(ints(&rows(&ctx, "SELECT label FROM v").await.unwrap(), "label"), [0, 1, 2, 7]);
}

#[tokio::test]
async fn files_that_are_not_there_are_named() {
    let (dir, path) = train();
    let ctx = session();
    let directory = dir.path().to_str().unwrap();
    for name in ["empty", "others"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("others/a.csv"), "label,x\n1,2\n").unwrap();
    std::fs::write(dir.path().join("nothing.parquet"), "").unwrap();
    std::fs::write(dir.path().join("broken.parquet"), "this is no Parquet file").unwrap();
    std::fs::write(dir.path().join("data.xyz"), "what is this").unwrap();
    for (source, part) in [
        ("nowhere.parquet".into(), "'nowhere.parquet': no such file or directory"),
        (format!("{directory}/nowhere/*.parquet"), "no file matches"),
        (format!("{directory}/empty"), "the directory is empty"),
        (format!("{directory}/others"), "/*.csv'"),
        (format!("{directory}/nothing.parquet"), "is empty"),
        (format!("{directory}/broken.parquet"), "broken.parquet' can't be read"),
        (format!("{directory}/data.xyz"), "expected .parquet"),
        ("s3://bucket/train.parquet".into(), "no object store is registered for s3://bucket"),
        (path.replace("train", "test"), "no such file or directory"),
    ] {
        let message = message(&ctx, &format!("SELECT * FROM distill('{source}')")).await;
        assert!(message.contains(part) && !message.contains("bug"), "{source}: {message}");
    }
}

#[tokio::test]
async fn tables_views_and_queries_are_sources() {
    let ctx = session_with_table("t", pictures(24, 3));
    ctx.sql("CREATE SCHEMA s").await.unwrap().collect().await.unwrap();
    ctx.register_batch("s.t2", pictures(24, 3)).unwrap();
    ctx.register_batch("names", numbers(2, 2)).unwrap();
    rows(&ctx, "CREATE VIEW v AS SELECT * FROM t WHERE label < 2").await.unwrap();
    for (source, expected) in [
        ("t", vec![0, 1, 2]),
        ("T", vec![0, 1, 2]),
        ("(t)", vec![0, 1, 2]),
        ("TABLE(t)", vec![0, 1, 2]),
        ("'t'", vec![0, 1, 2]),
        ("'s.t2'", vec![0, 1, 2]),
        ("s.t2", vec![0, 1, 2]),
        ("datafusion.public.t", vec![0, 1, 2]),
        ("v", vec![0, 1]),
        ("(SELECT * FROM t WHERE label > 0)", vec![1, 2]),
        ("(SELECT image, label + 10 AS label FROM t)", vec![10, 11, 12]),
        ("(SELECT * FROM t UNION ALL SELECT * FROM t)", vec![0, 1, 2]),
        ("(SELECT * FROM t LIMIT 23)", vec![0, 1, 2]),
        ("(SELECT t.* FROM t JOIN (SELECT DISTINCT label FROM t WHERE id < 2) k ON t.label = k.label)", vec![0, 1]),
        ("(WITH c AS (SELECT * FROM t WHERE label <> 1) SELECT * FROM c)", vec![0, 2]),
    ] {
        assert_eq!(labels(&ctx, source).await, expected, "{source}");
    }
}

#[tokio::test]
async fn a_name_from_with_is_a_source_and_lateral_is_understood() {
    let ctx = session_with_table("t", pictures(24, 3));
    let query = format!("WITH c AS (SELECT * FROM t WHERE label < 2) SELECT label FROM distill(c, ipc => 1, {SMALL})");
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "label"), [0, 1]);
    let query = format!("SELECT d.label FROM (SELECT 1 AS one), LATERAL distill(t, ipc => 1, {SMALL}) AS d");
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "label"), [0, 1, 2]);
}

#[tokio::test]
async fn files_written_since_the_last_job_are_seen_by_the_next() {
    let (dir, _) = train();
    let ctx = session();
    let source = format!("'{}/*.parquet'", dir.path().to_str().unwrap());
    assert_eq!(labels(&ctx, &source).await, [0, 1, 2]);
    let more: RecordBatch = pictures_of(vec![Some(png(1, 1, 8))], vec![Some(7)]);
    write_parquet(dir.path().join("more.parquet"), &more);
    assert_eq!(labels(&ctx, &source).await, [0, 1, 2, 7]);
}

#[tokio::test]
async fn a_query_may_distill_what_it_distilled() {
    let ctx = session_with_table("t", pictures(24, 3));
    let source = format!("(SELECT * FROM distill(t, ipc => 4, {SMALL}))");
    assert_eq!(labels(&ctx, &source).await, [0, 1, 2]);
}
