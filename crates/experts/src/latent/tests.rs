use super::*;
use crate::testing::{bits, linear, obeys_the_laws, packed, round, run, values};
use crate::{Activation, ConstantExpert, MlpExpert};

const HIDDEN: usize = 33;
const LATENT: usize = 12;
const FFN: usize = 20;

fn inner(dtype: Format) -> MlpExpert {
    let matrix = |seed, out, inner| packed(&values(out * inner, seed, dtype), out, inner, dtype);
    let (up, down) = (matrix(1, FFN, LATENT), matrix(2, LATENT, FFN));
    MlpExpert::new(up, None, down, None, Activation::Relu2, dtype)
        .unwrap()
        .scaled(0.75)
}

fn latent(dtype: Format) -> LatentExpert {
    let matrix =
        |seed, out, inner| Arc::new(packed(&values(out * inner, seed, dtype), out, inner, dtype));
    let (into, out_of) = (matrix(3, LATENT, HIDDEN), matrix(4, HIDDEN, LATENT));
    LatentExpert::new(into, Box::new(inner(dtype)), out_of, dtype).unwrap()
}

#[test]
fn rows_pass_both_projections() {
    for dtype in [Format::F32, Format::Bf16] {
        let x = values(3 * HIDDEN, 5, dtype);
        let mut scratch = Scratch::default();
        let project = |x: &[f32], seed| -> Vec<f32> {
            let y = linear(x, &values(LATENT * HIDDEN, seed, dtype));
            y.into_iter().map(|value| round(value, dtype)).collect()
        };
        let expected: Vec<f32> = x
            .chunks_exact(HIDDEN)
            .flat_map(|x| project(&run(&inner(dtype), &project(x, 3), &mut scratch), 4))
            .collect();
        let y = run(&latent(dtype), &x, &mut scratch);
        assert_eq!(bits(&y), bits(&expected), "{dtype}");
        obeys_the_laws(&latent(dtype), dtype);
    }
}

#[test]
fn sizes_leave_the_projections_to_the_layer() {
    let expert = latent(Format::F32);
    assert_eq!(expert.weight_bytes(), 2 * LATENT * FFN * 4);
    let flops = 4 * (LATENT * FFN + LATENT * HIDDEN);
    assert_eq!(expert.flops_per_row(), flops as u64);
    let into = Arc::new(packed(&[0.0; 2], 2, 1, Format::F32));
    let error = LatentExpert::new(
        Arc::clone(&into),
        Box::new(inner(Format::F32)),
        into,
        Format::F32,
    );
    let error = error.err().unwrap().to_string();
    assert!(
        error.starts_with("weights latent_in: got shape [2, 1]"),
        "{error}"
    );
}

#[test]
fn a_constant_is_the_same_for_every_row() {
    let row = values(HIDDEN, 6, Format::F32);
    let expert = ConstantExpert::new(row.clone(), 4).unwrap();
    let y = run(
        &expert,
        &values(2 * HIDDEN, 7, Format::F32),
        &mut Scratch::default(),
    );
    assert_eq!(y, [row.clone(), row].concat());
    assert_eq!(
        (expert.weight_bytes(), expert.flops_per_row()),
        (4 * HIDDEN, 0)
    );
    obeys_the_laws(&expert, Format::F32);
    assert!(ConstantExpert::new(vec![], 4).is_err());
}
