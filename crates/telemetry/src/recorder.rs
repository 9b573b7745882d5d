//! From one record a step to the run of a report.

pub mod bandwidth;
mod finish;
#[cfg(test)]
mod tests;

use crate::model::{ExpertOverflow, OverflowEvents, check_conservation};
use crate::{Histogram, Phase, TelemetryError};

/// What one step cost. Durations in nanoseconds, sizes in bytes.
///
/// Keep one and overwrite it: [`RunRecorder::record`] borrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRecord {
    /// Hidden states in to outputs out. Under an open load: from the time at which the step
    /// should have begun.
    pub step_ns: u64,
    /// Plan to outputs in token order.
    pub exchange_ns: u64,
    /// Start of packing to the last worker having its rows.
    pub dispatch_ns: u64,
    /// First result leaving a worker to outputs in token order.
    pub combine_ns: u64,
    /// By [`Phase::index`].
    pub phases_ns: [u64; Phase::COUNT],
    /// Longest time that one worker spent in experts.
    pub longest_experts_ns: u64,
    /// Error bound of comparing clocks; 0 where one clock timed everything.
    pub clock_error_ns: u64,
    /// Encoded bytes that left a process.
    pub payload_bytes: u64,
    /// Encoded bytes of rows that stayed at their home.
    pub local_bytes: u64,
    /// Bytes sent again because of retries and hedges.
    pub resent_bytes: u64,
    /// Bytes of expert weights that moved between workers.
    pub migrated_bytes: u64,
    /// Bytes that sending a row once for each of its experts would have added.
    pub saved_by_dedup_bytes: u64,
    /// Messages that carried `payload_bytes`.
    pub messages: u64,
    /// Encoded bytes by (source, destination) endpoint; empty where nothing moved.
    pub matrix: Vec<Vec<u64>>,
    /// Choices computed by each worker; empty where nobody counted.
    pub choices_per_worker: Vec<u64>,
}

/// Sums and histograms of a run's recorded steps; warm-up steps are simply not recorded.
///
/// A recorder takes 3.4 MiB up front. Recording a step allocates nothing once the first step has
/// told the number of experts and workers.
#[derive(Debug, Clone)]
pub struct RunRecorder {
    endpoints: Vec<String>,
    step: Histogram,
    exchange: Histogram,
    dispatch: Histogram,
    combine: Histogram,
    /// By [`Phase::index`].
    phases: Vec<Histogram>,
    /// A bench's floor, if it measured one.
    floor: Option<Histogram>,
    sums: Sums,
    /// Row-major `endpoints × endpoints`.
    matrix: Vec<u64>,
    per_expert: Vec<ExpertOverflow>,
    overflow_events: OverflowEvents,
    capacity_factor: Option<f64>,
    smallest_sufficient_capacity_factor: Option<f64>,
    /// Empty until a step counts by worker.
    choices_per_worker: Vec<u64>,
    wire_bytes: Option<u64>,
}

/// Exact sums, beside histograms that keep three digits. They saturate, because a step's figures
/// may come from another process.
#[derive(Debug, Clone, Default)]
struct Sums {
    step_ns: u64,
    exchange_ns: u64,
    longest_experts_ns: u64,
    critical_path_ns: u64,
    clock_error_ns: u64,
    payload_bytes: u64,
    local_bytes: u64,
    resent_bytes: u64,
    migrated_bytes: u64,
    saved_by_dedup_bytes: u64,
    messages: u64,
}

// === impl RunRecorder ===

