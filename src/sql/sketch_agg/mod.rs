//! `distill_sketch_agg(features..., options)`: rows flow in, their sketch flows out: what `distill` makes inside, as a value.

mod accumulator;
mod call;
mod rule;

pub(super) use rule::ResolveSketchCalls;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, udaf_default_display_name,
    udaf_default_human_display, udaf_default_schema_name,
};
use datafusion::physical_expr::expressions::Literal;

use crate::arrow::datatypes::DataType;
use crate::options::PoolBytes;
use crate::sketch;
use accumulator::{Shared, SketchAccumulator};
use call::Call;

/// The aggregate's name.
pub(super) const NAME: &str = "distill_sketch_agg";

/// The aggregate function `distill_sketch_agg(feature, ... [, options]) -> sketch`.
///
/// The features are what `features` is to `distill`: one column of pictures or lists, or the columns of a table. The options are a struct literal,
/// `{'extractors': 4, 'seed': 7}`, or one text, `'extractors=4 seed=7'`; the session's settings are their defaults. The label is the column
/// of GROUP BY that is a Hugging Face ClassLabel or has a label's name, or the only one, or the one that option `label` names. Of no rows
/// the sketch is NULL.
///
/// Memory: the groups of a call share its extractors, which one of them counts as its own. DataFusion asks an accumulator for its size after each batch
/// and gives it nothing to reserve memory by, so what a batch takes is accounted for when it has been taken.
pub fn distill_sketch_agg_udaf() -> AggregateUDF {
    AggregateUDF::new_from_impl(SketchAgg::default())
}

#[derive(Debug)]
struct SketchAgg {
    signature: Signature,
    /// The extractors of the calls that run: their groups share them.
    running: Mutex<Vec<(String, Weak<Shared>)>>,
    /// Pool files that planning has fetched, by their URL.
    fetched: Mutex<Vec<(String, PoolBytes)>>,
}

impl Default for SketchAgg {
    fn default() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            running: Mutex::default(),
            fetched: Mutex::default(),
        }
    }
}

// What runs is no part of what the function is.
impl PartialEq for SketchAgg {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for SketchAgg {}

impl Hash for SketchAgg {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl SketchAgg {
    /// Keeps a pool file for the calls that were planned with it.
    fn keep(&self, url: &str, bytes: PoolBytes) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.retain(|(known, _)| known != url);
        fetched.push((url.to_string(), bytes));
    }

    /// What the accumulators of one call share.
    fn shared(&self, text: &str) -> Result<Arc<Shared>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(_, shared)| shared.strong_count() > 0);
        if let Some(shared) = running.iter().find(|(known, _)| known == text).and_then(|(_, shared)| shared.upgrade()) {
            return Ok(shared);
        }
        let call = Call::parse(text)?;
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes =
            fetched.iter().find(|(url, _)| Some(url.as_str()) == call.pool_file()).map(|(_, bytes)| bytes.clone());
        let shared = Arc::new(Shared::new(call, bytes)?);
        running.push((text.to_string(), Arc::downgrade(&shared)));
        Ok(shared)
    }
}

impl AggregateUDFImpl for SketchAgg {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [] => plan_err!("{NAME} has no feature; write {NAME}(image) or {NAME}(age, height, 'extractors=4')"),
            types => Ok(types.to_vec()),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(sketch::data_type())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{NAME} doesn't take DISTINCT; select distinct rows in a subquery");
        }
        let literal = args.exprs.last().and_then(|expr| expr.downcast_ref::<Literal>());
        let Some(text) = literal.and_then(|literal| call::hidden(literal.value())) else {
            return plan_err!(
                "{NAME} is an aggregate with GROUP BY or without, no window function, and is planned in a session that \
                 datafusion_distill::register has seen"
            );
        };
        Ok(Box::new(SketchAccumulator::new(self.shared(text)?)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    // The resolved call is no part of what the user wrote.
    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_schema_name(self, &call::as_written(params))
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_human_display(self, &call::as_written(params))
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        udaf_default_display_name(self, &call::as_written(params))
    }
}
