//! `distill_difference(a, b)`: a sketch and part of it flow in, the sketch of the other rows flows out, exactly.

use std::sync::Arc;

use datafusion::common::cast::as_struct_array;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::sketch_values::sketch_arguments;
use crate::arrow::array::{Array, ArrayRef, new_null_array};
use crate::arrow::compute::concat;
use crate::arrow::datatypes::DataType;
use crate::sketch::{self, ClassSketch, Header, LeftSums, SketchColumn};

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
        let [sketches, parts] = &arrays[..] else { return plan_err!("{NAME} takes two columns of sketches") };
        let (sketches, parts) = (as_struct_array(sketches)?, as_struct_array(parts)?);
        // Kept rows are told by their hashes; whether their numbers have them is for who reads the rows.
        let (mut wholes, mut taken) = (SketchColumn::new(sketches), SketchColumn::new(parts));
        let mut out: Vec<ArrayRef> = vec![];
        // Rows made with one header, as those of a column are, go to Arrow together.
        let mut together: Option<Together> = None;
        // The headers that were joined last, and what they are together.
        let mut joined: Option<(Header, Header, Header)> = None;
        for row in 0..sketches.len() {
            if sketches.is_null(row) {
                flush(together.take(), &mut out)?;
                out.push(new_null_array(&sketch::data_type(), 1));
                continue;
            }
            // Sums are looked at as they are subtracted.
            let mut rest = wholes.read_unchecked(row, None)?;
            let part = if parts.is_null(row) { None } else { Some(taken.read_unchecked(row, None)?) };
            let header = match (wholes.header(), part.as_ref().and_then(|_| taken.header())) {
                (Some(ours), Some(theirs)) => {
                    if joined.as_ref().is_none_or(|(a, b, _)| (a, b) != (ours, theirs)) {
                        let mut both = ours.clone();
                        both.join(theirs)?;
                        joined = Some((ours.clone(), theirs.clone(), both));
                    }
                    joined.as_ref().map(|(_, _, both)| both)
                }
                (ours, _) => ours,
            };
            let Some(header) = header else { return internal_err!("a sketch without a header") };
            if together.as_ref().is_none_or(|together| together.header != *header) {
                let left = LeftSums::for_sketches(sketches.len() - row, &rest);
                let new = Together { header: header.clone(), sketches: vec![], left };
                flush(together.replace(new), &mut out)?;
            }
            let Some(together) = &mut together else { return internal_err!("sketches of no header") };
            let part = part.unwrap_or_else(|| ClassSketch::empty(header));
            if !rest.subtract_to(&part, &mut together.left)? {
                // Says what is wrong.
                wholes.read(row, None)?;
                taken.read(row, None)?;
                return internal_err!("sums of row {row} that are too large, and aren't");
            }
            together.sketches.push(rest);
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

/// Sketches that share a header, and their sums.
struct Together {
    header: Header,
    sketches: Vec<ClassSketch>,
    left: LeftSums,
}

/// Appends sketches that share a header.
fn flush(together: Option<Together>, out: &mut Vec<ArrayRef>) -> Result<()> {
    if let Some(Together { header, sketches, left }) = together {
        out.push(Arc::new(sketch::with_left_sums(&header, &sketches, left)?));
    }
    Ok(())
}
