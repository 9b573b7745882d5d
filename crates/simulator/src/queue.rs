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
///
/// A calendar: events of the present span of time are sorted when it comes; later ones lie unsorted
/// in the span of their time; what is beyond the calendar's end, and what is pushed for the span
/// that is under way, is in heaps. A heap of everything would miss the cache at every level.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// The present span, the next event last.
    present: Vec<u128>,
    /// What was pushed for it since it began.
    late: BinaryHeap<Reverse<u128>>,
    /// Number of the present span.
    span: u64,
    /// Events of the spans to come, a ring.
    spans: Vec<Vec<u128>>,
    /// Events in spans.
    later: usize,
    /// Events beyond the ring.
    far: BinaryHeap<Reverse<u128>>,
    pushed: u64,
}

const KIND_BITS: u32 = 3;
const SUBJECT_BITS: u32 = 29;
const NUMBER_BITS: u32 = 34;
const TIME_BIT: u32 = KIND_BITS + SUBJECT_BITS + NUMBER_BITS;

/// 146 years.
const LAST_NS: u64 = (1 << (u128::BITS - TIME_BIT)) - 1;

/// A span is 2^11 ns, and the ring 16 ms long.
const SPAN_BITS: u32 = 11;
const SPANS: u64 = 1 << 13;

/// Kinds of events up to this one are about a message.
const LAST_OF_MESSAGES: u32 = 2;

// === impl Queue ===

impl Queue {
    /// Adds an event; `at_ns` is not before that of the last one taken.
    #[inline]
    pub(crate) fn push(&mut self, at_ns: u64, event: Event) {
        let (kind, subject) = event.parts();
        debug_assert!(subject < 1 << SUBJECT_BITS, "too many messages for one run");
        let number = u128::from(self.pushed) << (KIND_BITS + SUBJECT_BITS);
        self.pushed += 1;
        let low = u128::from(kind << SUBJECT_BITS | subject);
        // What never comes has the last moment that there is.
        let at_ns = at_ns.min(LAST_NS);
        let word = u128::from(at_ns) << TIME_BIT | number | low;
        let span = at_ns >> SPAN_BITS;
        if span <= self.span {
            self.late.push(Reverse(word));
        } else if span - self.span < SPANS {
            if self.spans.is_empty() {
                self.spans.resize_with(slot_of(SPANS - 1) + 1, Vec::new);
            }
            self.spans[slot_of(span)].push(word);
            self.later += 1;
        } else {
            self.far.push(Reverse(word));
        }
    }

    /// Forgets all events and begins anew; keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.present.clear();
        self.late.clear();
        self.far.clear();
        if self.later > 0 {
            self.spans.iter_mut().for_each(Vec::clear);
        }
        (self.span, self.later, self.pushed) = (0, 0, 0);
    }

    /// The next event and its time.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        if self.present.is_empty() && self.late.is_empty() {
            self.advance()?;
        }
        let late = self.late.peek().map(|Reverse(word)| *word);
        let word = match (self.present.last(), late) {
            (Some(word), late) if late.is_none_or(|late| *word < late) => self.present.pop()?,
            _ => self.late.pop()?.0,
        };
        let low = low_of(word);
        let event = Event::of(low >> SUBJECT_BITS, low & ((1 << SUBJECT_BITS) - 1));
        Some((time_of(word), event))
    }

    /// The message that the event `ahead` events after the next one is about, if it is about one;
    /// as far as is known.
    #[inline]
    pub(crate) fn message_ahead(&self, ahead: usize) -> Option<u32> {
        let at = self.present.len().checked_sub(ahead + 1)?;
        let low = low_of(self.present[at]);
        let is_message = low >> SUBJECT_BITS <= LAST_OF_MESSAGES;
        is_message.then_some(low & ((1 << SUBJECT_BITS) - 1))
    }

    /// Makes the next span that has events the present one.
    fn advance(&mut self) -> Option<()> {
        let far = self
            .far
            .peek()
            .map(|Reverse(word)| time_of(*word) >> SPAN_BITS);
        if self.later == 0 {
            self.span = far?;
        } else {
            // Some span of the ring has events, so this ends.
            loop {
                self.span += 1;
                let has_some = !self.spans[slot_of(self.span)].is_empty();
                if has_some || far == Some(self.span) {
                    break;
                }
            }
        }
        // The memory of the span that is over goes to the one that comes.
        if let Some(span) = self.spans.get_mut(slot_of(self.span)) {
            std::mem::swap(&mut self.present, span);
            self.later -= self.present.len();
        }
        while let Some(Reverse(word)) = self.far.peek() {
            if time_of(*word) >> SPAN_BITS > self.span {
                break;
            }
            self.present.push(*word);
            self.far.pop();
        }
        self.present.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }
}

/// Where the events of a span to come are.
fn slot_of(span: u64) -> usize {
    (span % SPANS) as usize
}

/// Kind and subject of a packed event.
fn low_of(word: u128) -> u32 {
    (word & u128::from(u32::MAX)) as u32
}

/// The time of a packed event.
fn time_of(word: u128) -> u64 {
    (word >> TIME_BIT) as u64
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

#[cfg(test)]
mod tests {
    use super::{Event, Queue};

    /// Against a sorted list, with times near, far and equal.
    #[test]
    fn events_come_by_time_and_by_number() {
        let mut queue = Queue::default();
        let mut all = Vec::new();
        let (mut now, mut state, mut number) = (0u64, 1u64, 0u32);
        for round in 0..3_000u32 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let width = [0, 3, 12, 22, 27, 35][(state >> 33) as usize % 6];
            let at = now + (state >> 40) % (1 << width);
            queue.push(at, Event::Thread(number));
            all.push((at, number));
            number += 1;
            if round % 3 == 0 {
                all.sort_unstable();
                let (at, expected) = all.remove(0);
                assert_eq!(queue.pop(), Some((at, Event::Thread(expected))));
                now = at;
            }
        }
        all.sort_unstable();
        for (at, expected) in all {
            assert_eq!(queue.pop(), Some((at, Event::Thread(expected))));
        }
        assert_eq!(queue.pop(), None);
    }
}
