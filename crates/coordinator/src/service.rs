//! The public calls of a coordinator, and how their client reads the answers.

use std::sync::Arc;

use bytes::Bytes;
use expertmesh_exchange::OnLoss;
use expertmesh_kernels::{Format, NUMERICS};
use expertmesh_routing::Fate;
use expertmesh_telemetry::{Lane, Phase, StepRecord};
use expertmesh_transport::{CoordinatorControl, boot_id};
use expertmesh_wire::{RemoteError, check_protocol, format_to_wire, protocol_version, v1};
use ndarray::ArcArray2;

use crate::config::CoordinatorConfig;

use crate::connect::{Coordinator, endpoints, exchange_to_wire};
use crate::decide::{Decider, Rehearsal};
use crate::forward::StepOutput;
use crate::input::StepInput;
use crate::stack::Stack;

/// Serves a [`Stack`] to its clients, which for most is one [`Coordinator`].
pub struct CoordinatorService {
    stack: Arc<Stack>,
}

// === impl CoordinatorService ===

impl CoordinatorService {
    /// Serves `stack`.
    pub fn new(stack: impl Into<Stack>) -> Self {
        let stack = Arc::new(stack.into());
        Self { stack }
    }
}

impl CoordinatorControl for CoordinatorService {
    async fn describe(
        &self,
        _request: v1::DescribeRequest,
    ) -> Result<v1::DescribeReply, RemoteError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(v1::DescribeReply {
            protocol: Some(protocol_version()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self
                .stack
                .first()
                .map_or_else(String::new, |layer| layer.config().name.clone()),
            boot_id: boot_id(),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            threads: 0,
            numerics: NUMERICS.to_owned(),
        })
    }

    async fn cluster(&self, _request: v1::ClusterRequest) -> Result<v1::ClusterReply, RemoteError> {
        Ok(self.stack.cluster())
    }

    async fn forward(&self, request: v1::ForwardRequest) -> Result<v1::ForwardReply, RemoteError> {
        check_protocol(request.protocol.as_ref(), "the client")?;
        let x = hidden_states(&request)?;
        let input = StepInput::read(&request)?;
        let want_routing = request.want_routing;
        let layers = self.stack.layers().len();
        if want_routing && layers > 1 {
            return Err(RemoteError::invalid(format!(
                "`want_routing` is set, expected false for a stack of {layers} layers: the tables \
                 are those of one layer"
            )));
        }
        // A client that hangs up must not leave a step half counted: the step has its own task.
        let stack = Arc::clone(&self.stack);
        let step = tokio::spawn(async move { stack.forward_in(x, input).await });
        let step = step
            .await
            .map_err(|error| RemoteError::new(v1::ErrorCode::Internal, error.to_string()))?
            .map_err(|error| error.to_remote())?;
        let one = step.layers.first().filter(|_| want_routing);
        let routing = one.map(routing);
        let report = Some(step.report());
        let output = f32_bytes(step.output.as_slice().unwrap_or_default());
        self.stack.recycle(step.output);
        Ok(v1::ForwardReply {
            output,
            routing,
            report,
        })
    }

    async fn traffic(&self, _request: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        let links = self
            .stack
            .traffic()
            .await
            .map_err(|error| error.to_remote())?;
        Ok(v1::TrafficReply { links })
    }
}

impl Coordinator {
    /// What `Cluster` answers: the layer, the endpoints and the options of every step.
    pub fn cluster(&self) -> v1::ClusterReply {
        cluster_of(&self.config, &self.decider, self.endpoints.clone())
    }
}

impl Rehearsal {
    /// What `Cluster` would answer.
    pub fn cluster(&self) -> v1::ClusterReply {
        cluster_of(&self.config, &self.decider, endpoints(&self.config))
    }
}

