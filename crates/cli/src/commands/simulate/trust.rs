//! What work takes, and how far that can be trusted.

use std::path::Path;

use expertmesh_bench::calibrate::{Domain, Profile};
use expertmesh_simulator::Costs;
use expertmesh_topology::Topology;

use crate::commands::simulate::SimulateArgs;
use crate::error::Failure;

/// How far a profile's costs can be trusted.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    /// Error that nine of ten points had, as a share: at held-out points where it was validated, else
    /// at those that it was fitted to.
    pub(super) error: f64,
    /// Latency and rate of the machine's loopback.
    pub(super) loopback: [f64; 2],
    pub(super) domain: Domain,
    /// Why figures are extrapolated whatever is simulated.
    pub(super) locked: Option<&'static str>,
    /// Why these are.
    pub(super) outside: Option<String>,
}

/// Costs, and how far off they are known to be.
pub(super) fn costs(
    args: &SimulateArgs,
    topology: &Topology,
) -> Result<(Costs, Option<Trust>), Failure> {
    let name = match (&args.costs, &args.profile) {
        (_, Some(file)) => {
            let profile = Profile::read(file)?;
            let (error, locked) = match profile.verdict {
                None => (profile.error.p90, Some("the profile was never validated")),
                Some(one) if one.passed => (one.error.p90, None),
                Some(one) => (one.error.p90, Some("the profile failed its validation")),
            };
            let trust = Trust {
                error,
                loopback: profile.loopback,
                domain: profile.domain,
                locked,
                outside: None,
            };
            return Ok((profile.costs, Some(trust)));
        }
        (Some(name), None) => name.as_str(),
        (None, None) => match Costs::preset(&topology.name) {
            Some(costs) => return Ok((costs, None)),
            None => "loopback",
        },
    };
    if let Some(costs) = Costs::preset(name) {
        return Ok((costs, None));
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
    Ok((costs, None))
}
