//! Conditional computation beyond experts: tokens that skip a layer, or the rest of the stack.
//!
//! [`DepthRouter`] is mixture-of-depths: in each sequence the tokens with the highest scores pass
//! through a layer, the others go round it. [`ExitGate`] and [`ExitState`] are early exit: a token
//! that is sure enough after a layer leaves the stack and never returns.
//!
//! Both give masks `[T]` that are true for tokens that skip, the form of a
//! [`Route`](crate::Route)'s padding: or them with the padding, and the layer neither computes
//! those tokens nor uses capacity for them.

mod exit;
mod mixture;

pub use self::{
    exit::{ExitGate, ExitRule, ExitState},
    mixture::{DepthRoute, DepthRouter, predictor_loss},
};
