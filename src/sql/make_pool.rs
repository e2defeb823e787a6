//! A source and the options flow in, the pool of extractors that they ask for flows out: written once, used every night.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::fold::no_rows;
use super::job::Job;
use super::lineage::schema_with_metadata;
use super::peek::hints;
use super::profile_exec::{self, ProfileExec};
use super::read::read;
use super::sample;
use super::source::scans;
use crate::extract::{self, Pool, PoolRecipe, Scaling};
use crate::options::Options;
use crate::pretrain;
use crate::rows::{Layout, Shape};

/// The pool for rows of `source`, found as [`read()`] finds it, that `distill` would make with `options`.
///
/// The shape of a row is that of the first one, where the schema doesn't tell it. How rows are scaled is part of the pool: where neither the types nor
/// `ranges` tell it, all rows are scanned for it, and later rows must keep to what is found.
pub async fn make_pool(ctx: &SessionContext, source: &str, options: &Options) -> Result<Pool> {
    let state = ctx.state();
    let (frame, _) = read(ctx, source).await?;
    let plan = frame.into_unoptimized_plan();
    let scans = scans(&state, &plan).await?;
    let schema = schema_with_metadata(&state, &plan, &scans).await?;
    let layout = Layout::infer_with(&schema, options, &hints(&state, &plan, &schema, &scans).await)?;
    let columns = layout.projection().into_iter();
    let columns: Vec<Expr> = columns.map(|i| Expr::Column(Column::from(plan.schema().qualified_field(i)))).collect();
    let input = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
    let job = Arc::new(Job::new(layout, options.clone().for_a_sketch(), source.into(), Arc::default())?);
    let scaling = match job.static_scaling()? {
        Some(scaling) => scaling,
        None => {
            let profile = ProfileExec::new(
                Arc::clone(&job),
                state.create_physical_plan(&input).await?,
                state.config().target_partitions(),
            );
            let plan: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(profile)));
            job.scaling_of(&profile_exec::find(Arc::clone(&job), plan, state.task_ctx()).await?)?
        }
    };
    let shape = match (&scaling, job.layout.static_shape(&job.options)) {
        (Scaling::Table(table), _) => Shape::Vector { len: table.raw_len() },
        (_, Some(shape)) => shape,
        (_, None) => {
            let mut rows = execute_stream(state.create_physical_plan(&input).await?, state.task_ctx())?;
            loop {
                let Some(batch) = rows.next().await.transpose()? else { return Err(no_rows(&job).into()) };
                let first = batch.slice(0, batch.num_rows().min(job.slice_rows()));
                let decoded = job.decode(&first, None, None, "", 0)?;
                if !decoded.is_empty() {
                    break decoded.shape;
                }
            }
        }
    };
    let sample = if job.options.trains() {
        let rows: Arc<dyn ExecutionPlan> =
            Arc::new(CoalescePartitionsExec::new(state.create_physical_plan(&input).await?));
        Some(sample::of(&job, rows, state.task_ctx(), &scaling, shape).await?)
    } else {
        None
    };
    let make = {
        let job = Arc::clone(&job);
        move || {
            let recipe = PoolRecipe::choose_scaled(shape, scaling, &job.options)?;
            let device = extract::device(&job.options.device)?;
            match sample {
                Some((sample, _reservation)) => pretrain::pool(&recipe, &sample, &job.options, &device),
                None => Pool::build_for(&recipe, &device, &job.options),
            }
        }
    };
    Ok(job.run(make).await?)
}
