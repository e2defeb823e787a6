//! What holds for decoding and encoding together.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, FixedSizeListArray, Float32Array, Int64Array, ListArray, StringArray,
    StructArray,
};
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::compute::concat;
use crate::arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use crate::options::{Encoding, ImageSize, OnNull, Options, Range, Ranges};
use crate::{Error, Result};

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn large(item: DataType) -> DataType {
    DataType::LargeList(Arc::new(Field::new("element", item, false)))
}

fn fixed(item: DataType, n: i32) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new("item", item, true)), n)
}

fn picture_struct(bytes: DataType, path: Field) -> DataType {
    DataType::Struct([Field::new("bytes", bytes, true), path].into_iter().collect())
}

fn hugging_face_struct() -> DataType {
    picture_struct(DataType::Binary, Field::new("path", DataType::Utf8, true))
}

fn source(feature: DataType, label: DataType) -> SchemaRef {
    let fields = vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("label", label, false),
        Field::new("x", feature, false),
    ];
    Arc::new(Schema::new_with_metadata(fields, [("origin".to_string(), "here".to_string())].into()))
}

fn grey(height: usize, width: usize) -> Shape {
    Shape::Picture { channels: 1, height, width }
}

fn rgb(height: usize, width: usize) -> Shape {
    Shape::Picture { channels: 3, height, width }
}

fn sized(height: usize, width: usize, channels: usize) -> Options {
    Options { image_size: Some(ImageSize { height, width, channels: Some(channels) }), ..Default::default() }
}

/// Encodes as `schema` says, decodes what came out, encodes that again: both must come back as they were.
fn round_trip(schema: &SchemaRef, options: &Options, shape: Shape, values: &[f32], labels: &[Label]) {
    let layout = Layout::infer(schema, options).unwrap();
    let batch = encode(&layout, options, None, shape, values, labels).unwrap();
    assert_eq!(batch.schema(), layout.output_schema(options).unwrap());
    assert_eq!(batch.column(0).null_count(), labels.len());
    let rows = decode(&layout, options, batch.column(2), batch.column(1)).unwrap();
    assert_eq!((rows.shape, rows.skipped), (shape, 0));
    assert_eq!(rows.labels, labels);
    assert_eq!(rows.values, values, "{}", schema.field(2));
    assert_eq!(encode(&layout, options, None, shape, &rows.values, &rows.labels).unwrap(), batch);
}

fn decode(layout: &Layout, options: &Options, feature: &ArrayRef, label: &ArrayRef) -> Result<Rows> {
    Decoder::new(layout, options)?.decode(&[feature.clone(), label.clone()], None, None, "a.parquet, ", 100)
}

/// Decodes `feature` with the labels 0, 1, 2 and so on.
fn decode_feature(options: &Options, feature: &ArrayRef) -> Result<Rows> {
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values(0..feature.len() as i64));
    let layout = Layout::infer(&source(feature.data_type().clone(), DataType::Int64), options)?;
    decode(&layout, options, feature, &label)
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

fn png(shape: Shape, value: f32) -> Vec<u8> {
    picture::encode_png(shape, &vec![value; shape.len()]).unwrap()
}

fn pngs(pictures: &[Option<&[u8]>]) -> ArrayRef {
    Arc::new(BinaryArray::from_iter(pictures.iter().copied()))
}

fn floats(rows: &[Option<&[f32]>]) -> ArrayRef {
    let rows = rows.iter().map(|row| row.map(|row| row.iter().copied().map(Some)));
    Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows))
}

