//! What lies between the processes of a cluster on this machine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use expertmesh_topology::Topology;

use crate::cluster::Network;
use crate::error::Failure;

/// Largest share, in percent, by which links may be off in the probe before a run.
const TOLERANCE: f64 = 10.0;
/// Beyond this a step of a millisecond takes a quarter of an hour.
const MOST_DILATION: f64 = 1e6;

/// The flags that ask for links of a topology; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Emulate the links of this topology: a TOML file, or loopback, 10gbe, 25gbe, 100gbe, lab, wan,
    /// h100 or h800 [default: the real loopback]
    #[arg(long, value_name = "FILE|PRESET")]
    pub(crate) topology: Option<String>,
    /// Stretch time: links and experts take D times as long, and figures are divided by it
    #[arg(long, value_name = "D", requires = "topology")]
    pub(crate) dilation: Option<f64>,
    /// Exit with 3 if the probe before the run finds a link off by more than this [default: 10]
    #[arg(long, value_name = "PERCENT", requires = "topology")]
    pub(crate) probe_tolerance: Option<f64>,
    /// What shapes the links [default: emulated]
    #[arg(long, value_name = "BACKEND", requires = "topology")]
    pub(crate) links: Option<Links>,
}

/// Who makes links slow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Links {
    /// The processes themselves, message by message; needs no rights.
    #[default]
    Emulated,
    /// A switch between processes with networks of their own, packet by packet, under real TCP.
    Namespaces,
}

// === impl NetworkArgs ===

impl NetworkArgs {
    /// The network for `workers` workers; `None` for the machine's own.
    ///
    /// # Errors
    /// [`Failure::Input`] for a topology that cannot be read, does not fit the workers or cannot be
    /// emulated, and for flags out of range.
    pub(crate) fn resolve(&self, workers: NonZeroUsize) -> Result<Option<Arc<Network>>, Failure> {
        let Some(name) = &self.topology else {
            return Ok(None);
        };
        let dilation = self.dilation.unwrap_or(1.0);
        if !(1.0..=MOST_DILATION).contains(&dilation) {
            return Err(Failure::input(format!(
                "--dilation holds {dilation:?}, expected 1 to {MOST_DILATION}"
            )));
        }
        let percent = self.probe_tolerance.unwrap_or(TOLERANCE);
        if !(percent > 0.0 && percent <= 1000.0) {
            return Err(Failure::input(format!(
                "--probe-tolerance holds {percent:?}, expected percent above 0 and at most 1000"
            )));
        }
        let topology = Topology::read(name)?;
        let links = self.links.unwrap_or_default();
        Network::new(topology, dilation, percent / 100.0, workers.get(), links)
            .map(|network| Some(Arc::new(network)))
    }
}
