//! `--exchange auto`: the exchange whose predicted mean step is the least.
//!
//! [`settle`] chooses for the flags of `simulate`; [`for_cluster`] for a command that starts a cluster,
//! as `simulate` would with its flags. Every candidate is simulated for a few steps of one layer.

use std::num::NonZeroUsize;
use std::path::Path;

use expertmesh_bench::calibrate::Profile;
use expertmesh_bench::simulate::SimLoad;
use expertmesh_exchange::{ExchangeKind, Groups};
use expertmesh_telemetry::{ExchangeKind as Named, Run, Source};
use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::LinkOptions;

use crate::args::auto::AutoArgs;
use crate::args::force::ForceArgs;
use crate::args::load::LoadArgs;
use crate::args::model::ModelArgs;
use crate::args::process::{ProcessArgs, WORKERS};
use crate::args::step::StepArgs;
use crate::commands::simulate::choice::{Choice, least};
use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::plan::{Planned, plan_on};
use crate::commands::simulate::{SimulateArgs, simulate};
use crate::error::Failure;

/// Steps that an exchange is predicted from.
const STEPS: u64 = 8;
/// Estimated time of a prediction, ns, beyond which it has fewer steps, down to one.
const LONG_NS: usize = 100_000_000;

/// An exchange that the flags allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) exchange: ExchangeKind,
    /// Workers of a group; `None`: none, or in `simulate` those of a host.
    pub(super) group_size: Option<NonZeroUsize>,
}

/// A candidate, and the reason against it if there is one.
pub(super) type Considered = (Candidate, Result<(), String>);

/// What the simulation of a candidate gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predicted {
    pub(super) mean_us: f64,
    pub(super) steps: u64,
    pub(super) source: Source,
}

/// What a command that starts a cluster was told.
pub(crate) struct Asked<'a> {
    pub(crate) auto: &'a AutoArgs,
    /// Topology whose links are emulated, if any.
    pub(crate) topology: Option<&'a str>,
    pub(crate) processes: &'a ProcessArgs,
    pub(crate) model: &'a ModelArgs,
    pub(crate) step: &'a StepArgs,
    pub(crate) force: &'a ForceArgs,
    /// What is driven, one after another: the mean over all of them counts.
    pub(crate) loads: Vec<LoadArgs>,
}

/// The flags with an exchange that has a name, and why it is that one if it was chosen.
///
/// # Errors
/// [`Failure`] of a prediction, if all of them fail.
pub(super) fn settle(
    args: &SimulateArgs,
    machines: &Machines,
) -> Result<(SimulateArgs, Option<Choice>), Failure> {
    if !args.step.is_auto() {
        return Ok((args.clone(), None));
    }
    let candidates = candidates(args, machines, |_| Ok(None))?;
    let choice = least(candidates, |one| predict(args, *one, machines))?;
    Ok((with(args, choice.taken), Some(choice.by(machines))))
}

/// The step flags that processes of a cluster on this machine are started with, and why the exchange
/// is that one if it was chosen.
///
/// # Errors
/// As [`settle`]; [`Failure::Input`] for a profile that cannot be read or has no use.
pub(crate) fn for_cluster(asked: &Asked<'_>) -> Result<(StepArgs, Option<Choice>), Failure> {
    asked.auto.check(asked.step)?;
    if !asked.step.is_auto() {
        return Ok((asked.grouped()?, None));
    }
    let topology = Topology::read(asked.topology.unwrap_or("loopback"))?;
    let machines = match &asked.auto.profile {
        Some(file) => Machines::calibrated(&Profile::read(Path::new(file))?, topology),
        None => Machines::here(topology),
    };
    let flags: Vec<SimulateArgs> = asked.loads.iter().map(|load| asked.flags(load)).collect();
    let first = flags.first().cloned().unwrap_or_default();
    let candidates = candidates(&first, &machines, size_of_hosts)?;
    let mean = |one: &Candidate| {
        let all = flags.iter().map(|args| predict(args, *one, &machines));
        mean(&all.collect::<Result<Vec<Predicted>, Failure>>()?)
    };
    let choice = least(candidates, mean)?.by(&machines);
    choice.tell();
    Ok((with(&first, choice.taken).step, Some(choice)))
}

