//! Batches of one group's feature columns flow in, the group's sketch flows out.

use std::mem::size_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::scalar::ScalarValue;
use rayon::ThreadPool;

use super::NAME;
use super::call::Call;
use crate::arrow::array::{ArrayRef, Int64Array};
use crate::arrow::datatypes::{Field, Schema};
use crate::arrow::record_batch::RecordBatch;
use crate::error::Error;
use crate::extract::{self, Pool, PoolRecipe, Scaling};
use crate::options::{Options, PoolBytes};
use crate::rows::{Label, Layout, Rows, Shape};
use crate::sketch::{ClassSketch, Header, MICRO_BATCH, Origin, Sketcher, working_bytes};
use crate::sql::job::Job;
use crate::sql::union_agg::Union;

/// What the accumulators of one call share: the layout, the worker threads, the extractors.
#[derive(Debug)]
pub(super) struct Shared {
    job: Job,
    has_label: bool,
    /// For each feature in the layout's order, the argument that it is.
    order: Vec<usize>,
    /// The input scaling, which one pass can't find.
    scaling: Option<Scaling>,
    /// Made by the first row.
    sketcher: Mutex<Option<Arc<Sketcher>>>,
    /// Whether one of the groups counts the memory of the extractors as its own.
    counted: AtomicBool,
}

impl Shared {
    pub(super) fn new(call: Call, pool_bytes: Option<PoolBytes>) -> crate::Result<Self> {
        let (layout, options) = call.layout()?;
        let options = Options { pool_bytes, ..options };
        Ok(Self { has_label: call.has_label(), ..Self::of(layout, options)? })
    }

    /// What rows of `layout` need; `features` of the options are the arguments.
    pub(super) fn of(layout: Layout, options: Options) -> crate::Result<Self> {
        let arguments = options.features.clone().unwrap_or_default();
        let position = |name: &str| arguments.iter().position(|f| f == name).unwrap_or(0);
        let order = layout.features.iter().map(|f| position(layout.name_of(f))).collect();
        let job = Job::new(layout, options.for_a_sketch(), NAME.into(), Arc::default())?;
        let scaling = job.static_scaling()?;
        Ok(Self { job, has_label: true, order, scaling, sketcher: Mutex::default(), counted: AtomicBool::default() })
    }

    /// Refuses rows that take two passes.
    pub(super) fn check(&self) -> crate::Result<()> {
        self.known_scaling().map(|_| ())
    }

    /// The extractors for rows of `shape`. Never called on a worker thread: one that waits for its share of the work takes up another group's
    /// meanwhile, and would wait for the lock that it holds.
    fn sketcher(&self, shape: Shape, workers: &ThreadPool) -> crate::Result<Arc<Sketcher>> {
        let mut slot = self.sketcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sketcher) = slot.as_ref() {
            return Ok(Arc::clone(sketcher));
        }
        let options = &self.job.options;
        let recipe = PoolRecipe::choose_scaled(shape, self.known_scaling()?.clone(), options)?;
        let make = || {
            let pool = Pool::build_for(&recipe, &extract::device(&options.device)?, options)?;
            Sketcher::new(Arc::new(pool), options)
        };
        Ok(Arc::clone(slot.insert(Arc::new(workers.install(make)?))))
    }

    /// Bytes of the extractors, and of what they work in while a batch is taken up.
    fn bytes(&self, sketcher: &Sketcher) -> usize {
        let header = sketcher.header();
        let working = working_bytes(&header.recipe, header.frequencies, self.job.threads());
        header.recipe.network_bytes(false) + sketcher.bytes() + working
    }

    fn known_scaling(&self) -> crate::Result<&Scaling> {
        self.scaling.as_ref().ok_or_else(|| {
            let way = match self.job.layout.single() {
                Some(_) => "the lowest and the highest value of the lists, 'ranges': '0,16'",
                None => "those of all columns, 'ranges': 'age=0..100, sex=female|male'",
            };
            Error::option(
                "ranges",
                format!("{NAME} reads the rows once, and has to know their range before: give {way}, or a pool_file"),
            )
        })
    }

    /// The features of a batch as [`Job::decode_in_parallel`] takes them, with a label that nobody looks at.
    fn batch(&self, values: &[ArrayRef]) -> Result<RecordBatch> {
        let Some(rows) = values.first().map(|v| v.len()) else { return internal_err!("{NAME} without arguments") };
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        let columns: Vec<ArrayRef> = self.order.iter().map(|i| Arc::clone(&values[*i])).chain([labels]).collect();
        let field = |(i, c): (usize, &ArrayRef)| Field::new(i.to_string(), c.data_type().clone(), true);
        let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }

    fn header(&self, sketcher: &Sketcher) -> Header {
        let layout = &self.job.layout;
        let origin = if self.has_label { Origin::of(layout) } else { Origin::without_label(layout) };
        Header { origin: Some(origin), ..sketcher.header().clone() }
    }
}

