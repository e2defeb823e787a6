//! Synthetic numbers with labels flow in, a record batch in the source's schema flows out.

use std::sync::Arc;

use crate::arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray,
    StructArray, new_null_array,
};
use crate::arrow::datatypes::{DataType, Field};
use crate::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::form::{Order, append_stored, storage_dims};
use crate::rows::layout::tensor_type;
use crate::rows::{FeatureKind, Label, Layout, Role, Shape, lists, picture};

/// `values` `[labels.len(), shape.len()]`, in the input's units, as a batch of `layout.output_schema(options)`.
///
/// Pictures become PNG of 8 bits, rounded and clamped to 0..255, without a path; lists get their numbers back in their own type
/// and order, whole numbers rounded and clamped to the type's range; other columns are NULL. `layout` must be the one
/// (or a clone of it) that the rows were decoded with: it knows the order of nested lists.
///
/// Fails with [`Error::Data`] where the values don't fit the shape, or shape or labels don't fit the column's type.
pub fn encode(
    layout: &Layout,
    options: &Options,
    shape: Shape,
    values: &[f32],
    labels: &[Label],
) -> Result<RecordBatch> {
    if shape.len() == 0 || Some(values.len()) != labels.len().checked_mul(shape.len()) {
        return Err(Error::Data(format!("{} numbers can't be {} rows, each a {shape}", values.len(), labels.len())));
    }
    let schema = layout.output_schema(options)?;
    let columns = schema.fields().iter().zip(&layout.columns).map(|(field, column)| match column.role {
        Role::Label => Label::to_array(labels, field.data_type()),
        Role::Feature => feature(layout, options, field, shape, values),
        Role::Carried | Role::Excluded => Ok(new_null_array(field.data_type(), labels.len())),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(labels.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &rows)?)
}

fn feature(layout: &Layout, options: &Options, field: &Field, shape: Shape, values: &[f32]) -> Result<ArrayRef> {
    let rows = values.len() / shape.len();
    if layout.kind == FeatureKind::Numbers {
        let form = layout.static_form(options)?;
        let order = form.map(|(_, order)| order).or(layout.order.get().copied()).unwrap_or(Order::ChannelsLast);
        return numbers(field.data_type(), shape, order, values, rows);
    }
    if *field.data_type() == tensor_type() {
        return numbers(field.data_type(), shape, Order::ChannelsFirst, values, rows);
    }
    let png =
        values.chunks_exact(shape.len()).map(|row| picture::encode_png(shape, row)).collect::<Result<Vec<_>>>()?;
    match field.data_type() {
        DataType::Struct(fields) => {
            let member = |field: &Arc<Field>| match field.name().as_str() {
                "bytes" => binary(&png, field.data_type()),
                _ if field.is_nullable() => Ok(new_null_array(field.data_type(), rows)),
                _ => empty_text(field, rows),
            };
            let members = fields.iter().map(member).collect::<Result<Vec<_>>>()?;
            Ok(Arc::new(StructArray::try_new(fields.clone(), members, None)?))
        }
        data_type => binary(&png, data_type),
    }
}

fn numbers(data_type: &DataType, shape: Shape, order: Order, values: &[f32], rows: usize) -> Result<ArrayRef> {
    let mut levels = 0;
    let mut inner = data_type;
    while let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = inner {
        levels += 1;
        inner = item.data_type();
    }
    let dims = storage_dims(shape, order, levels)
        .ok_or_else(|| Error::Data(format!("a {shape} can't be written as {data_type}")))?;
    let mut stored = Vec::with_capacity(values.len());
    for row in values.chunks_exact(shape.len()) {
        append_stored(row, shape, order, &mut stored);
    }
    lists::write(stored, rows, &dims, data_type)
}

fn binary(values: &[Vec<u8>], data_type: &DataType) -> Result<ArrayRef> {
    let bytes: usize = values.iter().map(Vec::len).sum();
    if *data_type == DataType::Binary && bytes > i32::MAX as usize {
        return Err(Error::Data(format!(
            "{bytes} bytes of pictures are too many for one Binary column; use a lower ipc"
        )));
    }
    Ok(match data_type {
        DataType::Binary => Arc::new(BinaryArray::from_iter_values(values)),
        DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter_values(values)),
        DataType::BinaryView => Arc::new(BinaryViewArray::from_iter_values(values)),
        other => return Err(Error::Data(format!("pictures can't be written as {other}"))),
    })
}

fn empty_text(field: &Field, rows: usize) -> Result<ArrayRef> {
    let empty = vec![""; rows];
    Ok(match field.data_type() {
        DataType::Utf8 => Arc::new(StringArray::from(empty)),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from(empty)),
        DataType::Utf8View => Arc::new(StringViewArray::from(empty)),
        other => return Err(Error::Data(format!("a picture's {} can't be written as {other}", field.name()))),
    })
}
