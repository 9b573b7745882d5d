//! From a factor to a capacity, as each system has it.

use super::names::words;

/// How a capacity follows from a factor `CF`, for `T` tokens of `k` choices and `E` experts.
///
/// All in f64 and in each system's own order of operations, because a factor should mean here what
/// it means there. `int` cuts off the fraction. What has `W` workers multiply their `T` or divide
/// their `E` there is one number here: `T` counts all tokens that share the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CapacityFormula {
    /// `ceil(T·k/E · CF)`: Megatron-LM, `get_capacity`.
    #[default]
    Megatron,
    /// `int(T/E · CF)`, whatever `k`: Switch Transformer (arXiv 2101.03961), equation 3.
    Switch,
    /// `int(k·T·CF / E)`: GShard (arXiv 2006.16668), section 2.2, whose `2N/(G·E)` is `k` = 2 and
    /// `CF` = 1; in the order of Mesh-TensorFlow's gating.
    GShard,
    /// `ceil(T/E · (CF·k))`: DeepSpeed, `_capacity`, which multiplies in f32: 1.1 times 50 is 55
    /// there and 55.00000000000001 in Megatron. Its top-k call clamps to `T`, which changes no
    /// choice: an expert has at most one of each token.
    DeepSpeed,
    /// `k · int(CF · ceil(T/E))`: Tutel, `extract_critical`. A factor of 0 gives what is needed, a
    /// factor below 0 what is needed up to the formula with its magnitude.
    Tutel,
    /// `int(CF · (k·T/E))`: MegaBlocks, `expert_capacity`. Where that is 0, because the factor is
    /// or because it was cut off, it gives what is needed.
    MegaBlocks,
    /// `ceil(CF·T) · k div E`: FastMoE's GShard gate.
    FastMoe,
}

const FORMULAS: [(&str, CapacityFormula); 7] = [
    ("megatron", CapacityFormula::Megatron),
    ("switch", CapacityFormula::Switch),
    ("gshard", CapacityFormula::GShard),
    ("deepspeed", CapacityFormula::DeepSpeed),
    ("tutel", CapacityFormula::Tutel),
    ("megablocks", CapacityFormula::MegaBlocks),
    ("fastmoe", CapacityFormula::FastMoe),
];

words!(CapacityFormula, "capacity formula", FORMULAS);

// === impl CapacityFormula ===

impl CapacityFormula {
    /// Every formula.
    pub const ALL: [Self; 7] = [
        Self::Megatron,
        Self::Switch,
        Self::GShard,
        Self::DeepSpeed,
        Self::Tutel,
        Self::MegaBlocks,
        Self::FastMoe,
    ];

    /// The formula for a factor above 0, without minimum, alignment or what is automatic. Never
    /// falls as the factor grows; a factor past all reason gives `u64::MAX`, and no experts count
    /// as one.
    #[must_use]
    pub fn apply(self, tokens: usize, top_k: usize, experts: usize, factor: f64) -> u64 {
        let experts = experts.max(1);
        let (t, k, e) = (tokens as f64, top_k as f64, experts as f64);
        match self {
            Self::Megatron => int((t * k / e * factor).ceil()),
            Self::Switch => int(t / e * factor),
            Self::GShard => int(k * t * factor / e),
            // f32 as there: 0-dimensional tensors of it.
            Self::DeepSpeed => int(f64::from(((t / e) as f32 * (factor * k) as f32).ceil())),
            Self::Tutel => {
                let each = int(factor * tokens.div_ceil(experts) as f64);
                each.saturating_mul(top_k as u64)
            }
            Self::MegaBlocks => int(factor * (k * t / e)),
            Self::FastMoe => int((factor * t).ceil()).saturating_mul(top_k as u64) / experts as u64,
        }
    }

    pub(super) fn takes(self, factor: f64) -> bool {
        factor.is_finite()
            && match self {
                Self::Tutel => true,
                Self::MegaBlocks => factor >= 0.0,
                _ => factor > 0.0,
            }
    }

    pub(super) fn expected_factor(self) -> &'static str {
        match self {
            Self::Tutel => "a finite number",
            Self::MegaBlocks => "a finite number of at least 0",
            _ => "a finite number above 0",
        }
    }
}

/// The cast saturates: a factor past all reason admits everything, which is what it asks for.
#[expect(
    clippy::cast_sign_loss,
    reason = "products of numbers that are not negative"
)]
fn int(capacity: f64) -> u64 {
    capacity as u64
}

// === the usual formula by itself ===

/// Choices that each expert accepts: `ceil(T·k/E · CF)`, at least `min_capacity`.
///
/// This is Megatron-LM's formula (`get_capacity`), in f64 and in its order, division first, so
/// that a factor means here what it means there: 1.1 times 50 is 55.00000000000001 in f64 and
/// gives 56. `tokens` are those that are not padding.
#[must_use]
pub fn capacity(
    tokens: usize,
    top_k: usize,
    experts: usize,
    factor: f64,
    min_capacity: u32,
) -> u64 {
    let capacity = CapacityFormula::Megatron.apply(tokens, top_k, experts, factor);
    capacity.max(u64::from(min_capacity))
}

/// The smallest factor, to the last bit, for which [`capacity`] is at least `needed`.
///
/// Zero when `min_capacity` suffices by itself. Print it rounded up: rounded down, it drops.
#[must_use]
pub fn smallest_sufficient_factor(
    needed: u64,
    tokens: usize,
    top_k: usize,
    experts: usize,
    min_capacity: u32,
) -> f64 {
    smallest_factor(|factor| capacity(tokens, top_k, experts, factor, min_capacity) >= needed)
}

/// The smallest factor that is `enough`.
pub(super) fn smallest_factor(enough: impl Fn(f64) -> bool) -> f64 {
    // A factor of 0 leaves what a minimum gives by itself.
    if enough(0.0) {
        return 0.0;
    }
    // Floats above zero are ordered like their bits, and no capacity falls as the factor grows,
    // so bisecting the bits finds the exact edge that inverting a formula would round.
    let (mut short, mut long) = (0, f64::MAX.to_bits());
    while long - short > 1 {
        let middle = short + (long - short) / 2;
        if enough(f64::from_bits(middle)) {
            long = middle;
        } else {
            short = middle;
        }
    }
    f64::from_bits(long)
}
