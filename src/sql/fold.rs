//! One partition's batches flow in, one sketch a class flows out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, Time};
use futures::StreamExt;
use tokio::sync::{Mutex, OnceCell};

use super::job::{CancelOnDrop, Job, MAX_CLASSES};
use super::locate::Locator;
use super::profile_exec;
use super::progress::{Event, Notify};
use super::sample;
use crate::arrow::compute::concat_batches;
use crate::arrow::datatypes::SchemaRef;
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::extract::{self, Pool, PoolRecipe, Scaling};
use crate::pretrain;
use crate::rows::{Label, Rows, Shape};
use crate::sketch::{self, ClassSketch, Header, Origin, Sketcher, needs, working_bytes};

/// Most bytes of sketches in one output batch, where they are more than one: few, as they are there twice while a batch is made.
const OUTPUT_BYTES: usize = 2 << 20;

/// From so many classes on, memory that runs out is likely an id column's fault.
const MANY_CLASSES: usize = 1_000;

/// What the partitions of one operator share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The shape that the first row met had, and so all must have.
    shape: OnceLock<Shape>,
    scaling: OnceCell<Arc<Scaling>>,
    /// Weak: when the last partition is done, the optimizer needs the memory.
    tools: Mutex<Weak<Tools>>,
    sketched: AtomicU64,
}

/// The extractors and frequencies, accounted for once.
#[derive(Debug)]
struct Tools {
    sketcher: Sketcher,
    _reservation: MemoryReservation,
}

/// The fold of one partition.
pub(super) struct Fold {
    pub(super) job: Arc<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) context: Arc<TaskContext>,
    /// Finds how the features are scaled, where only a scan can.
    pub(super) profile: Option<Arc<dyn ExecutionPlan>>,
    /// The rows to train extractors on, where they are trained.
    pub(super) sample: Option<Arc<dyn ExecutionPlan>>,
    pub(super) locator: Option<Locator>,
    pub(super) schema: SchemaRef,
    pub(super) metrics: Metrics,
}

/// What a fold tells about itself.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    rows_read: Count,
    rows_sketched: Count,
    rows_skipped: Count,
    decode: Time,
    extract: Time,
    sketch: Time,
    peak: Gauge,
    output_rows: Count,
}

impl Metrics {
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let new = || MetricBuilder::new(set);
        Self {
            rows_read: new().counter("rows_read", partition),
            rows_sketched: new().counter("rows_sketched", partition),
            rows_skipped: new().counter("rows_skipped", partition),
            decode: new().subset_time("decode_time", partition),
            extract: new().subset_time("extract_time", partition),
            sketch: new().subset_time("sketch_time", partition),
            peak: new().peak_memory_usage("peak_reserved", partition),
            output_rows: new().output_rows(partition),
        }
    }
}

/// The classes seen so far and their sketches, which travel to the worker threads and back.
#[derive(Debug, Default)]
struct State {
    classes: BTreeMap<Label, usize>,
    sketches: Vec<ClassSketch>,
    /// Bytes of each sketch, and of all.
    bytes: Vec<usize>,
    total_bytes: usize,
}

impl State {
    /// The positions of the rows' classes; new ones get an empty sketch.
    fn positions(&mut self, sketcher: &Sketcher, labels: &[Label]) -> Vec<usize> {
        labels
            .iter()
            .map(|label| {
                if let Some(position) = self.classes.get(label) {
                    return *position;
                }
                let position = self.sketches.len();
                self.classes.insert(label.clone(), position);
                self.sketches.push(ClassSketch::empty(sketcher.header()));
                self.bytes.push(0);
                position
            })
            .collect()
    }

    fn weigh(&mut self, touched: impl IntoIterator<Item = usize>) {
        for position in touched {
            let now = self.sketches[position].bytes();
            self.total_bytes = self.total_bytes + now - self.bytes[position];
            self.bytes[position] = now;
        }
    }
}

impl Fold {
    /// Folds all of `input`, then returns its sketches, smallest label first.
    pub(super) async fn run(self, mut input: SendableRecordBatchStream) -> datafusion::error::Result<Vec<RecordBatch>> {
        let cancel = CancelOnDrop::default();
        let reservation = MemoryConsumer::new("Distill").register(self.context.memory_pool());
        let mut state = State::default();
        let mut tools = None;
        let mut first_row = 0;
        // Batches may be as short as one row (of a nested loop join), and a micro-batch costs the same however empty it is.
        let (mut waiting, mut rows) = (vec![], 0);
        loop {
            let next = input.next().await.transpose()?;
            let ended = next.is_none();
            if let Some(batch) = next {
                self.metrics.rows_read.add(batch.num_rows());
                self.check_classes(&state, &batch)?;
                rows += batch.num_rows();
                waiting.push(batch);
                if rows < self.job.slice_rows() {
                    continue;
                }
            }
            let batch = match &waiting[..] {
                [] => break,
                [one] => one.clone(),
                several => concat_batches(&several[0].schema(), several)?,
            };
            waiting.clear();
            rows = 0;
            for slice in self.job.slices(&batch) {
                let count = slice.num_rows() as u64;
                state = match self.fold(slice, first_row, state, &mut tools, &reservation, &cancel).await {
                    Ok(folded) => folded,
                    Err(error) => return Err(self.located(error).await),
                };
                first_row += count;
            }
            if ended {
                break;
            }
        }
        drop(input);
        self.emit(state, tools, &reservation).await
    }

