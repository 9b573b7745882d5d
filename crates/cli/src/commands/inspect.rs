//! `expertmesh inspect`: what a checkpoint directory holds, without reading a weight.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use expertmesh_checkpoint::{
    Combine, Inspection, LayerInspection, SharedKind, SharedSpec, Weight, describe,
};
use expertmesh_kernels::Format;
use expertmesh_report::human;

use crate::args::values::{at_least_one, parsed};
use crate::error::Failure;
use crate::output::print;

/// Flags of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  expertmesh inspect Mixtral-8x7B-v0.1 --workers 4 --dtype bf16

Reads config.json and the headers of the safetensors files; weights stay on disk.")]
pub(crate) struct InspectArgs {
    /// Directory of a Hugging Face checkpoint
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Workers to deal the experts out to, in contiguous runs; without it, 1, 2, 4, 8, … of them
    #[arg(long, value_name = "N")]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    workers: Option<NonZeroUsize>,
    /// Number format that they would compute in: f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value_t = Format::F32)]
    #[arg(value_parser = parsed::<Format>)]
    dtype: Format,
}

/// Prints what is there.
///
/// # Errors
/// [`Failure::Input`] for a directory that holds no checkpoint of a known family.
pub(crate) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let inspection = describe(&args.directory)?;
    let mut page = overview(&inspection, &args.directory);
    page.push_str(&layers(&inspection, args.dtype));
    page.push_str(&match args.workers {
        Some(workers) => shares(&inspection, workers, args.dtype)?,
        None => counts(&inspection, args.dtype)?,
    });
    print(&page)
}

/// A shared expert in words.
fn shared(spec: Option<SharedSpec>) -> String {
    let Some(spec) = spec else {
        return "none".to_owned();
    };
    let mut words = match spec.kind {
        SharedKind::Constant => return "a constant row: the block's bias".to_owned(),
        SharedKind::Glu => format!("inner size {}", spec.ffn),
        SharedKind::Mlp => format!("inner size {}, two layers", spec.ffn),
    };
    if spec.gated {
        words.push_str(", gated");
    }
    if spec.combine == Combine::Average {
        words.push_str(", averaged with the routed experts");
    }
    words
}

fn overview(found: &Inspection, directory: &Path) -> String {
    let mut lines = vec![
        ("checkpoint", directory.display().to_string()),
        (
            "files",
            format!("{} with {} tensors", found.files, found.tensors),
        ),
        ("family", found.model_type.clone()),
        (
            "layers",
            format!(
                "{}, of which {} with experts",
                found.layers,
                found.moe_layers.len()
            ),
        ),
        (
            "experts",
            format!(
                "{} a layer, top-{}, hidden {}, inner size {}, {}",
                found.experts, found.top_k, found.hidden, found.ffn, found.activation
            ),
        ),
        ("shared expert", shared(found.shared)),
        // A long sentence with a stop between its parts.
        ("gate", found.gate.replace("; ", ";\n                  ")),
    ];
    if !found.specials.is_empty() {
        let specials = found.specials.join(";\n                  ");
        lines.push(("experts' form", specials));
    }
    lines.iter().fold(String::new(), |mut page, (name, value)| {
        let _ = writeln!(page, "  {name:<14}  {value}");
        page
    })
}

