//! What a step is given, held against the layer.

use expertmesh_kernels::{Format, round_bf16};
use expertmesh_routing::RouterConfig;
use ndarray::ArcArray2;

use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::input::StepInput;

// === impl CoordinatorConfig ===

impl CoordinatorConfig {
    /// Hidden states row by row, in the model's format: what a bf16 model is given, bf16 holds.
    pub(crate) fn in_form(&self, x: ArcArray2<f32>) -> ArcArray2<f32> {
        let x = if x.is_standard_layout() {
            x
        } else {
            x.as_standard_layout().to_shared()
        };
        if self.source.spec().router.dtype == Format::F32 {
            return x;
        }
        let mut x = x.into_owned();
        if let Some(values) = x.as_slice_mut() {
            round_bf16(values);
        }
        x.into_shared()
    }

    /// Checks a step's input against the layer, whose router is `router`.
    pub(crate) fn check_input(
        &self,
        x: &ArcArray2<f32>,
        input: &StepInput,
        router: &RouterConfig,
    ) -> Result<(), CoordinatorError> {
        let hidden = self.source.spec().hidden;
        if x.ncols() != hidden {
            let expected = format!("{hidden}, the layer's");
            return Err(CoordinatorError::field("hidden", x.ncols(), expected));
        }
        input.check(x.nrows(), router.top_k)?;
        if input.replay.is_some() && !router.needs().replay {
            let held = "choices of an earlier run";
            let expected = format!("none, because the gate is {} and not replay", router.kind);
            return Err(CoordinatorError::field("replay", held, expected));
        }
        let left = input.absent.iter().flatten().any(|absent| *absent);
        if left && self.source.spec().capacity.is_some() {
            let held = "tokens that left the stack";
            let expected = "none, because the layer's own capacity rule counts every token";
            return Err(CoordinatorError::field("absent", held, expected));
        }
        if u32::try_from(x.len()).is_err() {
            let held = format!("{} tokens", x.nrows());
            return Err(CoordinatorError::field(
                "tokens",
                held,
                "fewer than 2^32 elements a step",
            ));
        }
        check_finite(x)
    }
}

/// Every hidden state is finite. The whole batch is read before every step, so the usual answer
/// comes from a loop that vectorises and the search for the culprit starts only when there is one.
fn check_finite(x: &ArcArray2<f32>) -> Result<(), CoordinatorError> {
    let all_finite = |values: &[f32]| {
        values
            .chunks(1024)
            .all(|chunk| chunk.iter().fold(true, |all, one| all & one.is_finite()))
    };
    if x.as_slice().is_some_and(all_finite) {
        return Ok(());
    }
    match x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((token, element), value)) => Err(CoordinatorError::NotFinite {
            token,
            element,
            value: *value,
        }),
    }
}
