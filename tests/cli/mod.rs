//! The command as users run it: the built binary, real files, exit codes.

mod errors;
mod evaluate;
mod help;
mod inspect;
mod pool;
mod run;
mod sql;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use datafusion_distill::arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray, StructArray};
use datafusion_distill::arrow::datatypes::{DataType, Field, Schema};
use datafusion_distill::arrow::record_batch::RecordBatch;
use datafusion_distill::parquet::arrow::ArrowWriter;

/// The names of the three classes.
const NAMES: [&str; 3] = ["left", "right", "below"];

/// A folder with `train.parquet` and `test.parquet`: grey 8x8 pictures in the layout of Hugging Face, bright at the left, at
/// the right or below.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_pictures(&folder.path().join("train.parquet"), 12, 0);
        write_pictures(&folder.path().join("test.parquet"), 6, 1);
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names of all files, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(self.0.path()).args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    }

    fn distill(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that has to succeed.
    fn succeeds(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let output = self.distill(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that has to fail with exit code 1.
    fn fails(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let output = self.distill(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }
}

/// A small and fast job.
const SMALL: [&str; 8] = ["--ipc", "2", "--extractors", "2", "--width", "8", "--steps", "5"];

fn small_run<'a>(source: &'a str, output: &'a str) -> Vec<&'a str> {
    [&["run", source, "-o", output], &SMALL[..]].concat()
}

fn write_pictures(path: &Path, rows_per_class: usize, seed: u64) {
    let fields = [("bytes", DataType::Binary), ("path", DataType::Utf8)].map(|(n, t)| Field::new(n, t, true));
    let fields: Vec<Arc<Field>> = fields.into_iter().map(Arc::new).collect();
    let features = serde_json::json!({ "info": { "features": {
        "image": { "_type": "Image" },
        "label": { "_type": "ClassLabel", "names": NAMES },
    } } });
    let schema = Schema::new(vec![
        Field::new("image", DataType::Struct(fields.clone().into()), true),
        Field::new("label", DataType::Int64, true),
    ]);
    let schema = Arc::new(schema.with_metadata([("huggingface".to_string(), features.to_string())].into()));

    let rows = 3 * rows_per_class;
    let png: Vec<Vec<u8>> = (0..rows).map(|row| png(row % 3, seed * 1000 + row as u64)).collect();
    let members: Vec<ArrayRef> =
        vec![Arc::new(BinaryArray::from_iter_values(&png)), Arc::new(StringArray::from(vec![None::<&str>; rows]))];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StructArray::new(fields.into(), members, None)),
        Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row % 3))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn png(class: usize, seed: u64) -> Vec<u8> {
    let noise = datafusion_distill::random::uniform(&mut datafusion_distill::random::stream(seed, "test"), 64, 40.0);
    let picture = image::GrayImage::from_fn(8, 8, |x, y| {
        let bright = [x < 3, x > 4, y > 4][class];
        image::Luma([(80.0 + noise[(y * 8 + x) as usize] + if bright { 100.0 } else { 0.0 }) as u8])
    });
    let mut bytes = std::io::Cursor::new(vec![]);
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
