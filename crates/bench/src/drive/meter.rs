//! The answers of a coordinator, added up.

use std::fmt::Write as _;
use std::time::Duration;

use expertmesh_coordinator::to_record;
use expertmesh_kernels::Format;
use expertmesh_telemetry::{
    CombineKind, ExchangeKind, ExpertOverflow, Identity, Load, OverflowEvents, Run, RunRecorder,
    Shape, Source,
};
use expertmesh_wire::{format_from_wire, v1};
use sha2::{Digest as _, Sha256};

use crate::drive::DriveError;
use crate::workload::Skew;

/// Records steps from the answers to `Forward` calls.
#[derive(Debug, Clone)]
pub struct Meter {
    recorder: RunRecorder,
    endpoints: usize,
    digest: Sha256,
    elapsed: Duration,
    /// Choices by expert, padding left out.
    demand: Vec<u64>,
    lost: u64,
    payload_bytes: u64,
    policy: Option<String>,
}

// === impl Meter ===

impl Meter {
    /// A meter for answers of `cluster`.
    pub fn new(cluster: &v1::ClusterReply) -> Self {
        let names: Vec<String> = cluster
            .endpoints
            .iter()
            .map(|endpoint| endpoint.name.clone())
            .collect();
        Self {
            recorder: RunRecorder::new(&names),
            endpoints: names.len(),
            digest: Sha256::new(),
            elapsed: Duration::ZERO,
            demand: vec![0; cluster.experts as usize],
            lost: 0,
            payload_bytes: 0,
            policy: policy(cluster),
        }
    }

    /// Records one answer, which its caller waited for `elapsed`.
    ///
    /// # Errors
    /// [`DriveError::Answer`] or [`DriveError::Telemetry`]: an answer without a report, choices
    /// that are not all accounted for, or sizes that are not the cluster's.
    pub fn record(
        &mut self,
        reply: &v1::ForwardReply,
        elapsed: Duration,
    ) -> Result<(), DriveError> {
        let report = reply.report.as_ref();
        let report = report.ok_or_else(|| DriveError::Answer("`report` is missing".to_owned()))?;
        let record = to_record(report, self.endpoints);
        self.recorder.record(&record)?;
        self.overflow(report.overflow.as_ref())?;
        self.payload_bytes += record.payload_bytes;
        self.elapsed += elapsed;
        // The wire's f32 are little-endian already, in token order.
        self.digest.update(&reply.output);
        Ok(())
    }

    /// Choices recorded as lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// How uneven the recorded choices were.
    pub fn skew(&self, claimed_share: Option<f64>) -> Skew {
        Skew::of(self.demand.iter().copied(), claimed_share)
    }

    /// Adds what sockets carried between two readings of the cluster's counters.
    ///
    /// Left out where the messages between them are not those that were recorded: another client
    /// was served at the same time, and sockets do not know for whom they carried a byte.
    pub fn wire(&mut self, before: &v1::TrafficReply, after: &v1::TrafficReply) {
        let sum = |reply: &v1::TrafficReply, of: fn(&v1::LinkTraffic) -> u64| -> u64 {
            reply.links.iter().map(of).sum()
        };
        let between = |of| sum(after, of).saturating_sub(sum(before, of));
        let messages = between(|link| link.message_bytes);
        if messages == self.payload_bytes {
            self.recorder.wire_bytes(between(|link| link.wire_bytes));
        } else {
            tracing::debug!(
                messages,
                payload = self.payload_bytes,
                "messages on the links are not those of the recorded steps"
            );
        }
    }

    /// The run of a report: a closed loop after `warmup` steps.
    pub fn finish(self, identity: Identity, warmup: u64) -> Run {
        let steps = self.recorder.steps();
        let load = Load::closed(steps, warmup, self.elapsed.as_secs_f64());
        let digest = (steps > 0).then(|| hex(&self.digest.finalize()));
        let mut run = self
            .recorder
            .finish(identity, load, Source::Measured, digest);
        run.overflow.policy = self.policy;
        run
    }

