//! What a stack tells its clients: sums over its layers.

use std::collections::BTreeMap;

use expertmesh_telemetry::Phase;
use expertmesh_wire::v1;

use super::{Stack, StackOutput};
use crate::connect::Coordinator;
use crate::error::CoordinatorError;
use crate::service::report;

// === impl Stack ===

impl Stack {
    /// What `Cluster` answers: the first layer, with the time that all of them may take.
    pub fn cluster(&self) -> v1::ClusterReply {
        let layers = self.layers.iter().map(|layer| layer.cluster());
        let all = layers.reduce(|mut first, other| {
            first.deadline_us = first.deadline_us.saturating_add(other.deadline_us);
            first.layers += other.layers;
            first
        });
        all.unwrap_or_default()
    }

    /// What the data links of all layers were handed and carried, as [`Coordinator::traffic`].
    ///
    /// # Errors
    /// A worker that does not answer, named.
    pub async fn traffic(&self) -> Result<Vec<v1::LinkTraffic>, CoordinatorError> {
        let mut links: BTreeMap<(u32, u32), v1::LinkTraffic> = BTreeMap::new();
        for layer in &self.layers {
            for link in layer.traffic().await? {
                let sum = links.entry((link.source, link.destination));
                let sum = sum.or_insert_with(|| v1::LinkTraffic {
                    source: link.source,
                    destination: link.destination,
                    ..v1::LinkTraffic::default()
                });
                sum.messages += link.messages;
                sum.message_bytes += link.message_bytes;
                sum.wire_bytes += link.wire_bytes;
            }
        }
        Ok(links.into_values().collect())
    }

    pub(crate) fn first(&self) -> Option<&Coordinator> {
        self.layers.first().map(AsRef::as_ref)
    }
}

// === impl StackOutput ===

impl StackOutput {
    /// The report of all layers: durations, bytes and choices are sums, with the residual and the
    /// exit gate in the step and in the phases `combine` and `gate`. The critical endpoint is that
    /// of the longest exchange.
    pub fn report(&self) -> v1::StepReport {
        let mut reports = self.layers.iter().map(report);
        let mut all = reports.next().unwrap_or_default();
        let mut longest_ns = all.exchange_ns;
        for one in reports {
            if one.exchange_ns > longest_ns {
                longest_ns = one.exchange_ns;
                all.critical_endpoint = one.critical_endpoint;
            }
            add(&mut all, &one);
        }
        all.step_ns += self.residual_ns + self.exit_ns;
        for (phase, ns) in [
            (Phase::Combine, self.residual_ns),
            (Phase::Gate, self.exit_ns),
        ] {
            if let Some(sum) = all.phases_ns.get_mut(phase.name()) {
                *sum += ns;
            }
        }
        all
    }
}

fn add(all: &mut v1::StepReport, one: &v1::StepReport) {
    all.step_ns += one.step_ns;
    all.exchange_ns += one.exchange_ns;
    all.dispatch_ns += one.dispatch_ns;
    all.combine_ns += one.combine_ns;
    for (phase, ns) in &one.phases_ns {
        *all.phases_ns.entry(phase.clone()).or_default() += ns;
    }
    all.longest_experts_ns += one.longest_experts_ns;
    all.clock_error_ns += one.clock_error_ns;
    let mut links: BTreeMap<(u32, u32), v1::LinkBytes> = BTreeMap::new();
    for link in all.traffic.drain(..).chain(one.traffic.iter().cloned()) {
        let place = (link.source, link.destination);
        match links.get_mut(&place) {
            None => {
                links.insert(place, link);
            }
            Some(sum) => {
                sum.messages += link.messages;
                sum.rows += link.rows;
                sum.bytes += link.bytes;
            }
        }
    }
    all.traffic = links.into_values().collect();
    all.lanes.extend_from_slice(&one.lanes);
    all.local_bytes += one.local_bytes;
    all.saved_by_dedup_bytes += one.saved_by_dedup_bytes;
    add_each(&mut all.choices_per_endpoint, &one.choices_per_endpoint);
    if let (Some(all), Some(one)) = (&mut all.overflow, &one.overflow) {
        add_overflow(all, one);
    }
}

/// Capacities and what would have sufficed are the largest of any layer.
fn add_overflow(all: &mut v1::Overflow, one: &v1::Overflow) {
    for (sum, one) in all.per_expert.iter_mut().zip(&one.per_expert) {
        sum.assigned += one.assigned;
        sum.computed += one.computed;
        sum.rerouted += one.rerouted;
        sum.dropped += one.dropped;
        sum.skipped += one.skipped;
        sum.lost += one.lost;
        sum.assigned_weight += one.assigned_weight;
        sum.lost_weight += one.lost_weight;
        sum.received += one.received;
    }
    all.capacity = all.capacity.max(one.capacity);
    all.smallest_sufficient_capacity_factor = all
        .smallest_sufficient_capacity_factor
        .max(one.smallest_sufficient_capacity_factor);
    all.tokens_without_expert += one.tokens_without_expert;
    all.spilled += one.spilled;
    all.waves = all.waves.max(one.waves);
    all.replays += one.replays;
    add_each(&mut all.dropped_by_slot, &one.dropped_by_slot);
}

fn add_each(sums: &mut Vec<u64>, more: &[u64]) {
    if sums.len() < more.len() {
        sums.resize(more.len(), 0);
    }
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}