/// One prediction for several loads: the mean of their steps, the fewest that one was taken over, and
/// extrapolated if one is.
fn mean(all: &[Predicted]) -> Result<Predicted, Failure> {
    let extrapolated = all.iter().find(|one| one.source == Source::Extrapolated);
    let one = extrapolated.or(all.first());
    let one = one.ok_or_else(|| Failure::input("--exchange auto has no load to predict"))?;
    let fewest = all.iter().map(|one| one.steps).min();
    Ok(Predicted {
        mean_us: all.iter().map(|one| one.mean_us).sum::<f64>() / all.len() as f64,
        steps: fewest.unwrap_or(one.steps),
        source: one.source,
    })
}

/// The exchanges that the flags allow, in the order in which ties are broken, each with the reason
/// if it is to be passed over. `size` says how many workers a host has, where the command must know.
pub(super) fn candidates(
    args: &SimulateArgs,
    machines: &Machines,
    size: fn(&[u32]) -> Result<Option<NonZeroUsize>, String>,
) -> Result<Vec<Considered>, Failure> {
    let workers = args.processes.workers.unwrap_or(WORKERS).get();
    let fabric = Fabric::new(&machines.topology, workers)?;
    let plain = |exchange| Candidate {
        exchange,
        group_size: None,
    };
    let star = match machines.costs.on_cores && !args.resident {
        true => Ok(()),
        false => Err(
            "its tokens are at the coordinator, and those of the others at home already".to_owned(),
        ),
    };
    let mut all = vec![
        (plain(ExchangeKind::Star), star),
        (plain(ExchangeKind::AllToAll), Ok(())),
    ];
    let grouped = plain(ExchangeKind::Hierarchical);
    let hosts = fabric.groups_of_workers();
    if let Some(size) = args.step.group_size {
        let group_size = Some(size);
        all.push((
            Candidate {
                group_size,
                ..grouped
            },
            Ok(()),
        ));
    } else if are_groups(&hosts) {
        all.push(match size(&hosts) {
            Ok(group_size) => (
                Candidate {
                    group_size,
                    ..grouped
                },
                Ok(()),
            ),
            Err(reason) => (grouped, Err(reason)),
        });
    }
    Ok(all)
}

/// Whether hosts group the workers: several of them, one with more than one worker.
fn are_groups(hosts: &[u32]) -> bool {
    let mut distinct = hosts.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct.len() > 1 && distinct.len() < hosts.len()
}

/// Workers of a host, where `--group-size` can say who stands together.
pub(super) fn size_of_hosts(hosts: &[u32]) -> Result<Option<NonZeroUsize>, String> {
    let first = hosts.iter().take_while(|host| **host == hosts[0]).count();
    let asked = Groups::contiguous(hosts.len(), first);
    let pairs = hosts.windows(2).zip(asked.windows(2));
    let mut ends = hosts.to_vec();
    ends.dedup();
    let runs = ends.len();
    ends.sort_unstable();
    ends.dedup();
    // Who follows whom in a group is the same, and no host comes back.
    match pairs.clone().all(|(a, b)| (a[0] == a[1]) == (b[0] == b[1])) && runs == ends.len() {
        true => Ok(NonZeroUsize::new(first)),
        false => Err(
            "the hosts of the topology do not hold equally many workers in order; --group-size N \
             makes groups"
                .to_owned(),
        ),
    }
}

/// The flags with the exchange of `candidate`.
pub(super) fn with(args: &SimulateArgs, candidate: Candidate) -> SimulateArgs {
    let mut one = args.clone();
    one.step.exchange = Some(candidate.exchange.into());
    one.step.group_size = candidate.group_size;
    one
}

