//! A source whose rows are sketches flows in; the layout of the rows that they were made of flows out.
//!
//! The columns of `distill` must be known when it is planned, and stand in the sketches: so planning reads one of them. Under an aggregate it is
//! one of those that go into it, of `distill_sketch_agg` one of a few rows: planning never runs the query.

use datafusion::common::{Column, internal_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, col};
use datafusion::physical_plan::collect;

use super::{fetch, union_agg};
use crate::error::Error;
use crate::extract::Source;
use crate::options::{FrequencyScales, Input, Layers, Network, Options, Sizes};
use crate::rows::Layout;
use crate::sketch::{self, Header, Origin};

/// Rows of a `distill_sketch_agg` that planning looks at.
const LOOK: usize = 256;

/// What planning finds out about a source of sketches.
pub(super) struct SketchSource {
    /// The layout of the source's rows.
    pub(super) layout: Layout,
    /// The options, with what it takes to write such rows.
    pub(super) options: Options,
    /// The source projected to `[class, sketch]`.
    pub(super) input: LogicalPlan,
    /// What the one that was looked into says of its rows' columns: all must.
    pub(super) origin: Origin,
}

/// The position of the sketches in `source`, if its rows are sketches: told by the columns' types, or said by option `input`.
pub(super) fn column(source: &LogicalPlan, options: &Options) -> Result<Option<usize>> {
    let fields = source.schema().fields();
    let found: Vec<usize> = (0..fields.len()).filter(|i| sketch::is_sketch(fields[*i].data_type())).collect();
    match (options.input, &found[..]) {
        (Some(Input::Rows), _) | (None, []) => Ok(None),
        (_, [one]) => Ok(Some(*one)),
        (Some(Input::Sketches), []) => {
            let names: Vec<_> = fields.iter().map(|f| f.name().as_str()).collect();
            plan_err!(
                "option 'input': none of the columns {} holds sketches (what distill_sketch_agg makes)",
                names.join(", ")
            )
        }
        (_, several) => {
            let names: Vec<_> = several.iter().map(|i| fields[*i].name().as_str()).collect();
            plan_err!("distill: several columns hold sketches: {}; select one of them and its label", names.join(", "))
        }
    }
}

impl SketchSource {
    /// Looks into one of the sketches in column `sketch` of `source`, called `name`.
    pub(super) async fn open(
        state: &SessionState,
        source: LogicalPlan,
        sketch: usize,
        name: &str,
        options: Options,
    ) -> Result<Self> {
        let planned = |e: Error| DataFusionError::Plan(e.to_string());
        let columns: Vec<Column> = source.schema().columns();
        let Some(header) = first_header(state, &source, Expr::Column(columns[sketch].clone())).await? else {
            return plan_err!("distill: {name} has no sketches; there is nothing to distill");
        };
        let Some(origin) = &header.origin else {
            return plan_err!(
                "distill: the sketches of {name} don't say which columns they were made of, so no rows can be written; make them with distill_sketch_agg"
            );
        };
        check_options(&options, &header).map_err(planned)?;
        let mut options = options;
        if let (None, Source::File { path }) = (&options.pool_file, &header.recipe.source)
            && path.contains("://")
        {
            options.pool_file = Some(path.clone());
            fetch::pool_file(state.runtime_env(), &mut options)?;
        }
        let label = label(&source, sketch, origin.label.as_deref(), &options)?;
        let beside = source.schema().field(label).clone();
        crate::rows::Label::check_type(beside.name(), beside.data_type()).map_err(planned)?;
        let (layout, options) = origin.layout(&header.recipe, &beside, &options).map_err(planned)?;
        let class = Expr::Column(columns[label].clone())
            .cast_to(layout.schema.field(layout.label).data_type(), source.schema())?
            .alias("class");
        let value = Expr::Column(columns[sketch].clone()).alias("sketch");
        let input = LogicalPlanBuilder::from(source).project(vec![class, value])?.build()?;
        let origin = origin.clone();
        Ok(Self { layout, options, input, origin })
    }
}

/// The position of the label beside the sketches.
fn label(source: &LogicalPlan, sketch: usize, origin: Option<&str>, options: &Options) -> Result<usize> {
    let fields = source.schema().fields();
    let named = |name: &str| fields.iter().position(|f| f.name() == name).filter(|i| *i != sketch);
    let names = || {
        let others: Vec<&str> = (0..fields.len()).filter(|i| *i != sketch).map(|i| fields[i].name().as_str()).collect();
        if others.is_empty() { "none".to_string() } else { others.join(", ") }
    };
    if let Some(name) = &options.label {
        return match named(name) {
            Some(found) => Ok(found),
            None => plan_err!("option 'label': there is no column '{name}' beside the sketches; there are {}", names()),
        };
    }
    if let Some(found) = origin.and_then(named) {
        return Ok(found);
    }
    let others: Vec<usize> = (0..fields.len()).filter(|i| *i != sketch).collect();
    match others[..] {
        [only] => Ok(only),
        _ => plan_err!(
            "distill: sketches need their label beside them, and which column it is can't be told; select label and sketch, or name the \
             column with label => '...'; beside the sketches there are: {}",
            names()
        ),
    }
}

