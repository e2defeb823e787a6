//! Sketches flow in, Arrow flows out: one documented struct a class. [`from_array`](super::from_array) reads it back.
//!
//! | field | type | what it holds |
//! |---|---|---|
//! | `format` | Utf8 | [`FORMAT`]: name and version of this struct |
//! | `pool` | Utf8 | fingerprint of the extractor pool |
//! | `recipe` | Utf8 | how to build the pool again, the input scaling included, JSON ([`PoolRecipe`](crate::extract::PoolRecipe)) |
//! | `frequencies` | Int64 | frequencies of the characteristic function per extractor |
//! | `frequency_seed` | UInt64 | seed of the frequencies and of the reservoir's hash |
//! | `reservoir_capacity` | Int64 | most real rows kept |
//! | `embedding_scale` | Float64 | units per 1.0 in `embedding` |
//! | `cos_scale` | Float64 | units per 1.0 in `cos` and `sin` |
//! | `embedding_bound` | Float64 | embeddings are clipped to +- this |
//! | `numerics` | Utf8 | kernel path and revision, version and device; several, joined by ` + `, where such sketches were merged |
//! | `source_schema` | LargeBinary | the source's columns with their metadata, an encapsulated Arrow IPC message; NULL where they aren't known |
//! | `features` | LargeList of struct `name`: Utf8, `channels_last`: Boolean | the columns that were sketched; `channels_last` is NULL but for lists of three levels whose type doesn't tell it |
//! | `label` | Utf8 | the label column; NULL: the column beside the sketch |
//! | `label_type` | Utf8 | its type; NULL with `label` |
//! | `label_names` | LargeList of Utf8 | the names of a Hugging Face ClassLabel, by label value; NULL: there are none |
//! | `count` | Int64 | rows |
//! | `clipped` | Int64 | embedding values that were clipped |
//! | `missing` | LargeList of Int64 | of a table's columns that may miss values, how many rows do |
//! | `extractors` | LargeList of struct `embedding`, `cos`, `sin`: LargeList of Int64 | integer sums, one struct an extractor |
//! | `reservoir_threshold` | FixedSizeBinary(16) | rows with a larger hash aren't known, since others were taken back; NULL: no such bound |
//! | `reservoir` | LargeList of struct `hash`: FixedSizeBinary(16), `copies`: Int64, `values`: LargeList of Float32, `exact`: LargeBinary | real rows, smallest hash first; `exact` has the bytes of numbers that an f32 can't hold, where rows are chosen |
//! | `sections` | LargeList of struct `name`: Utf8, `parameters`: Utf8, `integers`: LargeList of LargeList of Int64, `numbers`: LargeList of LargeList of Float64 | optional parts by name, their parameters as JSON |
//!
//! There are two. `second_moments`: `parameters` say its `kind` (`pooled` or `class`), `dim`, `units` and for each extractor the `bounds` that they stand
//! for and the values `clipped`, and the `rows`; `integers` has for each extractor the packed upper triangle of the sums of products, or nothing where all are 0.
//! `frequency_scales`: `parameters` say the `scales` of the normal distributions that frequencies are drawn from, in turn. Without it that is 1 for all.
//!
//! The type is the same for every pool, and stays: what comes later are sections. A reader refuses a section that it doesn't know, since
//! sums that were changed by it (by noise, say) mean something else. Nothing is kept in schema or field metadata, which query engines
//! drop: a sketch is recognised by its fields ([`is_sketch`]).
//!
//! A sketch with a reservoir holds real rows, and exact sums can reveal rows too: it is as private as its source.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Float32Array, Float64Array,
    Int64Array, LargeBinaryArray, LargeListArray, StringArray, StructArray, UInt32Array, UInt64Array, new_empty_array,
    new_null_array,
};
use crate::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use crate::arrow::compute::take;
use crate::arrow::datatypes::{DataType, Field, Fields};
use crate::error::{Error, Result};
use crate::options::FrequencyScales;
use crate::sketch::moments::UNITS;
use crate::sketch::{
    COS_SCALE, ClassSketch, EMBEDDING_BOUND, EMBEDDING_SCALE, FORMAT, Header, Kept, LeftSums, MemberSums,
    MomentsHeader, Origin,
};

/// The struct's type; the same for every pool (sums are LargeList).
pub fn data_type() -> DataType {
    DataType::Struct(fields())
}

pub(super) fn fields() -> Fields {
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
        field("source_schema", DataType::LargeBinary),
        field("features", list(DataType::Struct(feature_fields()))),
        field("label", DataType::Utf8),
        field("label_type", DataType::Utf8),
        field("label_names", list(DataType::Utf8)),
        field("count", DataType::Int64),
        field("clipped", DataType::Int64),
        field("missing", list(DataType::Int64)),
        field("extractors", list(DataType::Struct(extractor_fields()))),
        field("reservoir_threshold", DataType::FixedSizeBinary(16)),
        field("reservoir", list(DataType::Struct(kept_fields()))),
        field("sections", list(DataType::Struct(section_fields()))),
    ])
}

