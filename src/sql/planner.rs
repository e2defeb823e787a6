//! The call `distill(source, name => value, ...)` or `unpack(source)` in a FROM clause flows in, a logical plan flows out.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Spanned,
    TableAlias, TableFactor, TableFunctionArgs,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::{at, plan_error};
use super::fetch;
use super::options::DistillConfig;
use super::provider::DistillTable;
use super::session::{block_on, planning_session};
use super::source;
use super::unpack::UnpackTable;
use super::workers::WorkerPools;
use crate::options::{Options, Value, check_given};

/// The relation's name, and its alias where the query gives none.
pub(super) const NAME: &str = "distill";

/// The name of the relation that decodes what `distill(..., mosaic => 2)` stores.
const UNPACK: &str = "unpack";

/// Plans the relations `distill(...)` and `unpack(...)`; leaves every other relation alone.
#[derive(Debug, Default)]
pub(super) struct DistillPlanner {
    jobs: AtomicU64,
    /// Worker threads that the session's jobs share.
    pools: Arc<WorkerPools>,
}

/// The call as written.
struct Call {
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    span: Span,
}

impl RelationPlanner for DistillPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (name, call) = match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if is_ours(&name, context) => {
                let span = name.span();
                (name, Call { span, args: args.args, alias })
            }
            TableFactor::Function { name, args, alias, .. } if is_ours(&name, context) => {
                let span = name.span();
                (name, Call { span, args, alias })
            }
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let state = planning_session(context)?;
        let job = format!("{}-{}", state.session_id(), self.jobs.fetch_add(1, Ordering::Relaxed));
        let alias = call.alias.clone();
        let plan = match is(&name, UNPACK, context) {
            true => unpack(call, &state, &job, context)?,
            false => plan(call, &state, &job, &self.pools, context)?,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn is_ours(name: &ObjectName, context: &dyn RelationPlannerContext) -> bool {
    is(name, NAME, context) || is(name, UNPACK, context)
}

fn is(name: &ObjectName, relation: &str, context: &dyn RelationPlannerContext) -> bool {
    match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] => context.normalize_ident(ident.clone()) == relation,
        _ => false,
    }
}

/// The plan of `unpack(source)` or `unpack(source, mosaic => 2)`.
fn unpack(
    call: Call,
    state: &SessionState,
    job: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    const USAGE: &str =
        "write unpack(source), where source is a 'path', a table, a (SELECT ...) or distill(..., mosaic => 2)";
    let (span, mut source, mut side) = (call.span, None, None);
    for arg in call.args {
        let at_arg = arg.span();
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) if source.is_none() => source = Some(value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
            | FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. }
                if context.normalize_ident(name.clone()) == "mosaic" && side.is_none() =>
            {
                let mut options = Options::default();
                let value = option_value("mosaic", value, state, context)?;
                options.set("mosaic", &value).map_err(|e| plan_error(e.to_string(), at_arg))?;
                side = Some(options.mosaic);
            }
            other => return Err(plan_error(format!("unpack: '{other}' is not an argument; {USAGE}"), at_arg)),
        }
    }
    let source = source.ok_or_else(|| plan_error(format!("unpack has no source; {USAGE}"), span))?;
    let (input, name) = plan_source(source, state, job, context)?;
    check_source(&input, span)?;
    let table = block_on(UnpackTable::try_new(state, input, name, side)).map_err(|e| at(e, span))?;
    LogicalPlanBuilder::scan(UNPACK, provider_as_source(Arc::new(table)), None)?.build()
}

fn plan(
    call: Call,
    state: &SessionState,
    job: &str,
    pools: &Arc<WorkerPools>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let span = call.span;
    let Arguments { source, mut options } = arguments(call, state, context)?;
    fetch::pool_file(state.runtime_env(), &mut options).map_err(|e| at(e, span))?;
    let (input, name) = plan_source(source, state, job, context)?;
    check_source(&input, span)?;
    let table = DistillTable::try_new(state, input, name, options, job.to_string(), Arc::clone(pools));
    let table = block_on(table).map_err(|e| at(e, span))?;
    LogicalPlanBuilder::scan(NAME, provider_as_source(Arc::new(table)), None)?.build()
}

struct Arguments {
    source: ast::Expr,
    options: Options,
}

