//! A logical plan with calls of `distill_sketch_agg` flows in; the same plan, the calls resolved, flows out.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{plan_datafusion_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::expr::{AggregateFunction, Alias};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;

use super::accumulator::Shared;
use super::call::{self, Call};
use super::{NAME, SketchAgg};
use crate::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use crate::options::Options;
use crate::rows::Layout;
use crate::sql::lineage::schema_with_metadata;
use crate::sql::session::block_on;
use crate::sql::source::scans;
use crate::sql::{DistillConfig, fetch};

/// Resolves calls of `distill_sketch_agg`: options, session's settings, the source's schema with the metadata of its files, the label.
#[derive(Debug)]
pub(in crate::sql) struct ResolveSketchCalls {
    runtime: Arc<RuntimeEnv>,
}

impl ResolveSketchCalls {
    /// The rule's name.
    pub(in crate::sql) const NAME: &'static str = "distill_resolve_sketch_calls";

    pub(in crate::sql) fn new(runtime: Arc<RuntimeEnv>) -> Self {
        Self { runtime }
    }

    /// The schema of a plan with what its files say of it.
    fn schema(&self, plan: &LogicalPlan, config: &ConfigOptions) -> Result<SchemaRef> {
        let state = SessionStateBuilder::new()
            .with_config(SessionConfig::from(config.clone()))
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .build();
        block_on(async { schema_with_metadata(&state, plan, &scans(&state, plan).await?).await })
    }

    fn resolve(&self, aggregate: &Aggregate, call: &AggregateFunction, config: &ConfigOptions) -> Result<Expr> {
        let mut features = call.params.args.as_slice();
        let mut options = DistillConfig::of(config);
        // The session's settings are for its rows, not for these.
        options = Options { label: None, features: None, exclude: vec![], classes: None, ..options };
        if let [args @ .., last] = features
            && !args.is_empty()
            && let Some(constant) = constant(last, aggregate, config)?
        {
            features = args;
            call::set_options(&mut options, &constant)?;
        }
        if options.trains() {
            return plan_err!(
                "{NAME}: pool => '{}' would train other extractors on each night's rows, and their sketches wouldn't merge; train them once with \
                 distill pool create --pool {} and give the file as pool_file",
                options.pool,
                options.pool
            );
        }
        fetch::pool_file(&self.runtime, &mut options)?;
        if let (Some(bytes), Some(url)) = (&options.pool_bytes, &options.pool_file)
            && let Some(function) = call.func.inner().downcast_ref::<SketchAgg>()
        {
            function.keep(url, bytes.clone());
        }
        let (schema, names) = self.source(aggregate, features, config)?;
        let label = label(aggregate, &schema, &names, &options)?;
        let resolved = Call::new(&options, &schema, names, label);
        // What can't be sketched is an error of planning.
        let planned = |e: crate::Error| plan_datafusion_err!("{NAME}: {e}");
        let pool_bytes = options.pool_bytes.clone();
        let shared =
            resolved.layout().and_then(|(layout, options)| Shared::of(layout, Options { pool_bytes, ..options }));
        shared.and_then(|shared| shared.check()).map_err(planned)?;
        let mut params = call.params.clone();
        params.args.push(resolved.literal()?);
        Ok(Expr::AggregateFunction(AggregateFunction { func: Arc::clone(&call.func), params }))
    }

