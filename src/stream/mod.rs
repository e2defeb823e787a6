//! Batches and sketches flow in; sketches and synthetic rows flow out: distillation for a stream processor, which brings its own engine.
//!
//! [`StreamDistiller`] is the sketch of a stream's rows as they come. What it makes is what SQL makes: a [snapshot](StreamDistiller::snapshot) is what
//! `SELECT label, distill_sketch_agg(...) AS sketch FROM t GROUP BY label` gives of the same rows with the same options, bit for bit, and what any of the two
//! makes the other [merges](StreamDistiller::merge).
//!
//! ```
//! use std::sync::Arc;
//!
//! use datafusion_distill::arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, types::Float32Type};
//! use datafusion_distill::arrow::array::FixedSizeListArray;
//! use datafusion_distill::options::{Options, Value};
//! use datafusion_distill::stream::StreamDistiller;
//!
//! # fn main() -> datafusion_distill::Result<()> {
//! // Batches of a stream: two numbers and a label.
//! let batch = |from: i64| {
//!     let row = |i: i64| Some([(i % 2 * 6) as f32, (i % 5) as f32].map(Some));
//!     let xy = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((from..from + 100).map(row), 2);
//!     let label = Int64Array::from_iter_values((from..from + 100).map(|i| i % 2));
//!     RecordBatch::try_from_iter([("xy", Arc::new(xy) as ArrayRef), ("label", Arc::new(label) as ArrayRef)])
//! };
//!
//! let mut options = Options::default();
//! options.set_text("ipc=2 ranges='0,10' extractors=2 width=16 frequencies=64 steps=20")?;
//! let mut stream = StreamDistiller::builder(batch(0)?.schema()).options(options).seed(7).threads(2).build()?;
//! stream.push(&batch(0)?)?;
//!
//! // Another worker's sketch of other rows, which may come from a file or over a network.
//! let mut other = stream.like()?;
//! other.push(&batch(100)?)?;
//! stream.merge(&other.snapshot()?)?;
//! assert_eq!(stream.rows(), 200);
//!
//! let small = stream.distill()?;
//! assert_eq!((small.num_rows(), small.schema()), (4, batch(0)?.schema()));
//!
//! stream.clear(); // the next window
//! # Ok(())
//! # }
//! ```
//!
//! **Memory** is bounded, whatever the number of rows: the extractors, one sketch a class ([`ClassSketch::bytes_of`], at most [`MAX_CLASSES`] of them), as much again
//! for the classes of the batch that is being taken up, and one decoded slice of it of [`MICRO_BATCH`] rows a thread. [`memory_limit`](StreamDistillerBuilder::memory_limit)
//! makes more than so many bytes an error, before they are used.
//!
//! **Errors** leave the sketch as it was: of a batch or a snapshot that can't be used nothing is taken up, and the next one can be.
//!
//! **Time**: a call returns when its work is done, so that who calls it can't run ahead of it. It works on threads of its own, and blocks the one that calls: from
//! asynchronous code call it where blocking is allowed (tokio's `spawn_blocking`). A batch of one row costs an extractor as much as one of [`MICRO_BATCH`]: push
//! batches of at least as many rows as that for each thread.

mod builder;
mod incoming;

pub use builder::StreamDistillerBuilder;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::ThreadPool;

use crate::arrow::array::ArrayRef;
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::extract::{self, Pool, PoolRecipe, Scaling};
use crate::options::{Moments, Options};
use crate::rows::{Decoder, Label, Layout, Rows, Shape};
use crate::sketch::{
    self, ClassSketch, Header, MAX_CLASSES, MICRO_BATCH, MomentsHeader, Origin, Sketcher, Sketches, needs,
    working_bytes,
};
use crate::synthesize::{self, Progress, synthesize};

/// Where the rows of errors are.
const PLACE: &str = "stream, ";

