//! Nested lists of any numeric type flow in, the f32 of each row flow out; and back, in the lists' exact type.

use std::sync::Arc;

use crate::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array,
    Int64Array, LargeListArray, ListArray, OffsetSizeTrait, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use crate::arrow::buffer::{NullBuffer, OffsetBuffer};
use crate::arrow::compute::cast;
use crate::arrow::datatypes::{DataType, Float32Type};
use crate::error::{Error, Result};
use crate::rows::exact;

/// The lists of one batch, their numbers in one flat array.
pub(super) struct Lists {
    /// Outermost first.
    levels: Vec<Level>,
    numbers: Float32Array,
    /// The numbers' own bytes, where an f32 can't hold them.
    exact: Option<exact::Bytes>,
}

/// One level of nesting: where each list starts in the level below.
struct Level {
    starts: Starts,
    nulls: Option<NullBuffer>,
}

enum Starts {
    /// Lists of one length.
    Every(usize),
    /// The start of each list, and the end of the last.
    At(Vec<usize>),
}

impl Level {
    fn range(&self, i: usize) -> (usize, usize) {
        match &self.starts {
            Starts::Every(n) => (i * n, (i + 1) * n),
            Starts::At(at) => (at[i], at[i + 1]),
        }
    }

    fn any_null(&self, from: usize, to: usize) -> bool {
        any_null(self.nulls.as_ref(), from, to)
    }
}

fn any_null(nulls: Option<&NullBuffer>, from: usize, to: usize) -> bool {
    nulls.is_some_and(|nulls| nulls.null_count() > 0 && (from..to).any(|i| nulls.is_null(i)))
}

/// What one row's lists hold.
pub(super) enum Row<'a> {
    /// The row, a list in it or a number in it is NULL.
    Null,
    /// Lists of one level have different lengths.
    Ragged,
    /// The length of the lists on each level, outermost first, and the numbers.
    Numbers { dims: [usize; 3], levels: usize, numbers: &'a [f32] },
}

impl Lists {
    /// Flattens `array`, which is lists (of lists, of lists) of numbers; `None` for other types.
    ///
    /// Only the numbers that the array's rows point to are converted, so that a short slice of a long batch is cheap.
    pub(super) fn read(array: &ArrayRef) -> Result<Option<Self>> {
        let mut levels = vec![];
        let mut inner = array.clone();
        loop {
            let (level, below) = match inner.data_type() {
                DataType::List(_) => variable::<i32>(&inner),
                DataType::LargeList(_) => variable::<i64>(&inner),
                DataType::FixedSizeList(_, n) => {
                    let list = inner.as_fixed_size_list();
                    let level = Level { starts: Starts::Every((*n).max(0) as usize), nulls: list.nulls().cloned() };
                    (level, list.values().clone())
                }
                _ => break,
            };
            levels.push(level);
            inner = below;
        }
        if !(1..=3).contains(&levels.len()) || !inner.data_type().is_numeric() {
            return Ok(None);
        }
        let numbers = cast(&inner, &DataType::Float32)?.as_primitive::<Float32Type>().clone();
        Ok(Some(Self { levels, numbers, exact: exact::Bytes::of(&inner) }))
    }

    /// Appends the bytes of the numbers of row `i`, a row of numbers, where an f32 can't hold them.
    pub(super) fn append_exact(&self, i: usize, out: &mut Vec<u8>) {
        let Some(exact) = &self.exact else { return };
        let (mut from, mut to) = (i, i + 1);
        for level in &self.levels {
            (from, to) = if from < to { (level.range(from).0, level.range(to - 1).1) } else { (0, 0) };
        }
        exact.append(from, to, out);
    }

