use super::*;
use crate::testing::{bits, linear, packed, round, values};
use crate::{Activation, IdentityExpert, MlpExpert};

const HIDDEN: usize = 33;

fn mlp(dtype: Format) -> Box<dyn Expert> {
    let up = packed(&values(HIDDEN * 8, 1, dtype), 8, HIDDEN, dtype);
    let down = packed(&values(HIDDEN * 8, 2, dtype), HIDDEN, 8, dtype);
    Box::new(MlpExpert::new(up, None, down, None, Activation::Silu, dtype).unwrap())
}

fn run(shared: &SharedExpert, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    shared.forward(x, &mut y, &mut Scratch::default()).unwrap();
    y
}

#[test]
fn a_gate_scales_each_row_with_its_roundings() {
    for dtype in [Format::F32, Format::Bf16] {
        let gate = values(HIDDEN, 3, dtype);
        let x = values(300 * HIDDEN, 4, dtype);
        let plain = SharedExpert::new(mlp(dtype), None, dtype).unwrap();
        let gated = packed(&gate, 1, HIDDEN, dtype);
        let gated = SharedExpert::new(mlp(dtype), Some(gated), dtype).unwrap();
        let expected: Vec<f32> = x
            .chunks_exact(HIDDEN)
            .zip(run(&plain, &x).chunks_exact(HIDDEN))
            .flat_map(|(x, y)| {
                let logit = round(linear(x, &gate)[0], dtype);
                let share = round(math::sigmoid(logit), dtype);
                y.iter()
                    .map(|value| round(share * value, dtype))
                    .collect::<Vec<_>>()
            })
            .collect();
        let y = run(&gated, &x);
        assert_eq!(bits(&y), bits(&expected), "{dtype}");
        assert_eq!(bits(&run(&gated, &x[..HIDDEN])), bits(&y[..HIDDEN]));
    }
}

#[test]
fn size_and_work_include_the_gate() {
    let identity = || Box::new(IdentityExpert::new(HIDDEN).unwrap());
    let plain = SharedExpert::new(identity(), None, Format::F32).unwrap();
    assert_eq!((plain.weight_bytes(), plain.flops_per_row()), (0, 0));
    let gate = packed(&[0.0; HIDDEN], 1, HIDDEN, Format::F32);
    let gated = SharedExpert::new(identity(), Some(gate), Format::F32).unwrap();
    assert_eq!((gated.hidden(), gated.weight_bytes()), (HIDDEN, 4 * HIDDEN));
    assert_eq!(gated.flops_per_row(), 2 * HIDDEN as u64);
    assert_eq!(
        format!("{plain:?}"),
        "SharedExpert { hidden: 33, gate: None, dtype: F32, .. }"
    );
}

#[test]
fn a_gate_of_another_shape_is_an_error() {
    let gate = packed(&[0.0; 2 * HIDDEN], 2, HIDDEN, Format::F32);
    let error = SharedExpert::new(mlp(Format::F32), Some(gate), Format::F32).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("weights shared_gate: got shape [2, 33]")
    );
    let plain = SharedExpert::new(mlp(Format::F32), None, Format::F32).unwrap();
    let error = plain
        .forward(&[0.0; 5], &mut [0.0; 5], &mut Scratch::default())
        .unwrap_err();
    assert!(matches!(
        error,
        ExpertError::Rows {
            hidden: HIDDEN,
            x: 5,
            y: 5
        }
    ));
}
