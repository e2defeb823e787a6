//! Bytes that anyone may have written flow in; nothing flows out, and nothing panics.
//!
//! The targets are plain functions, so that the ordinary tests run them too (`tests/hostile`), on the cases that were found.

use std::sync::{Arc, LazyLock};

use datafusion_distill::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, Float64Array, Int64Array,
    LargeBinaryArray, LargeListArray, ListArray, StringArray, StructArray, UInt64Array, new_null_array,
};
use datafusion_distill::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion_distill::arrow::compute::interleave;
use datafusion_distill::arrow::datatypes::{DataType, Field, Schema};
use datafusion_distill::extract::{Pool, PoolRecipe, device};
use datafusion_distill::options::{ImageSize, Moments, Options, PoolBytes};
use datafusion_distill::rows::{Decoder, Label, Layout, Rows, Shape};
use datafusion_distill::sketch::{self, ClassSketch, Header, Origin, SketchColumn, Sketcher};

/// Bytes that are read from the front; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> usize {
        usize::from(self.take(1).first().copied().unwrap_or(0))
    }

    fn take(&mut self, most: usize) -> Vec<u8> {
        let (taken, left) = self.0.split_at(most.min(self.0.len()));
        self.0 = left;
        taken.to_vec()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.take(N);
        out[..taken.len()].copy_from_slice(&taken);
        out
    }
}

/// A struct literal's one text: options are set, or refused.
pub fn option_parser(data: &[u8]) {
    let mut options = Options::default();
    if options.set_text(&String::from_utf8_lossy(data)).is_ok() {
        let _ = options.check();
        let _ = (options.reservoir(Shape::Vector { len: 1 }), options.changed());
    }
}

/// A pool file: extractors are built, or refused.
pub fn pool_reader(data: &[u8]) {
    let bytes = Some(PoolBytes(Arc::new(data.to_vec())));
    let options = Options { pool_file: Some("pool.safetensors".into()), pool_bytes: bytes, ..Options::default() };
    let _ = PoolRecipe::scaling_of_file(&options);
    for shape in [Shape::Vector { len: 3 }, Shape::Picture { channels: 1, height: 8, width: 8 }] {
        if let (Ok(recipe), Ok(cpu)) = (PoolRecipe::choose(shape, (0.0, 1.0), &options), device("cpu")) {
            let _ = Pool::build_for(&recipe, &cpu, &options);
        }
    }
}

/// A picture or a list: numbers come out, or an error that names the row.
pub fn row_decoder(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mode = bytes.byte();
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let features: ArrayRef = match mode % 4 {
        0 | 1 => Arc::new(BinaryArray::from_iter_values([bytes.0])),
        _ => {
            let values: Vec<f32> = bytes.0.chunks(4).map(|b| Bytes(b).array()).map(f32::from_le_bytes).collect();
            let item = Arc::new(Field::new("item", DataType::Float32, true));
            let values: ArrayRef = Arc::new(Float32Array::from(values));
            let one = ListArray::new(item, OffsetBuffer::from_lengths([values.len()]), values, None);
            if mode % 4 == 2 {
                Arc::new(one)
            } else {
                let item = Arc::new(Field::new("item", one.data_type().clone(), true));
                Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1]), Arc::new(one), None))
            }
        }
    };
    let size = ImageSize { height: 8, width: 8, channels: Some(1) };
    let options = Options { image_size: (mode % 8 >= 4).then_some(size), ..Options::default() };
    let schema = Schema::new(vec![
        Field::new("x", features.data_type().clone(), true),
        Field::new("label", DataType::Int64, true),
    ]);
    if let Ok(layout) = Layout::infer(&Arc::new(schema), &options)
        && let Ok(decoder) = Decoder::new(&layout, &options)
    {
        let _ = decoder.decode(&[features, labels], None, None, "", 0);
    }
}

