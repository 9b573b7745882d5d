//! What a simulation says, behind the report.

use std::fmt::Write as _;

use expertmesh_bench::simulate::{Answers, Simulated};
use expertmesh_report::human;
use expertmesh_topology::PortId;

use crate::commands::simulate::load::Scores;
use crate::commands::simulate::plan::Planned;

/// Columns of the name before a figure, as in the report.
const LABEL: usize = 16;

/// Machines, costs, answers and speed.
pub(super) fn page(planned: &Planned, simulated: &Simulated, elapsed: f64) -> String {
    let mut page = String::from("\nSimulation\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(page, "  {name:<LABEL$}  {value}");
    };
    let Some(first) = planned.simulation.layers.first() else {
        return page;
    };
    let fabric = planned.simulation.simulator.fabric();
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
    let others = costs
        .sources
        .iter()
        .filter(|(_, one)| **one != costs.source);
    let others: Vec<String> = others
        .map(|(path, one)| format!("{path} ({one})"))
        .collect();
    if !others.is_empty() {
        line("not fitted", &others.join(", "));
    }
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
    let between_ns = planned.simulation.between_ns;
    if planned.layers > 1 || between_ns > 0 {
        let between = match between_ns {
            0 => String::new(),
            ns => format!(
                ", behind each {} of attention and layers without experts",
                human::duration(ns as f64 / 1e3)
            ),
        };
        line("layers", &format!("{}{between}", planned.layers));
    }
    let placement = &first.config().placement;
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