    /// The source's schema and the names of the features there. Computed features are columns of a source of their own, beside
    /// the columns of GROUP BY.
    fn source(
        &self,
        aggregate: &Aggregate,
        features: &[Expr],
        config: &ConfigOptions,
    ) -> Result<(SchemaRef, Vec<String>)> {
        let plain = |expr: &Expr| match expr {
            Expr::Column(column) => Some(column.name.clone()),
            _ => None,
        };
        let input = aggregate.input.schema();
        let schema = self.schema(&aggregate.input, config)?;
        let distinct: std::collections::HashSet<&String> = schema.fields().iter().map(|f| f.name()).collect();
        let names: Option<Vec<String>> = features.iter().map(plain).collect();
        if let Some(names) = names
            && distinct.len() == schema.fields().len()
        {
            return Ok((schema, names));
        }
        let field = |expr: &Expr| -> Result<FieldRef> {
            let (_, field) = expr.to_field(input)?;
            let known = plain(expr).and_then(|name| schema.field_with_name(&name).ok().cloned());
            Ok(known.map_or(field, Arc::new))
        };
        let fields = features.iter().chain(&aggregate.group_expr).map(field).collect::<Result<Vec<_>>>()?;
        let names = fields[..features.len()].iter().map(|f| f.name().clone()).collect();
        let mut known = vec![];
        let fields: Vec<FieldRef> = fields
            .into_iter()
            .filter(|f| {
                let new = !known.contains(f.name());
                known.push(f.name().clone());
                new
            })
            .collect();
        Ok((Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), names))
    }
}

/// The constant that `expr` is; none where it has a column in it.
fn constant(expr: &Expr, aggregate: &Aggregate, config: &ConfigOptions) -> Result<Option<ScalarValue>> {
    if expr.any_column_refs() || expr.contains_scalar_subquery() {
        return Ok(None);
    }
    let schema = aggregate.input.schema();
    let context = SimplifyContext::builder().with_config_options(Arc::new(config.clone())).build();
    match ExprSimplifier::new(context).simplify(expr.clone())? {
        Expr::Literal(value, _) => Ok(Some(value)),
        other => plan_err!("{NAME}: its options must be constants, found {other} (a {})", other.get_type(schema)?),
    }
}

/// The label among the columns of GROUP BY: the one that `label` names, the one that is a label by the rules of `distill`, or the only one.
fn label(aggregate: &Aggregate, schema: &SchemaRef, features: &[String], options: &Options) -> Result<Option<String>> {
    let groups: Vec<String> = aggregate
        .group_expr
        .iter()
        .filter_map(|expr| match expr {
            Expr::Column(column) => Some(column.name.clone()),
            Expr::Alias(Alias { expr, .. }) => match expr.as_ref() {
                Expr::Column(column) => Some(column.name.clone()),
                _ => None,
            },
            _ => None,
        })
        .filter(|name| !features.contains(name) && schema.field_with_name(name).is_ok())
        .collect();
    if let Some(label) = &options.label {
        return match groups.contains(label) {
            true => Ok(Some(label.clone())),
            false => {
                plan_err!("{NAME}: option 'label': '{label}' is no column of GROUP BY, which has {}", groups.join(", "))
            }
        };
    }
    // The other columns out of the way, the rules of `distill` find it.
    let others =
        schema.fields().iter().map(|f| f.name()).filter(|name| !groups.contains(name) && !features.contains(name));
    let found = Layout::infer(
        schema,
        &Options { features: Some(features.to_vec()), exclude: others.cloned().collect(), ..options.clone() },
    );
    let found = found.ok().map(|layout| layout.label_name().to_string());
    Ok(found.or_else(|| if let [only] = &groups[..] { Some(only.clone()) } else { None }))
}

impl AnalyzerRule for ResolveSketchCalls {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let resolved = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::Aggregate(aggregate) = &node else { return Ok(Transformed::no(node)) };
            let mut changed = false;
            let mut exprs = vec![];
            for expr in &aggregate.aggr_expr {
                let expr = expr.clone().transform_up(|inner| match &inner {
                    Expr::AggregateFunction(call) if call.func.name() == NAME && !call::is_resolved(&call.params) => {
                        Ok(Transformed::yes(self.resolve(aggregate, call, config)?))
                    }
                    _ => Ok(Transformed::no(inner)),
                })?;
                changed |= expr.transformed;
                exprs.push(expr.data);
            }
            if !changed {
                return Ok(Transformed::no(node));
            }
            let (input, groups) = (Arc::clone(&aggregate.input), aggregate.group_expr.clone());
            Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input, groups, exprs)?)))
        })?;
        Ok(resolved.data)
    }
}
