//! A real row's numbers flow in; the same numbers, in a quarter of the memory where all of them are bytes, flow out.

use std::borrow::Cow;

use crate::arrow::buffer::ScalarBuffer;
use crate::sketch::Shared;

/// The numbers of a kept row, in the input's units; `-0.0` is `0.0`.
///
/// Those of pictures are whole numbers from 0 to 255 (unless they are stored as tensors of something else), and are held as such. Two are equal if their numbers are, however
/// they are held.
#[derive(Clone, Debug)]
pub struct Numbers(Held);

#[derive(Clone, Debug)]
enum Held {
    Bytes(Vec<u8>),
    Floats(Shared<f32>),
}

impl Numbers {
    /// A copy of `values`.
    pub fn of(values: &[f32]) -> Self {
        // The cast saturates, and is exact for bytes alone; of zeros, that with a sign becomes the other.
        match values.iter().all(|v| f32::from(*v as u8) == *v) {
            true => Self(Held::Bytes(values.iter().map(|v| *v as u8).collect())),
            false => Self(Held::Floats(values.iter().map(|v| v + 0.0).collect())),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Bytes(bytes) => bytes.len(),
            Held::Floats(floats) => floats.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers; copied, if they are held as bytes.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        match &self.0 {
            Held::Bytes(bytes) => bytes.iter().map(|byte| f32::from(*byte)).collect(),
            Held::Floats(floats) => Cow::Borrowed(floats),
        }
    }

    /// Appends the numbers to `values`.
    pub fn append_to(&self, values: &mut Vec<f32>) {
        match &self.0 {
            Held::Bytes(bytes) => values.extend(bytes.iter().map(|byte| f32::from(*byte))),
            Held::Floats(floats) => values.extend_from_slice(floats),
        }
    }

    /// A copy that shares nothing with the array that they were read from, as small as can be.
    pub(crate) fn to_own(&self) -> Self {
        match &self.0 {
            Held::Bytes(_) => self.clone(),
            Held::Floats(floats) => Self::of(floats),
        }
    }

    /// Bytes of memory they take.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Held::Bytes(bytes) => bytes.len(),
            Held::Floats(floats) => size_of_val(&**floats),
        }
    }
}

impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Held::Bytes(a), Held::Bytes(b)) => a == b,
            _ => self.floats() == other.floats(),
        }
    }
}

/// Shares the array's memory.
impl From<ScalarBuffer<f32>> for Numbers {
    fn from(read: ScalarBuffer<f32>) -> Self {
        Self(Held::Floats(read.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_from_0_to_255_are_held_as_bytes_and_all_come_back() {
        for bytes in [vec![], vec![0.0, 255.0, 7.0]] {
            let numbers = Numbers::of(&bytes);
            assert_eq!((numbers.bytes(), numbers.floats().to_vec()), (bytes.len(), bytes.clone()));
        }
        for other in [256.0, -1.0, 0.5, 254.999, f32::MIN_POSITIVE, f32::MAX] {
            let numbers = Numbers::of(&[1.0, other]);
            assert_eq!((numbers.bytes(), numbers.floats().to_vec()), (8, vec![1.0, other]));
        }
        for (zeros, size) in [(Numbers::of(&[-0.0, 1.0]), 2), (Numbers::of(&[-0.0, 0.5]), 8)] {
            assert_eq!((zeros.bytes(), zeros.floats()[0].is_sign_positive()), (size, true));
        }
    }

    #[test]
    fn numbers_that_were_read_are_equal_to_those_that_were_taken_in_and_become_as_small() {
        let read = Numbers::from(ScalarBuffer::from(vec![3.0, 4.0]));
        assert_eq!(read, Numbers::of(&[3.0, 4.0]));
        assert_ne!(read, Numbers::of(&[3.0, 5.0]));
        assert_ne!(Numbers::of(&[3.0, 4.0]), Numbers::of(&[3.0]));
        assert_eq!((read.bytes(), read.to_own().bytes()), (8, 2));
        let mut all = vec![1.0];
        [&read, &read.to_own()].iter().for_each(|numbers| numbers.append_to(&mut all));
        assert_eq!(all, [1.0, 3.0, 4.0, 3.0, 4.0]);
    }
}
