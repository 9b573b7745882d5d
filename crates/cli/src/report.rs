//! Where a report was taken, and its file.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use expertmesh_telemetry::{Environment, Network, Report, Run};
use expertmesh_wire::v1;

use crate::error::Failure;
use crate::output::{check_place, write};

/// A report of one run on this machine's processes or on those that `endpoints` name.
pub(crate) fn of_run(run: Run, endpoints: &[v1::Endpoint]) -> Report {
    let mut report = Report::new(environment(endpoints));
    report.runs.push(run);
    report
}

/// This machine, and what lies between it and `endpoints`.
pub(crate) fn environment(endpoints: &[v1::Endpoint]) -> Environment {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let local = endpoints
        .iter()
        .filter(|endpoint| !endpoint.address.is_empty())
        .all(|endpoint| is_loopback(&endpoint.address));
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        kernel: expertmesh_kernels::kernel_name().to_owned(),
        network: if local {
            Network::Loopback
        } else {
            Network::Real
        },
        topology: None,
        os: operating_system(),
        cpu: cpu(),
    }
}

/// A place for a report, checked before the run that would fill it.
#[derive(Debug, Clone)]
pub(crate) struct ReportFile {
    path: PathBuf,
}

// === impl ReportFile ===

impl ReportFile {
    /// Checks that a file can be put at `path`.
    ///
    /// # Errors
    /// As [`check_place`].
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        check_place(path)?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    /// Writes `report` as JSON.
    ///
    /// # Errors
    /// [`Failure::Run`] if the file cannot be written.
    pub(crate) fn write(&self, report: &Report) -> Result<(), Failure> {
        let text = expertmesh_report::json(report)?;
        write(&self.path, text)
    }
}

fn is_loopback(address: &str) -> bool {
    address
        .to_socket_addrs()
        .is_ok_and(|mut all| all.all(|one| one.ip().is_loopback()))
}

fn operating_system() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
    let (kind, release) = (read("ostype")?, read("osrelease")?);
    Some(format!("{} {}", kind.trim(), release.trim()))
}

fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
