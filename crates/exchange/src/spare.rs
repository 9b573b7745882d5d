//! Memory of large arrays, from one step to the next.
//!
//! A step over a million tokens fills 300 MB of plans. Fresh memory of that size comes from the
//! kernel page by page, at a price above that of filling it, and goes back when the step ends. So
//! plans take their large arrays from here, and give them back when they are dropped. What is kept
//! is bounded by [`KEPT_BYTES`] for each element type; small arrays are left to the allocator, which
//! keeps them itself.

use std::sync::{Mutex, PoisonError};

use crate::shard_plan::ResultAt;

/// Arrays of fewer elements are not kept.
const LARGE: usize = 1 << 16;

/// Bytes of one element type that are kept at most: twice the largest kind of a step of a million
/// tokens and eight choices.
const KEPT_BYTES: usize = 1 << 29;

/// Arrays that nobody uses, the longest unused first.
pub(crate) type Shelf<T> = Mutex<Vec<Vec<T>>>;

/// Elements of large arrays.
pub(crate) trait Spare: Copy + Default + 'static {
    fn shelf() -> &'static Shelf<Self>;
}

/// An array of `len` elements, each of them to be written: they hold anything.
pub(crate) fn take<T: Spare>(len: usize) -> Vec<T> {
    if len < LARGE {
        return vec![T::default(); len];
    }
    let found = {
        let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is long enough, unless that is a waste.
        let fits = |spare: &Vec<T>| (len..=2 * len).contains(&spare.capacity());
        let sizes = shelf.iter().map(Vec::capacity).enumerate();
        let best = sizes
            .filter(|(at, _)| fits(&shelf[*at]))
            .min_by_key(|(_, capacity)| *capacity);
        best.map(|(at, _)| shelf.remove(at))
    };
    // The next step needs a few more or a few less.
    let mut array = found.unwrap_or_else(|| vec![T::default(); len + len / 8]);
    array.resize(len, T::default());
    array
}

/// Keeps the memory of `array` for another, and leaves an empty one.
pub(crate) fn give<T: Spare>(array: &mut Vec<T>) {
    if array.capacity() < LARGE {
        return;
    }
    let array = std::mem::take(array);
    let mut dropped = Vec::new();
    let mut shelf = T::shelf().lock().unwrap_or_else(PoisonError::into_inner);
    shelf.push(array);
    let bytes = |array: &Vec<T>| array.capacity() * size_of::<T>();
    let mut kept: usize = shelf.iter().map(bytes).sum();
    while kept > KEPT_BYTES {
        let oldest = shelf.remove(0);
        kept -= bytes(&oldest);
        dropped.push(oldest);
    }
    // Returned to the kernel by whoever holds no lock.
    drop(shelf);
}

macro_rules! spare {
    ($($element:ty),*) => {$(
        impl Spare for $element {
            fn shelf() -> &'static Shelf<Self> {
                static SHELF: Shelf<$element> = Mutex::new(Vec::new());
                &SHELF
            }
        }
    )*};
}

spare!(u32, f32, ResultAt);