/// One group: rows wait until there are enough for a micro-batch.
#[derive(Debug)]
pub(super) struct SketchAccumulator {
    shared: Arc<Shared>,
    sketcher: Option<Arc<Sketcher>>,
    waiting: Rows,
    /// Rows seen, for messages.
    seen: u64,
    own: Vec<ClassSketch>,
    /// Of other partitions.
    union: Union,
    /// Bytes of the extractors, where this group is the one of the call that counts them.
    extractors: Option<usize>,
}

impl SketchAccumulator {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let none = Rows { shape: Shape::Vector { len: 0 }, values: vec![], labels: vec![], exact: vec![], skipped: 0 };
        Self { shared, sketcher: None, waiting: none, seen: 0, own: vec![], union: Union::default(), extractors: None }
    }

    /// Counts the extractors here, unless another group does. The caller asks for [`Accumulator::size`] before and after an update alone, so it is
    /// only then that a group takes the count over from one that has ended.
    fn count_extractors(&mut self) {
        if let (Some(sketcher), None) = (&self.sketcher, self.extractors)
            && !self.shared.counted.swap(true, Ordering::Relaxed)
        {
            self.extractors = Some(self.shared.bytes(sketcher));
        }
    }

    /// Decodes a slice and folds the micro-batches that are full.
    fn add(&mut self, slice: &RecordBatch, workers: &ThreadPool) -> crate::Result<()> {
        let shared = Arc::clone(&self.shared);
        let table = match shared.job.layout.single() {
            Some(_) => None,
            None => Some(shared.known_scaling()?),
        };
        let expected = self.sketcher.as_ref().map(|s| s.header().recipe.shape);
        let (rows, _) = workers.install(|| shared.job.decode_in_parallel(slice, table, expected, self.seen))?;
        self.seen += slice.num_rows() as u64;
        if rows.is_empty() {
            return Ok(());
        }
        if self.sketcher.is_none() {
            let sketcher = shared.sketcher(rows.shape, workers)?;
            self.own.push(ClassSketch::empty(sketcher.header()));
            self.waiting.shape = rows.shape;
            self.sketcher = Some(sketcher);
        }
        self.waiting.values.extend(rows.values);
        self.waiting.labels.extend(rows.labels);
        self.waiting.exact.extend(rows.exact);
        let full = self.waiting.len() / MICRO_BATCH * MICRO_BATCH;
        workers.install(|| self.fold(full))
    }

    /// Folds the first `count` waiting rows.
    fn fold(&mut self, count: usize) -> crate::Result<()> {
        let Some(sketcher) = self.sketcher.as_ref().filter(|_| count > 0) else { return Ok(()) };
        let shape = self.waiting.shape;
        let exact_len = self.waiting.exact.len() / self.waiting.len();
        let exact = self.waiting.exact.drain(..count * exact_len).collect();
        let values = self.waiting.values.drain(..count * shape.len()).collect();
        let labels = self.waiting.labels.drain(..count).collect();
        let rows = Rows { shape, values, labels, exact, skipped: 0 };
        sketcher.fold(&rows, &vec![0; count], &mut self.own, &AtomicBool::new(false))?;
        Ok(())
    }

    /// Folds what waits, and puts everything into the union.
    fn flush(&mut self) -> Result<()> {
        let workers = self.shared.job.workers()?;
        workers.pool().install(|| self.fold(self.waiting.len()))?;
        if let (Some(sketcher), Some(own)) = (&self.sketcher, self.own.pop()) {
            self.own.push(ClassSketch::empty(sketcher.header()));
            if own.count > 0 {
                self.union.add(self.shared.header(sketcher), own)?;
            }
        }
        Ok(())
    }
}

