//! Synthetic numbers with labels flow in, a record batch in the source's schema flows out.

use std::sync::Arc;

use crate::arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Float32Array, Float64Array, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray, StructArray, UInt32Array, new_null_array,
};
use crate::arrow::compute::{cast, nullif, take};
use crate::arrow::datatypes::{DataType, Field};
use crate::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::form::{self, Order, append_stored, storage_dims};
use crate::rows::layout::tensor_type;
use crate::rows::table::{self, TableScaling};
use crate::rows::{Feature, FeatureKind, Label, Layout, Shape, exact, lists, picture};

/// `values` `[labels.len(), shape.len()]`, in the input's units, as a batch of `layout.output_schema(options)`. `scaling` is that of a table, and
/// `values` its raw rows.
///
/// Pictures become PNG of 8 bits, rounded and clamped to 0..255, without a path; lists and numbers come in their own type
/// and order, whole numbers rounded and clamped to the type's range; carried columns are NULL. `layout` must be the one
/// (or a clone of it) that the rows were decoded with: it knows the order of nested lists.
///
/// Fails with [`Error::Data`] where the values don't fit the shape, or shape, values or labels don't fit the column's type.
pub fn encode(
    layout: &Layout,
    options: &Options,
    scaling: Option<&TableScaling>,
    shape: Shape,
    values: &[f32],
    labels: &[Label],
) -> Result<RecordBatch> {
    encode_exact(layout, options, scaling, shape, values, labels, &[])
}

/// [`encode`] of real rows, as they were read: `exact` are their [`Rows::exact`](crate::rows::Rows::exact), or empty.
pub fn encode_exact(
    layout: &Layout,
    options: &Options,
    scaling: Option<&TableScaling>,
    shape: Shape,
    values: &[f32],
    labels: &[Label],
    exact: &[u8],
) -> Result<RecordBatch> {
    if shape.len() == 0 || Some(values.len()) != labels.len().checked_mul(shape.len()) {
        return Err(Error::Data(format!("{} numbers can't be {} rows, each a {shape}", values.len(), labels.len())));
    }
    let cells = match (layout.single(), scaling) {
        (Some(_), _) => vec![table::Column::Cells(shape, values.to_vec())],
        (None, Some(scaling)) => table::split(scaling, values),
        (None, None) => return Err(Error::Data("a table can't be written without its scaling".into())),
    };
    if cells.len() != layout.features.len() {
        return Err(Error::Data(format!("{} columns of features, expected {}", cells.len(), layout.features.len())));
    }
    let exact = exact_columns(layout, &cells, labels.len(), exact)?;
    let schema = layout.output_schema(options)?;
    let mut columns = vec![];
    for (position, field) in layout.output_columns().zip(schema.fields()) {
        let feature = layout.features.iter().position(|f| f.column == position);
        columns.push(match feature {
            _ if position == layout.label => Label::to_array(labels, field.data_type())?,
            Some(index) => match &cells[index] {
                table::Column::Cells(shape, values) => {
                    pictures_or_lists(layout, index, options, field, *shape, values, exact[index].as_deref())?
                }
                table::Column::Numbers(values) => scalars(values, field, exact[index].as_deref())?,
                table::Column::Categories(values) => categories(values, field)?,
            },
            None => new_null_array(field.data_type(), labels.len()),
        });
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(labels.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &rows)?)
}

