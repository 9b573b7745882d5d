//! The tensors that only some gates have: which, and their shapes.

use std::sync::Arc;

use expertmesh_kernels::PackedMatrix;

use super::{
    Cosine, Gate,
    score::{cosine_divisor, normalise_rows},
};
use crate::{
    config::{HashBy, Kind, LogitNoise, Product, RouterConfig, Select},
    error::RoutingError,
    kinds,
    select::check_bias,
};

/// What a router asks for besides its configuration and its weight: for whoever makes gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Needs {
    /// A selection bias `[E]`, given to [`Gate::new`].
    pub selection_bias: bool,
    /// [`Gate::with_noise_weight`]; used in training.
    pub noise_weight: bool,
    /// [`Gate::with_cosine`].
    pub cosine: bool,
    /// [`Gate::with_token_table`].
    pub token_table: bool,
    /// `token_ids` in the context.
    pub token_ids: bool,
    /// `domains` in the context.
    pub domains: bool,
    /// `replay` in the context.
    pub replay: bool,
}

// === impl RouterConfig ===

impl RouterConfig {
    /// What this router asks for.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let by_table = HashBy::Table;
        Needs {
            selection_bias: self.select == Select::ScorePlusBias,
            noise_weight: matches!(self.noise.logits, LogitNoise::Learned { .. }),
            cosine: self.product == Product::Cosine,
            token_table: matches!(self.kind, Kind::Hash { by, .. } if by == by_table),
            token_ids: matches!(self.kind, Kind::Hash { .. }),
            domains: matches!(self.kind, Kind::Topology { .. } | Kind::NodeLimited { .. }),
            replay: self.kind == Kind::Replay,
        }
    }
}

// === impl Gate ===

impl Gate {
    /// With the weight `[E, H]` of learned noise.
    ///
    /// # Errors
    /// Another shape than `[E, H]`.
    pub fn with_noise_weight(mut self, weight: PackedMatrix) -> Result<Self, RoutingError> {
        let expected = [self.config().experts, self.hidden()];
        check_shape("noise_weight", &weight, expected)?;
        self.tensors.noise_weight = Some(Arc::new(weight));
        Ok(self)
    }

    /// With the projection of a cosine gate, whose weight is `[E, P]`. From here on
    /// [`Gate::hidden`] is the projection's.
    ///
    /// # Errors
    /// A gate whose product is not [`Product::Cosine`], a projection or a bias that does not fit
    /// the weight, a temperature that is not finite.
    pub fn with_cosine(mut self, cosine: Cosine) -> Result<Self, RoutingError> {
        if self.config().product != Product::Cosine {
            let expected = "none, because the gate's product is linear";
            return Err(RoutingError::config("cosine", "a projection", expected));
        }
        let expected = [self.weight.inner(), cosine.projection.inner()];
        check_shape("cosine projection", &cosine.projection, expected)?;
        if let Some(bias) = &cosine.bias {
            check_bias("cosine bias", bias, self.weight.inner())?;
        }
        if !cosine.temperature.is_finite() {
            let (found, expected) = (cosine.temperature, "a finite number");
            return Err(RoutingError::config("cosine temperature", found, expected));
        }
        self.tensors.cosine = Some(Arc::new(cosine));
        Ok(self)
    }

    /// With the experts of each token id, `[vocabulary, k]`, in slot order (DeepSeek-V4's
    /// `tid2eid`; [`balanced_table`](crate::kinds::balanced_table) makes another).
    ///
    /// # Errors
    /// A table that is no whole number of rows, an expert that does not exist or that a row has
    /// twice; its token is the token id.
    pub fn with_token_table(mut self, experts: Vec<u32>) -> Result<Self, RoutingError> {
        kinds::check_table("token_table", &experts, self.config())?;
        self.tensors.token_table = Some(Arc::new(experts));
        Ok(self)
    }

    /// With the weight `[E, E]` of a gating residual: the logits of the layer before, times it,
    /// are added to this layer's product (MoE++, Jin et al. 2024: gating residuals).
    ///
    /// # Errors
    /// Another shape than `[E, E]`.
    pub fn with_residual(mut self, weight: PackedMatrix) -> Result<Self, RoutingError> {
        let columns = self.config().columns();
        check_shape("residual", &weight, [columns, columns])?;
        self.tensors.residual = Some(Arc::new(weight));
        Ok(self)
    }

    pub(super) fn missing(&self, field: &'static str, made_by: &str) -> RoutingError {
        let expected = format!("a tensor, given by Gate::{made_by}");
        RoutingError::config(field, "none", expected)
    }
}

/// The weight as the product needs it: with rows of length 1 for a cosine, and of length `scale`
/// for soft MoE if it normalises.
pub(super) fn prepare(
    config: &RouterConfig,
    weight: PackedMatrix,
) -> Result<PackedMatrix, RoutingError> {
    let (out, inner) = (weight.out(), weight.inner());
    let soft_scale = match config.kind {
        Kind::Soft { scale, .. } => scale,
        _ => None,
    };
    if config.product == Product::Linear && soft_scale.is_none() {
        return Ok(weight);
    }
    let mut rows = weight.to_f32();
    if let Some(scale) = soft_scale {
        normalise_rows(&mut rows, inner, kinds::soft_divisor);
        rows.iter_mut().for_each(|value| *value *= scale);
    } else {
        normalise_rows(&mut rows, inner, cosine_divisor);
    }
    Ok(PackedMatrix::from_f32(&rows, out, inner)?)
}

fn check_shape(
    field: &'static str,
    found: &PackedMatrix,
    expected: [usize; 2],
) -> Result<(), RoutingError> {
    if [found.out(), found.inner()] == expected {
        return Ok(());
    }
    let found = format!("{} x {}", found.out(), found.inner());
    let expected = format!("{} x {}", expected[0], expected[1]);
    Err(RoutingError::config(field, found, expected))
}
