//! A schema or a batch of synthetic rows flows in; the same with a column of soft labels flows out.

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray};
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::compute::cast;
use crate::arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use crate::error::{Error, Result};
use crate::options::{LabelKind, Options};
use crate::rows::hugging_face::HuggingFace;

/// The column's name.
pub const SOFT_LABEL: &str = "soft_label";

/// The key of the column's own metadata that says what order the classes have.
const ORDER_KEY: &str = "datafusion-distill.classes";
/// What it says: the file's own labels are the classes, since every class has rows.
const ORDER: &str = "ascending values of the label column";

/// `schema` and, where option `label_kind` is `soft`, a last column of lists of Float32: each row's share of each class, 1 in all. The classes are the
/// distinct labels of the rows, ascending. Hugging Face features, where there are any, describe it too.
///
/// Fails with [`Error::Option`] where the schema has a column of that name.
pub fn with_soft_label_column(schema: &SchemaRef, options: &Options) -> Result<SchemaRef> {
    if options.label_kind == LabelKind::Hard {
        return Ok(schema.clone());
    }
    if schema.fields().iter().any(|field| field.name() == SOFT_LABEL) {
        let message = format!("'soft' adds a column '{SOFT_LABEL}', and the source has one; leave it out with exclude");
        return Err(Error::option("label_kind", message));
    }
    let mut fields = schema.fields().to_vec();
    let item = Field::new_list_field(DataType::Float32, false);
    let field = Field::new(SOFT_LABEL, DataType::List(Arc::new(item)), false);
    fields.push(Arc::new(field.with_metadata([(ORDER_KEY.to_string(), ORDER.to_string())].into())));
    let metadata = HuggingFace::of(schema).with_numbers(schema.metadata(), SOFT_LABEL);
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// Whether rows of `schema` have such a column: it is told by name and type, as notes about a file don't survive a query.
pub fn has_soft_labels(schema: &Schema) -> bool {
    let list = |field: &Field| match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            matches!(item.data_type(), DataType::Float32 | DataType::Float64)
        }
        _ => false,
    };
    schema.column_with_name(SOFT_LABEL).is_some_and(|(_, field)| list(field))
}

/// `shares` `[pictures, classes]` as that column, whose row i holds `pictures[i]` of them (or is itself one row: 1).
pub fn soft_label_array(shares: Vec<f32>, classes: usize, pictures: &[usize]) -> Result<ArrayRef> {
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    if i32::try_from(shares.len()).is_err() {
        return Err(Error::Data(format!("{} shares of classes are too many for a column of lists", shares.len())));
    }
    let lengths = OffsetBuffer::from_lengths(pictures.iter().map(|pictures| pictures * classes));
    Ok(Arc::new(ListArray::try_new(item, lengths, Arc::new(Float32Array::from(shares)), None)?))
}

/// The shares `[pictures, classes]` in such a column of source `name`, whose row i holds `pictures[i]` of them (or is itself one row: 1).
///
/// Fails where the lists don't have one share for each of `classes` classes of each picture, or a share is not a number of at least 0.
pub fn soft_labels(name: &str, column: &dyn Array, classes: usize, pictures: &[usize]) -> Result<Vec<f32>> {
    let held = |row: usize| pictures.get(row).copied().unwrap_or(1);
    let wrong = |row: usize, found: String| {
        let (held, count) = (held(row), classes * held(row));
        let of = if held > 1 { format!(" for each of {held} pictures") } else { String::new() };
        Error::column(
            SOFT_LABEL,
            format!(
                "{name}, row {row}: expected {count} shares of the {classes} classes of the label column{of}, found {found}"
            ),
        )
    };
    let lists = cast(column, &DataType::new_list(DataType::Float32, true))?;
    let lists = lists.as_list::<i32>();
    let mut shares = Vec::with_capacity(lists.values().len());
    for row in 0..lists.len() {
        if lists.is_null(row) {
            return Err(wrong(row, "NULL".into()));
        }
        let list = lists.value(row);
        let numbers = list.as_primitive::<Float32Type>();
        if numbers.len() != classes * held(row) || numbers.null_count() > 0 {
            return Err(wrong(row, format!("{} numbers, {} of them NULL", numbers.len(), numbers.null_count())));
        }
        match numbers.values().iter().find(|share| !(share.is_finite() && **share >= 0.0)) {
            Some(share) => return Err(wrong(row, share.to_string())),
            None => shares.extend_from_slice(numbers.values()),
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("label", DataType::Int64, true)]))
    }

    #[test]
    fn the_column_comes_last_and_what_is_written_is_read_back() {
        let soft = Options { label_kind: LabelKind::Soft, ..Options::default() };
        let schema = with_soft_label_column(&schema(), &soft).unwrap();
        let array = soft_label_array(vec![0.75, 0.25, 0.0, 1.0], 2, &[1, 1]).unwrap();
        assert_eq!(schema.field(1).data_type(), array.data_type());
        assert_eq!(schema.field(1).name(), "soft_label");
        assert!(has_soft_labels(&schema) && !has_soft_labels(&self::schema()));
        assert!(schema.field(1).metadata()[ORDER_KEY].contains("ascending"));
        assert_eq!(soft_labels("t", &array, 2, &[1, 1]).unwrap(), [0.75, 0.25, 0.0, 1.0]);
        let e = soft_labels("t", &array, 3, &[1, 1]).unwrap_err().to_string();
        assert!(
            e.contains("'soft_label'") && e.contains("row 0") && e.contains("3 classes") && e.contains("2 numbers"),
            "{e}"
        );
        let negative = soft_label_array(vec![1.0, 0.0, 1.5, -0.5], 2, &[1, 1]).unwrap();
        assert!(soft_labels("t", &negative, 2, &[1, 1]).unwrap_err().to_string().contains("row 1"));
        // Of a row that holds two and one that is whole.
        let mixed = soft_label_array(vec![1.0, 0.0, 0.75, 0.25, 0.5, 0.5], 2, &[2, 1]).unwrap();
        assert_eq!(soft_labels("t", &mixed, 2, &[2, 1]).unwrap(), [1.0, 0.0, 0.75, 0.25, 0.5, 0.5]);
        let e = soft_labels("t", &mixed, 2, &[2, 2]).unwrap_err().to_string();
        assert!(e.contains("row 1") && e.contains("4 shares") && e.contains("2 pictures"), "{e}");
    }

    #[test]
    fn hard_labels_add_nothing_and_a_name_that_is_taken_is_refused() {
        assert_eq!(with_soft_label_column(&schema(), &Options::default()).unwrap(), schema());
        let taken = Arc::new(Schema::new(vec![Field::new(SOFT_LABEL, DataType::Int64, true)]));
        let soft = Options { label_kind: LabelKind::Soft, ..Options::default() };
        let e = with_soft_label_column(&taken, &soft).unwrap_err().to_string();
        assert!(e.contains("'label_kind'") && e.contains("exclude"), "{e}");
    }
}
