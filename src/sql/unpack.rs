//! The call `unpack(source)` in a FROM clause flows in, a relation of the pictures that the source's pictures hold flows out.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use super::job::only_child;
use super::lineage::schema_with_metadata;
use super::provenance::weight_column;
use super::source::scans;
use crate::arrow::datatypes::SchemaRef;
use crate::rows::{MOSAIC, MOST_PER_SIDE, Unpacker};

/// Most rows that are decoded at a time, counted as they come out.
const ROWS_AT_ONCE: usize = 4096;

/// The rows that those of `input` decode to.
#[derive(Debug)]
pub(super) struct UnpackTable {
    input: LogicalPlan,
    /// The source's name in messages.
    name: Arc<str>,
    unpacker: Arc<Unpacker>,
}

impl UnpackTable {
    /// `side` pictures a side in each of `source`'s; `None`: what the file that they come from says, or the job that makes them.
    pub(super) async fn try_new(
        state: &SessionState,
        source: LogicalPlan,
        name: String,
        side: Option<usize>,
    ) -> Result<Self> {
        let schema = schema_with_metadata(state, &source, &scans(state, &source).await?).await?;
        let unpacker = Unpacker::new(&schema, side, weight_column(&schema).as_deref());
        let unpacker = Arc::new(unpacker.map_err(|e| DataFusionError::Plan(e.to_string()))?);
        Ok(Self { input: source, name: name.into(), unpacker })
    }
}

#[async_trait]
impl TableProvider for UnpackTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.unpacker.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = state.create_physical_plan(&self.input).await?;
        let unpack = UnpackExec::new(input, Arc::clone(&self.name), Arc::clone(&self.unpacker));
        let Some(projection) = projection else { return Ok(Arc::new(unpack)) };
        let schema = self.schema();
        let column = |i: &usize| {
            let name = schema.field(*i).name();
            ProjectionExpr::new(Arc::new(Column::new(name, *i)) as Arc<dyn PhysicalExpr>, name.clone())
        };
        Ok(Arc::new(ProjectionExec::try_new(projection.iter().map(column).collect::<Vec<_>>(), Arc::new(unpack))?))
    }
}

/// Decodes its input's pictures, batch by batch.
#[derive(Debug)]
struct UnpackExec {
    input: Arc<dyn ExecutionPlan>,
    name: Arc<str>,
    unpacker: Arc<Unpacker>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl UnpackExec {
    fn new(input: Arc<dyn ExecutionPlan>, name: Arc<str>, unpacker: Arc<Unpacker>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(unpacker.schema())),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, name, unpacker, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for UnpackExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.unpacker.count().map_or_else(|| format!("by {MOSAIC}"), |count| count.to_string());
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "UnpackExec: rows_each={count}"),
            DisplayFormatType::TreeRender => writeln!(f, "rows_each={count}"),
        }
    }
}

impl ExecutionPlan for UnpackExec {
    fn name(&self) -> &str {
        "UnpackExec"
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
        Ok(Arc::new(Self::new(only_child(children)?, Arc::clone(&self.name), Arc::clone(&self.unpacker))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (name, unpacker) = (Arc::clone(&self.name), Arc::clone(&self.unpacker));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let stored = MetricBuilder::new(&self.metrics).counter("rows_stored", partition);
        let mut first_row = 0;
        let unpacked = input.map_ok(move |batch| {
            let (first, size) = (first_row, (ROWS_AT_ONCE / unpacker.count().unwrap_or(MOST_PER_SIDE.pow(2))).max(1));
            first_row += batch.num_rows() as u64;
            stored.add(batch.num_rows());
            let (name, unpacker, metrics) = (Arc::clone(&name), Arc::clone(&unpacker), metrics.clone());
            let parts = (0..batch.num_rows()).step_by(size).map(move |start| {
                let part = batch.slice(start, size.min(batch.num_rows() - start));
                let _timer = metrics.elapsed_compute().timer();
                let unpacked = unpacker.unpack(&part, &format!("{name}, "), first + start as u64)?;
                Ok::<_, DataFusionError>(unpacked.record_output(&metrics))
            });
            futures::stream::iter(parts)
        });
        let schema = Arc::clone(self.unpacker.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, unpacked.try_flatten().boxed())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
