//! The exchange of a step as Chakra execution traces: SEND and RECV pairs with sizes.
//!
//! Chakra has no all-to-all with sizes of its own for each pair, so every (source, destination)
//! becomes a `COMM_SEND_NODE` at the source and a `COMM_RECV_NODE` at the destination, joined by
//! `comm_tag`. Between them stand `COMP_NODE`s with the mean durations of the run.

pub mod schema;
#[cfg(test)]
mod tests;

use std::time::Duration;

use expertmesh_telemetry::{ExchangeKind, Phase, Run, Trace};
use prost::Message as _;

use self::schema::{AttributeProto, GlobalMetadata, Node, NodeType, Value};
use crate::ReportError;
use crate::error::check_square;

/// The version that MLCommons' own generator writes.
const VERSION: &str = "1.0.0";

/// An execution trace for each endpoint, by its id: the contents of `<name>.<id>.et`.
///
/// Sizes are those of the run's mean step, in bytes, rounded up. Times of messages are the means
/// over the lanes of `trace` where there is one. Who waits for whom:
///
/// * the coordinator computes `plan`, then sends; what it receives goes into `combine`;
/// * a worker of a star computes `experts` on what it receives, then answers;
/// * in `all-to-all` a worker sends to its peers when it has its shard, computes `experts` on what
///   they send, and answers the coordinator after that. Rows and results of a pair of workers are
///   one message, because the report's matrix counts them together.
///
/// # Errors
///
/// [`ReportError::Nothing`] for a run without traffic.
pub fn chakra(run: &Run, trace: Option<&Trace>) -> Result<Vec<Vec<u8>>, ReportError> {
    let matrix = &run.communication.matrix_bytes;
    check_square(matrix)?;
    if matrix.iter().flatten().all(|bytes| *bytes == 0) {
        return Err(ReportError::Nothing {
            what: "byte in the run's matrix",
            hint: "take a run of several endpoints",
        });
    }
    let endpoints = (0..matrix.len()).map(|endpoint| {
        let mut file = EndpointFile {
            run,
            trace,
            endpoint,
            nodes: Vec::new(),
        };
        match endpoint {
            0 => file.coordinator(),
            _ => file.worker(),
        }
        file.encode()
    });
    Ok(endpoints.collect())
}

/// The nodes of one endpoint.
struct EndpointFile<'a> {
    run: &'a Run,
    trace: Option<&'a Trace>,
    endpoint: usize,
    nodes: Vec<Node>,
}

// === impl EndpointFile ===

