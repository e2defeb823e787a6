//! Arguments of SQL functions flow in, the sketches in them flow out.

use datafusion::common::cast::as_struct_array;
use datafusion::common::plan_err;
use datafusion::error::Result;

use crate::arrow::array::{Array, ArrayRef, StructArray};
use crate::arrow::datatypes::DataType;
use crate::sketch::{self, ClassSketch, Header};

/// The types that function `name` takes its `count` sketches as; an error where `types` aren't sketches.
pub(super) fn sketch_arguments(name: &str, types: &[DataType], count: usize) -> Result<Vec<DataType>> {
    let takes = match count {
        1 => "one column of sketches".to_string(),
        count => format!("{count} columns of sketches"),
    };
    if types.len() != count {
        return plan_err!("{name} takes {takes}, found {types:?}");
    }
    for found in types {
        match found {
            DataType::Null => {}
            found if sketch::is_sketch(found) => {}
            DataType::Struct(_) => return plan_err!("{name} takes {takes}, found a struct with other fields"),
            found => return plan_err!("{name} takes {takes}, found {found}"),
        }
    }
    Ok(vec![sketch::data_type(); count])
}

/// The sketch in row `row`; none for NULL.
pub(super) fn sketch_in(array: &ArrayRef, row: usize) -> Result<Option<(Header, ClassSketch)>> {
    let structs: &StructArray = as_struct_array(array)?;
    if structs.is_null(row) { Ok(None) } else { Ok(Some(sketch::from_array(structs, row)?)) }
}