/// Up to 4 rows of a picture's bytes, with one integer label a row.
fn rows_of(shape: Shape) -> impl Strategy<Value = (Vec<f32>, Vec<Label>)> {
    (1usize..4).prop_flat_map(move |n| {
        let values = proptest::collection::vec((0u8..=255).prop_map(f32::from), n * shape.len());
        let labels = proptest::collection::vec((0i64..100).prop_map(Label::Int), n);
        (values, labels)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pictures_come_back_as_they_were(
        (grey_values, grey_labels) in rows_of(grey(5, 7)),
        (rgb_values, rgb_labels) in rows_of(rgb(4, 6)),
    ) {
        let required = Field::new("path", DataType::LargeUtf8, false);
        for feature in [
            hugging_face_struct(),
            picture_struct(DataType::BinaryView, required),
            DataType::Binary,
            DataType::LargeBinary,
            DataType::BinaryView,
        ] {
            let schema = source(feature, DataType::UInt8);
            for encoding in [Encoding::Source, Encoding::Tensor] {
                let options = Options { encoding, ..Default::default() };
                round_trip(&schema, &options, grey(5, 7), &grey_values, &grey_labels);
                round_trip(&schema, &options, rgb(4, 6), &rgb_values, &rgb_labels);
            }
        }
    }

    #[test]
    fn flat_lists_of_every_number_come_back_as_they_were((values, labels) in rows_of(Shape::Vector { len: 6 })) {
        use DataType::*;
        let bytes: Vec<f32> = values.iter().map(|v| (v / 2.0).floor()).collect();
        for number in [
            Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64,
            Decimal32(5, 1), Decimal64(9, 2), Decimal128(20, 3), Decimal256(40, 4),
        ] {
            for feature in [list(number.clone()), large(number.clone()), fixed(number.clone(), 6)] {
                round_trip(&source(feature, Int32), &Options::default(), Shape::Vector { len: 6 }, &bytes, &labels);
            }
        }
    }

    #[test]
    fn nested_lists_come_back_in_their_own_order((values, labels) in rows_of(rgb(4, 5))) {
        use DataType::*;
        let (o, shape) = (Options::default(), rgb(4, 5));
        for feature in [
            list(list(list(UInt8))),
            large(list(large(Float64))),
            fixed(fixed(fixed(Float32, 3), 5), 4),
            fixed(fixed(fixed(Int16, 5), 4), 3),
            list(fixed(fixed(UInt8, 5), 4)),
        ] {
            // The last form can only hold channels first, which its type doesn't tell.
            let schema = source(feature, Int64);
            if matches!(schema.field(2).data_type(), List(item) if matches!(item.data_type(), FixedSizeList(..))) {
                let layout = Layout::infer(&schema, &o).unwrap();
                layout.orders[0].set(form::Order::ChannelsFirst).unwrap();
                let batch = encode(&layout, &o, None, shape, &values, &labels).unwrap();
                let fresh = Layout::infer(&schema, &o).unwrap();
                let rows = decode(&fresh, &o, batch.column(2), batch.column(1)).unwrap();
                prop_assert_eq!(&rows.values, &values);
                prop_assert_eq!(encode(&fresh, &o, None, shape, &rows.values, &labels).unwrap(), batch);
            } else {
                round_trip(&schema, &o, shape, &values, &labels);
            }
        }
        round_trip(&source(list(UInt8), Int64), &sized(4, 5, 3), shape, &values, &labels);
        let per_row = values.len() / labels.len();
        round_trip(&source(list(list(UInt8)), Int64), &o, grey(4, per_row / 4), &values, &labels);
    }
}

#[test]
fn interleaved_bytes_become_channels_first() {
    let feature: ArrayRef = Arc::new(
        FixedSizeListArray::try_new(
            Arc::new(Field::new("item", DataType::Int64, true)),
            48,
            Arc::new(Int64Array::from_iter_values(0..48)),
            None,
        )
        .unwrap(),
    );
    let rows = decode_feature(&sized(4, 4, 3), &feature).unwrap();
    assert_eq!(rows.shape, rgb(4, 4));
    assert_eq!(rows.values[..3], [0.0, 3.0, 6.0]);
    assert_eq!(rows.row(0)[16..18], [1.0, 4.0]);
}

#[test]
fn what_tensor_encoding_writes_is_read_as_the_same_picture() {
    let options = Options { encoding: Encoding::Tensor, ..Default::default() };
    let layout = Layout::infer(&source(hugging_face_struct(), DataType::Int64), &options).unwrap();
    let values: Vec<f32> = (0..40).map(|v| v as f32 * 0.37 - 3.0).collect();
    let batch = encode(&layout, &options, None, grey(4, 5), &values, &[Label::Int(1), Label::Int(2)]).unwrap();
    let again = Layout::infer(&batch.schema(), &Options::default()).unwrap();
    let rows = decode(&again, &Options::default(), batch.column(2), batch.column(1)).unwrap();
    assert_eq!((rows.shape, rows.values), (grey(4, 5), values));
}

#[test]
fn numbers_outside_their_type_are_clamped_and_rounded() {
    let layout = Layout::infer(&source(list(DataType::UInt8), DataType::Int64), &Options::default()).unwrap();
    let batch = encode(
        &layout,
        &Options::default(),
        None,
        Shape::Vector { len: 4 },
        &[-9.0, 1.5, 2.4, 999.0],
        &[Label::Int(0)],
    )
    .unwrap();
    let rows = decode(&layout, &Options::default(), batch.column(2), batch.column(1)).unwrap();
    assert_eq!(rows.values, [0.0, 2.0, 2.0, 255.0]);
    let layout =
        Layout::infer(&source(list(DataType::Decimal128(4, 2)), DataType::Int64), &Options::default()).unwrap();
    let batch =
        encode(&layout, &Options::default(), None, Shape::Vector { len: 3 }, &[-1e9, 0.125, 1e9], &[Label::Int(0)])
            .unwrap();
    let rows = decode(&layout, &Options::default(), batch.column(2), batch.column(1)).unwrap();
    assert!(rows.values[0] <= -99.9 && rows.values[2] >= 99.9, "{:?}", rows.values);
}

#[test]
fn a_synthetic_row_has_no_path_and_no_other_column() {
    let layout = Layout::infer(&source(hugging_face_struct(), DataType::Int64), &Options::default()).unwrap();
    let batch = encode(&layout, &Options::default(), None, grey(4, 4), &[7.0; 16], &[Label::Int(5)]).unwrap();
    let picture = batch.column(2).as_struct();
    assert_eq!(picture.column_by_name("path").unwrap().null_count(), 1);
    assert!(batch.column(0).is_null(0));
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 5);
}

#[test]
fn values_that_do_not_fit_the_shape_or_the_type_are_errors() {
    let o = Options::default();
    let fixed_layout = Layout::infer(&source(fixed(DataType::Float32, 4), DataType::Int64), &o).unwrap();
    for (shape, values) in [(Shape::Vector { len: 5 }, vec![0.0; 5]), (Shape::Vector { len: 4 }, vec![0.0; 3])] {
        assert!(matches!(encode(&fixed_layout, &o, None, shape, &values, &[Label::Int(0)]), Err(Error::Data(_))));
    }
    let pictures = Layout::infer(&source(DataType::Binary, DataType::Int64), &o).unwrap();
    let e = message(encode(&pictures, &o, None, Shape::Vector { len: 4 }, &[0.0; 4], &[Label::Int(0)]));
    assert!(e.contains("vector of 4"), "{e}");
}

#[test]
fn an_undecodable_picture_is_named_by_file_row_and_column() {
    let good = png(grey(4, 4), 1.0);
    for bad in [&good[..good.len() - 20], b"", b"not a picture"] {
        let e = message(decode_feature(&Options::default(), &pngs(&[Some(&good), Some(bad)])));
        assert!(e.starts_with("a.parquet, row 101, column 'x': "), "{e}");
    }
}

#[test]
fn mixed_sizes_and_channels_name_both_and_the_way_out() {
    let (small, wide, colour) = (png(grey(4, 4), 1.0), png(grey(4, 6), 2.0), png(rgb(4, 4), 9.0));
    let e = message(decode_feature(&Options::default(), &pngs(&[Some(&small), Some(&wide)])));
    assert!(e.contains("1x4x6 picture") && e.contains("1x4x4 picture") && e.contains("image_size => '4x4x1'"), "{e}");
    let mixed = pngs(&[Some(&small), Some(&colour)]);
    let e = message(decode_feature(&Options::default(), &mixed));
    assert!(e.contains("3x4x4 picture") && e.contains("image_size => '4x4x1'"), "{e}");
    let rows = decode_feature(&sized(4, 4, 1), &mixed).unwrap();
    assert_eq!((rows.shape, rows.row(1)), (grey(4, 4), &[9.0; 16][..]));
    let rows = decode_feature(&sized(8, 8, 3), &mixed).unwrap();
    assert_eq!((rows.shape, rows.len()), (rgb(8, 8), 2));
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let layout = Layout::infer(&source(DataType::Binary, DataType::Int64), &Options::default()).unwrap();
    let decoder = Decoder::new(&layout, &Options::default()).unwrap();
    let e = message(decoder.decode(&[pngs(&[Some(&small)]), label.clone()], None, Some(grey(5, 5)), "", 0));
    assert!(e.starts_with("row 0") && e.contains("1x5x5"), "{e}");
}

#[test]
fn nulls_stop_or_are_counted() {
    let picture = png(grey(4, 4), 1.0);
    let bytes = BinaryArray::from_iter([Some(&picture[..]), None, Some(&picture), Some(&picture)]);
    let path = StringArray::from(vec![Some("a.png"), Some("b.png"), None, None]);
    let DataType::Struct(fields) = hugging_face_struct() else { unreachable!() };
    let nulls = Some(vec![true, true, false, true].into());
    let feature: ArrayRef =
        Arc::new(StructArray::try_new(fields, vec![Arc::new(bytes), Arc::new(path)], nulls).unwrap());
    let label: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), Some(4), Some(5), None]));
    let schema = source(feature.data_type().clone(), DataType::Int64);
    let run = |options: &Options, from: usize| {
        let layout = Layout::infer(&schema, options)?;
        decode(&layout, options, &feature.slice(from, 1), &label.slice(from, 1))
    };
    let stop = Options::default();
    for (from, part) in [(1, "bytes are NULL"), (2, "NULL picture"), (3, "NULL label")] {
        let e = message(run(&stop, from));
        assert!(e.contains(part) && e.contains("on_null => 'skip'"), "{e}");
    }
    let skip = Options { on_null: OnNull::Skip, ..Default::default() };
    let layout = Layout::infer(&schema, &skip).unwrap();
    let rows = decode(&layout, &skip, &feature, &label).unwrap();
    assert_eq!((rows.labels, rows.skipped), (vec![Label::Int(3)], 3));
    let none = run(&skip, 1).unwrap();
    assert!(none.is_empty() && none.shape == Shape::Vector { len: 0 });
}

