//! `expertmesh trace stats`: what a trace says, as tables or JSON.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use expertmesh_bench::trace::stats::{Figure, LayerStats, TraceStats};
use expertmesh_bench::trace::{ReadOptions, Trace, TraceFormat};
use expertmesh_report::human;

use crate::args::values::{at_least_one, parsed};
use crate::error::Failure;
use crate::output::print;
use crate::traces::describe;

/// Flags of `trace stats`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh trace stats routes.moetrace
  expertmesh trace stats router_trace --experts 64 --json

Each figure stands beside what tokens that choose at random would give. same first: consecutive
tokens have the same first choice; first in two: the earlier's first choice is among the later's
first two; share of two: their first two choices have an expert in common; step to step: the loads
of consecutive steps correlate, 1 for a skew that stays.")]
pub(crate) struct StatsArgs {
    /// Trace: .moetrace, .csv, .parquet, Megatron's .jsonl or a directory of them, SGLang's .json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Experts of a layer, where the file does not say [default: the highest index + 1]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU32>)]
    experts: Option<NonZeroU32>,
    /// Format: moetrace, csv, parquet, megatron or sglang [default: by extension, else content]
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<TraceFormat>)]
    format: Option<TraceFormat>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Reads the trace and prints its figures.
///
/// # Errors
/// [`Failure::Input`] for a trace that cannot be read.
pub(super) fn run(args: &StatsArgs) -> Result<(), Failure> {
    let options = ReadOptions {
        format: args.format,
        experts: args.experts.map(NonZeroU32::get),
        ..ReadOptions::default()
    };
    let trace = Trace::read_with(&args.file, &options)?;
    let stats = trace.stats();
    if args.json {
        let json = serde_json::to_string_pretty(&stats).map_err(Failure::run)?;
        return print(&format!("{json}\n"));
    }
    print(&page(&stats, &describe(&trace)))
}

fn page(stats: &TraceStats, what: &str) -> String {
    let mut page = format!(
        "  {:<8}  {what}\n  {:<8}  {}\n",
        "trace", "from", stats.source
    );
    page.push_str("\nLoads of the experts (beside each figure what chance gives)\n");
    page.push_str(&loads(stats));
    page.push_str("\nLocality: consecutive tokens, and consecutive steps\n");
    page.push_str(&locality(stats));
    let ascending = stats.layers.iter().filter(|layer| layer.ascending).count();
    if ascending > 0 {
        let _ = writeln!(
            page,
            "  In {ascending} of {} layers every token's experts are in ascending order: slots are \
             no ranks there,\n  and a first choice is only the lowest index.",
            stats.layers.len()
        );
    }
    page.push_str("\nHottest experts, with their shares of the choices\n");
    for layer in &stats.layers {
        let named = layer
            .hottest
            .iter()
            .map(|load| format!("{} ({})", load.expert, human::share(load.share)));
        let named: Vec<String> = named.collect();
        let _ = writeln!(page, "  layer {:<4}  {}", layer.layer, named.join(", "));
    }
    page
}

fn loads(stats: &TraceStats) -> String {
    let header = [
        "layer", "steps", "tokens", "choices", "gini", "", "max/mean", "", "entropy", "", "idle",
        "",
    ];
    let row = |layer: &LayerStats| {
        let mut row = vec![
            layer.layer.to_string(),
            layer.steps.to_string(),
            human::count(layer.tokens),
            human::count(layer.choices),
        ];
        row.extend(pair(layer.gini, 3));
        row.extend(pair(layer.max_over_mean, 2));
        row.extend(pair(layer.entropy, 3));
        row.extend(idle(layer.idle));
        row
    };
    table(&header, 4, stats.layers.iter().map(row))
}

fn locality(stats: &TraceStats) -> String {
    let header = [
        "layer",
        "same first",
        "",
        "first in two",
        "",
        "share of two",
        "",
        "step to step",
        "",
    ];
    let row = |layer: &LayerStats| {
        let mut row = vec![layer.layer.to_string()];
        row.extend(pair(layer.same_first, 3));
        row.extend(pair(layer.first_in_next_two, 3));
        row.extend(pair(layer.share_in_first_two, 3));
        row.extend(pair(layer.load_correlation, 3));
        row
    };
    table(&header, 1, stats.layers.iter().map(row))
}

/// A figure and its expectation.
fn pair(figure: Figure, decimals: usize) -> [String; 2] {
    let measured = figure.measured.map(|value| format!("{value:.decimals$}"));
    let measured = measured.unwrap_or_else(|| human::NONE.to_owned());
    [measured, format!("({:.decimals$})", figure.uniform)]
}

/// Experts without a choice: a whole number, and a mean.
fn idle(figure: Figure) -> [String; 2] {
    let [_, uniform] = pair(figure, 1);
    let [measured, _] = pair(figure, 0);
    [measured, uniform]
}

/// Numbers in columns, from column `pairs` on in pairs that stand close together.
fn table(header: &[&str], pairs: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .set_header(header.to_vec())
        .add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        let is_first_of_pair = index >= pairs && (index - pairs).is_multiple_of(2);
        let gap = match index + 1 {
            next if next == header.len() => 0,
            _ if is_first_of_pair => 1,
            _ => 2,
        };
        column.set_padding((0, gap));
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().fold(String::new(), |mut page, line| {
        let _ = writeln!(page, "  {}", line.trim_end());
        page
    })
}
