//! From one layer's outputs to the next one's hidden states.

use expertmesh_experts::for_each_row_block;
use expertmesh_kernels::{Format, round_bf16};
use ndarray::{ArcArray2, Array2};

use crate::connect::Coordinator;
use crate::depth::{COPIES_PER_NS, computed};
use crate::error::CoordinatorError;

/// The hidden states behind `layer`, which made `output` of `x`, both `[tokens, hidden]`. Tokens
/// that were outside it, or that `passes` passes over, keep theirs.
pub(super) async fn advance(
    layer: &Coordinator,
    x: ArcArray2<f32>,
    output: Array2<f32>,
    outside: Option<Vec<bool>>,
    passes: Option<Vec<bool>>,
    residual: bool,
) -> Result<ArcArray2<f32>, CoordinatorError> {
    if !residual && outside.is_none() {
        return Ok(output.into_shared());
    }
    let shape = output.raw_dim();
    let hidden = output.ncols();
    let rounds = layer.rule().dtype != Format::F32;
    let mut output = output.into_raw_vec_and_offset().0;
    let cost_ns = output.len() as u64 / COPIES_PER_NS;
    let (output, x) = computed(&layer.compute, cost_ns, move || {
        let states = x.as_slice().unwrap_or_default();
        for_each_row_block(&mut output, hidden, |first, rows| {
            for (token, row) in (first..).zip(rows.chunks_exact_mut(hidden.max(1))) {
                let state = &states[token * hidden..(token + 1) * hidden];
                let stays = outside.as_ref().is_some_and(|outside| outside[token])
                    || passes.as_ref().is_some_and(|passes| !passes[token]);
                if stays {
                    row.copy_from_slice(state);
                } else if residual {
                    row.iter_mut().zip(state).for_each(|(y, x)| *y += x);
                    if rounds {
                        round_bf16(row);
                    }
                }
            }
        });
        (output, x)
    })
    .await?;
    // Nobody else holds the states of a layer in the middle, so the next step can have the memory.
    if let Ok(x) = x.try_into_owned_nocopy() {
        layer.recycle(x);
    }
    let output = Array2::from_shape_vec(shape, output);
    let output = output.map_err(|error| CoordinatorError::Internal(error.to_string()))?;
    Ok(output.into_shared())
}