#[test]
fn a_negative_hugging_face_label_counts_as_null() {
    let metadata = r#"{"info":{"features":{"label":{"names":["a","b"],"_type":"ClassLabel"}}}}"#;
    let schema = source(list(DataType::Float32), DataType::Int64);
    let schema = Arc::new(schema.as_ref().clone().with_metadata([("huggingface".into(), metadata.into())].into()));
    let label: ArrayRef = Arc::new(Int64Array::from(vec![1, -1]));
    let feature = floats(&[Some(&[1.0]), Some(&[2.0])]);
    let skip = Options { on_null: OnNull::Skip, ..Default::default() };
    let rows = decode(&Layout::infer(&schema, &skip).unwrap(), &skip, &feature, &label).unwrap();
    assert_eq!((rows.labels, rows.skipped), (vec![Label::Int(1)], 1));
    let e =
        message(decode(&Layout::infer(&schema, &Options::default()).unwrap(), &Options::default(), &feature, &label));
    assert!(e.contains("row 101, column 'label'") && e.contains("on_null"), "{e}");
}

#[test]
fn numbers_that_are_not_finite_stop_or_are_counted() {
    let feature = floats(&[Some(&[1.0, 2.0]), Some(&[f32::NAN, 0.0]), Some(&[0.0, f32::INFINITY]), None]);
    let e = message(decode_feature(&Options::default(), &feature));
    assert!(e.contains("row 101") && e.contains("NaN"), "{e}");
    let skip = Options { on_null: OnNull::Skip, ..Default::default() };
    let rows = decode_feature(&skip, &feature).unwrap();
    assert_eq!((&rows.values[..], rows.skipped), (&[1.0, 2.0][..], 3));
}

