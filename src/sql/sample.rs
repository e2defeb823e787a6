//! A scan of the rows flows in, the sample that extractors are trained on flows out.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use super::fold::too_many_classes;
use super::job::Job;
use crate::error::{Error, Result};
use crate::extract::Scaling;
use crate::pretrain::Sample;
use crate::rows::Shape;

/// Rows of a class that extractors are trained on.
const PER_CLASS: usize = 1000;

/// The sample of the rows of `plan`, the features, then the label; each a `shape`. Its memory is reserved, as long as the reservation lives.
pub(super) async fn of(
    job: &Arc<Job>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    scaling: &Scaling,
    shape: Shape,
) -> Result<(Sample, MemoryReservation)> {
    let reservation = MemoryConsumer::new("Distill sample").register(context.memory_pool());
    let mut rows = execute_stream(plan, context)?;
    let mut sample = Sample::new(PER_CLASS, job.options.seed);
    let scaling = Arc::new(scaling.clone());
    let mut first_row = 0;
    while let Some(batch) = rows.next().await.transpose()? {
        for slice in job.slices(&batch) {
            let (job_, scaling, count) = (Arc::clone(job), Arc::clone(&scaling), slice.num_rows() as u64);
            let decode = move || {
                let (rows, _) = job_.decode_in_parallel(&slice, Some(&scaling), Some(shape), first_row)?;
                sample.offer(&rows);
                Ok(sample)
            };
            sample = job.run(decode).await?;
            too_many_classes(job, sample.classes())?;
            let reserved = reservation.try_resize(sample.bytes());
            reserved.map_err(|e| {
                Error::from(e.context("distill: the rows to train extractors on don't fit into memory; use pool => 'random', or a pool_file"))
            })?;
            first_row += count;
        }
    }
    Ok((sample, reservation))
}
