//! A schema flows in, the bytes of its Arrow IPC message flow out; and back, checked before Arrow's own reader sees them.
//!
//! Arrow's conversion of a flatbuffer into a schema panics on types that don't exist, and these bytes may come from anyone.

use crate::arrow::datatypes::Schema;
use crate::arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use crate::arrow::ipc::{
    DateUnit, Endianness, Field, IntervalUnit, Precision, TimeUnit, Type, UnionMode, convert, root_as_message,
};

/// Most bytes of a schema that is read.
const MOST_BYTES: usize = 16 << 20;
/// Most fields of a schema that is read, those inside others counted.
const MOST_FIELDS: usize = 100_000;
/// Most levels of fields inside fields.
const MOST_LEVELS: usize = 32;

/// What starts a message, before its length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// `schema` as an encapsulated Arrow IPC message, as streams and files have it: the same schema gives the same bytes.
pub(crate) fn write(schema: &Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let generator = IpcDataGenerator::default();
    let mut message =
        generator.schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &options).ipc_message;
    message.resize(message.len().next_multiple_of(8), 0);
    [&CONTINUATION[..], &(message.len() as u32).to_le_bytes(), &message].concat()
}

/// The schema in `bytes`; else what is wrong with them.
pub(crate) fn read(bytes: &[u8]) -> Result<Schema, String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("{} bytes, expected at most {MOST_BYTES}", bytes.len()));
    }
    let message = match bytes {
        [0xff, 0xff, 0xff, 0xff, a, b, c, d, message @ ..]
            if usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])) == Ok(message.len()) =>
        {
            message
        }
        _ => return Err("no Arrow IPC message, or not of the length that it says".into()),
    };
    let message = root_as_message(message).map_err(|e| format!("no Arrow IPC message: {e}"))?;
    let schema = message.header_as_schema().ok_or("an Arrow IPC message that is no schema")?;
    if schema.endianness() != Endianness::Little {
        return Err("a big-endian schema".into());
    }
    let mut fields = 0;
    for field in schema.fields().ok_or("a schema without fields")? {
        check(field, 0, &mut fields)?;
    }
    Ok(convert::fb_to_schema(schema))
}