/// Whether `data_type` is that of a sketch: the same fields by name and kind. Another width of text, binary and lists, and other names of
/// list items, are what other writers make of it.
pub fn is_sketch(data_type: &DataType) -> bool {
    same_kind(&self::data_type(), data_type)
}

fn same_kind(ours: &DataType, found: &DataType) -> bool {
    use DataType::*;
    match (ours, found) {
        (Struct(ours), Struct(found)) => {
            let same =
                |(a, b): (&Arc<Field>, &Arc<Field>)| a.name() == b.name() && same_kind(a.data_type(), b.data_type());
            ours.len() == found.len() && ours.iter().zip(found).all(same)
        }
        (LargeList(ours), List(found) | LargeList(found) | ListView(found) | LargeListView(found)) => {
            same_kind(ours.data_type(), found.data_type())
        }
        (Utf8, Utf8 | LargeUtf8 | Utf8View) => true,
        (LargeBinary, Binary | LargeBinary | BinaryView) => true,
        (FixedSizeBinary(_), FixedSizeBinary(16) | Binary | LargeBinary | BinaryView) => true,
        (ours, found) => ours == found,
    }
}

pub(super) fn feature_fields() -> Fields {
    Fields::from(vec![field("name", DataType::Utf8), field("channels_last", DataType::Boolean)])
}

pub(super) fn section_fields() -> Fields {
    Fields::from(vec![
        field("name", DataType::Utf8),
        field("parameters", DataType::Utf8),
        field("integers", list(list(DataType::Int64))),
        field("numbers", list(list(DataType::Float64))),
    ])
}

pub(super) fn extractor_fields() -> Fields {
    ["embedding", "cos", "sin"].iter().map(|name| field(name, list(DataType::Int64))).collect()
}

pub(super) fn kept_fields() -> Fields {
    Fields::from(vec![
        field("hash", DataType::FixedSizeBinary(16)),
        field("copies", DataType::Int64),
        field("values", list(DataType::Float32)),
        field("exact", DataType::LargeBinary),
    ])
}

/// Nullable all the way down, as query engines and other writers make them; a NULL inside is an error on reading.
pub(super) fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn item(data_type: DataType) -> Arc<Field> {
    Arc::new(field("item", data_type))
}

pub(super) fn list(data_type: DataType) -> DataType {
    DataType::LargeList(item(data_type))
}

/// Sketches as an array of [`data_type`].
pub fn to_array(header: &Header, sketches: &[ClassSketch]) -> Result<StructArray> {
    with_extractors(header, sketches, extractors(sketches)?)
}

/// [`to_array`] of sketches whose sums, but for second moments, are `left`, of the lengths that `header` says.
pub(crate) fn with_left_sums(header: &Header, sketches: &[ClassSketch], left: LeftSums) -> Result<StructArray> {
    let members = || sketches.iter().map(|s| s.members.len());
    let count = members().sum::<usize>();
    let sums = |values: Vec<i64>, length: usize| lists(Arc::new(Int64Array::from(values)), (0..count).map(|_| length));
    let (features, frequencies) = (header.recipe.feature_len(), header.frequencies);
    let columns = vec![sums(left.embedding, features)?, sums(left.cos, frequencies)?, sums(left.sin, frequencies)?];
    let structs = StructArray::try_new_with_length(extractor_fields(), columns, None, count)?;
    with_extractors(header, sketches, lists(Arc::new(structs), members())?)
}

fn with_extractors(header: &Header, sketches: &[ClassSketch], extractors: ArrayRef) -> Result<StructArray> {
    let n = sketches.len();
    let recipe = serde_json::to_string(&header.recipe)
        .map_err(|e| Error::Sketch(format!("the pool's recipe can't be written: {e}")))?;
    let origin = header.origin.as_ref();
    let schema = origin.map(Origin::schema_bytes);
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
        repeated(Arc::new(LargeBinaryArray::from(vec![schema.as_deref()])), n)?,
        repeated(features(header)?, n)?,
        repeated(Arc::new(StringArray::from(vec![origin.and_then(|o| o.label.as_deref())])), n)?,
        repeated(Arc::new(StringArray::from(vec![origin.and_then(Origin::label_type)])), n)?,
        repeated(label_names(header)?, n)?,
        of(|s| s.count),
        of(|s| s.clipped),
        missing(sketches)?,
        extractors,
        thresholds(sketches)?,
        reservoirs(sketches)?,
        sections(header, sketches)?,
    ];
    Ok(StructArray::try_new_with_length(fields(), columns, None, n)?)
}

/// The one value of `value`, `n` times.
fn repeated(value: ArrayRef, n: usize) -> Result<ArrayRef> {
    Ok(take(&value, &UInt32Array::from(vec![0; n]), None)?)
}

fn features(header: &Header) -> Result<ArrayRef> {
    let features = || header.origin.iter().flat_map(|origin| &origin.features);
    let names = features().map(|f| Some(f.name.as_str())).collect::<StringArray>();
    let last: BooleanArray = features().map(|f| f.channels_last).collect();
    let n = names.len();
    let columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(last)];
    lists(Arc::new(StructArray::try_new(feature_fields(), columns, None)?), std::iter::once(n))
}

