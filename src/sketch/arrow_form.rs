//! Sketches flow to and from Arrow: one documented struct a class.
//!
//! | field | type | what it holds |
//! |---|---|---|
//! | `format` | Utf8 | [`FORMAT`]: name and version of this struct |
//! | `pool` | Utf8 | fingerprint of the extractor pool |
//! | `recipe` | Utf8 | how to build the pool again, JSON ([`PoolRecipe`](crate::extract::PoolRecipe)) |
//! | `frequencies` | Int64 | frequencies of the characteristic function per extractor |
//! | `frequency_seed` | UInt64 | seed of the frequencies and of the reservoir's hash |
//! | `reservoir_capacity` | Int64 | most real rows kept |
//! | `embedding_scale` | Float64 | units per 1.0 in `embedding` |
//! | `cos_scale` | Float64 | units per 1.0 in `cos` and `sin` |
//! | `embedding_bound` | Float64 | embeddings are clipped to +- this |
//! | `numerics` | Utf8 | kernel path, version and device |
//! | `count` | Int64 | rows |
//! | `clipped` | Int64 | embedding values that were clipped |
//! | `missing` | LargeList of Int64 | of a table's columns that may miss values, how many rows do |
//! | `extractors` | LargeList of struct `embedding`, `cos`, `sin`: LargeList of Int64 | integer sums, one struct an extractor |
//! | `reservoir` | LargeList of struct `hash`: FixedSizeBinary(16), `copies`: Int64, `values`: LargeList of Float32 | real rows, smallest hash first |
//!
//! A sketch with a reservoir holds real rows, and exact sums can reveal rows too: it is as private as its source.

use std::sync::Arc;

use crate::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, Float32Array, Float64Array, Int64Array, LargeListArray,
    StringArray, StructArray, UInt64Array,
};
use crate::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use crate::arrow::compute::{CastOptions, cast_with_options};
use crate::arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Int64Type, UInt64Type};
use crate::error::{Error, Result};
use crate::kernels::sincos::fixed;
use crate::rows::Shape;
use crate::sketch::{
    COS_SCALE, ClassSketch, EMBEDDING_BOUND, EMBEDDING_SCALE, FORMAT, Header, Kept, MAX_COUNT, MemberSums, Reservoir,
};

/// The struct's type; the same for every pool (sums are LargeList).
pub fn data_type() -> DataType {
    DataType::Struct(fields())
}

fn fields() -> Fields {
    Fields::from(vec![
        field("format", DataType::Utf8),
        field("pool", DataType::Utf8),
        field("recipe", DataType::Utf8),
        field("frequencies", DataType::Int64),
        field("frequency_seed", DataType::UInt64),
        field("reservoir_capacity", DataType::Int64),
        field("embedding_scale", DataType::Float64),
        field("cos_scale", DataType::Float64),
        field("embedding_bound", DataType::Float64),
        field("numerics", DataType::Utf8),
        field("count", DataType::Int64),
        field("clipped", DataType::Int64),
        field("missing", list(DataType::Int64)),
        field("extractors", list(DataType::Struct(extractor_fields()))),
        field("reservoir", list(DataType::Struct(kept_fields()))),
    ])
}

fn extractor_fields() -> Fields {
    ["embedding", "cos", "sin"].iter().map(|name| field(name, list(DataType::Int64))).collect()
}

fn kept_fields() -> Fields {
    Fields::from(vec![
        field("hash", DataType::FixedSizeBinary(16)),
        field("copies", DataType::Int64),
        field("values", list(DataType::Float32)),
    ])
}

/// Nullable all the way down, as query engines and other writers make them; a NULL inside is an error on reading.
fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(field("item", data_type))
}

fn list(data_type: DataType) -> DataType {
    DataType::LargeList(item(data_type))
}

