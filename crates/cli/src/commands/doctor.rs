//! `expertmesh doctor`: whether this machine can run a cluster, and computes the right bits.

mod cluster;
mod numerics;
mod system;

use std::fmt::Write as _;

use clap::Args;

use crate::error::Failure;
use crate::output::print;

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  expertmesh doctor

Each line is ok, warn or fail; a fail ends it with exit code 1. Attach the output to a bug report.")]
pub(crate) struct DoctorArgs {}

/// What a check found.
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was seen, and for a warning or a failure what to do.
    pub(crate) detail: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// Makes every check and prints the findings.
///
/// # Errors
/// [`Failure::Run`] if a check failed.
pub(crate) async fn run(_args: DoctorArgs) -> Result<(), Failure> {
    let mut findings = vec![
        system::cores(),
        system::descriptors(),
        system::clock(),
        system::survivors(),
        numerics::kernel(),
        numerics::transcendentals(),
    ];
    findings.extend(cluster::round_trips().await);
    let page = findings.iter().fold(String::new(), |mut page, finding| {
        let Finding {
            check,
            verdict,
            detail,
        } = finding;
        let _ = writeln!(page, "  {:<4}  {check:<18}  {detail}", verdict.word());
        page
    });
    print(&page)?;
    let failed = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail);
    match failed.count() {
        0 => Ok(()),
        1 => Err(Failure::run("1 check failed; see above")),
        many => Err(Failure::run(format!("{many} checks failed; see above"))),
    }
}

// === impl Finding ===

impl Finding {
    pub(crate) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, detail)
    }

    pub(crate) fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            detail: detail.into(),
        }
    }
}

// === impl Verdict ===

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}
