//! The second stage of a gate: logits to choices.

use super::{Gate, GateContext};
use crate::{
    config::{HashBy, Kind},
    error::RoutingError,
    kinds::{self, Rows},
    route::Route,
    select::SelectScratch,
};

/// The choices of a batch or of a block of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choices {
    /// Token rows.
    pub tokens: usize,
    /// `[choices]`: the experts of all tokens, in slot order.
    pub experts: Vec<u32>,
    /// `[choices]`: their gate weights.
    pub weights: Vec<f32>,
    /// `[tokens + 1]`, where tokens differ in how many choices they have.
    pub offsets: Option<Vec<u32>>,
}

// === impl Gate ===

impl Gate {
    /// Chooses for rows of logits `[n, E]`, as [`Gate::score_rows`] left them.
    ///
    /// # Errors
    /// A slice whose length does not fit, a logit that is not finite, something that the kind
    /// needs and neither gate nor context has, a weight that comes to no finite number, and
    /// [`Kind::Soft`], which makes no choices: see [`Gate::mix`].
    pub fn choose(
        &self,
        logits: &[f32],
        context: &GateContext<'_>,
    ) -> Result<Choices, RoutingError> {
        let config = self.config();
        let tokens = logits.len() / config.columns();
        let shape = "tokens x experts";
        RoutingError::check_length("logits", logits.len(), [tokens, config.columns()], shape)?;
        context.check(tokens)?;
        if config.kind.is_plain() {
            return self.plain(logits, tokens);
        }
        if let Kind::Soft { .. } = config.kind {
            let expected = "a kind that makes choices; soft MoE mixes: Gate::mix";
            return Err(RoutingError::config("kind", config.kind, expected));
        }
        self.selector.check_logits(logits)?;
        let rows = Rows {
            selector: &self.selector,
            logits,
            tokens,
            context,
        };
        match config.kind {
            // The first and the two before are answered above.
            Kind::TopK | Kind::ForcedSkew { .. } | Kind::Soft { .. } => self.plain(logits, tokens),
            Kind::NodeLimited { keep, by } => kinds::node_limited(&rows, keep, by),
            Kind::Sampled => kinds::sampled(&rows),
            Kind::SampledSecond => kinds::sampled_second(&rows),
            Kind::RandomSecond(rule) => kinds::random_second(&rows, rule),
            Kind::Sinkhorn { in_eval, .. } if !(in_eval || context.training) => {
                self.plain(logits, tokens)
            }
            Kind::Sinkhorn { tolerance, .. } => kinds::sinkhorn(&rows, tolerance),
            Kind::Hash { by, weights } => match (by, &self.tensors.token_table) {
                (HashBy::Function { seed }, _) => kinds::hash(&rows, seed, weights),
                (HashBy::Table, Some(table)) => kinds::by_table(&rows, table, weights),
                (HashBy::Table, None) => Err(self.missing("token_table", "with_token_table")),
            },
            Kind::ExpertChoice { factor } => kinds::expert_choice(&rows, factor),
            Kind::Topology { outgoing } => kinds::topology(&rows, outgoing),
            Kind::ForcedBalance => kinds::forced_balance(&rows),
            Kind::Replay => kinds::replay(&rows),
            Kind::TopP { p } => kinds::top_p(&rows, p),
            Kind::Threshold { least } => kinds::threshold(&rows, least),
        }
    }

    fn plain(&self, logits: &[f32], tokens: usize) -> Result<Choices, RoutingError> {
        let choices = tokens * self.config().top_k;
        let (mut experts, mut weights) = (vec![0; choices], vec![0.0; choices]);
        let scratch = &mut SelectScratch::default();
        self.selector
            .select(logits, tokens, &mut experts, &mut weights, scratch)?;
        Ok(Choices {
            tokens,
            experts,
            weights,
            offsets: None,
        })
    }

    /// The route of a batch from the choices of its blocks, in their order, and its logits
    /// `[T, E]`.
    ///
    /// # Errors
    /// Logits or padding that do not fit the blocks' tokens; more than 2^32 - 1 choices.
    pub fn join(
        &self,
        logits: Vec<f32>,
        blocks: Vec<Choices>,
        padding: Option<&[bool]>,
    ) -> Result<Route, RoutingError> {
        let config = self.config();
        let tokens = blocks.iter().map(|block| block.tokens).sum();
        let shape = "tokens x experts";
        RoutingError::check_length("logits", logits.len(), [tokens, config.experts], shape)?;
        if let Some(padding) = padding {
            RoutingError::check_length("padding", padding.len(), [tokens, 1], "tokens x 1")?;
        }
        // A replay is ragged where what it repeats is, which a block alone may not show.
        let is_ragged =
            config.kind.is_ragged() || blocks.iter().any(|block| block.offsets.is_some());
        let mut whole = Choices {
            offsets: is_ragged.then(|| vec![0]),
            ..Choices::default()
        };
        for mut block in blocks {
            if let Some(all) = &mut whole.offsets {
                let (first, more) = (whole.experts.len(), block.experts.len());
                let Ok(first) = u32::try_from(first + more).map(|end| end - more as u32) else {
                    let expected = format!("at most {} in a batch", u32::MAX);
                    return Err(RoutingError::config("choices", first + more, expected));
                };
                match &block.offsets {
                    Some(ends) => all.extend(ends.iter().skip(1).map(|end| first + end)),
                    None => {
                        let ends = (1..=block.tokens).map(|token| (token * config.top_k) as u32);
                        all.extend(ends.map(|end| first + end));
                    }
                }
            }
            whole.experts.append(&mut block.experts);
            whole.weights.append(&mut block.weights);
        }
        Ok(Route {
            tokens,
            top_k: match config.kind {
                // As many experts as there are may take one token.
                Kind::ExpertChoice { .. } => config.experts,
                _ => config.top_k,
            },
            offsets: whole.offsets,
            experts_total: config.experts,
            logits,
            experts: whole.experts,
            weights: whole.weights,
            padding: padding.map(<[bool]>::to_vec),
        })
    }
}
