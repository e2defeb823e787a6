use std::sync::Arc;

use super::*;
use crate::arrow::array::{
    FixedSizeBinaryArray, Float64Array, Int64Array, LargeBinaryArray, RecordBatch, StringArray, new_null_array,
};
use crate::arrow::datatypes::{Field, Schema};
use crate::extract::{Affine, Scaling};
use crate::parquet::arrow::ArrowWriter;
use crate::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use crate::sketch::Numbers;
use crate::sketch::arrow_form::{data_type, field, fields, is_sketch, to_array};
use crate::sketch::header::tests::header as bare_header;

/// A header with all that is optional.
fn header() -> Header {
    let schema = Schema::new(vec![
        Field::new("x", DataType::new_list(DataType::Float32, true), true),
        Field::new("label", DataType::Int64, true),
    ]);
    let features = vec![OriginFeature { name: "x".into(), channels_last: Some(true) }];
    let names = Some(vec!["cat".into(), "dog".into()]);
    let origin = Origin { schema: Arc::new(schema), features, label: Some("label".into()), label_names: names };
    Header { origin: Some(origin), ..bare_header() }
}

fn sketch(header: &Header, rows: u64) -> ClassSketch {
    let mut s = ClassSketch::empty(header);
    s.count = rows;
    for (m, member) in s.members.iter_mut().enumerate() {
        for r in 0..rows {
            let value = r as f32 + m as f32 * 0.25 - 3.0;
            s.clipped += member.add_embedding(&vec![value * 1000.0; header.recipe.feature_len()]);
            crate::kernels::sincos::add(&vec![value; header.frequencies], &mut member.cos, &mut member.sin);
        }
    }
    for r in 0..rows {
        let values = vec![r as f32; header.recipe.shape.len()];
        let exact = [r as u8, 7];
        s.reservoir.offer(Reservoir::hash(header.frequency_seed, &values, &exact), 1, &values, &exact);
    }
    s
}

fn sketches() -> (Header, Vec<ClassSketch>) {
    let header = header();
    let sketches = [0, 1, 8].map(|rows| sketch(&header, rows)).to_vec();
    (header, sketches)
}

fn read_all(array: &StructArray, header: &Header) -> Vec<ClassSketch> {
    (0..array.len())
        .map(|row| {
            let (read_header, sketch) = from_array(array, row).unwrap();
            assert_eq!(&read_header, header);
            sketch
        })
        .collect()
}

#[test]
fn sketches_survive_arrow_and_slices() {
    let (header, sketches) = sketches();
    let array = to_array(&header, &sketches).unwrap();
    assert_eq!(array.data_type(), &data_type());
    assert!(sketches[2].clipped > 0);
    assert_eq!(read_all(&array, &header), sketches);
    assert_eq!(read_all(&array.slice(1, 2), &header), sketches[1..]);
    assert_eq!(to_array(&header, &[]).unwrap().len(), 0);
    let (bare, mut thinned) = (bare_header(), sketch(&header, 5));
    thinned.subtract(&sketch(&header, 2)).unwrap();
    assert!(thinned.reservoir.threshold.is_some());
    let array = to_array(&bare, &[thinned.clone(), sketches[1].clone()]).unwrap();
    assert_eq!(read_all(&array, &bare), [thinned, sketches[1].clone()]);
}

#[test]
fn scales_of_frequencies_are_a_section_beside_second_moments_and_only_where_they_are_not_one() {
    let moments = MomentsHeader { kind: Moments::Class, dim: 2, bounds: vec![1.0, 2.0, 4.0] };
    for moments in [None, Some(moments)] {
        let plain = Header { moments, ..header() };
        let scales = FrequencyScales::new(vec![0.5, 1.0, 2.0]).unwrap();
        let scaled = Header { frequency_scales: scales, ..plain.clone() };
        for (header, extra) in [(&plain, 0), (&scaled, 1)] {
            let sketches = [4, 0].map(|rows| {
                let mut sketch = sketch(header, rows);
                sketch.moment_rows = if header.moments.is_some() { rows } else { 0 };
                sketch
            });
            let array = to_array(header, &sketches).unwrap();
            assert_eq!(read_all(&array, header), sketches);
            let sections = array.column_by_name("sections").unwrap().as_list::<i64>();
            assert_eq!(sections.value_length(0), i64::from(header.moments.is_some()) + extra);
            let mut column = SketchColumn::new(&array);
            column.read(1, None).unwrap();
            assert_eq!(column.header(), Some(header));
        }
        let none = Header { frequencies: 0, ..scaled };
        let array = to_array(&none, &[ClassSketch::empty(&none)]).unwrap();
        assert!(from_array(&array, 0).unwrap_err().to_string().contains("impossible scales"));
    }
}

