//! A batch with what it is admitted under.

use std::ops::Range;

use super::{AdmitContext, FreeExpert, bins::Bins};
use crate::{
    capacity::{CapacityConfig, CapacityShare},
    error::RoutingError,
    route::{Fate, Route},
};

/// A route, a rule and a context that fit each other.
pub(crate) struct Batch<'a> {
    pub(super) route: &'a Route,
    pub(super) config: &'a CapacityConfig,
    pub(super) context: &'a AdmitContext<'a>,
    /// Experts that workers hold; the free ones follow.
    pub(crate) held: usize,
    pub(crate) bins: Bins<'a>,
}

// === impl Batch ===

impl<'a> Batch<'a> {
    /// Of a route that was checked.
    pub(crate) fn new(
        route: &'a Route,
        config: &'a CapacityConfig,
        context: &'a AdmitContext<'a>,
    ) -> Result<Self, RoutingError> {
        let limit = u32::MAX as usize;
        if route.tokens.max(route.choices()) > limit {
            let found = route.tokens.max(route.choices());
            let expected = format!("at most {limit}");
            return Err(RoutingError::config("tokens or choices", found, expected));
        }
        let Some(held) = route.experts_total.checked_sub(context.free.len()) else {
            let expected = format!("at most {}, all experts", route.experts_total);
            let found = context.free.len();
            return Err(RoutingError::config("free experts", found, expected));
        };
        let bins = Bins::new(route, config, context, held)?;
        Ok(Self {
            route,
            config,
            context,
            held,
            bins,
        })
    }

    /// Refuses a route without the logits that a policy looks at.
    pub(super) fn check_logits(&self) -> Result<(), RoutingError> {
        if self.config.asks_for_logits() && self.route.logits.is_empty() && self.route.tokens > 0 {
            let expected = format!("tokens x experts for overflow {}", self.config.overflow);
            return Err(RoutingError::config("logits", "none", expected));
        }
        Ok(())
    }

    /// Fates as if no expert were ever full, `[choices]`.
    pub(super) fn first_fates(&self) -> Vec<Fate> {
        let mut fates = vec![Fate::Computed; self.route.choices()];
        if self.context.free.contains(&FreeExpert::Null) {
            for (fate, &expert) in fates.iter_mut().zip(&self.route.experts) {
                let free = (expert as usize).checked_sub(self.held);
                if free.is_some_and(|free| self.context.free[free] == FreeExpert::Null) {
                    *fate = Fate::Skipped;
                }
            }
        }
        if self.route.padding.is_some() {
            for token in (0..self.route.tokens).filter(|&token| self.route.is_padding(token)) {
                fates[self.route.choices_of(token)].fill(Fate::Skipped);
            }
        }
        fates
    }

    /// The runs of tokens that share a capacity: none is empty, but for that of an empty batch.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        let tokens = self.route.tokens;
        match self.config.share {
            CapacityShare::Senders(senders) if tokens > 0 => {
                // More senders than tokens: each token is by itself, whoever sends it.
                let senders = (senders.get() as usize).min(tokens);
                (0..senders)
                    .map(|i| tokens * i / senders..tokens * (i + 1) / senders)
                    .collect()
            }
            CapacityShare::Sequence if tokens > 0 && self.context.sequence > 0 => {
                let sequence = self.context.sequence;
                // Tokens of the first sequence that are not in this batch.
                let before = (self.context.first_token % sequence as u64) as usize;
                let start = |i: usize| (i * sequence).clamp(before, before + tokens) - before;
                (0..(before + tokens).div_ceil(sequence))
                    .map(|i| start(i)..start(i + 1))
                    .collect()
            }
            _ => std::iter::once(0..tokens).collect(),
        }
    }

    /// Tokens of a run that are not padding.
    pub(crate) fn real_tokens(&self, tokens: Range<usize>) -> usize {
        match &self.route.padding {
            None => tokens.len(),
            Some(padding) => padding[tokens].iter().filter(|&&pad| !pad).count(),
        }
    }

    /// The choices of a run of tokens.
    pub(super) fn choices(&self, tokens: Range<usize>) -> Range<usize> {
        if tokens.is_empty() {
            return 0..0;
        }
        self.route.choices_of(tokens.start).start..self.route.choices_of(tokens.end - 1).end
    }

    /// Fills `demand`, `[bins]`, with the choices that ask each for room first.
    pub(crate) fn count_demand(&self, tokens: Range<usize>, demand: &mut Vec<u64>) {
        demand.clear();
        demand.resize(self.bins.count, 0);
        let mut count = |choices: Range<usize>| {
            for &expert in &self.route.experts[choices] {
                if (expert as usize) < self.held {
                    demand[self.bins.first(expert)] += 1;
                }
            }
        };
        if self.route.padding.is_none() {
            count(self.choices(tokens));
        } else {
            let real = tokens.filter(|&token| !self.route.is_padding(token));
            real.for_each(|token| count(self.route.choices_of(token)));
        }
    }
}
