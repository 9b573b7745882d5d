//! Kinds of exchange, and what a lost endpoint means.

use std::fmt;
use std::str::FromStr;

/// How rows travel between their home and the expert hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ExchangeKind {
    /// The coordinator is home to all tokens and trades rows with every worker.
    Star,
    /// Every worker is home to a shard of the tokens and trades rows with its peers.
    #[default]
    AllToAll,
    /// As [`Self::AllToAll`], but a row goes to each group of workers once: one of them passes it on
    /// to the others.
    Hierarchical,
}

/// What a step does when an endpoint does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnLoss {
    /// The step ends with an error that names the endpoint.
    #[default]
    Fail,
    /// The endpoint's choices get the fate `lost` and the step goes on without them.
    Drop,
}

// === impl ExchangeKind ===

impl ExchangeKind {
    /// Every kind, in the order of their names here.
    pub const ALL: [Self; 3] = [Self::Star, Self::AllToAll, Self::Hierarchical];

    /// Whether workers are homes, each to a shard of the tokens.
    pub fn is_sharded(self) -> bool {
        self != Self::Star
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Star => "star",
            Self::AllToAll => "all-to-all",
            Self::Hierarchical => "hierarchical",
        })
    }
}

impl FromStr for ExchangeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "star" => Ok(Self::Star),
            "all-to-all" => Ok(Self::AllToAll),
            "hierarchical" => Ok(Self::Hierarchical),
            other => Err(format!(
                "`{other}` is no exchange; expected `star`, `all-to-all` or `hierarchical`"
            )),
        }
    }
}

// === impl OnLoss ===

impl fmt::Display for OnLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fail => "fail",
            Self::Drop => "drop",
        })
    }
}

impl FromStr for OnLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fail" => Ok(Self::Fail),
            "drop" => Ok(Self::Drop),
            other => Err(format!(
                "`{other}` is no loss policy; expected `fail` or `drop`"
            )),
        }
    }
}
