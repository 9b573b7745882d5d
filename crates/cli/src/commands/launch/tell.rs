//! What a launch prints and writes when it has driven its load.

use std::fmt::Write as _;
use std::sync::Arc;

use expertmesh_bench::drive::Driven;
use expertmesh_bench::workload::{SelfTest, Workload};
use expertmesh_report::terminal;
use expertmesh_wire::v1;

use crate::cluster::Network;
use crate::commands::simulate::Choice;
use crate::error::Failure;
use crate::output::print;
use crate::pictures::Pictures;
use crate::report::{ReportFile, of_run};
use crate::traces::TraceFile;

/// Columns of the name before a figure, as in the report.
const LABEL: usize = 16;

/// Where results go.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) report: Option<ReportFile>,
    pub(super) trace: Option<TraceFile>,
    /// Hold the routes against the workload's claims.
    pub(super) self_test: bool,
    /// Pages and lanes.
    pub(super) pictures: Pictures,
    /// What lay between the processes.
    pub(super) network: Option<Arc<Network>>,
    /// Why the exchange is what it is, if it was chosen.
    pub(super) choice: Option<Choice>,
}

// === impl Results ===

impl Results {
    /// Whether routing tables are needed.
    pub(super) fn want_routing(&self) -> bool {
        self.self_test || self.trace.is_some()
    }

    /// Prints the report and what stands behind it, and writes the files.
    ///
    /// # Errors
    /// [`Failure::Run`] for a file that cannot be written, [`Failure::Gate`] for a claim of the
    /// workload that does not hold.
    pub(super) fn tell(
        &self,
        driven: Driven,
        workload: &Workload,
        cluster: &v1::ClusterReply,
    ) -> Result<(), Failure> {
        let Driven {
            mut run,
            skew,
            trace,
            lanes,
        } = driven;
        run.exchange_choice = self.choice.as_ref().map(Choice::for_report);
        if let Some(network) = &self.network {
            network.mark(&mut run);
        }
        let mut report = of_run(run, &cluster.endpoints);
        if let Some(network) = &self.network {
            network.mark_place(&mut report.environment);
        }
        let mut page = terminal(&report);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(page, "  {name:<LABEL$}  {value}");
        };
        line("skew", &format!("measured: {skew}"));
        let mut test: Option<SelfTest> = None;
        if let Some(trace) = &trace {
            let note = "routing tables travelled to the client, outside the timed step";
            line("routes", note);
            if let Some(file) = &self.trace {
                line("trace", &file.write(trace)?);
            }
            if self.self_test {
                let steps = trace.records().iter();
                let steps = steps.map(|record| (record.step, &record.experts));
                test = Some(workload.self_test(steps)?);
            }
        }
        for claim in test.iter().flat_map(|test| &test.claims) {
            line("self-test", &claim.to_string());
        }
        if test.as_ref().is_some_and(|test| test.claims.is_empty()) {
            line("self-test", &format!("{} claims nothing", workload.name()));
        }
        print(&page)?;
        if let Some(file) = &self.report {
            file.write(&report)?;
        }
        self.pictures.write(&report, lanes.as_slice())?;
        let verdict = test.map_or(Ok(()), |test| test.verdict());
        verdict.map_err(|error| Failure::Gate(error.to_string()))
    }
}
