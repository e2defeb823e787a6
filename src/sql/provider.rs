//! A source's logical plan and the options flow in, a table whose scan is the job flows out.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, plan_err};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};

use super::distill_exec::{DistillExec, Further};
use super::endless::{is_endless, reads_a_stream};
use super::extract_exec::ExtractExec;
use super::job::{CLASS, Job, SKETCH};
use super::lineage::schema_with_metadata;
use super::locate::Locator;
use super::peek::{first_shape, hints};
use super::profile_exec::ProfileExec;
use super::provenance::{PROVENANCE_KEY, provenance};
use super::sketch_source::{self, SketchSource};
use super::source::{fingerprint, forget_files, open_files, scans};
use super::union_agg::distill_union_agg_udaf;
use super::workers::WorkerPools;
use crate::arrow::datatypes::{Schema, SchemaRef};
use crate::options::Options;
use crate::rows::{Held, Layout};
use crate::sketch::Origin;
use crate::synthesize;

/// The synthetic rows of one call of `distill`.
///
/// A table provider rather than a node of its own: a session has only one query planner, which isn't ours to take. The
/// filters above stay above: they are about synthetic rows.
#[derive(Debug)]
pub(super) struct DistillTable {
    job: Arc<Job>,
    /// The job's name, unique in the process.
    name: String,
    /// The source, projected to the features, then the label; of sketches to the label, then the sketch.
    input: LogicalPlan,
    /// Where the source's rows are sketches, what they say of the rows that they were made of.
    sketched: Option<Origin>,
    /// The rows that the synthetic ones start from, projected to the features, then the label.
    warm: Option<LogicalPlan>,
    schema: SchemaRef,
}

impl DistillTable {
    /// Finds the columns' roles; `name` is the source's name in messages, `job_name` that of the job, under which its files were listed; `pools` are
    /// the session's worker threads.
    pub(super) async fn try_new(
        state: &SessionState,
        source: LogicalPlan,
        name: String,
        options: Options,
        job_name: String,
        pools: Arc<WorkerPools>,
    ) -> Result<Self> {
        let planned = |e: crate::Error| DataFusionError::Plan(e.to_string());
        let scans = scans(state, &source).await?;
        if let Some(column) = sketch_source::column(&source, &options)? {
            if options.passes > 1 {
                return plan_err!(
                    "option 'passes': {name} has sketches, and a further pass would read the rows that they were made of; leave it out, or distill these rows"
                );
            }
            let (asked, fingerprint) = (options.clone(), fingerprint(&source, &scans));
            let SketchSource { layout, options, input, origin } =
                SketchSource::open(state, source, column, &name, options).await?;
            let provenance = provenance(&asked, layout.single().is_none(), &name, &fingerprint);
            let schema = output_schema(&layout, &options, provenance).map_err(planned)?;
            let warm = warm_start(state, &layout, &options, &job_name).await?;
            let job = Arc::new(Job::new(layout, options, name, pools).map_err(planned)?);
            return Ok(Self { job, name: job_name, input, sketched: Some(origin), warm, schema });
        }
        let schema = schema_with_metadata(state, &source, &scans).await?;
        let hints = hints(state, &source, &schema, &scans).await;
        let layout = Layout::infer_with(&schema, &options, &hints).map_err(planned)?;
        let provenance = provenance(&options, layout.single().is_none(), &name, &fingerprint(&source, &scans));
        let schema = output_schema(&layout, &options, provenance).map_err(planned)?;

        let columns: Vec<Expr> = layout
            .projection()
            .into_iter()
            .map(|i| Expr::Column(Column::from(source.schema().qualified_field(i))))
            .collect();
        let input = LogicalPlanBuilder::from(source).project(columns)?.build()?;
        let warm = warm_start(state, &layout, &options, &job_name).await?;
        let job = Arc::new(Job::new(layout, options, name, pools).map_err(planned)?);
        Ok(Self { job, name: job_name, input, sketched: None, warm, schema })
    }

    /// `scan`, of sketches.
    async fn sketches(&self, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let input = state.create_physical_plan(&self.input).await?;
        self.check_ends(&input)?;
        Ok(input)
    }

    fn check_ends(&self, input: &Arc<dyn ExecutionPlan>) -> Result<()> {
        if is_endless(input) {
            return plan_err!(
                "distill: {} is an endless stream, of which the sketch would never be done; put a LIMIT into the source: \
                 distill((SELECT * FROM ... LIMIT 100000), ...); or distill the stream in a program, window by window, with datafusion_distill::stream",
                self.job.source
            );
        }
        Ok(())
    }

    /// `scan -> extract`; a second scan before it where it isn't known how the features are scaled.
    async fn extract(&self, state: &dyn Session) -> Result<ExtractExec> {
        let input = state.create_physical_plan(&self.input).await?;
        self.check_ends(&input)?;
        if self.job.options.passes > 1 && reads_a_stream(&input) {
            return plan_err!(
                "option 'passes': {} reads a stream, which gives other rows each time it is read; leave it out, or write the rows to a file or a table first \
                 and distill that",
                self.job.source
            );
        }
        let (job, target_partitions) = (&self.job, state.config().target_partitions());
        let profile: Option<Arc<dyn ExecutionPlan>> = match job.static_scaling()? {
            Some(_) => None,
            // Planned anew: operators in it keep state, which two scans can't share.
            None => {
                let again = state.create_physical_plan(&self.input).await?;
                Some(Arc::new(ProfileExec::new(Arc::clone(job), again, target_partitions)))
            }
        };
        let sample = match job.options.trains() {
            true => Some(state.create_physical_plan(&self.input).await?),
            false => None,
        };
        let session = state.as_any().downcast_ref::<SessionState>();
        let shape = match (job.layout.static_shape(&job.options), session) {
            (Some(shape), _) => Some(shape),
            (None, Some(session)) => first_shape(session, job, &self.input).await,
            (None, None) => None,
        };
        let locator = session.map(|session| Locator::new(session, self.input.clone()));
        Ok(ExtractExec::new(Arc::clone(job), input, [profile, sample], shape, locator, target_partitions))
    }

