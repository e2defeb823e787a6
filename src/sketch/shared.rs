//! Numbers in an Arrow buffer flow in; a list that shares them until it is first changed flows out.

use std::ops::{Deref, DerefMut};

use crate::arrow::buffer::ScalarBuffer;
use crate::arrow::datatypes::ArrowNativeType;

/// Numbers that are either its own or those of an Arrow array that they were read from: reading a stored sketch copies none.
///
/// It is a slice to look at; the first change makes the numbers its own.
#[derive(Clone, Debug)]
pub struct Shared<T: ArrowNativeType>(Held<T>);

#[derive(Clone, Debug)]
enum Held<T: ArrowNativeType> {
    Own(Vec<T>),
    Read(ScalarBuffer<T>),
}

impl<T: ArrowNativeType> Shared<T> {
    /// The numbers, to be changed and to grow.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let Held::Read(read) = &self.0 {
            self.0 = Held::Own(read.to_vec());
        }
        match &mut self.0 {
            Held::Own(own) => own,
            Held::Read(_) => unreachable!("made its own above"),
        }
    }
}

impl<T: ArrowNativeType> Default for Shared<T> {
    fn default() -> Self {
        Self(Held::Own(vec![]))
    }
}

impl<T: ArrowNativeType> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::Own(own) => own,
            Held::Read(read) => read,
        }
    }
}

impl<T: ArrowNativeType> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.to_mut()
    }
}

impl<T: ArrowNativeType> From<Vec<T>> for Shared<T> {
    fn from(own: Vec<T>) -> Self {
        Self(Held::Own(own))
    }
}

impl<T: ArrowNativeType> From<ScalarBuffer<T>> for Shared<T> {
    fn from(read: ScalarBuffer<T>) -> Self {
        Self(Held::Read(read))
    }
}

impl<T: ArrowNativeType> FromIterator<T> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = T>>(numbers: I) -> Self {
        Vec::from_iter(numbers).into()
    }
}

impl<T: ArrowNativeType> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ArrowNativeType> PartialEq<Vec<T>> for Shared<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<T: ArrowNativeType + Eq> Eq for Shared<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_shared_until_it_changes_and_never_changed_itself() {
        let read = ScalarBuffer::from(vec![1i64, 2, 3]);
        let mut shared: Shared<i64> = read.slice(1, 2).into();
        assert_eq!(shared.as_ptr(), read[1..].as_ptr());
        shared[0] += 5;
        assert_eq!((&shared, &read[..]), (&Shared::from(vec![7, 3]), &[1, 2, 3][..]));
        shared.to_mut().push(4);
        assert_eq!(shared, vec![7, 3, 4]);
    }
}
