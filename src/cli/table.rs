//! Record batches, or rows of text, flow in; a table that fits on a screen flows out.

use std::fmt::Write;
use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, AsArray, StringArray, StructArray};
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crate::arrow::error::ArrowError;
use crate::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crate::arrow::util::pretty::pretty_format_batches;

/// Longest list that is shown in full.
const SHOWN: usize = 16;

/// `batches` as a table, with the size of binary values and long lists in their place.
pub(super) fn pretty(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, ArrowError> {
    // A column is shortened in all batches or in none, so that they keep one schema.
    let long: Vec<bool> =
        (0..schema.fields().len()).map(|i| batches.iter().any(|batch| has_long_lists(batch.column(i)))).collect();
    let shortened = |batch: &RecordBatch| {
        let (mut fields, mut columns) = (vec![], vec![]);
        for (i, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
            let column = short(column, long[i])?;
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
    };
    let batches = batches.iter().map(shortened).collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        return Ok(pretty_format_batches(&[RecordBatch::new_empty(Arc::clone(schema))])?.to_string());
    }
    Ok(pretty_format_batches(&batches)?.to_string())
}

fn has_long_lists(array: &ArrayRef) -> bool {
    let length = |i| list_value(array, i).map_or(0, |v| v.len());
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().any(has_long_lists),
        t => {
            is_list(t)
                && (0..array.len())
                    .any(|i| length(i) > SHOWN || list_value(array, i).is_some_and(|v| is_list(v.data_type())))
        }
    }
}

fn is_list(t: &DataType) -> bool {
    matches!(t, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _))
}

fn list_value(array: &ArrayRef, i: usize) -> Option<ArrayRef> {
    match array.data_type() {
        _ if array.is_null(i) => None,
        DataType::List(_) => Some(array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(_, _) => Some(array.as_fixed_size_list().value(i)),
        _ => None,
    }
}

fn short(array: &ArrayRef, long: bool) -> Result<ArrayRef, ArrowError> {
    let sizes = |size: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..array.len()).map(|i| array.is_valid(i).then(|| size(i))).collect::<StringArray>())
    };
    let bytes = |n: usize| format!("{n} bytes");
    Ok(match array.data_type() {
        DataType::Binary => sizes(&|i| bytes(array.as_binary::<i32>().value(i).len())),
        DataType::LargeBinary => sizes(&|i| bytes(array.as_binary::<i64>().value(i).len())),
        DataType::BinaryView => sizes(&|i| bytes(array.as_binary_view().value(i).len())),
        DataType::FixedSizeBinary(n) => sizes(&|_| bytes(*n as usize)),
        DataType::Struct(_) => {
            let array = array.as_struct();
            let columns = array.columns().iter().map(|c| short(c, long)).collect::<Result<Vec<_>, _>>()?;
            let named = array.fields().iter().zip(&columns);
            let fields = named.map(|(f, c)| Field::new(f.name(), c.data_type().clone(), true)).collect();
            Arc::new(StructArray::try_new(fields, columns, array.nulls().cloned())?)
        }
        t if long && is_list(t) => sizes(&|i| list_value(array, i).map_or_else(String::new, |v| list_size(&v))),
        _ => Arc::clone(array),
    })
}

/// `784 x Float32`; `3 x 32 x 32 x UInt8` for lists of lists, told by their first row.
fn list_size(values: &ArrayRef) -> String {
    match values.data_type() {
        t if is_list(t) && !values.is_empty() => {
            let inner = list_value(values, 0).map_or_else(String::new, |v| list_size(&v));
            format!("{} x {inner}", values.len())
        }
        t => format!("{} x {t}", values.len()),
    }
}

/// `rows` under `header`, columns aligned: the first to the left, the others, which are numbers, to the right.
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    lines(header, rows, |column| column > 0)
}

/// `rows` under `header`, all columns aligned to the left.
pub(super) fn left_aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    lines(header, rows, |_| false)
}

fn lines(header: &[&str], rows: &[Vec<String>], to_the_right: impl Fn(usize) -> bool) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = header.iter().map(|h| width(h)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let mut out = String::new();
    let header: Vec<String> = header.iter().map(|h| (*h).to_string()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (i, (cell, w)) in row.iter().zip(&widths).enumerate() {
            let pad = w - width(cell);
            let gap = if i == 0 { "" } else { "  " };
            // Writing to a string can't fail.
            let _ = if to_the_right(i) {
                write!(line, "{gap}{:pad$}{cell}", "")
            } else {
                write!(line, "{gap}{cell}{:pad$}", "")
            };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::array::{BinaryArray, Float32Array, Int64Array, ListArray};
    use crate::arrow::buffer::OffsetBuffer;

    #[test]
    fn pictures_and_long_lists_are_shown_by_their_size() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(b"abc"), None]));
        let path: ArrayRef = Arc::new(StringArray::from(vec![Some("a.png"), None]));
        let picture = StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
            (Arc::new(Field::new("path", DataType::Utf8, true)), path),
        ]);
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let values = Arc::new(Float32Array::from(vec![0.5; 60]));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([30, 30]), values, None);
        let schema = Arc::new(Schema::new(vec![
            Field::new("image", picture.data_type().clone(), true),
            Field::new("pixels", list.data_type().clone(), true),
            Field::new("label", DataType::Int64, false),
        ]));
        let columns: Vec<ArrayRef> = vec![Arc::new(picture), Arc::new(list), Arc::new(Int64Array::from(vec![3, 4]))];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        insta::assert_snapshot!(pretty(&schema, &[batch]).unwrap(), @r"
        +-------------------------------+--------------+-------+
        | image                         | pixels       | label |
        +-------------------------------+--------------+-------+
        | {bytes: 3 bytes, path: a.png} | 30 x Float32 | 3     |
        | {bytes: , path: }             | 30 x Float32 | 4     |
        +-------------------------------+--------------+-------+
        ");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["random".to_string(), "5".into()], vec!["a".into(), "1,000".into()]];
        assert_eq!(aligned(&["set", "rows"], &rows), "set      rows\nrandom      5\na       1,000\n");
    }
}
