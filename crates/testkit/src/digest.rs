//! Outputs as one line of hex, and seeded hidden states.

use expertmesh_kernels::{Format, bf16_round};
use ndarray::ArcArray2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// SHA-256 over the little-endian f32 `values`, in lower-case hex.
pub fn digest(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Hidden states `[tokens, hidden]`, uniform in (−2, 2), exact in `dtype`.
pub fn inputs(seed: u64, tokens: usize, hidden: usize, dtype: Format) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut value = || {
        let value = (rng.next_u32() >> 8) as f32 / 4_194_304.0 - 2.0;
        if dtype == Format::Bf16 {
            bf16_round(value)
        } else {
            value
        }
    };
    (0..tokens * hidden).map(|_| value()).collect()
}

/// `values` as the `[values / hidden, hidden]` array that a coordinator takes.
pub fn tensor(values: &[f32], hidden: usize) -> ArcArray2<f32> {
    let shape = (values.len() / hidden, hidden);
    ArcArray2::from_shape_vec(shape, values.to_vec()).expect("whole rows")
}