impl RunRecorder {
    /// A recorder for a cluster of these endpoints, in the order of every step's matrix.
    pub fn new(endpoints: &[String]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            step: Histogram::new(),
            exchange: Histogram::new(),
            dispatch: Histogram::new(),
            combine: Histogram::new(),
            phases: vec![Histogram::new(); Phase::COUNT],
            floor: None,
            sums: Sums::default(),
            matrix: vec![0; endpoints.len() * endpoints.len()],
            per_expert: Vec::new(),
            overflow_events: OverflowEvents::default(),
            capacity_factor: None,
            smallest_sufficient_capacity_factor: None,
            choices_per_worker: Vec::new(),
            wire_bytes: None,
        }
    }

    /// Steps recorded so far.
    pub fn steps(&self) -> u64 {
        self.step.count()
    }

    /// Counts one step.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Length`] when the matrix is not endpoints × endpoints or the number of
    /// workers changed; nothing is recorded then.
    pub fn record(&mut self, step: &StepRecord) -> Result<(), TelemetryError> {
        self.check_matrix(&step.matrix)?;
        add_counts(
            &mut self.choices_per_worker,
            &step.choices_per_worker,
            "choices_per_worker",
        )?;
        self.step.record(step.step_ns);
        self.exchange.record(step.exchange_ns);
        self.dispatch.record(step.dispatch_ns);
        self.combine.record(step.combine_ns);
        for (histogram, ns) in self.phases.iter_mut().zip(step.phases_ns) {
            histogram.record(ns);
        }
        self.sums.add_step(step);
        for (sum, bytes) in self.matrix.iter_mut().zip(step.matrix.iter().flatten()) {
            *sum = sum.saturating_add(*bytes);
        }
        Ok(())
    }

    /// Counts what became of one step's choices, by expert.
    ///
    /// `smallest_sufficient` is the step's own; the run's is the largest of them.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::NotConserved`] when an expert's fates do not add up,
    /// [`TelemetryError::Length`] when the number of experts changed; nothing is recorded then.
    pub fn overflow(
        &mut self,
        per_expert: &[ExpertOverflow],
        capacity_factor: Option<f64>,
        smallest_sufficient: Option<f64>,
    ) -> Result<(), TelemetryError> {
        check_conservation(per_expert)?;
        if self.per_expert.is_empty() {
            self.per_expert
                .resize(per_expert.len(), ExpertOverflow::default());
        }
        check_length("per_expert", per_expert.len(), self.per_expert.len())?;
        for (sum, expert) in self.per_expert.iter_mut().zip(per_expert) {
            sum.add(expert);
        }
        self.capacity_factor = capacity_factor;
        self.smallest_sufficient_capacity_factor = larger(
            self.smallest_sufficient_capacity_factor,
            smallest_sufficient,
        );
        Ok(())
    }

    /// Counts what the overflow policy did in one step besides.
    pub fn overflow_events(&mut self, events: &OverflowEvents) {
        self.overflow_events.add(events);
    }

    /// Counts one floor: the time of the same bytes without any work.
    pub fn floor(&mut self, ns: u64) {
        self.floor.get_or_insert_default().record(ns);
    }

    /// Adds bytes that sockets carried for the recorded steps. Without a call the report's
    /// `wire_bytes` is null.
    pub fn wire_bytes(&mut self, bytes: u64) {
        self.wire_bytes = Some(self.wire_bytes.unwrap_or(0).saturating_add(bytes));
    }

    /// Adds everything that another recorder of the same cluster counted.
    ///
    /// # Errors
    ///
    /// [`TelemetryError::Endpoints`] when the endpoints differ, [`TelemetryError::Length`] when
    /// the numbers of experts or workers do; nothing is merged then.
    pub fn merge(&mut self, other: &RunRecorder) -> Result<(), TelemetryError> {
        if self.endpoints != other.endpoints {
            return Err(TelemetryError::Endpoints {
                found: other.endpoints.join(", "),
                expected: self.endpoints.join(", "),
            });
        }
        if !self.per_expert.is_empty() && !other.per_expert.is_empty() {
            check_length("per_expert", other.per_expert.len(), self.per_expert.len())?;
        }
        add_counts(
            &mut self.choices_per_worker,
            &other.choices_per_worker,
            "choices_per_worker",
        )?;
        self.step.merge(&other.step);
        self.exchange.merge(&other.exchange);
        self.dispatch.merge(&other.dispatch);
        self.combine.merge(&other.combine);
        for (mine, more) in self.phases.iter_mut().zip(&other.phases) {
            mine.merge(more);
        }
        if let Some(floor) = &other.floor {
            self.floor.get_or_insert_default().merge(floor);
        }
        self.sums.add(&other.sums);
        for (sum, bytes) in self.matrix.iter_mut().zip(&other.matrix) {
            *sum = sum.saturating_add(*bytes);
        }
        if self.per_expert.is_empty() {
            self.per_expert
                .resize(other.per_expert.len(), ExpertOverflow::default());
        }
        for (sum, expert) in self.per_expert.iter_mut().zip(&other.per_expert) {
            sum.add(expert);
        }
        self.overflow_events.add(&other.overflow_events);
        self.capacity_factor = self.capacity_factor.or(other.capacity_factor);
        self.smallest_sufficient_capacity_factor = larger(
            self.smallest_sufficient_capacity_factor,
            other.smallest_sufficient_capacity_factor,
        );
        if let Some(bytes) = other.wire_bytes {
            self.wire_bytes(bytes);
        }
        Ok(())
    }

    fn check_matrix(&self, matrix: &[Vec<u64>]) -> Result<(), TelemetryError> {
        if matrix.is_empty() {
            return Ok(());
        }
        check_length("matrix", matrix.len(), self.endpoints.len())?;
        match matrix
            .iter()
            .position(|row| row.len() != self.endpoints.len())
        {
            None => Ok(()),
            Some(row) => check_length(
                &format!("matrix[{row}]"),
                matrix[row].len(),
                self.endpoints.len(),
            ),
        }
    }
}