fn cluster_of(
    config: &CoordinatorConfig,
    decider: &Decider,
    endpoints: Vec<v1::Endpoint>,
) -> v1::ClusterReply {
    let spec = config.source.spec();
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let gate = decider.gate.config();
    v1::ClusterReply {
        endpoints,
        exchange: exchange_to_wire(config.exchange).into(),
        model: Some(config.model.clone()),
        placement_digest: config.placement.digest(),
        wire_dtype: format_to_wire(config.wire_dtype).into(),
        numerics: NUMERICS.to_owned(),
        hidden: narrow(spec.hidden),
        experts: narrow(spec.experts),
        top_k: narrow(spec.top_k),
        layers: 1,
        family: spec.family.clone(),
        capacity_factor: config.capacity.factor.unwrap_or(0.0),
        overflow: config.capacity.overflow.to_string(),
        deadline_us: u64::try_from(config.deadline.as_micros()).unwrap_or(u64::MAX),
        on_loss: match config.on_loss {
            OnLoss::Fail => v1::OnLoss::Fail,
            OnLoss::Drop => v1::OnLoss::Drop,
        }
        .into(),
        gate: gate.kind.to_string(),
        free_experts: narrow(gate.free.len()),
        groups: config.groups.clone(),
    }
}

fn hidden_states(request: &v1::ForwardRequest) -> Result<ArcArray2<f32>, RemoteError> {
    let (tokens, hidden) = (request.tokens as usize, request.hidden as usize);
    let bytes = &request.hidden_states;
    let expected = tokens.checked_mul(hidden).and_then(|n| n.checked_mul(4));
    if expected != Some(bytes.len()) {
        return Err(RemoteError::invalid(format!(
            "`hidden_states` holds {} bytes, expected {tokens} tokens of {hidden} f32",
            bytes.len()
        )));
    }
    let values = bytes
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    ArcArray2::from_shape_vec((tokens, hidden), values)
        .map_err(|error| RemoteError::invalid(format!("`hidden_states`: {error}")))
}

fn f32_bytes(values: &[f32]) -> Bytes {
    let mut bytes = vec![0; values.len() * 4];
    expertmesh_kernels::encode_row(Format::F32, values, &mut bytes);
    bytes.into()
}

