//! The rules of published systems, by name.

use super::{
    CapacityConfig, CapacityFormula, Overflow, Priority, QueueOrder, WeightRule, names::words,
};

/// The capacity rule of a published system: formula, order, which choices are refused, and what
/// becomes of the weights.
///
/// [`config`](Self::config) has the factors that the system has by default; put your own in with
/// struct update. All but MegaBlocks' count the tokens of one sender: set
/// [`share`](CapacityConfig::share) to as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CapacityPreset {
    /// Switch Transformer: the first tokens, top-1. Factors 1.25 and 2 are those of its training
    /// and evaluation.
    Switch,
    /// GShard, algorithm 1: all first choices before all second ones, weights normalised by the
    /// gate before the drop, factor 1.
    GShard,
    /// Megatron-LM, drop policy `probs`: the heaviest. It is dropless by default; factor 1.
    Megatron,
    /// Megatron-LM, drop policy `position`: the first; factor 1.
    MegatronPosition,
    /// DeepSpeed `top1gating` with random token selection; factors 1 and 1, at least 4.
    DeepSpeedTop1,
    /// DeepSpeed `top2gating`: all first choices before all second ones, weights normalised over
    /// what is left; factors 1 and 1, at least 4.
    DeepSpeedTop2,
    /// DeepSpeed `topkgating`, drop policy `probs`: the heaviest, weights normalised over what is
    /// left; factors 1 and 1, at least 4. Its gate must leave the probabilities as they are.
    DeepSpeedTopK,
    /// Tutel `extract_critical`: all first choices before all second ones, and so on; weights
    /// normalised by the gate before the drop; factor 1.
    Tutel,
    /// Tutel with batch-prioritised routing: as `tutel`, tokens by their highest probability.
    TutelBpr,
    /// MegaBlocks `MoE`: the first, over all senders; factor 1.
    MegaBlocks,
    /// FastMoE's GShard gate, with the first where that leaves the winners to a race; factors 1.2
    /// and 2.4.
    FastMoeGShard,
}

const PRESETS: [(&str, CapacityPreset); 11] = [
    ("switch", CapacityPreset::Switch),
    ("gshard", CapacityPreset::GShard),
    ("megatron", CapacityPreset::Megatron),
    ("megatron-position", CapacityPreset::MegatronPosition),
    ("deepspeed-top1", CapacityPreset::DeepSpeedTop1),
    ("deepspeed-top2", CapacityPreset::DeepSpeedTop2),
    ("deepspeed-topk", CapacityPreset::DeepSpeedTopK),
    ("tutel", CapacityPreset::Tutel),
    ("tutel-bpr", CapacityPreset::TutelBpr),
    ("megablocks", CapacityPreset::MegaBlocks),
    ("fastmoe-gshard", CapacityPreset::FastMoeGShard),
];

words!(CapacityPreset, "capacity preset", PRESETS);

// === impl CapacityPreset ===

impl CapacityPreset {
    /// Every preset.
    pub const ALL: [Self; 11] = [
        Self::Switch,
        Self::GShard,
        Self::Megatron,
        Self::MegatronPosition,
        Self::DeepSpeedTop1,
        Self::DeepSpeedTop2,
        Self::DeepSpeedTopK,
        Self::Tutel,
        Self::TutelBpr,
        Self::MegaBlocks,
        Self::FastMoeGShard,
    ];

    /// The rule, outside training.
    #[must_use]
    pub fn config(self) -> CapacityConfig {
        let first = CapacityConfig {
            factor: Some(1.0),
            overflow: Overflow::DropPosition,
            ..CapacityConfig::default()
        };
        let deepspeed = CapacityConfig {
            eval_factor: Some(1.0),
            formula: CapacityFormula::DeepSpeed,
            min_capacity: 4,
            ..first
        };
        let tutel = CapacityConfig {
            formula: CapacityFormula::Tutel,
            order: QueueOrder::ChoiceMajor,
            ..first
        };
        match self {
            Self::Switch => CapacityConfig {
                factor: Some(1.25),
                eval_factor: Some(2.0),
                formula: CapacityFormula::Switch,
                ..first
            },
            Self::GShard => CapacityConfig {
                formula: CapacityFormula::GShard,
                order: QueueOrder::ChoiceMajor,
                ..first
            },
            Self::Megatron => CapacityConfig {
                overflow: Overflow::DropWeight,
                ..first
            },
            Self::MegatronPosition => first,
            Self::DeepSpeedTop1 => CapacityConfig {
                overflow: Overflow::DropRandom,
                ..deepspeed
            },
            Self::DeepSpeedTop2 => CapacityConfig {
                order: QueueOrder::ChoiceMajor,
                weights: WeightRule::Renormalise,
                ..deepspeed
            },
            Self::DeepSpeedTopK => CapacityConfig {
                overflow: Overflow::DropWeight,
                weights: WeightRule::Renormalise,
                ..deepspeed
            },
            Self::Tutel => tutel,
            Self::TutelBpr => CapacityConfig {
                overflow: Overflow::DropPrioritised,
                priority: Priority::Probability,
                ..tutel
            },
            Self::MegaBlocks => CapacityConfig {
                formula: CapacityFormula::MegaBlocks,
                ..first
            },
            Self::FastMoeGShard => CapacityConfig {
                factor: Some(1.2),
                eval_factor: Some(2.4),
                formula: CapacityFormula::FastMoe,
                ..first
            },
        }
    }
}
