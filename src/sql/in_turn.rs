//! An input of many partitions flows in, a few streams that read them one after the other flow out.
//!
//! A `UNION ALL` of a hundred files has a hundred partitions: read all at once, memory would grow with them.

use std::sync::Arc;

use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, TryStreamExt};

/// How many streams read `input` where at most `target_partitions` may.
pub(super) fn streams(input: &Arc<dyn ExecutionPlan>, target_partitions: usize) -> usize {
    input.output_partitioning().partition_count().min(target_partitions.max(1))
}

/// The `stream`th of so many `streams`.
pub(super) fn read(
    input: &Arc<dyn ExecutionPlan>,
    stream: usize,
    streams: usize,
    context: Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let (input, schema) = (Arc::clone(input), input.schema());
    let turns = (stream..input.output_partitioning().partition_count()).step_by(streams);
    let batches = futures::stream::iter(turns).map(move |turn| input.execute(turn, Arc::clone(&context))).try_flatten();
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}