fn label_names(header: &Header) -> Result<ArrayRef> {
    match header.origin.as_ref().and_then(|origin| origin.label_names.as_ref()) {
        Some(names) => lists(Arc::new(StringArray::from_iter_values(names)), std::iter::once(names.len())),
        None => Ok(new_null_array(&list(DataType::Utf8), 1)),
    }
}

fn thresholds(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let thresholds = sketches.iter().map(|s| s.reservoir.threshold);
    Ok(Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(thresholds, 16)?))
}

/// The name of the section of second moments.
pub(super) const SECOND_MOMENTS: &str = "second_moments";

/// What the section of second moments says beside its sums.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MomentParameters {
    /// Kind, dimensions and bounds.
    #[serde(flatten)]
    pub(super) header: MomentsHeader,
    /// Units that each bound stands for.
    pub(super) units: i16,
    /// Rows.
    pub(super) rows: u64,
    /// Values that were clipped, one count an extractor.
    pub(super) clipped: Vec<u64>,
}

/// The name of the section of frequencies' scales.
pub(super) const FREQUENCY_SCALES: &str = "frequency_scales";

/// What the section of frequencies' scales says; it has no sums.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScaleParameters {
    /// The scales.
    pub(super) scales: FrequencyScales,
}

fn sections(header: &Header, sketches: &[ClassSketch]) -> Result<ArrayRef> {
    // What is as it always was is not written.
    let scales = Some(&header.frequency_scales).filter(|scales| **scales != FrequencyScales::default());
    if header.moments.is_none() && scales.is_none() {
        let none = new_empty_array(&DataType::Struct(section_fields()));
        return lists(none, sketches.iter().map(|_| 0));
    }
    let written = |section: &str, parameters: std::result::Result<String, serde_json::Error>| {
        parameters.map_err(|e| Error::Sketch(format!("section '{section}': {e}")))
    };
    let (mut names, mut parameters, mut members) = (vec![], vec![], vec![]);
    // Extractors with sums, of each section.
    let mut lengths = vec![];
    for sketch in sketches {
        if let Some(moments) = &header.moments {
            let said = MomentParameters {
                header: moments.clone(),
                units: UNITS,
                rows: sketch.moment_rows,
                clipped: sketch.members.iter().map(|m| m.moments_clipped).collect(),
            };
            names.push(SECOND_MOMENTS);
            parameters.push(written(SECOND_MOMENTS, serde_json::to_string(&said))?);
            members.extend(&sketch.members);
            lengths.push(sketch.members.len());
        }
        if let Some(scales) = scales {
            names.push(FREQUENCY_SCALES);
            let said = ScaleParameters { scales: scales.clone() };
            parameters.push(written(FREQUENCY_SCALES, serde_json::to_string(&said))?);
            lengths.push(0);
        }
    }
    // Sums that are all 0 are written as none, however they came to be.
    let sums = |m: &MemberSums| if m.moments.iter().all(|sum| *sum == 0) { 0 } else { m.moments.len() };
    let values = members.iter().map(|m| &m.moments[..sums(m)]).collect::<Vec<_>>().concat();
    let inner = lists(Arc::new(Int64Array::from(values)), members.iter().map(|m| sums(m)))?;
    let numbers = lists(new_empty_array(&DataType::Float64), std::iter::empty())?;
    let count = names.len();
    let columns = vec![
        Arc::new(StringArray::from(names)) as ArrayRef,
        Arc::new(StringArray::from(parameters)),
        lists(inner, lengths.into_iter())?,
        lists(numbers, (0..count).map(|_| 0))?,
    ];
    let structs = StructArray::try_new_with_length(section_fields(), columns, None, count)?;
    let each = usize::from(header.moments.is_some()) + usize::from(scales.is_some());
    lists(Arc::new(structs), sketches.iter().map(|_| each))
}

fn missing(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let values: Vec<i64> =
        sketches.iter().flat_map(|s| &s.missing).map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
    lists(Arc::new(Int64Array::from(values)), sketches.iter().map(|s| s.missing.len()))
}

fn extractors(sketches: &[ClassSketch]) -> Result<ArrayRef> {
    let members: Vec<&MemberSums> = sketches.iter().flat_map(|s| &s.members).collect();
    let sums = |get: fn(&MemberSums) -> &[i64]| -> Result<ArrayRef> {
        // Copied list by list: an iterator over single numbers is several times slower.
        let values = members.iter().map(|m| get(m)).collect::<Vec<_>>().concat();
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
    let mut values = Vec::with_capacity(rows.iter().map(|r| r.values.len()).sum());
    rows.iter().for_each(|r| r.values.append_to(&mut values));
    let columns = vec![
        Arc::new(hashes.finish()) as ArrayRef,
        Arc::new(copies),
        lists(Arc::new(Float32Array::from(values)), rows.iter().map(|r| r.values.len()))?,
        Arc::new(LargeBinaryArray::from_iter_values(rows.iter().map(|r| &r.exact))),
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
