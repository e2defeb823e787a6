//! An Arrow struct that anyone may have written flows in; a sketch, every part of it checked, or an error that names the field flows out.

use std::sync::{Arc, LazyLock};

use crate::arrow::array::{Array, ArrayRef, AsArray, StructArray};
use crate::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use crate::arrow::compute::{CastOptions, cast_with_options};
use crate::arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int64Type, UInt64Type};
use crate::error::{Error, Result};
use crate::extract::PoolRecipe;
use crate::kernels::sums::{all_finite, within};
use crate::options::{FrequencyScales, Moments};
use crate::sketch::arrow_form::{
    FREQUENCY_SCALES, MomentParameters, SECOND_MOMENTS, ScaleParameters, extractor_fields, feature_fields, kept_fields,
    list, section_fields,
};
use crate::sketch::moments::{UNITS, rows_after};
use crate::sketch::sums::limits;
use crate::sketch::{
    COS_SCALE, ClassSketch, EMBEDDING_BOUND, EMBEDDING_SCALE, FORMAT, Header, Kept, MAX_COUNT, MemberSums,
    MomentsHeader, Origin, OriginFeature, Reservoir, schema_bytes,
};

/// Most bytes of a text that is read.
const MOST_TEXT: usize = 16 << 20;

/// The sketch in row `row`; a damaged one is an error.
///
/// Fields are found by name and cast where another writer chose another type of list, text or integer. Everything is checked:
/// the format's version, the scales, all lengths against the recipe, the size of every sum, the reservoir's order and hashes.
pub fn from_array(array: &StructArray, row: usize) -> Result<(Header, ClassSketch)> {
    let mut column = SketchColumn::new(array);
    let sketch = column.read(row, None)?;
    let (_, header) = column.last.ok_or_else(|| Error::Sketch(format!("row {row} has no header")))?;
    sketch.reservoir.check(header.frequency_seed)?;
    Ok((header, sketch))
}

/// A column of sketches to be added up: a header that is the one before again isn't parsed again, and what is read shares the column's memory.
#[derive(Debug)]
pub struct SketchColumn<'a> {
    array: &'a StructArray,
    /// The columns of [`HEADER`], if all are there.
    header: Option<Vec<&'a ArrayRef>>,
    written: Option<Written>,
    /// The row that was read last, and its header.
    last: Option<(usize, Header)>,
}

/// Fields that the header is read from, but for the sections.
const HEADER: [&str; 15] = [
    "format",
    "pool",
    "recipe",
    "frequencies",
    "frequency_seed",
    "reservoir_capacity",
    "embedding_scale",
    "cos_scale",
    "embedding_bound",
    "numerics",
    "source_schema",
    "features",
    "label",
    "label_type",
    "label_names",
];

impl<'a> SketchColumn<'a> {
    /// None of it is read yet.
    pub fn new(array: &'a StructArray) -> Self {
        let header = HEADER.iter().map(|name| array.column_by_name(name)).collect();
        Self { array, header, written: Written::of(array), last: None }
    }

    /// The header of the row that was read last.
    pub fn header(&self) -> Option<&Header> {
        self.last.as_ref().map(|(_, header)| header)
    }

    /// The sketch in row `row`; a damaged one is an error. All is checked that [`from_array`] checks, but for the hashes of the kept rows' numbers, which cost more
    /// than all the rest: [`Reservoir::check`] does that, of the rows that remain of all sketches.
    ///
    /// `bound`: kept rows with a larger hash are left out, the first aside, and their numbers not looked at, since the reservoir that the sketch goes into has no
    /// room for them.
    pub fn read(&mut self, row: usize, bound: Option<[u8; 16]>) -> Result<ClassSketch> {
        self.read_as(row, bound, true)
    }

    /// [`SketchColumn::read`], but for the sizes of sums, second moments aside: for who looks at each sum anyway.
    pub(crate) fn read_unchecked(&mut self, row: usize, bound: Option<[u8; 16]>) -> Result<ClassSketch> {
        self.read_as(row, bound, false)
    }

