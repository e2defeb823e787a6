//! Memory flows in when a kernel is done with it, and out to the next one that asks.
//!
//! On most systems the first touch of fresh memory costs more than the arithmetic on it, and the allocator hands large blocks back to the
//! system: kernels that are called thousands of times keep what they need here.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Scratch memory that kernels borrow and give back. Networks of one pool share one; what is lent depends on the sizes of their layers, so that
/// networks of the same sizes use the same memory in turn. It holds as much as was ever in use at once.
#[derive(Debug, Default)]
pub struct Arena {
    objects: Mutex<Vec<(Key, Box<dyn Any + Send>)>>,
    buffers: Mutex<Vec<Vec<f32>>>,
}

/// What an object is and the sizes it was made for: objects of the same type and key are interchangeable.
pub(super) type Key = Arc<[usize]>;

/// An object that goes back to its arena when it is dropped.
#[derive(Debug)]
pub(super) struct Lent<'a, T: Any + Send> {
    /// `None` only while it is dropped.
    object: Option<Box<T>>,
    key: Key,
    arena: &'a Arena,
}

impl Arena {
    /// An object of type `T` with this key: one that was given back, as it was left, or a new one.
    pub(super) fn object<'a, T: Any + Send>(&'a self, key: &Key, new: impl FnOnce() -> T) -> Lent<'a, T> {
        let mut free = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(of, object): &(Key, Box<dyn Any + Send>)| of == key && object.is::<T>();
        let found = free.iter().position(fits).map(|i| free.swap_remove(i));
        drop(free);
        let object = match found.map(|(_, object)| object.downcast::<T>()) {
            Some(Ok(object)) => object,
            _ => Box::new(new()),
        };
        Lent { object: Some(object), key: key.clone(), arena: self }
    }

    /// `len` floats or more, of any value; [`Arena::give_back`] returns them.
    pub(super) fn buffer(&self, len: usize) -> Vec<f32> {
        let mut free = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let smallest = (0..free.len()).filter(|i| free[*i].len() >= len).min_by_key(|i| free[*i].len());
        match smallest {
            Some(i) => free.swap_remove(i),
            None => {
                // The largest of those that are too small would only pile up.
                if let Some(i) = (0..free.len()).max_by_key(|i| free[*i].len()) {
                    free.swap_remove(i);
                }
                drop(free);
                vec![0.0; len]
            }
        }
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Vec<f32>) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl<T: Any + Send> Deref for Lent<'_, T> {
    type Target = T;

    #[allow(clippy::expect_used)] // see the field
    fn deref(&self) -> &T {
        self.object.as_ref().expect("an object until it is dropped")
    }
}

impl<T: Any + Send> DerefMut for Lent<'_, T> {
    #[allow(clippy::expect_used)] // see the field
    fn deref_mut(&mut self) -> &mut T {
        self.object.as_mut().expect("an object until it is dropped")
    }
}

impl<T: Any + Send> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            let mut free = self.arena.objects.lock().unwrap_or_else(PoisonError::into_inner);
            free.push((self.key.clone(), object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again_to_the_same_type_and_key_only() {
        let arena = Arena::default();
        let key = |n: usize| -> Key { Arc::from([n, 2]) };
        *arena.object(&key(1), || 5u32) += 1;
        assert_eq!(*arena.object(&key(1), || 5u32), 6);
        assert_eq!(*arena.object(&key(2), || 5u32), 5);
        assert_eq!(*arena.object(&key(1), || 7u64), 7);
        let (first, second) = (arena.object(&key(1), || 5u32), arena.object(&key(1), || 5u32));
        assert_eq!((*first, *second), (6, 5));
    }

    #[test]
    fn buffers_are_the_smallest_that_fit() {
        let arena = Arena::default();
        arena.give_back(vec![1.0; 10]);
        arena.give_back(vec![2.0; 100]);
        assert_eq!(arena.buffer(5), [1.0; 10]);
        assert_eq!(arena.buffer(5), [2.0; 100]);
        assert_eq!(arena.buffer(5), [0.0; 5]);
        arena.give_back(vec![1.0; 10]);
        assert_eq!(arena.buffer(11), [0.0; 11]);
        assert_eq!(arena.buffer(3).len(), 3, "one that was too small is gone");
    }
}
