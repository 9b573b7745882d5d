//! What happens when: a queue of events by time and, within a moment, by the order of their making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message is handed to its sender's port.
    Departs(u32),
    /// Its first bit is at the receiver's port.
    Reaches(u32),
    /// Its last bit is at the receiver.
    Arrives(u32),
    /// A thread's work is done, or its slice is.
    Thread(u32),
    /// An endpoint looks at its deadlines.
    Timer(u32),
    /// A step begins.
    Begins(u32),
    /// A fault of the configuration comes true.
    Fault(u32),
}

/// Events packed as time, number, kind and subject: one comparison orders them, and equal times
/// keep the order in which they were pushed.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<u128>>,
    pushed: u64,
}

const KIND_BITS: u32 = 3;
const SUBJECT_BITS: u32 = 29;
const NUMBER_BITS: u32 = 34;

// === impl Queue ===

impl Queue {
    #[inline]
    pub(crate) fn push(&mut self, at_ns: u64, event: Event) {
        let (kind, subject) = event.parts();
        debug_assert!(subject < 1 << SUBJECT_BITS, "too many messages for one run");
        let number = u128::from(self.pushed) << (KIND_BITS + SUBJECT_BITS);
        self.pushed += 1;
        let time = u128::from(at_ns) << (KIND_BITS + SUBJECT_BITS + NUMBER_BITS);
        let word = time | number | u128::from(kind << SUBJECT_BITS | subject);
        self.heap.push(Reverse(word));
    }

    /// The next event and its time.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(word) = self.heap.pop()?;
        // The low 32 bits are kind and subject.
        let low = (word & u128::from(u32::MAX)) as u32;
        let time = (word >> (KIND_BITS + SUBJECT_BITS + NUMBER_BITS)) as u64;
        Some((
            time,
            Event::of(low >> SUBJECT_BITS, low & ((1 << SUBJECT_BITS) - 1)),
        ))
    }
}

// === impl Event ===

impl Event {
    fn parts(self) -> (u32, u32) {
        match self {
            Self::Departs(at) => (0, at),
            Self::Reaches(at) => (1, at),
            Self::Arrives(at) => (2, at),
            Self::Thread(at) => (3, at),
            Self::Timer(at) => (4, at),
            Self::Begins(at) => (5, at),
            Self::Fault(at) => (6, at),
        }
    }

    fn of(kind: u32, at: u32) -> Self {
        match kind {
            0 => Self::Departs(at),
            1 => Self::Reaches(at),
            2 => Self::Arrives(at),
            3 => Self::Thread(at),
            4 => Self::Timer(at),
            5 => Self::Begins(at),
            _ => Self::Fault(at),
        }
    }
}
