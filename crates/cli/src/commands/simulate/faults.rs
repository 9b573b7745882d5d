//! What goes wrong in a simulation, as a flag spells it.

use std::str::FromStr;

use expertmesh_bench::simulate::Simulated;
use expertmesh_report::human;
use expertmesh_simulator::{Failure as How, Fault};

use crate::args::values::Wait;

/// One fault; workers count from 0, as their names do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FaultFlag(pub(crate) Fault);

/// A line for each fault that was to come after the last exchange.
pub(super) fn to_come(simulated: &Simulated) -> Vec<String> {
    let ended = human::duration(simulated.elapsed_ns as f64 / 1e3);
    let faults = simulated.faults_to_come.iter();
    let lines = faults.filter_map(|fault| match fault {
        Fault::Lost {
            endpoint, at_ns, ..
        } => Some(format!(
            "worker {} was to fail at {}, which no exchange was under way to see: the simulation ended at \
             {ended}",
            endpoint - 1,
            human::duration(*at_ns as f64 / 1e3)
        )),
        _ => None,
    });
    lines.collect()
}

// === impl FaultFlag ===

impl FaultFlag {
    pub(super) fn worker(self) -> u32 {
        match self.0 {
            Fault::SlowCompute { endpoint, .. }
            | Fault::SlowLink { endpoint, .. }
            | Fault::Lost { endpoint, .. } => endpoint - 1,
        }
    }
}

impl FromStr for FaultFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected slow-compute:WORKER:FACTOR, slow-link:WORKER:FACTOR, dies:WORKER:TIME or \
             hangs:WORKER:TIME, such as slow-compute:3:2.5 or dies:0:5ms"
                .to_owned()
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [what, worker, much] = parts[..] else {
            return Err(expected());
        };
        let worker: u32 = worker.parse().map_err(|_| expected())?;
        let endpoint = worker.checked_add(1).ok_or_else(expected)?;
        let factor = || much.parse::<f64>().map_err(|_| expected());
        let lost = |how| {
            let at: Wait = much.parse().map_err(|_| expected())?;
            let at_ns = u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX);
            Ok::<Fault, String>(Fault::Lost {
                endpoint,
                at_ns,
                how,
            })
        };
        let fault = match what {
            "slow-compute" => Fault::SlowCompute {
                endpoint,
                factor: factor()?,
            },
            "slow-link" => Fault::SlowLink {
                endpoint,
                factor: factor()?,
            },
            "dies" => lost(How::Dies)?,
            "hangs" => lost(How::Hangs)?,
            _ => return Err(expected()),
        };
        Ok(Self(fault))
    }
}