impl EndpointFile<'_> {
    fn coordinator(&mut self) {
        let plan = [Phase::Gate, Phase::Plan, Phase::Pack];
        let plan = self.compute("plan", &plan, &[]);
        self.sends(|_| true, &[plan]);
        let received = self.receives(|_| true);
        self.compute("combine", &[Phase::Combine], &received);
    }

    fn worker(&mut self) {
        match self.run.identity.exchange {
            ExchangeKind::Star => {
                let rows = self.receives(|_| true);
                let experts = self.compute("experts", &[Phase::Experts], &rows);
                self.sends(|_| true, &[experts]);
            }
            // Workers trade with each other, whatever the kind.
            _ => {
                let shard = self.receives(|peer| peer == 0);
                self.sends(|peer| peer != 0, &shard);
                let mut rows = self.receives(|peer| peer != 0);
                rows.extend(shard);
                let experts = self.compute("experts", &[Phase::Experts], &rows);
                self.sends(|peer| peer == 0, &[experts]);
            }
        }
    }

    fn compute(&mut self, name: &str, phases: &[Phase], data_deps: &[u64]) -> u64 {
        let means = phases.iter().filter_map(|phase| {
            let latency = self.run.latency_us.phases.get(phase.name())?;
            Some(latency.mean)
        });
        let ns = nanoseconds(means.sum());
        self.push(
            name.to_owned(),
            NodeType::Comp,
            Some(ns),
            data_deps,
            Vec::new(),
        )
    }

    fn sends(&mut self, to: impl Fn(usize) -> bool, data_deps: &[u64]) {
        for peer in (0..self.endpoints()).filter(|peer| to(*peer)) {
            self.message((self.endpoint, peer), NodeType::CommSend, data_deps);
        }
    }

    fn receives(&mut self, from: impl Fn(usize) -> bool) -> Vec<u64> {
        let peers = (0..self.endpoints()).filter(|peer| from(*peer));
        let pairs: Vec<_> = peers.map(|peer| (peer, self.endpoint)).collect();
        let received = pairs.into_iter();
        received
            .filter_map(|pair| self.message(pair, NodeType::CommRecv, &[]))
            .collect()
    }

    /// One end of what `source` sends to `destination`, if it sends anything.
    fn message(
        &mut self,
        (source, destination): (usize, usize),
        kind: NodeType,
        data_deps: &[u64],
    ) -> Option<u64> {
        let bytes = *self
            .run
            .communication
            .matrix_bytes
            .get(source)?
            .get(destination)?;
        if bytes == 0 || source == destination {
            return None;
        }
        let bytes = bytes.div_ceil(self.run.load.steps.max(1));
        let word = match kind {
            NodeType::CommSend => "send",
            _ => "receive",
        };
        let name = format!("{word} {source} to {destination}");
        let small = |value: usize| Value::Int32(i32::try_from(value).unwrap_or(i32::MAX));
        let attributes = vec![
            (
                "comm_size",
                Value::Int64(i64::try_from(bytes).unwrap_or(i64::MAX)),
            ),
            ("comm_src", small(source)),
            ("comm_dst", small(destination)),
            ("comm_tag", small(source * self.endpoints() + destination)),
        ];
        let took = self.travel_ns(source, destination);
        Some(self.push(name, kind, took, data_deps, attributes))
    }

    /// Mean time that a message of this pair was on its way.
    fn travel_ns(&self, source: usize, destination: usize) -> Option<u64> {
        let is_of_pair = |endpoint: u32, peer: Option<u32>| {
            endpoint as usize == source && peer.is_some_and(|peer| peer as usize == destination)
        };
        let lanes = self.trace?.lanes.iter();
        let lanes = lanes.filter(|lane| {
            matches!(lane.phase, Phase::Send | Phase::Return)
                && is_of_pair(lane.endpoint, lane.peer)
        });
        let (sum, count) = lanes.fold((0u64, 0u64), |(sum, count), lane| {
            (sum.saturating_add(lane.duration_ns()), count + 1)
        });
        sum.checked_div(count)
    }

    fn push(
        &mut self,
        name: String,
        kind: NodeType,
        took_ns: Option<u64>,
        data_deps: &[u64],
        attributes: Vec<(&str, Value)>,
    ) -> u64 {
        let id = self.nodes.len() as u64;
        let mut attributes = attributes;
        attributes.push(("is_cpu_op", Value::Bool(false)));
        attributes.extend(took_ns.map(|ns| ("duration_ns", Value::Uint64(ns))));
        self.nodes.push(Node {
            id,
            name,
            r#type: kind.into(),
            ctrl_deps: Vec::new(),
            data_deps: data_deps.to_vec(),
            start_time_micros: 0,
            duration_micros: took_ns.unwrap_or(0).div_ceil(1000),
            attr: attributes.into_iter().map(attribute).collect(),
        });
        id
    }

    fn endpoints(&self) -> usize {
        self.run.communication.matrix_bytes.len()
    }

    fn encode(self) -> Vec<u8> {
        let name = self.run.identity.endpoints.get(self.endpoint);
        let text = |text: &str| Value::String(text.to_owned());
        let metadata = GlobalMetadata {
            version: VERSION.to_owned(),
            attr: vec![
                attribute(("endpoint", text(name.map_or("?", String::as_str)))),
                attribute(("exchange", text(self.run.identity.exchange.name()))),
            ],
        };
        let mut file = metadata.encode_length_delimited_to_vec();
        for node in &self.nodes {
            file.extend(node.encode_length_delimited_to_vec());
        }
        file
    }
}

fn attribute((name, value): (&str, Value)) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        value: Some(value),
    }
}

/// Microseconds as whole nanoseconds; 0 for what is no duration.
fn nanoseconds(us: f64) -> u64 {
    let time = Duration::try_from_secs_f64(us / 1e6).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
