//! The gate of a synthetic layer, whatever tensors its router asks for.

use expertmesh_experts::{SyntheticHead, synthetic_gate, synthetic_head};
use expertmesh_kernels::PackedMatrix;
use expertmesh_routing::{Cosine, Gate, RouterConfig, RoutingError, kinds};

/// Elements of the space in which a cosine gate compares, at most: Tutel's `proj_dim`.
const COSINE_WIDTH: usize = 256;
/// Token ids that a table of experts knows: those of the usual vocabularies.
const VOCABULARY: usize = 1 << 17;

/// Makes a gate for `router` from a seed. Selection biases begin at 0, as training begins; a table
/// of token ids is balanced over ids that are equally frequent.
///
/// # Errors
/// What the gate refuses.
pub(super) fn seeded(
    router: &RouterConfig,
    hidden: usize,
    seed: u64,
    layer: u32,
) -> Result<Gate, RoutingError> {
    let (experts, dtype) = (router.experts, router.dtype);
    let needs = router.needs();
    let pack = |values: &[f32], out: usize, inner: usize| {
        PackedMatrix::from_f32_as(dtype, values, out, inner)
    };
    let width = if needs.cosine {
        COSINE_WIDTH.min(hidden)
    } else {
        hidden
    };
    let rows = synthetic_gate(router.columns(), width, seed, layer);
    let weight = pack(&rows, router.columns(), width)?;
    let bias = needs.selection_bias.then(|| vec![0.0; experts]);
    let mut gate = Gate::new(router.clone(), weight, None, bias)?;
    if needs.noise_weight {
        let rows = synthetic_head(SyntheticHead::GateNoise, experts, hidden, seed, layer);
        gate = gate.with_noise_weight(pack(&rows, experts, hidden)?)?;
    }
    if needs.cosine {
        let rows = synthetic_head(SyntheticHead::Projection, width, hidden, seed, layer);
        gate = gate.with_cosine(Cosine {
            projection: pack(&rows, width, hidden)?,
            bias: None,
            // ln 2: where Tutel starts.
            temperature: std::f32::consts::LN_2,
        })?;
    }
    if needs.token_table {
        let even = vec![1; VOCABULARY];
        gate = gate.with_token_table(kinds::balanced_table(&even, experts, router.top_k)?)?;
    }
    Ok(gate)
}
