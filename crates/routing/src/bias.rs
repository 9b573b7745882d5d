//! Balancing without a loss: the selection bias follows the load.

use crate::error::RoutingError;

/// The update of the selection bias between steps, so that experts with a low load are chosen more
/// often: `b_e += rate · sign(mean load - load_e)`.
///
/// Source: Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3; Megatron-LM's
/// `get_updated_expert_bias`. The bias belongs to the selection key alone
/// ([`Select::ScorePlusBias`](crate::Select::ScorePlusBias)): gate weights do not see it. Loads are
/// choices before capacity, over the whole batch of a step (all workers, all micro-batches).
///
/// ```
/// use expertmesh_routing::BiasUpdate;
///
/// let mut bias = [0.0, 0.5, -0.25];
/// BiasUpdate { rate: 0.125 }.apply(&mut bias, &[9, 0, 0])?;
/// assert_eq!(bias, [-0.125, 0.625, -0.125]);
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasUpdate {
    /// How far one step moves a bias, in units of the score.
    pub rate: f32,
}

// === impl BiasUpdate ===

impl Default for BiasUpdate {
    /// The rate of DeepSeek-V3 and of Megatron-LM.
    fn default() -> Self {
        Self { rate: 1e-3 }
    }
}

impl BiasUpdate {
    /// Moves `bias` `[E]` by the `loads` `[E]` of a step. An expert whose load is exactly the mean
    /// keeps its bias, as all do when nothing was routed; the comparison is made in integers.
    ///
    /// # Errors
    /// A rate that is negative or not finite, loads of another length than the bias.
    pub fn apply(&self, bias: &mut [f32], loads: &[u64]) -> Result<(), RoutingError> {
        if !(self.rate.is_finite() && self.rate >= 0.0) {
            let expected = "a finite number, at least 0, such as 0.001";
            return Err(RoutingError::config("bias rate", self.rate, expected));
        }
        RoutingError::check_length("loads", loads.len(), [bias.len(), 1], "experts x 1")?;
        let total: u128 = loads.iter().map(|&load| u128::from(load)).sum();
        let experts = loads.len() as u128;
        for (bias, &load) in bias.iter_mut().zip(loads) {
            *bias += match total.cmp(&(u128::from(load) * experts)) {
                std::cmp::Ordering::Greater => self.rate,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Less => -self.rate,
            };
        }
        Ok(())
    }
}
