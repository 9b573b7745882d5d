//! Every supported model type over a tiny checkpoint under the names of a published one: each tensor
//! is needed, and no other one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod deepseek;
mod kin;
mod others;
mod sigmoid;
mod softmax;

use std::collections::BTreeSet;

use expertmesh_checkpoint::{Checkpoint, LayerSource, describe, known_model_types};
use expertmesh_experts::Scratch;
use expertmesh_kernels::Format;

use deepseek::deepseek;
use kin::{EXPERTS, FFN, HIDDEN, Kin};
use others::others;
use sigmoid::sigmoid;
use softmax::softmax;

fn every() -> Vec<Kin> {
    [deepseek(), softmax(), sigmoid(), others()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_model_type_has_its_names_here() {
    let here: BTreeSet<&str> = every().iter().map(|kin| kin.model_type).collect();
    let known: BTreeSet<&str> = known_model_types().into_iter().collect();
    assert_eq!(here, known);
}

#[test]
fn a_layer_is_read_whole() {
    for kin in every() {
        let name = kin.model_type;
        let directory = kin.write(None);
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.layers(), 4, "{name}");
        assert_eq!(checkpoint.moe_layers(), kin.moe_layers, "{name}");
        for dtype in [Format::F32, Format::Bf16] {
            let layer = checkpoint
                .layer(1, dtype)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let spec = layer.spec();
            assert_eq!((spec.routed_experts(), spec.ffn), (EXPERTS, FFN), "{name}");
            assert_eq!(spec.shared.map(|shared| shared.ffn), kin.shared, "{name}");
            let x: Vec<f32> = (0..3 * HIDDEN).map(|i| (i % 5) as f32 - 2.0).collect();
            let route = layer.gate().unwrap().route(&x, 3, None).unwrap();
            assert_eq!(route.experts.len(), 3 * spec.top_k, "{name}");
            let rows = &x[..3 * spec.row_width()];
            let (mut y, mut scratch) = (vec![0.0; rows.len()], Scratch::default());
            let mut bytes = 0;
            for expert in 0..spec.experts {
                let expert = layer.expert(expert).unwrap();
                expert.forward(rows, &mut y, &mut scratch).unwrap();
                assert!(y.iter().all(|y| y.is_finite()), "{name}");
                bytes += expert.weight_bytes() as u64;
            }
            assert_eq!(bytes, spec.weights.experts.bytes, "{name}");
            let sizes = spec.latent.map(|latent| (HIDDEN, latent));
            let around = layer.projections().unwrap();
            let around = around.map(|one| (one.hidden(), one.latent()));
            assert_eq!(around, sizes, "{name}");
            assert_eq!(spec.latent.is_some(), name == "nemotron_h");
            let shared = layer.shared().unwrap();
            assert_eq!(shared.is_some(), kin.shared.is_some(), "{name}");
            let elements: usize = kin
                .tensors
                .iter()
                .map(|(_, s)| s.iter().product::<usize>())
                .sum();
            let total = spec.weights.total();
            assert_eq!(
                total.parameters, elements as u64,
                "{name}: {:?}",
                spec.weights
            );
        }
        let seen = describe(directory.path()).unwrap();
        let one = seen
            .moe_layers
            .iter()
            .find(|layer| layer.layer == 1)
            .unwrap();
        assert_eq!(
            (one.problem.as_ref(), &one.block[..]),
            (None, kin.prefix),
            "{name}"
        );
        assert_eq!(seen.tensors, kin.tensors.len(), "{name}");
    }
}

#[test]
fn every_tensor_is_needed() {
    for kin in every() {
        let beside =
            |name: &str| name.contains("shared_mlp") && kin.model_type.starts_with("granite");
        for (tensor, _) in &kin.tensors {
            let directory = kin.write(Some(tensor));
            let layer = Checkpoint::open(directory.path())
                .unwrap()
                .layer(1, Format::F32);
            let said = layer
                .err()
                .unwrap_or_else(|| panic!("{}: {tensor}", kin.model_type));
            let said = said.to_string();
            // Without the tensor that tells spellings apart, the message has the hub's.
            assert!(
                said.contains(" is missing from "),
                "{}: {said}",
                kin.model_type
            );
            assert!(
                said.contains(&tensor[..])
                    || tensor.contains(".0.")
                    || kin.model_type == "granitemoe_swa"
                    || beside(tensor),
                "{}: without {tensor} it says {said}",
                kin.model_type
            );
        }
    }
}
