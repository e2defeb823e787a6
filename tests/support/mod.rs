//! Small labelled sources for tests: 8x8 pictures and lists of numbers, in memory and as files.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{SessionConfig, SessionContext};

/// Options that make a job take milliseconds.
pub const SMALL: &str = "extractors => 2, width => 8, depth => 1, steps => 2, frequencies => 8";

/// The Hugging Face note of [`pictures`].
pub const FEATURES: &str =
    r#"{"info":{"features":{"image":{"_type":"Image"},"label":{"names":["zero","one","two"],"_type":"ClassLabel"}}}}"#;

/// A PNG of a grey `side` x `side` picture that depends on its class and number.
pub fn png(class: usize, number: usize, side: u32) -> Vec<u8> {
    let pixel =
        |x: u32, y: u32| ((class as u32 * 83 + number as u32 * 29 + x * (7 + class as u32) + y * 13) % 256) as u8;
    let picture = image::GrayImage::from_fn(side, side, |x, y| image::Luma([pixel(x, y)]));
    let mut bytes = Cursor::new(vec![]);
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Rows of a Hugging Face picture data set: row `i` is of class `labels[i]`, its picture `bytes[i]`, its id `i`.
pub fn pictures_of(bytes: Vec<Option<Vec<u8>>>, labels: Vec<Option<i64>>) -> RecordBatch {
    let n = labels.len();
    let bytes: BinaryArray = bytes.iter().map(Option::as_deref).collect();
    let paths: StringArray = (0..n).map(|i| Some(format!("{i}.png"))).collect();
    let fields = vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
    let image = StructArray::new(fields.into(), vec![Arc::new(bytes) as ArrayRef, Arc::new(paths)], None);
    let schema = Schema::new(vec![
        Field::new("image", image.data_type().clone(), true),
        Field::new("label", DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
    ])
    .with_metadata([("huggingface".to_string(), FEATURES.to_string())].into());
    let ids = Int64Array::from_iter_values(0..n as i64);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(image), Arc::new(Int64Array::from(labels)), Arc::new(ids)])
        .unwrap()
}

/// `rows` pictures of `classes` classes in turn.
pub fn pictures(rows: usize, classes: usize) -> RecordBatch {
    pictures_of(
        (0..rows).map(|i| Some(png(i % classes, i, 8))).collect(),
        (0..rows).map(|i| Some((i % classes) as i64)).collect(),
    )
}

/// `rows` vectors of 4 numbers with a text label of `classes` classes.
pub fn numbers(rows: usize, classes: usize) -> RecordBatch {
    let values = Float32Array::from_iter_values(
        (0..rows * 4).map(|i| ((i * 37) % 101) as f32 / 10.0 + (i / 4 % classes) as f32),
    );
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let lists = FixedSizeListArray::new(item, 4, Arc::new(values), None);
    let labels: StringArray = (0..rows).map(|i| Some(format!("class {}", i % classes))).collect();
    RecordBatch::try_from_iter([("features", Arc::new(lists) as ArrayRef), ("label", Arc::new(labels) as ArrayRef)])
        .unwrap()
}

/// Writes `batch` as Parquet in row groups of 16 rows.
pub fn write_parquet(path: impl AsRef<Path>, batch: &RecordBatch) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(16)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// A directory with `train.parquet`: 48 pictures of 3 classes. Returns the directory, which is deleted when dropped, and the path.
pub fn train() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    write_parquet(&path, &pictures(48, 3));
    let path = path.to_str().unwrap().to_string();
    (dir, path)
}

/// A session that knows `distill`, with a fixed number of partitions.
pub fn session() -> SessionContext {
    session_with(config())
}

/// The configuration of [`session`].
pub fn config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(3).with_information_schema(true)
}

/// A session with this configuration.
pub fn session_with(config: SessionConfig) -> SessionContext {
    let ctx = SessionContext::new_with_config(config);
    datafusion_distill::register(&ctx).unwrap();
    ctx
}

/// A session in which `batch` is the table `name`.
pub fn session_with_table(name: &str, batch: RecordBatch) -> SessionContext {
    let ctx = session();
    ctx.register_batch(name, batch).unwrap();
    ctx
}

/// The result of `query` as one batch.
pub async fn rows(ctx: &SessionContext, query: &str) -> Result<RecordBatch> {
    let frame = ctx.sql(query).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(datafusion::arrow::compute::concat_batches(&schema, &batches)?)
}

/// The result of `query` as text.
pub async fn shown(ctx: &SessionContext, query: &str) -> String {
    pretty_format_batches(&[rows(ctx, query).await.unwrap()]).unwrap().to_string()
}

/// The error of `query`, which must fail.
pub async fn failure(ctx: &SessionContext, query: &str) -> DataFusionError {
    match rows(ctx, query).await {
        Ok(batch) => panic!("{query} gives {} rows", batch.num_rows()),
        Err(error) => error,
    }
}

/// The error of `query` as text.
pub async fn message(ctx: &SessionContext, query: &str) -> String {
    failure(ctx, query).await.strip_backtrace()
}

/// The physical plan of `query` as EXPLAIN shows it, with `hide` replaced by `...`.
pub async fn explained(ctx: &SessionContext, query: &str, hide: &str) -> String {
    let batch = rows(ctx, &format!("EXPLAIN {query}")).await.unwrap();
    let plans = datafusion::common::cast::as_string_array(batch.column(1)).unwrap();
    let text = plans.value(plans.len() - 1).to_string();
    if hide.is_empty() { text } else { text.replace(hide.trim_start_matches('/'), "...") }
}

/// The numbers of an integer column.
pub fn ints(batch: &RecordBatch, column: &str) -> Vec<i64> {
    datafusion::common::cast::as_int64_array(batch.column_by_name(column).unwrap()).unwrap().values().to_vec()
}