    fn read_as(&mut self, row: usize, bound: Option<[u8; 16]>, check_sums: bool) -> Result<ClassSketch> {
        let array = self.array;
        if row >= array.len() || array.is_null(row) {
            return Err(Error::Sketch(format!("row {row} is NULL; leave such rows out: WHERE sketch IS NOT NULL")));
        }
        let reader = Reader { array, row, bound, check_sums, written: self.written.as_ref() };
        let alike =
            |last: usize| self.header.as_ref().is_some_and(|columns| columns.iter().all(|c| same(c, row, last)));
        let mut header = match self.last.take() {
            Some((last, header)) if alike(last) => header,
            _ => reader.checked_header()?,
        };
        let Sections { moments, scales } = reader.sections(&header)?;
        header.moments = moments.as_ref().map(|moments| moments.said.header.clone());
        header.frequency_scales = scales;
        let sketch = reader.sketch(&header, moments)?;
        self.last = Some((row, header));
        Ok(sketch)
    }
}

fn damaged(field: &str, message: impl std::fmt::Display) -> Error {
    Error::Sketch(format!("field '{field}': {message}; the sketch is damaged, make it again"))
}

/// What the sections say.
struct Sections {
    moments: Option<ReadMoments>,
    scales: FrequencyScales,
}

/// The section of second moments.
struct ReadMoments {
    said: MomentParameters,
    /// One entry an extractor.
    sums: Vec<ScalarBuffer<i64>>,
}

/// The column `name` of sections, without NULLs.
fn section_column(sections: &StructArray, name: &str, data_type: &DataType) -> Result<ArrayRef> {
    let path = format!("sections.{name}");
    let column = sections.column_by_name(name).ok_or_else(|| damaged(&path, "missing"))?;
    without_nulls(&path, column, data_type)
}

/// The second moments in their section, of extractors as `recipe` says.
fn moments(section: &StructArray, recipe: &PoolRecipe) -> Result<ReadMoments> {
    let wrong = |message: String| damaged(SECOND_MOMENTS, message);
    let parameters = section_column(section, "parameters", &DataType::Utf8)?;
    let said: MomentParameters =
        serde_json::from_str(parameters.as_string::<i32>().value(0)).map_err(|e| wrong(e.to_string()))?;
    let MomentsHeader { kind, dim, bounds } = &said.header;
    let extractors = recipe.extractors;
    if *kind == Moments::None || *dim == 0 || *dim > recipe.feature_len() || *dim > 1 << 16 || said.units != UNITS {
        return Err(wrong(format!("impossible parameters, {dim} dimensions")));
    }
    if bounds.len() != extractors
        || said.clipped.len() != extractors
        || bounds.iter().any(|b| !b.is_normal() || *b < 0.0)
    {
        return Err(wrong(format!(
            "expected a positive bound and a count of clipped values for each of {extractors} extractors"
        )));
    }
    rows_after(said.rows, 0)?;
    let lists = section_column(section, "integers", &list(list(DataType::Int64)))?.as_list::<i64>().value(0);
    let lists = without_nulls("sections.integers", &lists, &list(DataType::Int64))?;
    if lists.len() != extractors {
        return Err(wrong(format!("sums of {} extractors, the recipe says {extractors}", lists.len())));
    }
    let (sums, _) = numbers::<Int64Type>("sections.integers", &lists)?;
    let expected = said.header.len();
    if let Some((i, sums)) = sums.iter().enumerate().find(|(_, s)| s.len() != expected && !s.is_empty()) {
        return Err(wrong(format!("{} sums of extractor {i}, expected {expected}", sums.len())));
    }
    Ok(ReadMoments { said, sums })
}

