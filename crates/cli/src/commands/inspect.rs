//! `expertmesh inspect`: what a checkpoint directory holds, without reading a weight.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use expertmesh_checkpoint::{Inspection, LayerInspection, Weight, describe};
use expertmesh_kernels::Format;
use expertmesh_report::human;

use crate::args::process::WORKERS;
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
    /// Workers to deal the experts out to, in contiguous runs
    #[arg(long, value_name = "N", default_value_t = WORKERS)]
    #[arg(value_parser = at_least_one::<NonZeroUsize>)]
    workers: NonZeroUsize,
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
    page.push_str(&shares(&inspection, args.workers, args.dtype)?);
    print(&page)
}

fn overview(found: &Inspection, directory: &Path) -> String {
    let shared = match found.shared {
        None => "none".to_owned(),
        Some(shared) if shared.gated => format!("inner size {}, gated", shared.ffn),
        Some(shared) => format!("inner size {}", shared.ffn),
    };
    let lines = [
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
        ("shared expert", shared),
        // A long sentence with a stop between its parts.
        ("gate", found.gate.replace("; ", ";\n                  ")),
    ];
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
    let mut table = table(&["layer", "parameters", "on disk", "one expert", "loaded"]);
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
            human::bytes(stored.bytes),
            human::bytes(loaded.expert.bytes),
            human::bytes(loaded.total().bytes),
        ]);
    }
    let mut page = format!("\nLayers with experts (loaded: in memory, computing in {dtype})\n");
    if !table.is_empty() {
        page.push_str(&indented(&table));
    }
    page + &problems
}

fn same(a: &LayerInspection, b: &LayerInspection) -> bool {
    a.problem.is_none() && b.problem.is_none() && a.stored == b.stored
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
