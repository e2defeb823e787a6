//! A plan that writes what `distill` makes flows in; the same plan, which opens its file only when there are rows, flows out.
//!
//! DataFusion's sinks open the output before they ask for the first row, and close it properly when asking fails: a failed job
//! would leave an empty file that looks like a result, or replace yesterday's. The rows of `distill` come all at
//! once, at the end; so the sink is held back until the first of them is there.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use futures::StreamExt;

use super::distill_exec::DistillExec;
use crate::arrow::datatypes::SchemaRef;

/// Holds back the sinks over `distill`: of `COPY` and of `INSERT INTO`.
#[derive(Debug)]
pub(super) struct HoldSinks;

impl HoldSinks {
    pub(super) const NAME: &'static str = "distill_hold_sinks";
}

impl PhysicalOptimizerRule for HoldSinks {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let held = plan.transform_down(|node| {
            let Some(writer) = node.downcast_ref::<DataSinkExec>() else { return Ok(Transformed::no(node)) };
            if writer.sink().is::<HeldSink>() || !distils(writer.input()) {
                return Ok(Transformed::no(node));
            }
            let sink = Arc::new(HeldSink { writer: writer.clone() });
            let held = DataSinkExec::new(Arc::clone(writer.input()), sink, writer.sort_order().clone());
            Ok(Transformed::yes(Arc::new(held) as Arc<dyn ExecutionPlan>))
        })?;
        Ok(held.data)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn distils(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<DistillExec>().is_some() || plan.children().into_iter().any(distils)
}

/// The sink of `writer`, begun only when the first batch has come.
#[derive(Debug)]
struct HeldSink {
    writer: DataSinkExec,
}

impl DisplayAs for HeldSink {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.writer.sink().fmt_as(t, f)
    }
}

#[async_trait]
impl DataSink for HeldSink {
    fn metrics(&self) -> Option<MetricsSet> {
        self.writer.sink().metrics()
    }

    fn schema(&self) -> &SchemaRef {
        self.writer.sink().schema()
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        let schema = data.schema();
        let mut data = data.fuse();
        let first = data.next().await.transpose()?;
        let all = futures::stream::iter(first.map(Ok)).chain(data);
        self.writer.sink().write_all(Box::pin(RecordBatchStreamAdapter::new(schema, all)), context).await
    }
}
