//! `expertmesh report`: saved reports, printed, drawn, and exported for other tools.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use expertmesh_report::{
    NcclMatrix, Ranks, ReportError, chakra, html, parse, parse_lanes, perfetto, side_by_side,
    terminal,
};
use expertmesh_telemetry::{Report, Run, Trace};

use crate::args::values::at_least_one;
use crate::error::Failure;
use crate::output::{check_place, print, write};

/// Flags of `report`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  expertmesh report report.json
  expertmesh report star.json all-to-all.json --html both.html
  expertmesh report report.json --lanes lanes.json --run 1 --perfetto steps.json
  expertmesh report report.json --nccl matrix.txt --workers-only --chakra traces

Files come from --report and --lanes of launch, run, simulate and bench. Several files are one report
with the runs of all. A run that was predicted stands beside the measured run of the same identity.")]
pub(crate) struct ReportArgs {
    /// Files that --report wrote
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A file that --lanes wrote beside the first FILE; again for the second, and so on
    #[arg(long, value_name = "FILE")]
    lanes: Vec<PathBuf>,
    /// Which run, counted over all files from 1 [default: all; exports need one of several]
    #[arg(long, value_name = "I", value_parser = at_least_one::<NonZeroUsize>)]
    run: Option<NonZeroUsize>,
    /// Write one HTML page, which opens without a network
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Write the lanes of a run for <https://ui.perfetto.dev>
    #[arg(long, value_name = "OUT")]
    perfetto: Option<PathBuf>,
    /// Write the byte matrix of a run's mean step for nccl-tests' alltoallv
    #[arg(long, value_name = "OUT")]
    nccl: Option<PathBuf>,
    /// Leave the coordinator out of that matrix: rank 0 is the first worker
    #[arg(long, requires = "nccl")]
    workers_only: bool,
    /// Write a run's exchange as Chakra traces, a file for each endpoint, into this directory
    #[arg(long, value_name = "DIR")]
    chakra: Option<PathBuf>,
}

/// Reads the reports, and prints the page or writes the files.
///
/// # Errors
/// [`Failure::Input`] for files that hold no report or no lanes, a run that they do not have, a run
/// that an export cannot hold; [`Failure::Run`] for files that cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    for file in [&args.html, &args.perfetto, &args.nccl]
        .into_iter()
        .flatten()
    {
        check_place(file)?;
    }
    let (report, traces) = read(args)?;
    let exports = Exports {
        args,
        traces: side_by_side(&report, &traces),
        report,
    };
    let told = exports.write()?;
    if told.is_empty() {
        return print(&terminal(&exports.shown()?));
    }
    print(&told)
}

/// All runs with their lanes.
fn read(args: &ReportArgs) -> Result<(Report, Vec<Trace>), Failure> {
    if args.lanes.len() > args.files.len() {
        return Err(Failure::input(format!(
            "--lanes is given {} times, expected at most {}, once for each report",
            args.lanes.len(),
            args.files.len()
        )));
    }
    let mut all: Option<Report> = None;
    let mut traces: Vec<Trace> = Vec::new();
    for (at, file) in args.files.iter().enumerate() {
        let one = parse(&text(file)?).map_err(|error| about(file, &error))?;
        let runs = one.runs.len();
        let mut lanes = match args.lanes.get(at) {
            None => Vec::new(),
            Some(file) => parse_lanes(&text(file)?).map_err(|error| about(file, &error))?,
        };
        if lanes.len() > runs {
            return Err(Failure::input(format!(
                "{}: it has the lanes of {} runs, expected at most {runs}, those of {}",
                args.lanes
                    .get(at)
                    .map_or(Path::new("?"), PathBuf::as_path)
                    .display(),
                lanes.len(),
                file.display()
            )));
        }
        lanes.resize_with(runs, Trace::default);
        traces.extend(lanes);
        match &mut all {
            None => all = Some(one),
            Some(all) => all.extend(one),
        }
    }
    let all = all.ok_or_else(|| Failure::input("no file is given, expected at least 1"))?;
    Ok((all, traces))
}

