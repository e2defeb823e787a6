//! A scan of the rows flows in, the sample that extractors are trained on flows out.

use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::job::Job;
use crate::error::Result;
use crate::extract::Scaling;
use crate::pretrain::Sample;
use crate::rows::Shape;

/// Rows of a class that extractors are trained on.
const PER_CLASS: usize = 1000;

/// The sample of `rows`, the features, then the label; each a `shape`.
pub(super) async fn of(
    job: &Arc<Job>,
    mut rows: SendableRecordBatchStream,
    scaling: &Scaling,
    shape: Shape,
) -> Result<Sample> {
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
            first_row += count;
        }
    }
    Ok(sample)
}