/// A sketch of five rows with everything that is optional.
static SKETCH: LazyLock<(Header, ClassSketch, StructArray)> = LazyLock::new(|| {
    let options = Options {
        extractors: Some(2),
        width: Some(8),
        depth: Some(1),
        frequencies: Some(3),
        reservoir_per_class: Some(4),
        moments: Some(Moments::Class),
        moment_dim: Some(2),
        ..Options::default()
    };
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let schema = Arc::new(Schema::new(vec![
        Field::new("x", DataType::List(item), true),
        Field::new("label", DataType::Utf8, true),
    ]));
    let shape = Shape::Vector { len: 3 };
    let recipe = PoolRecipe::choose(shape, (0.0, 10.0), &options).expect("a recipe");
    let pool = Pool::build(&recipe, &device("cpu").expect("a CPU")).expect("a pool");
    let sketcher = Sketcher::new(Arc::new(pool), &options).expect("a sketcher");
    let sketch = |rows: usize| {
        let values = (0..3 * rows).map(|i| (i % 10) as f32).collect();
        let labels = vec![Label::Int(0); rows];
        let mut out = vec![ClassSketch::empty(sketcher.header())];
        let rows = Rows { shape, values, labels, exact: vec![], skipped: 0 };
        sketcher.fold(&rows, &vec![0; rows.len()], &mut out, &Default::default()).expect("a sketch");
        out.remove(0)
    };
    let mut whole = sketch(6);
    whole.subtract(&sketch(1)).expect("a part");
    let layout = Layout::infer(&schema, &Options::default()).expect("a layout");
    let header = Header { origin: Some(Origin::of(&layout)), ..sketcher.header().clone() };
    let array = sketch::to_array(&header, std::slice::from_ref(&whole)).expect("an array");
    (header, whole, array)
});

/// A damaged sketch: it is read and used, or refused.
pub fn sketch_reader(data: &[u8]) {
    let (header, sketch, array) = &*SKETCH;
    let mut bytes = Bytes(data);
    let mut damaged: ArrayRef = Arc::new(array.clone());
    for _ in 0..1 + bytes.byte() % 3 {
        damaged = mutated(&damaged, &mut bytes);
    }
    let Some(structs) = damaged.as_struct_opt() else { return };
    if let Ok((mut read, mut sums)) = sketch::from_array(structs, 0) {
        let _ = read.clone().join(header);
        let _ = sketch::distance(&sums, sketch);
        let _ = sums.clone().subtract(sketch);
        let _ = sums.merge(sketch);
        let _ = sketch::to_array(&read, &[sums]);
        let label = Field::new("label", DataType::Int64, true);
        if let Some(origin) = &read.origin {
            let _ = origin.layout(&read.recipe, &label, &Options::default());
        }
        // What is read can be asked for memory; only small pools are made here.
        if read.recipe.extractors * read.recipe.feature_len() < 1 << 10 && read.recipe.input_shape().len() < 1 << 10 {
            let _ = Pool::build(&read.recipe, &device("cpu").expect("a CPU"));
        }
        read.origin = None;
    }
    // As functions over columns read it, the kept rows' hashes aside.
    if let Ok(mut sums) = SketchColumn::new(structs).read(0, None) {
        let _ = sums.clone().subtract(sketch);
        let _ = sums.merge(sketch);
        let _ = sums.reservoir.check(header.frequency_seed);
        let _ = sketch::to_array(header, &[sums]);
    }
}

