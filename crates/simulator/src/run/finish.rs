//! What a run tells at its end.

use expertmesh_exchange::{COORDINATOR, ExchangeKind, LossCause, ShardMoments, TrafficLedger, Way};
use expertmesh_routing::Fate;
use expertmesh_telemetry::{Lane, StepRecord};

use crate::config::{EndpointUse, SimRun, SimStep};
use crate::error::SimError;
use crate::log::Log;
use crate::run::World;
use crate::run::front::Front;
use crate::simulator::Simulator;

// === impl World ===

impl World<'_> {
    /// The steps' records; an error if one failed.
    pub(super) fn told(&mut self) -> Result<SimRun, SimError> {
        let mut lanes = vec![Vec::new(); self.steps.len()];
        for lane in std::mem::take(&mut self.lanes) {
            if let Some(of_step) = usize::try_from(lane.step)
                .ok()
                .and_then(|step| lanes.get_mut(step))
            {
                of_step.push(lane);
            }
        }
        let mut steps = Vec::with_capacity(self.steps.len());
        for (at, lanes) in lanes.into_iter().enumerate() {
            steps.push(self.step_told(at, lanes)?);
        }
        let threads = 1 + self.sim.config().threads;
        let mut endpoints = std::mem::take(&mut self.uses);
        for (at, one) in endpoints.iter_mut().enumerate() {
            self.add_threads(one, at * threads, threads);
        }
        let (digest, log) = std::mem::replace(&mut self.log, Log::new(false)).finish();
        Ok(SimRun {
            steps,
            endpoints,
            ports: self.net.take_uses(),
            events: self.events,
            digest,
            log,
        })
    }

    fn add_threads(&self, one: &mut EndpointUse, first: usize, threads: usize) {
        for thread in first..first + threads {
            let (busy_ns, waited_ns) = self.cpus.sums(super::count(thread));
            match thread == first {
                true => one.io_ns += busy_ns,
                false => one.compute_ns += busy_ns,
            }
            one.waited_ns += waited_ns;
        }
    }

    /// A step is over: workers that it called late are down until they are heard of again.
    pub(super) fn note_late(&mut self, step: u32) {
        let front = &self.steps[step as usize];
        let mut late: Vec<(u32, LossCause)> = Vec::new();
        if let Some(conductor) = &front.conductor {
            late.extend(conductor.late());
        }
        if self.sim.config().exchange == ExchangeKind::Star && !front.plan.shards.is_empty() {
            let home = self.homes[front.first_home as usize].run.as_ref();
            late.extend(home.into_iter().flat_map(|run| run.home.late()));
        }
        for (endpoint, cause) in late {
            self.down[endpoint as usize].get_or_insert(cause);
        }
    }

    fn step_told(&mut self, at: usize, lanes: Vec<Lane>) -> Result<SimStep, SimError> {
        let config = self.sim.config();
        let homes = {
            let front = &self.steps[at];
            let first = front.first_home as usize;
            first..first + front.plan.shards.len()
        };
        let front = &mut self.steps[at];
        if let Some(Err(error)) = front.outcome.take() {
            return Err(error.into());
        }
        let slots = &mut self.homes[homes];
        let mut lost: Vec<(u32, LossCause)> = Vec::new();
        let way = match config.exchange {
            ExchangeKind::Star => {
                let run = slots.first_mut().and_then(|slot| slot.run.take());
                let line = run.map(|run| {
                    lost.extend(run.home.late());
                    run.moments.timeline(front.at.done, front.at.shared)
                });
                Way::of_star(line.unwrap_or_default(), &front.at)
            }
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => {
                let moments = slots.iter().filter_map(|slot| {
                    Some(ShardMoments {
                        packed: slot.packed_ns,
                        received: slot.received_ns,
                        left: slot.left_ns,
                        arrived: slot.arrived_ns?,
                        line: slot.line,
                        clock_error: 0,
                    })
                });
                Way::of_shards(moments, &front.at)
            }
        };
        if let Some(conductor) = &front.conductor {
            lost.extend(conductor.late());
        }
        for slot in slots.iter_mut() {
            lost.append(&mut slot.late);
        }
        // The last of equals, as for the way.
        let came = slots.iter().filter(|slot| slot.arrived_ns.is_some());
        let last_home = came.max_by_key(|slot| slot.arrived_ns);
        let critical_home = last_home.map_or(COORDINATOR, |slot| slot.endpoint);
        lost.sort_by_key(|(endpoint, _)| *endpoint);
        lost.dedup_by_key(|(endpoint, _)| *endpoint);
        for slot in slots.iter() {
            let shard = &front.plan.shards[slot.shard as usize];
            let came = slot.endpoint == COORDINATOR || slot.arrived_ns.is_some();
            match came {
                true => slot.lost.iter().for_each(|at| {
                    front.fates[shard.kept.origin[*at as usize] as usize] = Fate::Lost;
                }),
                false => shard.kept.origin.iter().for_each(|at| {
                    front.fates[*at as usize] = Fate::Lost;
                }),
            }
        }
        let record = record(front, &way, self.sim);
        Ok(SimStep {
            record,
            left_ns: front.left_ns,
            ledger: std::mem::replace(&mut front.plan.ledger, TrafficLedger::new(0)),
            carried: std::mem::replace(&mut front.carried, TrafficLedger::new(0)),
            critical_endpoint: way.critical,
            critical_home,
            fates: std::mem::take(&mut front.fates),
            lost,
            lanes,
        })
    }
}

fn record(front: &Front<'_>, way: &Way, sim: &Simulator) -> StepRecord {
    let input = front.input;
    let executed = (sim.table()).executed(input.route, input.admission, &front.fates);
    // The plan has shards to send; homes that hold their tokens are sent none.
    let ledger = match sim.config().resident {
        true => &front.carried,
        false => &front.plan.ledger,
    };
    way.record(&front.at, ledger, executed)
}
