//! A stream's schema and the options flow in; a distiller for it flows out.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::arrow::datatypes::SchemaRef;
use crate::error::{Error, Result};
use crate::extract::{self, PoolRecipe};
use crate::options::Options;
use crate::rows::{Decoder, Layout};
use crate::stream::StreamDistiller;
use crate::synthesize::output_schema;

/// Builds a [`StreamDistiller`].
#[derive(Clone, Debug)]
pub struct StreamDistillerBuilder {
    schema: SchemaRef,
    options: Options,
    workers: Option<Arc<ThreadPool>>,
    pub(super) memory_limit: Option<usize>,
}

impl StreamDistillerBuilder {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, options: Options::default(), workers: None, memory_limit: None }
    }

    /// The options, in place of all that was given before: those of `distill` in SQL, with the same defaults.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Option `seed`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// Option `device`: `auto`, `cpu`, `cuda`, `metal`.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.options.device = device.into();
        self
    }

    /// Option `threads`: how many to start; as many as there are cores by default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Threads to work on, in place of own ones: those of several streams, say.
    pub fn workers(mut self, workers: Arc<ThreadPool>) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Most bytes of memory to use, as estimated before they are; no limit by default.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Finds the columns' roles, by the rules of `distill`, and starts the threads. The extractors are made by the first rows.
    ///
    /// Fails for options that contradict each other or the columns, where no label or feature can be told, for a device that isn't there, and where the range of
    /// the numbers isn't known: a stream is read once, so lists and tables need option `ranges`, or a `pool_file` (a path; the bytes of one that lies elsewhere go into
    /// `Options::pool_bytes`). `warm_start`, `input`, further `passes` and a `pool` that is trained aren't for streams.
    pub fn build(self) -> Result<StreamDistiller> {
        for (name, given, instead) in [
            ("warm_start", self.options.warm_start.is_some(), "a stream starts from its own rows; leave it out"),
            (
                "pool",
                self.options.trains(),
                "a stream is read once; train extractors before, with distill pool create, for pool_file",
            ),
            ("passes", self.options.passes > 1, "a stream is read once, in one pass; leave it out"),
            ("input", self.options.input.is_some(), "push takes rows, merge takes sketches; leave it out"),
        ] {
            if given {
                return Err(Error::option(name, instead));
            }
        }
        self.options.check()?;
        extract::device(&self.options.device)?;
        let table = Layout::infer(&self.schema, &self.options)?.single().is_none();
        let options = self.options.clone().automatic(table).for_a_sketch();
        options.check()?;
        let (layout, decoder) = self.layout(&options)?;
        let scaling = PoolRecipe::known_scaling(&layout, &options)?.ok_or_else(|| {
            let way = if table {
                "those of all columns, 'age=0..100, sex=female|male'"
            } else {
                "the lowest and the highest value, '0,16'"
            };
            Error::option(
                "ranges",
                format!("a stream is read once, and its range has to be known before: give {way}, or a pool_file"),
            )
        })?;
        if table {
            scaling.of_table("the stream")?;
        }
        let workers = match &self.workers {
            Some(workers) => Arc::clone(workers),
            None => Arc::new(threads(options.threads)?),
        };
        Ok(StreamDistiller {
            schema: Arc::clone(&self.schema),
            output: output_schema(&layout, &options)?,
            layout,
            decoder,
            options,
            asked: self,
            scaling,
            workers,
            sketcher: None,
            sketches: None,
            holder: None,
            seen: 0,
        })
    }

    /// A layout that has seen no row, and its decoder.
    pub(super) fn layout(&self, options: &Options) -> Result<(Layout, Decoder)> {
        let layout = Layout::infer(&self.schema, options)?;
        let decoder = Decoder::new(&layout, options)?;
        Ok((layout, decoder))
    }
}

fn threads(count: Option<usize>) -> Result<ThreadPool> {
    let count = count.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let named = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("distill-stream-{i}"));
    named.build().map_err(|e| Error::option("threads", format!("{count} threads can't be started: {e}")))
}