fn text(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::input(format!("cannot read {}: {error}", file.display())))
}

fn about(file: &Path, error: &ReportError) -> Failure {
    Failure::input(format!("{}: {error}", file.display()))
}

/// What is written of which runs.
struct Exports<'a> {
    args: &'a ReportArgs,
    report: Report,
    traces: Vec<Trace>,
}

// === impl Exports ===

impl Exports<'_> {
    /// Writes what the flags ask for, and says in lines what was written.
    fn write(&self) -> Result<String, Failure> {
        let mut told = String::new();
        let mut tell = |name: &str, what: String| told.push_str(&format!("{name:<8}  {what}\n"));
        if let Some(file) = &self.args.html {
            let traces = match self.args.run {
                Some(_) => &self.traces[self.one("--run")?..],
                None => &self.traces[..],
            };
            write(file, html(&self.shown()?, traces)?)?;
            tell("html", file.display().to_string());
        }
        if let Some(file) = &self.args.perfetto {
            let trace = &self.traces[self.one("--perfetto")?];
            if trace.is_empty() {
                return Err(Failure::input(
                    "--perfetto draws lanes, and this run has none; add --lanes FILE, which launch, \
                     run and bench dispatch write",
                ));
            }
            write(file, perfetto(trace))?;
            tell("perfetto", file.display().to_string());
        }
        if let Some(file) = &self.args.nccl {
            tell("nccl", self.nccl(file)?);
        }
        if let Some(directory) = &self.args.chakra {
            tell("chakra", self.chakra(directory)?);
        }
        Ok(told)
    }

    /// The report as it is shown: with all runs or with one.
    fn shown(&self) -> Result<Report, Failure> {
        let one = match self.args.run {
            Some(_) => self.report.only(self.one("--run")?),
            None => None,
        };
        Ok(one.unwrap_or_else(|| self.report.clone()))
    }

    /// Position of the run that `flag` is about.
    fn one(&self, flag: &str) -> Result<usize, Failure> {
        let runs = self.report.runs.len();
        match (self.args.run.map(NonZeroUsize::get), runs) {
            (None, 1) => Ok(0),
            (None, runs) => Err(Failure::input(format!(
                "{flag} is about one run and there are {runs}; say which with --run"
            ))),
            (Some(run), runs) if run <= runs => Ok(run - 1),
            (Some(run), runs) => Err(Failure::input(format!(
                "--run is {run}, expected at most {runs}, the number of runs"
            ))),
        }
    }

    fn run(&self, flag: &str) -> Result<(&Run, &Trace), Failure> {
        let at = self.one(flag)?;
        Ok((&self.report.runs[at], &self.traces[at]))
    }

    fn nccl(&self, file: &Path) -> Result<String, Failure> {
        let (run, _) = self.run("--nccl")?;
        let ranks = match self.args.workers_only {
            true => Ranks::Workers,
            false => Ranks::Endpoints,
        };
        let matrix = NcclMatrix::of(run, ranks).map_err(Failure::input)?;
        write(file, matrix.text())?;
        let (file, largest) = (file.display(), matrix.largest());
        Ok(format!(
            "{file}, {} ranks; NCCL_TESTS_ALLTOALLV_MATRIX_FILE={file} alltoallv_perf -b {largest} \
             -e {largest} -a 3",
            matrix.cells.len()
        ))
    }

    fn chakra(&self, directory: &Path) -> Result<String, Failure> {
        let (run, trace) = self.run("--chakra")?;
        let trace = (!trace.is_empty()).then_some(trace);
        let files = chakra(run, trace).map_err(Failure::input)?;
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::run(format!("cannot make {}: {error}", directory.display()))
        })?;
        for (endpoint, file) in files.iter().enumerate() {
            write(&directory.join(format!("exchange.{endpoint}.et")), file)?;
        }
        let directory = directory.display();
        Ok(format!(
            "{directory}/exchange.<endpoint>.et, {} files",
            files.len()
        ))
    }
}