/// The scales in the section of frequencies' scales.
fn scales(section: &StructArray, header: &Header) -> Result<FrequencyScales> {
    let parameters = section_column(section, "parameters", &DataType::Utf8)?;
    let said: ScaleParameters =
        serde_json::from_str(parameters.as_string::<i32>().value(0)).map_err(|e| damaged(FREQUENCY_SCALES, e))?;
    let scales = FrequencyScales::new(said.scales.to_vec());
    scales.filter(|_| header.frequencies > 0).ok_or_else(|| damaged(FREQUENCY_SCALES, "impossible scales"))
}

/// One row of an array of sketches.
struct Reader<'a> {
    array: &'a StructArray,
    row: usize,
    bound: Option<[u8; 16]>,
    check_sums: bool,
    written: Option<&'a Written>,
}

/// The extractors' sums of a whole column whose types are those that sketches are written with, and without NULLs: a row's are found by offsets alone, where otherwise a dozen
/// arrays of one row are made.
#[derive(Debug)]
struct Written {
    /// Of rows, where their extractors begin and end.
    rows: OffsetBuffer<i64>,
    /// Of embeddings, cosines, sines: where an extractor's sums begin and end, and all of them.
    sums: [(OffsetBuffer<i64>, ScalarBuffer<i64>); 3],
}

impl Written {
    fn of(array: &StructArray) -> Option<Self> {
        let lists = array.column_by_name("extractors")?.as_list_opt::<i64>().filter(|lists| lists.null_count() == 0)?;
        let structs = lists.values().as_struct_opt().filter(|structs| structs.null_count() == 0)?;
        let sums = |name: &str| {
            let lists = structs.column_by_name(name)?.as_list_opt::<i64>().filter(|lists| lists.null_count() == 0)?;
            let sums = lists.values().as_primitive_opt::<Int64Type>().filter(|sums| sums.null_count() == 0)?;
            Some((lists.offsets().clone(), sums.values().clone()))
        };
        Some(Self { rows: lists.offsets().clone(), sums: [sums("embedding")?, sums("cos")?, sums("sin")?] })
    }

    fn row(&self, row: usize) -> RowSums {
        let extractors = self.rows[row] as usize..self.rows[row + 1] as usize;
        let kinds = self.sums.each_ref().map(|(offsets, sums)| {
            let one = |n: usize| sums.slice(offsets[n] as usize, (offsets[n + 1] - offsets[n]) as usize);
            let of_each = extractors.clone().map(one).collect();
            let (first, end) = (offsets[extractors.start] as usize, offsets[extractors.end] as usize);
            (of_each, sums.slice(first, end - first))
        });
        RowSums { extractors: extractors.len(), kinds }
    }
}