/// Sorts the arguments into the source and the options; the session's defaults come first.
fn arguments(call: Call, state: &SessionState, context: &mut dyn RelationPlannerContext) -> Result<Arguments> {
    let mut source = None;
    let mut options = DistillConfig::of(state.config_options());
    let (mut seen, mut given) = (HashSet::new(), vec![]);
    for arg in call.args {
        let span = arg.span();
        let (name, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => match positional(value, source.is_some()) {
                Ok(value) => (Ident::new("source"), value),
                Err(message) => return Err(plan_error(message, span)),
            },
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
            | FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
                (name, value)
            }
            other => return Err(plan_error(format!("distill: '{other}' is not an argument; {USAGE}"), span)),
        };
        let key = context.normalize_ident(name.clone());
        if !seen.insert(key.clone()) {
            return Err(plan_error(format!("distill: argument '{key}' is given twice"), span));
        }
        if key == "source" {
            source = Some(value);
        } else {
            // An unknown name is reported before its value is looked at, which may be nonsense too.
            let mut known = options.clone();
            known.set(&key, &Value::Null).map_err(|e| plan_error(e.to_string(), name.span))?;
            let value_span = value.span();
            let value = option_value(&key, value, state, context)?;
            options.set(&key, &value).map_err(|e| plan_error(e.to_string(), value_span))?;
            if value != Value::Null {
                given.push(key);
            }
        }
    }
    check_given(given.iter().map(String::as_str)).map_err(|e| plan_error(e.to_string(), call.span))?;
    options.check().map_err(|e| plan_error(e.to_string(), call.span))?;
    let source = source.ok_or_else(|| plan_error(format!("distill has no source; {USAGE}"), call.span))?;
    Ok(Arguments { source, options })
}

const USAGE: &str = "write distill(source, ipc => 10, ...), where source is a 'path', a table or a (SELECT ...)";

/// The source, if `value` can be one; else what is wrong with it.
fn positional(value: ast::Expr, has_source: bool) -> Result<ast::Expr, String> {
    if let ast::Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = &value {
        return Err(format!("distill: '{left} = {right}' is a comparison; write {left} => {right}"));
    }
    if has_source {
        return Err(format!("distill: '{value}' has no name; all arguments but the source do: {USAGE}"));
    }
    Ok(value)
}

/// The value of an option, which must be a constant.
fn option_value(
    name: &str,
    value: ast::Expr,
    state: &SessionState,
    context: &mut dyn RelationPlannerContext,
) -> Result<Value> {
    let span = value.span();
    if let ast::Expr::Identifier(ident) = &value {
        let message = format!(
            "option '{name}': {ident} reads as a column; write text in single quotes: {name} => '{}'",
            ident.value
        );
        return Err(plan_error(message, span));
    }
    let shown = value.to_string();
    let scalar = constant(value, &format!("option '{name}'"), state, context)
        .map_err(|e| at(e, span))?
        .ok_or_else(|| plan_error(format!("option '{name}': expected a constant, found {shown}"), span))?;
    from_scalar(&scalar).ok_or_else(|| {
        plan_error(format!("option '{name}': expected a number, text or a list of them, found {shown}"), span)
    })
}

