//! What comes out: the source's schema and metadata, and what SQL around the call does with the rows.

use std::fs::File;

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion_distill::sql::PROVENANCE_KEY;

use crate::support::*;

fn call(source: &str) -> String {
    format!("distill({source}, ipc => 2, {SMALL})")
}

#[tokio::test]
async fn the_rows_have_the_schema_of_the_source_and_are_sorted_by_label() {
    let batch = pictures(24, 3);
    let ctx = session_with_table("t", batch.clone());
    let out = rows(&ctx, &format!("SELECT * FROM {}", call("t"))).await.unwrap();
    assert_eq!(out.schema().fields(), batch.schema().fields());
    assert_eq!(ints(&out, "label"), [0, 0, 1, 1, 2, 2]);
    assert_eq!(out.column_by_name("id").unwrap().null_count(), 6);
}

#[tokio::test]
async fn a_projection_a_filter_and_a_limit_above_never_change_the_rows() {
    let ctx = session_with_table("t", pictures(24, 3));
    let all = rows(&ctx, &format!("SELECT * FROM {}", call("t"))).await.unwrap();
    for (query, expected) in [
        (format!("SELECT image FROM {}", call("t")), all.project(&[0]).unwrap()),
        (format!("SELECT id, image FROM {}", call("t")), all.project(&[2, 0]).unwrap()),
        (format!("SELECT image FROM {} WHERE label = 1", call("t")), all.project(&[0]).unwrap().slice(2, 2)),
        (format!("SELECT image FROM {} LIMIT 3", call("t")), all.project(&[0]).unwrap().slice(0, 3)),
        (format!("SELECT image FROM {} OFFSET 3", call("t")), all.project(&[0]).unwrap().slice(3, 3)),
    ] {
        let found = rows(&ctx, &query).await.unwrap();
        assert_eq!(found.columns(), expected.columns(), "{query}");
    }
    let counted = rows(&ctx, &format!("SELECT count(*) AS n FROM {}", call("t"))).await.unwrap();
    assert_eq!(ints(&counted, "n"), [6]);
}

#[tokio::test]
async fn the_rows_can_be_joined_aggregated_stored_and_inserted() {
    let ctx = session_with_table("t", pictures(24, 3));
    let query =
        format!("SELECT a.label FROM {} AS a JOIN {} AS b ON a.label = b.label ORDER BY 1", call("t"), call("t"));
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "label"), [[0; 4], [1; 4], [2; 4]].concat());

    rows(&ctx, &format!("CREATE TABLE u AS SELECT * FROM {}", call("t"))).await.unwrap();
    rows(&ctx, &format!("INSERT INTO u SELECT * FROM {}", call("t"))).await.unwrap();
    let counts = rows(&ctx, "SELECT label, count(*) AS n FROM u GROUP BY label ORDER BY label").await.unwrap();
    assert_eq!(ints(&counts, "n"), [4, 4, 4]);

    rows(&ctx, &format!("CREATE VIEW w AS SELECT * FROM {}", call("t"))).await.unwrap();
    assert_eq!(rows(&ctx, "SELECT * FROM w").await.unwrap().num_rows(), 6);
}

#[tokio::test]
async fn copy_writes_hugging_face_features_and_provenance_into_the_parquet_file() {
    let (dir, path) = train();
    let ctx = session();
    let out = dir.path().join("out.parquet");
    let copy = format!("COPY (SELECT * FROM {}) TO '{}' STORED AS PARQUET", call(&format!("'{path}'")), out.display());
    rows(&ctx, &copy).await.unwrap();

    let schema = ParquetRecordBatchReaderBuilder::try_new(File::open(&out).unwrap()).unwrap().schema().clone();
    assert_eq!(schema.fields(), pictures(3, 3).schema().fields());
    assert_eq!(schema.metadata().get("huggingface").map(String::as_str), Some(FEATURES));
    let note: serde_json::Value = serde_json::from_str(&schema.metadata()[PROVENANCE_KEY]).unwrap();
    assert_eq!(note["options"]["ipc"], "2");
    assert_eq!(note["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(note["seed"], 0);
    assert_eq!(note["source"]["name"], path);
    assert_eq!(note["source"]["fingerprint"].as_str().unwrap().len(), 64);

    // Readers that go by ARROW:schema alone find them there.
    let reader = SerializedFileReader::new(File::open(&out).unwrap()).unwrap();
    let keys = reader.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(keys.iter().any(|k| k.key == "ARROW:schema"), "{keys:?}");

    // What was written is a source again, with its class names.
    let again = format!("SELECT label FROM distill('{}', ipc => 1, classes => ['two', 'one'], {SMALL})", out.display());
    assert_eq!(ints(&rows(&ctx, &again).await.unwrap(), "label"), [1, 2]);
}

#[tokio::test]
async fn features_follow_columns_through_a_query_and_a_registered_table() {
    let (_dir, path) = train();
    let ctx = session();
    ctx.register_parquet("t", &path, Default::default()).await.unwrap();
    let frame = ctx
        .sql(&format!("SELECT * FROM distill((SELECT label AS digit, image FROM t WHERE id < 40), ipc => 1, {SMALL})"))
        .await
        .unwrap();
    let note: serde_json::Value = serde_json::from_str(&frame.schema().metadata()["huggingface"]).unwrap();
    let features = note["info"]["features"].as_object().unwrap();
    assert_eq!(features.keys().collect::<Vec<_>>(), ["digit", "image"]);
    assert_eq!(features["digit"]["names"][2], "two");
    assert_eq!(ints(&rows(&ctx, &format!("SELECT digit FROM distill((SELECT label AS digit, image FROM t), classes => 'one,two', ipc => 1, {SMALL})")).await.unwrap(), "digit"), [1, 2]);
}

#[tokio::test]
async fn tensors_are_written_exactly_on_request() {
    let ctx = session_with_table("t", pictures(24, 3));
    let query = format!("SELECT image FROM distill(t, ipc => 1, encoding => 'tensor', {SMALL})");
    let out = rows(&ctx, &query).await.unwrap();
    assert!(!matches!(out.column(0).data_type(), datafusion::arrow::datatypes::DataType::Struct(_)));
    assert_eq!(out.num_rows(), 3);
}
