//! A source as SQL knows it flows in, its labelled rows, decoded and all in memory, flow out.

use std::path::Path;

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::cli::failure::Outcome;
use crate::evaluate::Dataset;
use crate::options::Options;
use crate::rows::{Decoder, Layout, Rows};
use crate::sql;

/// Rows that are decoded at a time.
const BATCH: usize = 1024;

/// Reads all labelled rows of `source`: a path, directory, glob or URL, a table, or a query in parentheses.
pub(super) async fn dataset(ctx: &SessionContext, source: &str, options: &Options) -> Outcome<Dataset> {
    let (rows, schema) = sql::read(ctx, source).await?;
    let layout = Layout::infer(&schema, options)?;
    let decoder = Decoder::new(&layout, options)?;
    let names = [layout.feature_name(), layout.label_name()];
    let quoted = names.map(|name| datafusion::prelude::Expr::Column(datafusion::common::Column::from_name(name)));
    let mut stream = rows.select(quoted)?.execute_stream().await?;
    let place = format!("{source}, ");
    let (mut batches, mut shape, mut first_row): (Vec<Rows>, _, u64) = (vec![], None, 0);
    while let Some(batch) = stream.try_next().await? {
        for start in (0..batch.num_rows()).step_by(BATCH) {
            let part = batch.slice(start, BATCH.min(batch.num_rows() - start));
            let rows = decoder.decode(part.column(0), part.column(1), shape, &place, first_row + start as u64)?;
            if !rows.is_empty() {
                shape = Some(rows.shape);
                batches.push(rows);
            }
        }
        first_row += batch.num_rows() as u64;
    }
    Ok(Dataset::from_rows(source, batches)?)
}

/// The size of `source` where it is a single file.
pub(super) fn file_bytes(source: &str) -> Option<u64> {
    let metadata = std::fs::metadata(Path::new(source)).ok()?;
    metadata.is_file().then_some(metadata.len())
}
