//! How tokens spread over experts.

use std::fmt;
use std::str::FromStr;

/// The spread that a workload aims at. Those with a W are named after the workloads of
/// Megatron-LM's token-imbalance benchmark (pull request 7488), which fixes their purpose; the
/// numbers are ours.
///
/// A *hot set* is `max(⌈E/8⌉, k)` experts. *Ranks* hold experts in contiguous runs and are homes
/// to equal runs of token rows; see `Workload::over_ranks`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// W0. Every expert gets the same number of choices, give or take two a step.
    Balanced,
    /// The expert of rank r is drawn with probability ∝ 1/r^S, without replacement in a token.
    Zipf {
        /// S, at least 0.
        exponent: f64,
    },
    /// One expert is among the choices of this share of the tokens, the others share the rest.
    Hot {
        /// Share of tokens, above 0 and at most 1.
        share: f64,
    },
    /// Independent Gaussian values; the gate does with them what it does.
    Normal,
    /// W1. A hot set of neighbouring experts gets this share of all choices, evenly.
    HotExperts {
        /// Share of choices, above 0 and at most 1.
        share: f64,
    },
    /// W2. The experts of one rank get this share of all choices, evenly.
    HotRank {
        /// Share of choices, above 0 and at most 1.
        share: f64,
    },
    /// W3. As W1, but the experts of the hot set are as far apart as they can be.
    SpreadHot {
        /// Share of choices, above 0 and at most 1.
        share: f64,
    },
    /// W4. Choices are balanced, tokens are not: of R ranks one has all of its rows, the next
    /// (R-1)/R of them, and so on; the rest of the rows is padding.
    SourceRagged,
    /// W5. The experts of one rank are never chosen, the others are balanced.
    ZeroExpertRank,
    /// W6. A hot set of neighbours that gets half of all choices and jumps to the next
    /// neighbours every so many steps, round and round.
    RotatingHotspot {
        /// Steps between jumps, at least 1.
        steps: u64,
    },
    /// W7. Balanced, but in the last of every so many steps a hot set gets 80 % of the choices.
    Burst {
        /// Steps from burst to burst, at least 1.
        steps: u64,
    },
    /// A hot set that gets half of all choices, and of which one expert is replaced every so many
    /// steps.
    Drift {
        /// Steps between replacements, at least 1.
        steps: u64,
    },
    /// Every expert has the same chance, but consecutive tokens share their first choice with
    /// this probability, and their first two as often as fits it; see `LAYER_15`.
    Locality {
        /// From 1/E to 1.
        probability: f64,
    },
}

/// Share of choices of a hot set, where the pattern does not say.
const HEAT: f64 = 0.5;
/// Mean over the eight data sets of Table 5 of "Mixtral of Experts" (Jiang et al. 2024): how
/// often consecutive tokens have the same first expert in layer 15, 12.5 % by chance.
pub(super) const LAYER_15: f64 = 0.264;

const EXPECTED: &str = "expected balanced (w0), zipf, zipf:S with S from 0 to 20, hot, hot:SHARE \
                        with SHARE above 0 and at most 1, hot-experts[:SHARE] (w1), \
                        hot-rank[:SHARE] (w2), spread-hot[:SHARE] (w3), source-ragged (w4), \
                        zero-expert-rank (w5), rotating-hotspot[:STEPS] (w6) with STEPS from 1, \
                        burst[:STEPS] (w7), drift[:STEPS], locality[:P] with P from 0 to 1, or \
                        normal";

// === impl Pattern ===

impl Pattern {
    /// Whether it draws otherwise for every rank; the others may have more workers than experts.
    pub fn asks_for_ranks(self) -> bool {
        matches!(
            self,
            Self::HotRank { .. } | Self::SourceRagged | Self::ZeroExpertRank
        )
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let number = |usual: f64, fits: fn(f64) -> bool| match argument {
            None => Ok(usual),
            Some(text) => match text.parse::<f64>() {
                Ok(number) if fits(number) => Ok(number),
                _ => Err(EXPECTED.to_owned()),
            },
        };
        let share = |usual| number(usual, |share| share > 0.0 && share <= 1.0);
        let steps = |usual: u64| match argument.map(str::parse) {
            None => Ok(usual),
            Some(Ok(steps)) if steps > 0 => Ok(steps),
            Some(_) => Err(EXPECTED.to_owned()),
        };
        match name {
            "balanced" | "w0" if argument.is_none() => Ok(Self::Balanced),
            "normal" if argument.is_none() => Ok(Self::Normal),
            "zipf" => Ok(Self::Zipf {
                exponent: number(1.0, |s| (0.0..=20.0).contains(&s))?,
            }),
            "hot" => Ok(Self::Hot { share: share(0.5)? }),
            "hot-experts" | "w1" => Ok(Self::HotExperts {
                share: share(HEAT)?,
            }),
            "hot-rank" | "w2" => Ok(Self::HotRank {
                share: share(HEAT)?,
            }),
            "spread-hot" | "w3" => Ok(Self::SpreadHot {
                share: share(HEAT)?,
            }),
            "source-ragged" | "w4" if argument.is_none() => Ok(Self::SourceRagged),
            "zero-expert-rank" | "w5" if argument.is_none() => Ok(Self::ZeroExpertRank),
            "rotating-hotspot" | "w6" => Ok(Self::RotatingHotspot { steps: steps(1)? }),
            "burst" | "w7" => Ok(Self::Burst { steps: steps(10)? }),
            "drift" => Ok(Self::Drift { steps: steps(10)? }),
            "locality" => Ok(Self::Locality {
                probability: number(LAYER_15, |p| (0.0..=1.0).contains(&p))?,
            }),
            _ => Err(EXPECTED.to_owned()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balanced => f.pad("balanced"),
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            Self::Hot { share } => write!(f, "hot:{share}"),
            Self::Normal => f.pad("normal"),
            Self::HotExperts { share } => write!(f, "hot-experts:{share}"),
            Self::HotRank { share } => write!(f, "hot-rank:{share}"),
            Self::SpreadHot { share } => write!(f, "spread-hot:{share}"),
            Self::SourceRagged => f.pad("source-ragged"),
            Self::ZeroExpertRank => f.pad("zero-expert-rank"),
            Self::RotatingHotspot { steps } => write!(f, "rotating-hotspot:{steps}"),
            Self::Burst { steps } => write!(f, "burst:{steps}"),
            Self::Drift { steps } => write!(f, "drift:{steps}"),
            Self::Locality { probability } => write!(f, "locality:{probability}"),
        }
    }
}
