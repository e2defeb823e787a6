//! `distill_describe(s)`: a sketch flows in, what it is of and what it was made with, in words and numbers, flow out.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::sketch_values::{sketch_arguments, sketch_in};
use crate::arrow::array::{Array, ArrayRef, Int64Array, StringArray, StructArray};
use crate::arrow::buffer::NullBuffer;
use crate::arrow::datatypes::{DataType, Field, Fields};
use crate::extract::Source;
use crate::sketch::{ClassSketch, FORMAT, Header};

/// The function's name.
const NAME: &str = "distill_describe";

/// The function `distill_describe(sketch) -> struct`: with the source's columns, the pool, and what is counted. NULL if `sketch` is.
pub fn distill_describe_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(Describe { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Describe {
    signature: Signature,
}

/// What one field says.
enum Said {
    Text(fn(&Header, &ClassSketch) -> Option<String>),
    Number(fn(&Header, &ClassSketch) -> Option<u64>),
}

/// The fields of the answer, in order.
const FIELDS: &[(&str, Said)] = &[
    ("format", Said::Text(|_, _| Some(FORMAT.into()))),
    ("rows", Said::Number(|_, s| Some(s.count))),
    ("shape", Said::Text(|h, _| Some(h.recipe.shape.to_string()))),
    ("scaling", Said::Text(|h, _| Some(h.recipe.scaling.described()))),
    ("label", Said::Text(|h, _| h.origin.as_ref()?.label.clone())),
    (
        "features",
        Said::Text(|h, _| {
            let names: Vec<&str> = h.origin.as_ref()?.features.iter().map(|f| f.name.as_str()).collect();
            Some(names.join(", "))
        }),
    ),
    ("pool", Said::Text(|h, _| Some(h.pool.clone()))),
    (
        "pool_source",
        Said::Text(|h, _| {
            Some(match &h.recipe.source {
                Source::Random { seed } => format!("random, seed {seed}"),
                Source::File { path } => path.clone(),
            })
        }),
    ),
    ("network", Said::Text(|h, _| Some(h.recipe.network.to_string()))),
    ("extractors", Said::Number(|h, _| Some(h.recipe.extractors as u64))),
    ("width", Said::Number(|h, _| Some(h.recipe.width as u64))),
    ("depth", Said::Number(|h, _| Some(h.recipe.depth as u64))),
    ("feature_length", Said::Number(|h, _| Some(h.recipe.feature_len() as u64))),
    ("frequencies", Said::Number(|h, _| Some(h.frequencies as u64))),
    ("frequency_scales", Said::Text(|h, _| (h.frequencies > 0).then(|| h.frequency_scales.to_string()))),
    ("frequency_seed", Said::Number(|h, _| Some(h.frequency_seed))),
    ("clipped", Said::Number(|_, s| Some(s.clipped))),
    ("reservoir_rows", Said::Number(|_, s| Some(s.reservoir.rows.len() as u64))),
    ("reservoir_capacity", Said::Number(|h, _| Some(h.reservoir as u64))),
    ("numerics", Said::Text(|h, _| Some(h.numerics.clone()))),
    ("bytes", Said::Number(|_, s| Some(s.bytes() as u64))),
];

fn fields() -> Fields {
    let data_type = |said: &Said| match said {
        Said::Text(_) => DataType::Utf8,
        Said::Number(_) => DataType::Int64,
    };
    FIELDS.iter().map(|(name, said)| Field::new(*name, data_type(said), true)).collect()
}

impl ScalarUDFImpl for Describe {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        sketch_arguments(NAME, types, 1)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = arrays.first().map_or(0, |a| a.len());
        let sketches = (0..rows).map(|row| sketch_in(&arrays[0], row)).collect::<Result<Vec<_>>>()?;
        let column = |(_, said): &(&str, Said)| -> ArrayRef {
            let said_of = sketches.iter().map(Option::as_ref);
            match said {
                Said::Text(of) => Arc::new(said_of.map(|s| s.and_then(|(h, s)| of(h, s))).collect::<StringArray>()),
                Said::Number(of) => {
                    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                    Arc::new(said_of.map(|s| s.and_then(|(h, s)| of(h, s)).map(whole)).collect::<Int64Array>())
                }
            }
        };
        let nulls: NullBuffer = sketches.iter().map(Option::is_some).collect();
        let columns = FIELDS.iter().map(column).collect();
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new_with_length(fields(), columns, Some(nulls), rows)?)))
    }
}
