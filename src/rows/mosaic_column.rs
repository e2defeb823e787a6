//! A schema or a batch of synthetic pictures, of which some hold several, flows in; the same with a column that says which flows out.

use std::sync::Arc;

use crate::arrow::array::{Array, ArrayRef, AsArray, UInt8Array};
use crate::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::hugging_face::HuggingFace;
use crate::rows::mosaic::{KEY, with_note};
use crate::rows::{MOST_PER_SIDE, mosaic_side};

/// The column's name.
pub const MOSAIC: &str = "mosaic";

/// What its note says.
const SAYS: &str = "pictures a side in each row's picture";

/// And that of the pictures' column, in place of a number.
const BY_COLUMN: &str = "by column";

/// `schema` and, where some of the pictures that `options` ask for hold several and others one, a last column of UInt8: how many a side each row's picture holds. Hugging Face
/// features, where there are any, describe it too.
///
/// Fails with [`Error::Option`] where the schema has a column of that name.
pub fn with_mosaic_column(schema: &SchemaRef, options: &Options) -> Result<SchemaRef> {
    if !options.mixes_mosaics() {
        return Ok(schema.clone());
    }
    if schema.fields().iter().any(|field| field.name() == MOSAIC) {
        let message = format!(
            "{} adds a column '{MOSAIC}' where some rows hold several pictures and others one, and the source has one; leave it out with exclude",
            options.mosaic
        );
        return Err(Error::option("mosaic", message));
    }
    let mut fields = schema.fields().to_vec();
    let field = Field::new(MOSAIC, DataType::UInt8, false);
    fields.push(Arc::new(field.with_metadata([(KEY.to_string(), SAYS.to_string())].into())));
    let metadata = HuggingFace::of(schema).with_byte(schema.metadata(), MOSAIC);
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// `schema` with the note that the pictures in `column` hold what the column of that name says.
pub fn told_by_column(schema: &SchemaRef, column: &str) -> SchemaRef {
    with_note(schema, column, Some(BY_COLUMN.into()))
}

/// How many pictures a side the stored ones of a source hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As many, all of them.
    Same(usize),
    /// What the column at this position says of each.
    Column(usize),
}

impl Held {
    /// By rows of `schema`, whose pictures are those of column `feature`: as the notes say, 1 where there are none.
    ///
    /// Fails where some hold several, and the column that says which is missing.
    pub fn of(schema: &Schema, feature: usize) -> Result<Self> {
        let field = schema.field(feature);
        match schema.index_of(MOSAIC).ok().filter(|_| has_mosaic_column(schema)) {
            Some(column) => Ok(Self::Column(column)),
            None if field.metadata().get(KEY).is_some_and(|note| note == BY_COLUMN) => Err(Error::column(
                field.name(),
                format!(
                    "in some rows its pictures hold several, and column '{MOSAIC}', which says in which, is missing or isn't what was written; select it too"
                ),
            )),
            None => Ok(Self::Same(mosaic_side(field))),
        }
    }
}

/// Whether rows of `schema` have such a column: it is told by its note, as others may have one of that name for something else.
pub fn has_mosaic_column(schema: &Schema) -> bool {
    may_be_mosaic_column(schema) && schema.field_with_name(MOSAIC).is_ok_and(|field| field.metadata().contains_key(KEY))
}

/// Whether rows of `schema` have a column that has lost its note, or is another of that name and type.
pub(super) fn may_be_mosaic_column(schema: &Schema) -> bool {
    schema.column_with_name(MOSAIC).is_some_and(|(_, field)| *field.data_type() == DataType::UInt8)
}

/// Pictures a side that each row holds, as that column.
pub fn mosaic_array(sides: &[usize]) -> ArrayRef {
    // Of an option that is at most MOST_PER_SIDE.
    Arc::new(sides.iter().map(|side| *side as u8).collect::<UInt8Array>())
}

/// Pictures a side that each row of such a column of source `name`, from row `first_row` on, holds.
///
/// Fails where it isn't a number from 1 to [`MOST_PER_SIDE`].
pub fn mosaic_sides(name: &str, first_row: u64, column: &dyn Array) -> Result<Vec<usize>> {
    let wrong = |row: usize, found: String| {
        let row = first_row + row as u64;
        let expected =
            format!("{name}, row {row}: expected how many pictures a side the row's holds, 1 to {MOST_PER_SIDE}");
        Error::column(MOSAIC, format!("{expected}, found {found}"))
    };
    let Some(sides) = column.as_primitive_opt::<UInt8Type>() else {
        return Err(wrong(0, column.data_type().to_string()));
    };
    let side = |(row, side): (usize, Option<u8>)| match side {
        Some(side) if (1..=MOST_PER_SIDE).contains(&usize::from(side)) => Ok(usize::from(side)),
        Some(side) => Err(wrong(row, side.to_string())),
        None => Err(wrong(row, "NULL".into())),
    };
    sides.iter().enumerate().map(side).collect()
}

/// Pictures a side that each row of `batch` holds, of source `name`, all of whose columns are those of `schema`, which has their notes: what such a column says of it, or the note at
/// a column of pictures of all; 1 where neither does.
pub fn sides_of(name: &str, schema: &Schema, batch: &RecordBatch) -> Result<Vec<usize>> {
    match batch.column_by_name(MOSAIC).filter(|_| has_mosaic_column(schema)) {
        Some(column) => mosaic_sides(name, 0, column),
        None => {
            let side = schema.fields().iter().map(|field| mosaic_side(field)).max().unwrap_or(1);
            Ok(vec![side; batch.num_rows()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str, data_type: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(name, data_type, true)]))
    }

    #[test]
    fn the_column_is_there_only_where_rows_differ_and_a_name_that_is_taken_is_refused() {
        let plain = schema("label", DataType::Int64);
        let options = |mosaic, ipc, mosaic_rows| Options { mosaic, ipc, mosaic_rows, ..Options::default() };
        for same in [options(1, 10, None), options(2, 1, None), options(2, 10, Some(10)), options(2, 10, Some(0))] {
            assert_eq!(with_mosaic_column(&plain, &same).unwrap(), plain);
        }
        let mixed = with_mosaic_column(&plain, &options(2, 10, None)).unwrap();
        assert_eq!((mixed.field(1).name().as_str(), mixed.field(1).data_type()), (MOSAIC, &DataType::UInt8));
        assert!(!mixed.field(1).is_nullable());
        assert!(has_mosaic_column(&mixed) && !has_mosaic_column(&plain));
        // Another's column of that name isn't taken for one.
        assert!(!has_mosaic_column(&schema(MOSAIC, DataType::UInt8)));
        let e = with_mosaic_column(&schema(MOSAIC, DataType::Int64), &options(2, 10, None)).unwrap_err().to_string();
        assert!(e.contains("'mosaic'") && e.contains("exclude"), "{e}");
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_no_side_is_told_by_its_row() {
        assert_eq!(mosaic_sides("t", 0, &mosaic_array(&[2, 1, 8])).unwrap(), [2, 1, 8]);
        let e = |column: UInt8Array| mosaic_sides("t", 40, &column).unwrap_err().to_string();
        assert!(e(vec![1, 0].into()).contains("t, row 41") && e(vec![9].into()).contains("found 9"));
        assert!(e(vec![Some(1), None].into()).contains("found NULL"));
    }
}
