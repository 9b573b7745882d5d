//! The same machines with one thing faster, for "what would change it".

use crate::model::{Link, Topology, Uplink};

/// By what a topology is multiplied; 1 leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Every rate: network ports, links of a tier, uplinks, links that pairs have to themselves.
    pub rates: f64,
    /// Every latency. Jitter and overheads stay: they are of hosts, not of the way.
    pub latencies: f64,
    /// What devices do in a second: peak and memory; their launches take so much less.
    pub devices: f64,
}

// === impl Scale ===

impl Default for Scale {
    fn default() -> Self {
        Self {
            rates: 1.0,
            latencies: 1.0,
            devices: 1.0,
        }
    }
}

// === impl Topology ===

impl Topology {
    /// The same machines, every link and device multiplied by `by`, wherever the file states it.
    #[must_use]
    pub fn scaled(&self, by: Scale) -> Self {
        let mut other = self.clone();
        other.tiers.host.scale(by);
        other.tiers.rack.scale(by);
        if let Some(spine) = &mut other.tiers.spine {
            spine.link.scale(by);
            // An oversubscribed uplink follows the ports of its hosts.
            if let Uplink::Rate(rate) = &mut spine.uplink {
                *rate *= by.rates;
            }
        }
        for host in &mut other.hosts {
            host.bytes_per_ns *= by.rates;
        }
        for own in &mut other.overrides {
            own.bytes_per_ns = own.bytes_per_ns.map(|rate| rate * by.rates);
            own.latency_ns = own.latency_ns.map(|ns| times(ns, by.latencies));
        }
        for device in &mut other.devices {
            device.flops *= by.devices;
            device.memory_bytes_per_s *= by.devices;
            device.launch_ns = times(device.launch_ns, 1.0 / by.devices);
        }
        other
    }

    /// Whether this is the preset `name` as it comes with the program, and not another file that has
    /// its name.
    #[must_use]
    pub fn is_preset(&self, name: &str) -> bool {
        Self::preset(name).is_ok_and(|preset| preset.origin.text == self.origin.text)
    }
}

// === impl Link ===

impl Link {
    fn scale(&mut self, by: Scale) {
        self.bytes_per_ns *= by.rates;
        self.latency_ns = times(self.latency_ns, by.latencies);
    }
}

/// Rounded to a nanosecond; a float becomes an integer by saturation.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn times(ns: u64, factor: f64) -> u64 {
    (ns as f64 * factor).round() as u64
}
