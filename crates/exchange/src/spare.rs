//! Memory of arrays, from one step to the next.
//!
//! A step over a million tokens fills 300 MB of plans. Fresh memory of that size comes from the
//! kernel page by page, at a price above that of filling it, and goes back when the step ends; the
//! plans of a few hundred shards fare no better together. So plans take their arrays from here, and
//! give them back when they are dropped. What is kept is bounded by [`KEPT_BYTES`] for each element
//! type; small arrays are left to the allocator, which keeps them itself.

use std::sync::{Mutex, PoisonError};

use crate::shard_plan::ResultAt;

/// Arrays of fewer elements are not kept.
const LEAST: usize = 1 << 9;

/// Bytes of one element type that are kept at most: twice the largest kind of a step of a million
/// tokens and eight choices.
const KEPT_BYTES: usize = 1 << 29;

/// Arrays that nobody uses, by the class of their capacity.
pub(crate) struct Shelf<T> {
    classes: Vec<Vec<Vec<T>>>,
    bytes: usize,
}

/// Elements of arrays that are kept.
pub(crate) trait Spare: Copy + Default + 'static {
    fn shelf() -> &'static Mutex<Shelf<Self>>;
}

/// An array of `len` elements, each of them to be written: they hold anything.
pub(crate) fn take<T: Spare>(len: usize) -> Vec<T> {
    if len < LEAST {
        return vec![T::default(); len];
    }
    let (capacity, class) = class_of(len);
    let found = {
        let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
        shelf.pop(class)
    };
    let mut array = found.unwrap_or_else(|| Vec::with_capacity(capacity));
    array.resize(len, T::default());
    array
}

/// Keeps the memory of `array` for another, and leaves an empty one.
pub(crate) fn give<T: Spare>(array: &mut Vec<T>) {
    let array = std::mem::take(array);
    let (capacity, class) = class_of(array.capacity().max(LEAST));
    if array.capacity() != capacity {
        // Not from here.
        return;
    }
    let mut dropped = Vec::new();
    let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
    shelf.push(class, array);
    while shelf.bytes > KEPT_BYTES {
        dropped.extend(shelf.pop_but(class));
    }
    // Returned to the allocator by whoever holds no lock.
    drop(shelf);
}

/// The capacity of arrays of at least `len` elements, a quarter more at most, and the number of
/// their class.
fn class_of(len: usize) -> (usize, usize) {
    let quarter = 1 << (len.ilog2().max(2) - 2);
    let capacity = len.next_multiple_of(quarter);
    let octave = capacity.ilog2() as usize;
    (capacity, 4 * octave + (capacity >> (octave.max(2) - 2)) % 4)
}

// === impl Shelf ===

impl<T> Shelf<T> {
    const EMPTY: Self = Self {
        classes: Vec::new(),
        bytes: 0,
    };

    fn push(&mut self, class: usize, array: Vec<T>) {
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Vec::new);
        }
        self.bytes += array.capacity() * size_of::<T>();
        self.classes[class].push(array);
    }

    fn pop(&mut self, class: usize) -> Option<Vec<T>> {
        let array = self.classes.get_mut(class)?.pop()?;
        self.bytes -= array.capacity() * size_of::<T>();
        Some(array)
    }

    /// One of the largest that are not of the class `kept`, which is in use, if there are others.
    fn pop_but(&mut self, kept: usize) -> Option<Vec<T>> {
        let classes = self.classes.iter().enumerate();
        let mut others = classes.filter(|(class, arrays)| *class != kept && !arrays.is_empty());
        let other = others.next_back().map(|(class, _)| class);
        self.pop(other.unwrap_or(kept))
    }
}

macro_rules! spare {
    ($($element:ty),*) => {$(
        impl Spare for $element {
            fn shelf() -> &'static Mutex<Shelf<Self>> {
                static SHELF: Mutex<Shelf<$element>> = Mutex::new(Shelf::EMPTY);
                &SHELF
            }
        }
    )*};
}

spare!(u32, f32, ResultAt);