/// Sketches as an array of [`data_type`].
pub fn to_array(header: &Header, sketches: &[ClassSketch]) -> Result<StructArray> {
    let n = sketches.len();
    let recipe = serde_json::to_string(&header.recipe)
        .map_err(|e| Error::Sketch(format!("the pool's recipe can't be written: {e}")))?;
    let text = |value: &str| Arc::new(StringArray::from(vec![value; n])) as ArrayRef;
    let int = |value: usize| Arc::new(Int64Array::from(vec![value as i64; n])) as ArrayRef;
    let number = |value: f64| Arc::new(Float64Array::from(vec![value; n])) as ArrayRef;
    let of = |get: fn(&ClassSketch) -> u64| {
        let values: Int64Array = sketches.iter().map(|s| Some(i64::try_from(get(s)).unwrap_or(i64::MAX))).collect();
        Arc::new(values) as ArrayRef
    };
    let columns = vec![
        text(FORMAT),
        text(&header.pool),
        text(&recipe),
        int(header.frequencies),
        Arc::new(UInt64Array::from(vec![header.frequency_seed; n])),
        int(header.reservoir),
        number(EMBEDDING_SCALE),
        number(COS_SCALE),
        number(f64::from(EMBEDDING_BOUND)),
        text(&header.numerics),
        of(|s| s.count),
        of(|s| s.clipped),
        missing(sketches)?,
        extractors(sketches)?,
        reservoirs(sketches)?,
    ];
    Ok(StructArray::try_new_with_length(fields(), columns, None, n)?)
}

fn missing(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let values: Vec<i64> =
        sketches.iter().flat_map(|s| &s.missing).map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
    lists(Arc::new(Int64Array::from(values)), sketches.iter().map(|s| s.missing.len()))
}

fn extractors(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let members: Vec<&MemberSums> = sketches.iter().flat_map(|s| &s.members).collect();
    let sums = |get: fn(&MemberSums) -> &Vec<i64>| -> Result<ArrayRef> {
        let values: Vec<i64> = members.iter().flat_map(|m| get(m)).copied().collect();
        lists(Arc::new(Int64Array::from(values)), members.iter().map(|m| get(m).len()))
    };
    let columns = vec![sums(|m| &m.embedding)?, sums(|m| &m.cos)?, sums(|m| &m.sin)?];
    let structs = StructArray::try_new_with_length(extractor_fields(), columns, None, members.len())?;
    lists(Arc::new(structs), sketches.iter().map(|s| s.members.len()))
}

fn reservoirs(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let rows: Vec<&Kept> = sketches.iter().flat_map(|s| &s.reservoir.rows).collect();
    let mut hashes = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
    for row in &rows {
        hashes.append_value(row.hash)?;
    }
    let copies: Int64Array = rows.iter().map(|r| Some(i64::try_from(r.copies).unwrap_or(i64::MAX))).collect();
    let values: Vec<f32> = rows.iter().flat_map(|r| &r.values).copied().collect();
    let columns = vec![
        Arc::new(hashes.finish()) as ArrayRef,
        Arc::new(copies),
        lists(Arc::new(Float32Array::from(values)), rows.iter().map(|r| r.values.len()))?,
    ];
    let structs = StructArray::try_new_with_length(kept_fields(), columns, None, rows.len())?;
    lists(Arc::new(structs), sketches.iter().map(|s| s.reservoir.rows.len()))
}

fn lists(values: ArrayRef, lengths: impl Iterator<Item = usize>) -> Result<ArrayRef> {
    let mut offsets = vec![0i64];
    let mut end = 0i64;
    for length in lengths {
        end += length as i64;
        offsets.push(end);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(LargeListArray::try_new(item(values.data_type().clone()), offsets, values, None)?))
}

/// The sketch in row `row`; a damaged one is an error.
///
/// Fields are found by name and cast where another writer chose another type of list, text or integer. Everything is checked:
/// the format's version, the scales, all lengths against the recipe, the size of every sum, the reservoir's order and hashes.
pub fn from_array(array: &StructArray, row: usize) -> Result<(Header, ClassSketch)> {
    if row >= array.len() || array.is_null(row) {
        return Err(Error::Sketch(format!("row {row} is NULL; leave such rows out: WHERE sketch IS NOT NULL")));
    }
    let reader = Reader { array, row };
    let format = reader.text("format")?;
    if format != FORMAT {
        return Err(Error::Sketch(format!(
            "format '{format}', this version reads '{FORMAT}'; make the sketch again, or read it with the version that made it"
        )));
    }
    let scales = [
        ("embedding_scale", EMBEDDING_SCALE),
        ("cos_scale", COS_SCALE),
        ("embedding_bound", f64::from(EMBEDDING_BOUND)),
    ];
    for (name, expected) in scales {
        let found = reader.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
        if found != expected {
            return Err(damaged(name, format!("expected {expected}, found {found}")));
        }
    }
    let header = reader.header()?;
    let sketch = reader.sketch(&header)?;
    Ok((header, sketch))
}

