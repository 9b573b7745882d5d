//! The same step with one thing changed at a time.

use std::fmt::Write as _;

use expertmesh_bench::simulate::Simulated;
use expertmesh_bench::workload::Pattern;
use expertmesh_exchange::ExchangeKind;
use expertmesh_report::human;
use expertmesh_simulator::Costs;
use expertmesh_topology::Scale;

use crate::args::force::ForceArgs;
use crate::args::load::LoadArgs;
use crate::commands::simulate::auto::{candidates, with};
use crate::commands::simulate::load::Scores;
use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::plan::{Planned, plan_on};
use crate::commands::simulate::{SimulateArgs, simulate};
use crate::error::Failure;

/// Steps of a simulation that only a comparison needs.
const FEW_STEPS: u64 = 5;

/// Something that is otherwise.
struct Change {
    name: String,
    args: SimulateArgs,
    machines: Machines,
}

/// The mean step under every change, and by how much that is more or less.
///
/// # Errors
/// Those of the simulation that nothing is changed in.
pub(super) fn what_if(planned: &Planned, simulated: &Simulated) -> Result<String, Failure> {
    let mut page = String::from("\nWhat would change it (mean step, one change at a time)\n");
    let base = again(planned, &planned.args, planned.machines.clone())?;
    for Change {
        name,
        args,
        machines,
    } in changes(planned, simulated)?
    {
        let _ = match again(planned, &args, machines) {
            Ok(mean) => {
                let change = 100.0 * (mean / base - 1.0);
                let mean = human::duration(mean);
                writeln!(page, "  {name:<24}  {mean:>10}  {change:>+6.1} %")
            }
            Err(reason) => writeln!(page, "  {name:<24}  cannot be: {}", reason.words()),
        };
    }
    Ok(page)
}

fn changes(planned: &Planned, simulated: &Simulated) -> Result<Vec<Change>, Failure> {
    let (args, machines) = (&planned.args, &planned.machines);
    let scaled = |name: &str, by| Change {
        name: name.to_owned(),
        args: args.clone(),
        machines: Machines {
            topology: machines.topology.scaled(by),
            ..machines.clone()
        },
    };
    let same = Scale::default();
    let mut all = vec![
        scaled("links twice as fast", Scale { rates: 2.0, ..same }),
        scaled(
            "half the latency",
            Scale {
                latencies: 0.5,
                ..same
            },
        ),
    ];
    let mut faster = scaled(
        "experts twice as fast",
        Scale {
            devices: 2.0,
            ..same
        },
    );
    faster.machines.costs = experts(&machines.costs, 0.5);
    all.push(faster);
    let mut other = |name: String, args: SimulateArgs| {
        all.push(Change {
            name,
            args,
            machines: machines.clone(),
        });
    };
    if let Some(even) = even(planned) {
        other("even load".to_owned(), even);
    }
    let now = simulated.run.identity.exchange.to_string();
    for (candidate, _) in candidates(args, machines, |_| Ok(None))? {
        let kind = candidate.exchange;
        let is_home = planned.resident && kind == ExchangeKind::Star;
        if kind.to_string() != now && !is_home {
            other(format!("exchange {kind}"), with(args, candidate));
        }
    }
    Ok(all)
}

/// The flags with a load that falls on all experts alike, where it does not already.
fn even(planned: &Planned) -> Option<SimulateArgs> {
    let (args, forced) = (&planned.args, planned.args.force.kind().is_some());
    if planned.pattern == Some(Pattern::Balanced) && !forced {
        return None;
    }
    // Rows that a gate spreads evenly can be made of a synthetic one; other scores are drawn.
    let is_synthetic = args.model.model.is_none();
    let scores = match is_synthetic && planned.scores == Scores::Rows {
        true => Scores::Rows,
        false => Scores::Drawn,
    };
    Some(SimulateArgs {
        scores: Some(scores),
        force: ForceArgs::default(),
        load: LoadArgs {
            tokens: std::num::NonZeroUsize::new(planned.shape.tokens as usize),
            workload: Some(Pattern::Balanced),
            steps: args.load.steps,
            ..LoadArgs::default()
        },
        ..args.clone()
    })
}

/// Mean step of a few steps, µs. What lies between layers stays: a change is about the layers.
fn again(planned: &Planned, args: &SimulateArgs, machines: Machines) -> Result<f64, Failure> {
    let mut args = args.clone();
    args.event_log = None;
    let mut other = plan_on(&args, 0, machines)?;
    let overlap = other.simulation.overlap as u64;
    other.steps = planned.steps.min(FEW_STEPS.max(overlap));
    other.simulation.between_ns = planned.simulation.between_ns;
    let (simulated, _) = simulate(&mut other)?;
    Ok(simulated.run.latency_us.step.mean)
}

/// The same costs with measured experts that take `factor` times as long, alone and beside others.
fn experts(costs: &Costs, factor: f64) -> Costs {
    let mut other = costs.clone();
    for table in &mut other.experts.tables {
        for (_, ns) in table.points.iter_mut().chain(&mut table.beside) {
            *ns *= factor;
        }
    }
    other
}