/// The constant that `expr` folds to; `None` if it doesn't. A parameter is an error of `subject`.
fn constant(
    expr: ast::Expr,
    subject: &str,
    state: &SessionState,
    context: &mut dyn RelationPlannerContext,
) -> Result<Option<ScalarValue>> {
    let schema = DFSchema::empty();
    let span = expr.span();
    let expr = context.sql_to_expr(expr, &schema)?;
    let mut parameter = None;
    expr.apply(|node| {
        if let Expr::Placeholder(placeholder) = node {
            parameter = Some(placeholder.id.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(name) = parameter {
        return Err(plan_error(has_parameter(subject, &name), span));
    }
    let fold =
        ExprSimplifier::new(SimplifyContext::builder().with_config_options(Arc::clone(state.config_options())).build());
    Ok(match fold.simplify(fold.coerce(expr, &schema)?)? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    })
}

/// An option's value from a scalar; `None` for types that no option takes.
pub(super) fn from_scalar(scalar: &ScalarValue) -> Option<Value> {
    if scalar.is_null() {
        return Some(Value::Null);
    }
    let list = |array: &dyn datafusion::arrow::array::Array| {
        (0..array.len())
            .map(|i| ScalarValue::try_from_array(array, i).ok().and_then(|s| from_scalar(&s)))
            .collect::<Option<Vec<_>>>()
            .map(Value::List)
    };
    match scalar {
        ScalarValue::Boolean(Some(v)) => Some(Value::Bool(*v)),
        ScalarValue::Utf8(Some(v)) | ScalarValue::Utf8View(Some(v)) | ScalarValue::LargeUtf8(Some(v)) => {
            Some(Value::Text(v.clone()))
        }
        ScalarValue::List(v) => list(&v.value(0)),
        ScalarValue::LargeList(v) => list(&v.value(0)),
        ScalarValue::FixedSizeList(v) => list(&v.value(0)),
        number if number.data_type().is_integer() => number.to_string().parse().ok().map(Value::Int),
        number if number.data_type().is_numeric() => number.to_string().parse().ok().map(Value::Float),
        _ => None,
    }
}

/// The plan of the source and its name in messages.
fn plan_source(
    source: ast::Expr,
    state: &SessionState,
    job: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<(LogicalPlan, String)> {
    let span = source.span();
    match source {
        ast::Expr::Nested(inner) => plan_source(*inner, state, job, context),
        ast::Expr::Subquery(subquery) => {
            let derived = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
            Ok((context.plan(derived)?, "the query".into()))
        }
        ast::Expr::Identifier(name) => plan_table(vec![name], span, state, context),
        ast::Expr::CompoundIdentifier(name) => plan_table(name, span, state, context),
        // TABLE(t) parses as a call of a function named TABLE; any other call is a table function.
        ast::Expr::Function(function) => match function.args {
            FunctionArguments::List(list) => match (&function.name.0[..], &list.args[..]) {
                ([ObjectNamePart::Identifier(name)], [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))])
                    if name.value.eq_ignore_ascii_case("table") =>
                {
                    plan_source(inner.clone(), state, job, context)
                }
                _ => {
                    let name = function.name.to_string();
                    let call = TableFunctionArgs { args: list.args, settings: None };
                    let plan = context.plan(table_factor(function.name, Some(call))).map_err(|e| at(e, span))?;
                    Ok((plan, format!("{name}(...)")))
                }
            },
            _ => Err(plan_error(format!("distill: '{}' is not a source; {USAGE}", function.name), span)),
        },
        other => {
            let shown = other.to_string();
            match constant(other, "distill: its source", state, context)
                .map_err(|e| at(e, span))?
                .as_ref()
                .and_then(from_scalar)
            {
                Some(Value::Text(text)) => plan_text(text, span, state, job, context),
                _ => Err(plan_error(format!("distill: '{shown}' is not a source; {USAGE}"), span)),
            }
        }
    }
}

/// A table by its text, if there is one of that name; else files.
fn plan_text(
    text: String,
    span: Span,
    state: &SessionState,
    job: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<(LogicalPlan, String)> {
    let table = TableReference::parse_str(&text);
    let is_table = state.schema_for_ref(table.clone()).is_ok_and(|schema| schema.table_exist(table.table()));
    if is_table {
        let parts = table.to_vec().into_iter().map(|part| Ident::with_quote('"', part)).collect();
        return plan_table(parts, span, state, context);
    }
    let plan = block_on(source::open_files(state, &text, job)).map_err(|e| at(e, span))?;
    Ok((plan, text))
}

/// A name from WITH, or else a table or view of the session.
fn plan_table(
    name: Vec<Ident>,
    span: Span,
    state: &SessionState,
    context: &mut dyn RelationPlannerContext,
) -> Result<(LogicalPlan, String)> {
    let shown = name.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
    let name = ObjectName(name.into_iter().map(ObjectNamePart::Identifier).collect());
    let reference = context.object_name_to_table_reference(name.clone())?;
    let plan = context.plan(table_factor(name, None)).or_else(|error| {
        // The session looks up only the tables that it sees in the query; it doesn't look into our arguments.
        let found = block_on(async {
            let schema = state.schema_for_ref(reference.clone())?;
            schema.table(reference.table()).await
        });
        match found {
            Ok(Some(table)) => LogicalPlanBuilder::scan(reference.clone(), provider_as_source(table), None)?.build(),
            Ok(None) | Err(_) if source::looks_like_path(&shown) => {
                let message = format!("no table is named {shown}; a path is written in single quotes: '{shown}'");
                Err(plan_error(message, span))
            }
            Ok(None) => Err(at(error, span)),
            Err(error) => Err(at(error, span)),
        }
    })?;
    Ok((plan, format!("table {shown}")))
}

fn table_factor(name: ObjectName, args: Option<TableFunctionArgs>) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn has_parameter(subject: &str, name: &str) -> String {
    format!("{subject} has the parameter {name}; write the value, since the call is planned before parameters have one")
}

/// Refuses sources that can't be planned by themselves: the job runs as one, whatever the query around it does.
fn check_source(input: &LogicalPlan, span: Span) -> Result<()> {
    let outer = input.all_out_ref_exprs();
    if let Some(column) = outer.first() {
        return Err(plan_error(format!("distill: its source can't refer to {column} of the query around it"), span));
    }
    if let Some(name) = input.get_parameter_names()?.into_iter().min() {
        return Err(plan_error(has_parameter("distill: its source", &name), span));
    }
    let mut names = HashSet::new();
    if let Some(twice) = input.schema().fields().iter().find(|f| !names.insert(f.name())) {
        let message = format!(
            "distill: two columns of the source are named '{}'; select the columns you want by name",
            twice.name()
        );
        return Err(plan_error(message, span));
    }
    if matches!(input, LogicalPlan::EmptyRelation(_)) && input.schema().fields().is_empty() {
        return Err(DataFusionError::Plan("distill: the source has no columns".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_become_option_values() {
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &[ScalarValue::from("a"), ScalarValue::from("b")],
            &datafusion::arrow::datatypes::DataType::Utf8,
        ));
        for (scalar, value) in [
            (ScalarValue::Int64(None), Some(Value::Null)),
            (ScalarValue::UInt8(Some(3)), Some(Value::Int(3))),
            (ScalarValue::Int64(Some(-3)), Some(Value::Int(-3))),
            (ScalarValue::Float64(Some(0.5)), Some(Value::Float(0.5))),
            (ScalarValue::Decimal128(Some(25), 3, 1), Some(Value::Float(2.5))),
            (ScalarValue::from("x"), Some(Value::Text("x".into()))),
            (list, Some(Value::List(vec![Value::Text("a".into()), Value::Text("b".into())]))),
            (ScalarValue::Date32(Some(1)), None),
        ] {
            assert_eq!(from_scalar(&scalar), value, "{scalar:?}");
        }
    }
}
