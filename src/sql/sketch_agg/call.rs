//! A call of `distill_sketch_agg` as it was written flows in; what its accumulators need to know flows out, as one hidden constant argument.
//!
//! An accumulator sees its arguments, but neither GROUP BY, nor the source's schema, nor the session's settings. The analyzer rule sees
//! them, and appends what it found: so the plan says it all, also to a worker on another machine.

use std::sync::Arc;

use datafusion::common::{internal_datafusion_err, plan_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::scalar::ScalarValue;
use serde::{Deserialize, Serialize};

use super::NAME;
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::options::{Method, Moments, Options, Value};
use crate::rows::Layout;
use crate::sketch::{schema_from_bytes, schema_to_bytes};
use crate::sql::planner::from_scalar;

/// What the hidden argument starts with.
const PREFIX: &str = "datafusion-distill call 1 ";

/// The label of a layout where GROUP BY doesn't tell it.
const NO_LABEL: &str = "__distill_no_label";

/// Options that say how a sketch is made; the others are given to `distill` when it takes the sketch.
const OPTIONS: &[&str] = &[
    "ipc",
    "rows",
    "allocation",
    "label",
    "categorical",
    "method",
    "terms",
    "extractors",
    "network",
    "width",
    "depth",
    "layers",
    "sizes",
    "pool",
    "perturb",
    "pool_file",
    "frequencies",
    "frequency_scales",
    "init",
    "augment",
    "image_size",
    "ranges",
    "curve",
    "reservoir_per_class",
    "moments",
    "moment_dim",
    "on_null",
    "seed",
    "device",
    "threads",
];

/// A resolved call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    /// The options that differ from the defaults.
    options: Vec<(String, String)>,
    /// The source's schema, an Arrow IPC message in hexadecimal.
    schema: String,
    /// The feature columns, in the order of the arguments.
    pub(super) features: Vec<String>,
    /// The label column.
    label: Option<String>,
}

impl Call {
    /// The call over columns `features` of `schema`, grouped by `label`. Options of the session that don't matter here are left out.
    pub(super) fn new(options: &Options, schema: &Schema, features: Vec<String>, label: Option<String>) -> Self {
        let options = options.changed().into_iter();
        let options = options.filter(|(name, _)| OPTIONS.contains(name) && *name != "label");
        Self {
            options: options.map(|(name, value)| (name.to_string(), value)).collect(),
            schema: schema_to_bytes(schema).iter().map(|byte| format!("{byte:02x}")).collect(),
            features,
            label,
        }
    }

    /// The call from its hidden argument.
    pub(super) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| internal_datafusion_err!("{NAME}: a call that can't be read: {e}"))
    }

    /// The hidden argument.
    pub(super) fn literal(&self) -> Result<Expr> {
        let text = serde_json::to_string(self).map_err(|e| internal_datafusion_err!("{NAME}: {e}"))?;
        Ok(Expr::Literal(ScalarValue::Utf8(Some(format!("{PREFIX}{text}"))), None))
    }

    fn schema(&self) -> crate::Result<SchemaRef> {
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
        let bytes: Option<Vec<u8>> = self.schema.as_bytes().chunks(2).map(byte).collect();
        let schema = bytes.ok_or_else(|| "not hexadecimal".to_string()).and_then(|bytes| schema_from_bytes(&bytes));
        Ok(Arc::new(
            schema.map_err(|e| crate::Error::Schema(format!("the schema of a planned call can't be read: {e}")))?,
        ))
    }

    /// The options, and the layout of the source's rows.
    pub(super) fn layout(&self) -> crate::Result<(Layout, Options)> {
        let mut options = Options::default();
        for (name, value) in &self.options {
            options.set(name, &Value::Text(value.clone()))?;
        }
        options.features = Some(self.features.clone());
        options.label = Some(self.label.clone().unwrap_or_else(|| NO_LABEL.into()));
        if options.method == Method::Auto {
            // What is stored for long is as large as was asked for.
            options.moments.get_or_insert(Moments::None);
        }
        let mut schema = self.schema()?;
        if self.label.is_none() {
            let fields = schema.fields().iter().cloned();
            let fields: Vec<_> = fields.chain([Arc::new(Field::new(NO_LABEL, DataType::Int64, true))]).collect();
            schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        }
        let layout = Layout::infer(&schema, &options)?;
        Ok((layout, options))
    }

    /// The option `pool_file`.
    pub(super) fn pool_file(&self) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == "pool_file").map(|(_, path)| path.as_str())
    }

    /// Whether the label is known.
    pub(super) fn has_label(&self) -> bool {
        self.label.is_some()
    }
}

/// The resolved call in a constant; none for any other constant.
pub(super) fn hidden(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            text.strip_prefix(PREFIX)
        }
        _ => None,
    }
}

/// Whether the call has been resolved.
pub(super) fn is_resolved(params: &AggregateFunctionParams) -> bool {
    matches!(params.args.last(), Some(Expr::Literal(value, _)) if hidden(value).is_some())
}

/// The call as the user wrote it.
pub(super) fn as_written(params: &AggregateFunctionParams) -> AggregateFunctionParams {
    let mut params = params.clone();
    if is_resolved(&params) {
        params.args.pop();
    }
    params
}

/// Sets the options of the constant that ends the call.
pub(super) fn set_options(options: &mut Options, constant: &ScalarValue) -> Result<()> {
    let planned = |e: crate::Error| plan_datafusion_err!("{NAME}: {e}");
    let given = match constant {
        ScalarValue::Struct(fields) if fields.columns().iter().all(|c| c.len() == 1) => {
            let mut names = vec![];
            for (field, column) in fields.fields().iter().zip(fields.columns()) {
                let value = ScalarValue::try_from_array(column, 0)?;
                let value = from_scalar(&value).ok_or_else(|| {
                    plan_datafusion_err!("{NAME}: option '{}': expected a number, text or a list of them", field.name())
                })?;
                options.set(field.name(), &value).map_err(planned)?;
                names.push(field.name().clone());
            }
            names
        }
        other => match from_scalar(other) {
            Some(Value::Text(text)) => options.set_text(&text).map_err(planned)?,
            Some(Value::Null) => vec![],
            _ => {
                return plan_err!(
                    "{NAME}: its options are a struct literal, {{'extractors': 4, 'seed': 7}}, or one text, 'extractors=4 seed=7', found {other}"
                );
            }
        },
    };
    if let Some(other) = given.iter().find(|name| !OPTIONS.contains(&name.as_str())) {
        return Err(DataFusionError::Plan(format!(
            "{NAME}: option '{other}' says nothing about a sketch; give it to distill, with the sketches as its source"
        )));
    }
    crate::options::check_given(given.iter().map(String::as_str)).map_err(planned)?;
    options.check().map_err(planned)
}
