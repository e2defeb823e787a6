//! What all operators of one job share: its layout, options and worker threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::common::internal_datafusion_err;
use datafusion::physical_plan::ExecutionPlan;
use rand::Rng;

use super::cpu::pool_time;
use super::workers::{Place, WorkerPools, Workers};
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::extract::{Pool, PoolRecipe, Scaling};
use crate::options::{Method, Options};
use crate::rows::{Decoder, Layout, Profile, Role, Rows, Shape, TableScaling};
pub(super) use crate::sketch::MAX_CLASSES;
use crate::sketch::MICRO_BATCH;
use crate::{extract, random, sketch};

/// Positions in the operators' own batches, `[class, sketch]`.
pub(super) const CLASS: usize = 0;
/// See [`CLASS`].
pub(super) const SKETCH: usize = 1;

/// One call of `distill`.
#[derive(Debug)]
pub(super) struct Job {
    /// The columns' roles.
    pub(super) layout: Layout,
    /// The options, with the method that `auto` stands for.
    pub(super) options: Options,
    /// The method that was asked for.
    asked: Method,
    /// The source's name in messages.
    pub(super) source: String,
    decoder: Decoder,
    /// The pass that sketches by it; the first is 1.
    pub(super) pass: usize,
    /// The options with the extractors that were trained, on the source's rows or on synthetic ones, from then on.
    trained: OnceLock<Options>,
    /// The session's worker threads.
    pools: Arc<WorkerPools>,
    workers: OnceLock<Arc<Workers>>,
    place: Place,
}

impl Job {
    pub(super) fn new(layout: Layout, options: Options, source: String, pools: Arc<WorkerPools>) -> Result<Self> {
        // A device that isn't there is an error of the query, not of its run.
        extract::device(&options.device)?;
        let asked = options.method;
        let options = options.automatic(layout.single().is_none());
        options.check()?;
        let decoder = Decoder::new(&layout, &options)?;
        let (workers, place, trained) = (OnceLock::new(), Place::default(), OnceLock::new());
        if options.passes > 1 && layout.single().is_none() {
            let message = "is for pictures, and the rows are those of a table; leave it out";
            return Err(Error::option("passes", message));
        }
        Ok(Self { layout, options, asked, source, decoder, pass: 1, trained, pools, workers, place })
    }

    /// The same job in pass `pass`, 2 or later: its draws are of a seed of its own, and its extractors are made when the pass before is done.
    pub(super) fn further(&self, pass: usize) -> Result<Self> {
        // Seeds are whole numbers that SQL can write.
        let seed = random::stream(self.options.seed, &format!("pass {pass}")).random::<u64>() >> 1;
        let options = Options { seed, ..self.options.clone() };
        let further = Self::new(self.layout.clone(), options, self.source.clone(), Arc::clone(&self.pools))?;
        Ok(Self { pass, ..further })
    }

    /// The options that extractors are built by: with those that were trained, once they are.
    pub(super) fn pool_options(&self) -> &Options {
        self.trained.get().unwrap_or(&self.options)
    }

    /// Keeps the extractors that were trained, for all that follows.
    pub(super) fn trained(&self, pool: &Pool) -> Result<()> {
        let name = match self.pass {
            1 => format!("pool => '{}'", self.options.pool),
            pass => format!("passes => {}, pass {pass}", self.options.passes),
        };
        let options = self.options.with_trained(pool.to_bytes()?, name);
        self.trained.get_or_init(|| options);
        Ok(())
    }

    /// The schema of the rows between extract and optimize: a class and its sketch.
    pub(super) fn sketch_schema(&self) -> SchemaRef {
        let label = self.layout.schema.field(self.layout.label).data_type().clone();
        let class = Field::new("class", label, false);
        Arc::new(Schema::new(vec![class, Field::new("sketch", sketch::data_type(), true)]))
    }

    /// The type of the label column.
    pub(super) fn label_type(&self) -> &DataType {
        self.layout.schema.field(self.layout.label).data_type()
    }

    /// The name of the label column.
    pub(super) fn label_name(&self) -> &str {
        self.layout.schema.field(self.layout.label).name()
    }

    /// The labels of a projected batch, for a look before it is decoded.
    pub(super) fn labels(&self, batch: &RecordBatch) -> Result<Vec<Option<crate::rows::Label>>> {
        match batch.columns().last() {
            Some(labels) => crate::rows::Label::from_array(self.label_name(), labels),
            None => Ok(vec![]),
        }
    }

    /// Rows that are decoded at a time: a micro-batch for each thread.
    pub(super) fn slice_rows(&self) -> usize {
        MICRO_BATCH * self.threads()
    }