#[test]
fn a_sketch_is_told_by_its_fields_whatever_widths_another_writer_chose() {
    assert!(is_sketch(&data_type()));
    let change = |name: &str, to: DataType| {
        let changed = |f: &Arc<Field>| if f.name() == name { field(name, to.clone()) } else { f.as_ref().clone() };
        DataType::Struct(fields().iter().map(changed).collect())
    };
    let list = |t| DataType::List(Arc::new(Field::new("element", t, false)));
    for same in [
        change("pool", DataType::Utf8View),
        change("missing", list(DataType::Int64)),
        change("source_schema", DataType::BinaryView),
    ] {
        assert!(is_sketch(&same));
    }
    for other in [
        change("count", DataType::Int32),
        change("missing", list(DataType::Float64)),
        DataType::Struct(fields()[1..].into()),
        DataType::Int64,
    ] {
        assert!(!is_sketch(&other));
    }
}

#[test]
fn sketches_survive_parquet() {
    let (header, sketches) = sketches();
    let array: ArrayRef = Arc::new(to_array(&header, &sketches).unwrap());
    let schema = Arc::new(Schema::new(vec![Field::new("sketch", data_type(), true)]));
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, vec![array]).unwrap()).unwrap();
    writer.close().unwrap();
    for skip_metadata in [false, true] {
        let options =
            crate::parquet::arrow::arrow_reader::ArrowReaderOptions::new().with_skip_arrow_metadata(skip_metadata);
        let file = tempfile(&bytes);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap().build().unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let read: Vec<ClassSketch> = batches.iter().flat_map(|b| read_all(b.column(0).as_struct(), &header)).collect();
        assert_eq!(read, sketches);
    }
}

/// `array` with field `name` replaced.
fn with(array: &StructArray, name: &str, column: ArrayRef) -> StructArray {
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, old) in array.fields().iter().zip(array.columns()) {
        let new = if field.name() == name { column.clone() } else { old.clone() };
        fields.push(Field::new(field.name(), new.data_type().clone(), true));
        columns.push(new);
    }
    StructArray::try_new(fields.into(), columns, None).unwrap()
}

