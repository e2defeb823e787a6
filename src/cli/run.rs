//! A source and options flow in, a Parquet file of synthetic rows flows out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};

use crate::arrow::datatypes::Schema;
use crate::arrow::record_batch::RecordBatch;
use crate::cli::beside::Beside;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::JobFlags;
use crate::cli::interrupt;
use crate::cli::progress::JobProgress;
use crate::cli::session::{MemoryArgs, session, threads};
use crate::cli::usage::{cpu_time, human_bytes, human_count, peak_memory};
use crate::options::Options;
use crate::parquet::arrow::ArrowWriter;
use crate::parquet::basic::Compression;
use crate::parquet::file::metadata::KeyValue;
use crate::parquet::file::properties::WriterProperties;
use crate::rows::{Label, Layout, sides_of};
use crate::sql::{PROVENANCE_KEY, selection};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    distill run train.parquet -o small.parquet --ipc 10\n  \
    distill run 'days/*.parquet' -o small.parquet --ipc 50 --method characteristic --seed 1\n  \
    distill run \"(SELECT image, label FROM 'train.parquet' WHERE label < 5)\" -o small.parquet --ipc 1")]
pub(super) struct RunArgs {
    /// What to distil: a Parquet file, a folder, a glob in quotes, a URL, or a query in parentheses.
    source: String,

    /// The Parquet file to write. It appears when it is whole, and not at all if the job fails or is cancelled.
    #[arg(short, long, value_name = "OUT.parquet")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    overwrite: bool,

    /// Print one JSON object about the job instead of a summary.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    memory: MemoryArgs,

    #[command(flatten)]
    options: JobFlags,
}

/// The stages of a job and the metrics that hold their CPU time.
const STAGES: [(&str, &str); 4] =
    [("decode", "decode_time"), ("extract", "extract_time"), ("sketch", "sketch_time"), ("optimize", "optimize_time")];

pub(super) fn run(args: RunArgs, quiet: bool) -> Outcome {
    let options = args.options.options()?;
    let threads = threads(options.threads);
    let started = Instant::now();
    let progress = JobProgress::new(quiet || args.json);
    let written = interrupt::run(threads, distil(&args, &options, threads, &progress));
    progress.finish();
    let written = written.map_err(Failure::without_position)?;
    let wall = started.elapsed().as_secs_f64();
    let (rows_in, rows_out) = (written.rows_in.unwrap_or(progress.rows()), written.rows_out as u64);
    let mut out = std::io::stdout().lock();
    if args.json {
        let provenance = written.provenance.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let fingerprint = provenance.as_ref().and_then(|p| p.pointer("/source/fingerprint").cloned());
        let mut cpu: Map<String, Value> = written.stages.iter().map(|(stage, s)| ((*stage).into(), json!(s))).collect();
        cpu.insert("total".into(), json!(cpu_time().as_secs_f64()));
        let report = json!({
            "source": args.source,
            "source_fingerprint": fingerprint,
            "output": args.output.display().to_string(),
            "rows_in": rows_in,
            "rows_out": rows_out,
            "decoded_rows": written.pictures,
            "selection": written.selection,
            "classes": written.classes,
            "options": options.changed().into_iter().map(|(name, value)| (name.into(), value.into())).collect::<Map<_, Value>>(),
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "peak_memory_bytes": peak_memory(),
            "output_bytes": written.bytes,
            "version": env!("CARGO_PKG_VERSION"),
        });
        writeln!(out, "{report}")?;
    } else if !quiet {
        let mut facts = vec![format!("{} rows", human_count(rows_out))];
        facts[0] += &written.classes.map_or_else(String::new, |n| format!(" of {n} classes"));
        let packed = written.pictures > written.rows_out;
        if packed {
            facts.push(format!("which decode to {}", human_count(written.pictures as u64)));
        }
        let real = if packed { "packed of real ones" } else { "real ones" };
        facts.extend(written.selection.map(|how| format!("{real}, chosen by {how}")));
        facts.push(human_bytes(written.bytes));
        writeln!(out, "{}: {}", args.output.display(), facts.join(", "))?;
        let rows_in = human_count(rows_in);
        let memory = peak_memory().map_or_else(String::new, |b| format!(", {} of memory at most", human_bytes(b)));
        let cpu = cpu_time().as_secs_f64();
        writeln!(out, "from {rows_in} rows in {wall:.1} s, {cpu:.1} CPU-seconds{memory}")?;
    }
    Ok(())
}

