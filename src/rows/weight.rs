//! A schema of synthetic rows flows in; the same with a column of weights flows out.

use std::sync::Arc;

use crate::arrow::array::{ArrayRef, Float64Array};
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::hugging_face::HuggingFace;

/// `schema` and, where option `weight` names it, a last column of Float64 without NULLs: how many real rows of its class a
/// synthetic row stands for. Hugging Face features, where there are any, describe it too.
///
/// Fails with [`Error::Option`] where the schema has a column of that name.
pub fn with_weight_column(schema: &SchemaRef, options: &Options) -> Result<SchemaRef> {
    let Some(name) = &options.weight else { return Ok(schema.clone()) };
    if schema.fields().iter().any(|field| field.name() == name) {
        let message = format!("the source has a column '{name}'; choose another name for the column of weights");
        return Err(Error::option("weight", message));
    }
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(name, DataType::Float64, false)));
    let metadata = HuggingFace::of(schema).with_number(schema.metadata(), name);
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// `weights`, one a row, as that column.
pub fn weight_array(weights: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::array::Int64Array;
    use crate::arrow::record_batch::RecordBatch;

    const FEATURES: &str = r#"{"info":{"features":{"label":{"dtype":"int64","_type":"Value"}}}}"#;

    fn schema() -> SchemaRef {
        let schema = Schema::new(vec![Field::new("label", DataType::Int64, true)]);
        Arc::new(schema.with_metadata([("huggingface".to_string(), FEATURES.to_string())].into()))
    }

    fn options(weight: Option<&str>) -> Options {
        Options { weight: weight.map(str::to_string), ..Options::default() }
    }

    #[test]
    fn the_column_comes_last_is_never_null_and_is_a_hugging_face_feature() {
        let weighted = with_weight_column(&schema(), &options(Some("n"))).unwrap();
        assert_eq!(weighted.fields()[1].as_ref(), &Field::new("n", DataType::Float64, false));
        let json: serde_json::Value = serde_json::from_str(&weighted.metadata()["huggingface"]).unwrap();
        assert_eq!(json["info"]["features"]["n"]["dtype"], "float64");
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2])), weight_array(vec![2.5, 4.0])];
        RecordBatch::try_new(weighted, columns).unwrap();
    }

    #[test]
    fn without_the_option_nothing_changes_and_a_name_that_is_taken_is_refused() {
        assert_eq!(with_weight_column(&schema(), &options(None)).unwrap(), schema());
        let e = with_weight_column(&schema(), &options(Some("label"))).unwrap_err().to_string();
        assert!(e.contains("'weight'") && e.contains("'label'"), "{e}");
    }
}