/// Runs of layers that weigh the same are one line.
fn layers(found: &Inspection, dtype: Format) -> String {
    let mut runs: Vec<(u32, &LayerInspection)> = Vec::new();
    for layer in &found.moe_layers {
        match runs.last_mut() {
            Some((last, first)) if *last + 1 == layer.layer && same(first, layer) => {
                *last = layer.layer;
            }
            _ => runs.push((layer.layer, layer)),
        }
    }
    let mut table = table(&[
        "layer",
        "parameters",
        "experts in",
        "on disk",
        "one expert",
        "loaded",
    ]);
    let mut problems = String::new();
    for (last, first) in runs {
        let name = match first.layer {
            layer if layer == last => layer.to_string(),
            layer => format!("{layer} to {last}"),
        };
        if let Some(problem) = &first.problem {
            let _ = writeln!(problems, "  layer {name} cannot be used: {problem}");
            continue;
        }
        let (stored, loaded) = (first.stored.total(), first.loaded(dtype));
        table.add_row([
            name,
            human::count(stored.parameters),
            first.formats.join(" and "),
            human::bytes(stored.bytes),
            human::bytes(loaded.expert.bytes),
            human::bytes(loaded.total().bytes),
        ]);
    }
    let towers = two_towers(found);
    let mut page = format!("\nLayers with experts (loaded: in memory, computing in {dtype})\n");
    if !table.is_empty() {
        page.push_str(&indented(&table));
    }
    page + &problems + &towers
}

/// Where the count of layers goes on with a decoder's, if it does.
fn two_towers(found: &Inspection) -> String {
    let layers = &found.moe_layers;
    let decoder = layers.iter().find(|one| one.block.contains("decoder."));
    match (layers.first(), decoder) {
        (Some(first), Some(decoder)) if first.layer != decoder.layer => format!(
            "  the encoder's layers are counted first: layer {} is {}\n",
            decoder.layer,
            decoder.block.trim_end_matches('.')
        ),
        _ => String::new(),
    }
}

fn same(a: &LayerInspection, b: &LayerInspection) -> bool {
    a.problem.is_none() && b.problem.is_none() && a.stored == b.stored && a.formats == b.formats
}

fn shares(found: &Inspection, workers: NonZeroUsize, dtype: Format) -> Result<String, Failure> {
    let mut table = table(&["worker", "experts", "one layer", "all layers", "shared"]);
    for share in found.per_worker(workers.get(), dtype)? {
        let experts = match share.experts.len() {
            0 => "none".to_owned(),
            1 => share.experts.start.to_string(),
            _ => format!("{} to {}", share.experts.start, share.experts.end - 1),
        };
        let size = |weight: Weight| human::bytes(weight.bytes);
        table.add_row([
            share.worker.to_string(),
            experts,
            size(share.layer),
            size(share.model),
            size(share.shared),
        ]);
    }
    Ok(format!(
        "\nWhat each of {workers} workers would load in {dtype} (contiguous placement)\n{}",
        indented(&table)
    ))
}

/// What the most loaded worker would hold, for powers of two workers up to one an expert.
fn counts(found: &Inspection, dtype: Format) -> Result<String, Failure> {
    let mut table = table(&[
        "workers",
        "experts each",
        "one layer",
        "all layers",
        "shared",
    ]);
    let powers = std::iter::successors(Some(1_usize), |workers| workers.checked_mul(2));
    for workers in powers.take_while(|workers| *workers <= found.experts.max(1)) {
        let shares = found.per_worker(workers, dtype)?;
        let most = shares.iter().max_by_key(|share| share.model.bytes);
        let Some(most) = most else { continue };
        let experts = match (found.experts / workers, found.experts % workers) {
            (each, 0) => each.to_string(),
            (each, _) => format!("{each} or {}", each + 1),
        };
        let size = |weight: Weight| human::bytes(weight.bytes);
        table.add_row([
            workers.to_string(),
            experts,
            size(most.layer),
            size(most.model),
            size(most.shared),
        ]);
    }
    Ok(format!(
        "\nWhat a worker would load in {dtype} at most (contiguous placement)\n{}",
        indented(&table)
    ))
}

/// A table whose figures stand on the right.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding(if index + 1 == header.len() {
            (0, 0)
        } else {
            (0, 3)
        });
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table's lines, indented as in the report.
fn indented(table: &Table) -> String {
    table.lines().fold(String::new(), |mut page, line| {
        let _ = writeln!(page, "  {}", line.trim_end());
        page
    })
}
