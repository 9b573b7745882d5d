//! Steps through a coordinator's public call, into a run of a report.
//!
//! The loop is closed: the next step starts when the one before it has ended. Its input is made
//! before the clock starts and its output hashed after the clock has stopped. What a step cost is
//! what the coordinator says ([`v1::StepReport`]), so a client's distance from it adds nothing.
//!
//! [`Meter`] adds up the answers of any client, [`RouteLog`] keeps what the gate chose in them,
//! [`LaneLog`] when endpoints did what; [`drive`] calls, meters and keeps.

mod lanes;
mod meter;
mod routes;
#[cfg(test)]
mod tests;

pub use lanes::LaneLog;
pub use meter::{Meter, identity};
pub(crate) use meter::{hex, policy};
pub use routes::RouteLog;

use std::time::{Duration, Instant};

use bytes::Bytes;
use expertmesh_kernels::{Format, encode_row, round_bf16};
use expertmesh_telemetry::{Run, Shape, TelemetryError};
use expertmesh_transport::{CoordinatorClient, TransportError};
use expertmesh_wire::{format_from_wire, protocol_version, v1};

use crate::trace::{Trace, TraceError};
use crate::workload::{Batch, ReplayedStep, Skew, Workload};

/// What to drive.
#[derive(Debug, Clone)]
pub struct DriveOptions {
    /// Steps that the report counts.
    pub steps: u64,
    /// Steps before them that it does not.
    pub warmup: u64,
    /// Seed of the workload and of the layer, for the report's identity.
    pub seed: u64,
    /// Model family or directory, and layer, for the report's identity.
    pub model: String,
    /// Dimensions, for the report's identity.
    pub shape: Option<Shape>,
    /// Also ask for the routing tables of every step, and keep those of recorded steps as a trace.
    /// They travel to the client behind the step, whose figures they do not touch.
    pub want_routing: bool,
    /// Also keep the lanes of so many recorded steps, the last ones. They are made when a step has
    /// ended.
    pub lane_steps: u64,
}

/// What a drive measured.
#[derive(Debug, Clone)]
pub struct Driven {
    /// For a report.
    pub run: Run,
    /// How uneven the recorded routes were.
    pub skew: Skew,
    /// What the gate chose in them, where that was asked for.
    pub trace: Option<Trace>,
    /// When endpoints did what in the last steps, where that was asked for.
    pub lanes: Option<expertmesh_telemetry::Trace>,
}

