//! A batch of rows whose pictures hold several flows in; a batch of the pictures that they decode to, a row each, flows out.

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, UInt32Array};
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::compute::{cast, take};
use crate::arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::hugging_face::HuggingFace;
use crate::rows::mosaic_column::may_be_mosaic_column;
use crate::rows::{
    Decoder, Held, Layout, MOSAIC, SOFT_LABEL, encode, has_mosaic_column, has_soft_labels, mosaic_sides, unpack_each,
    with_mosaic,
};

/// Decodes stored pictures in batches of one schema.
///
/// The picture's column gets one picture a row, in its own type; a column of soft labels the labels of that picture; a column of weights its share of the stored row's; the column
/// that says how many pictures a side a row holds is left out, as each holds one; every other column has the stored row's value again.
#[derive(Debug)]
pub struct Unpacker {
    layout: Layout,
    options: Options,
    decoder: Decoder,
    held: Held,
    /// The column that says how many pictures a side each row holds.
    column: Option<usize>,
    /// The column of weights.
    weight: Option<usize>,
    /// The column of soft labels.
    soft: Option<usize>,
    schema: SchemaRef,
}

impl Unpacker {
    /// For batches of `schema`, with the notes of its file or of the job that makes it, `weight` the column of weights that it added. How many a side each picture holds is what a
    /// column says ([`MOSAIC`]), or else `side`, or else what the note of the picture's column says. With `side` such a column may have lost its own note.
    ///
    /// Fails where there is no picture to decode, or nothing says that it holds several.
    pub fn new(schema: &SchemaRef, side: Option<usize>, weight: Option<&str>) -> Result<Self> {
        let position = |name: &str| schema.fields().iter().position(|field| field.name() == name);
        let soft = if has_soft_labels(schema) { position(SOFT_LABEL) } else { None };
        let weight = weight.and_then(position);
        let told = has_mosaic_column(schema) || (side.is_some() && may_be_mosaic_column(schema));
        let column = if told { position(MOSAIC) } else { None };
        let added = weight.into_iter().chain(soft).chain(column).map(|i| schema.field(i).name().clone());
        let options = Options { exclude: added.collect(), ..Options::default() };
        let layout = Layout::infer(schema, &options)?;
        let Some(feature) = layout.single() else {
            return Err(Error::Data("there is no column of pictures to unpack".into()));
        };
        let field = schema.field(feature.column);
        let held = match (side, column) {
            (_, Some(column)) => Held::Column(column),
            (Some(side), None) => Held::Same(side),
            (None, None) => Held::of(schema, feature.column)?,
        };
        if matches!(held, Held::Same(side) if side < 2) {
            let message = format!(
                "nothing says that the pictures of column '{}' hold several; if they do, say how many a side: mosaic => 2",
                field.name()
            );
            return Err(Error::option("mosaic", message));
        }
        let schema = with_mosaic(&without(schema, column), field.name(), 1);
        let decoder = Decoder::new(&layout, &options)?;
        Ok(Self { decoder, held, column, weight, soft, schema, layout, options })
    }

    /// The schema of what comes out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows that come out for each that goes in; `None`: not the same for each.
    pub fn count(&self) -> Option<usize> {
        match self.held {
            Held::Same(side) => Some(side * side),
            Held::Column(_) => None,
        }
    }

    /// The rows of `batch`, decoded; `first_row` and `place` go into errors.
    pub fn unpack(&self, batch: &RecordBatch, place: &str, first_row: u64) -> Result<RecordBatch> {
        if batch.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let columns: Vec<ArrayRef> =
            self.layout.projection().into_iter().map(|i| Arc::clone(batch.column(i))).collect();
        let rows = self.decoder.decode(&columns, None, None, place, first_row)?;
        // None was skipped: with `on_null` at its default a NULL is an error.
        let sides = match self.held {
            Held::Same(side) => vec![side; batch.num_rows()],
            Held::Column(column) => mosaic_sides(place.trim_end_matches(", "), first_row, batch.column(column))?,
        };
        let counts: Vec<usize> = sides.iter().map(|side| side * side).collect();
        let of_each = |row: usize| std::iter::repeat_n(row, counts[row]);
        let labels: Vec<_> = (0..rows.len()).flat_map(of_each).map(|row| rows.labels[row].clone()).collect();
        let values = unpack_each(&rows.values, rows.shape, &sides)?;
        let pictures = encode(&self.layout, &self.options, None, rows.shape, &values, &labels)?;
        let again: UInt32Array = (0..batch.num_rows()).flat_map(of_each).map(|row| row as u32).collect();
        let feature = self.layout.single().map(|feature| feature.column);
        let left = (0..batch.num_columns()).filter(|i| Some(*i) != self.column);
        let columns = self.schema.fields().iter().zip(left).map(|(field, i)| {
            let column = batch.column(i);
            match i {
                i if Some(i) == feature => pictures
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| Error::column(field.name(), "isn't among the columns that are written")),
                i if Some(i) == self.soft => soft_labels_of_each(column, &counts, field),
                i if Some(i) == self.weight => {
                    let weights = cast(&take(column, &again, None)?, &DataType::Float64)?;
                    let weights = weights.as_primitive::<Float64Type>().iter();
                    let shared =
                        again.values().iter().zip(weights).map(|(row, w)| Some(w? / counts[*row as usize] as f64));
                    Ok(cast(&shared.collect::<Float64Array>(), field.data_type())?)
                }
                _ => Ok(take(column, &again, None)?),
            }
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?)
    }
}

/// `schema` without `column`, if there is one.
fn without(schema: &SchemaRef, column: Option<usize>) -> SchemaRef {
    let Some(column) = column else { return Arc::clone(schema) };
    let left = schema.fields().iter().enumerate().filter(|(i, _)| *i != column);
    let fields: Vec<_> = left.map(|(_, field)| Arc::clone(field)).collect();
    let metadata = HuggingFace::of(schema).without(schema.metadata(), schema.field(column).name());
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Lists of the shares of as many pictures as `counts` says, as one list a picture, of `field`'s type.
fn soft_labels_of_each(column: &ArrayRef, counts: &[usize], field: &Field) -> Result<ArrayRef> {
    let lists = cast(column, &DataType::new_list(DataType::Float32, true))?;
    let (mut shares, mut lengths) = (vec![], vec![]);
    for (row, (list, count)) in lists.as_list::<i32>().iter().zip(counts.iter().copied()).enumerate() {
        let list = list.filter(|list| list.null_count() == 0 && list.len() % count == 0);
        let Some(list) = list else {
            let message = format!(
                "row {row}: expected shares of the classes for each of {count} pictures, found {:?}",
                column.slice(row, 1)
            );
            return Err(Error::column(field.name(), message));
        };
        shares.extend_from_slice(list.as_primitive::<Float32Type>().values());
        lengths.extend(std::iter::repeat_n(list.len() / count, count));
    }
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let lists =
        ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(Float32Array::from(shares)), None)?;
    Ok(cast(&lists, field.data_type())?)
}