/// What was written.
struct Written {
    rows_in: Option<u64>,
    rows_out: usize,
    /// Pictures that these hold; as many where each is one.
    pictures: usize,
    /// How rows were chosen, if they are real ones, or mosaics of such.
    selection: Option<String>,
    classes: Option<usize>,
    bytes: u64,
    provenance: Option<String>,
    /// CPU-seconds by stage.
    stages: BTreeMap<&'static str, f64>,
}

async fn distil(args: &RunArgs, options: &Options, threads: usize, progress: &JobProgress) -> Outcome<Written> {
    let ctx = session(threads, Some(args.memory), Some(progress.listener()))?;
    let frame = ctx.sql(&query(&args.source, args.options.given())).await?;
    let context = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    // The place is claimed before the work starts: hours later is too late to find that it can't be written to.
    let (beside, file) = Beside::create(&args.output, args.overwrite)?;
    let mut stream = execute_stream(Arc::clone(&plan), context)?;
    let schema = stream.schema();
    let mut writer = writer(file, &schema)?;
    let layout = Layout::infer(&schema, options).ok();
    let (mut rows_out, mut pictures, mut labels) = (0, 0, BTreeSet::new());
    while let Some(batch) = stream.try_next().await? {
        rows_out += batch.num_rows();
        pictures += sides_of(&args.source, &schema, &batch)?.iter().map(|side| side * side).sum::<usize>();
        labels.extend(layout.as_ref().map(|layout| labels_of(layout, &batch)).transpose()?.unwrap_or_default());
        writer.write(&batch)?;
    }
    let bytes = beside.finish(writer.into_inner()?)?;
    let metrics = Metrics::of(plan.as_ref());
    Ok(Written {
        // Each pass reads all of them.
        rows_in: metrics.count("rows_read").map(|rows| rows / options.passes.max(1) as u64),
        rows_out,
        pictures,
        selection: selection(&schema),
        classes: layout.is_some().then_some(labels.len()),
        bytes,
        provenance: schema.metadata().get(PROVENANCE_KEY).cloned(),
        stages: STAGES.iter().filter_map(|(stage, name)| Some((*stage, metrics.seconds(name)?))).collect(),
    })
}

/// The query that a user would write; options go in as text, which every option accepts.
fn query(source: &str, given: &[(&'static str, String)]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let source = if source.trim_start().starts_with('(') { source.to_string() } else { quoted(source) };
    let options: String = given.iter().map(|(name, text)| format!(", {name} => {}", quoted(text))).collect();
    format!("SELECT * FROM distill({source}{options})")
}

/// A writer whose file tells its metadata in both places where readers look for it: the Arrow schema and the footer.
pub(super) fn writer(file: File, schema: &Arc<Schema>) -> Outcome<ArrowWriter<File>> {
    let mut notes: Vec<_> = schema.metadata().iter().collect();
    notes.sort();
    let notes = notes.into_iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(notes))
        .set_created_by(format!("datafusion-distill {}", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))?)
}

fn labels_of(layout: &Layout, batch: &RecordBatch) -> Outcome<Vec<Label>> {
    let labels = Label::from_array(layout.label_name(), batch.column(layout.label))?;
    Ok(labels.into_iter().flatten().collect())
}

/// Sums over all operators and partitions of a plan that has run.
#[derive(Default)]
pub(super) struct Metrics {
    counts: BTreeMap<String, u64>,
    seconds: BTreeMap<String, f64>,
}

impl Metrics {
    pub(super) fn of(plan: &dyn ExecutionPlan) -> Self {
        let mut metrics = Self::default();
        metrics.add(plan);
        metrics
    }

    fn add(&mut self, plan: &dyn ExecutionPlan) {
        for metric in plan.metrics().iter().flat_map(|set| set.iter()) {
            match metric.value() {
                MetricValue::Count { name, count } => {
                    *self.counts.entry(name.to_string()).or_default() += count.value() as u64;
                }
                MetricValue::Time { name, time } => {
                    *self.seconds.entry(name.to_string()).or_default() += time.value() as f64 / 1e9;
                }
                _ => {}
            }
        }
        plan.children().into_iter().for_each(|child| self.add(child.as_ref()));
    }

    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.counts.get(name).copied()
    }

    fn seconds(&self, name: &str) -> Option<f64> {
        self.seconds.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_the_one_a_user_would_write() {
        let given = [("ipc", "10".to_string()), ("label", "it's".to_string())];
        assert_eq!(query("a.parquet", &given), "SELECT * FROM distill('a.parquet', ipc => '10', label => 'it''s')");
        assert_eq!(query("(SELECT 1)", &given[..1]), "SELECT * FROM distill((SELECT 1), ipc => '10')");
    }
}