    fn overflow(&mut self, overflow: Option<&v1::Overflow>) -> Result<(), DriveError> {
        let overflow = overflow
            .ok_or_else(|| DriveError::Answer("`report.overflow` is missing".to_owned()))?;
        let per_expert: Vec<ExpertOverflow> = overflow.per_expert.iter().map(expert).collect();
        if per_expert.len() != self.demand.len() {
            return Err(DriveError::Answer(format!(
                "`report.overflow` holds {} experts, expected {}",
                per_expert.len(),
                self.demand.len()
            )));
        }
        let factor = (overflow.capacity_factor > 0.0).then_some(overflow.capacity_factor);
        let smallest = overflow.smallest_sufficient_capacity_factor;
        self.recorder
            .overflow(&per_expert, factor, Some(smallest))?;
        self.recorder.overflow_events(&OverflowEvents {
            tokens_without_expert: overflow.tokens_without_expert,
            spilled: overflow.spilled,
            waves: overflow.waves,
            replays: overflow.replays,
            dropped_by_slot: overflow.dropped_by_slot.clone(),
        });
        for (sum, expert) in self.demand.iter_mut().zip(&per_expert) {
            *sum += expert.demand();
            self.lost += expert.lost;
        }
        Ok(())
    }
}

/// What was run, as a report tells it.
///
/// # Errors
/// [`DriveError::Answer`] if the cluster states an exchange or number format that this build does
/// not know.
pub fn identity(
    cluster: &v1::ClusterReply,
    seed: u64,
    model: &str,
    shape: Option<Shape>,
    workload: &str,
) -> Result<Identity, DriveError> {
    let exchange = match cluster.exchange() {
        v1::ExchangeKind::Star => ExchangeKind::Star,
        v1::ExchangeKind::AllToAll => ExchangeKind::AllToAll,
        v1::ExchangeKind::Hierarchical => ExchangeKind::Hierarchical,
        v1::ExchangeKind::Unspecified => {
            let problem = format!("`exchange` holds {}, expected 1, 2 or 3", cluster.exchange);
            return Err(DriveError::Answer(problem));
        }
    };
    let dtype = cluster.model.as_ref().map_or(0, |model| model.dtype);
    let dtype = known_format("model.dtype", dtype)?;
    let wire = known_format("wire_dtype", cluster.wire_dtype)?;
    let mut numerics = format!("{} {dtype}", cluster.numerics);
    if wire != dtype {
        // Rows that pass a narrower format have other bits.
        let _ = write!(numerics, ", {wire} on the wire");
    }
    let workers = cluster.endpoints.len().saturating_sub(1);
    Ok(Identity {
        seed,
        model: model.to_owned(),
        shape,
        placement_digest: cluster.placement_digest.clone(),
        workload: workload.to_owned(),
        exchange,
        groups: cluster.groups.clone(),
        combine: CombineKind::Exact,
        workers: u32::try_from(workers).unwrap_or(u32::MAX),
        endpoints: Vec::new(),
        numerics,
    })
}

/// The overflow policy in force, as a report names it; `None` of a cluster that does not say.
pub(crate) fn policy(cluster: &v1::ClusterReply) -> Option<String> {
    Some(cluster.overflow.clone()).filter(|policy| !policy.is_empty())
}

fn known_format(field: &str, value: i32) -> Result<Format, DriveError> {
    format_from_wire(value).ok_or_else(|| {
        DriveError::Answer(format!(
            "`{field}` holds {value}, expected 1 (f32) or 2 (bf16)"
        ))
    })
}

fn expert(one: &v1::ExpertOverflow) -> ExpertOverflow {
    ExpertOverflow {
        assigned: one.assigned,
        computed: one.computed,
        rerouted: one.rerouted,
        dropped: one.dropped,
        skipped: one.skipped,
        lost: one.lost,
        assigned_gate_weight: one.assigned_weight,
        lost_gate_weight: one.lost_weight,
        received: one.received,
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
