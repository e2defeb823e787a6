//! SQL statements flow in, their results flow to standard output.

use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use futures::TryStreamExt;

use crate::arrow::csv;
use crate::arrow::json::LineDelimitedWriter;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::session::{MemoryArgs, session, threads};
use crate::cli::{interrupt, table};
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    distill sql -c \"SELECT * FROM distill('train.parquet', ipc => 10)\"\n  \
    distill sql -c \"COPY (SELECT * FROM distill('train.parquet', ipc => 10)) TO 'small.parquet' STORED AS PARQUET\"\n  \
    distill sql -c \"EXPLAIN SELECT * FROM distill((SELECT * FROM 'train.parquet' WHERE label < 5))\"\n  \
    distill sql -f job.sql --format csv")]
pub(super) struct SqlArgs {
    /// Statements to run, separated by semicolons. May be given several times. Files are named in single quotes: FROM 'train.parquet'.
    #[arg(short, long = "command", value_name = "SQL", conflicts_with = "file")]
    command: Vec<String>,

    /// A file with statements to run. Without -c and -f they are read from standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How results are printed. A table shortens binary values and long lists; csv and json don't.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    /// CPU threads, for queries and for `distill`. Default: all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    #[command(flatten)]
    memory: MemoryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Json,
}

pub(super) fn sql(args: SqlArgs) -> Outcome {
    let text = text(&args)?;
    let threads = threads(args.threads.map(usize::from));
    interrupt::run(threads, async {
        let ctx = session(threads, Some(args.memory), None)?;
        if args.threads.is_some() {
            ctx.sql(&format!("SET distill.threads = {threads}")).await?;
        }
        for statement in statements(&ctx, &text)? {
            execute(&ctx, statement, args.format).await?;
        }
        Ok(())
    })
}

fn text(args: &SqlArgs) -> Outcome<String> {
    if !args.command.is_empty() {
        return Ok(args.command.join(";\n"));
    }
    if let Some(path) = &args.file {
        return Ok(std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?);
    }
    if io::stdin().is_terminal() {
        return Err(Failure::new(
            "nothing to run; give statements with -c \"SELECT ...\", a file with -f FILE, or pipe them to standard input",
        ));
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// All statements of `text`, parsed before the first one runs; positions in errors count from the start of `text`.
fn statements(ctx: &SessionContext, text: &str) -> Outcome<Vec<Statement>> {
    let limit = ctx.copied_config().options().sql_parser.recursion_limit.get();
    let mut parser = DFParserBuilder::new(text).with_dialect(&GenericDialect).with_recursion_limit(limit).build()?;
    let statements = parser.parse_statements()?;
    if statements.is_empty() {
        return Err(Failure::new("nothing to run: the SQL text has no statement"));
    }
    Ok(statements.into())
}

async fn execute(ctx: &SessionContext, statement: Statement, format: Format) -> Outcome {
    let plan = ctx.state().statement_to_plan(statement).await?;
    let silent = matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_));
    let stream = ctx.execute_logical_plan(plan).await?.execute_stream().await?;
    if silent && stream.schema().fields().is_empty() {
        stream.try_collect::<Vec<_>>().await?;
        return Ok(());
    }
    print(stream, format).await
}

async fn print(mut stream: SendableRecordBatchStream, format: Format) -> Outcome {
    // Not the lock of standard output: it can't be held while waiting for the next batch.
    let mut out = BufWriter::new(io::stdout());
    match format {
        Format::Table => {
            let schema = stream.schema();
            let batches: Vec<_> = stream.try_collect().await?;
            writeln!(out, "{}", table::pretty(&schema, &batches)?)?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
            let mut empty = true;
            while let Some(batch) = stream.try_next().await? {
                empty = false;
                writer.write(&batch).map_err(closed)?;
            }
            if empty {
                writer.write(&crate::arrow::record_batch::RecordBatch::new_empty(stream.schema())).map_err(closed)?;
            }
        }
        Format::Json => {
            let mut writer = LineDelimitedWriter::new(&mut out);
            while let Some(batch) = stream.try_next().await? {
                writer.write(&batch).map_err(closed)?;
            }
            writer.finish().map_err(closed)?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Arrow's writers turn the error of a closed pipe into text on the way.
fn closed(error: crate::arrow::error::ArrowError) -> Failure {
    use crate::arrow::error::ArrowError;
    match error {
        ArrowError::IoError(_, e) => e.into(),
        e if e.to_string().contains("Broken pipe") => Failure::Closed,
        e => e.into(),
    }
}