#[test]
fn other_lengths_ragged_and_empty_lists_and_numbers_outside_ranges_are_errors() {
    let ranges = Options { ranges: Some(Ranges::List(Range { low: 0.0, high: 1.0 })), ..Default::default() };
    let o = Options::default();
    for (options, rows, part) in [
        (&o, [&[1.0, 2.0][..], &[1.0]], "a vector of 1 where a vector of 2 is expected"),
        (&o, [&[1.0], &[]], "an empty list"),
        (&ranges, [&[0.5], &[1.5]], "1.5 is outside ranges => '0,1'"),
        (&sized(4, 4, 1), [&[0.0; 16], &[0.0; 48]], "'4x4x3'"),
    ] {
        let e = message(decode_feature(options, &floats(&rows.map(Some))));
        assert!(e.contains("row 101") && e.contains(part), "{e}");
    }
    let inner = floats(&[Some(&[1.0, 2.0]), Some(&[1.0])]);
    let item = Arc::new(Field::new("item", inner.data_type().clone(), true));
    let ragged: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([2]), inner, None));
    let e = message(decode_feature(&o, &ragged));
    assert!(e.contains("row 100") && e.contains("different lengths"), "{e}");
}

#[test]
fn rows_of_both_channel_orders_do_not_mix() {
    let both = [form::Order::ChannelsLast, form::Order::ChannelsFirst].map(|order| {
        let layout =
            Layout::infer(&source(list(list(list(DataType::UInt8))), DataType::Int64), &Options::default()).unwrap();
        layout.orders[0].set(order).unwrap();
        encode(&layout, &Options::default(), None, rgb(4, 4), &[1.0; 48], &[Label::Int(0)]).unwrap().column(2).clone()
    });
    let e = message(decode_feature(&Options::default(), &concat(&[&both[0], &both[1]]).unwrap()));
    assert!(e.contains("row 101") && e.contains("channels last"), "{e}");
}

