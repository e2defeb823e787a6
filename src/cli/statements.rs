//! SQL text flows in, statements and, once they ran, rows on standard output flow out.

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::TryStreamExt;

use crate::arrow::csv;
use crate::arrow::error::ArrowError;
use crate::arrow::json::LineDelimitedWriter;
use crate::arrow::record_batch::RecordBatch;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::table;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table for people.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON object a line.
    Json,
}

/// All statements of `text`, parsed before the first one runs; positions in errors count from the start of `text`.
pub(super) fn statements(ctx: &SessionContext, text: &str) -> Outcome<Vec<Statement>> {
    let limit = ctx.copied_config().options().sql_parser.recursion_limit.get();
    let mut parser = DFParserBuilder::new(text).with_dialect(&GenericDialect).with_recursion_limit(limit).build()?;
    Ok(parser.parse_statements()?.into())
}

/// Whether the last statement of `text` has its semicolon: one that is not inside quotes or a comment.
pub(super) fn is_complete(text: &str) -> bool {
    match Tokenizer::new(&GenericDialect, text).tokenize() {
        Ok(tokens) => tokens.iter().rfind(|t| !matches!(t, Token::Whitespace(_))) == Some(&Token::SemiColon),
        // Quotes or a comment that are still open; any other text that can't be read won't get better by more of it.
        Err(error) => !["Unterminated", "EOF"].iter().any(|open| error.message.contains(open)),
    }
}

/// Runs one statement and prints its rows; their number, or `None` for statements that have none to show.
pub(super) async fn execute(ctx: &SessionContext, statement: Statement, format: Format) -> Outcome<Option<usize>> {
    let plan = ctx.state().statement_to_plan(statement).await?;
    let silent = matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_));
    let stream = ctx.execute_logical_plan(plan).await?.execute_stream().await?;
    if silent && stream.schema().fields().is_empty() {
        stream.try_collect::<Vec<_>>().await?;
        return Ok(None);
    }
    print(stream, format).await.map(Some)
}

async fn print(mut stream: SendableRecordBatchStream, format: Format) -> Outcome<usize> {
    // Not the lock of standard output: it can't be held while waiting for the next batch.
    let mut out = BufWriter::new(io::stdout());
    let mut rows = 0;
    match format {
        Format::Table => {
            let schema = stream.schema();
            let batches: Vec<_> = stream.try_collect().await?;
            rows = batches.iter().map(RecordBatch::num_rows).sum();
            writeln!(out, "{}", table::pretty(&schema, &batches)?)?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
            let mut empty = true;
            while let Some(batch) = stream.try_next().await? {
                empty = false;
                rows += batch.num_rows();
                writer.write(&batch).map_err(closed)?;
            }
            if empty {
                writer.write(&RecordBatch::new_empty(stream.schema())).map_err(closed)?;
            }
        }
        Format::Json => {
            let mut writer = LineDelimitedWriter::new(&mut out);
            while let Some(batch) = stream.try_next().await? {
                rows += batch.num_rows();
                writer.write(&batch).map_err(closed)?;
            }
            writer.finish().map_err(closed)?;
        }
    }
    out.flush()?;
    Ok(rows)
}

/// Arrow's writers turn the error of a closed pipe into text on the way.
fn closed(error: ArrowError) -> Failure {
    match error {
        ArrowError::IoError(_, e) => e.into(),
        e if e.to_string().contains("Broken pipe") => Failure::Closed,
        e => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_complete_at_a_semicolon_that_counts() {
        for text in ["SELECT 1;", "SELECT 1; -- done", "SELECT ';' /* ; */;\n", "SELECT 1; SELECT 2;", ";"] {
            assert!(is_complete(text), "{text}");
        }
        for text in [
            "",
            "SELECT 1",
            "SELECT 1; SELECT 2",
            "SELECT ';",
            "SELECT \"a;",
            "SELECT 1 -- ;",
            "SELECT 1 /* ;",
            "SELECT $$ ;",
        ] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
