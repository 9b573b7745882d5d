//! Where the time of a home's exchange went.

use expertmesh_kernels::prefetch_to_write;
use expertmesh_wire::{Times, v1};

use crate::clock::ClockMap;

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

/// The way of one chunk, from its home and back: moments on the home's clock, nanoseconds, each not
/// before the one above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChunkWay {
    /// Endpoint id of the host.
    pub endpoint: u32,
    /// The home began to pack it.
    pub began: u64,
    /// It was handed to the transport.
    pub packed: u64,
    /// The host had it.
    pub received: u64,
    /// The host's experts began.
    pub started: u64,
    /// They had finished.
    pub computed: u64,
    /// The results were handed to the transport.
    pub left: u64,
    /// The home had them.
    pub arrived: u64,
    /// Encoded bytes of the request.
    pub request_bytes: u64,
    /// Encoded bytes of the results.
    pub result_bytes: u64,
}

/// Moments at a host as its home sees them, on the home's clock, nanoseconds, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTimes {
    /// The host had the rows.
    pub received: u64,
    /// Its experts began.
    pub started: u64,
    /// They had finished.
    pub computed: u64,
    /// The results were handed to the transport.
    pub left: u64,
    /// The home had them.
    pub arrived: u64,
}

/// What a home remembers of its chunks until its [`Timeline`] is told.
#[derive(Debug, Clone)]
pub struct HomeMoments {
    started_ns: u64,
    /// `[chunks]` of the plan.
    packed_ns: Vec<u64>,
    /// `[hosts]` of the plan.
    experts: Vec<HostExperts>,
    line: Timeline,
}

/// The time of one host's experts.
#[derive(Debug, Clone, Copy, Default)]
struct HostExperts {
    took_ns: u64,
    /// Until when they are accounted for: chunks of one batch share its time.
    counted_ns: u64,
}

const FIELDS: usize = 12;

/// No step takes so long (146 years), and sums with moments of a clock stay within 64 bits.
const LONGEST: u64 = 1 << 62;

/// Index words that a timeline takes.
pub(crate) const TIMELINE_WORDS: usize = FIELDS * 2;

// === impl ChunkWay ===

impl ChunkWay {
    /// As a worker tells it.
    pub fn to_wire(&self) -> v1::ChunkWay {
        v1::ChunkWay {
            endpoint: self.endpoint,
            began_ns: self.began,
            packed_ns: self.packed,
            received_ns: self.received,
            started_ns: self.started,
            computed_ns: self.computed,
            left_ns: self.left,
            arrived_ns: self.arrived,
            request_bytes: self.request_bytes,
            result_bytes: self.result_bytes,
        }
    }

    /// As a worker told it, with each moment passed through `moment`: to another clock, and within
    /// bounds. Moments that are out of order then follow each other.
    pub fn from_wire(way: &v1::ChunkWay, moment: impl Fn(u64) -> u64) -> Self {
        let mut last = 0;
        let mut next = |theirs: u64| {
            last = moment(theirs).max(last);
            last
        };
        Self {
            endpoint: way.endpoint,
            began: next(way.began_ns),
            packed: next(way.packed_ns),
            received: next(way.received_ns),
            started: next(way.started_ns),
            computed: next(way.computed_ns),
            left: next(way.left_ns),
            arrived: next(way.arrived_ns),
            request_bytes: way.request_bytes,
            result_bytes: way.result_bytes,
        }
    }
}

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

// === impl HomeMoments ===

impl HomeMoments {
    /// A home that started at `started_ns` with a plan of so many hosts and chunks.
    pub fn new(started_ns: u64, hosts: usize, chunks: usize) -> Self {
        Self {
            started_ns,
            packed_ns: vec![0; chunks],
            experts: vec![HostExperts::default(); hosts],
            line: Timeline {
                first_result: u64::MAX,
                ..Timeline::default()
            },
        }
    }

    /// Chunk `chunk`, counted over all hosts, was packed.
    pub fn packed(&mut self, chunk: usize, now_ns: u64) {
        self.packed_ns[chunk] = now_ns;
    }

    /// Asks memory for what [`Self::answered`] looks at: for whoever knows it ahead.
    #[inline]
    pub fn expect_chunk(&self, host: usize, chunk: usize) {
        prefetch_to_write(&self.packed_ns, chunk);
        prefetch_to_write(&self.experts, host);
    }

    /// The results of a chunk were here at `now_ns`: `host` is the position of `endpoint` in the
    /// plan, `times` are the host's, on its own clock. Returns them on the home's.
    pub fn answered(
        &mut self,
        (host, endpoint): (usize, u32),
        chunk: usize,
        times: Times,
        clock: &mut ClockMap,
        now_ns: u64,
    ) -> HostTimes {
        let packed = self.packed_ns[chunk];
        clock.observe(packed, times.received_ns, times.sent_ns, now_ns);
        let start = self.started_ns;
        // A clock compared over a network may be off by its error: moments are kept in order.
        let mut last = packed.max(start);
        let mut local = |theirs: u64| {
            last = clock.to_local(theirs).clamp(last, now_ns.max(last));
            last - start
        };
        let received = local(times.received_ns);
        let started = local(times.started_ns);
        let computed = local(times.computed_ns);
        let sent = local(times.sent_ns);
        let experts = &mut self.experts[host];
        experts.took_ns += computed.saturating_sub(started.max(experts.counted_ns));
        experts.counted_ns = computed.max(experts.counted_ns);
        let line = &mut self.line;
        line.dispatched = line.dispatched.max(received);
        line.first_result = line.first_result.min(sent);
        line.clock_error = line.clock_error.max(clock.error_ns());
        line.critical = u64::from(endpoint);
        line.packed = packed.saturating_sub(start);
        (line.received, line.started, line.computed) = (received, started, computed);
        line.arrived = now_ns.max(last) - start;
        HostTimes {
            received: start + received,
            started: start + started,
            computed: start + computed,
            left: start + sent,
            arrived: start + line.arrived,
        }
    }

    /// Where the time went, once the outputs were there at `done_ns`; `shared_ns` was spent in
    /// shared experts.
    pub fn timeline(&self, done_ns: u64, shared_ns: u64) -> Timeline {
        let mut line = self.line;
        line.done = done_ns.saturating_sub(self.started_ns);
        line.shared = shared_ns;
        let longest = self.experts.iter().map(|experts| experts.took_ns).max();
        line.longest_experts = longest.unwrap_or(0);
        line.first_result = line.first_result.min(line.done);
        line
    }
}
