//! Batches of pictures or numbers with labels flow in, one sketch a class and partition flows out: the one pass over the data.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::TryStreamExt;

use super::fold::{Fold, Metrics, Shared};
use super::in_turn;
use super::job::Job;
use super::locate::Locator;
use crate::extract::{PoolRecipe, Scaling};
use crate::options::{Layers, Sizes};
use crate::rows::{Profile, Shape};
use crate::sketch::{ClassSketch, Header, MICRO_BATCH, MomentsHeader, needs};

/// Decodes rows, runs them through the frozen extractors and folds their features into sketches, micro-batch by micro-batch
/// on the job's own threads. Emits `(class, sketch)` at the end of its input.
///
/// Features never travel between operators: those of 100 extractors are 400 KB a row.
pub(super) struct ExtractExec {
    job: Arc<Job>,
    /// The features, then the label.
    input: Arc<dyn ExecutionPlan>,
    /// The scan that finds how the features are scaled, where one is needed.
    profile: Option<Arc<dyn ExecutionPlan>>,
    /// The scan whose rows extractors are trained on, where they are: the features, then the label.
    sample: Option<Arc<dyn ExecutionPlan>>,
    /// The shape of the rows as far as planning knows it: for EXPLAIN only, the run goes by the rows.
    shape: Option<Shape>,
    locator: Option<Locator>,
    /// Most partitions that are read at the same time: each holds sketches of its own.
    target_partitions: usize,
    shared: Arc<Shared>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ExtractExec {
    pub(super) fn new(
        job: Arc<Job>,
        input: Arc<dyn ExecutionPlan>,
        [profile, sample]: [Option<Arc<dyn ExecutionPlan>>; 2],
        shape: Option<Shape>,
        locator: Option<Locator>,
        target_partitions: usize,
    ) -> Self {
        let partitions = in_turn::streams(&input, target_partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(job.sketch_schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            job,
            input,
            profile,
            sample,
            shape,
            locator,
            target_partitions,
            shared: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// The operator of a further pass, of the same source's rows `input`: how they are scaled is known by then, and its extractors are made elsewhere.
    pub(super) fn again(&self, job: Arc<Job>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(job, input, [None, None], self.shape, self.locator.clone(), self.target_partitions)
    }

    /// The shape of the rows as far as planning knows it.
    pub(super) fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// The extractors and the sketch, as far as planning knows them.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let options = &self.job.options;
        let at_run = || "known at run".to_string();
        let layout = &self.job.layout;
        let recipe = self.shape.and_then(|shape| {
            let scaling = match layout.single() {
                Some(_) => Scaling::for_range(layout.static_range(options).unwrap_or((0.0, 1.0))).ok()?,
                None => Scaling::Table(Profile::outline(layout, options)?),
            };
            PoolRecipe::choose_scaled(shape, scaling, options).ok()
        });
        let frequencies = needs::frequencies(options);
        let of = |f: fn(&PoolRecipe) -> String| recipe.as_ref().map_or_else(at_run, f);
        let bytes = recipe.clone().map(|recipe| {
            let moments = needs::moments(options, recipe.feature_len());
            let reservoir = options.reservoir(recipe.shape);
            ClassSketch::bytes_of(&Header {
                pool: String::new(),
                recipe,
                frequencies,
                frequency_scales: needs::frequency_scales(options),
                frequency_seed: options.seed,
                reservoir,
                numerics: String::new(),
                moments: moments.map(|(kind, dim)| MomentsHeader { kind, dim, bounds: vec![] }),
                origin: None,
            })
        });
        let rows = match layout.single() {
            Some(_) => self.shape.map_or_else(at_run, |s| s.to_string()),
            None => format!("table of {} columns", layout.features.len()),
        };
        let (layers, sizes) = recipe.as_ref().map_or((options.layers, options.sizes), |r| (r.layers, r.sizes));
        let mut facts = vec![
            ("rows", rows),
            ("network", of(|r| r.network.to_string())),
            ("extractors", of(|r| r.extractors.to_string())),
            ("width", of(|r| r.width.to_string())),
            ("depth", of(|r| r.depth.to_string())),
        ];
        if layers != Layers::Last {
            facts.push(("layers", layers.to_string()));
        }
        if sizes != Sizes::Same {
            facts.push(("sizes", sizes.to_string()));
        }
        facts.extend([
            ("features", of(|r| r.feature_len().to_string())),
            ("frequencies", frequencies.to_string()),
            ("sketch_bytes_per_class", bytes.map_or_else(at_run, |b| b.to_string())),
            ("micro_batch", MICRO_BATCH.to_string()),
            match self.job.pass {
                1 => ("scans", self.scans()),
                pass => ("pass", format!("{pass} of {}", options.passes)),
            },
        ]);
        facts
    }
}

impl ExtractExec {
    /// All scans of the job, those of further passes too.
    fn scans(&self) -> String {
        let passes = self.job.options.passes;
        let mut scans = vec![];
        scans.extend(self.profile.as_ref().map(|_| "profile".to_string()));
        scans.extend(self.sample.as_ref().map(|_| "sample".to_string()));
        let count = scans.len() + passes;
        scans.push(if passes > 1 { format!("sketch x {passes}") } else { "sketch".into() });
        if count == 1 { "1".into() } else { format!("{count} ({})", scans.join(", ")) }
    }
}

impl fmt::Debug for ExtractExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtractExec").field("job", &self.job).field("input", &self.input).finish_non_exhaustive()
    }
}

impl DisplayAs for ExtractExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let mut facts = self.facts().into_iter().map(|(name, value)| format!("{name}={value}"));
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ExtractExec: {}", facts.collect::<Vec<_>>().join(", "))
            }
            DisplayFormatType::TreeRender => facts.try_for_each(|fact| writeln!(f, "{fact}")),
        }
    }
}

impl ExecutionPlan for ExtractExec {
    fn name(&self) -> &str {
        "ExtractExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(&self.profile).chain(&self.sample).collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let before = self.profile.iter().chain(&self.sample).map(|_| Distribution::SinglePartition);
        InputDistributionRequirements::new(
            std::iter::once(Distribution::UnspecifiedDistribution).chain(before).collect(),
        )
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
        let mut children = children.into_iter();
        let input = children.next().unwrap_or_else(|| Arc::clone(&self.input));
        let (job, locator) = (Arc::clone(&self.job), self.locator.clone());
        let profile = self.profile.as_ref().and_then(|_| children.next());
        let sample = self.sample.as_ref().and_then(|_| children.next());
        Ok(Arc::new(Self::new(job, input, [profile, sample], self.shape, locator, self.target_partitions)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let streams = self.properties.partitioning.partition_count();
        let input = in_turn::read(&self.input, partition, streams, Arc::clone(&context));
        let fold = Fold {
            job: Arc::clone(&self.job),
            shared: Arc::clone(&self.shared),
            context,
            profile: self.profile.clone(),
            sample: self.sample.clone(),
            locator: self.locator.clone(),
            schema: self.schema(),
            metrics: Metrics::new(&self.metrics, partition),
        };
        let batches = futures::stream::once(fold.run(input));
        let stream = batches.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
