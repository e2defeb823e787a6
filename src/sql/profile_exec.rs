//! Rows flow in, what has to be known of the features before they can be scaled flows out: the scan before the one that sketches.
//!
//! The input scaling is part of the extractor and must be known before the first row goes through it. Where neither the
//! columns' types nor `ranges` nor a pool file tell it, this operator finds it: ranges, categories, a sample of the numbers.

use std::fmt;
use std::sync::Arc;

use datafusion::common::cast::as_string_array;
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use futures::StreamExt;

use super::in_turn;
use super::job::{Job, only_child};
use crate::arrow::array::StringArray;
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::rows::Profile;

/// Profiles the feature columns: one row a partition, the [`Profile`] as JSON.
#[derive(Debug)]
pub(super) struct ProfileExec {
    job: Arc<Job>,
    input: Arc<dyn ExecutionPlan>,
    /// Most partitions that are read at the same time.
    target_partitions: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ProfileExec {
    /// `input` has the features, then the label.
    pub(super) fn new(job: Arc<Job>, input: Arc<dyn ExecutionPlan>, target_partitions: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema()),
            Partitioning::UnknownPartitioning(in_turn::streams(&input, target_partitions)),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            job,
            input,
            target_partitions,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

/// The profile of all rows, from what `plan`, a [`ProfileExec`] or what an optimizer put on it, has to give.
pub(super) async fn find(job: Arc<Job>, plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Profile> {
    let mut stream = execute_stream(plan, context)?;
    let mut all = Profile::new(&job.layout);
    while let Some(batch) = stream.next().await.transpose()? {
        for text in as_string_array(batch.column(0))?.iter().flatten() {
            let part = serde_json::from_str(text)
                .map_err(|e| internal_datafusion_err!("a profile that can't be read: {e}"))?;
            all.merge(part);
        }
    }
    Ok(all)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("profile", DataType::Utf8, false)]))
}

impl DisplayAs for ProfileExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let layout = &self.job.layout;
        let columns: Vec<&str> = layout.features.iter().map(|f| layout.name_of(f)).collect();
        let columns = columns.join(", ");
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "ProfileExec: columns=[{columns}]"),
            DisplayFormatType::TreeRender => writeln!(f, "columns=[{columns}]"),
        }
    }
}

impl ExecutionPlan for ProfileExec {
    fn name(&self) -> &str {
        "ProfileExec"
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
        Ok(Arc::new(Self::new(Arc::clone(&self.job), only_child(children)?, self.target_partitions)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let streams = self.properties.partitioning.partition_count();
        let mut input = in_turn::read(&self.input, partition, streams, context);
        let rows_profiled = MetricBuilder::new(&self.metrics).counter("rows_profiled", partition);
        let job = Arc::clone(&self.job);
        let find = async move {
            let mut profile = Profile::new(&job.layout);
            while let Some(batch) = input.next().await.transpose()? {
                rows_profiled.add(batch.num_rows());
                for slice in job.slices(&batch) {
                    let job_ = Arc::clone(&job);
                    let work = move || {
                        job_.profile(&slice, &mut profile)?;
                        Ok(profile)
                    };
                    profile = job.run(work).await?;
                }
            }
            let text = serde_json::to_string(&profile).map_err(|e| internal_datafusion_err!("{e}"))?;
            let column = Arc::new(StringArray::from(vec![text])) as _;
            Ok(RecordBatch::try_new(schema(), vec![column])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), futures::stream::once(find))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
