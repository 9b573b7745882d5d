//! A run over emulated links: whose figures they are, and in whose time.

use crate::histogram::Latency;
use crate::model::{Run, Source};

/// Figures that a clock tells, by the beginning of their paths; the others are counts.
const TIMED: [&str; 5] = [
    "load",
    "latency_us.",
    "communication.time_share",
    "communication.algbw_gbps",
    "communication.busbw_gbps",
];

// === impl Run ===

impl Run {
    /// Says that its times were taken over emulated links, and turns them into those of the topology
    /// that time was stretched for: durations divided by `dilation`, rates multiplied by it.
    pub fn emulate(&mut self, dilation: f64) {
        for (path, source) in &mut self.source {
            if TIMED.iter().any(|timed| path.starts_with(timed)) && *source == Source::Measured {
                *source = Source::Emulated;
            }
        }
        let latency = &mut self.latency_us;
        let named = [
            &mut latency.step,
            &mut latency.exchange,
            &mut latency.dispatch,
            &mut latency.combine,
        ];
        let others = latency.floor.iter_mut().chain(latency.phases.values_mut());
        named
            .into_iter()
            .chain(others)
            .for_each(|one| shrink(one, dilation));
        let times = [&mut latency.clock_error_us, &mut self.load.max_lag_us];
        times
            .into_iter()
            .flatten()
            .for_each(|time| *time /= dilation);
        let rates = [
            &mut self.load.offered_per_s,
            &mut self.load.achieved_per_s,
            &mut self.communication.algbw_gbps,
            &mut self.communication.busbw_gbps,
        ];
        rates
            .into_iter()
            .flatten()
            .for_each(|rate| *rate *= dilation);
    }
}

fn shrink(latency: &mut Latency, dilation: f64) {
    let always = [&mut latency.min, &mut latency.mean, &mut latency.max];
    let some = [
        &mut latency.p50,
        &mut latency.p90,
        &mut latency.p95,
        &mut latency.p99,
        &mut latency.p999,
    ];
    let some = some.into_iter().flatten();
    always
        .into_iter()
        .chain(some)
        .for_each(|time| *time /= dilation);
}
