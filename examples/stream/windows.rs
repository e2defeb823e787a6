//! An Arrow IPC stream of rows flows in; one of synthetic rows flows out: a few of each class for every so many rows.

use std::error::Error;
use std::io::{Read, Write};
use std::num::NonZeroUsize;

use datafusion_distill::arrow::ipc::reader::StreamReader;
use datafusion_distill::arrow::ipc::writer::StreamWriter;
use datafusion_distill::arrow::record_batch::RecordBatch;
use datafusion_distill::stream::{StreamDistiller, StreamDistillerBuilder};

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Windows distilled.
    pub windows: usize,
    /// Rows read.
    pub rows: usize,
    /// Synthetic rows written.
    pub written: usize,
}

/// Distills each `every` rows of `input`, and the rest at its end, and writes one batch for each; `configure` sets options, threads and the memory limit.
///
/// **Back-pressure**: a batch is read when the one before it has been worked in, and rows are written when they are made; nothing is buffered but that batch. So `input` is
/// read only as fast as the work and `output` go. **Memory** is that of one batch and of [`StreamDistiller`], which keeps its extractors from window to window.
///
/// The first error ends it, and names the window. `output` then has what was made of the windows before, as a stream that ends properly.
pub fn distill_windows(
    input: impl Read,
    output: impl Write,
    every: NonZeroUsize,
    configure: impl FnOnce(StreamDistillerBuilder) -> StreamDistillerBuilder,
) -> Result<Done, Box<dyn Error>> {
    let mut output = output;
    let batches = StreamReader::try_new(input, None).map_err(|e| {
        format!(
            "the input is no Arrow IPC stream ({e}); write one with pyarrow.ipc.new_stream, polars' write_ipc_stream or arrow's StreamWriter; a \
             file of the IPC file format (.arrow, Feather) is another format"
        )
    })?;
    let mut distiller = configure(StreamDistiller::builder(batches.schema())).build()?;
    let mut writer = StreamWriter::try_new(&mut output, &distiller.output_schema())?;
    writer.flush()?;
    let mut windows = Windows { every: every.get(), distiller: &mut distiller, filled: 0, done: Done::default() };
    let result = windows.run(batches, &mut writer);
    let done = windows.done;
    writer.finish()?;
    result.map(|()| done)
}

struct Windows<'a> {
    every: usize,
    distiller: &'a mut StreamDistiller,
    /// Rows of the window that is being filled.
    filled: usize,
    done: Done,
}

impl Windows<'_> {
    fn run<R: Read, W: Write>(
        &mut self,
        batches: StreamReader<R>,
        writer: &mut StreamWriter<W>,
    ) -> Result<(), Box<dyn Error>> {
        for batch in batches {
            let batch = batch.map_err(|e| format!("after {} rows the input can't be read: {e}", self.done.rows))?;
            let mut start = 0;
            while start < batch.num_rows() {
                let rows = (self.every - self.filled).min(batch.num_rows() - start);
                self.take_in(&batch.slice(start, rows))?;
                start += rows;
                if self.filled == self.every {
                    self.emit(writer)?;
                }
            }
        }
        if self.filled > 0 { self.emit(writer) } else { Ok(()) }
    }

    fn take_in(&mut self, rows: &RecordBatch) -> Result<(), Box<dyn Error>> {
        self.filled += rows.num_rows();
        self.done.rows += rows.num_rows();
        self.distiller.push(rows).map_err(|e| self.located(e))?;
        Ok(())
    }

    fn emit<W: Write>(&mut self, writer: &mut StreamWriter<W>) -> Result<(), Box<dyn Error>> {
        let rows = self.distiller.distill().map_err(|e| self.located(e))?;
        writer.write(&rows)?;
        writer.flush()?;
        self.done.windows += 1;
        self.done.written += rows.num_rows();
        self.distiller.clear();
        self.filled = 0;
        Ok(())
    }

    fn located(&self, error: datafusion_distill::Error) -> Box<dyn Error> {
        let (last, first) = (self.done.rows, self.done.rows - self.filled);
        format!("window {} (from row {first} to before row {last}): {error}", self.done.windows + 1).into()
    }
}
