//! A source that is cheap to look into flows in; what its first rows tell flows out: the shape of a picture, for EXPLAIN, and which columns
//! of a table are ids.

use std::collections::HashSet;

use datafusion::common::Column;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::physical_plan::collect;

use super::job::Job;
use super::source::Files;
use crate::arrow::array::AsArray;
use crate::arrow::compute::cast;
use crate::arrow::datatypes::{DataType, Schema};
use crate::arrow::record_batch::RecordBatch;
use crate::rows::{FeatureKind, Hints, Shape};

/// Rows that are looked at to tell ids from other columns.
const LOOK: usize = 8192;
/// Fewer rows tell nothing.
const FEWEST: usize = 20;

/// The shape of the first row of `input`, a source projected to what the job reads. `None` where finding it takes more than
/// reading one row of a file or of memory, or where that row can't be used: the run will say why.
pub(super) async fn first_shape(state: &SessionState, job: &Job, input: &LogicalPlan) -> Option<Shape> {
    if !is_cheap(input, false) || job.layout.single().is_none() {
        return None;
    }
    let first = LogicalPlanBuilder::from(input.clone()).limit(0, Some(1)).ok()?.build().ok()?;
    let plan = state.create_physical_plan(&first).await.ok()?;
    let batches = collect(plan, state.task_ctx()).await.ok()?;
    let batch = batches.iter().find(|b| b.num_rows() > 0)?;
    let rows = job.decode(batch, None, None, "", 0).ok()?;
    (!rows.is_empty()).then_some(rows.shape)
}

/// What files and first rows tell of the columns of a table. Nothing of the rows where looking takes more than reading a few thousand of them from files
/// or memory; nothing at all where the source has pictures or lists.
pub(super) async fn hints(
    state: &SessionState,
    source: &LogicalPlan,
    schema: &Schema,
    scans: &[(TableScan, Option<Files>)],
) -> Hints {
    if schema.fields().iter().any(|f| FeatureKind::of(f.data_type()).is_some()) {
        return Hints::default();
    }
    let files = scans.iter().filter_map(|(_, files)| files.as_ref());
    let partitions = files.flat_map(|f| f.options.table_partition_cols.iter().map(|(name, _)| name.clone())).collect();
    let mut hints = Hints { partitions, ..Hints::default() };
    if is_cheap(source, true)
        && let Ok(Some(batch)) = first_rows(state, source, schema).await
    {
        hints.rows = batch.num_rows();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let Ok(text) = cast(column, &DataType::Utf8) else { continue };
            let values: Vec<&str> = text.as_string::<i32>().iter().flatten().collect();
            let distinct: HashSet<&str> = values.iter().copied().collect();
            if values.len() >= FEWEST && distinct.len() * 10 >= values.len() * 9 {
                hints.near_unique.insert(field.name().clone());
            }
            if !values.is_empty() && !field.data_type().is_integer() && values.iter().all(|v| is_uuid(v)) {
                hints.uuids.insert(field.name().clone());
            }
        }
    }
    hints
}

/// The first rows of the columns that may be ids: of text and of whole numbers.
async fn first_rows(state: &SessionState, source: &LogicalPlan, schema: &Schema) -> Result<Option<RecordBatch>> {
    let scalar = |t: &DataType| t.is_integer() || matches!(FeatureKind::of_scalar(t), Some(FeatureKind::Category));
    let columns: Vec<Expr> = (0..schema.fields().len())
        .filter(|i| scalar(schema.field(*i).data_type()))
        .map(|i| Expr::Column(Column::from(source.schema().qualified_field(i))))
        .collect();
    if columns.is_empty() {
        return Ok(None);
    }
    // One partition: the same rows every time.
    let mut state = state.clone();
    state.config_mut().options_mut().execution.target_partitions = 1;
    let first = LogicalPlanBuilder::from(source.clone()).project(columns)?.limit(0, Some(LOOK))?.build()?;
    let batches = collect(state.create_physical_plan(&first).await?, state.task_ctx()).await?;
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(None) };
    Ok(Some(crate::arrow::compute::concat_batches(&schema, &batches)?))
}

/// Whether `text` is written as a UUID: 8-4-4-4-12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
    text.len() == 36 && text.bytes().enumerate().all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// Whether `plan` is a bare scan of files or of memory: with a join, one row may cost all of them. With a filter a few rows may, too.
fn is_cheap(plan: &LogicalPlan, filtered: bool) -> bool {
    match plan {
        LogicalPlan::Projection(node) => is_cheap(&node.input, filtered),
        LogicalPlan::SubqueryAlias(node) => is_cheap(&node.input, filtered),
        LogicalPlan::Filter(node) => filtered && is_cheap(&node.input, filtered),
        LogicalPlan::Limit(node) => filtered && is_cheap(&node.input, filtered),
        LogicalPlan::TableScan(scan) => {
            (filtered || scan.filters.is_empty())
                && source_as_provider(&scan.source)
                    .is_ok_and(|p| p.downcast_ref::<ListingTable>().is_some() || p.downcast_ref::<MemTable>().is_some())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_uuid;

    #[test]
    fn uuids_are_told_by_their_form() {
        assert!(is_uuid("123e4567-e89b-12d3-a456-426614174000"));
        assert!(!is_uuid("123e4567-e89b-12d3-a456-42661417400") && !is_uuid("123e4567-e89b-12d3-a456_426614174000"));
        assert!(!is_uuid("zzze4567-e89b-12d3-a456-426614174000"));
    }
}
