//! The parts of a step.

use crate::{names::named_enum, spans};

named_enum! {
    /// A part of a step, in the order in which a token meets them.
    ///
    /// All but [`Phase::Shared`] lie one after another on the critical path, so that their sum
    /// explains the step up to the report's `residual_share`.
    pub enum Phase ("phase") {
        /// Gate: hidden states to logits, selection and gate weights.
        Gate = "gate",
        /// Route, placement and capacity to the rows of each endpoint.
        Plan = "plan",
        /// Copying and encoding rows for each endpoint.
        Pack = "pack",
        /// Rows on their way, until the last worker has its rows.
        Send = "send",
        /// Rows that wait at a worker for a compute thread.
        Queue = "queue",
        /// Expert networks of the worker on the critical path.
        Experts = "experts",
        /// Shared experts at the token's home. They run beside the exchange and are given for
        /// information: their time is in no sum.
        Shared = "shared",
        /// Results on their way back.
        Return = "return",
        /// Weighted sum in slot order, until the outputs are in token order.
        Combine = "combine",
    }
}

// === impl Phase ===

impl Phase {
    /// How many phases there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Phase::ALL`], the index of `phases_ns` arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the phase is a link of the chain whose sum explains a step.
    pub const fn on_critical_path(self) -> bool {
        !matches!(self, Phase::Shared)
    }

    /// Name of the tracing span that covers the phase.
    pub const fn span(self) -> &'static str {
        match self {
            Phase::Gate => spans::GATE,
            Phase::Plan => spans::PLAN,
            Phase::Pack => spans::PACK,
            Phase::Send => spans::SEND,
            Phase::Queue => spans::QUEUE,
            Phase::Experts => spans::EXPERTS,
            Phase::Shared => spans::SHARED,
            Phase::Return => spans::RETURN,
            Phase::Combine => spans::COMBINE,
        }
    }
}