/// Why a drive ended.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A call failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// An answer contradicts itself, its cluster or an earlier answer.
    #[error("answer of the coordinator: {0}")]
    Answer(String),
    /// As [`Self::Answer`], found by the recorder.
    #[error("answer of the coordinator: {0}")]
    Telemetry(#[from] TelemetryError),
    /// Routes that no trace can hold.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// A step may not be waited for much longer than its own deadline.
const BEYOND_DEADLINE: Duration = Duration::from_secs(10);
/// Reading counters is quick or hopeless.
const TRAFFIC_TIMEOUT: Duration = Duration::from_secs(3);

/// Drives `workload` through the cluster that `client` reaches and `cluster` describes.
///
/// `on_step` is told after every step whether it was recorded. Warm-up steps have inputs of their
/// own, so the digest does not depend on their number.
///
/// # Errors
/// [`DriveError`]: a step that failed, an answer that contradicts itself.
pub async fn drive(
    client: &CoordinatorClient,
    cluster: &v1::ClusterReply,
    workload: &Workload,
    options: &DriveOptions,
    mut on_step: impl FnMut(bool),
) -> Result<Driven, DriveError> {
    let client = with_deadline(client, cluster);
    let mut rows = Vec::new();
    let mut log = match options.want_routing {
        true => Some(RouteLog::new(cluster)?),
        false => None,
    };
    let mut warmup = Meter::new(cluster);
    for step in 0..options.warmup {
        let mut request = request(workload, cluster, u64::MAX - step, &mut rows);
        request.want_routing = options.want_routing;
        let started = Instant::now();
        let reply = client.forward(request).await?;
        warmup.record(&reply, started.elapsed())?;
        on_step(false);
    }
    let before = traffic(&client, &warmup).await;
    let mut meter = Meter::new(cluster);
    let mut lanes = LaneLog::new(cluster);
    for step in 0..options.steps {
        let mut request = request(workload, cluster, step, &mut rows);
        request.want_routing = options.want_routing;
        request.want_lanes = options.steps - step <= options.lane_steps;
        let want_lanes = request.want_lanes;
        let started = Instant::now();
        let reply = client.forward(request).await?;
        meter.record(&reply, started.elapsed())?;
        if want_lanes {
            lanes.record(&reply)?;
        }
        if let Some(log) = &mut log {
            log.record(&reply, &workload.batch(step))?;
        }
        on_step(true);
    }
    if let Some(before) = before
        && let Some(after) = traffic(&client, &meter).await
    {
        meter.wire(&before, &after);
    }
    let skew = meter.skew(workload.claimed_share());
    let identity = identity(
        cluster,
        options.seed,
        &options.model,
        options.shape.clone(),
        workload.name(),
    )?;
    let (source, seed) = workload.origin();
    let trace = log.filter(|log| log.steps() > 0);
    Ok(Driven {
        run: meter.finish(identity, options.warmup),
        skew,
        trace: trace.map(|log| log.finish(source, seed)).transpose()?,
        lanes: (options.lane_steps > 0).then(|| lanes.finish()),
    })
}

/// The same connection, waiting for a step a little longer than the cluster does.
#[must_use]
pub fn with_deadline(client: &CoordinatorClient, cluster: &v1::ClusterReply) -> CoordinatorClient {
    let deadline = Duration::from_micros(cluster.deadline_us);
    client
        .clone()
        .with_call_timeout(deadline.saturating_add(BEYOND_DEADLINE))
}

/// A `Forward` request of `tokens` rows, in the number format in which `cluster` computes.
///
/// Values are rounded in `rows` where that format is bf16: a model in bf16 has hidden states in
/// bf16.
#[must_use]
pub fn forward_request(
    cluster: &v1::ClusterReply,
    tokens: usize,
    rows: &mut [f32],
    padding: Option<&[bool]>,
    want_routing: bool,
) -> v1::ForwardRequest {
    let dtype = cluster.model.as_ref().map_or(0, |model| model.dtype);
    if format_from_wire(dtype) == Some(Format::Bf16) {
        round_bf16(rows);
    }
    let mut hidden_states = vec![0; rows.len() * Format::F32.bytes()];
    encode_row(Format::F32, rows, &mut hidden_states);
    v1::ForwardRequest {
        protocol: Some(protocol_version()),
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        hidden: cluster.hidden,
        hidden_states: hidden_states.into(),
        padding_mask: padding.map_or_else(Bytes::new, |padding| {
            padding.iter().map(|one| u8::from(*one)).collect()
        }),
        want_routing,
        ..v1::ForwardRequest::default()
    }
}

fn request(
    workload: &Workload,
    cluster: &v1::ClusterReply,
    step: u64,
    rows: &mut Vec<f32>,
) -> v1::ForwardRequest {
    workload.fill(step, rows);
    let Batch {
        tokens,
        padding,
        replay,
    } = workload.batch(step);
    let mut request = forward_request(cluster, tokens, rows, padding, false);
    // What is random follows the workload's step, so warm-up changes nothing.
    request.at_step = Some(step);
    request.sequence = u32::try_from(workload.sequence()).unwrap_or(u32::MAX);
    if cluster.gate == "hash" {
        request.token_ids = words(workload.token_ids(step, tokens).into_iter());
    }
    if let Some(replay) = replay {
        bring_choices(&mut request, replay);
    }
    request
}

/// Has `request` bring the choices of `replay`, of as many tokens, and the ids that it has of them.
pub fn bring_choices(request: &mut v1::ForwardRequest, replay: &ReplayedStep) {
    request.replay = Some(v1::Replay {
        experts: words(replay.experts.iter().copied()),
        weights: match &replay.weights {
            Some(weights) => words(weights.iter().map(|weight| weight.to_bits())),
            None => Vec::new(),
        },
    });
    if let Some(ids) = &replay.token_ids {
        request.token_ids = words(ids.iter().copied());
    }
}

fn words<B: FromIterator<u8>>(values: impl Iterator<Item = u32>) -> B {
    values.flat_map(u32::to_le_bytes).collect()
}

/// The cluster's counters, if every endpoint tells them. One that was lost would be asked in vain,
/// and its bytes would be missing.
async fn traffic(client: &CoordinatorClient, so_far: &Meter) -> Option<v1::TrafficReply> {
    if so_far.lost() > 0 {
        return None;
    }
    let client = client.clone().with_call_timeout(TRAFFIC_TIMEOUT);
    let reply = client.traffic(v1::TrafficRequest { session: 0 }).await;
    reply
        .inspect_err(|error| tracing::warn!(%error, "wire bytes are unknown"))
        .ok()
}

// === impl DriveError ===

impl DriveError {
    /// Whether the caller's input is at fault: exit code 2.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_input(),
            Self::Trace(_) => true,
            Self::Answer(_) | Self::Telemetry(_) => false,
        }
    }
}
