//! Sums and histograms to the figures of a report.

use super::{RunRecorder, bandwidth};
use crate::model::{
    Balance, Communication, ExchangeKind, ExpertOverflow, Identity, LatencyUs, Load,
    OverflowReport, Run, Source,
};
use crate::{Histogram, Phase};
use std::collections::BTreeMap;

// === impl RunRecorder ===

impl RunRecorder {
    /// The run of a report.
    ///
    /// `clock` says where this run's times come from; counts of bytes, messages and choices are
    /// measured under every clock. The recorder's endpoints and number of steps replace those of
    /// `identity` and `load`. Losses, bands and the choice of
    /// the exchange are the caller's to add.
    pub fn finish(
        &self,
        mut identity: Identity,
        mut load: Load,
        clock: Source,
        digest: Option<String>,
    ) -> Run {
        identity.endpoints.clone_from(&self.endpoints);
        load.steps = self.steps();
        let exchange = identity.exchange;
        let mut run = Run {
            environment: None,
            identity,
            exchange_choice: None,
            load,
            latency_us: self.latency(),
            communication: self.communication(exchange),
            overflow: OverflowReport {
                events: self.overflow_events.clone(),
                ..OverflowReport::of(
                    self.per_expert.clone(),
                    self.capacity_factor,
                    self.smallest_sufficient_capacity_factor,
                )
            },
            balance: self.balance(),
            losses: BTreeMap::new(),
            source: BTreeMap::new(),
            bands: BTreeMap::new(),
            digest,
        };
        run.source = sources(&run, clock);
        run
    }

    fn latency(&self) -> LatencyUs {
        let phases = Phase::ALL.iter().zip(&self.phases);
        LatencyUs {
            step: self.step.summary(),
            exchange: self.exchange.summary(),
            dispatch: self.dispatch.summary(),
            combine: self.combine.summary(),
            floor: self.floor.as_ref().map(Histogram::summary),
            phases: phases
                .map(|(phase, ns)| (phase.to_string(), ns.summary()))
                .collect(),
            residual_share: share(
                self.sums.step_ns as f64 - self.sums.critical_path_ns as f64,
                self.sums.step_ns,
            ),
            clock_error_us: (self.sums.clock_error_ns > 0)
                .then(|| self.sums.clock_error_ns as f64 / 1000.0),
            distribution: [("step", &self.step), ("exchange", &self.exchange)]
                .into_iter()
                .filter(|(_, samples)| samples.count() > 0)
                .map(|(name, samples)| (name.to_owned(), samples.distribution()))
                .collect(),
        }
    }

    fn communication(&self, exchange: ExchangeKind) -> Communication {
        let matrix_bytes = match self.endpoints.len() {
            0 => Vec::new(),
            n => self.matrix.chunks(n).map(<[u64]>::to_vec).collect(),
        };
        let algbw_gbps = bandwidth::algbw_gbps(&matrix_bytes, self.sums.exchange_ns);
        let busbw_gbps = match exchange {
            ExchangeKind::Star => None,
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => {
                algbw_gbps.map(|algbw| bandwidth::busbw_gbps(algbw, self.endpoints.len()))
            }
        };
        Communication {
            payload_bytes: self.sums.payload_bytes,
            wire_bytes: self.wire_bytes,
            local_bytes: self.sums.local_bytes,
            resent_bytes: self.sums.resent_bytes,
            migrated_bytes: self.sums.migrated_bytes,
            messages: self.sums.messages,
            saved_by_dedup_bytes: self.sums.saved_by_dedup_bytes,
            time_share: share(
                self.sums.exchange_ns as f64 - self.sums.longest_experts_ns as f64,
                self.sums.step_ns,
            ),
            matrix_bytes,
            algbw_gbps,
            busbw_gbps,
        }
    }

    fn balance(&self) -> Balance {
        let demand: Vec<u64> = self.per_expert.iter().map(ExpertOverflow::demand).collect();
        let workers = (!self.choices_per_worker.is_empty()).then_some(&*self.choices_per_worker);
        Balance::of(&demand, workers)
    }
}

/// Source of every figure that a run has, by path.
fn sources(run: &Run, clock: Source) -> BTreeMap<String, Source> {
    const TIMED: [&str; 8] = [
        "load",
        "latency_us.step",
        "latency_us.exchange",
        "latency_us.dispatch",
        "latency_us.combine",
        "latency_us.residual_share",
        "communication.time_share",
        "communication.algbw_gbps",
    ];
    const COUNTED: [&str; 9] = [
        "communication.payload_bytes",
        "communication.local_bytes",
        "communication.resent_bytes",
        "communication.migrated_bytes",
        "communication.messages",
        "communication.saved_by_dedup_bytes",
        "communication.matrix_bytes",
        "overflow",
        "balance",
    ];
    // A figure that this run does not have gets no entry.
    let optional = [
        ("latency_us.floor", run.latency_us.floor.is_some(), clock),
        (
            "latency_us.clock_error_us",
            run.latency_us.clock_error_us.is_some(),
            clock,
        ),
        (
            "latency_us.distribution",
            !run.latency_us.distribution.is_empty(),
            clock,
        ),
        (
            "communication.busbw_gbps",
            run.communication.busbw_gbps.is_some(),
            clock,
        ),
        (
            "communication.wire_bytes",
            run.communication.wire_bytes.is_some(),
            Source::Measured,
        ),
    ];
    let phases = run
        .latency_us
        .phases
        .keys()
        .map(|name| format!("latency_us.phases.{name}"));
    TIMED
        .map(|path| (path.to_owned(), clock))
        .into_iter()
        .chain(phases.map(|path| (path, clock)))
        .chain(COUNTED.map(|path| (path.to_owned(), Source::Measured)))
        .chain(
            optional
                .into_iter()
                .filter(|(_, present, _)| *present)
                .map(|(path, _, source)| (path.to_owned(), source)),
        )
        .collect()
}

fn share(part: f64, whole_ns: u64) -> Option<f64> {
    (whole_ns > 0).then(|| part / whole_ns as f64)
}