    /// Decodes and folds one slice.
    async fn fold(
        &self,
        slice: RecordBatch,
        first_row: u64,
        mut state: State,
        tools: &mut Option<Arc<Tools>>,
        reservation: &MemoryReservation,
        cancel: &CancelOnDrop,
    ) -> Result<State> {
        let known = self.shared.shape.get().copied();
        let rows = self.decode(slice.clone(), known, first_row).await?;
        self.metrics.rows_skipped.add(rows.skipped as usize);
        if rows.is_empty() {
            return Ok(state);
        }
        let shape = *self.shared.shape.get_or_init(|| rows.shape);
        if rows.shape != shape {
            // Another partition's first row had another shape: decoding again with it gives the error its row.
            self.decode(slice, Some(shape), first_row).await?;
        }
        let tools = match tools {
            Some(tools) => Arc::clone(tools),
            None => Arc::clone(tools.insert(self.tools(shape).await?)),
        };
        let header = tools.sketcher.header();
        let working = working_bytes(&header.recipe, header.frequencies, self.job.threads());
        self.reserve(reservation, &state, working)?;

        let count = rows.len();
        let (cancel, shared, notify) = (cancel.flag(), Arc::clone(&self.shared), Notify::of(&self.context));
        let (state, times) = self
            .job
            .run(move || {
                let positions = state.positions(&tools.sketcher, &rows.labels);
                let times = tools.sketcher.fold(&rows, &positions, &mut state.sketches, &cancel)?;
                state.weigh(positions.into_iter().collect::<BTreeSet<_>>());
                let sketched = shared.sketched.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
                notify.send(Event::Sketched { rows: sketched });
                Ok((state, times))
            })
            .await?;
        self.metrics.rows_sketched.add(count);
        self.metrics.extract.add_duration(times.extract);
        self.metrics.sketch.add_duration(times.sketch);
        self.reserve(reservation, &state, 0)?;
        Ok(state)
    }

    async fn decode(&self, slice: RecordBatch, expected: Option<Shape>, first_row: u64) -> Result<Rows> {
        let job = Arc::clone(&self.job);
        let time = self.metrics.decode.clone();
        let scaling = self.table_scaling().await?;
        self.job
            .run(move || {
                let (rows, took) = job.decode_in_parallel(&slice, scaling.as_deref(), expected, first_row)?;
                time.add_duration(took);
                Ok(rows)
            })
            .await
    }

    /// The extractors that all partitions share, made by the first that has a row.
    async fn tools(&self, shape: Shape) -> Result<Arc<Tools>> {
        let mut shared = self.shared.tools.lock().await;
        if let Some(tools) = shared.upgrade() {
            return Ok(tools);
        }
        let scaling = self.scaling().await?;
        self.train(shape, &scaling).await?;
        let recipe = PoolRecipe::choose_scaled(shape, scaling.as_ref().clone(), self.job.pool_options())?;
        let bytes = needs::extractor_bytes(&recipe, &self.job.options);
        let reservation = MemoryConsumer::new("Distill extractors").register(self.context.memory_pool());
        reservation.try_grow(bytes).map_err(|e| {
            let advice = "give fewer extractors or frequencies, or a smaller width";
            Error::from(
                e.context(format!("distill: the extractors and their frequencies don't fit into memory; {advice}")),
            )
        })?;
        let job = Arc::clone(&self.job);
        let make = move || {
            let pool = Pool::build_for(&recipe, &extract::device(&job.options.device)?, job.pool_options())?;
            Ok(Tools { sketcher: Sketcher::new(Arc::new(pool), &job.options)?, _reservation: reservation })
        };
        let tools = Arc::new(self.job.run(make).await?);
        *shared = Arc::downgrade(&tools);
        Ok(tools)
    }

    /// Trains the extractors on a sample of the rows, by a scan of its own, where option `pool` says so.
    async fn train(&self, shape: Shape, scaling: &Arc<Scaling>) -> Result<()> {
        let Some(plan) = self.sample.clone().filter(|_| self.job.pool_options().trains()) else { return Ok(()) };
        let (sample, _reservation) = sample::of(&self.job, plan, Arc::clone(&self.context), scaling, shape).await?;
        let (job, scaling) = (Arc::clone(&self.job), Arc::clone(scaling));
        let train = move || {
            let recipe = PoolRecipe::choose_scaled(shape, scaling.as_ref().clone(), &job.options)?;
            let device = extract::device(&job.options.device)?;
            job.trained(&pretrain::pool(&recipe, &sample, &job.options, &device)?)
        };
        self.job.run(train).await
    }

