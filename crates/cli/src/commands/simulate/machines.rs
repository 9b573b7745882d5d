//! What steps are simulated on: machines, what work takes there, and whose cores processes share.

use std::num::NonZeroUsize;
use std::path::Path;

use expertmesh_bench::calibrate::Profile;
use expertmesh_simulator::Costs;
use expertmesh_telemetry::Source;
use expertmesh_topology::{Fabric, Topology};

use crate::args::process::threads_each;
use crate::commands::cores;
use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::trust::Trust;
use crate::error::Failure;

/// Machines that are not there, or the one that a profile was taken on.
#[derive(Debug, Clone)]
pub(crate) struct Machines {
    pub(crate) topology: Topology,
    pub(crate) costs: Costs,
    /// Cores of the one machine that all processes run on, whatever host the topology gives them:
    /// its links are emulated there. `None`: every host has the cores that the topology says.
    pub(crate) cores: Option<u32>,
    /// What is known of the costs' errors; `None` for presets.
    pub(crate) trust: Option<Trust>,
}

// === impl Machines ===

impl Machines {
    /// Those that the flags of `simulate` name.
    ///
    /// # Errors
    /// [`Failure::Input`] for a topology, a profile or costs that cannot be read.
    pub(super) fn read(args: &SimulateArgs) -> Result<Self, Failure> {
        let topology = Topology::read(args.topology.as_deref().unwrap_or("loopback"))?;
        if let Some(file) = &args.profile {
            return Ok(Self::calibrated(&Profile::read(file)?, topology));
        }
        Ok(Self {
            costs: costs(args.costs.as_deref(), &topology)?,
            topology,
            cores: None,
            trust: None,
        })
    }

    /// The machine of `profile`: what `launch` would start on it, with the links of `topology`
    /// emulated between its processes, or its own where that is loopback.
    pub(crate) fn calibrated(profile: &Profile, mut topology: Topology) -> Self {
        // A file that is called so has links of its own.
        let links = match topology.is_preset("loopback") {
            true => {
                profile.on_loopback(&mut topology);
                None
            }
            false => Some(topology.name.clone()),
        };
        Self {
            topology,
            costs: profile.costs.clone(),
            cores: Some(profile.environment.cores),
            trust: Some(Trust::of(profile, links)),
        }
    }

    /// This machine, of which only its cores are known: preset costs of a loopback, whatever links of
    /// `topology` are emulated on it.
    pub(super) fn here(topology: Topology) -> Self {
        Self {
            topology,
            costs: Costs::loopback(),
            cores: Some(u32::try_from(cores().get()).unwrap_or(u32::MAX)),
            trust: None,
        }
    }

    /// Compute threads of each worker on `fabric`, unless told otherwise: the cores that it shares,
    /// dealt out, and at least one; those of the worker that gets the fewest.
    pub(crate) fn threads(&self, fabric: &Fabric) -> usize {
        let fewest = match self.cores {
            Some(cores) => threads_each(cores as usize, fabric.endpoints() - 1),
            None => {
                let by_host = fabric.workers_by_host();
                let hosts = (0..).zip(&by_host).filter(|(_, of)| !of.is_empty());
                let each = hosts
                    .map(|(host, of)| threads_each(fabric.cores_of_host(host) as usize, of.len()));
                each.min().unwrap_or(NonZeroUsize::MIN)
            }
        };
        fewest.get()
    }

    /// What times are that are computed of these.
    pub(super) fn source(&self) -> Source {
        match &self.trust {
            None => self.costs.source,
            Some(trust) if trust.outside.is_some() => Source::Extrapolated,
            Some(_) => Source::Calibrated,
        }
    }

    /// Whose cores they are, where all processes share them: `, all processes on the 2 cores of one
    /// machine`.
    pub(super) fn place(&self) -> String {
        match self.cores {
            None => String::new(),
            Some(1) => ", all processes on the 1 core of one machine".to_owned(),
            Some(cores) => format!(", all processes on the {cores} cores of one machine"),
        }
    }
}

/// Costs by name, from a file, or those that go with the topology.
fn costs(named: Option<&str>, topology: &Topology) -> Result<Costs, Failure> {
    let name = match named {
        Some(name) => name,
        None => match Costs::preset(&topology.name) {
            Some(costs) => return Ok(costs),
            None => "loopback",
        },
    };
    if let Some(costs) = Costs::preset(name) {
        return Ok(costs);
    }
    if !Path::new(name).exists() {
        let known = Costs::preset_names().join(", ");
        return Err(Failure::input(format!(
            "--costs is `{name}`, expected a TOML file or one of {known}"
        )));
    }
    let text = std::fs::read_to_string(name)
        .map_err(|error| Failure::input(format!("cannot read {name}: {error}")))?;
    let costs = Costs::parse(&text).map_err(|error| Failure::input(format!("{name}: {error}")))?;
    Ok(unproven(costs))
}

/// Costs that somebody wrote down: whatever they say of themselves, nothing here has measured them.
fn unproven(mut costs: Costs) -> Costs {
    let all = std::iter::once(&mut costs.source).chain(costs.sources.values_mut());
    for source in all.filter(|source| **source != Source::Extrapolated) {
        *source = Source::Preset;
    }
    costs
}