/// Refuses a field that Arrow's conversion would panic on, or that no source has.
fn check(field: Field<'_>, level: usize, fields: &mut usize) -> Result<(), String> {
    *fields += 1;
    if level > MOST_LEVELS || *fields > MOST_FIELDS {
        return Err(format!("more than {MOST_FIELDS} fields, or more than {MOST_LEVELS} inside each other"));
    }
    let name = field.name().unwrap_or_default();
    let bad = |what: &str| Err(format!("column '{}' has {what}", name.escape_debug()));
    let children: Vec<Field<'_>> = field.children().map(|c| c.iter().collect()).unwrap_or_default();
    let integer = |bits: i32| matches!(bits, 8 | 16 | 32 | 64);
    if let Some(dictionary) = field.dictionary()
        && !dictionary.indexType().is_some_and(|int| integer(int.bitWidth()))
    {
        return bad("a dictionary without a type of keys");
    }
    let time = |unit: TimeUnit| (TimeUnit::SECOND.0..=TimeUnit::NANOSECOND.0).contains(&unit.0);
    let sound = match field.type_type() {
        Type::Null | Type::Bool | Type::Struct_ => true,
        Type::Binary | Type::BinaryView | Type::LargeBinary | Type::Utf8 | Type::Utf8View | Type::LargeUtf8 => true,
        Type::Int => field.type_as_int().is_some_and(|t| integer(t.bitWidth())),
        Type::FixedSizeBinary => field.type_as_fixed_size_binary().is_some_and(|t| t.byteWidth() >= 0),
        Type::FloatingPoint => field
            .type_as_floating_point()
            .is_some_and(|t| [Precision::HALF, Precision::SINGLE, Precision::DOUBLE].contains(&t.precision())),
        Type::Date => field.type_as_date().is_some_and(|t| [DateUnit::DAY, DateUnit::MILLISECOND].contains(&t.unit())),
        Type::Time => field.type_as_time().is_some_and(|t| match t.bitWidth() {
            32 => [TimeUnit::SECOND, TimeUnit::MILLISECOND].contains(&t.unit()),
            64 => [TimeUnit::MICROSECOND, TimeUnit::NANOSECOND].contains(&t.unit()),
            _ => false,
        }),
        Type::Timestamp => field.type_as_timestamp().is_some_and(|t| time(t.unit())),
        Type::Duration => field.type_as_duration().is_some_and(|t| time(t.unit())),
        Type::Interval => field.type_as_interval().is_some_and(|t| {
            [IntervalUnit::YEAR_MONTH, IntervalUnit::DAY_TIME, IntervalUnit::MONTH_DAY_NANO].contains(&t.unit())
        }),
        Type::Decimal => field.type_as_decimal().is_some_and(|t| {
            let most = match t.bitWidth() {
                32 => 9,
                64 => 18,
                128 => 38,
                256 => 76,
                _ => 0,
            };
            (1..=most).contains(&t.precision()) && i8::try_from(t.scale()).is_ok()
        }),
        Type::List | Type::LargeList | Type::ListView | Type::LargeListView => children.len() == 1,
        Type::FixedSizeList => {
            children.len() == 1 && field.type_as_fixed_size_list().is_some_and(|t| t.listSize() >= 0)
        }
        Type::Map => {
            let entries = |f: &Field<'_>| f.type_type() == Type::Struct_ && f.children().is_some_and(|c| c.len() == 2);
            children.len() == 1 && children.iter().all(entries) && field.type_as_map().is_some()
        }
        Type::RunEndEncoded => children.len() == 2,
        Type::Union => field.type_as_union().is_some_and(|t| {
            let ids: Vec<i32> =
                t.typeIds().map_or_else(|| (0..children.len() as i32).collect(), |ids| ids.iter().collect());
            let distinct: std::collections::BTreeSet<i32> = ids.iter().copied().collect();
            [UnionMode::Sparse, UnionMode::Dense].contains(&t.mode())
                && (distinct.len(), ids.len()) == (children.len(), children.len())
                && ids.iter().all(|id| (0..=127).contains(id))
        }),
        _ => false,
    };
    if !sound {
        return bad(&format!("a damaged type ({:?})", field.type_type()));
    }
    children.into_iter().try_for_each(|child| check(child, level + 1, fields))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit, UnionFields, UnionMode};

    fn schema() -> Schema {
        let item = |t| Arc::new(Field::new("item", t, true));
        let entries =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int8, true)]);
        let types = vec![
            DataType::Struct(
                vec![Field::new("bytes", DataType::BinaryView, true), Field::new("path", DataType::Utf8View, true)]
                    .into(),
            ),
            DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8)),
            DataType::FixedSizeList(item(DataType::LargeList(item(DataType::Float16))), 3),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
            DataType::Time32(TimeUnit::Second),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Decimal256(76, -3),
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false),
            DataType::Union(UnionFields::from_fields([Field::new("a", DataType::Null, true)]), UnionMode::Dense),
            DataType::RunEndEncoded(Arc::new(Field::new("run_ends", DataType::Int32, false)), item(DataType::Date64)),
        ];
        let field = |(i, t): (usize, DataType)| {
            Field::new(format!("c{i}"), t, i % 2 == 0).with_metadata([("k".into(), i.to_string())].into())
        };
        let notes = (0..20).map(|i| (format!("note {i}"), "x".repeat(i))).collect();
        Schema::new_with_metadata(types.into_iter().enumerate().map(field).collect::<Vec<_>>(), notes)
    }

    #[test]
    fn schemas_of_all_types_come_back_with_their_metadata_and_the_bytes_repeat() {
        let bytes = write(&schema());
        assert_eq!(read(&bytes).unwrap(), schema());
        assert_eq!(bytes, write(&schema()));
        assert_eq!(read(&write(&Schema::empty())).unwrap(), Schema::empty());
    }

    #[test]
    fn absurd_schemas_are_errors() {
        let nested = (0..60).fold(DataType::Int8, |t, _| DataType::List(Arc::new(Field::new("item", t, true))));
        let e = read(&write(&Schema::new(vec![Field::new("x", nested, true)]))).unwrap_err();
        assert!(e.contains("inside each other") || e.contains("no Arrow IPC message"), "{e}");
        assert!(read(&[]).is_err() && read(&[0; 64]).is_err() && read(&[0xff; 64]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damaged_bytes_are_an_error_or_another_schema_never_a_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut bytes = write(&schema());
            changes.iter().for_each(|(at, byte)| { let at = at.index(bytes.len()); bytes[at] = *byte });
            if is_cut { bytes.truncate(cut.index(bytes.len())); }
            let _ = read(&bytes);
        }
    }
}
