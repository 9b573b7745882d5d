//! What a step gave: tensors for the output file, and a summary for people.

mod file;
mod losses;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use expertmesh_checkpoint::CheckpointError;
use expertmesh_coordinator::RoutingTables;
use expertmesh_kernels::{Format, decode_row};
use expertmesh_report::human;
use expertmesh_routing::Route;
use expertmesh_telemetry::Run;
use expertmesh_wire::{format_from_wire, v1};

use crate::commands::run::results::file::save;
use crate::commands::run::results::losses::losses;
use crate::tensors::Hidden;

/// Columns of the name before a figure, as in the report.
const LABEL: usize = 16;

/// The answer of a step, decoded.
#[derive(Debug)]
pub(super) struct Results {
    /// `[T, H]`.
    output: Vec<f32>,
    tables: RoutingTables,
    /// Auxiliary losses by name.
    aux: Vec<(&'static str, f64)>,
}

// === impl Results ===

impl Results {
    /// Decodes `reply` to a request for `hidden` with routing.
    ///
    /// # Errors
    /// Tables that are missing or whose lengths contradict the request, named.
    pub(super) fn read(
        reply: &v1::ForwardReply,
        cluster: &v1::ClusterReply,
        hidden: &Hidden,
    ) -> Result<Self, String> {
        let routing = reply.routing.as_ref().ok_or("`routing` is missing")?;
        let (top_k, experts) = (cluster.top_k as usize, cluster.experts as usize);
        let tables = RoutingTables::read(routing, hidden.tokens, top_k, experts)?;
        let output = words("output", &reply.output, hidden.rows.len())?;
        let mut values = vec![0.0; hidden.rows.len()];
        decode_row(Format::F32, output, &mut values);
        let dtype = cluster.model.as_ref().map_or(0, |model| model.dtype);
        let dtype = format_from_wire(dtype).ok_or("`model.dtype` is unknown")?;
        let mask = hidden.attention.as_deref();
        let aux = losses(&tables.route, mask, hidden.sequence(), dtype);
        Ok(Self {
            output: values,
            tables,
            aux: aux.map_err(|error| error.to_string())?,
        })
    }

    /// Writes the output file; `shape` is the input's.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] if it cannot be written.
    pub(super) fn write(&self, path: &Path, shape: &[usize]) -> Result<(), CheckpointError> {
        save(path, shape, &self.output, &self.tables, &self.aux)
    }

    /// Losses by name, for the report.
    pub(super) fn losses(&self) -> BTreeMap<String, f64> {
        self.aux
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    /// The step in a few lines.
    pub(super) fn summary(&self, run: &Run, output: &Path) -> String {
        let Route {
            tokens,
            top_k,
            experts_total,
            ref offsets,
            ..
        } = self.tables.route;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<LABEL$}  {value}");
        };
        line("model", &run.identity.model);
        line(
            "cluster",
            &format!(
                "{}, {} exchange, {}",
                workers(run.identity.workers),
                run.identity.exchange,
                run.identity.numerics
            ),
        );
        let routed = match (&self.tables.slots, offsets) {
            (Some(slots), _) => {
                let tokens = slots.dispatch.len() / slots.slots.max(1);
                format!(
                    "{tokens} in {} slots of {experts_total} experts",
                    slots.slots
                )
            }
            (None, Some(_)) => format!("{tokens}, up to {top_k} of {experts_total} experts"),
            (None, None) => format!("{tokens}, top-{top_k} of {experts_total} experts"),
        };
        line("tokens", &routed);
        line(
            "step",
            &format!(
                "{}, of which exchange {}",
                human::duration(run.latency_us.step.max),
                human::duration(run.latency_us.exchange.max)
            ),
        );
        line("choices", &choices(run));
        line("balance", &balance(run));
        for (name, value) in &self.aux {
            line("loss", &loss(name, *value));
        }
        let strange = self.output.iter().filter(|value| !value.is_finite());
        match (strange.count(), self.output.len()) {
            (0, _) => {}
            (strange, of) => line(
                "not finite",
                &format!(
                    "{strange} of {of} output values: what experts made of such rows is beyond f32"
                ),
            ),
        }
        line("output digest", run.digest.as_deref().unwrap_or("none"));
        line("written", &output.display().to_string());
        text
    }
}

fn workers(count: u32) -> String {
    match count {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    }
}

/// `gini 0.042, max / mean 1.125, entropy 2.075 of 2.079, 0 of 8 experts idle`
fn balance(run: &Run) -> String {
    let (b, experts) = (&run.balance, run.overflow.per_expert.len());
    format!(
        "gini {}, max / mean {}, entropy {} of {}, {} of {experts} experts idle",
        human::number(b.gini),
        human::number(b.max_over_mean),
        human::number(b.entropy),
        human::number((experts.max(1) as f64).ln()),
        human::count(b.idle_experts)
    )
}

/// A loss by name, without the digits that nobody reads.
fn loss(name: &str, value: f64) -> String {
    match value.abs() < 1e9 {
        true => format!("{name} {value:.6}"),
        false => format!("{name} {value:e}"),
    }
}

/// `48 assigned: 40 computed, 8 dropped`
fn choices(run: &Run) -> String {
    let overflow = &run.overflow;
    let fates = [
        ("computed", overflow.computed),
        ("rerouted", overflow.rerouted),
        ("dropped", overflow.dropped),
        ("skipped", overflow.skipped),
        ("lost", overflow.lost),
    ];
    let told = fates
        .iter()
        .filter(|(name, count)| *count > 0 || *name == "computed")
        .map(|(name, count)| format!("{count} {name}"));
    let told: Vec<String> = told.collect();
    format!("{} assigned: {}", overflow.assigned, told.join(", "))
}

/// `bytes`, if they are `count` words of four bytes.
fn words<'a>(name: &str, bytes: &'a [u8], count: usize) -> Result<&'a [u8], String> {
    if bytes.len() == count * 4 {
        return Ok(bytes);
    }
    Err(format!(
        "`{name}` holds {} bytes, expected {}",
        bytes.len(),
        count * 4
    ))
}
