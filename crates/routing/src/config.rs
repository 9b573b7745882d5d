//! The shape of a router: how logits become choices and gate weights.
//!
//! One set of values covers the gates of the published model families; a family is a
//! combination, not a branch in the code. `R` below rounds to the model's number format, and
//! does nothing in f32.

mod check;
mod kind;
mod named;
mod preset;

use expertmesh_kernels::Format;

use crate::{admit::FreeExpert, error::RoutingError};
pub use kind::{GateNoise, HashBy, HashWeights, Jitter, Kind, LogitNoise, Product, SecondRule};
pub use preset::{PresetArg, PresetInfo, RouterPreset};

/// How the gate's product `x Wᵀ` becomes logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Logits {
    /// `R(x Wᵀ + b)`: a product in the model's format, as a linear layer gives it.
    Model,
    /// `R(x Wᵀ + b)`, from there on f32: no later step rounds because of the logits.
    ModelThenF32,
    /// `x Wᵀ + b` in f32.
    F32,
}

/// How logits become scores over all experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Score {
    /// The logits themselves.
    None,
    /// `softmax(logits)`, computed in f32.
    Softmax {
        /// False rounds each score to the model's format.
        f32: bool,
    },
    /// `1 / (1 + exp(-logit))`.
    Sigmoid {
        /// False rounds each score to the model's format.
        f32: bool,
    },
    /// `R(sqrt(R(ln(1 + exp(logit)))))`.
    SqrtSoftplus,
}

/// By what key a token's experts are chosen: the highest first, ties to the lower expert index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Select {
    /// The score.
    Score,
    /// Score plus the gate's selection bias (f32). Gate weights come from the score alone.
    ScorePlusBias,
    /// The logit.
    Logit,
    /// NLLB-MoE's two choices: the highest score first, then the highest logit among the other
    /// experts. The two keys differ where scores were rounded.
    SecondByLogit,
}

/// How a group's rank follows from its members' selection keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupScore {
    /// The highest key.
    Max,
    /// The sum of the two highest keys.
    Sum2,
    /// The sum of the `n` highest keys, the highest first. Megatron-LM's `group_limited_topk` has
    /// `n = top_k / keep`.
    SumTop {
        /// How many; a group of fewer experts adds up all of them.
        n: usize,
    },
}

/// Group-limited selection: experts form `n` equal runs of neighbours, and a token chooses from
/// its `keep` best groups only, ties to the lower group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Groups {
    /// Number of groups; divides the number of experts.
    pub n: usize,
    /// Groups that a token may choose from.
    pub keep: usize,
    /// How groups are ranked.
    pub by: GroupScore,
    /// The selection key of experts outside the kept groups: `-inf`, which no token chooses, or
    /// `0.0`, which beats a negative key.
    pub fill: f32,
    /// Whether an expert outside the kept groups that is chosen all the same weighs `fill`
    /// (true) or its score (false).
    pub weights_from_masked: bool,
}

/// What is applied to the logits of the chosen experts to make gate weights. Anything but
/// [`None`](Post::None) weighs by the logits, not by the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Post {
    /// Weights are the scores of the chosen experts.
    None,
    /// Softmax over the chosen logits.
    Softmax {
        /// False rounds each weight to the model's format.
        f32: bool,
    },
    /// Sigmoid of each chosen logit.
    Sigmoid {
        /// False rounds each weight to the model's format.
        f32: bool,
    },
    /// Phi-MoE's SparseMixer when it is not training: the weight of either choice is its softmax
    /// over the experts that come near it, in the model's format throughout.
    SparseMixer {
        /// Experts whose distance from the best, relative to the larger of the best and their own
        /// size, is at most `2 eps` count as near (`router_jitter_noise`).
        eps: f32,
    },
}

/// How the weights of one token are normalised, sums taken in slot order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Not at all.
    None,
    /// `w / (Σw + eps)`.
    Sum {
        /// Added to the sum; 0 adds nothing.
        eps: f32,
    },
    /// `w / max(Σw, min)`.
    ClampSum {
        /// The least divisor.
        min: f32,
    },
    /// `w / ‖w‖_p`.
    PNorm {
        /// 1, 2 or infinity. Others need a power function, which no model asks for.
        p: f32,
    },
}

/// The number format of the finished gate weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightDtype {
    /// f32.
    F32,
    /// Rounded to the model's format.
    Model,
}

/// Everything about a router but its tensors.
///
/// Steps: logits → score → selection key → groups → the `top_k` highest keys → post → norm →
/// scale → weight format. Norm and scale round each of their results to the model's format when
/// the step that made the weights (post, else score) did, and work in f32 otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// Number of experts `E`.
    pub experts: usize,
    /// Experts chosen for each token, `k`.
    pub top_k: usize,
    /// From product to logits.
    pub logits: Logits,
    /// Caps logits softly, `c · tanh(logit / c)`, before anything reads them.
    pub softcap: Option<f32>,
    /// From logits to scores.
    pub score: Score,
    /// The selection key.
    pub select: Select,
    /// Group limits.
    pub groups: Option<Groups>,
    /// From chosen logits to weights.
    pub post: Post,
    /// Normalisation of the weights.
    pub norm: Norm,
    /// Multiplies the normalised weights.
    pub scale: f32,
    /// Number format of the finished weights.
    pub weight_dtype: WeightDtype,
    /// The model's number format, in which `R` rounds.
    pub dtype: Format,
    /// The rule that chooses.
    pub kind: Kind,
    /// What gives logits.
    pub product: Product,
    /// What is random about the logits in training.
    pub noise: GateNoise,
    /// The experts that no worker holds: the last of the `experts`, by ascending index.
    pub free: Vec<FreeExpert>,
}

