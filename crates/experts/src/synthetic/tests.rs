use expertmesh_kernels::Format;
use proptest::prelude::*;

use super::*;
use crate::testing::{digest, run, values};
use crate::{Activation, Scratch};

fn spec(kind: ExpertKind, dtype: Format) -> ExpertSpec {
    ExpertSpec {
        hidden: 40,
        ffn: 72,
        kind,
        activation: Activation::Silu,
        dtype,
    }
}

/// The expert's answer to a fixed input, as a hash of its bits.
fn answer(spec: &ExpertSpec, seed: u64, layer: u32, expert: u32) -> u64 {
    let expert = synthetic_expert(spec, seed, layer, expert).unwrap();
    let x = values(3 * spec.hidden, 9, spec.dtype);
    digest(&run(expert.as_ref(), &x, &mut Scratch::default()))
}

#[test]
fn every_head_has_a_stream_of_its_own() {
    let heads = [
        SyntheticHead::Exit,
        SyntheticHead::Depth,
        SyntheticHead::Gate,
    ];
    let rows = heads.map(|head| synthetic_head(head, 1, 40, 7, 0));
    for row in &rows {
        let length: f32 = row.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_eq!(rows[2], synthetic_gate(1, 40, 7, 0));
    assert!(rows[0] != rows[1] && rows[1] != rows[2] && rows[0] != rows[2]);
    assert_ne!(rows[1], synthetic_head(SyntheticHead::Depth, 1, 40, 7, 1));
}

#[test]
fn the_bits_are_pinned() {
    // These hold on every CPU and system: recorded runs name seeds and expect these weights.
    let swiglu = answer(&spec(ExpertKind::Swiglu, Format::F32), 7, 0, 0);
    let swiglu_bf16 = answer(&spec(ExpertKind::Swiglu, Format::Bf16), 7, 0, 0);
    let mlp = answer(&spec(ExpertKind::Mlp, Format::F32), 7, 3, 5);
    let gate = digest(&synthetic_gate(8, 40, 7, 0));
    let wide_gate = digest(&synthetic_gate(48, 40, 7, 1));
    assert_eq!(
        [swiglu, swiglu_bf16, mlp, gate, wide_gate].map(|hash| format!("{hash:016x}")),
        [
            "5f1361765aeac8b6",
            "53b32a397550962a",
            "c6ffef12c98d9b51",
            "1c1cfc33be4ac71e",
            "225b8bc8612cd0e7"
        ]
    );
}

#[test]
fn seed_layer_and_expert_each_change_the_weights() {
    let spec = spec(ExpertKind::Swiglu, Format::F32);
    let answers = [(7, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1)]
        .map(|(seed, layer, expert)| answer(&spec, seed, layer, expert));
    for (index, left) in answers.iter().enumerate() {
        assert!(answers[..index].iter().all(|right| right != left));
    }
    assert_eq!(answers[0], answer(&spec, 7, 0, 0));
    assert_ne!(synthetic_gate(4, 40, 7, 0), synthetic_gate(4, 40, 7, 1));
}

#[test]
fn weights_fill_their_interval() {
    let mut rng = stream(1, 2, 3);
    let draws: Vec<f32> = (0..20_000).map(|_| symmetric(&mut rng)).collect();
    assert!(draws.iter().all(|draw| draw.abs() < 1.0 && *draw != 0.0));
    let mean = draws.iter().sum::<f32>() / 20_000.0;
    let square = draws.iter().map(|draw| draw * draw).sum::<f32>() / 20_000.0;
    assert!(
        mean.abs() < 0.02 && (square - 1.0 / 3.0).abs() < 0.01,
        "{mean} {square}"
    );
}

#[test]
fn specs_are_checked_and_kept() {
    for kind in [ExpertKind::Swiglu, ExpertKind::Mlp, ExpertKind::Identity] {
        for dtype in [Format::F32, Format::Bf16] {
            let spec = spec(kind, dtype);
            let expert = synthetic_expert(&spec, 1, 0, 0).unwrap();
            assert_eq!(expert.hidden(), spec.hidden);
            assert_eq!(expert.weight_bytes(), spec.weight_bytes());
            assert_eq!(expert.flops_per_row(), spec.flops_per_row());
        }
    }
    let empty = ExpertSpec {
        ffn: 0,
        ..spec(ExpertKind::Swiglu, Format::F32)
    };
    assert!(matches!(
        synthetic_expert(&empty, 1, 0, 0),
        Err(ExpertError::ZeroDimension { field: "ffn" })
    ));
}

#[test]
fn a_gate_without_hidden_values_is_empty() {
    assert!(synthetic_gate(4, 0, 1, 0).is_empty());
    assert!(synthetic_gate(0, 4, 1, 0).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gate_rows_have_length_one_and_stand_apart(
        experts in 1usize..40,
        hidden in 1usize..40,
        seed: u64,
    ) {
        let gate = synthetic_gate(experts, hidden, seed, 0);
        prop_assert_eq!(gate.len(), experts * hidden);
        let rows: Vec<Vec<f64>> = gate
            .chunks_exact(hidden)
            .map(|row| row.iter().copied().map(f64::from).collect())
            .collect();
        for (index, row) in rows.iter().enumerate() {
            prop_assert!((dot(row, row) - 1.0).abs() < 1e-5);
            for earlier in &rows[..index] {
                prop_assert!(experts > hidden || dot(row, earlier).abs() < 1e-5);
            }
        }
    }
}
