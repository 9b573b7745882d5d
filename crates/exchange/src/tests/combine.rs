use expertmesh_kernels::{Format, bf16_round, encode_row};

use crate::CombineRule;

fn encoded(format: Format, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * format.bytes()];
    encode_row(format, values, &mut bytes);
    bytes
}

fn sum(rule: CombineRule, terms: &[(f32, f32)]) -> f32 {
    let rows: Vec<Vec<u8>> = terms
        .iter()
        .map(|(_, y)| encoded(rule.row_format, &[*y]))
        .collect();
    let terms = terms
        .iter()
        .zip(&rows)
        .map(|((weight, _), row)| (*weight, row.as_slice()));
    let mut out = [f32::NAN];
    rule.sum(terms, &mut out);
    rule.finish(&mut out, None);
    out[0]
}

fn rule(row_format: Format, dtype: Format, weight_in_dtype: bool) -> CombineRule {
    CombineRule::new(row_format, dtype, weight_in_dtype)
}

#[test]
fn terms_are_added_in_the_order_given() {
    let rule = rule(Format::F32, Format::F32, false);
    let big = 16_777_216.0;
    assert_eq!(sum(rule, &[(1.0, 1.0), (1.0, big), (1.0, -big)]), 0.0);
    assert_eq!(sum(rule, &[(1.0, big), (1.0, -big), (1.0, 1.0)]), 1.0);
}

#[test]
fn products_are_rounded_twice_and_never_fused() {
    let rule = rule(Format::F32, Format::F32, false);
    let (w, y) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON);
    let expected = -1.0 + w * y;
    assert_ne!(expected, w.mul_add(y, -1.0));
    assert_eq!(sum(rule, &[(1.0, -1.0), (w, y)]), expected);
}

#[test]
fn the_first_term_is_added_to_zero() {
    let rule = rule(Format::F32, Format::F32, false);
    assert_eq!(sum(rule, &[(1.0, -0.0)]).to_bits(), 0.0f32.to_bits());
    assert_eq!(sum(rule, &[]).to_bits(), 0.0f32.to_bits());
}

#[test]
fn bf16_rounds_the_sum_once_and_products_where_weights_are_bf16() {
    let terms = [(0.3, 1.0078125), (0.7, 3.015625), (0.01, 77.5)];
    let once = bf16_round(terms.iter().fold(0.0, |sum, (w, y)| sum + w * y));
    assert_eq!(sum(rule(Format::Bf16, Format::Bf16, false), &terms), once);
    let each = bf16_round(
        terms
            .iter()
            .fold(0.0, |sum, (w, y)| sum + bf16_round(w * y)),
    );
    assert_eq!(sum(rule(Format::Bf16, Format::Bf16, true), &terms), each);
    let exact = terms.iter().fold(0.0, |sum, (w, y)| sum + w * y);
    assert_eq!(
        sum(rule(Format::Bf16, Format::F32, true), &terms),
        exact,
        "f32 rounds nothing"
    );
}

#[test]
fn a_shared_row_is_added_after_the_sum_was_rounded() {
    let mut row = [1.0049];
    rule(Format::F32, Format::Bf16, false).finish(&mut row, Some(&[0.25]));
    assert_eq!(row[0], bf16_round(bf16_round(1.0049) + 0.25));
    let mut row = [1.001];
    rule(Format::F32, Format::F32, false).finish(&mut row, Some(&[0.25]));
    assert_eq!(row[0], 1.001 + 0.25);
}
