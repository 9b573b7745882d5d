use expertmesh_kernels::Format;

use super::*;
use crate::testing::{obeys_the_laws, run, values};

#[test]
fn a_constant_is_the_same_for_every_row() {
    const HIDDEN: usize = 33;
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
