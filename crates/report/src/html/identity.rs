//! Who and what.

use std::fmt::Write as _;

use expertmesh_telemetry::{Environment, LoadMode, Run};

use super::markup::{card as framed, escape};
use crate::human;
use crate::terminal::chosen;

/// Digits of a digest that are shown; the rest is there when it is pointed at.
const DIGEST: usize = 16;

/// Machine and software in a line.
pub(super) fn environment(environment: &Environment) -> String {
    let cores = environment.cores;
    let mut parts = vec![
        format!("version {}", environment.version),
        network(environment),
        format!("{cores} {}", if cores == 1 { "core" } else { "cores" }),
        format!("{} kernels", environment.kernel),
    ];
    parts.extend(environment.cpu.clone());
    parts.extend(environment.os.clone());
    parts.join(" · ")
}

/// `loopback network`, `simulated network, links of h100, 2 hosts`.
fn network(environment: &Environment) -> String {
    match &environment.topology {
        None => format!("{} network", environment.network),
        Some(topology) => format!("{} network, links of {topology}", environment.network),
    }
}

/// A run in a line.
pub(super) fn title(run: &Run, index: usize, runs: usize) -> String {
    let workers = run.identity.workers;
    let plural = if workers == 1 { "worker" } else { "workers" };
    let what = format!("{} exchange over {workers} {plural}", run.identity.exchange);
    match runs {
        1 => what,
        _ => format!("Run {} of {runs}: {what}", index + 1),
    }
}

/// What was run, and how steps were offered.
pub(super) fn card(run: &Run, place: &Environment) -> String {
    let identity = &run.identity;
    let mut list = List::default();
    list.entry("where", &environment(place));
    list.entry("model", &identity.model);
    if let Some(shape) = &identity.shape {
        list.entry(
            "shape",
            &format!(
                "{} tokens × {} hidden, {} experts, top-{}, {} of {}",
                shape.tokens, shape.hidden, shape.experts, shape.top_k, shape.expert, shape.ffn
            ),
        );
        let formats = format!("{}, {} on the wire", shape.dtype, shape.wire_dtype);
        list.entry("formats", &formats);
    }
    list.entry("workload", &identity.workload);
    list.entry("seed", &identity.seed.to_string());
    list.entry(
        "exchange",
        &format!("{}, {} combine", identity.exchange, identity.combine),
    );
    if let Some(choice) = &run.exchange_choice {
        list.entry("chosen from", &chosen(choice));
        list.entry(
            "chosen by",
            &format!("{}: {}", choice.costs, choice.verdict),
        );
    }
    list.entry("numerics", &identity.numerics);
    list.digest("placement", Some(&identity.placement_digest));
    list.digest("outputs", run.digest.as_deref());
    list.entry("load", &load(run));
    framed("", "What was run", "", &format!("<dl>{}</dl>\n", list.text))
}

fn load(run: &Run) -> String {
    let load = &run.load;
    let rate = |rate: Option<f64>| human::maybe_number(rate);
    let steps = format!(
        "{} steps after {} of warm-up",
        load.steps, load.warmup_steps
    );
    let done = rate(load.achieved_per_s);
    match load.mode {
        LoadMode::Closed => format!("{steps}, closed loop, {done} a second"),
        LoadMode::Open => format!(
            "{steps}, {done} of {} a second, at most {} late",
            rate(load.offered_per_s),
            human::maybe_duration(load.max_lag_us)
        ),
    }
}

#[derive(Default)]
struct List {
    text: String,
}

impl List {
    fn entry(&mut self, name: &str, value: &str) {
        let _ = write!(
            self.text,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(name),
            escape(value)
        );
    }

    fn digest(&mut self, name: &str, digest: Option<&str>) {
        let Some(digest) = digest else {
            return self.entry(name, "no digest: the run made no outputs");
        };
        let short: String = digest.chars().take(DIGEST).collect();
        let _ = write!(
            self.text,
            "<div><dt>{}</dt><dd><code title=\"{}\">{}</code></dd></div>",
            escape(name),
            escape(digest),
            escape(&short)
        );
    }
}
