//! Where the time of a home's exchange went.

/// Moments of one home's exchange, nanoseconds since its start on its own clock.
///
/// The chain `packed ≤ received ≤ started ≤ computed ≤ arrived ≤ done` belongs to the chunk whose
/// results came last: the critical path. A `Timeline` of an `all-to-all` home crosses the wire in
/// the index of its `COMBINED` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeline {
    /// Endpoint id of the host on the critical path.
    pub critical: u64,
    /// Its request was handed to the transport.
    pub packed: u64,
    /// Its host had the rows.
    pub received: u64,
    /// Its experts began.
    pub started: u64,
    /// Its experts had finished.
    pub computed: u64,
    /// Its results were at the home: the last to come.
    pub arrived: u64,
    /// The outputs were there in token order.
    pub done: u64,
    /// The last host had its rows.
    pub dispatched: u64,
    /// The first result left a host.
    pub first_result: u64,
    /// The longest that one host's experts took for this home.
    pub longest_experts: u64,
    /// Time spent in shared experts.
    pub shared: u64,
    /// How far off the hosts' moments may be.
    pub clock_error: u64,
}

const FIELDS: usize = 12;

/// No step takes so long (146 years), and sums with moments of a clock stay within 64 bits.
const LONGEST: u64 = 1 << 62;

/// Index words that a timeline takes.
pub(crate) const TIMELINE_WORDS: usize = FIELDS * 2;

// === impl Timeline ===

impl Timeline {
    pub(crate) fn write(&self, index: &mut [u8]) {
        for (slot, value) in index.chunks_exact_mut(8).zip(self.fields()) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// `None` if `index` is too short.
    pub(crate) fn read(index: &[u8]) -> Option<Self> {
        let mut fields = [0u64; FIELDS];
        let bytes = index.get(..FIELDS * 8)?;
        for (field, word) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
            *field = u64::from_le_bytes(word.try_into().ok()?);
        }
        let [
            critical,
            packed,
            received,
            started,
            computed,
            arrived,
            done,
            rest @ ..,
        ] = fields;
        let [
            dispatched,
            first_result,
            longest_experts,
            shared,
            clock_error,
        ] = rest;
        Some(Self {
            critical,
            packed,
            received,
            started,
            computed,
            arrived,
            done,
            dispatched,
            first_result,
            longest_experts,
            shared,
            clock_error,
        })
    }

    /// Whether the moments follow each other as they must, and so can be subtracted and added.
    pub(crate) fn is_ordered(&self) -> bool {
        let chain = [
            self.packed,
            self.received,
            self.started,
            self.computed,
            self.arrived,
            self.done,
            LONGEST,
        ];
        chain.is_sorted() && self.dispatched <= self.done && self.first_result <= self.done
    }

    fn fields(&self) -> [u64; FIELDS] {
        [
            self.critical,
            self.packed,
            self.received,
            self.started,
            self.computed,
            self.arrived,
            self.done,
            self.dispatched,
            self.first_result,
            self.longest_experts,
            self.shared,
            self.clock_error,
        ]
    }
}