/// The sketch of a stream's rows, as they come; see [the module](self).
#[derive(Debug)]
pub struct StreamDistiller {
    /// The stream's columns.
    schema: SchemaRef,
    layout: Layout,
    decoder: Decoder,
    /// With the method that `auto` stands for.
    options: Options,
    /// As they were given.
    asked: StreamDistillerBuilder,
    scaling: Scaling,
    output: SchemaRef,
    workers: Arc<ThreadPool>,
    /// Made when the rows' shape is known, by the first of them or a sketch of others.
    sketcher: Option<Arc<Sketcher>>,
    /// None before the shape is known.
    sketches: Option<Sketches>,
    /// The class that has the second moments of all, where they are pooled: the first.
    holder: Option<Label>,
    /// Rows pushed, also those that were refused: for messages.
    seen: u64,
}

/// A part of the rows, sketched apart, so that it can be dropped.
struct Part {
    sketcher: Arc<Sketcher>,
    positions: BTreeMap<Label, usize>,
    sketches: Vec<ClassSketch>,
}

impl StreamDistiller {
    /// A builder for streams of batches of `schema`, whose metadata may have Hugging Face features.
    pub fn builder(schema: SchemaRef) -> StreamDistillerBuilder {
        StreamDistillerBuilder::new(schema)
    }

    /// One that was built in the same way, of no rows yet, on the same threads. It makes extractors of its own.
    pub fn like(&self) -> Result<Self> {
        self.asked.clone().workers(Arc::clone(&self.workers)).build()
    }