fn damaged(field: &str, message: impl std::fmt::Display) -> Error {
    Error::Sketch(format!("field '{field}': {message}; the sketch is damaged, make it again"))
}

/// One row of an array of sketches.
struct Reader<'a> {
    array: &'a StructArray,
    row: usize,
}

impl Reader<'_> {
    /// The row's value of a field, as an array of length 1 and of type `data_type`, without NULLs.
    fn column(&self, name: &str, data_type: &DataType) -> Result<ArrayRef> {
        let column = self.array.column_by_name(name).ok_or_else(|| {
            let found: Vec<&str> = self.array.column_names();
            Error::Sketch(format!("no field '{name}' in a struct of {}: this is not a sketch", found.join(", ")))
        })?;
        without_nulls(name, &column.slice(self.row, 1), data_type)
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(self.column(name, &DataType::Utf8)?.as_string::<i32>().value(0).to_string())
    }

    /// A whole number from 0 to `most`.
    fn number(&self, name: &str, most: u64) -> Result<u64> {
        let value = self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().value(0);
        u64::try_from(value)
            .ok()
            .filter(|v| *v <= most)
            .ok_or_else(|| damaged(name, format!("expected a number from 0 to {most}, found {value}")))
    }

    fn header(&self) -> Result<Header> {
        let recipe: crate::extract::PoolRecipe =
            serde_json::from_str(&self.text("recipe")?).map_err(|e| damaged("recipe", e))?;
        // Bounds that any real pool keeps, so that no length computed from them overflows.
        let dims = recipe.shape.dims();
        let sizes = [recipe.extractors, recipe.width, recipe.depth];
        if dims.iter().chain(&sizes).any(|v| *v == 0 || *v > 1 << 20)
            || dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_none_or(|n| n > 1 << 30)
            || recipe.depth > 64
        {
            return Err(damaged("recipe", "impossible sizes"));
        }
        // Of a single value nothing can be scaled back to a range of rows, but it is a map all the same.
        if !recipe.scaling.is_sound() {
            return Err(damaged("recipe", "the scaling is not a map of a range"));
        }
        if let Some(table) = recipe.scaling.table()
            && (Shape::Vector { len: table.raw_len() } != recipe.shape || table.input_len() > 1 << 20)
        {
            return Err(damaged("recipe", "the scaling is of other columns than the row's"));
        }
        Ok(Header {
            pool: self.text("pool")?,
            recipe,
            frequencies: self.number("frequencies", 1 << 20)? as usize,
            frequency_seed: self.column("frequency_seed", &DataType::UInt64)?.as_primitive::<UInt64Type>().value(0),
            reservoir: self.number("reservoir_capacity", 1 << 30)? as usize,
            numerics: self.text("numerics")?,
        })
    }

    fn sketch(&self, header: &Header) -> Result<ClassSketch> {
        let count = self.number("count", MAX_COUNT)?;
        let clipped = self.number("clipped", i64::MAX as u64)?;
        Ok(ClassSketch {
            count,
            clipped,
            missing: self.missing(header, count)?,
            members: self.members(header, count)?,
            reservoir: self.reservoir(header, count)?,
        })
    }

    fn missing(&self, header: &Header, count: u64) -> Result<Vec<u64>> {
        let values = self.list("missing", DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>().values();
        let expected = header.missing().len();
        if values.len() != expected {
            return Err(damaged("missing", format!("{} counts, expected {expected}", values.len())));
        }
        let fits = |v: &i64| u64::try_from(*v).ok().filter(|v| *v <= count);
        values.iter().map(|v| fits(v).ok_or_else(|| damaged("missing", format!("{v} of {count} rows")))).collect()
    }

    fn members(&self, header: &Header, count: u64) -> Result<Vec<MemberSums>> {
        let structs = self.list("extractors", DataType::Struct(extractor_fields()))?;
        let structs = structs.as_struct();
        let expected = header.recipe.extractors;
        if structs.len() != expected {
            return Err(damaged("extractors", format!("{} of them, the recipe says {expected}", structs.len())));
        }
        let mut members = vec![MemberSums::default(); expected];
        let embedding_limit = fixed(f64::from(EMBEDDING_BOUND) * EMBEDDING_SCALE);
        let angle_limit = fixed(COS_SCALE);
        for (i, member) in members.iter_mut().enumerate() {
            let read = |name: &str, length: usize, limit: i64| -> Result<Vec<i64>> {
                let path = format!("extractors[{i}].{name}");
                let column = structs.column_by_name(name).ok_or_else(|| damaged(&path, "missing"))?;
                let values = without_nulls(&path, &column.as_list::<i64>().value(i), &DataType::Int64)?;
                let values = values.as_primitive::<Int64Type>().values().to_vec();
                if values.len() != length {
                    return Err(damaged(&path, format!("{} sums, expected {length}", values.len())));
                }
                // count <= 2^30 and limit <= 2^32: no overflow.
                let most = count * limit.unsigned_abs();
                match values.iter().position(|v| v.unsigned_abs() > most) {
                    Some(at) => Err(damaged(&path, format!("sum {at} is {}, too large for {count} rows", values[at]))),
                    None => Ok(values),
                }
            };
            member.embedding = read("embedding", header.recipe.feature_len(), embedding_limit)?;
            member.cos = read("cos", header.frequencies, angle_limit)?;
            member.sin = read("sin", header.frequencies, angle_limit)?;
        }
        Ok(members)
    }

    fn reservoir(&self, header: &Header, count: u64) -> Result<Reservoir> {
        let structs = self.list("reservoir", DataType::Struct(kept_fields()))?;
        let structs = structs.as_struct();
        if structs.len() > header.reservoir {
            let (found, most) = (structs.len(), header.reservoir);
            return Err(damaged("reservoir", format!("{found} rows, its capacity is {most}")));
        }
        let column =
            |name: &str| structs.column_by_name(name).ok_or_else(|| damaged(&format!("reservoir.{name}"), "missing"));
        let hashes = without_nulls("reservoir.hash", column("hash")?, &DataType::FixedSizeBinary(16))?;
        let copies = without_nulls("reservoir.copies", column("copies")?, &DataType::Int64)?;
        let rows = without_nulls("reservoir.values", column("values")?, &list(DataType::Float32))?;
        let mut reservoir = Reservoir::new(header.reservoir);
        let mut total = 0u64;
        for i in 0..structs.len() {
            let path = format!("reservoir[{i}]");
            let values = without_nulls(&path, &rows.as_list::<i64>().value(i), &DataType::Float32)?;
            let values = values.as_primitive::<Float32Type>().values().to_vec();
            let expected = header.recipe.shape.len();
            if values.len() != expected || values.iter().any(|v| !v.is_finite()) {
                return Err(damaged(&path, format!("expected {expected} finite numbers")));
            }
            let hash = Reservoir::hash(header.frequency_seed, &values);
            if hashes.as_fixed_size_binary().value(i) != hash {
                return Err(damaged(&path, "the numbers don't have the hash that is stored with them"));
            }
            if reservoir.rows.last().is_some_and(|last| last.hash >= hash) {
                return Err(damaged(&path, "not in the order of the hashes"));
            }
            let copies = copies.as_primitive::<Int64Type>().value(i);
            match u64::try_from(copies).ok().and_then(|c| total.checked_add(c)).filter(|t| copies > 0 && *t <= count) {
                Some(t) => total = t,
                None => return Err(damaged(&path, format!("{copies} copies, in a sketch of {count} rows"))),
            }
            reservoir.rows.push(Kept { hash, copies: copies as u64, values });
        }
        Ok(reservoir)
    }

    /// The items of the row's list in field `name`.
    fn list(&self, name: &str, items: DataType) -> Result<ArrayRef> {
        let column = self.column(name, &list(items.clone()))?;
        without_nulls(name, &column.as_list::<i64>().value(0), &items)
    }
}

/// `array` cast to `data_type`; an error if it can't be or if an item is NULL.
fn without_nulls(name: &str, array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let array = if array.data_type() == data_type {
        array.clone()
    } else {
        let strict = CastOptions { safe: false, ..Default::default() };
        cast_with_options(array, data_type, &strict)
            .map_err(|e| damaged(name, format!("expected {data_type}, found {} ({e})", array.data_type())))?
    };
    if array.logical_null_count() > 0 { Err(damaged(name, "NULL inside")) } else { Ok(array) }
}

#[cfg(test)]
#[path = "arrow_form_tests.rs"]
mod tests;
