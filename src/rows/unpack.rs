//! A batch of rows whose pictures hold several flows in; a batch of the pictures that they decode to, a row each, flows out.

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, UInt32Array};
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::compute::{cast, take};
use crate::arrow::datatypes::{DataType, Field, Float32Type, Float64Type, SchemaRef};
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::{Decoder, Layout, Mosaic, SOFT_LABEL, encode, has_soft_labels, mosaic_side, with_mosaic};

/// Decodes stored pictures in batches of one schema.
///
/// The picture's column gets one picture a row, in its own type; a column of soft labels the labels of that picture; a column of weights its share of the stored row's; every other
/// column the stored row's value again.
#[derive(Debug)]
pub struct Unpacker {
    layout: Layout,
    options: Options,
    decoder: Decoder,
    side: usize,
    /// The column of weights.
    weight: Option<usize>,
    /// The column of soft labels.
    soft: Option<usize>,
    schema: SchemaRef,
}

impl Unpacker {
    /// For batches of `schema`, with the notes of its file or of the job that makes it, `weight` the column of weights that it added. Each picture holds `side` a side; `None`: what
    /// the column's note says.
    ///
    /// Fails where there is no picture to decode, or nothing says that it holds several.
    pub fn new(schema: &SchemaRef, side: Option<usize>, weight: Option<&str>) -> Result<Self> {
        let position = |name: &str| schema.fields().iter().position(|field| field.name() == name);
        let soft = if has_soft_labels(schema) { position(SOFT_LABEL) } else { None };
        let weight = weight.and_then(position);
        let added = weight.into_iter().chain(soft).map(|i| schema.field(i).name().clone());
        let options = Options { exclude: added.collect(), ..Options::default() };
        let layout = Layout::infer(schema, &options)?;
        let Some(feature) = layout.single() else {
            return Err(Error::Data("there is no column of pictures to unpack".into()));
        };
        let field = schema.field(feature.column);
        let side = side.unwrap_or_else(|| mosaic_side(field));
        if side < 2 {
            let message = format!(
                "nothing says that the pictures of column '{}' hold several; if they do, say how many a side: mosaic => 2",
                field.name()
            );
            return Err(Error::option("mosaic", message));
        }
        let schema = with_mosaic(schema, field.name(), 1);
        let decoder = Decoder::new(&layout, &options)?;
        Ok(Self { decoder, side, weight, soft, schema, layout, options })
    }

    /// The schema of what comes out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows that come out for each that goes in.
    pub fn count(&self) -> usize {
        self.side * self.side
    }

    /// The rows of `batch`, decoded; `first_row` and `place` go into errors.
    pub fn unpack(&self, batch: &RecordBatch, place: &str, first_row: u64) -> Result<RecordBatch> {
        if batch.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        let columns: Vec<ArrayRef> =
            self.layout.projection().into_iter().map(|i| Arc::clone(batch.column(i))).collect();
        let rows = self.decoder.decode(&columns, None, None, place, first_row)?;
        let Some(mosaic) = Mosaic::new(self.side, rows.shape)? else { return Ok(batch.clone()) };
        let count = mosaic.count();
        let labels: Vec<_> = rows.labels.iter().flat_map(|label| std::iter::repeat_n(label.clone(), count)).collect();
        let values = mosaic.unpack(&rows.values);
        let pictures = encode(&self.layout, &self.options, None, rows.shape, &values, &labels)?;
        let again: UInt32Array = (0..batch.num_rows() as u32).flat_map(|row| std::iter::repeat_n(row, count)).collect();
        let feature = self.layout.single().map(|feature| feature.column);
        let columns = batch.columns().iter().enumerate().map(|(i, column)| {
            let field = self.schema.field(i);
            match i {
                i if Some(i) == feature => pictures
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| Error::column(field.name(), "isn't among the columns that are written")),
                i if Some(i) == self.soft => soft_labels_of_each(column, count, field),
                i if Some(i) == self.weight => {
                    let weights = cast(&take(column, &again, None)?, &DataType::Float64)?;
                    let shares = weights.as_primitive::<Float64Type>().unary::<_, Float64Type>(|w| w / count as f64);
                    Ok(cast(&shares, field.data_type())?)
                }
                _ => Ok(take(column, &again, None)?),
            }
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?)
    }
}

/// Lists of the shares of `count` pictures each, as one list a picture, of `field`'s type.
fn soft_labels_of_each(column: &ArrayRef, count: usize, field: &Field) -> Result<ArrayRef> {
    let lists = cast(column, &DataType::new_list(DataType::Float32, true))?;
    let (mut shares, mut lengths) = (vec![], vec![]);
    for (row, list) in lists.as_list::<i32>().iter().enumerate() {
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
