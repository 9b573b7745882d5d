//! How tokens spread over experts.

use std::fmt;
use std::str::FromStr;

/// The spread that a workload aims at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pattern {
    /// Every expert gets the same number of choices, give or take one a step.
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
}

const EXPECTED: &str = "expected balanced, zipf, zipf:S with S from 0 to 20, hot, hot:SHARE with \
                        SHARE above 0 and at most 1, or normal";

// === impl Pattern ===

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
        match name {
            "balanced" if argument.is_none() => Ok(Self::Balanced),
            "normal" if argument.is_none() => Ok(Self::Normal),
            "zipf" => Ok(Self::Zipf {
                exponent: number(1.0, |s| (0.0..=20.0).contains(&s))?,
            }),
            "hot" => Ok(Self::Hot {
                share: number(0.5, |share| share > 0.0 && share <= 1.0)?,
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
        }
    }
}
