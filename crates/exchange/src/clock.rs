//! Moments of another endpoint's clock on ours.

/// Compares a remote monotonic clock with the local one.
///
/// Endpoints that share a running kernel share its clock: no offset, no error. Otherwise each
/// answered request is a sample in the manner of NTP (Mills, RFC 5905 §8): with `t0` sent and
/// `t3` answered on our clock, `t1` received and `t2` replied on theirs, the offset is
/// `((t1 − t0) + (t2 − t3)) / 2`, and its error is at most half the round trip
/// `(t3 − t0) − (t2 − t1)`. The sample with the shortest round trip of the recent ones is kept.
#[derive(Debug, Clone, Copy)]
pub struct ClockMap {
    shared: bool,
    offset_ns: i64,
    round_trip_ns: u64,
    age: u32,
}

/// A sample older than this many is replaced by whatever comes next, so that drift is followed.
const OLDEST: u32 = 256;

// === impl ClockMap ===

impl ClockMap {
    /// A map for a clock that is the local one.
    pub fn shared() -> Self {
        Self {
            shared: true,
            offset_ns: 0,
            round_trip_ns: 0,
            age: 0,
        }
    }

    /// A map for a clock of which nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            shared: false,
            offset_ns: 0,
            round_trip_ns: u64::MAX,
            age: 0,
        }
    }

    /// Takes a sample: our `t0`, their `t1` and `t2`, our `t3`, nanoseconds.
    pub fn observe(&mut self, t0: u64, t1: u64, t2: u64, t3: u64) {
        if self.shared {
            return;
        }
        let round_trip = t3.saturating_sub(t0).saturating_sub(t2.saturating_sub(t1));
        self.age += 1;
        if round_trip <= self.round_trip_ns || self.age > OLDEST {
            self.round_trip_ns = round_trip;
            let offset = (t1.wrapping_sub(t0).cast_signed() / 2)
                .wrapping_add(t2.wrapping_sub(t3).cast_signed() / 2);
            self.offset_ns = offset;
            self.age = 0;
        }
    }

    /// A moment of theirs on our clock, nanoseconds.
    pub fn to_local(&self, theirs_ns: u64) -> u64 {
        theirs_ns.wrapping_sub(self.offset_ns.cast_unsigned())
    }

    /// How far off a moment may be, nanoseconds; 0 for a shared clock.
    pub fn error_ns(&self) -> u64 {
        if self.shared || self.round_trip_ns == u64::MAX {
            0
        } else {
            self.round_trip_ns / 2
        }
    }
}
