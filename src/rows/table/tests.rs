//! What holds for tables of any schema: rows become numbers, inputs, numbers and rows again.

use std::sync::Arc;

use proptest::prelude::*;

use crate::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int16Array, Int64Array,
    LargeStringArray, StringArray, StringViewArray, UInt8Array,
};
use crate::arrow::compute::cast;
use crate::arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema};
use crate::arrow::record_batch::RecordBatch;
use crate::options::{Curve, OnNull, Options};
use crate::rows::{Decoder, Layout, Profile, encode};

type Kind = fn(Vec<Option<i16>>) -> ArrayRef;

/// Columns of every kind, each from whole numbers and whether they are there.
const KINDS: [Kind; 10] = [
    |v| Arc::new(Int64Array::from_iter(v.into_iter().map(|v| v.map(i64::from)))),
    |v| Arc::new(Int16Array::from_iter(v)),
    |v| Arc::new(UInt8Array::from_iter(v.into_iter().map(|v| v.map(|v| v as u8)))),
    |v| Arc::new(Float64Array::from_iter(v.into_iter().map(|v| v.map(|v| f64::from(v) / 8.0)))),
    |v| Arc::new(Float32Array::from_iter(v.into_iter().map(|v| v.map(|v| f32::from(v).powi(3))))),
    |v| Arc::new(BooleanArray::from_iter(v.into_iter().map(|v| v.map(|v| v % 2 == 0)))),
    |v| Arc::new(StringArray::from_iter(v.into_iter().map(|v| v.map(|v| format!("c{}", v % 5))))),
    |v| Arc::new(LargeStringArray::from_iter(v.into_iter().map(|v| v.map(|v| format!("c{}", v % 3))))),
    |v| Arc::new(StringViewArray::from_iter(v.into_iter().map(|v| v.map(|v| format!("a long category {}", v % 4))))),
    |v| {
        let names: Vec<Option<String>> = v.into_iter().map(|v| v.map(|v| format!("d{}", v % 6))).collect();
        Arc::new(names.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())
    },
];

/// A table of these columns and a label; a column without any value is left out, as no scaling can be found for it.
fn table(columns: Vec<(usize, Vec<Option<i16>>)>, rows: usize) -> RecordBatch {
    let mut named: Vec<(String, ArrayRef)> = columns
        .into_iter()
        .enumerate()
        .map(|(i, (kind, values))| (format!("x{i}"), KINDS[kind](values)))
        .filter(|(_, column)| column.null_count() < rows)
        .collect();
    named.push(("label".into(), Arc::new((0..rows as i64).map(|i| i % 2).collect::<Int64Array>())));
    let fields: Vec<Field> = named.iter().map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), named.into_iter().map(|(_, c)| c).collect()).unwrap()
}

fn numbers(array: &ArrayRef) -> Vec<Option<f64>> {
    cast(array, &DataType::Float64).unwrap().as_primitive::<Float64Type>().iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_any_table_come_back_through_their_inputs(
        (rows, columns) in (2usize..40).prop_flat_map(|rows| {
            let values = prop::collection::vec(prop::option::weighted(0.8, -300i16..300), rows);
            (Just(rows), prop::collection::vec((0..KINDS.len(), values), 1..7))
        }),
        curve in prop::sample::select(vec![Curve::Auto, Curve::Linear, Curve::Log, Curve::Quantile]),
    ) {
        let batch = table(columns, rows);
        prop_assume!(batch.num_columns() > 1);
        let options = Options { curve, on_null: OnNull::Impute, ..Options::default() };
        let layout = Layout::infer(&batch.schema(), &options).unwrap();
        let decoder = Decoder::new(&layout, &options).unwrap();
        let columns: Vec<ArrayRef> = layout.projection().into_iter().map(|c| batch.column(c).clone()).collect();
        let mut profile = Profile::new(&layout);
        decoder.profile(&columns, &mut profile).unwrap();
        let scaling = profile.scaling(&layout, &options).unwrap();
        let decoded = decoder.decode(&columns, Some(&scaling), None, "", 0).unwrap();
        prop_assert_eq!(decoded.len(), rows);

        // Real rows lie inside the domain, and their inputs are the numbers of a usual size that networks want.
        let inputs = scaling.scale(&decoded.values);
        let mut projected = inputs.clone();
        scaling.project(&mut projected);
        prop_assert_eq!(&projected, &inputs);
        prop_assert!(inputs.iter().all(|v| v.abs() < 100.0));

        let again = encode(&layout, &options, Some(&scaling), decoded.shape, &scaling.unscale(&inputs), &decoded.labels).unwrap();
        prop_assert_eq!(again.schema(), batch.schema());
        for (there, here) in again.columns().iter().zip(batch.columns()) {
            if here.data_type().is_floating() {
                let range = numbers(here).into_iter().flatten().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
                for (there, here) in numbers(there).into_iter().zip(numbers(here)) {
                    prop_assert_eq!(there.is_some(), here.is_some());
                    if let (Some(there), Some(here)) = (there, here) {
                        prop_assert!((there - here).abs() <= 2e-3 * (range.1 - range.0).max(1.0), "{} {}", there, here);
                        prop_assert!((range.0..=range.1).contains(&there));
                    }
                }
            } else if here.data_type().is_integer() {
                // Few numbers, or whole ones a step apart.
                for (there, here) in numbers(there).into_iter().zip(numbers(here)) {
                    prop_assert_eq!(there, here);
                }
            } else {
                let text = |a: &ArrayRef| cast(a, &DataType::Utf8).unwrap();
                prop_assert_eq!(&text(there), &text(here));
            }
        }
    }
}