/// Simulates a few steps of one layer: the others are like it.
fn predict(
    args: &SimulateArgs,
    candidate: Candidate,
    machines: &Machines,
) -> Result<Predicted, Failure> {
    let mut one = with(args, candidate);
    one.layers = Some(std::num::NonZeroU32::MIN);
    one.event_log = None;
    let mut planned = plan_on(&one, 0, machines.clone())?;
    planned.steps = few_steps(&planned);
    let run = simulate(&mut planned)?.0.run;
    let limit = LinkOptions::default().max_message_bytes as u64;
    match longest_shard(&run, planned.resident) {
        Some(longest) if longest > limit => Err(Failure::input(format!(
            "a shard takes {longest} bytes, expected at most the {limit} of a message"
        ))),
        _ => Ok(Predicted {
            mean_us: run.latency_us.step.mean,
            steps: planned.steps,
            source: planned.simulation.source,
        }),
    }
}

/// As many steps as a prediction has, whatever the run has, and fewer where they are long.
fn few_steps(planned: &Planned) -> u64 {
    let shape = planned.simulation.load.shape();
    let values = match planned.simulation.load {
        SimLoad::Rows(_) => shape.tokens.saturating_mul(shape.hidden),
        SimLoad::Scores(_) => 0,
    };
    // A microsecond for each choice and message, and rows that are drawn and multiplied with a gate.
    let messages = planned.workers.saturating_mul(planned.workers);
    let pieces = shape.tokens.saturating_mul(shape.top_k);
    let step_ns = (pieces.saturating_add(messages))
        .saturating_mul(1000)
        .saturating_add(values.saturating_mul(20 + shape.experts / 10));
    let affordable = (LONG_NS / step_ns.max(1)) as u64;
    affordable
        .clamp(1, STEPS)
        .max(planned.simulation.overlap as u64)
}

/// Bytes of the longest message between the coordinator and a home, which nothing cuts; mean over
/// steps, whose shards are alike. `None` where tokens do not travel whole.
pub(super) fn longest_shard(run: &Run, resident: bool) -> Option<u64> {
    let is_whole = run.identity.exchange != Named::Star && !resident;
    let matrix = &run.communication.matrix_bytes;
    let there = matrix.first().into_iter().flatten();
    let back = matrix.iter().filter_map(|row| row.first());
    let longest = there.chain(back).max().copied()?;
    is_whole.then(|| longest / run.load.steps.max(1))
}

// === impl Asked ===

impl Asked<'_> {
    /// The step flags with the groups that the hosts of a topology make, where it is asked for
    /// groups and not which.
    fn grouped(&self) -> Result<StepArgs, Failure> {
        let hierarchical = self.step.exchange == Some(ExchangeKind::Hierarchical.into());
        let (true, None, Some(topology)) = (hierarchical, self.step.group_size, self.topology)
        else {
            return Ok(self.step.clone());
        };
        let workers = self.processes.workers.unwrap_or(WORKERS).get();
        let fabric = Fabric::new(&Topology::read(topology)?, workers)?;
        let size = size_of_hosts(&fabric.groups_of_workers());
        let size = size.map_err(|why| Failure::input(format!("--exchange hierarchical: {why}")))?;
        Ok(StepArgs {
            group_size: size,
            ..self.step.clone()
        })
    }

    /// What `simulate` would be told.
    fn flags(&self, load: &LoadArgs) -> SimulateArgs {
        SimulateArgs {
            topology: self.topology.map(str::to_owned),
            processes: self.processes.clone(),
            model: self.model.clone(),
            step: self.step.clone(),
            force: self.force.clone(),
            load: LoadArgs {
                warmup: None,
                ..load.clone()
            },
            ..SimulateArgs::default()
        }
    }
}