/// The sums of one row: of embeddings, cosines, sines those of each extractor, and all of them as they lie one after the other.
struct RowSums {
    extractors: usize,
    kinds: [(Vec<ScalarBuffer<i64>>, ScalarBuffer<i64>); 3],
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
        let text = self.column(name, &DataType::Utf8)?;
        let text = text.as_string::<i32>().value(0);
        if text.len() > MOST_TEXT {
            return Err(damaged(name, format!("{} bytes of text, expected at most {MOST_TEXT}", text.len())));
        }
        Ok(text.to_string())
    }

    /// A whole number from 0 to `most`.
    fn number(&self, name: &str, most: u64) -> Result<u64> {
        let value = self.column(name, &DataType::Int64)?.as_primitive::<Int64Type>().value(0);
        u64::try_from(value)
            .ok()
            .filter(|v| *v <= most)
            .ok_or_else(|| damaged(name, format!("expected a number from 0 to {most}, found {value}")))
    }

    /// [`Reader::column`] of a field that may be NULL.
    fn optional(&self, name: &str, data_type: &DataType) -> Result<Option<ArrayRef>> {
        match self.array.column_by_name(name) {
            Some(column) if column.is_null(self.row) => Ok(None),
            _ => self.column(name, data_type).map(Some),
        }
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>> {
        Ok(self.optional(name, &DataType::Utf8)?.map(|text| text.as_string::<i32>().value(0).to_string()))
    }

    fn checked_header(&self) -> Result<Header> {
        let format = self.text("format")?;
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
            let found = self.column(name, &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
            if found != expected {
                return Err(damaged(name, format!("expected {expected}, found {found}")));
            }
        }
        self.header()
    }

    fn header(&self) -> Result<Header> {
        let recipe: PoolRecipe = serde_json::from_str(&self.text("recipe")?).map_err(|e| damaged("recipe", e))?;
        recipe.check_sound().map_err(|message| damaged("recipe", message))?;
        Ok(Header {
            origin: self.origin()?,
            moments: None,
            pool: self.text("pool")?,
            recipe,
            frequencies: self.number("frequencies", 1 << 20)? as usize,
            frequency_scales: FrequencyScales::default(),
            frequency_seed: self.column("frequency_seed", &DataType::UInt64)?.as_primitive::<UInt64Type>().value(0),
            reservoir: self.number("reservoir_capacity", 1 << 30)? as usize,
            numerics: self.text("numerics")?,
        })
    }

    fn origin(&self) -> Result<Option<Origin>> {
        let Some(bytes) = self.optional("source_schema", &DataType::LargeBinary)? else { return Ok(None) };
        let bytes = bytes.as_binary::<i64>().value(0);
        let schema = schema_bytes::read(bytes).map_err(|message| damaged("source_schema", message))?;
        let structs = self.list("features", &TYPES.features)?;
        let structs = structs.as_struct();
        let column = |name: &str, data_type: &DataType| {
            let column = structs.column_by_name(name).ok_or_else(|| damaged(&format!("features.{name}"), "missing"))?;
            cast(&format!("features.{name}"), column, data_type)
        };
        let names = column("name", &DataType::Utf8)?;
        let last = column("channels_last", &DataType::Boolean)?;
        let mut features = vec![];
        for i in 0..structs.len() {
            let name = names.is_valid(i).then(|| names.as_string::<i32>().value(i));
            let known = |name: &&str| schema.field_with_name(name).is_ok();
            let Some(name) = name.filter(known) else {
                return Err(damaged("features", format!("feature {i} is no column of the source")));
            };
            let channels_last = last.is_valid(i).then(|| last.as_boolean().value(i));
            features.push(OriginFeature { name: name.into(), channels_last });
        }
        let label = self.optional_text("label")?;
        if let Some(label) = label.as_ref().filter(|label| schema.field_with_name(label).is_err()) {
            return Err(damaged("label", format!("'{}' is no column of the source", label.escape_debug())));
        }
        let label_names = match self.optional("label_names", &list(DataType::Utf8))? {
            Some(names) => {
                let names = without_nulls("label_names", &names.as_list::<i64>().value(0), &DataType::Utf8)?;
                Some(names.as_string::<i32>().iter().flatten().map(str::to_string).collect())
            }
            None => None,
        };
        let origin = Origin { schema: Arc::new(schema), features, label, label_names };
        let (expected, found) = (origin.label_type(), self.optional_text("label_type")?);
        if expected != found {
            return Err(damaged("label_type", format!("{found:?}, the source's schema says {expected:?}")));
        }
        Ok(Some(origin))
    }

    fn sketch(&self, header: &Header, moments: Option<ReadMoments>) -> Result<ClassSketch> {
        let count = self.number("count", MAX_COUNT)?;
        let clipped = self.number("clipped", i64::MAX as u64)?;
        let mut members = self.members(header, count)?;
        let mut moment_rows = 0;
        if let Some(ReadMoments { said, sums }) = moments {
            moment_rows = said.rows;
            if said.header.kind == Moments::Class && moment_rows != count {
                return Err(damaged(SECOND_MOMENTS, format!("{moment_rows} rows in a sketch of {count}")));
            }
            for (n, ((member, sums), clipped)) in members.iter_mut().zip(sums).zip(said.clipped).enumerate() {
                (member.moments, member.moments_clipped) = (sums.into(), clipped);
                if let Some((at, sum)) = member.impossible_moment(moment_rows, said.header.dim) {
                    return Err(damaged(
                        SECOND_MOMENTS,
                        format!("sum {at} of extractor {n} is {sum}, which {moment_rows} rows can't have"),
                    ));
                }
            }
        }
        Ok(ClassSketch {
            count,
            clipped,
            missing: self.missing(header, count)?,
            members,
            moment_rows,
            reservoir: self.reservoir(header, count)?,
        })
    }

    fn missing(&self, header: &Header, count: u64) -> Result<Vec<u64>> {
        let values = self.list("missing", &TYPES.integers)?;
        let values = values.as_primitive::<Int64Type>().values();
        let expected = header.missing().len();
        if values.len() != expected {
            return Err(damaged("missing", format!("{} counts, expected {expected}", values.len())));
        }
        let fits = |v: &i64| u64::try_from(*v).ok().filter(|v| *v <= count);
        values.iter().map(|v| fits(v).ok_or_else(|| damaged("missing", format!("{v} of {count} rows")))).collect()
    }

    fn members(&self, header: &Header, count: u64) -> Result<Vec<MemberSums>> {
        let expected = header.recipe.extractors;
        let sums = match self.written {
            Some(written) => written.row(self.row),
            None => self.sums()?,
        };
        if sums.extractors != expected {
            return Err(damaged("extractors", format!("{} of them, the recipe says {expected}", sums.extractors)));
        }
        let columns = sums.kinds;
        // All at once, as they lie one after the other.
        let plausible =
            !self.check_sums || columns.iter().zip(limits(count)).all(|((_, all), limit)| within(all, limit));
        let [(embedding, _), (cos, _), (sin, _)] = columns;
        let (features, frequencies) = (header.recipe.feature_len(), header.frequencies);
        let mut members = Vec::with_capacity(expected);
        for (i, ((embedding, cos), sin)) in embedding.into_iter().zip(cos).zip(sin).enumerate() {
            for (name, sums, length) in
                [("embedding", &embedding, features), ("cos", &cos, frequencies), ("sin", &sin, frequencies)]
            {
                if sums.len() != length {
                    let path = format!("extractors[{i}].{name}");
                    return Err(damaged(&path, format!("{} sums, expected {length}", sums.len())));
                }
            }
            let (embedding, cos, sin) = (embedding.into(), cos.into(), sin.into());
            let member = MemberSums { embedding, cos, sin, ..MemberSums::default() };
            if !plausible && let Some((name, at, sum)) = member.too_large(count) {
                let path = format!("extractors[{i}].{name}");
                return Err(damaged(&path, format!("sum {at} is {sum}, too large for {count} rows")));
            }
            members.push(member);
        }
        Ok(members)
    }

    /// [`Written::row`] of columns as other writers have them.
    fn sums(&self) -> Result<RowSums> {
        let structs = self.list("extractors", &TYPES.extractors)?;
        let structs = structs.as_struct();
        let column = |name: &str| {
            let path = format!("extractors.{name}");
            let column = structs.column_by_name(name).ok_or_else(|| damaged(&path, "missing"))?;
            numbers::<Int64Type>(&path, &without_nulls(&path, column, &TYPES.integers)?)
        };
        Ok(RowSums { extractors: structs.len(), kinds: [column("embedding")?, column("cos")?, column("sin")?] })
    }

    /// The sections; one that this version doesn't know is refused.
    fn sections(&self, header: &Header) -> Result<Sections> {
        let mut sections = Sections { moments: None, scales: FrequencyScales::default() };
        let structs = self.list("sections", &TYPES.sections)?;
        if structs.is_empty() {
            return Ok(sections);
        }
        let structs = structs.as_struct();
        let names = section_column(structs, "name", &DataType::Utf8)?;
        let names: Vec<&str> = names.as_string::<i32>().iter().flatten().collect();
        if let Some(name) = names.iter().find(|name| ![SECOND_MOMENTS, FREQUENCY_SCALES].contains(*name)) {
            return Err(Error::Sketch(format!(
                "a section '{}' that this version doesn't know; read it with the version that made it",
                name.escape_debug()
            )));
        }
        for known in [SECOND_MOMENTS, FREQUENCY_SCALES] {
            let n = names.iter().filter(|name| **name == known).count();
            if n > 1 {
                return Err(damaged("sections", format!("{n} of one name")));
            }
        }
        for (i, name) in names.into_iter().enumerate() {
            let section = structs.slice(i, 1);
            if name == SECOND_MOMENTS {
                sections.moments = Some(moments(&section, &header.recipe)?);
            } else {
                sections.scales = scales(&section, header)?;
            }
        }
        Ok(sections)
    }

    fn reservoir(&self, header: &Header, count: u64) -> Result<Reservoir> {
        let structs = self.list("reservoir", &TYPES.reservoir)?;
        let structs = structs.as_struct();
        if structs.len() > header.reservoir {
            let (found, most) = (structs.len(), header.reservoir);
            return Err(damaged("reservoir", format!("{found} rows, its capacity is {most}")));
        }
        let mut reservoir = Reservoir::new(header.reservoir);
        if let Some(threshold) = self.optional("reservoir_threshold", &DataType::FixedSizeBinary(16))? {
            if structs.len() >= header.reservoir {
                return Err(damaged("reservoir_threshold", "a threshold, though the reservoir is full"));
            }
            reservoir.threshold = threshold.as_fixed_size_binary().value(0).try_into().ok();
        }
        if structs.is_empty() {
            return Ok(reservoir);
        }
        let column =
            |name: &str| structs.column_by_name(name).ok_or_else(|| damaged(&format!("reservoir.{name}"), "missing"));
        let hashes = without_nulls("reservoir.hash", column("hash")?, &DataType::FixedSizeBinary(16))?;
        let copies = without_nulls("reservoir.copies", column("copies")?, &DataType::Int64)?;
        let rows = without_nulls("reservoir.values", column("values")?, &TYPES.floats)?;
        let (rows, all) = numbers::<Float32Type>("reservoir.values", &rows)?;
        let finite = self.bound.is_none() && all_finite(&all);
        let exact = without_nulls("reservoir.exact", column("exact")?, &DataType::LargeBinary)?;
        let exact = exact.as_binary::<i64>();
        let (mut total, mut last) = (0u64, None);
        for (i, values) in rows.iter().enumerate() {
            let path = || format!("reservoir[{i}]");
            let said = hashes.as_fixed_size_binary().value(i);
            if last.is_some_and(|last| last >= said) {
                return Err(damaged(&path(), "not in the order of the hashes"));
            }
            last = Some(said);
            let copies = copies.as_primitive::<Int64Type>().value(i);
            match u64::try_from(copies).ok().and_then(|c| total.checked_add(c)).filter(|t| copies > 0 && *t <= count) {
                Some(t) => total = t,
                None => return Err(damaged(&path(), format!("{copies} copies, in a sketch of {count} rows"))),
            }
            if i > 0 && self.bound.is_some_and(|bound| said > bound.as_slice()) {
                continue;
            }
            let expected = header.recipe.shape.len();
            if values.len() != expected || !(finite || all_finite(values)) {
                return Err(damaged(&path(), format!("expected {expected} finite numbers")));
            }
            let exact = match exact.value(i) {
                own if own.len() == exact.value(0).len() => own.to_vec(),
                own => {
                    let (found, first) = (own.len(), exact.value(0).len());
                    return Err(damaged(&path(), format!("{found} exact bytes, the first row has {first}")));
                }
            };
            let hash: [u8; 16] = said.try_into().map_err(|_| damaged(&path(), "expected 16 bytes of hash"))?;
            if reservoir.threshold.is_some_and(|threshold| hash > threshold) {
                return Err(damaged(&path(), "a hash above the reservoir's threshold"));
            }
            reservoir.rows.push(Kept { hash, copies: copies as u64, values: values.clone().into(), exact });
        }
        Ok(reservoir)
    }

    /// The items of the row's list in field `name`, which is of type `lists`.
    fn list(&self, name: &str, lists: &DataType) -> Result<ArrayRef> {
        let column = self.column(name, lists)?;
        let items = column.as_list::<i64>().value(0);
        if items.logical_null_count() > 0 { Err(damaged(name, "NULL inside")) } else { Ok(items) }
    }
}