/// `array` with one thing changed somewhere inside, of the same length.
fn mutated(array: &ArrayRef, bytes: &mut Bytes<'_>) -> ArrayRef {
    let n = array.len();
    let data_type = array.data_type().clone();
    match &data_type {
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let at = bytes.byte() % fields.len().max(1);
            let mut columns = structs.columns().to_vec();
            if let Some(column) = columns.get_mut(at) {
                *column = mutated(column, bytes);
            }
            StructArray::try_new_with_length(fields.clone(), columns, structs.nulls().cloned(), n)
                .map_or_else(|_| array.clone(), |structs| Arc::new(structs) as ArrayRef)
        }
        DataType::LargeList(item) => {
            let lists = array.as_list::<i64>();
            match bytes.byte() % 4 {
                0 => new_null_array(&data_type, n),
                1 => {
                    // Shorter lists, one after the other.
                    let most = lists.values().len() as i64;
                    let mut end = 0;
                    let ends = (0..n).map(|_| {
                        end = (end + bytes.byte() as i64 % 8).min(most);
                        end
                    });
                    let offsets: Vec<i64> = std::iter::once(0).chain(ends).collect();
                    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                    Arc::new(LargeListArray::new(item.clone(), offsets, lists.values().clone(), None))
                }
                _ => {
                    let values = mutated(lists.values(), bytes);
                    Arc::new(LargeListArray::new(item.clone(), lists.offsets().clone(), values, lists.nulls().cloned()))
                }
            }
        }
        DataType::Utf8 => {
            let old = array.as_string::<i32>();
            let mut texts: Vec<Option<String>> = old.iter().map(|t| t.map(str::to_string)).collect();
            if let Some(text) = texts.first_mut() {
                *text = text_from(text.take().unwrap_or_default(), bytes);
            }
            Arc::new(StringArray::from(texts))
        }
        DataType::LargeBinary => {
            let mut value = array.as_binary::<i64>().iter().next().flatten().unwrap_or_default().to_vec();
            for _ in 0..1 + bytes.byte() % 4 {
                let at = usize::from(u16::from_le_bytes(bytes.array())) % value.len().max(1);
                if let Some(byte) = value.get_mut(at) {
                    *byte = bytes.byte() as u8;
                }
            }
            Arc::new(LargeBinaryArray::from_iter_values(std::iter::repeat_n(value, n)))
        }
        DataType::Int64 => one_changed(array, bytes, |b| Arc::new(Int64Array::from(vec![i64::from_le_bytes(b)]))),
        DataType::UInt64 => one_changed(array, bytes, |b| Arc::new(UInt64Array::from(vec![u64::from_le_bytes(b)]))),
        DataType::Float64 => one_changed(array, bytes, |b| Arc::new(Float64Array::from(vec![f64::from_le_bytes(b)]))),
        DataType::Float32 => one_changed(array, bytes, |b| Arc::new(Float32Array::from(vec![f32::from_le_bytes(b)]))),
        DataType::Boolean => Arc::new(BooleanArray::from(vec![Some(bytes.byte().is_multiple_of(2)); n])),
        DataType::FixedSizeBinary(16) => {
            let value: [u8; 16] = bytes.array();
            FixedSizeBinaryArray::try_from_sparse_iter_with_size((0..n).map(|_| Some(value)), 16)
                .map_or_else(|_| array.clone(), |found| Arc::new(found) as ArrayRef)
        }
        _ => array.clone(),
    }
}

/// `array` with its value at some position replaced by what `value` makes of the next bytes.
fn one_changed<const N: usize>(
    array: &ArrayRef,
    bytes: &mut Bytes<'_>,
    value: impl Fn([u8; N]) -> ArrayRef,
) -> ArrayRef {
    let at = bytes.byte() % array.len().max(1);
    let new = value(bytes.array());
    let from: Vec<(usize, usize)> = (0..array.len()).map(|i| if i == at { (1, 0) } else { (0, i) }).collect();
    interleave(&[array.as_ref(), new.as_ref()], &from).unwrap_or_else(|_| array.clone())
}

/// A text with a piece of it replaced; or none.
fn text_from(text: String, bytes: &mut Bytes<'_>) -> Option<String> {
    let mut value = text.into_bytes();
    let at = usize::from(u16::from_le_bytes(bytes.array())) % value.len().max(1);
    let cut = bytes.byte() % 12;
    let new = bytes.take(bytes.0.len().min(24));
    value.splice(at.min(value.len())..(at + cut).min(value.len()), new);
    (cut != 11).then(|| String::from_utf8_lossy(&value).into_owned())
}
