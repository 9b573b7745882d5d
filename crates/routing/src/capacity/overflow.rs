//! What a full expert does, and who is served first.

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::names::words;
use crate::error::RoutingError;

/// What happens to the choices that find their expert (or its worker) full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// No expert is ever full.
    #[default]
    Dropless,
    /// The first in the queue are kept, the rest dropped.
    DropPosition,
    /// The heaviest gate weights are kept, ties to the first in the queue, the rest dropped.
    DropWeight,
    /// As many as there is room for are kept, drawn by the run's seed, the rest dropped
    /// (DeepSpeed's random token selection).
    DropRandom,
    /// Tokens queue by [`Priority`], ties to the lower token; the first are kept, the rest dropped
    /// (batch-prioritised routing of V-MoE, Tutel and NLLB).
    DropPrioritised,
    /// Once every choice has asked its own expert, each that was refused goes to the token's
    /// expert of the next highest logit, ties to the lower index, that has room and that the
    /// token has not chosen, and computes with the weight that the gate gave. No such expert: it
    /// is dropped.
    Reroute,
    /// Each domain of an expert has room of its own. Once every choice has asked its expert's
    /// first, each that was refused goes to the next one with room. No such domain: it is
    /// dropped.
    RerouteToReplica,
    /// The capacity bounds a wave: what exceeds it is sent in the next, and so on for 256 waves.
    /// What exceeds those, or any wave of capacity 0, is dropped.
    Spill,
    /// Capacity grows to what the batch needs, and the batch is admitted again.
    GrowAndReplay,
}

/// In which order the choices of a batch ask for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QueueOrder {
    /// All choices of the first token, then those of the second, and so on.
    #[default]
    TokenMajor,
    /// The first choice of every token, then the second of every token, and so on (GShard).
    ChoiceMajor,
}

/// What ranks a token under [`Overflow::DropPrioritised`], highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Its highest gate weight.
    #[default]
    GateWeight,
    /// The highest probability of the softmax of all its logits (Tutel, whose gate weights are
    /// normalised afterwards).
    Probability,
}

/// Whose room a capacity bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CapacityScope {
    /// Each expert has the formula's capacity.
    #[default]
    Expert,
    /// Each worker has a receive budget, which its experts share: the formula with the number of
    /// workers in the place of the number of experts.
    Worker,
}

/// The tokens that share a capacity, which then follows from their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CapacityShare {
    /// All of the batch: senders agree.
    #[default]
    Batch,
    /// Those of each of `n` senders: sender `i` has the tokens `T·i/n..T·(i + 1)/n`.
    Senders(NonZeroU32),
    /// Those of each sequence.
    Sequence,
}

/// What becomes of a token's gate weights after its choices were admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightRule {
    /// Nothing: the output lacks what was dropped.
    #[default]
    Keep,
    /// The weights of the choices that were not dropped are divided by the greater of their sum
    /// (f32, in slot order) and 2^-23, for every token (DeepSpeed's top-2 and top-k).
    Renormalise,
    /// A token that lost a choice loses all: its other choices are dropped too, and the room that
    /// they had stays empty.
    Zero,
}

const OVERFLOWS: [(&str, Overflow); 12] = [
    ("dropless", Overflow::Dropless),
    ("drop-position", Overflow::DropPosition),
    ("drop-weight", Overflow::DropWeight),
    ("drop-random", Overflow::DropRandom),
    ("drop-prioritised", Overflow::DropPrioritised),
    ("reroute", Overflow::Reroute),
    ("reroute-to-replica", Overflow::RerouteToReplica),
    ("spill", Overflow::Spill),
    ("grow-and-replay", Overflow::GrowAndReplay),
    // Short words.
    ("drop", Overflow::DropPosition),
    ("bpr", Overflow::DropPrioritised),
    ("grow", Overflow::GrowAndReplay),
];

const ORDERS: [(&str, QueueOrder); 2] = [
    ("token-major", QueueOrder::TokenMajor),
    ("choice-major", QueueOrder::ChoiceMajor),
];

const PRIORITIES: [(&str, Priority); 2] = [
    ("gate-weight", Priority::GateWeight),
    ("probability", Priority::Probability),
];

const SCOPES: [(&str, CapacityScope); 2] = [
    ("expert", CapacityScope::Expert),
    ("worker", CapacityScope::Worker),
];

const WEIGHT_RULES: [(&str, WeightRule); 3] = [
    ("keep", WeightRule::Keep),
    ("renormalise", WeightRule::Renormalise),
    ("zero", WeightRule::Zero),
];

words!(Overflow, "overflow", OVERFLOWS);
words!(QueueOrder, "queue order", ORDERS);
words!(Priority, "priority", PRIORITIES);
words!(CapacityScope, "capacity scope", SCOPES);
words!(WeightRule, "weight rule", WEIGHT_RULES);

// === impl Overflow ===

impl Overflow {
    /// Every policy.
    pub const ALL: [Self; 9] = [
        Self::Dropless,
        Self::DropPosition,
        Self::DropWeight,
        Self::DropRandom,
        Self::DropPrioritised,
        Self::Reroute,
        Self::RerouteToReplica,
        Self::Spill,
        Self::GrowAndReplay,
    ];
}

// === impl CapacityShare ===

/// `batch`, `sequence` or `senders:4`.
impl fmt::Display for CapacityShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.pad("batch"),
            Self::Senders(senders) => f.pad(&format!("senders:{senders}")),
            Self::Sequence => f.pad("sequence"),
        }
    }
}

impl FromStr for CapacityShare {
    type Err = RoutingError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let senders = |count: &str| count.parse().ok().map(Self::Senders);
        let share = match name {
            "batch" => Some(Self::Batch),
            "sequence" => Some(Self::Sequence),
            _ => name.strip_prefix("senders:").and_then(senders),
        };
        share.ok_or_else(|| {
            let expected = "batch, sequence or senders:N with N of at least 1";
            RoutingError::config("capacity share", format!("{name:?}"), expected)
        })
    }
}
