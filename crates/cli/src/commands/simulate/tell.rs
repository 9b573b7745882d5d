//! What a simulation says, behind the report.

use std::fmt::Write as _;

use expertmesh_bench::simulate::{Answers, Simulated};
use expertmesh_bench::workload::Pattern;
use expertmesh_exchange::ExchangeKind;
use expertmesh_report::human;
use expertmesh_simulator::Costs;
use expertmesh_topology::{PortId, Topology};

use crate::commands::simulate::machines::Machines;
use crate::commands::simulate::plan::{Planned, Scores, plan_on};
use crate::commands::simulate::{SimulateArgs, simulate};
use crate::error::Failure;

/// Columns of the name before a figure, as in the report.
const LABEL: usize = 16;
/// Steps of a simulation that only a comparison needs.
const FEW_STEPS: u64 = 5;

/// Machines, costs, answers and speed.
pub(super) fn page(planned: &Planned, simulated: &Simulated, elapsed: f64) -> String {
    let mut page = String::from("\nSimulation\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(page, "  {name:<LABEL$}  {value}");
    };
    let Some(first) = planned.simulation.layers.first() else {
        return page;
    };
    let fabric = first.simulator.fabric();
    let hosts = fabric
        .workers_by_host()
        .iter()
        .filter(|host| !host.is_empty())
        .count();
    let topology = &planned.machines.topology.name;
    line(
        "machines",
        &format!(
            "{topology}: {} workers on {hosts} host(s){}",
            planned.workers,
            planned.machines.place()
        ),
    );
    let band = match planned.machines.trust.as_ref().map(|trust| trust.error) {
        Some(error) => format!(
            ", 90 % of the points that it was held against within {:.0} %",
            100.0 * error
        ),
        None => String::new(),
    };
    let costs = &planned.machines.costs;
    line(
        "costs",
        &format!("{} ({}{band})", costs.name, planned.simulation.source),
    );
    if let Some(why) = planned
        .machines
        .trust
        .as_ref()
        .and_then(|trust| trust.outside.as_ref())
    {
        line("extrapolated", why);
    }
    let scores = match planned.scores {
        Scores::Rows => "hidden states times gate, as in a real run of this seed",
        Scores::Drawn => "drawn from the workload, without hidden states",
    };
    line("scores", scores);
    if planned.resident {
        line(
            "tokens",
            "at their homes from the beginning: no shard is sent, no output returns",
        );
    }
    if planned.layers > 1 {
        let between = first.between_ns as f64 / 1e3;
        let text = format!(
            "{}, {} between two of them",
            planned.layers,
            human::duration(between)
        );
        line("layers", &text);
    }
    let placement = &first.rehearsal.config().placement;
    let name = |port: usize| fabric.port_name(PortId(port as u32));
    let answers = Answers::of(simulated, placement, name);
    for (at, sentence) in answers.sentences().iter().enumerate() {
        line(if at == 0 { "why" } else { "" }, sentence);
    }
    let layer_steps = planned.steps * u64::from(planned.layers);
    let speed = layer_steps as f64 / elapsed.max(1e-9);
    line(
        "simulated",
        &format!(
            "{layer_steps} layer-steps, {} events in {elapsed:.2} s: {speed:.1} layer-steps/s",
            simulated.events
        ),
    );
    line("event log", &format!("sha256 {}", simulated.log_digest));
    page
}

/// The same step under other settings, one changed at a time.
///
/// # Errors
/// Those of a simulation.
pub(super) fn what_if(planned: &Planned, simulated: &Simulated) -> Result<String, Failure> {
    let args = &planned.args;
    let mut page = String::from("\nWhat would change it (mean step, one change at a time)\n");
    let few = planned.steps.min(FEW_STEPS);
    let base = again(args, planned.machines.clone(), few)?;
    let now = &simulated.run.identity.exchange.to_string();
    let mut settings: Vec<(String, SimulateArgs, Machines)> = Vec::new();
    let mut add = |name: &str, args: &SimulateArgs, machines: Machines| {
        settings.push((name.to_owned(), args.clone(), machines));
    };
    let machines = &planned.machines;
    let linked = |topology: Topology| Machines {
        topology,
        ..machines.clone()
    };
    add(
        "links twice as fast",
        args,
        linked(rates(&machines.topology, 2.0)),
    );
    add(
        "half the latency",
        args,
        linked(latencies(&machines.topology, 0.5)),
    );
    let faster = Machines {
        costs: experts(&machines.costs, 0.5),
        ..linked(devices(&machines.topology, 2.0))
    };
    add("experts twice as fast", args, faster);
    if args
        .load
        .workload
        .is_some_and(|pattern| pattern != Pattern::Balanced)
    {
        let mut even = args.clone();
        even.load.workload = Some(Pattern::Balanced);
        add("even load", &even, machines.clone());
    }
    for kind in [ExchangeKind::Star, ExchangeKind::AllToAll] {
        if kind.to_string() != *now && !args.resident && !planned.resident {
            let mut other = args.clone();
            other.step.exchange = Some(kind.into());
            other.step.group_size = None;
            add(&format!("exchange {kind}"), &other, machines.clone());
        }
    }
    for (name, args, machines) in settings {
        let mean = again(&args, machines, few)?;
        let change = 100.0 * (mean / base - 1.0);
        let _ = writeln!(
            page,
            "  {name:<24}  {:>10}  {change:>+6.1} %",
            human::duration(mean)
        );
    }
    Ok(page)
}

/// Mean step of a few steps, µs.
fn again(args: &SimulateArgs, machines: Machines, steps: u64) -> Result<f64, Failure> {
    let mut args = args.clone();
    args.event_log = None;
    let mut planned = plan_on(&args, 0, machines)?;
    planned.steps = steps;
    let (simulated, _) = simulate(&mut planned)?;
    Ok(simulated.run.latency_us.step.mean)
}

fn rates(topology: &Topology, factor: f64) -> Topology {
    let mut faster = topology.clone();
    faster.tiers.host.bytes_per_ns *= factor;
    faster.tiers.rack.bytes_per_ns *= factor;
    if let Some(spine) = &mut faster.tiers.spine {
        spine.link.bytes_per_ns *= factor;
    }
    for host in &mut faster.hosts {
        host.bytes_per_ns *= factor;
    }
    faster
}

#[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
fn latencies(topology: &Topology, factor: f64) -> Topology {
    let mut nearer = topology.clone();
    let scale = |ns: &mut u64| *ns = (*ns as f64 * factor) as u64;
    scale(&mut nearer.tiers.host.latency_ns);
    scale(&mut nearer.tiers.rack.latency_ns);
    if let Some(spine) = &mut nearer.tiers.spine {
        scale(&mut spine.link.latency_ns);
    }
    nearer
}

fn devices(topology: &Topology, factor: f64) -> Topology {
    let mut faster = topology.clone();
    for device in &mut faster.devices {
        device.flops *= factor;
        device.memory_bytes_per_s *= factor;
    }
    faster
}

fn experts(costs: &Costs, factor: f64) -> Costs {
    let mut faster = costs.clone();
    for table in &mut faster.experts.tables {
        for (_, ns) in table.points.iter_mut().chain(&mut table.beside) {
            *ns *= factor;
        }
    }
    faster
}
