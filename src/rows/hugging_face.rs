//! A schema's `huggingface` metadata flows in; what it says about each column flows out.
//!
//! The `datasets` library keeps its own description of the columns as JSON under the schema metadata key `huggingface`:
//! `{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}`.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::arrow::datatypes::Schema;

/// The key of the schema metadata.
const KEY: &str = "huggingface";

/// What the metadata says; says nothing where it is absent or not understood.
pub(super) struct HuggingFace(Value);

impl HuggingFace {
    pub(super) fn of(schema: &Schema) -> Self {
        Self::of_metadata(schema.metadata())
    }

    pub(super) fn of_metadata(metadata: &HashMap<String, String>) -> Self {
        let metadata = metadata.get(KEY).and_then(|text| serde_json::from_str(text).ok());
        Self(metadata.unwrap_or(Value::Null))
    }

    fn feature(&self, column: &str) -> Option<&Value> {
        self.0.get("info")?.get("features")?.get(column)
    }

    fn is(&self, column: &str, kind: &str) -> bool {
        self.feature(column).and_then(|f| f.get("_type")).and_then(Value::as_str) == Some(kind)
    }

    pub(super) fn is_class_label(&self, column: &str) -> bool {
        self.is(column, "ClassLabel")
    }

    pub(super) fn is_image(&self, column: &str) -> bool {
        self.is(column, "Image")
    }

    /// The names of a ClassLabel, by label value.
    pub(super) fn class_names(&self, column: &str) -> Option<Vec<String>> {
        let names = self.feature(column).filter(|_| self.is_class_label(column))?.get("names")?.as_array()?;
        let text = |name: &Value| name.as_str().map_or_else(|| name.to_string(), str::to_string);
        (!names.is_empty()).then(|| names.iter().map(text).collect())
    }

    /// The dimensions of an Array2D or Array3D.
    pub(super) fn array_dims(&self, column: &str) -> Option<Vec<usize>> {
        let feature = self.feature(column).filter(|_| self.is(column, "Array2D") || self.is(column, "Array3D"))?;
        let dims: Vec<usize> =
            feature.get("shape")?.as_array()?.iter().map(|d| d.as_u64().map(|d| d as usize)).collect::<Option<_>>()?;
        let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        (count <= i32::MAX as usize).then_some(dims)
    }

    /// `metadata` with `column` described as lists of lists of lists of f32, the form that `encoding => 'tensor'` writes.
    ///
    /// `Sequence` is read by every version of `datasets`, later ones call the same thing `List`.
    pub(super) fn with_tensor(mut self, metadata: &HashMap<String, String>, column: &str) -> HashMap<String, String> {
        let mut metadata = metadata.clone();
        let feature = self.0.pointer_mut("/info/features").and_then(|f| f.get_mut(column));
        if let Some(feature) = feature {
            *feature = (0..3).fold(
                json!({"dtype": "float32", "_type": "Value"}),
                |inner, _| json!({"feature": inner, "_type": "Sequence"}),
            );
            metadata.insert(KEY.into(), self.0.to_string());
        }
        metadata
    }

    /// `metadata` without a description of `column`.
    pub(super) fn without(mut self, metadata: &HashMap<String, String>, column: &str) -> HashMap<String, String> {
        let mut metadata = metadata.clone();
        let features = self.0.pointer_mut("/info/features").and_then(Value::as_object_mut);
        if features.is_some_and(|features| features.shift_remove(column).is_some()) {
            metadata.insert(KEY.into(), self.0.to_string());
        }
        metadata
    }

    /// `metadata` with a further `column` of Float64, if it describes columns: `datasets` refuses a file that has others.
    pub(super) fn with_number(self, metadata: &HashMap<String, String>, column: &str) -> HashMap<String, String> {
        self.with_feature(metadata, column, json!({"dtype": "float64", "_type": "Value"}))
    }

    /// The metadata with a column of u8 described too.
    pub(super) fn with_byte(self, metadata: &HashMap<String, String>, column: &str) -> HashMap<String, String> {
        self.with_feature(metadata, column, json!({"dtype": "uint8", "_type": "Value"}))
    }

    /// The metadata with a column of lists of f32 described too.
    pub(super) fn with_numbers(self, metadata: &HashMap<String, String>, column: &str) -> HashMap<String, String> {
        self.with_feature(
            metadata,
            column,
            json!({"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}),
        )
    }

    fn with_feature(
        mut self,
        metadata: &HashMap<String, String>,
        column: &str,
        feature: Value,
    ) -> HashMap<String, String> {
        let mut metadata = metadata.clone();
        if let Some(features) = self.0.pointer_mut("/info/features").and_then(Value::as_object_mut) {
            features.insert(column.into(), feature);
            metadata.insert(KEY.into(), self.0.to_string());
        }
        metadata
    }
}
