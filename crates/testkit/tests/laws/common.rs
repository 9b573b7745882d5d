//! Shapes and comparisons.

use std::time::Duration;

use expertmesh_checkpoint::SyntheticSpec;
use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_testkit::Model;

pub(crate) const EXCHANGES: [ExchangeKind; 3] = ExchangeKind::ALL;

/// Longest wait for something that must happen; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A shape that is quick and has room for uneven splits.
pub(crate) fn shape(dtype: Format) -> SyntheticSpec {
    SyntheticSpec {
        hidden: 64,
        ffn: 48,
        experts: 8,
        top_k: 2,
        kind: ExpertKind::Swiglu,
        seed: 11,
        layer: 0,
        dtype,
    }
}

pub(crate) fn small(dtype: Format) -> Model {
    Model::synthetic(shape(dtype))
}

pub(crate) async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it happens in time")
}

/// Fails at the first element whose bits differ.
#[track_caller]
pub(crate) fn same_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: number of elements");
    let at = got
        .iter()
        .zip(expected)
        .position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(at) = at {
        panic!(
            "{what}: element {at} is {}, expected {}",
            got[at], expected[at]
        );
    }
}