impl Drop for SketchAccumulator {
    fn drop(&mut self) {
        if self.extractors.is_some() {
            self.shared.counted.store(false, Ordering::Relaxed);
        }
    }
}

impl Accumulator for SketchAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let batch = self.shared.batch(values)?;
        let workers = self.shared.job.workers()?;
        let shared = Arc::clone(&self.shared);
        for slice in shared.job.slices(&batch) {
            self.add(&slice, workers.pool()).map_err(|e| match e {
                Error::Row { row, column, message, .. } => {
                    Error::Row { place: format!("{NAME}: of a group, "), row, column, message }
                }
                other => other,
            })?;
        }
        self.count_extractors();
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.union.add_arrays(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.flush()?;
        self.union.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        let Rows { values, labels, exact, .. } = &self.waiting;
        let waiting = 4 * values.capacity() + labels.capacity() * size_of::<Label>() + exact.capacity();
        let own = self.own.iter().map(ClassSketch::bytes).sum::<usize>();
        size_of::<Self>() + waiting + own + self.union.bytes() + self.extractors.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::array::FixedSizeListArray;
    use crate::arrow::array::types::Float32Type;
    use crate::arrow::datatypes::DataType;

    fn shared() -> Arc<Shared> {
        let list = DataType::new_fixed_size_list(DataType::Float32, 2, true);
        let schema = Schema::new(vec![Field::new("x", list, true), Field::new("label", DataType::Int64, true)]);
        let mut options = Options::default();
        options.set_text("extractors=3 width=64 frequencies=128 ranges=0,9 threads=1 features=x").unwrap();
        Arc::new(Shared::of(Layout::infer(&Arc::new(schema), &options).unwrap(), options).unwrap())
    }

    fn rows(count: usize) -> ArrayRef {
        let row = |i: usize| Some([i as f32 % 10.0, 1.0].map(Some));
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..count).map(row), 2))
    }

    #[test]
    fn of_the_groups_of_a_call_one_counts_the_extractors_and_another_takes_them_over() {
        let shared = shared();
        let mut groups: Vec<_> = (0..3).map(|_| SketchAccumulator::new(Arc::clone(&shared))).collect();
        let empty = groups[0].size();
        groups.iter_mut().for_each(|group| group.update_batch(&[rows(10)]).unwrap());
        let sketcher = Arc::clone(groups[0].sketcher.as_ref().unwrap());
        // Each extractor has 64 features and 128 frequencies for each.
        let extractors = shared.bytes(&sketcher);
        assert!(extractors > 3 * 64 * 128 * 4, "{extractors}");
        let sizes = |groups: &[SketchAccumulator]| groups.iter().map(|g| g.size()).collect::<Vec<_>>();
        let [first, second, third] = sizes(&groups)[..] else { panic!() };
        assert_eq!((first, second), (third + extractors, third));
        assert!(third >= empty + ClassSketch::empty(sketcher.header()).bytes() + 10 * 2 * 4);
        // The group that counts them ends; another counts them with its next rows.
        groups.remove(0);
        assert_eq!(sizes(&groups), [second, third]);
        groups.iter_mut().rev().for_each(|group| group.update_batch(&[rows(1)]).unwrap());
        let counting: Vec<bool> = groups.iter().map(|g| g.size() >= extractors).collect();
        assert_eq!(counting, [false, true]);
    }
}
