//! What a batch is routed under, and the tensors that some gates have besides their weight.

use std::{ops::Range, sync::Arc};

use expertmesh_kernels::PackedMatrix;

use crate::{admit::Domains, config::RouterConfig, error::RoutingError};

/// What a batch is routed under besides its rows: plain data, so that the answer is the same
/// wherever it is asked for. The default is evaluation of a batch of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct GateContext<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step.
    pub step: u64,
    /// Number of the layer.
    pub layer: u32,
    /// Number of the first token, for rows that are a part of a batch: [`GateContext::rows`].
    pub first_token: u64,
    /// Tokens of a sequence, whose tokens alone compete in expert choice and mix in soft MoE;
    /// 0 where the batch is one sequence.
    pub sequence: usize,
    /// `[T]` ids of the tokens, for gates that hash them.
    pub token_ids: Option<&'a [u32]>,
    /// `[T]`, true for padding. Row-wise gates route it like any token; gates that look at the
    /// whole batch leave it out. [`admit`](crate::admit()) skips it.
    pub padding: Option<&'a [bool]>,
    /// Whether noise is on.
    pub training: bool,
    /// Which domains hold each expert, for gates that look at them.
    pub domains: Option<&'a Domains>,
    /// `[T]` the domain that each token comes from; `None`: [`home_of`](crate::kinds::home_of).
    pub homes: Option<&'a [u32]>,
    /// The choices of an earlier run, for [`Kind::Replay`](crate::Kind::Replay).
    pub replay: Option<ReplayStep<'a>>,
    /// `[T, E]` logits of the layer before, for gates with a
    /// [residual](crate::Gate::with_residual); `None` in the first layer.
    pub previous_logits: Option<&'a [f32]>,
}

/// In [`ReplayStep::experts`]: the token has no choice in this slot, nor in any after it.
pub const NO_CHOICE: u32 = u32::MAX;

/// The choices of one layer in one step of an earlier run.
#[derive(Debug, Clone, Copy)]
pub struct ReplayStep<'a> {
    /// `[T, k]`, in slot order; [`NO_CHOICE`] behind the choices of a token with fewer than k.
    pub experts: &'a [u32],
    /// `[T, k]`, of no meaning without a choice; `None`: what the gate makes of the experts' logits
    /// now.
    pub weights: Option<&'a [f32]>,
}

/// The tensors of a cosine gate (Tutel's `gates/cosine_top.py`) besides its weight, which is
/// `[E, P]`: an expert's vector a row.
#[derive(Debug)]
pub struct Cosine {
    /// `[P, H]`.
    pub projection: PackedMatrix,
    /// `[P]`, added to the projected row.
    pub bias: Option<Vec<f32>>,
    /// Logits are the cosine times `exp(temperature)`, 100 at most. Tutel starts at `ln 2`.
    pub temperature: f32,
}

/// What only some gates have; made by `Gate::with_*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct GateTensors {
    /// `[E, H]`.
    pub(crate) noise_weight: Option<Arc<PackedMatrix>>,
    pub(crate) cosine: Option<Arc<Cosine>>,
    /// `[vocabulary, k]`.
    pub(crate) token_table: Option<Arc<Vec<u32>>>,
    /// `[E, E]`.
    pub(crate) residual: Option<Arc<PackedMatrix>>,
}

// === impl GateContext ===

impl<'a> GateContext<'a> {
    /// The context of `rows` of this batch, for a gate of this configuration. One that is not
    /// row-wise must not choose for a part of a batch.
    ///
    /// Tables that are too short are left empty there, which the gate then refuses.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>, config: &RouterConfig) -> Self {
        fn part<'t, T>(table: &'t [T], rows: &Range<usize>, width: usize) -> &'t [T] {
            let part = table.get(rows.start * width..rows.end * width);
            part.unwrap_or_default()
        }
        Self {
            first_token: self.first_token + rows.start as u64,
            token_ids: self.token_ids.map(|ids| part(ids, &rows, 1)),
            padding: self.padding.map(|padding| part(padding, &rows, 1)),
            homes: self.homes.map(|homes| part(homes, &rows, 1)),
            replay: self.replay.map(|replay| ReplayStep {
                experts: part(replay.experts, &rows, config.top_k),
                weights: replay
                    .weights
                    .map(|weights| part(weights, &rows, config.top_k)),
            }),
            previous_logits: self
                .previous_logits
                .map(|logits| part(logits, &rows, config.columns())),
            ..*self
        }
    }

    /// Whether `token`, a row of this context, is padding.
    #[must_use]
    pub fn is_padding(&self, token: usize) -> bool {
        self.padding
            .is_some_and(|padding| padding.get(token) == Some(&true))
    }

    /// Refuses tables that do not have an entry for each of `tokens` rows.
    pub(crate) fn check(&self, tokens: usize) -> Result<(), RoutingError> {
        let one_each = |field, found: Option<usize>| match found {
            Some(found) => RoutingError::check_length(field, found, [tokens, 1], "tokens x 1"),
            None => Ok(()),
        };
        one_each("padding", self.padding.map(<[_]>::len))?;
        one_each("token_ids", self.token_ids.map(<[_]>::len))?;
        one_each("homes", self.homes.map(<[_]>::len))
    }

    /// The ranges of tokens that compete with each other.
    pub(crate) fn sequences(&self, tokens: usize) -> impl Iterator<Item = Range<usize>> {
        let length = match self.sequence {
            0 => tokens,
            length => length,
        };
        let starts = (0..tokens).step_by(length.max(1));
        starts.map(move |start| start..tokens.min(start.saturating_add(length)))
    }
}
