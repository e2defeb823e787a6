//! A file whose pictures hold several flows in, a file of the pictures that they decode to flows out.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;

use crate::cli::beside::Beside;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::run::{Metrics, writer};
use crate::cli::session::{session, threads};
use crate::cli::usage::{human_bytes, human_count};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    distill run train.parquet -o small.parquet --ipc 10 --mosaic 2\n  \
    distill unpack small.parquet -o rows.parquet")]
pub(super) struct UnpackArgs {
    /// What to unpack: what `distill run --mosaic` wrote, or a query of it in parentheses.
    source: String,

    /// The Parquet file to write. It appears when it is whole.
    #[arg(short, long, value_name = "OUT.parquet")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    overwrite: bool,

    /// Pictures in one, per side [default: what the file says].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=8))]
    mosaic: Option<u8>,
}

pub(super) fn unpack(args: UnpackArgs, quiet: bool) -> Outcome {
    let threads = threads(None);
    let (stored, rows, bytes) =
        interrupt::run(threads, write_rows(&args, threads)).map_err(Failure::without_position)?;
    if !quiet {
        let (stored, rows) = (human_count(stored), human_count(rows));
        let mut out = std::io::stdout();
        writeln!(out, "{}: {rows} rows of {stored} stored ones, {}", args.output.display(), human_bytes(bytes))?;
    }
    Ok(())
}

/// Stored rows, rows and bytes.
async fn write_rows(args: &UnpackArgs, threads: usize) -> Outcome<(u64, u64, u64)> {
    let ctx = session(threads, None, None)?;
    let source = match args.source.trim_start().starts_with('(') {
        true => args.source.clone(),
        false => format!("'{}'", args.source.replace('\'', "''")),
    };
    let mosaic = args.mosaic.map_or_else(String::new, |side| format!(", mosaic => {side}"));
    let frame = ctx.sql(&format!("SELECT * FROM unpack({source}{mosaic})")).await?;
    let context = Arc::new(frame.task_ctx());
    let plan = frame.create_physical_plan().await?;
    let (beside, file) = Beside::create(&args.output, args.overwrite)?;
    let mut stream = execute_stream(Arc::clone(&plan), context)?;
    let mut writer = writer(file, &stream.schema())?;
    let mut rows = 0;
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    let bytes = beside.finish(writer.into_inner()?)?;
    Ok((Metrics::of(plan.as_ref()).count("rows_stored").unwrap_or(0), rows, bytes))
}
