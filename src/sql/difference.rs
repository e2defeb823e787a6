//! `distill_difference(a, b)`: a sketch and part of it flow in, the sketch of the other rows flows out, exactly.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::sketch_values::{sketch_arguments, sketch_in};
use crate::arrow::array::{Array, ArrayRef, new_null_array};
use crate::arrow::compute::concat;
use crate::arrow::datatypes::DataType;
use crate::sketch::{self, ClassSketch, Header};

/// The function's name.
pub(super) const NAME: &str = "distill_difference";

/// The function `distill_difference(sketch, part) -> sketch`: the rows of `part` taken back from `sketch`.
///
/// Sums are exactly those of a fresh sketch of the other rows. The reservoir keeps the rows up to the largest hash that was kept before: a uniform
/// draw, maybe of fewer rows. A `part` that can't be one (more rows, a row that isn't there, sums that can't be left) is refused. NULL if
/// `sketch` is; `sketch` itself where `part` is NULL.
pub fn distill_difference_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(Difference { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Difference {
    signature: Signature,
}

impl ScalarUDFImpl for Difference {
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
        Ok(sketch::data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = arrays.first().map_or(0, |a| a.len());
        let mut out: Vec<ArrayRef> = vec![];
        // Rows made with one header, as those of a column are, go to Arrow together.
        let mut together: Option<(Header, Vec<ClassSketch>)> = None;
        for row in 0..rows {
            let rest = match sketch_in(&arrays[0], row)? {
                None => None,
                Some((mut header, mut rest)) => {
                    if let Some((theirs, part)) = sketch_in(&arrays[1], row)? {
                        header.join(&theirs)?;
                        rest.subtract(&part)?;
                    }
                    Some((header, rest))
                }
            };
            match (&mut together, rest) {
                (Some((header, sketches)), Some((own, rest))) if *header == own => sketches.push(rest),
                (_, Some((header, rest))) => {
                    flush(together.replace((header, vec![rest])), &mut out)?;
                }
                (_, None) => {
                    flush(together.take(), &mut out)?;
                    out.push(new_null_array(&sketch::data_type(), 1));
                }
            }
        }
        flush(together, &mut out)?;
        let out: Vec<&dyn Array> = out.iter().map(|a| a.as_ref()).collect();
        match out[..] {
            [] => Ok(ColumnarValue::Array(new_null_array(&sketch::data_type(), 0))),
            [one] => Ok(ColumnarValue::Array(one.slice(0, one.len()))),
            _ => Ok(ColumnarValue::Array(concat(&out)?)),
        }
    }
}

/// Appends sketches that share a header.
fn flush(sketches: Option<(Header, Vec<ClassSketch>)>, out: &mut Vec<ArrayRef>) -> Result<()> {
    if let Some((header, sketches)) = sketches {
        out.push(Arc::new(sketch::to_array(&header, &sketches)?));
    }
    Ok(())
}
