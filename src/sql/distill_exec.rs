//! One sketch a class flows in, synthetic rows in the source's schema flow out.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::common::cast::as_struct_array;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics, internal_err};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, MetricsSet, Time};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties, ReplaceChildrenOptions, StatisticsArgs, project_schema,
};
use futures::{StreamExt, TryStreamExt};

use super::fold::{no_rows, too_many_classes};
use super::job::{CLASS, CancelOnDrop, Job, SKETCH, only_child};
use super::progress::{Event, Notify};
use crate::arrow::array::Array;
use crate::arrow::compute::SortOptions;
use crate::arrow::datatypes::{DataType, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::error::Error;
use crate::extract::{PoolRecipe, Source};
use crate::options::{Allocation, LabelSource};
use crate::rows::{Label, Role, Rows, Shape, mosaic_sides};
use crate::sketch::{Origin, SketchColumn, Sketches};
use crate::synthesize::{self, Progress, Synthetic, Warm, synthesize_from, synthesize_on, working_bytes};
use crate::{extract, pretrain};

/// Optimizes the synthetic rows against the sketches of all classes, or chooses real rows from them.
#[derive(Debug)]
pub(super) struct DistillExec {
    job: Arc<Job>,
    /// Columns `[class, sketch]`.
    input: Arc<dyn ExecutionPlan>,
    /// The rows that the synthetic ones start from: the features, then the label.
    warm: Option<Arc<dyn ExecutionPlan>>,
    /// The passes after the first.
    further: Vec<Further>,
    /// Of sketches from elsewhere, what planning found them to say of their rows.
    sketched: Option<Origin>,
    /// Of rows, their shape, if planning found it.
    shape: Option<Shape>,
    /// The whole rows' schema.
    schema: SchemaRef,
    /// The columns asked for; the rows are made whole all the same.
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// A pass after the first.
#[derive(Clone, Debug)]
pub(super) struct Further {
    /// The job with the pass's seed, whose extractors are trained on the rows of the pass before.
    pub(super) job: Arc<Job>,
    /// Columns `[class, sketch]` of all rows, by these extractors; not to be executed before there are any.
    pub(super) input: Arc<dyn ExecutionPlan>,
}

impl DistillExec {
    pub(super) fn try_new(
        job: Arc<Job>,
        input: Arc<dyn ExecutionPlan>,
        warm: Option<Arc<dyn ExecutionPlan>>,
        schema: SchemaRef,
        projection: Option<Vec<usize>>,
    ) -> Result<Self> {
        let projected = project_schema(&schema, projection.as_ref())?;
        let label = job.layout.output_label();
        let position = projection.as_ref().map_or(Some(label), |p| p.iter().position(|i| *i == label));
        let sorted = position.map(|i| PhysicalSortExpr {
            expr: Arc::new(Column::new(projected.field(i).name(), i)),
            options: SortOptions { descending: false, nulls_first: false },
        });
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(projected, sorted.map(|s| vec![s])),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self {
            job,
            input,
            warm,
            further: vec![],
            sketched: None,
            shape: None,
            schema,
            projection,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same over sketches from elsewhere, which must be of the columns that planning found.
    pub(super) fn expecting(self, sketched: Option<Origin>) -> Self {
        Self { sketched, ..self }
    }

    /// The same over rows that planning found to be of this shape.
    pub(super) fn over(self, shape: Option<Shape>) -> Self {
        Self { shape, ..self }
    }

    /// The same with more passes.
    pub(super) fn followed_by(self, further: Vec<Further>) -> Self {
        Self { further, ..self }
    }

    /// What is known of the rows before there are any, of the columns asked for. docs/sql.md says what for.
    ///
    /// Exact is what can't turn out otherwise: `rows => N` gives N rows or an error, and label and weight are never NULL. But a count
    /// that DataFusion can take from here is answered without running the job, and so without its errors. It takes those of
    /// rows and of NULLs together, so they aren't both exact; and the number of rows isn't where no column is asked for, as in `count(*)`.
    fn statistics(&self) -> Statistics {
        let (layout, options, schema) = (&self.job.layout, &self.job.options, self.schema());
        let classes = self.expected_classes();
        let rows = match (options.rows, classes) {
            (Some(rows), _) if schema.fields().is_empty() => Precision::Inexact(rows),
            (Some(rows), _) => Precision::Exact(rows),
            // A class that is named may have no row, a label may have no name.
            (None, Some(classes)) => Precision::Inexact(classes * options.ipc),
            (None, None) => Precision::Absent,
        };
        let never_null = if rows.is_exact() == Some(true) { Precision::Inexact(0) } else { Precision::Exact(0) };
        let carried: Vec<bool> = layout.output_columns().map(|c| layout.columns[c].role == Role::Carried).collect();
        let mut statistics = Statistics::new_unknown(&schema).with_num_rows(rows);
        for (column, field) in statistics.column_statistics.iter_mut().zip(schema.fields()) {
            // The weight comes after the source's columns, and its name is none of theirs.
            let position = self.schema.index_of(field.name()).unwrap_or(usize::MAX);
            let is_label = position == layout.output_label();
            let width = field.data_type().primitive_width();
            *column = ColumnStatistics {
                null_count: match carried.get(position) {
                    Some(true) => rows.to_inexact(),
                    Some(false) if !is_label => Precision::Absent,
                    _ => never_null,
                },
                distinct_count: classes.filter(|_| is_label).map_or(Precision::Absent, Precision::Inexact),
                byte_size: width.map_or(Precision::Absent, |width| rows.multiply(&Precision::Exact(width))),
                ..ColumnStatistics::new_unknown()
            };
        }
        statistics.calculate_total_byte_size(&schema);
        statistics
    }

    /// About how many classes there are, where it is known before the rows are.
    fn expected_classes(&self) -> Option<usize> {
        let (layout, options) = (&self.job.layout, &self.job.options);
        let kept = layout.classes(options).ok().flatten().map(|classes| classes.len());
        let named = || layout.class_names.as_ref().map(Vec::len);
        let boolean = || (*self.job.label_type() == DataType::Boolean).then_some(2);
        kept.or_else(named).or_else(boolean)
    }

    /// Steps of unrolled training and the experts they follow, as they are given, or by default, where there are any and the plan knows it: what sketches keep is known when
    /// they are read, how many rows a class gets of so many in all when these are counted.
    fn unrolled(&self) -> (Option<usize>, Option<usize>) {
        let options = &self.job.options;
        match self.shape.and_then(|shape| options.unrolled_before(shape)) {
            None | Some((0, _)) => (options.unroll, options.experts),
            Some((steps, experts)) => (Some(steps), options.experts.or((experts > 0).then_some(experts))),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let options = &self.job.options;
        let steps = match options.steps {
            _ if options.method.selects() => "none".into(),
            None => "by method".into(),
            Some(steps) => steps.to_string(),
        };
        let amount = match options.rows {
            Some(rows) => ("rows", rows.to_string()),
            None => ("ipc", options.ipc.to_string()),
        };
        let mut facts = vec![("source", self.job.source.clone()), amount];
        if options.mosaic > 1 {
            facts.push(("mosaic", options.mosaic.to_string()));
            facts.extend(options.mosaic_rows.map(|rows| ("mosaic_rows", rows.to_string())));
            // Otherwise how many a class gets isn't known yet.
            facts.extend(options.is_ipc_each().then(|| ("decoded_ipc", options.pictures(options.ipc).to_string())));
        }
        if options.allocation != Allocation::Equal {
            facts.push(("allocation", options.allocation.to_string()));
        }
        facts.extend(options.weight.iter().map(|name| ("weight", name.clone())));
        facts.extend([("method", self.job.method()), ("steps", steps)]);
        let (unroll, experts) = self.unrolled();
        facts.extend(unroll.map(|steps| ("unroll", steps.to_string())));
        facts.extend(experts.map(|experts| ("experts", experts.to_string())));
        facts.extend(options.unroll_width.map(|width| ("unroll_width", width.to_string())));
        if options.passes > 1 {
            facts.push(("passes", options.passes.to_string()));
        }
        facts.extend([("seed", options.seed.to_string()), ("roles", format!("[{}]", self.job.roles()))]);
        facts
    }
}

impl DisplayAs for DistillExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let mut facts = self.facts().into_iter().map(|(name, value)| format!("{name}={value}"));
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "DistillExec: {}", facts.collect::<Vec<_>>().join(", "))
            }
            DisplayFormatType::TreeRender => facts.try_for_each(|fact| writeln!(f, "{fact}")),
        }
    }
}

