//! The line by which a role says that it serves.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::output;

/// What kind of endpoint a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Worker,
    Coordinator,
}

/// Printed as one line of JSON on stdout once the endpoint serves:
/// `{"role":"worker","name":"worker-0","address":"127.0.0.1:41234","pid":4711}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) role: Role,
    pub(crate) name: String,
    /// `host:port` with the port that the system chose.
    pub(crate) address: String,
    pub(crate) pid: u32,
}

// === impl Ready ===

impl Ready {
    /// What this process has to say.
    pub(crate) fn new(role: Role, name: &str, address: SocketAddr) -> Self {
        Self {
            role,
            name: name.to_owned(),
            address: address.to_string(),
            pid: std::process::id(),
        }
    }

    /// Says it.
    pub(crate) fn announce(&self) -> Result<(), Failure> {
        let line = serde_json::to_string(self)
            .map_err(|error| Failure::run(format!("cannot write the ready line: {error}")))?;
        output::print(&format!("{line}\n"))
    }
}