    /// What sketches the rows in each pass after the `first`, with the pass's job: a plan of its own, since operators keep state, over the same files.
    async fn further(&self, state: &dyn Session, first: &ExtractExec) -> Result<Vec<Further>> {
        let target_partitions = state.config().target_partitions();
        let mut further = vec![];
        for pass in 2..=self.job.options.passes {
            let rows = state.create_physical_plan(&self.input).await?;
            let job = Arc::new(self.job.further(pass)?);
            let extract = first.again(Arc::clone(&job), rows);
            further.push(Further { job, input: union_by_class(Arc::new(extract), target_partitions)? });
        }
        Ok(further)
    }
}

/// The column of how many pictures a side each row of option `warm_start` holds.
const WARM_SIDES: &str = "__pictures_a_side";

/// The plan that reads the rows of option `warm_start`.
async fn warm_start(
    state: &SessionState,
    layout: &Layout,
    options: &Options,
    job: &str,
) -> Result<Option<LogicalPlan>> {
    let Some(path) = &options.warm_start else { return Ok(None) };
    let rows = open_files(state, path, &format!("{job}-warm")).await?;
    let mut columns = vec![];
    for position in layout.projection() {
        let expected = layout.schema.field(position);
        let found = rows.schema().fields().iter().position(|f| f.name() == expected.name());
        let Some(found) = found else {
            return plan_err!(
                "option 'warm_start': '{path}' has no column '{}'; it takes rows of the source's columns",
                expected.name()
            );
        };
        let column = Expr::Column(Column::from(rows.schema().qualified_field(found)));
        columns.push(column.cast_to(expected.data_type(), rows.schema())?.alias(expected.name()));
    }
    // How many pictures a side each row holds comes last: as a column says, or the note of the pictures' column.
    let schema = schema_with_metadata(state, &rows, &scans(state, &rows).await?).await?;
    let feature = layout.single().and_then(|feature| schema.index_of(layout.name_of(feature)).ok());
    let held = match feature.map_or(Ok(Held::Same(1)), |feature| Held::of(&schema, feature))? {
        Held::Column(column) => Expr::Column(Column::from(rows.schema().qualified_field(column))),
        // At most MOST_PER_SIDE.
        Held::Same(side) => lit(side as u8),
    };
    columns.push(held.alias(WARM_SIDES));
    Ok(Some(LogicalPlanBuilder::from(rows).project(columns)?.build()?))
}

/// The schema of the synthetic rows, with `provenance` in its metadata.
fn output_schema(layout: &Layout, options: &Options, provenance: String) -> crate::Result<SchemaRef> {
    let output = synthesize::output_schema(layout, options)?;
    let mut metadata = output.metadata().clone();
    metadata.insert(PROVENANCE_KEY.into(), provenance);
    Ok(Arc::new(Schema::new_with_metadata(output.fields().clone(), metadata)))
}

#[async_trait]
impl TableProvider for DistillTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        forget_files(state.runtime_env(), &self.name)?;
        let (sketches, shape, further): (Arc<dyn ExecutionPlan>, _, _) = match self.sketched {
            Some(_) => (self.sketches(state).await?, None, vec![]),
            None => {
                let extract = self.extract(state).await?;
                let (shape, further) = (extract.shape(), self.further(state, &extract).await?);
                (Arc::new(extract), shape, further)
            }
        };
        let merged = union_by_class(sketches, state.config().target_partitions())?;
        let warm = match &self.warm {
            Some(plan) => Some(state.create_physical_plan(plan).await?),
            None => None,
        };
        let (job, schema) = (Arc::clone(&self.job), Arc::clone(&self.schema));
        let distill = DistillExec::try_new(job, merged, warm, schema, projection.cloned())?;
        Ok(Arc::new(distill.expecting(self.sketched.clone()).over(shape).followed_by(further)))
    }
}

/// `aggregate (partial, final)`, as DataFusion plans `SELECT class, distill_union_agg(sketch) GROUP BY class`.
fn union_by_class(input: Arc<dyn ExecutionPlan>, target_partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = input.schema();
    let column = |i: usize| Arc::new(PhysicalColumn::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>;
    let group_by = PhysicalGroupBy::new_single(vec![(column(CLASS), schema.field(CLASS).name().clone())]);
    let union = AggregateExprBuilder::new(Arc::new(distill_union_agg_udaf()), vec![column(SKETCH)])
        .schema(Arc::clone(&schema))
        .alias("sketch")
        .build()?;
    let aggregates = vec![Arc::new(union)];
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        group_by,
        aggregates.clone(),
        vec![None],
        input,
        Arc::clone(&schema),
    )?;
    let group_by = partial.group_expr().as_final();
    let mode = if target_partitions > 1 { AggregateMode::FinalPartitioned } else { AggregateMode::Final };
    Ok(Arc::new(AggregateExec::try_new(mode, group_by, aggregates, vec![None], Arc::new(partial), schema)?))
}
