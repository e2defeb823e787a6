//! Data that can't be distilled: the error names the culprit and the way out.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::datasource::MemTable;
use datafusion_distill::Error;

use crate::support::*;

fn call(source: &str, options: &str) -> String {
    format!("SELECT * FROM distill({source}, ipc => 1, {SMALL}{options})")
}

/// 24 pictures of which `change` can spoil some.
fn spoiled(change: impl FnOnce(&mut Vec<Option<Vec<u8>>>, &mut Vec<Option<i64>>)) -> RecordBatch {
    let mut bytes = (0..24).map(|i| Some(png(i % 3, i, 8))).collect();
    let mut labels = (0..24).map(|i| Some((i % 3) as i64)).collect();
    change(&mut bytes, &mut labels);
    pictures_of(bytes, labels)
}

#[tokio::test]
async fn a_source_without_rows_or_with_one_class_is_refused() {
    let ctx = session_with_table("t", pictures(12, 3));
    ctx.register_batch("n", numbers(12, 2)).unwrap();
    for (source, options, part) in [
        ("(SELECT * FROM t WHERE id < 0)", "", "the query has no rows"),
        ("t", ", classes => [5]", "'5' is not a class of column 'label'; expected one of zero, one, two"),
        ("n", ", classes => ['class 7', 'class 8']", "table n has no rows of the classes class 7, class 8"),
        ("(SELECT * FROM t WHERE label = 1)", "", "one class only, one in column 'label'"),
        ("t", ", classes => ['two']", "one class only, two"),
    ] {
        let message = message(&ctx, &call(source, options)).await;
        assert!(message.contains(part), "{source}: {message}");
    }
}

#[tokio::test]
async fn null_labels_and_pictures_are_refused_or_skipped() {
    let spoil = |batch: &str| match batch {
        "labels" => spoiled(|_, labels| labels[5] = None),
        _ => spoiled(|bytes, _| bytes[5] = None),
    };
    for (what, column) in [("labels", "label"), ("pictures", "image")] {
        let ctx = session_with_table("t", spoil(what));
        let refused = message(&ctx, &call("t", "")).await;
        assert!(refused.contains("row 5") && refused.contains(column) && refused.contains("on_null"), "{refused}");
        let out = rows(&ctx, &call("t", ", on_null => 'skip'")).await.unwrap();
        assert_eq!(out.num_rows(), 3);
        let text = shown(&ctx, &format!("EXPLAIN ANALYZE {}", call("t", ", on_null => 'skip'"))).await;
        assert!(text.contains("rows_skipped=1") && text.contains("rows_sketched=23"), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_picture_is_named_by_file_and_row_whichever_partition_meets_it() {
    let dir = tempfile::tempdir().unwrap();
    let damage = |rows: &[usize]| {
        let rows = rows.to_vec();
        spoiled(move |bytes, _| rows.iter().for_each(|row| bytes[*row] = Some(b"no picture".to_vec())))
    };
    write_parquet(dir.path().join("a.parquet"), &pictures(48, 3));
    write_parquet(dir.path().join("b.parquet"), &damage(&[17, 20]));
    write_parquet(dir.path().join("c.parquet"), &damage(&[3]));
    let directory = dir.path().to_str().unwrap();
    for partitions in [1, 2, 5] {
        let ctx = session_with(config().with_target_partitions(partitions));
        let message = message(&ctx, &call(&format!("'{directory}'"), "")).await;
        assert!(message.contains(&format!("{directory}/b.parquet, row 17, column 'image'")), "{message}");

        ctx.register_parquet("t", directory, Default::default()).await.unwrap();
        let query = call("(SELECT image, label FROM t WHERE id >= 10)", "");
        let filtered = crate::support::message(&ctx, &query).await;
        assert!(filtered.contains("b.parquet (rows after WHERE), row 7, column 'image'"), "{filtered}");

        let query = call("(SELECT * FROM t WHERE id <> 17 UNION ALL SELECT * FROM t WHERE id > 99)", "");
        let union = crate::support::message(&ctx, &query).await;
        assert!(union.contains("the query, row ") && union.contains("column 'image'"), "{union}");
    }
    let ctx = session();
    let single = format!("{directory}/c.parquet");
    let error = failure(&ctx, &call(&format!("'{single}'"), "")).await;
    let datafusion::error::DataFusionError::External(inner) = error.find_root() else { panic!("{error:?}") };
    match inner.downcast_ref::<Error>() {
        Some(Error::Row { place, row: 3, column, .. }) => {
            assert_eq!((place, column), (&format!("{single}, "), &"image".into()))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pictures_of_other_sizes_are_named_unless_they_are_resized() {
    let batch = spoiled(|bytes, _| bytes[14] = Some(png(2, 14, 12)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mixed.parquet");
    write_parquet(&path, &batch);
    for partitions in [1, 4] {
        let ctx = session_with(config().with_target_partitions(partitions).with_batch_size(4));
        let source = format!("'{}'", path.display());
        let refused = message(&ctx, &call(&source, "")).await;
        assert!(refused.contains("row 14") && refused.contains("12") && refused.contains("image_size"), "{refused}");
        assert_eq!(rows(&ctx, &call(&source, ", image_size => 8")).await.unwrap().num_rows(), 3);
    }
}

#[tokio::test]
async fn a_label_column_of_ids_is_refused_by_name() {
    let n = 100_000;
    let picture = png(0, 0, 8);
    let batch = pictures_of(vec![Some(picture); n], (0..n as i64).map(Some).collect());
    let ctx = session();
    let parts = (0..3).map(|i| vec![batch.slice(i * 30_000, 30_000)]).collect();
    ctx.register_table("t", Arc::new(MemTable::try_new(batch.schema(), parts).unwrap())).unwrap();
    let message = message(&ctx, &call("t", "")).await;
    assert!(
        message.contains("column 'label'") && message.contains("is it an id") && message.contains("label =>"),
        "{message}"
    );
}

#[tokio::test]
async fn columns_that_cannot_be_told_are_listed() {
    let ctx = session();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    ctx.register_batch("t", RecordBatch::try_from_iter([("a", ids.clone()), ("b", ids)]).unwrap()).unwrap();
    let message = message(&ctx, "SELECT * FROM distill(t)").await;
    assert!(message.contains('a') && message.contains('b') && message.contains("label"), "{message}");
}

#[tokio::test]
async fn nothing_is_written_when_the_job_fails() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.parquet");
    let ctx = session_with_table("t", spoiled(|bytes, _| bytes[5] = Some(vec![1, 2, 3])));
    let copy = |source: &str| format!("COPY ({}) TO '{}'", call(source, ""), out.display());
    let failed = message(&ctx, &copy("t")).await;
    assert!(failed.contains("row 5"), "{failed}");
    assert!(!out.exists());

    // What was there before stays; a job that doesn't fail replaces it.
    rows(&ctx, &copy("(SELECT * FROM t WHERE id <> 5)")).await.unwrap();
    let before = std::fs::read(&out).unwrap();
    message(&ctx, &copy("t")).await;
    assert_eq!(std::fs::read(&out).unwrap(), before);

    rows(&ctx, &format!("CREATE EXTERNAL TABLE o (image STRUCT<bytes BYTEA, path TEXT>, label BIGINT, id BIGINT) STORED AS PARQUET LOCATION '{}/o/'", dir.path().display())).await.unwrap();
    message(&ctx, &format!("INSERT INTO o {}", call("t", ""))).await;
    assert_eq!(std::fs::read_dir(dir.path().join("o")).map_or(0, |files| files.count()), 0);
}