impl ExecutionPlan for DistillExec {
    fn name(&self) -> &str {
        "DistillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(self.further.iter().map(|pass| &pass.input)).chain(&self.warm).collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(self.children().iter().map(|_| Distribution::SinglePartition).collect())
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (job, schema) = (Arc::clone(&self.job), Arc::clone(&self.schema));
        let mut children = children;
        let warm = if self.warm.is_some() { children.pop() } else { None };
        let inputs = children.split_off(children.len().min(1));
        if inputs.len() != self.further.len() {
            return internal_err!("expected {} further passes, found {}", self.further.len(), inputs.len());
        }
        let jobs = self.further.iter().map(|pass| Arc::clone(&pass.job));
        let further = jobs.zip(inputs).map(|(job, input)| Further { job, input }).collect();
        let distill = Self::try_new(job, only_child(children)?, warm, schema, self.projection.clone())?;
        Ok(Arc::new(distill.expecting(self.sketched.clone()).over(self.shape).followed_by(further)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(self.statistics()))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(0, Arc::clone(&context))?;
        let warm = self.warm.as_ref().map(|warm| warm.execute(0, Arc::clone(&context))).transpose()?;
        let new = || MetricBuilder::new(&self.metrics);
        let run = Run {
            job: Arc::clone(&self.job),
            schema: Arc::clone(&self.schema),
            sketched: self.sketched.clone(),
            further: self.further.clone(),
            projection: self.projection.clone(),
            classes: new().counter("classes", partition),
            steps: new().counter("steps", partition),
            optimize: new().subset_time("optimize_time", partition),
            peak: new().peak_memory_usage("peak_reserved", partition),
            output_rows: new().output_rows(partition),
            context,
        };
        let batches = futures::stream::once(run.batches(input, warm));
        let stream = batches.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What the rows of a pass start from.
enum Start {
    /// What option `init` says.
    Init,
    /// The rows of option `warm_start`.
    Warm(Warm),
    /// Those of the pass before.
    Made(Synthetic),
}

/// One execution.
struct Run {
    job: Arc<Job>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
    sketched: Option<Origin>,
    further: Vec<Further>,
    projection: Option<Vec<usize>>,
    classes: Count,
    steps: Count,
    optimize: Time,
    peak: Gauge,
    output_rows: Count,
}

impl Run {
    async fn batches(
        self,
        input: SendableRecordBatchStream,
        warm: Option<SendableRecordBatchStream>,
    ) -> Result<Vec<RecordBatch>> {
        let cancel = CancelOnDrop::default();
        let reservation = MemoryConsumer::new("Distill").register(self.context.memory_pool());
        let sketches = self.collect(&self.job, input, 0, &reservation).await?;
        self.classes.add(sketches.classes.len());
        let start = match warm {
            Some(warm) => Start::Warm(self.warm_rows(warm, &sketches, &reservation).await?),
            None => Start::Init,
        };
        let recipe = Arc::new(sketches.header.recipe.clone());
        let mut made = self.synthesize(&self.job, sketches, start, &cancel, &reservation).await?;
        for pass in &self.further {
            made = self.further(pass, &recipe, made, &cancel, &reservation).await?;
        }
        let rows = self.encode(made, recipe).await?;
        self.output_rows.add(rows.num_rows());
        let rows = match &self.projection {
            Some(columns) => rows.project(columns)?,
            None => rows,
        };
        let size = self.context.session_config().batch_size();
        let slices = (0..rows.num_rows()).step_by(size);
        Ok(slices.map(|start| rows.slice(start, size.min(rows.num_rows() - start))).collect())
    }

    /// Trains the extractors of `pass` on the rows that are `made`, which `recipe`'s were sketched for, scans the real rows with them, and goes on from the rows made.
    async fn further(
        &self,
        pass: &Further,
        recipe: &Arc<PoolRecipe>,
        made: Synthetic,
        cancel: &CancelOnDrop,
        reservation: &MemoryReservation,
    ) -> Result<Synthetic> {
        let (job, recipe, flag) = (Arc::clone(&pass.job), Arc::clone(recipe), cancel.flag());
        let count = made.sides.iter().map(|side| side * side).sum();
        let held =
            size_of_val(made.values.as_slice()) + made.soft.as_ref().map_or(0, |s| size_of_val(s.shares.as_slice()));
        self.reserve(reservation, held + pretrain::working_bytes(&recipe, count, job.threads()))?;
        let train = move || {
            let seed = job.options.seed;
            let recipe = PoolRecipe { source: Source::Random { seed }, ..recipe.as_ref().clone() };
            let device = extract::device(&job.options.device)?;
            let pool = pretrain::pool_of_synthetic(&recipe, &made, &job.options, &device, &flag)?;
            Ok((job.trained(&pool)?, made))
        };
        let ((), made) = pass.job.run(train).await?;
        let held = held + pass.job.pool_options().pool_bytes.as_ref().map_or(0, |bytes| bytes.0.len());
        self.reserve(reservation, held)?;
        // Not before: what reads ahead would make extractors of its own.
        let input = pass.input.execute(0, Arc::clone(&self.context))?;
        let sketches = self.collect(&pass.job, input, held, reservation).await?;
        self.synthesize(&pass.job, sketches, Start::Made(made), cancel, reservation).await
    }

    /// All sketches of one pass, sorted by label; `held` bytes are reserved for what there is beside them.
    async fn collect(
        &self,
        job: &Arc<Job>,
        mut input: SendableRecordBatchStream,
        held: usize,
        reservation: &MemoryReservation,
    ) -> Result<Sketches> {
        let mut all: Option<Sketches> = None;
        let classes = Arc::new(job.layout.classes(&job.options)?);
        while let Some(batch) = input.next().await.transpose()? {
            let label_name = self.job.label_name().to_string();
            let (so_far, classes) = (all.take(), Arc::clone(&classes));
            let add = move || {
                let mut all = so_far;
                let labels = Label::from_array(&label_name, batch.column(CLASS))?;
                let column = as_struct_array(batch.column(SKETCH))?;
                let mut sketches = SketchColumn::new(column);
                for (row, label) in labels.into_iter().enumerate() {
                    let label = label.ok_or_else(|| {
                        Error::column(
                            &label_name,
                            "a sketch whose label is NULL; leave it out by a WHERE in the source",
                        )
                    })?;
                    if column.is_null(row) || classes.as_ref().as_ref().is_some_and(|kept| !kept.contains(&label)) {
                        continue;
                    }
                    // The union that gives it has checked the kept rows' hashes.
                    let sketch = sketches.read(row, None)?;
                    let Some(header) = sketches.header() else { continue };
                    all.get_or_insert_with(|| Sketches::new(header.clone())).add(label, header, sketch)?;
                }
                Ok(all)
            };
            all = job.run(add).await?;
            if let Some(all) = &all {
                too_many_classes(&self.job, all.classes.len())?;
                self.reserve(reservation, held + all.classes.values().map(|s| s.bytes()).sum::<usize>())?;
            }
        }
        let mut sketches = all.ok_or_else(|| no_rows(&self.job))?;
        if let (Some(planned), Some(found)) = (&self.sketched, &sketches.header.origin) {
            planned.clone().join(found)?;
        }
        if let (Some(Label::Int(least)), Some(_)) = (sketches.classes.keys().next(), &self.job.layout.class_names)
            && *least < 0
        {
            return Err(Error::column(
                self.job.label_name(),
                format!("a sketch of label {least}: a negative Hugging Face label means that rows have none; leave it out by a WHERE in the source"),
            )
            .into());
        }
        // The pool may lie elsewhere than where the sketches were made: its fingerprint is checked when it is read.
        if let Some(path) = &job.pool_options().pool_file {
            sketches.header.recipe.source = crate::extract::Source::File { path: path.clone() };
        }
        if sketches.header.is_mixed() {
            tracing::warn!(
                numerics = sketches.header.numerics,
                "sketches of different machines or versions: bits may differ from those of one"
            );
        }
        if let (1, Some(only)) = (sketches.classes.len(), sketches.classes.keys().next()) {
            return Err(Error::Data(format!(
                "distill: {} has one class only, {} in column '{}'; at least two are needed",
                self.job.source,
                self.job.layout.class_name(only),
                self.job.label_name()
            ))
            .into());
        }
        Ok(sketches)
    }

    /// The rows of option `warm_start`, decoded; the last column of `input` says how many pictures a side each holds.
    async fn warm_rows(
        &self,
        mut input: SendableRecordBatchStream,
        sketches: &Sketches,
        reservation: &MemoryReservation,
    ) -> Result<Warm> {
        let recipe = Arc::new(sketches.header.recipe.clone());
        let rows = Rows { shape: recipe.shape, values: vec![], labels: vec![], exact: vec![], skipped: 0 };
        let (mut all, mut first_row) = (Warm { rows, sides: vec![] }, 0);
        while let Some(batch) = input.next().await.transpose()? {
            let name = self.job.options.warm_start.as_deref().unwrap_or("warm_start");
            let last = batch.num_columns() - 1;
            let sides = mosaic_sides(name, first_row, batch.column(last))?;
            let batch = batch.project(&(0..last).collect::<Vec<_>>())?;
            let mut start = 0;
            // By itself each run of rows that hold as many: which of a batch are left out isn't told.
            for run in sides.chunk_by(|a, b| a == b) {
                let (job, recipe) = (Arc::clone(&self.job), Arc::clone(&recipe));
                let (part, place, at) = (batch.slice(start, run.len()), format!("{name}, "), first_row + start as u64);
                let decode = move || job.decode(&part, Some(&recipe.scaling), Some(recipe.shape), &place, at);
                let rows = self.job.run(decode).await?;
                reservation.try_grow(rows.values.len() * size_of::<f32>())?;
                all.sides.extend(std::iter::repeat_n(run[0], rows.len()));
                all.rows.values.extend(rows.values);
                all.rows.labels.extend(rows.labels);
                start += run.len();
            }
            first_row += sides.len() as u64;
        }
        Ok(all)
    }

    /// The rows of one pass.
    async fn synthesize(
        &self,
        job: &Arc<Job>,
        sketches: Sketches,
        start: Start,
        cancel: &CancelOnDrop,
        reservation: &MemoryReservation,
    ) -> Result<Synthetic> {
        let passes = job.options.passes;
        let mut options = job.pool_options().clone();
        // As if there were one pass: steps of unrolled training by default are told by the options as they were given.
        let (each, unrolled) = synthesize::steps(&sketches, &options)?;
        if job.pass < passes {
            options.unroll = Some(0);
            // A teacher is asked once, in the end: what is learned on from is what was learned.
            if options.soft_labels == LabelSource::Both {
                options.soft_labels = LabelSource::Learned;
            }
        }
        self.reserve(reservation, reservation.size() + working_bytes(&sketches, &options)?)?;
        let notify = Notify::of(&self.context);
        let (steps, flag, before) = (self.steps.clone(), cancel.flag(), (job.pass - 1) * each);
        let selects = options.method.selects();
        let work = move || {
            let mut observe = |mut progress: Progress| {
                if passes > 1 {
                    progress = Progress { step: before + progress.step, steps: passes * each + unrolled, ..progress };
                }
                steps.add(usize::from(progress.loss.is_some()));
                // What comes before the first step is none.
                if selects || progress.loss.is_some() {
                    notify.send(Event::Step(progress));
                }
                if flag.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match start {
                Start::Init => synthesize::synthesize(&sketches, &options, &mut observe),
                Start::Warm(warm) => synthesize_from(&sketches, &options, Some(&warm), &mut observe),
                Start::Made(made) => synthesize_on(&sketches, &options, made, &mut observe),
            }
        };
        let (made, took) = job.run_timed(work).await?;
        self.optimize.add_duration(took);
        Ok(made)
    }

    /// The rows as a batch of the whole schema.
    async fn encode(&self, made: Synthetic, recipe: Arc<PoolRecipe>) -> Result<RecordBatch> {
        let (job, schema) = (Arc::clone(&self.job), Arc::clone(&self.schema));
        let work = move || made.into_batch(&job.layout, &job.options, &recipe.scaling, &schema);
        let (batch, took) = self.job.run_timed(work).await?;
        self.optimize.add_duration(took);
        Ok(batch)
    }

    fn reserve(&self, reservation: &MemoryReservation, bytes: usize) -> Result<()> {
        let reserved = reservation.try_resize(bytes);
        self.peak.set_max(reservation.size());
        reserved
            .map_err(|e| e.context(format!("distill: making the rows of {} doesn't fit into memory", self.job.source)))
    }
}
