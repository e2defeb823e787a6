//! SQL text flows in, plans and record batches flow out: the only room, beside the command, that knows DataFusion.
//!
//! `distill(source, name => value, ...)` is a relation: [`planner`](self) turns it into a scan of a table provider that
//! holds the source's logical plan, and the provider's scan plans as *scan -> extract -> aggregate (partial, final) ->
//! optimize*. `SET distill.name = value` sets defaults. Sketches are values: `distill_sketch_agg` makes one of rows, `distill_union_agg` adds them up, `distill_difference` takes one
//! back, `distill_distance` compares two, `distill_describe` says what one is.

mod cpu;
mod describe;
mod difference;
mod distance;
mod distill_exec;
mod endless;
mod error;
mod extract_exec;
mod fetch;
mod fold;
mod held_sink;
mod in_turn;
mod job;
mod lineage;
mod locate;
mod make_pool;
mod options;
mod peek;
mod planner;
mod profile_exec;
mod progress;
mod provenance;
mod provider;
mod read;
mod sample;
mod session;
mod sketch_agg;
mod sketch_source;
mod sketch_values;
mod source;
mod union_agg;
mod unpack;
mod workers;

pub use describe::distill_describe_udf;
pub use difference::distill_difference_udf;
pub use distance::distill_distance_udf;
pub use make_pool::make_pool;
pub use options::DistillConfig;
pub use progress::{Event, ProgressListener};
pub use provenance::{PROVENANCE_KEY, selection, weight_column};
pub use read::read;
pub use sketch_agg::distill_sketch_agg_udaf;
pub use union_agg::distill_union_agg_udaf;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;

/// Teaches `ctx` the relation `distill(...)`, the functions of sketches and the settings `distill.*`: all that an
/// embedder calls. Calling it again puts the settings back to their defaults.
pub fn register(ctx: &SessionContext) -> Result<()> {
    plan_rules(ctx);
    ctx.state_ref().write().config_mut().options_mut().extensions.insert(DistillConfig::default());
    ctx.register_udtf(session::FUNCTION, Arc::new(session::SessionFunction));
    resolve_sketch_calls(ctx);
    ctx.register_udaf(distill_sketch_agg_udaf());
    ctx.register_udaf(distill_union_agg_udaf());
    ctx.register_udf(distill_difference_udf());
    ctx.register_udf(distill_distance_udf());
    ctx.register_udf(distill_describe_udf());
    ctx.register_relation_planner(Arc::new(planner::DistillPlanner::default()))
}

/// Adds the rule that `distill_sketch_agg` needs to the session's analyzer.
fn resolve_sketch_calls(ctx: &SessionContext) {
    let state = ctx.state();
    if state.analyzer().rules.iter().all(|rule| rule.name() != sketch_agg::ResolveSketchCalls::NAME) {
        ctx.add_analyzer_rule(Arc::new(sketch_agg::ResolveSketchCalls::new(ctx.runtime_env())));
    }
}

/// Adds the rules [`held_sink::HoldSinks`] and [`endless::EndlessSketches`] to the session's physical optimizer, which only a rebuilt state can get a
/// rule into.
fn plan_rules(ctx: &SessionContext) {
    let state = ctx.state_ref();
    let mut state = state.write();
    let mut rules = state.physical_optimizers().to_vec();
    if rules.iter().any(|rule| rule.name() == held_sink::HoldSinks::NAME) {
        return;
    }
    let check = rules.iter().position(|rule| rule.name() == endless::EndlessSketches::BEFORE);
    rules.insert(check.unwrap_or(rules.len()), Arc::new(endless::EndlessSketches));
    rules.push(Arc::new(held_sink::HoldSinks));
    let id = state.session_id().to_string();
    let with_rules =
        SessionStateBuilder::new_from_existing(state.clone()).with_session_id(id).with_physical_optimizer_rules(rules);
    *state = with_rules.build();
}
