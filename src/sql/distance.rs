//! `distill_distance(a, b)`: two sketches of one class flow in, how far apart their rows are, and how far chance would put them, flow out.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::sketch_values::{sketch_arguments, sketch_in};
use crate::arrow::array::{Array, ArrayRef, Float64Array, StructArray};
use crate::arrow::buffer::NullBuffer;
use crate::arrow::datatypes::{DataType, Field, Fields};
use crate::sketch;

/// The function's name.
const NAME: &str = "distill_distance";

/// The function `distill_distance(a, b) -> struct<distance: double, chance: double>`, see [`sketch::distance`].
///
/// NULL where one of them is NULL or has fewer than two rows. Sketches that were made differently are refused with both values named.
pub fn distill_distance_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(Distance { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Distance {
    signature: Signature,
}

fn fields() -> Fields {
    ["distance", "chance"].iter().map(|name| Field::new(*name, DataType::Float64, true)).collect()
}

impl ScalarUDFImpl for Distance {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        sketch_arguments(NAME, types, 2)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = arrays.first().map_or(0, |a| a.len());
        let mut found = vec![];
        for row in 0..rows {
            found.push(match (sketch_in(&arrays[0], row)?, sketch_in(&arrays[1], row)?) {
                (Some((mut ours, a)), Some((theirs, b))) => {
                    ours.join(&theirs)?;
                    sketch::distance(&a, &b)?
                }
                _ => None,
            });
        }
        let column = |get: fn(&sketch::Distance) -> f64| {
            let values: Float64Array = found.iter().map(|d| d.as_ref().map(get)).collect();
            Arc::new(values) as ArrayRef
        };
        let nulls: NullBuffer = found.iter().map(Option::is_some).collect();
        let columns = vec![column(|d| d.distance), column(|d| d.chance)];
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new_with_length(fields(), columns, Some(nulls), rows)?)))
    }
}