fn words(values: &[u32]) -> Bytes {
    values.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn routing(step: &StepOutput) -> v1::Routing {
    let (route, mix) = (&step.route, step.mix.as_ref());
    let fates = &step.admission.fates;
    let executed = fates.iter().enumerate().flat_map(|(choice, fate)| {
        let computed = matches!(fate, Fate::Computed | Fate::Rerouted);
        let expert = if computed {
            step.admission.executed(route, choice)
        } else {
            u32::MAX
        };
        expert.to_le_bytes()
    });
    v1::Routing {
        router_logits: f32_bytes(&route.logits),
        chosen_expert: words(&route.experts),
        executed_expert: executed.collect(),
        gate_weight: f32_bytes(&route.weights),
        fate: fates.iter().map(|fate| *fate as u8).collect(),
        offsets: words(route.offsets.as_deref().unwrap_or_default()),
        combine_weight: match &step.admission.weights {
            Some(weights) => f32_bytes(weights),
            None => Bytes::new(),
        },
        slot_dispatch: mix.map_or_else(Bytes::new, |mix| f32_bytes(&mix.dispatch)),
        slot_combine: mix.map_or_else(Bytes::new, |mix| f32_bytes(&mix.combine)),
    }
}

pub(crate) fn report(step: &StepOutput) -> v1::StepReport {
    let record = &step.record;
    let phases = Phase::ALL
        .iter()
        .map(|phase| (phase.name().to_owned(), record.phases_ns[phase.index()]));
    let links = step
        .traffic
        .ledger
        .links()
        .map(|(source, destination, cell)| v1::LinkBytes {
            source,
            destination,
            messages: cell.messages,
            rows: cell.rows,
            bytes: cell.bytes,
        });
    v1::StepReport {
        step: step.step,
        step_ns: record.step_ns,
        exchange_ns: record.exchange_ns,
        dispatch_ns: record.dispatch_ns,
        combine_ns: record.combine_ns,
        phases_ns: phases.collect(),
        longest_experts_ns: record.longest_experts_ns,
        clock_error_ns: record.clock_error_ns,
        traffic: links.collect(),
        local_bytes: record.local_bytes,
        saved_by_dedup_bytes: record.saved_by_dedup_bytes,
        overflow: Some(overflow(step)),
        critical_endpoint: step.traffic.critical_endpoint,
        choices_per_endpoint: record.choices_per_worker.clone(),
        lanes: step.lanes.iter().map(lane).collect(),
    }
}

fn lane(lane: &Lane) -> v1::Lane {
    v1::Lane {
        endpoint: lane.endpoint,
        phase: lane.phase.name().to_owned(),
        begin_ns: lane.begin_ns,
        end_ns: lane.end_ns,
        peer: lane.peer,
        bytes: lane.bytes,
    }
}

fn overflow(step: &StepOutput) -> v1::Overflow {
    let ledger = &step.overflow;
    let per_expert = ledger.per_expert.iter().map(|count| v1::ExpertOverflow {
        assigned: count.assigned,
        computed: count.computed,
        rerouted: count.rerouted,
        dropped: count.dropped,
        skipped: count.skipped,
        lost: count.lost,
        assigned_weight: count.assigned_weight,
        lost_weight: count.dropped_weight + count.lost_weight,
        received: count.received,
    });
    v1::Overflow {
        per_expert: per_expert.collect(),
        capacity: ledger.capacity.unwrap_or(0),
        capacity_factor: ledger.capacity_factor.unwrap_or(0.0),
        smallest_sufficient_capacity_factor: ledger.smallest_sufficient_capacity_factor,
        tokens_without_expert: ledger.tokens_without_expert,
        spilled: ledger.spilled,
        waves: u64::from(ledger.waves),
        replays: ledger.replays,
        dropped_by_slot: ledger.dropped_by_slot.clone(),
    }
}

/// The record that a [`v1::StepReport`] of a cluster with `endpoints` endpoints carries.
pub fn to_record(report: &v1::StepReport, endpoints: usize) -> StepRecord {
    let mut record = StepRecord {
        step_ns: report.step_ns,
        exchange_ns: report.exchange_ns,
        dispatch_ns: report.dispatch_ns,
        combine_ns: report.combine_ns,
        longest_experts_ns: report.longest_experts_ns,
        clock_error_ns: report.clock_error_ns,
        local_bytes: report.local_bytes,
        saved_by_dedup_bytes: report.saved_by_dedup_bytes,
        matrix: vec![vec![0; endpoints]; endpoints],
        choices_per_worker: report.choices_per_endpoint.clone(),
        ..StepRecord::default()
    };
    for phase in Phase::ALL {
        let ns = report.phases_ns.get(phase.name()).copied().unwrap_or(0);
        record.phases_ns[phase.index()] = ns;
    }
    for link in &report.traffic {
        let row = record.matrix.get_mut(link.source as usize);
        if let Some(cell) = row.and_then(|row| row.get_mut(link.destination as usize)) {
            *cell += link.bytes;
            record.payload_bytes += link.bytes;
            record.messages += link.messages;
        }
    }
    record
}

/// The lanes that a [`v1::StepReport`] carries; phases that this build does not know are left out.
pub fn to_lanes(report: &v1::StepReport) -> Vec<Lane> {
    let lanes = report.lanes.iter().filter_map(|lane| {
        Some(Lane {
            endpoint: lane.endpoint,
            phase: lane.phase.parse().ok()?,
            step: report.step,
            begin_ns: lane.begin_ns,
            end_ns: lane.end_ns,
            peer: lane.peer,
            bytes: lane.bytes,
            predicted: false,
        })
    });
    lanes.collect()
}