/// The types of fields, made once.
struct Types {
    integers: DataType,
    floats: DataType,
    features: DataType,
    extractors: DataType,
    reservoir: DataType,
    sections: DataType,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| Types {
    integers: list(DataType::Int64),
    floats: list(DataType::Float32),
    features: list(DataType::Struct(feature_fields())),
    extractors: list(DataType::Struct(extractor_fields())),
    reservoir: list(DataType::Struct(kept_fields())),
    sections: list(DataType::Struct(section_fields())),
});

/// Whether `array` has the same in rows `a` and `b`: of the types that sketches are written with without making arrays of one row.
fn same(array: &ArrayRef, a: usize, b: usize) -> bool {
    if array.is_null(a) || array.is_null(b) {
        return array.is_null(a) && array.is_null(b);
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(a) == array.as_string::<i32>().value(b),
        DataType::LargeBinary => array.as_binary::<i64>().value(a) == array.as_binary::<i64>().value(b),
        DataType::Boolean => array.as_boolean().value(a) == array.as_boolean().value(b),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(a) == array.as_primitive::<Int64Type>().value(b),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(a) == array.as_primitive::<UInt64Type>().value(b),
        DataType::Float64 => {
            array.as_primitive::<Float64Type>().value(a) == array.as_primitive::<Float64Type>().value(b)
        }
        DataType::Struct(_) => array.as_struct().columns().iter().all(|column| same(column, a, b)),
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            let (offsets, items) = (lists.value_offsets(), lists.values());
            let list = |row: usize| offsets[row] as usize..offsets[row + 1] as usize;
            list(a).len() == list(b).len() && list(a).zip(list(b)).all(|(a, b)| same(items, a, b))
        }
        _ => array.slice(a, 1) == array.slice(b, 1),
    }
}

