//! Lanes in the Chrome trace format, which Perfetto opens.
//!
//! A process for each endpoint, a thread for each of its phases, an `X` event for each lane, and
//! arrows from a dispatch over the experts to the combine. What a cost model predicted stands in a
//! process of its own beside the endpoint's, each of its steps moved to where the measured one
//! begins.

mod flows;
mod rows;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expertmesh_telemetry::{Lane, Trace};

use crate::human;

/// Columns of a name in the viewer's margin.
const NAME: usize = 60;
/// Threads that one phase of an endpoint may have.
const ROWS: u64 = 1 << 20;

/// A lane where the picture shows it.
#[derive(Debug, Clone, Copy)]
struct Slice {
    lane: Lane,
    /// Nanoseconds since the picture begins.
    begin_ns: u64,
    /// Among the lanes of its endpoint and phase.
    row: u64,
}

// === impl Slice ===

impl Slice {
    fn end_ns(&self) -> u64 {
        self.begin_ns.saturating_add(self.lane.duration_ns())
    }

    /// Odd for predictions, so that they follow their endpoint. 0 is no process.
    fn process(&self) -> u64 {
        process(self.lane.endpoint, self.lane.predicted)
    }

    fn thread(&self) -> u64 {
        self.lane.phase.index() as u64 * ROWS + self.row + 1
    }
}

fn process(endpoint: u32, predicted: bool) -> u64 {
    2 * (u64::from(endpoint) + 1) + u64::from(predicted)
}

/// The lanes of `trace` as Chrome trace JSON. Moments are microseconds with three decimals: no
/// nanosecond is lost.
pub fn perfetto(trace: &Trace) -> String {
    let mut events = Events::default();
    let slices = place(trace);
    events.names(trace, &slices);
    for slice in &slices {
        events.slice(trace, slice);
    }
    for (number, flow) in flows::flows(&slices).iter().enumerate() {
        events.flow(number, flow);
    }
    events.finish()
}

/// Lanes in the order of their beginning. Step by step, a prediction begins with what was measured.
fn place(trace: &Trace) -> Vec<Slice> {
    let starts = |predicted: bool| -> BTreeMap<u64, u64> {
        let mut starts = BTreeMap::new();
        for lane in trace
            .lanes
            .iter()
            .filter(|lane| lane.predicted == predicted)
        {
            let start = starts.entry(lane.step).or_insert(lane.begin_ns);
            *start = lane.begin_ns.min(*start);
        }
        starts
    };
    let (measured, predicted) = (starts(false), starts(true));
    // Numbers of steps count from different beginnings: the first is held against the first.
    let mut moved: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for ((step, from), to) in predicted.iter().zip(measured.values()) {
        moved.insert(*step, (*from, *to));
    }
    let at = |lane: &Lane| match moved.get(&lane.step).filter(|_| lane.predicted) {
        Some((from, to)) => to.saturating_add(lane.begin_ns - from),
        None => lane.begin_ns,
    };
    // Predictions without a measured step beside them keep a clock of their own.
    let first = trace.lanes.iter().map(at).min().unwrap_or(0);
    let mut slices: Vec<Slice> = trace
        .lanes
        .iter()
        .map(|lane| Slice {
            lane: *lane,
            begin_ns: at(lane) - first,
            row: 0,
        })
        .collect();
    slices.sort_by_key(|slice| (slice.begin_ns, slice.process(), slice.thread()));
    rows::assign(&mut slices);
    slices
}

/// The array of events under construction.
#[derive(Debug, Default)]
struct Events {
    text: String,
}

// === impl Events ===

impl Events {
    fn push(&mut self, event: &str) {
        let comma = if self.text.is_empty() { "" } else { ",\n" };
        let _ = write!(self.text, "{comma}{{{event}}}");
    }

    /// Names and order of processes and threads.
    fn names(&mut self, trace: &Trace, slices: &[Slice]) {
        let mut seen: BTreeMap<u64, BTreeMap<u64, &Slice>> = BTreeMap::new();
        for slice in slices {
            let threads = seen.entry(slice.process()).or_default();
            threads.entry(slice.thread()).or_insert(slice);
        }
        for (pid, threads) in &seen {
            let Some(one) = threads.values().next() else {
                continue;
            };
            let mut name = endpoint(trace, one.lane.endpoint);
            if one.lane.predicted {
                name.push_str(" (predicted)");
            }
            let name = quoted(&name);
            self.meta("process_name", *pid, 0, &format!("\"name\":{name}"));
            self.meta(
                "process_sort_index",
                *pid,
                0,
                &format!("\"sort_index\":{pid}"),
            );
            for (tid, slice) in threads {
                let name = quoted(slice.lane.phase.name());
                self.meta("thread_name", *pid, *tid, &format!("\"name\":{name}"));
                self.meta(
                    "thread_sort_index",
                    *pid,
                    *tid,
                    &format!("\"sort_index\":{tid}"),
                );
            }
        }
    }

    fn meta(&mut self, what: &str, pid: u64, tid: u64, args: &str) {
        self.push(&format!(
            "\"name\":\"{what}\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"args\":{{{args}}}"
        ));
    }

    fn slice(&mut self, trace: &Trace, slice: &Slice) {
        let lane = &slice.lane;
        let mut args = format!("\"step\":{}", lane.step);
        if let Some(peer) = lane.peer {
            let _ = write!(args, ",\"peer\":{}", quoted(&endpoint(trace, peer)));
        }
        if lane.bytes > 0 {
            let _ = write!(args, ",\"bytes\":{}", lane.bytes);
        }
        self.push(&format!(
            "\"name\":{},\"cat\":{},\"ph\":\"X\",\"ts\":{},\"dur\":{},\"pid\":{},\"tid\":{},\
             \"args\":{{{args}}}",
            quoted(lane.phase.name()),
            quoted(if lane.predicted {
                "predicted"
            } else {
                "measured"
            }),
            micros(slice.begin_ns),
            micros(lane.duration_ns()),
            slice.process(),
            slice.thread(),
        ));
    }

    /// The points of one arrow: from the first slice, through the others, into the last.
    fn flow(&mut self, number: usize, points: &[Slice]) {
        let last = points.len().saturating_sub(1);
        for (at, slice) in points.iter().enumerate() {
            let (kind, bind) = match at {
                0 => ("s", ""),
                at if at == last => ("f", ",\"bp\":\"e\""),
                _ => ("t", ""),
            };
            self.push(&format!(
                "\"name\":\"rows\",\"cat\":\"flow\",\"ph\":\"{kind}\",\"id\":{number},\"ts\":{},\
                 \"pid\":{},\"tid\":{}{bind}",
                micros(slice.begin_ns),
                slice.process(),
                slice.thread(),
            ));
        }
    }

    fn finish(self) -> String {
        format!(
            "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}\n]}}\n",
            self.text
        )
    }
}

fn endpoint(trace: &Trace, id: u32) -> String {
    let name = trace.endpoints.get(id as usize);
    human::fit(name.map_or("?", String::as_str), NAME)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Nanoseconds as microseconds, exactly.
fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}
