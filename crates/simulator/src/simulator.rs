//! A cluster that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use expertmesh_exchange::{ExchangeKind, Groups, HostTable, Limits};
use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, Route};
use expertmesh_topology::{Fabric, Topology};

use crate::config::{SimConfig, SimRun, SimStep, StepInput};
use crate::costs::{Costs, Line, float, whole};
use crate::error::SimError;
use crate::experts::{NetworkCost, Shared};
use crate::run::World;
use crate::standing::Standing;

/// Machines, links, costs and a layer: steps run on them under an event clock.
///
/// A worker that was lost in one run stays lost in the next, as for a real coordinator, and jitter
/// goes on where it was.
#[derive(Debug)]
pub struct Simulator {
    fabric: Fabric,
    costs: Costs,
    config: SimConfig,
    table: HostTable,
    names: Arc<[String]>,
    /// Routed and shared experts, by device of the topology.
    experts: Vec<NetworkCost>,
    shared: Vec<Option<NetworkCost>>,
    /// The expert of a worker that holds one alone, by endpoint id.
    only: Vec<Option<u32>>,
    standing: Standing,
    /// Taking messages in and handing them over takes no time, and no core.
    is_instant: bool,
}

// === impl Simulator ===

impl Simulator {
    /// A cluster of as many workers as the placement has, on the hosts of `topology`.
    ///
    /// # Errors
    /// [`SimError`]: a topology without room for them, costs that are no times, or an option that
    /// contradicts another.
    pub fn new(topology: &Topology, costs: Costs, config: SimConfig) -> Result<Self, SimError> {
        let fabric = Fabric::new(topology, config.placement.workers())?;
        config.validate(fabric.endpoints())?;
        costs.validate()?;
        let threads = if costs.on_cores { config.threads } else { 1 };
        let config = SimConfig { threads, ..config };
        let network = |shape, device| NetworkCost::new(&costs.experts, shape, device);
        let devices = &topology.devices;
        let experts = devices.iter().map(|on| network(config.layer.expert, on));
        let shared = devices
            .iter()
            .map(|on| config.layer.shared.map(|shape| network(shape, on)));
        let workers = (1..fabric.endpoints()).map(|id| format!("worker-{}", id - 1));
        let names = std::iter::once("coordinator".to_owned()).chain(workers);
        Ok(Self {
            experts: experts.collect(),
            shared: shared.collect(),
            names: names.collect(),
            table: table(&config, &fabric)?,
            standing: Standing::default(),
            only: only(&config.placement),
            is_instant: costs.read == Line::default()
                && costs.write == Line::default()
                && costs.wake_ns == 0.0
                && !costs.on_cores,
            fabric,
            costs,
            config,
        })
    }

    /// One step of its own.
    ///
    /// # Errors
    /// [`SimError::Step`] if it fails as it would for real.
    pub fn step(&mut self, route: &Route, admission: &Admission) -> Result<SimStep, SimError> {
        let mut run = self.run(&[StepInput::at(0, route, admission)])?;
        run.steps
            .pop()
            .ok_or(SimError::Stuck { step: 0, now_ns: 0 })
    }

    /// Steps that are under way at the same time, and everything that is told of them. They share
    /// ports, cores and the queues of experts.
    ///
    /// # Errors
    /// [`SimError::Step`] for the first of them that fails; [`SimError::Field`] for one that follows
    /// what it cannot.
    pub fn run(&mut self, inputs: &[StepInput<'_>]) -> Result<SimRun, SimError> {
        let mut followed = BTreeSet::new();
        for (at, input) in inputs.iter().enumerate() {
            if let Some(before) = input.follows
                && (before >= at || !followed.insert(before))
            {
                let expected = format!("a step before {at}, which no other follows");
                return Err(SimError::field("follows", before, expected));
            }
        }
        let standing = std::mem::take(&mut self.standing);
        let ended = World::new(self, inputs, standing).finish();
        self.standing = ended.standing;
        ended.outcome
    }

    /// Machines and links.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// What work takes.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Layer, placement and options.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    /// Names of the endpoints by id.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// What runs so far have left to the next one.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Of what a batch has, as much as one place gates and plans: all of it at the coordinator, or the
    /// share of a home, where these hold their tokens and do so for themselves.
    pub(crate) fn at_each(&self, all: u64) -> u64 {
        let homes = self.fabric.endpoints() as u64 - 1;
        match self.config.resident {
            true => all.div_ceil(homes),
            false => all,
        }
    }

    pub(crate) fn table(&self) -> &HostTable {
        &self.table
    }

    pub(crate) fn is_instant(&self) -> bool {
        self.is_instant
    }

    /// The expert of `endpoint`, if it holds one alone: whose rows its chunks are is known then.
    #[inline]
    pub(crate) fn only_expert(&self, endpoint: u32) -> Option<u32> {
        self.only[endpoint as usize]
    }

    pub(crate) fn limits(&self) -> Limits {
        self.config.layer.limits(self.config.chunk_bytes)
    }

    pub(crate) fn experts_on(&self, endpoint: u32) -> &NetworkCost {
        &self.experts[self.device(endpoint)]
    }

    /// What a home computes itself: its shared expert for all of its tokens, and its choices of
    /// free experts, which are copies.
    pub(crate) fn own_cost(&self, endpoint: u32, tokens: usize, free: usize) -> Shared {
        let rows = u32::try_from(tokens).unwrap_or(u32::MAX);
        let shared = self.shared[self.device(endpoint)].as_ref();
        let mut cost = shared.map_or(Shared::default(), |one| one.of([rows].into_iter()));
        let layer = &self.config.layer;
        let copied = (tokens + free) * layer.hidden * layer.wire.bytes();
        cost.total_ns += whole(float(copied as u64) * self.costs.experts.byte_ns);
        cost
    }

    fn device(&self, endpoint: u32) -> usize {
        let host = self.fabric.host_of(endpoint) as usize;
        self.fabric.hosts()[host].device as usize
    }
}

/// Who executes what and, in `hierarchical`, who stands together: the workers of a host, unless the
/// configuration says otherwise.
fn table(config: &SimConfig, fabric: &Fabric) -> Result<HostTable, SimError> {
    let table = HostTable::new(&config.placement).with_free(config.layer.free_experts);
    if config.exchange != ExchangeKind::Hierarchical {
        return Ok(table);
    }
    let groups = match config.groups.is_empty() {
        true => fabric.groups_of_workers(),
        false => config.groups.clone(),
    };
    let groups = Groups::new(groups);
    let groups = groups.map_err(|held| SimError::field("groups", held, "groups counted from 0"))?;
    Ok(table.with_groups(groups))
}

fn only(placement: &Placement) -> Vec<Option<u32>> {
    let mut held = vec![(0, None); placement.workers() + 1];
    for (expert, workers) in (0..).zip(placement.entries()) {
        for worker in workers {
            let (experts, last) = &mut held[*worker as usize + 1];
            *experts += 1;
            *last = Some(expert);
        }
    }
    let alone = |(experts, last): (u32, Option<u32>)| last.filter(|_| experts == 1);
    held.into_iter().map(alone).collect()
}