// === impl Sums ===

impl Sums {
    fn add_step(&mut self, step: &StepRecord) {
        let critical_path_ns = Phase::ALL
            .iter()
            .filter(|phase| phase.on_critical_path())
            .fold(0, |sum: u64, phase| {
                sum.saturating_add(step.phases_ns[phase.index()])
            });
        self.add(&Sums {
            step_ns: step.step_ns,
            exchange_ns: step.exchange_ns,
            longest_experts_ns: step.longest_experts_ns,
            critical_path_ns,
            clock_error_ns: step.clock_error_ns,
            payload_bytes: step.payload_bytes,
            local_bytes: step.local_bytes,
            resent_bytes: step.resent_bytes,
            migrated_bytes: step.migrated_bytes,
            saved_by_dedup_bytes: step.saved_by_dedup_bytes,
            messages: step.messages,
        });
    }

    fn add(&mut self, more: &Sums) {
        for (sum, more) in [
            (&mut self.step_ns, more.step_ns),
            (&mut self.exchange_ns, more.exchange_ns),
            (&mut self.longest_experts_ns, more.longest_experts_ns),
            (&mut self.critical_path_ns, more.critical_path_ns),
            (&mut self.payload_bytes, more.payload_bytes),
            (&mut self.local_bytes, more.local_bytes),
            (&mut self.resent_bytes, more.resent_bytes),
            (&mut self.migrated_bytes, more.migrated_bytes),
            (&mut self.saved_by_dedup_bytes, more.saved_by_dedup_bytes),
            (&mut self.messages, more.messages),
        ] {
            *sum = sum.saturating_add(more);
        }
        // An error bound holds for every step when it is the worst of them.
        self.clock_error_ns = self.clock_error_ns.max(more.clock_error_ns);
    }
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (some, None) | (None, some) => some,
    }
}

/// Adds counts entry by entry; an empty list on either side is "not counted".
fn add_counts(sums: &mut Vec<u64>, more: &[u64], field: &str) -> Result<(), TelemetryError> {
    if more.is_empty() {
        return Ok(());
    }
    if sums.is_empty() {
        sums.resize(more.len(), 0);
    }
    check_length(field, more.len(), sums.len())?;
    for (sum, count) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*count);
    }
    Ok(())
}

fn check_length(field: &str, found: usize, expected: usize) -> Result<(), TelemetryError> {
    if found == expected {
        return Ok(());
    }
    Err(TelemetryError::Length {
        field: field.to_owned(),
        found,
        expected,
    })
}