#[test]
fn damage_is_an_error_that_names_the_field() {
    let header = header();
    let good = sketch(&header, 5);
    let array = to_array(&header, std::slice::from_ref(&good)).unwrap();
    let int = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
    let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
    let recipe = |change: fn(&mut crate::extract::PoolRecipe)| {
        let mut recipe = header.recipe.clone();
        change(&mut recipe);
        text(&serde_json::to_string(&recipe).unwrap())
    };
    let changed = |change: fn(&mut ClassSketch), name: &str| {
        let mut s = good.clone();
        change(&mut s);
        to_array(&header, &[s]).unwrap().column_by_name(name).unwrap().clone()
    };
    let threshold =
        |byte: u8| Arc::new(FixedSizeBinaryArray::try_from_iter([[byte; 16]].into_iter()).unwrap()) as ArrayRef;
    let section = |name: &str| {
        let structs = StructArray::new(
            section_fields(),
            vec![
                text(name),
                text("{}"),
                new_null_array(&list(list(DataType::Int64)), 1),
                new_null_array(&list(list(DataType::Float64)), 1),
            ],
            None,
        );
        let lists = crate::arrow::array::LargeListArray::try_new(
            Arc::new(field("item", structs.data_type().clone())),
            crate::arrow::buffer::OffsetBuffer::from_lengths([1]),
            Arc::new(structs),
            None,
        );
        Arc::new(lists.unwrap()) as ArrayRef
    };
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("source_schema", Arc::new(LargeBinaryArray::from(vec![Some(&b"\xff\xff\xff\xff"[..])])), "source_schema"),
        ("source_schema", Arc::new(LargeBinaryArray::from(vec![None])), ""),
        ("label", text("colour"), "'colour' is no column"),
        ("label_type", text("Utf8"), "label_type"),
        ("label_names", changed(|_| {}, "extractors"), "label_names"),
        ("reservoir_threshold", threshold(255), "the reservoir is full"),
        ("sections", section("privacy\n"), "a section 'privacy\\n' that this version doesn't know"),
        ("format", text("datafusion-distill/sketch/9"), "this version reads 'datafusion-distill/sketch/1'"),
        ("pool", Arc::new(StringArray::from(vec![None::<&str>])), "NULL"),
        ("recipe", text("{"), "recipe"),
        ("recipe", recipe(|r| r.extractors = 1 << 40), "impossible sizes"),
        ("recipe", recipe(|r| r.extractors = 4), "the recipe says 4"),
        ("recipe", recipe(|r| r.width = 16), "expected 16"),
        (
            "recipe",
            recipe(|r| r.scaling = Scaling::Affine(Affine { low: 0.0, high: 1.0, scale: 0.0, offset: 0.0 })),
            "not a map",
        ),
        ("frequencies", int(5), "expected 5"),
        ("frequencies", int(i64::MAX), "from 0 to"),
        ("cos_scale", Arc::new(Float64Array::from(vec![f64::NAN])), "cos_scale"),
        ("count", int(-1), "found -1"),
        ("count", int(0), "too large for 0 rows"),
        ("count", int(2), "in a sketch of 2 rows"),
        ("count", text("many"), "count"),
        ("clipped", int(i64::MIN), "clipped"),
        ("reservoir_capacity", int(2), "its capacity is 2"),
        ("extractors", text("x"), "extractors"),
        ("extractors", changed(|s| s.members[1].sin[2] = i64::MIN, "extractors"), "extractors[1].sin"),
        ("extractors", changed(|s| s.members[0].cos.to_mut().truncate(1), "extractors"), "extractors[0].cos"),
        ("reservoir", changed(|s| s.reservoir.rows[0].values = Numbers::of(&[f32::NAN; 6]), "reservoir"), "finite"),
        ("reservoir", changed(|s| s.reservoir.rows[0].values = Numbers::of(&[77.0; 6]), "reservoir"), "hash"),
        ("reservoir", changed(|s| s.reservoir.rows.reverse(), "reservoir"), "order"),
        ("reservoir", changed(|s| s.reservoir.rows[1].copies = 6, "reservoir"), "6 copies"),
        ("reservoir", changed(|s| s.reservoir.rows[1].values = Numbers::of(&[1.0, 2.0]), "reservoir"), "expected 6"),
    ];
    for (name, column, part) in cases {
        if part.is_empty() {
            // Where the source isn't known, nothing is said of its columns.
            assert_eq!(from_array(&with(&array, name, column), 0).unwrap().0.origin, None);
            continue;
        }
        let e = from_array(&with(&array, name, column), 0).unwrap_err().to_string();
        assert!(e.contains(part), "{name}: {e}");
    }
    assert!(from_array(&array, 1).is_err());
    let none = StructArray::new_null(fields(), 1);
    assert!(from_array(&none, 0).unwrap_err().to_string().contains("NULL"));
    let other = StructArray::from(vec![(Arc::new(field("bytes", DataType::Int64)), int(1))]);
    assert!(from_array(&other, 0).unwrap_err().to_string().contains("not a sketch"));
}

fn tempfile(bytes: &[u8]) -> std::fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_column_that_is_read_to_be_added_up_gives_the_same_sum_as_sketch_by_sketch() {
    let header = header();
    // Other rows in each, so that the reservoirs overflow; another numerics tag in the middle.
    let mixed = Header { numerics: "other 1".into(), ..header.clone() };
    let arrays: Vec<StructArray> = (1..7u64)
        .map(|rows| to_array(if rows == 3 { &mixed } else { &header }, &[sketch(&header, 2 * rows)]).unwrap())
        .collect();
    let arrays: Vec<&dyn Array> = arrays.iter().map(|a| a as &dyn Array).collect();
    let column = crate::arrow::compute::concat(&arrays).unwrap();
    let column = column.as_struct();
    let mut expected = ClassSketch::empty(&header);
    read_rows(column).iter().for_each(|(_, sketch)| expected.merge(sketch).unwrap());
    assert!(expected.reservoir.bound().is_some(), "the reservoir must be full");

    let (mut sum, mut together) = (ClassSketch::empty(&header), SketchColumn::new(column));
    for (row, (own, _)) in read_rows(column).iter().enumerate() {
        let bound = sum.reservoir.bound();
        let sketch = together.read(row, bound).unwrap();
        assert_eq!(together.header(), Some(own));
        sum.merge(&sketch).unwrap();
    }
    assert_eq!(sum, expected);
}

fn read_rows(column: &StructArray) -> Vec<(Header, ClassSketch)> {
    (0..column.len()).map(|row| from_array(column, row).unwrap()).collect()
}