    /// `batch` in slices of as many micro-batches as there are threads to take one each: what is decoded at a time.
    pub(super) fn slices(&self, batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + Send + use<> {
        let (batch, step) = (batch.clone(), self.slice_rows());
        let starts = (0..batch.num_rows()).step_by(step);
        starts.map(move |start| batch.slice(start, step.min(batch.num_rows() - start)))
    }

    /// The input scaling, where a pool file, the options or the column's type tell it; `None`: a scan has to find it.
    pub(super) fn static_scaling(&self) -> Result<Option<Scaling>> {
        PoolRecipe::known_scaling(&self.layout, self.pool_options())
    }

    /// The input scaling that `profile`, of all rows, asks for.
    pub(super) fn scaling_of(&self, profile: &Profile) -> Result<Scaling> {
        match self.layout.single() {
            Some(_) => Scaling::for_range(profile.range().ok_or_else(|| super::fold::no_rows(self))?),
            None => Ok(Scaling::Table(profile.scaling(&self.layout, &self.options)?)),
        }
    }

    /// Adds a projected batch to `profile`.
    pub(super) fn profile(&self, batch: &RecordBatch, profile: &mut Profile) -> Result<()> {
        self.decoder.profile(batch.columns(), profile)
    }

    /// Decodes a projected batch (the features, then the label), row by row; a table by its scaling.
    pub(super) fn decode(
        &self,
        batch: &RecordBatch,
        scaling: Option<&Scaling>,
        expected: Option<Shape>,
        place: &str,
        first_row: u64,
    ) -> Result<Rows> {
        self.decoder.decode(batch.columns(), self.table(scaling)?, expected, place, first_row)
    }

    /// Decodes a projected batch on the current rayon pool; with the CPU time it took.
    pub(super) fn decode_in_parallel(
        &self,
        batch: &RecordBatch,
        scaling: Option<&Scaling>,
        expected: Option<Shape>,
        first_row: u64,
    ) -> Result<(Rows, Duration)> {
        self.decoder.decode_in_parallel(batch, self.table(scaling)?, expected, "", first_row)
    }

    /// The scaling as that of a table, if the source is one.
    fn table<'a>(&self, scaling: Option<&'a Scaling>) -> Result<Option<&'a TableScaling>> {
        if let (None, Some(scaling)) = (self.layout.single(), scaling) {
            return scaling.of_table(&self.source).map(Some);
        }
        Ok(scaling.and_then(Scaling::table))
    }

    /// Each column's role and the reason, as EXPLAIN shows them.
    pub(super) fn roles(&self) -> String {
        let shown = self.layout.columns.iter().map(|column| {
            let role = match column.role {
                Role::Label => "label",
                Role::Feature => "feature",
                Role::Carried => "carried",
                Role::Excluded => "excluded",
            };
            format!("{}: {role} ({})", column.name, column.reason)
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// The method, and that it was chosen, as EXPLAIN shows it.
    pub(super) fn method(&self) -> String {
        self.options.method.chosen_from(self.asked)
    }

    /// Threads that the job's work runs on.
    pub(super) fn threads(&self) -> usize {
        self.options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// The job's worker threads, started by the first call: planning and EXPLAIN start none.
    pub(super) fn workers(&self) -> Result<Arc<Workers>> {
        if let Some(workers) = self.workers.get() {
            return Ok(Arc::clone(workers));
        }
        let workers = self.pools.get(self.threads())?;
        Ok(Arc::clone(self.workers.get_or_init(|| workers)))
    }

    /// Runs `work` on the job's worker threads, when it is its turn: the query engine's own threads stay free for input and output.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let workers = self.workers()?;
        let turn = self.place.turn(&workers).await;
        workers.run(turn, work).await
    }

    /// [`Job::run`], with the CPU time that the worker threads took.
    pub(super) async fn run_timed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(T, Duration)> {
        let workers = self.workers()?;
        let turn = self.place.turn(&workers).await;
        let before = pool_time(workers.pool());
        let done = workers.run(Arc::clone(&turn), work).await?;
        Ok((done, pool_time(workers.pool()).saturating_sub(before)))
    }
}

/// The one child that an optimizer hands back to an operator with one child.
pub(super) fn only_child(children: Vec<Arc<dyn ExecutionPlan>>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let count = children.len();
    let [child] =
        <[_; 1]>::try_from(children).map_err(|_| internal_datafusion_err!("expected one child, found {count}"))?;
    Ok(child)
}

/// Tells the work of a stream to stop when the stream is dropped.
#[derive(Debug, Default)]
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// The flag to look at.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rayon::prelude::*;

    use super::*;

    #[tokio::test]
    async fn work_runs_on_the_jobs_own_threads_and_a_panic_in_it_is_an_error() {
        let options = Options { threads: Some(2), ..Default::default() };
        let schema = Arc::new(Schema::new(vec![
            Field::new("image", DataType::Binary, true),
            Field::new("label", DataType::Int64, true),
        ]));
        let layout = Layout::infer(&schema, &options).unwrap();
        let job = Job::new(layout, options, "t".into(), Arc::default()).unwrap();
        let name = || std::thread::current().name().map(str::to_string);
        let names =
            job.run(move || Ok((0..256).into_par_iter().map(|_| name()).collect::<BTreeSet<_>>())).await.unwrap();
        let own: BTreeSet<_> = ["distill-0", "distill-1"].map(|name| Some(name.to_string())).into();
        assert!(!names.is_empty() && names.is_subset(&own), "{names:?}");
        assert_eq!(job.workers().unwrap().pool().current_num_threads(), 2);

        let error = job.run::<()>(|| panic!("boom")).await.unwrap_err();
        assert!(error.to_string().contains("distill panicked, please report it: boom"), "{error}");
    }
}
