//! A physical plan flows in; the same, in which no sketch is of rows that never end, flows out, or the reason why not.
//!
//! DataFusion refuses an aggregate over endless rows itself, as a query that breaks a pipeline, which names neither the source nor what to do; and it refuses one
//! over a `LIMIT` that it has pushed into the scan, since the scan stays marked as endless.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::plan_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::{sketch_agg, union_agg};

/// Refuses `distill_sketch_agg` and `distill_union_agg` over endless rows, and lets them pass where a `LIMIT` ends them. Groups that end while the rows go on, since these come
/// sorted by them, pass as they are.
#[derive(Debug)]
pub(super) struct EndlessSketches;

impl EndlessSketches {
    pub(super) const NAME: &'static str = "distill_endless_sketches";
    /// DataFusion's own check, which has to come after.
    pub(super) const BEFORE: &'static str = "SanityCheckPlan";
}

impl PhysicalOptimizerRule for EndlessSketches {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let Some(function) = sketches(&node) else { return Ok(Transformed::no(node)) };
            if !node.boundedness().is_unbounded() || node.pipeline_behavior() != EmissionType::Final {
                return Ok(Transformed::no(node));
            }
            if node.children().into_iter().any(is_endless) {
                return plan_err!(
                    "{function}: its rows are an endless stream, of which the sketch would never be done; put a LIMIT into the source: \
                     SELECT label, {function}(...) FROM (SELECT * FROM ... LIMIT 100000) GROUP BY label; or sketch the stream in a program, with \
                     datafusion_distill::stream"
                );
            }
            bounded(node).map(Transformed::yes)
        })
        .data()
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether the rows of `plan` never end. A limit that the optimizer has pushed into an endless scan leaves it marked as endless.
pub(super) fn is_endless(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    plan.boundedness().is_unbounded()
        && plan.fetch().is_none()
        && (children.is_empty() || children.into_iter().any(is_endless))
}

/// Whether some rows of `plan` come from a stream, even if a limit ends it.
pub(super) fn reads_a_stream(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.boundedness().is_unbounded() || plan.children().into_iter().any(reads_a_stream)
}

/// The first aggregate of sketches in an aggregation.
fn sketches(node: &Arc<dyn ExecutionPlan>) -> Option<&'static str> {
    let aggregate = node.downcast_ref::<AggregateExec>()?;
    let mut names = aggregate.aggr_expr().iter().map(|call| call.fun().name());
    names.find_map(|name| [sketch_agg::NAME, union_agg::NAME].into_iter().find(|ours| *ours == name))
}

/// The same plan, with the limits inside it said once more by a node that is marked as ending.
fn bounded(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let limit = node.fetch().filter(|_| node.boundedness().is_unbounded());
        Ok(match limit {
            Some(limit) => Transformed::yes(Arc::new(LocalLimitExec::new(node, limit)) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    })
    .data()
}