    /// Sketches the rows of `batch`, which has the columns of [`StreamDistiller::schema`]; the first rows make the extractors. Gives how many were
    /// sketched: the others were left out by `on_null => 'skip'` or `classes`.
    ///
    /// The sketch is the same for any split of the rows into batches, any order of them and any number of threads; but with `moments => 'pooled'` the first
    /// class of all has the second moments of all, and only their sum over the classes is the same.
    ///
    /// Fails with [`Error::Schema`] for other columns, with [`Error::Row`] for a row that can't be used, which counts from the first that was ever pushed, with
    /// [`Error::Column`] for more than [`MAX_CLASSES`] labels, with [`Error::Data`] where the memory limit is in the way. Then no row of the batch is in the sketch.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<usize> {
        self.check_schema(&batch.schema())?;
        let batch = batch.project(&self.layout.projection())?;
        let part = self.fold(&batch);
        self.seen += batch.num_rows() as u64;
        match part {
            Ok(None) => Ok(0),
            Ok(Some(part)) => self.take_up(part),
            Err(error) => {
                if self.sketcher.is_none() {
                    // The refused rows may have told the order of the numbers in nested lists.
                    (self.layout, self.decoder) = self.asked.layout(&self.options)?;
                }
                Err(error)
            }
        }
    }

    /// The sketches of all rows so far: a column of labels, named and typed like the stream's, and a column `sketch` of the struct that [`sketch`]
    /// documents; smallest label first, no row before the first class. To be stored, sent, merged, or read in SQL.
    ///
    /// It holds real rows, as private as the stream, unless the reservoir is empty (`init => 'noise'`).
    pub fn snapshot(&self) -> Result<RecordBatch> {
        let schema = self.snapshot_schema();
        let Some(sketches) = self.sketches.as_ref().filter(|s| !s.classes.is_empty()) else {
            return Ok(RecordBatch::new_empty(schema));
        };
        let labels: Vec<Label> = sketches.classes.keys().cloned().collect();
        let classes: Vec<ClassSketch> = sketches.classes.values().cloned().collect();
        let column: ArrayRef = Arc::new(sketch::to_array(&sketches.header, &classes)?);
        Ok(RecordBatch::try_new(schema, vec![Label::to_array(&labels, self.label_type())?, column])?)
    }

    /// Adds the sketches of other rows: what a [snapshot](StreamDistiller::snapshot) or `distill_sketch_agg` gave, a column of sketches and the label beside it, which
    /// has the name of the stream's label or is the only other one. A label may occur several times (of several days, say). Sketches that are NULL, and classes that
    /// `classes` leaves out, are passed over.
    ///
    /// Fails with [`Error::Sketch`], both values named, for sketches that were made with other options, seed or columns. Then none of them is added.
    pub fn merge(&mut self, sketches: &RecordBatch) -> Result<()> {
        let Some(found) = incoming::read(sketches, &self.layout, &self.options)? else { return Ok(()) };
        let sketcher = match &self.sketcher {
            Some(sketcher) => Arc::clone(sketcher),
            None => self.make_sketcher(found.header.recipe.shape)?,
        };
        let mut all = match &self.sketches {
            Some(sketches) => Sketches::new(sketches.header.clone()),
            None => Sketches::new(self.header(&sketcher, found.header.origin.as_ref())),
        };
        // What doesn't fit is refused by an empty sketch too, before anything is changed.
        all.header.join(&found.header)?;
        self.check_memory(&sketcher, self.classes_with(found.classes.keys()), found.classes.len())?;
        let first = found.classes.keys().next().cloned();
        if let Some(ours) = &mut self.sketches {
            ours.merge(found)?;
        } else {
            let header = all.header.clone();
            all.merge(found)?;
            for (i, feature) in header.origin.iter().flat_map(|origin| origin.features.iter().enumerate()) {
                feature.channels_last.iter().for_each(|last| self.layout.set_channels_last(i, *last));
            }
            (self.sketcher, self.sketches) = (Some(sketcher), Some(all));
        }
        self.holder = self.holder.take().or(first);
        Ok(())
    }

    /// Makes synthetic rows of the sketch, a batch of [`StreamDistiller::output_schema`]: `ipc` a class or `rows` in all, sorted by label. The sketch stays as it is.
    ///
    /// Fails with [`Error::Data`] where there are fewer than two classes, or the memory limit is in the way.
    pub fn distill(&self) -> Result<RecordBatch> {
        self.distill_observed(&mut |_| ControlFlow::Continue(()))
    }

    /// [`StreamDistiller::distill`] with an observer that is called after each step, and can break off ([`Error::Cancelled`]).
    pub fn distill_observed(
        &self,
        observer: &mut (dyn FnMut(Progress) -> ControlFlow<()> + Send),
    ) -> Result<RecordBatch> {
        let (Some(sketches), Some(sketcher)) = (&self.sketches, &self.sketcher) else { return Err(no_rows()) };
        if sketches.classes.is_empty() {
            return Err(no_rows());
        }
        let working = synthesize::working_bytes(sketches, &self.options)?;
        self.check_limit(self.tools_bytes(sketcher) + sketches.bytes() + working, "making the rows")?;
        self.workers.install(|| {
            let rows = synthesize(sketches, &self.options, observer)?;
            rows.into_batch(&self.layout, &self.options, &sketches.header.recipe.scaling, &self.output)
        })
    }

    /// Forgets all rows, for a new window or after a snapshot that another will merge; keeps the extractors.
    pub fn clear(&mut self) {
        self.holder = None;
        if let Some(sketcher) = &self.sketcher {
            self.sketches = Some(Sketches::new(self.header(sketcher, None)));
        }
    }

    /// Rows in the sketch, those of merged ones included.
    pub fn rows(&self) -> u64 {
        self.sketches.as_ref().map_or(0, Sketches::count)
    }

    /// Classes in the sketch.
    pub fn classes(&self) -> usize {
        self.sketches.as_ref().map_or(0, |sketches| sketches.classes.len())
    }

    /// Bytes of memory that it holds between calls: the extractors, their frequencies and the sketches.
    pub fn bytes(&self) -> usize {
        let sketches = self.sketches.as_ref().map_or(0, Sketches::bytes);
        sketches + self.sketcher.as_ref().map_or(0, |sketcher| self.tools_bytes(sketcher))
    }

    /// The columns that batches have.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The columns of the synthetic rows: the stream's, but for `exclude`, `encoding => 'tensor'` and what options add.
    pub fn output_schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    /// The columns of a snapshot: the label and the sketch.
    pub fn snapshot_schema(&self) -> SchemaRef {
        let label = Field::new(self.layout.label_name(), self.label_type().clone(), false);
        Arc::new(Schema::new(vec![label, Field::new("sketch", sketch::data_type(), true)]))
    }

    fn label_type(&self) -> &DataType {
        self.schema.field(self.layout.label).data_type()
    }

    /// Refuses a batch of other columns; nullability and metadata don't matter.
    fn check_schema(&self, found: &Schema) -> Result<()> {
        let shown = |schema: &Schema| {
            let fields = schema.fields().iter().map(|f| format!("{} ({})", f.name(), f.data_type()));
            fields.collect::<Vec<_>>().join(", ")
        };
        let same = |a: &Field, b: &Field| a.name() == b.name() && a.data_type().equals_datatype(b.data_type());
        let ours = self.schema.fields();
        if ours.len() == found.fields().len() && ours.iter().zip(found.fields()).all(|(a, b)| same(a, b)) {
            return Ok(());
        }
        Err(Error::Schema(format!(
            "a batch of other columns than the stream's: expected {}, found {}; cast or select the columns before they are pushed",
            shown(&self.schema),
            shown(found)
        )))
    }

    /// The sketch of a projected batch; none of no rows.
    fn fold(&self, batch: &RecordBatch) -> Result<Option<Part>> {
        let table = match self.layout.single() {
            Some(_) => None,
            None => Some(self.scaling.of_table("the stream")?),
        };
        let mut part: Option<Part> = None;
        let step = MICRO_BATCH * self.workers.current_num_threads();
        for start in (0..batch.num_rows()).step_by(step) {
            let slice = batch.slice(start, step.min(batch.num_rows() - start));
            let known = part.as_ref().map(|part| &part.sketcher).or(self.sketcher.as_ref());
            let shape = known.map(|sketcher| sketcher.header().recipe.shape);
            let first_row = self.seen + start as u64;
            let decode = || self.decoder.decode_in_parallel(&slice, table, shape, PLACE, first_row);
            let (rows, _) = self.workers.install(decode)?;
            if rows.is_empty() {
                continue;
            }
            let folding = match &mut part {
                Some(part) => part,
                none => none.insert(self.part(rows.shape)?),
            };
            self.fold_slice(folding, &rows)?;
        }
        Ok(part)
    }

    /// A part of no rows yet.
    fn part(&self, shape: Shape) -> Result<Part> {
        let sketcher = match &self.sketcher {
            Some(sketcher) => Arc::clone(sketcher),
            None => self.make_sketcher(shape)?,
        };
        let mut part = Part { sketcher, positions: BTreeMap::new(), sketches: vec![] };
        if let (Some(holder), Some(Moments::Pooled)) =
            (&self.holder, part.sketcher.header().moments.as_ref().map(|m| m.kind))
        {
            part.position(holder);
        }
        Ok(part)
    }

    fn fold_slice(&self, part: &mut Part, rows: &Rows) -> Result<()> {
        let touched = rows.labels.iter().filter(|label| !part.positions.contains_key(label));
        let touched: std::collections::BTreeSet<&Label> = touched.collect();
        if !touched.is_empty() {
            let folded = part.positions.len() + touched.len();
            let all = self.classes_with(part.positions.keys().chain(touched));
            self.check_memory(&part.sketcher, all, folded)?;
        }
        let positions: Vec<usize> = rows.labels.iter().map(|label| part.position(label)).collect();
        let fold = || part.sketcher.fold(rows, &positions, &mut part.sketches, &AtomicBool::new(false));
        self.workers.install(fold)?;
        Ok(())
    }

    fn take_up(&mut self, part: Part) -> Result<usize> {
        let Part { sketcher, positions, sketches } = part;
        let rows: u64 = sketches.iter().map(|sketch| sketch.count).sum();
        let holder = positions.iter().find(|(_, position)| **position == 0).map(|(label, _)| label.clone());
        let mut sketches: Vec<Option<ClassSketch>> = sketches.into_iter().map(Some).collect();
        let header = self.header(&sketcher, None);
        let mut found = Sketches::new(header.clone());
        for (label, position) in positions {
            if let Some(sketch) = sketches.get_mut(position).and_then(Option::take) {
                found.classes.insert(label, sketch);
            }
        }
        match &mut self.sketches {
            Some(ours) => ours.merge(found)?,
            none => *none = Some(found),
        }
        self.sketcher = Some(sketcher);
        self.holder = self.holder.take().or(holder);
        Ok(rows as usize)
    }

    /// The extractors for rows of `shape`.
    fn make_sketcher(&self, shape: Shape) -> Result<Arc<Sketcher>> {
        if let Some(expected) = self.layout.static_shape(&self.options).filter(|expected| *expected != shape) {
            return Err(Error::Sketch(format!("it is of rows that are a {shape} each, the stream's are a {expected}")));
        }
        let options = &self.options;
        let recipe = PoolRecipe::choose_scaled(shape, self.scaling.clone(), options)?;
        self.check_limit(needs::extractor_bytes(&recipe, options), "the extractors and their frequencies")?;
        let make = || {
            let pool = Pool::build_for(&recipe, &extract::device(&options.device)?, options)?;
            Sketcher::new(Arc::new(pool), options)
        };
        Ok(Arc::new(self.workers.install(make)?))
    }

    /// The header of the stream's sketches; what the layout doesn't know yet of nested lists is that of `other`.
    fn header(&self, sketcher: &Sketcher, other: Option<&Origin>) -> Header {
        let mut origin = Origin::of(&self.layout);
        for (ours, theirs) in origin.features.iter_mut().zip(other.iter().flat_map(|other| &other.features)) {
            ours.channels_last = ours.channels_last.or(theirs.channels_last);
        }
        Header { origin: Some(origin), ..sketcher.header().clone() }
    }

    /// How many classes there would be with these.
    fn classes_with<'a>(&self, labels: impl Iterator<Item = &'a Label>) -> usize {
        let known = |label: &Label| self.sketches.as_ref().is_some_and(|s| s.classes.contains_key(label));
        self.classes() + labels.filter(|label| !known(label)).count()
    }

    /// Refuses `classes` in the sketch while `folded` sketches are added to it, if they are too many or too large.
    fn check_memory(&self, sketcher: &Sketcher, classes: usize, folded: usize) -> Result<()> {
        let label = self.layout.label_name();
        if classes > MAX_CLASSES {
            return Err(Error::column(
                label,
                format!(
                    "more than {MAX_CLASSES} distinct labels; is it an id or a measurement? Choose the class column by option 'label', or keep \
                     some classes by option 'classes'"
                ),
            ));
        }
        let header = sketcher.header();
        let moments = header.recipe.extractors * 8 * header.moments.as_ref().map_or(0, MomentsHeader::len);
        let holders = |n: usize| match &header.moments {
            Some(moments) if moments.kind == Moments::Pooled => n.min(1),
            _ => n,
        };
        let one = ClassSketch::bytes_of(&Header { moments: None, ..header.clone() });
        let sketches = (classes + folded) * one + (holders(classes) + holders(folded)) * moments;
        let working = working_bytes(&header.recipe, header.frequencies, self.workers.current_num_threads());
        self.check_limit(
            self.tools_bytes(sketcher) + sketches + working,
            &format!("the sketches of {classes} classes of column '{label}'"),
        )
    }

    fn check_limit(&self, bytes: usize, what: &str) -> Result<()> {
        match self.asked.memory_limit {
            Some(limit) if bytes > limit => Err(Error::Data(format!(
                "{what} take about {bytes} bytes with all that the stream holds, more than its limit of {limit}; give a higher one, or fewer extractors \
                 or frequencies, a smaller width or reservoir_per_class, or fewer classes"
            ))),
            _ => Ok(()),
        }
    }

    /// Bytes of the extractors and of what belongs to them.
    fn tools_bytes(&self, sketcher: &Sketcher) -> usize {
        sketcher.header().recipe.network_bytes(false) + sketcher.bytes()
    }
}

impl Part {
    /// The position of a class; a new one gets an empty sketch.
    fn position(&mut self, label: &Label) -> usize {
        if let Some(position) = self.positions.get(label) {
            return *position;
        }
        let position = self.sketches.len();
        self.sketches.push(ClassSketch::empty(self.sketcher.header()));
        self.positions.insert(label.clone(), position);
        position
    }
}

fn no_rows() -> Error {
    Error::Data("the stream has had no rows; there is nothing to distill yet".into())
}