/// Refuses options that say how sketches are made, and differently from how these were.
fn check_options(options: &Options, header: &Header) -> crate::Result<()> {
    let recipe = &header.recipe;
    let asked = |n: Option<usize>| n.map(|n| n.to_string());
    let network = Some(options.network).filter(|n| *n != Network::Auto).map(|n| n.to_string());
    let augment = Some(options.augment.clone()).filter(|a| a != "none");
    let layers = Some(options.layers).filter(|l| *l != Layers::Last).map(|l| l.to_string());
    let sizes = Some(options.sizes).filter(|s| *s != Sizes::Same).map(|s| s.to_string());
    let scales = Some(&options.frequency_scales).filter(|s| **s != FrequencyScales::default()).map(|s| s.to_string());
    for (name, asked, found) in [
        ("extractors", asked(options.extractors), recipe.extractors.to_string()),
        ("network", network, recipe.network.to_string()),
        ("width", asked(options.width), recipe.width.to_string()),
        ("depth", asked(options.depth), recipe.depth.to_string()),
        ("layers", layers, recipe.layers.to_string()),
        ("sizes", sizes, recipe.sizes.to_string()),
        ("augment", augment, recipe.augment.clone()),
        ("frequencies", asked(options.frequencies), header.frequencies.to_string()),
        ("frequency_scales", scales, header.frequency_scales.to_string()),
        ("reservoir_per_class", asked(options.reservoir_per_class), header.reservoir.to_string()),
    ] {
        if let Some(asked) = asked.filter(|asked| *asked != found) {
            return Err(Error::option(
                name,
                format!(
                    "{asked} is asked for, the sketches were made with {found}; leave it out, or make the sketches anew"
                ),
            ));
        }
    }
    Ok(())
}

/// The header of a sketch that `expr` over `plan` gives, or that goes into it.
async fn first_header(state: &SessionState, plan: &LogicalPlan, expr: Expr) -> Result<Option<Header>> {
    let look = look(plan, expr)?;
    let batches = collect(state.create_physical_plan(&look).await?, state.task_ctx()).await?;
    let Some(batch) = batches.iter().find(|b| b.num_rows() > 0) else { return Ok(None) };
    let structs = datafusion::common::cast::as_struct_array(batch.column(0))?;
    Ok(Some(sketch::from_array(structs, 0)?.0))
}

/// A plan of one sketch at the root of `expr` over `plan`, cheap to run.
fn look(plan: &LogicalPlan, expr: Expr) -> Result<LogicalPlan> {
    let expr = root(expr);
    let Expr::Column(column) = &expr else { return one(plan.clone(), expr) };
    let position = plan.schema().index_of_column(column)?;
    let same = |input: &LogicalPlan| Expr::Column(Column::from(input.schema().qualified_field(position)));
    match plan {
        LogicalPlan::Projection(node) => look(&node.input, node.expr[position].clone()),
        LogicalPlan::SubqueryAlias(node) => look(&node.input, same(&node.input)),
        LogicalPlan::Sort(node) => look(&node.input, same(&node.input)),
        LogicalPlan::Filter(node) if has_aggregate(&node.input) => look(&node.input, same(&node.input)),
        LogicalPlan::Join(node) => {
            let left = node.left.schema().fields().len();
            match (node.left.schema().index_of_column(column), node.right.schema().index_of_column(column)) {
                (Ok(i), _) if i < left => look(&node.left, expr),
                (_, Ok(_)) => look(&node.right, expr),
                _ => one(plan.clone(), expr),
            }
        }
        LogicalPlan::Aggregate(node) => {
            let groups = plan.schema().fields().len() - node.aggr_expr.len();
            let aggregate = position.checked_sub(groups).map(|i| root(node.aggr_expr[i].clone()));
            match aggregate {
                Some(Expr::AggregateFunction(call)) if call.func.name() == union_agg::NAME => {
                    let arg = call.params.args.first().cloned();
                    look(
                        &node.input,
                        arg.ok_or_else(|| internal_datafusion_err!("{} without argument", union_agg::NAME))?,
                    )
                }
                _ => {
                    let few = LogicalPlanBuilder::from(node.input.as_ref().clone()).limit(0, Some(LOOK))?.build()?;
                    let few = Aggregate::try_new(few.into(), node.group_expr.clone(), node.aggr_expr.clone())?;
                    one(LogicalPlan::Aggregate(few), expr)
                }
            }
        }
        _ => one(plan.clone(), expr),
    }
}

/// The sketch that another is made of: under a name, a cast, or a difference, the first.
fn root(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => root(*alias.expr),
        Expr::Cast(cast) => root(*cast.expr),
        Expr::ScalarFunction(call) if call.name() == super::difference::NAME && !call.args.is_empty() => {
            root(call.args[0].clone())
        }
        other => other,
    }
}

fn has_aggregate(plan: &LogicalPlan) -> bool {
    use datafusion::common::tree_node::TreeNode;
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_)))).unwrap_or(false)
}

/// The first value of `expr` that isn't NULL.
fn one(plan: LogicalPlan, expr: Expr) -> Result<LogicalPlan> {
    let name = "sketch";
    LogicalPlanBuilder::from(plan)
        .project(vec![expr.alias(name)])?
        .filter(col(name).is_not_null())?
        .limit(0, Some(1))?
        .build()
}
