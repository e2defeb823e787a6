//! A source as a user names it flows in, its rows and the schema with its files' metadata flow out.

use datafusion::common::TableReference;
use datafusion::error::Result;
use datafusion::prelude::{DataFrame, SessionContext};

use super::lineage::schema_with_metadata;
use super::source::{open_files, scans};
use crate::arrow::datatypes::SchemaRef;

/// The rows of `source`, found as `distill` finds them: a query in parentheses, a table or view of `ctx`, else a path, directory, glob or URL. The
/// schema beside them has the metadata of the source's files (Hugging Face features), which reading drops.
pub async fn read(ctx: &SessionContext, source: &str) -> Result<(DataFrame, SchemaRef)> {
    let state = ctx.state();
    let plan = if source.trim_start().starts_with('(') {
        state.create_logical_plan(&format!("SELECT * FROM {source}")).await?
    } else if ctx.table_exist(TableReference::parse_str(source)).unwrap_or(false) {
        ctx.table(TableReference::parse_str(source)).await?.into_unoptimized_plan()
    } else {
        open_files(&state, source, &format!("read-{}", state.session_id())).await?
    };
    let schema = schema_with_metadata(&state, &plan, &scans(&state, &plan).await?).await?;
    Ok((DataFrame::new(state, plan), schema))
}
