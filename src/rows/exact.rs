//! Columns of numbers that an f32 can't hold flow in, the bytes of each row's numbers flow out; and back, bit by bit.
//!
//! What is sketched and optimized are f32. Real rows that are chosen are to come out as they went in: whole numbers beyond 2^24,
//! f64 and decimals keep their own bytes, as Arrow lays them out, beside the f32.

use crate::arrow::array::{Array, ArrayData, ArrayRef, make_array};
use crate::arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use crate::arrow::datatypes::DataType;
use crate::error::{Error, Result};

/// Bytes of one number of `data_type`; `None` where its f32 tells it, or where it is no number.
pub(super) fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => None,
        DataType::Float16 | DataType::Float32 => None,
        t if t.is_numeric() => t.primitive_width(),
        _ => None,
    }
}

/// The bytes of an array of such numbers.
pub(super) struct Bytes {
    nulls: Option<NullBuffer>,
    values: Buffer,
    width: usize,
}

impl Bytes {
    /// Those of `array`; `None` where it has no such numbers.
    pub(super) fn of(array: &ArrayRef) -> Option<Self> {
        let width = width(array.data_type())?;
        let data = array.to_data();
        let values = data.buffers().first()?.slice(data.offset() * width);
        Some(Self { nulls: array.nulls().cloned(), values, width })
    }

    /// Appends the bytes of the numbers `from..to`; of a number that is NULL, zeros.
    pub(super) fn append(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        for i in from..to {
            match self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
                true => out.resize(out.len() + self.width, 0),
                false => out.extend_from_slice(&self.values[i * self.width..(i + 1) * self.width]),
            }
        }
    }
}

/// The numbers of `data_type` that have these bytes.
pub(super) fn array(bytes: &[u8], data_type: &DataType) -> Result<ArrayRef> {
    let Some(width) = width(data_type).filter(|width| bytes.len().is_multiple_of(*width)) else {
        return Err(Error::Data(format!("{} bytes are no numbers of type {data_type}", bytes.len())));
    };
    // Aligned for every type.
    let mut buffer = MutableBuffer::new(bytes.len());
    buffer.extend_from_slice(bytes);
    let data = ArrayData::builder(data_type.clone()).len(bytes.len() / width).add_buffer(buffer.into());
    Ok(make_array(data.build()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arrow::array::{Decimal128Array, Float64Array, Int64Array};

    #[test]
    fn numbers_come_back_bit_by_bit_from_slices_and_null_is_zeros() {
        let decimals = Decimal128Array::from(vec![10i128.pow(30) + 1, -7, 0]).with_precision_and_scale(38, 4).unwrap();
        for numbers in [
            Arc::new(Int64Array::from(vec![i64::MIN, (1 << 53) + 1, -3])) as ArrayRef,
            Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NAN, -0.0])),
            Arc::new(decimals),
        ] {
            for (from, n) in [(0, 3), (1, 2), (2, 1)] {
                let slice = numbers.slice(from, n);
                let mut bytes = vec![];
                Bytes::of(&slice).unwrap().append(0, n, &mut bytes);
                let back = array(&bytes, numbers.data_type()).unwrap();
                assert_eq!(format!("{back:?}"), format!("{slice:?}"));
                let mut again = vec![];
                Bytes::of(&back).unwrap().append(0, n, &mut again);
                assert_eq!(again, bytes);
            }
        }
        let mut bytes = vec![];
        let with_null: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None]));
        Bytes::of(&with_null).unwrap().append(1, 2, &mut bytes);
        assert_eq!(bytes, [0; 8]);
        assert!(array(&bytes[1..], &DataType::Int64).is_err());
    }

    #[test]
    fn types_that_an_f32_holds_need_no_bytes_of_their_own() {
        for small in [DataType::Int16, DataType::UInt8, DataType::Float32, DataType::Utf8, DataType::Boolean] {
            assert_eq!(width(&small), None, "{small}");
        }
        assert_eq!((width(&DataType::Int32), width(&DataType::Decimal128(5, 2))), (Some(4), Some(16)));
    }
}
