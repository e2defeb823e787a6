//! A source that is cheap to look into flows in, the shape of its first row flows out, so that EXPLAIN can tell sizes.

use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;

use super::job::Job;
use crate::rows::Shape;

/// The shape of the first row of `input`, a source projected to what the job reads. `None` where finding it takes more than
/// reading one row of a file or of memory, or where that row can't be used: the run will say why.
pub(super) async fn first_shape(state: &SessionState, job: &Job, input: &LogicalPlan) -> Option<Shape> {
    if !is_cheap(input) {
        return None;
    }
    let first = LogicalPlanBuilder::from(input.clone()).limit(0, Some(1)).ok()?.build().ok()?;
    let plan = state.create_physical_plan(&first).await.ok()?;
    let batches = collect(plan, state.task_ctx()).await.ok()?;
    let batch = batches.iter().find(|b| b.num_rows() > 0)?;
    let rows = job.decode(batch, None, "", 0).ok()?;
    (!rows.is_empty()).then_some(rows.shape)
}

/// Whether `plan` is a bare scan of files or of memory: with a filter or a join, one row may cost all of them.
fn is_cheap(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(node) => is_cheap(&node.input),
        LogicalPlan::SubqueryAlias(node) => is_cheap(&node.input),
        LogicalPlan::TableScan(scan) => {
            scan.filters.is_empty()
                && source_as_provider(&scan.source)
                    .is_ok_and(|p| p.downcast_ref::<ListingTable>().is_some() || p.downcast_ref::<MemTable>().is_some())
        }
        _ => false,
    }
}