    /// Row `i` of the array.
    pub(super) fn row(&self, i: usize) -> Row<'_> {
        let mut dims = [0; 3];
        let (mut from, mut to) = (i, i + 1);
        for (level, dim) in self.levels.iter().zip(&mut dims) {
            if level.any_null(from, to) {
                return Row::Null;
            }
            let length = |i| {
                let (start, end) = level.range(i);
                end - start
            };
            *dim = if from < to { length(from) } else { 0 };
            if matches!(level.starts, Starts::At(_)) && (from..to).any(|i| length(i) != *dim) {
                return Row::Ragged;
            }
            (from, to) = if from < to { (level.range(from).0, level.range(to - 1).1) } else { (0, 0) };
        }
        if any_null(self.numbers.nulls(), from, to) {
            return Row::Null;
        }
        Row::Numbers { dims, levels: self.levels.len(), numbers: &self.numbers.values()[from..to] }
    }
}

fn variable<O: OffsetSizeTrait>(array: &ArrayRef) -> (Level, ArrayRef) {
    let list = array.as_list::<O>();
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    let starts = offsets.iter().map(|o| o.as_usize() - first).collect();
    (Level { starts: Starts::At(starts), nulls: list.nulls().cloned() }, list.values().slice(first, last - first))
}

/// `rows` rows as an array of type `data_type`, lists of the lengths `dims` on each level; `numbers` makes the array of all numbers from
/// their type.
pub(super) fn nest(
    rows: usize,
    dims: &[usize],
    data_type: &DataType,
    numbers: impl FnOnce(&DataType) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let Some((dim, below)) = dims.split_first() else { return numbers(data_type) };
    let count = rows * dim;
    let too_many = || Error::Data(format!("{count} list entries are too many for {data_type}; use a lower ipc"));
    match data_type {
        DataType::List(item) => {
            i32::try_from(count).map_err(|_| too_many())?;
            let values = nest(count, below, item.data_type(), numbers)?;
            let offsets = OffsetBuffer::from_repeated_length(*dim, rows);
            Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, None)?))
        }
        DataType::LargeList(item) => {
            let values = nest(count, below, item.data_type(), numbers)?;
            let offsets = OffsetBuffer::from_repeated_length(*dim, rows);
            Ok(Arc::new(LargeListArray::try_new(item.clone(), offsets, values, None)?))
        }
        DataType::FixedSizeList(item, n) if usize::try_from(*n).ok() == Some(*dim) => {
            let values = nest(count, below, item.data_type(), numbers)?;
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), *n, values, None, rows)?))
        }
        _ => Err(Error::Data(format!("rows of {dims:?} numbers can't be written as {data_type}"))),
    }
}

/// Numbers as an array of type `data_type`: whole numbers are rounded and clamped to their type's range, decimals and f16 clamped.
pub(super) fn elements(numbers: Vec<f32>, data_type: &DataType) -> Result<ArrayRef> {
    // `as` saturates: what is out of the type's range becomes its bound.
    macro_rules! whole {
        ($array:ident, $native:ty) => {
            Ok(Arc::new($array::from_iter_values(numbers.iter().map(|v| v.round() as $native))))
        };
    }
    match data_type {
        DataType::Int8 => whole!(Int8Array, i8),
        DataType::Int16 => whole!(Int16Array, i16),
        DataType::Int32 => whole!(Int32Array, i32),
        DataType::Int64 => whole!(Int64Array, i64),
        DataType::UInt8 => whole!(UInt8Array, u8),
        DataType::UInt16 => whole!(UInt16Array, u16),
        DataType::UInt32 => whole!(UInt32Array, u32),
        DataType::UInt64 => whole!(UInt64Array, u64),
        // The largest finite one: a clamped number rather than an infinity.
        DataType::Float16 => {
            let clamped = Float32Array::from_iter_values(numbers.iter().map(|v| v.clamp(-65504.0, 65504.0)));
            Ok(cast(&clamped, data_type)?)
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            // One part in 2^50 below the bound, which an f64 may not hold exactly.
            let bound =
                10f64.powi(i32::from(*precision) - i32::from(*scale)) * (1.0 - 1e-15) - 10f64.powi(-i32::from(*scale));
            let clamped = Float64Array::from_iter_values(numbers.iter().map(|v| f64::from(*v).clamp(-bound, bound)));
            Ok(cast(&clamped, data_type)?)
        }
        _ => Ok(cast(&Float32Array::from(numbers), data_type)?),
    }
}
