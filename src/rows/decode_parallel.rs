//! One long batch flows in, its rows, decoded by the threads of the current rayon pool, flow out.

use std::time::Duration;

use cpu_time::ThreadTime;
use rayon::prelude::*;

use crate::arrow::record_batch::RecordBatch;
use crate::error::Result;
use crate::rows::{Decoder, Rows, Shape, TableScaling};

/// Fewest rows that are worth a decoding task of their own.
const DECODE_ROWS: usize = 16;

impl Decoder {
    /// [`Decoder::decode`] of a batch of the features, in the layout's order, then the label, on the current rayon pool; with the CPU time it took.
    ///
    /// The rows and the errors are those of one decode, for any number of threads.
    pub fn decode_in_parallel(
        &self,
        batch: &RecordBatch,
        scaling: Option<&TableScaling>,
        expected: Option<Shape>,
        place: &str,
        first_row: u64,
    ) -> Result<(Rows, Duration)> {
        let step = batch.num_rows().div_ceil(rayon::current_num_threads()).max(DECODE_ROWS);
        let starts: Vec<usize> = (0..batch.num_rows()).step_by(step).collect();
        let parts: Vec<(Rows, Duration)> = starts
            .into_par_iter()
            .map(|start| {
                let begin = ThreadTime::try_now().ok();
                let part = batch.slice(start, step.min(batch.num_rows() - start));
                let rows = self.decode(part.columns(), scaling, expected, place, first_row + start as u64)?;
                Ok((rows, begin.and_then(|begin| begin.try_elapsed().ok()).unwrap_or_default()))
            })
            .collect::<Result<_>>()?;
        let shape = parts.iter().find(|(part, _)| !part.is_empty()).map(|(part, _)| part.shape);
        if parts.iter().any(|(part, _)| !part.is_empty() && Some(part.shape) != shape) {
            // Sizes differ between the parts: one decode of them all gives the error its row.
            return Ok((self.decode(batch.columns(), scaling, expected, place, first_row)?, Duration::ZERO));
        }
        let none = Shape::Vector { len: 0 };
        let shape = shape.or(expected).unwrap_or(none);
        let mut all = Rows { shape, values: vec![], labels: vec![], exact: vec![], skipped: 0 };
        let mut time = Duration::ZERO;
        for (part, took) in parts {
            all.values.extend(part.values);
            all.labels.extend(part.labels);
            all.exact.extend(part.exact);
            all.skipped += part.skipped;
            time += took;
        }
        Ok((all, time))
    }
}
