//! What an admission answers.

use crate::route::{Fate, Route};

/// What is to be done for every choice: the gate's answer after capacity.
///
/// Tables that would repeat the route are absent: the usual step copies nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Admission {
    /// `[choices]`: computed, rerouted, dropped or skipped. A failure may turn computed and
    /// rerouted into lost later.
    pub fates: Vec<Fate>,
    /// `[choices]` the expert that computes each, where one was rerouted; `None`: the expert that
    /// the gate chose.
    pub executed: Option<Vec<u32>>,
    /// `[choices]` the weight that the result is multiplied by; `None`: the gate weight. Of no
    /// meaning where nothing is computed.
    pub weights: Option<Vec<f32>>,
    /// `[choices]` which of its expert's domains computes each; `None`: the first.
    pub replicas: Option<Vec<u8>>,
    /// `[choices]` the wave that each is sent in; `None`: all in the first.
    pub waves: Option<Vec<u8>>,
    /// Choices that each expert (or worker) accepted at most, of the tokens that share a capacity
    /// and in a wave; the largest where several do; `None` without a limit.
    pub capacity: Option<u64>,
    /// How often the batch was admitted again under a larger capacity.
    pub replays: u32,
}

// === impl Admission ===

impl Admission {
    /// The expert that computes `choice` of `route`.
    #[must_use]
    pub fn executed(&self, route: &Route, choice: usize) -> u32 {
        self.executed.as_ref().unwrap_or(&route.experts)[choice]
    }

    /// What the result of `choice` is multiplied by.
    #[must_use]
    pub fn weight(&self, route: &Route, choice: usize) -> f32 {
        self.weights.as_ref().unwrap_or(&route.weights)[choice]
    }

    /// Which of its expert's domains computes `choice`.
    #[must_use]
    pub fn replica(&self, choice: usize) -> u8 {
        self.replicas
            .as_ref()
            .map_or(0, |replicas| replicas[choice])
    }

    /// The wave that `choice` is sent in.
    #[must_use]
    pub fn wave(&self, choice: usize) -> u8 {
        self.waves.as_ref().map_or(0, |waves| waves[choice])
    }
}