/// The bytes of each feature column among those of whole rows; `None` for columns that have none.
fn exact_columns(
    layout: &Layout,
    cells: &[table::Column<'_>],
    rows: usize,
    bytes: &[u8],
) -> Result<Vec<Option<Vec<u8>>>> {
    if bytes.is_empty() {
        return Ok(vec![None; cells.len()]);
    }
    let width = |(feature, cells): (&Feature, &table::Column<'_>)| {
        let data_type = layout.schema.field(feature.column).data_type();
        match cells {
            table::Column::Numbers(_) => exact::width(data_type).unwrap_or(0),
            table::Column::Cells(shape, _) => {
                let number = form::nesting(data_type).and_then(|(_, number)| exact::width(number));
                number.map_or(0, |width| width * shape.len())
            }
            table::Column::Categories(_) => 0,
        }
    };
    let widths: Vec<usize> = layout.features.iter().zip(cells).map(width).collect();
    let row: usize = widths.iter().sum();
    if row * rows != bytes.len() {
        return Err(Error::Data(format!("{} bytes can't be the numbers of {rows} rows of {row} bytes", bytes.len())));
    }
    let mut start = 0;
    let column = |width: usize| {
        let own = start..start + width;
        start += width;
        (width > 0).then(|| bytes.chunks_exact(row).flat_map(|row| &row[own.clone()]).copied().collect())
    };
    Ok(widths.into_iter().map(column).collect())
}

fn pictures_or_lists(
    layout: &Layout,
    index: usize,
    options: &Options,
    field: &Field,
    shape: Shape,
    values: &[f32],
    exact: Option<&[u8]>,
) -> Result<ArrayRef> {
    let feature = &layout.features[index];
    let rows = values.len() / shape.len().max(1);
    if feature.kind == FeatureKind::Numbers {
        let form = layout.static_form(feature, options)?;
        let order = form.map(|(_, order)| order).or(layout.orders[index].get().copied()).unwrap_or(Order::ChannelsLast);
        return numbers(field.data_type(), shape, order, values, exact, rows);
    }
    if *field.data_type() == tensor_type() {
        return numbers(field.data_type(), shape, Order::ChannelsFirst, values, None, rows);
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

/// Numbers in a column's own type, those with these bytes if any; NULL, or NaN where the column can't be NULL, for those that are missing.
fn scalars(values: &[Option<f32>], field: &Field, exact: Option<&[u8]>) -> Result<ArrayRef> {
    let absent = |v: &Option<f32>| v.is_none();
    if let (Some(bytes), false) = (exact, field.is_nullable()) {
        return exact::array(bytes, field.data_type());
    }
    if values.iter().any(absent) && !field.is_nullable() {
        let with_nan = Float32Array::from_iter_values(values.iter().map(|v| v.unwrap_or(f32::NAN)));
        return Ok(cast(&with_nan, field.data_type())?);
    }
    let whole = values.iter().map(|v| v.unwrap_or(0.0)).collect();
    let array = match (exact, field.data_type()) {
        (Some(bytes), data_type) => exact::array(bytes, data_type)?,
        // The f64 of the shortest decimal: 0.1 stays 0.1, though it has been through an f32.
        (None, DataType::Float64) => {
            let exact = |v: &Option<f32>| v.map_or(0.0, |v| v.to_string().parse().unwrap_or(f64::from(v)));
            Arc::new(Float64Array::from_iter_values(values.iter().map(exact))) as ArrayRef
        }
        (None, data_type) => lists::elements(whole, data_type)?,
    };
    if !values.iter().any(absent) {
        return Ok(array);
    }
    Ok(nullif(&array, &BooleanArray::from_iter(values.iter().map(|v| Some(v.is_none()))))?)
}

/// Categories in a column's own type.
fn categories(values: &[Option<&Label>], field: &Field) -> Result<ArrayRef> {
    let present: Vec<Label> = values.iter().flatten().map(|v| (*v).clone()).collect();
    if present.len() < values.len() && !field.is_nullable() {
        return Err(Error::Data(format!("column '{}' is NOT NULL, but a synthetic row has none", field.name())));
    }
    let dense = Label::to_array(&present, field.data_type())?;
    if present.len() == values.len() {
        return Ok(dense);
    }
    let mut next = 0u32;
    let positions = UInt32Array::from_iter(values.iter().map(|v| {
        v.map(|_| {
            next += 1;
            next - 1
        })
    }));
    Ok(take(&dense, &positions, None)?)
}

/// Lists of numbers, those with these bytes if any.
fn numbers(
    data_type: &DataType,
    shape: Shape,
    order: Order,
    values: &[f32],
    exact: Option<&[u8]>,
    rows: usize,
) -> Result<ArrayRef> {
    let mut levels = 0;
    let mut inner = data_type;
    while let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = inner {
        levels += 1;
        inner = item.data_type();
    }
    let dims = storage_dims(shape, order, levels)
        .ok_or_else(|| Error::Data(format!("a {shape} can't be written as {data_type}")))?;
    if let Some(bytes) = exact {
        return lists::nest(rows, &dims, data_type, |number| exact::array(bytes, number));
    }
    let mut stored = Vec::with_capacity(values.len());
    for row in values.chunks_exact(shape.len()) {
        append_stored(row, shape, order, &mut stored);
    }
    lists::nest(rows, &dims, data_type, |number| lists::elements(stored, number))
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
