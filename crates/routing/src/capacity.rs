//! How many choices an expert accepts in a batch, and which are refused.

use std::{fmt, str::FromStr};

use crate::error::RoutingError;

/// What happens to the choices of an expert that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// No expert is ever full.
    #[default]
    Dropless,
    /// The first tokens of the batch are kept, the rest dropped.
    DropPosition,
    /// The heaviest gate weights are kept, ties to the lower token, the rest dropped.
    DropWeight,
}

/// The capacity rule of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CapacityConfig {
    /// The capacity factor; `None` exactly when the policy is [`Overflow::Dropless`].
    pub factor: Option<f64>,
    /// What happens past it.
    pub overflow: Overflow,
    /// An expert accepts at least this many choices, whatever the factor.
    pub min_capacity: u32,
}

// === impl CapacityConfig ===

impl CapacityConfig {
    /// Checks that factor and policy fit each other.
    ///
    /// # Errors
    /// A factor that is not a finite number above 0, a factor without a policy that drops, a
    /// policy that drops without a factor.
    pub fn validate(&self) -> Result<(), RoutingError> {
        let expected = match (self.factor, self.overflow) {
            (Some(factor), _) if !(factor.is_finite() && factor > 0.0) => "a finite number above 0",
            (Some(_), Overflow::Dropless) => {
                "none with overflow dropless; choose overflow drop-position or drop-weight"
            }
            (None, Overflow::DropPosition | Overflow::DropWeight) => {
                "a number above 0, such as 1.25, or overflow dropless"
            }
            _ => return Ok(()),
        };
        let found = self
            .factor
            .map_or_else(|| "none".to_owned(), |factor| factor.to_string());
        Err(RoutingError::config("capacity factor", found, expected))
    }

    /// The capacity for a batch of `tokens` tokens that are not padding; `None` if dropless.
    #[must_use]
    pub fn capacity(&self, tokens: usize, top_k: usize, experts: usize) -> Option<u64> {
        self.factor
            .map(|factor| capacity(tokens, top_k, experts, factor, self.min_capacity))
    }
}

// === impl Overflow ===

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dropless => "dropless",
            Self::DropPosition => "drop-position",
            Self::DropWeight => "drop-weight",
        })
    }
}

/// `drop` is short for `drop-position`.
impl FromStr for Overflow {
    type Err = RoutingError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "dropless" => Ok(Self::Dropless),
            "drop" | "drop-position" => Ok(Self::DropPosition),
            "drop-weight" => Ok(Self::DropWeight),
            _ => {
                let expected = "dropless, drop (= drop-position) or drop-weight";
                Err(RoutingError::config(
                    "overflow",
                    format!("{name:?}"),
                    expected,
                ))
            }
        }
    }
}

// === the formula ===

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
    let mean = tokens as f64 * top_k as f64 / experts as f64;
    // The cast saturates: a factor past all reason admits everything, which is what it asks for.
    #[expect(
        clippy::cast_sign_loss,
        reason = "a product of numbers that are not negative"
    )]
    let capacity = (mean * factor).ceil() as u64;
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
    if needed <= u64::from(min_capacity) {
        return 0.0;
    }
    // Floats above zero are ordered like their bits, and capacity never falls as the factor
    // grows, so bisecting the bits finds the exact edge that inverting the formula would round.
    let (mut short, mut enough) = (0, f64::MAX.to_bits());
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        if capacity(tokens, top_k, experts, f64::from_bits(middle), min_capacity) >= needed {
            enough = middle;
        } else {
            short = middle;
        }
    }
    f64::from_bits(enough)
}