/// The numbers of each of `lists`, LargeLists of `T`, in the array's own memory, and those of all lists, one after the other; an error if one is NULL.
#[allow(clippy::type_complexity)]
fn numbers<T: ArrowPrimitiveType>(
    name: &str,
    lists: &ArrayRef,
) -> Result<(Vec<ScalarBuffer<T::Native>>, ScalarBuffer<T::Native>)> {
    let lists = lists.as_list::<i64>();
    let offsets = lists.value_offsets();
    let (Some(first), Some(end)) = (offsets.first(), offsets.last()) else { return Ok((vec![], vec![].into())) };
    let first = *first as usize;
    // What other rows of the column have isn't looked at.
    let values = without_nulls(name, &lists.values().slice(first, *end as usize - first), &T::DATA_TYPE)?;
    let values = values.as_primitive::<T>().values();
    let of = |list: &[i64]| values.slice(list[0] as usize - first, (list[1] - list[0]) as usize);
    Ok((offsets.windows(2).map(of).collect(), values.clone()))
}

/// `array` cast to `data_type`; an error if it can't be or if an item is NULL.
fn without_nulls(name: &str, array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let array = cast(name, array, data_type)?;
    if array.logical_null_count() > 0 { Err(damaged(name, "NULL inside")) } else { Ok(array) }
}

fn cast(name: &str, array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    cast_with_options(array, data_type, &strict)
        .map_err(|e| damaged(name, format!("expected {data_type}, found {} ({e})", array.data_type())))
}

#[cfg(test)]
#[path = "arrow_form_tests.rs"]
mod tests;