    /// The input scaling, from the layout or from the scan before this one.
    async fn scaling(&self) -> Result<Arc<Scaling>> {
        let find = || async {
            if let Some(scaling) = self.job.static_scaling()? {
                return Ok(Arc::new(scaling));
            }
            let plan = self
                .profile
                .clone()
                .ok_or_else(|| Error::option("ranges", "the lowest and highest value aren't known; give 'low,high'"))?;
            let profile = profile_exec::find(Arc::clone(&self.job), plan, Arc::clone(&self.context)).await?;
            Ok(Arc::new(self.job.scaling_of(&profile)?))
        };
        self.shared.scaling.get_or_try_init(find).await.cloned()
    }

    /// What decoding needs to know of a table.
    async fn table_scaling(&self) -> Result<Option<Arc<Scaling>>> {
        match self.job.layout.single() {
            Some(_) => Ok(None),
            None => self.scaling().await.map(Some),
        }
    }

    /// Refuses a label column with too many values before their rows are sketched.
    fn check_classes(&self, state: &State, batch: &RecordBatch) -> Result<()> {
        let labels = self.job.labels(batch)?;
        let new: BTreeSet<&Label> = labels.iter().flatten().filter(|l| !state.classes.contains_key(l)).collect();
        too_many_classes(&self.job, state.classes.len() + new.len())
    }

    fn reserve(&self, reservation: &MemoryReservation, state: &State, working: usize) -> Result<()> {
        let classes = state.sketches.len();
        let reserved = reservation.try_resize(state.total_bytes + working);
        self.metrics.peak.set_max(reservation.size());
        reserved.map_err(|e| {
            let hint = if classes < MANY_CLASSES {
                String::new()
            } else {
                format!(" with {classes} distinct values of column '{}' so far: is it an id? Choose another by label => ...", self.job.label_name())
            };
            Error::from(e.context(format!("distill: the sketches of {} don't fit into memory{hint}", self.job.source)))
        })
    }

    /// `error` with the file and row it is about, if it is about a row.
    async fn located(&self, error: Error) -> datafusion::error::DataFusionError {
        match (error, &self.locator) {
            (error @ Error::Row { .. }, Some(locator)) => {
                let scaling = self.shared.scaling.get().cloned();
                locator.first_bad_row(&self.job, scaling, error).await.into()
            }
            (error, _) => error.into(),
        }
    }

    /// The sketches as batches of [`Job::sketch_schema`].
    async fn emit(
        &self,
        state: State,
        tools: Option<Arc<Tools>>,
        reservation: &MemoryReservation,
    ) -> datafusion::error::Result<Vec<RecordBatch>> {
        let Some(tools) = tools else { return Ok(vec![]) };
        let (job, schema) = (Arc::clone(&self.job), Arc::clone(&self.schema));
        let batches = self
            .job
            .run(move || {
                let header = Header { origin: Some(Origin::of(&job.layout)), ..tools.sketcher.header().clone() };
                let mut sketches: Vec<Option<ClassSketch>> = state.sketches.into_iter().map(Some).collect();
                let mut batches = vec![];
                let (mut labels, mut group, mut bytes) = (vec![], vec![], 0);
                let mut flush = |labels: &mut Vec<Label>, group: &mut Vec<ClassSketch>| -> Result<()> {
                    if !labels.is_empty() {
                        let class = Label::to_array(labels, job.label_type())?;
                        let sketch = Arc::new(sketch::to_array(&header, group)?);
                        batches.push(RecordBatch::try_new(Arc::clone(&schema), vec![class, sketch])?);
                        labels.clear();
                        group.clear();
                    }
                    Ok(())
                };
                for (label, position) in state.classes {
                    if bytes >= OUTPUT_BYTES {
                        flush(&mut labels, &mut group)?;
                        bytes = 0;
                    }
                    if let Some(sketch) = sketches.get_mut(position).and_then(Option::take) {
                        bytes += state.bytes[position];
                        labels.push(label);
                        group.push(sketch);
                    }
                }
                flush(&mut labels, &mut group)?;
                Ok(batches)
            })
            .await?;
        self.metrics.output_rows.add(batches.iter().map(RecordBatch::num_rows).sum());
        // From here on the aggregate above accounts for them.
        reservation.free();
        Ok(batches)
    }
}

/// The error of a source without rows.
pub(super) fn no_rows(job: &Job) -> Error {
    let filtered = match &job.options.classes {
        Some(classes) => format!(" of the classes {}", classes.join(", ")),
        None => String::new(),
    };
    Error::Data(format!("distill: {} has no rows{filtered}; there is nothing to distill", job.source))
}

/// Refuses more than [`MAX_CLASSES`] classes.
pub(super) fn too_many_classes(job: &Job, classes: usize) -> Result<()> {
    if classes <= MAX_CLASSES {
        return Ok(());
    }
    Err(Error::column(
        job.label_name(),
        format!(
            "more than {MAX_CLASSES} distinct labels; is it an id or a measurement? Choose the class column by label => ..., \
             or keep some classes by classes => [...]"
        ),
    ))
}