// === impl RouterConfig ===

impl RouterConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`RoutingError::Config`] naming the first field that no router can have.
    pub fn validate(&self) -> Result<(), RoutingError> {
        if self.experts == 0 || u32::try_from(self.experts).is_err() {
            let expected = format!("1 to {}", u32::MAX);
            return Err(RoutingError::config("experts", self.experts, expected));
        }
        if !(1..=self.experts).contains(&self.top_k) {
            let expected = format!("1 to {}, the number of experts", self.experts);
            return Err(RoutingError::config("top_k", self.top_k, expected));
        }
        if let Some(groups) = &self.groups {
            groups.validate(self.experts, self.top_k)?;
        }
        self.check_pairs()?;
        if let Some(cap) = self.softcap {
            at_least(cap, f32::MIN_POSITIVE, "softcap", "a finite number above 0")?;
        }
        match self.norm {
            Norm::Sum { eps } => at_least(eps, 0.0, "norm eps", "a finite number, 0 or more")?,
            Norm::ClampSum { min } => {
                at_least(
                    min,
                    f32::MIN_POSITIVE,
                    "norm min",
                    "a finite number above 0",
                )?;
            }
            Norm::PNorm { p } if ![1.0, 2.0, f32::INFINITY].contains(&p) => {
                return Err(RoutingError::config("norm p", p, "1, 2 or inf"));
            }
            Norm::None | Norm::PNorm { .. } => {}
        }
        if !self.scale.is_finite() {
            return Err(RoutingError::config("scale", self.scale, "a finite number"));
        }
        self.validate_kind()
    }

    /// What the two routers ask for that make exactly two choices.
    fn check_pairs(&self) -> Result<(), RoutingError> {
        let name = match (self.select, self.post) {
            (Select::SecondByLogit, _) => "second-by-logit",
            (_, Post::SparseMixer { eps }) => {
                at_least(eps, 0.0, "sparse mixer eps", "a finite number, 0 or more")?;
                if self.select != Select::Logit {
                    let found = format!("{:?}", self.select);
                    let expected = "Logit, by which a sparse mixer chooses";
                    return Err(RoutingError::config("select", found, expected));
                }
                "sparse mixer"
            }
            _ => return Ok(()),
        };
        if self.top_k != 2 {
            let expected = format!("2, the choices of a {name} router");
            return Err(RoutingError::config("top_k", self.top_k, expected));
        }
        if self.groups.is_some() {
            let expected = format!("none, because a {name} router knows no groups");
            return Err(RoutingError::config("groups", "some", expected));
        }
        Ok(())
    }

    /// Whether norm and scale round to bf16: the weights that they are given were.
    pub(crate) fn weights_in_bf16(&self) -> bool {
        self.dtype == Format::Bf16
            && match (self.post, self.score) {
                (Post::Softmax { f32 } | Post::Sigmoid { f32 }, _)
                | (Post::None, Score::Softmax { f32 } | Score::Sigmoid { f32 }) => !f32,
                (Post::SparseMixer { .. }, _) | (Post::None, Score::SqrtSoftplus) => true,
                (Post::None, Score::None) => self.logits == Logits::Model,
            }
    }
}

// === impl Groups ===

impl Groups {
    fn validate(&self, experts: usize, top_k: usize) -> Result<(), RoutingError> {
        if self.n == 0 || !experts.is_multiple_of(self.n) {
            let expected = format!("a divisor of {experts}, the number of experts");
            return Err(RoutingError::config("groups n", self.n, expected));
        }
        let size = experts / self.n;
        if !(1..=self.n).contains(&self.keep) {
            let expected = format!("1 to {}, the number of groups", self.n);
            return Err(RoutingError::config("groups keep", self.keep, expected));
        }
        self.by.validate("groups by")?;
        if self.by == GroupScore::Sum2 && size < 2 {
            let found = format!("sum2 over groups of {size}");
            return Err(RoutingError::config(
                "groups by",
                found,
                "groups of at least 2 experts",
            ));
        }
        if !self.fill.is_finite() && self.fill != f32::NEG_INFINITY {
            return Err(RoutingError::config(
                "groups fill",
                self.fill,
                "-inf or a finite number",
            ));
        }
        if self.fill == f32::NEG_INFINITY && top_k > self.keep * size {
            let expected = format!(
                "at most {}, the experts of {} groups",
                self.keep * size,
                self.keep
            );
            return Err(RoutingError::config("top_k", top_k, expected));
        }
        Ok(())
    }
}

fn at_least(
    value: f32,
    least: f32,
    field: &'static str,
    expected: &'static str,
) -> Result<(), RoutingError> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    Err(RoutingError::config(field, value, expected))
}
