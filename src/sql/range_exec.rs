//! Rows flow in, the lowest and the highest of their numbers flow out: the scan before the one that sketches.
//!
//! The input scaling is part of the extractor and must be known before the first row goes through it. Where neither the
//! column's type nor `ranges` tells it, this operator finds it.

use std::fmt;
use std::sync::Arc;

use datafusion::common::cast::as_float32_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions, execute_stream,
};
use futures::StreamExt;

use super::job::{Job, only_child};
use crate::arrow::array::Float32Array;
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::arrow::record_batch::RecordBatch;

/// Finds the range of the feature column's numbers: at most one row `(low, high)` a partition.
#[derive(Debug)]
pub(super) struct RangeExec {
    job: Arc<Job>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RangeExec {
    /// `input` has the columns `[feature, label]`.
    pub(super) fn new(job: Arc<Job>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { job, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// The range of all rows that `plan`, a [`RangeExec`] or what an optimizer put on it, has to give; `None` of no rows.
pub(super) async fn find(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Option<(f32, f32)>> {
    let mut stream = execute_stream(plan, context)?;
    let mut range = None;
    while let Some(batch) = stream.next().await.transpose()? {
        let (low, high) = (as_float32_array(batch.column(0))?, as_float32_array(batch.column(1))?);
        for row in 0..batch.num_rows() {
            range = widen(range, &[low.value(row), high.value(row)]);
        }
    }
    Ok(range)
}

fn widen(range: Option<(f32, f32)>, values: &[f32]) -> Option<(f32, f32)> {
    values.iter().fold(range, |range, v| match range {
        None => Some((*v, *v)),
        Some((low, high)) => Some((low.min(*v), high.max(*v))),
    })
}

fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Float32, false);
    Arc::new(Schema::new(vec![field("low"), field("high")]))
}

impl DisplayAs for RangeExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let column = self.job.layout.schema.field(self.job.layout.feature).name();
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "RangeExec: column={column}"),
            DisplayFormatType::TreeRender => writeln!(f, "column={column}"),
        }
    }
}

impl ExecutionPlan for RangeExec {
    fn name(&self) -> &str {
        "RangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(Arc::clone(&self.job), only_child(children)?)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let rows_read = MetricBuilder::new(&self.metrics).counter("rows_read", partition);
        let job = Arc::clone(&self.job);
        let find = async move {
            let mut range = None;
            let mut first_row = 0;
            while let Some(batch) = input.next().await.transpose()? {
                rows_read.add(batch.num_rows());
                for slice in job.slices(&batch) {
                    let count = slice.num_rows() as u64;
                    let job_ = Arc::clone(&job);
                    let work = move || {
                        // Shapes may differ from slice to slice here: the scan that follows will tell, by file and row.
                        let rows = job_.decode(&slice, None, "", first_row)?;
                        Ok(widen(range, &rows.values))
                    };
                    range = job.run(work).await?;
                    first_row += count;
                }
            }
            let (low, high) = range.unzip();
            let column = |v: Option<f32>| Arc::new(Float32Array::from_iter_values(v)) as _;
            Ok(RecordBatch::try_new(schema(), vec![column(low), column(high)])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::once(find))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