#[test]
fn classes_are_kept_before_pictures_are_decoded() {
    let picture = png(grey(4, 4), 1.0);
    let feature = pngs(&[Some(b"broken"), Some(&picture), Some(b"broken")]);
    let rows = decode_feature(&Options { classes: Some(vec!["1".into()]), ..Default::default() }, &feature).unwrap();
    assert_eq!((rows.labels, rows.skipped), (vec![Label::Int(1)], 2));
}

#[test]
fn a_slice_of_a_batch_is_decoded_alone() {
    let feature = floats(&[Some(&[1.0, 2.0]), None, Some(&[3.0, 4.0]), Some(&[5.0, 6.0])]);
    assert_eq!(decode_feature(&Options::default(), &feature.slice(2, 2)).unwrap().values, [3.0, 4.0, 5.0, 6.0]);
    let values = Arc::new(Float32Array::from_iter_values((0..8).map(|v| v as f32)));
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(item, 2, values, None));
    assert_eq!(decode_feature(&Options::default(), &fixed.slice(1, 2)).unwrap().values, [2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn the_profile_of_lists_is_the_range_of_the_rows_that_can_be_used() {
    let options = Options { classes: Some(vec!["0".into()]), ..Options::default() };
    let feature = floats(&[Some(&[-1.5, f32::NAN]), None, Some(&[3.0, 7.0]), Some(&[-9.0, 9.0])]);
    let layout = Layout::infer(&source(feature.data_type().clone(), DataType::Int64), &options).unwrap();
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0, 0, 0, 1]));
    let mut profile = Profile::new(&layout);
    Decoder::new(&layout, &options).unwrap().profile(&[feature, label], &mut profile).unwrap();
    assert_eq!(profile.range(), Some((3.0, 7.0)));
}
