use super::*;

fn choices<'a>(experts: &'a [u32], weights: &'a [f32], top_k: usize) -> ModelChoices<'a> {
    ModelChoices {
        experts_total: 3,
        top_k,
        sequence: experts.len() / top_k,
        experts,
        weights,
        padding: None,
        dtype: Format::F32,
    }
}

/// NLLB's rule with nothing special, and so many places an expert.
fn top2(capacity: Top2Capacity) -> ModelCapacity {
    ModelCapacity::Top2 {
        capacity,
        prioritised: false,
        norm_before_drop: false,
        drop_padding: true,
    }
}

#[test]
fn each_sequence_fills_its_experts_anew() {
    // Two sequences of four tokens; expert 0 takes two of each.
    let experts = [0, 0, 1, 0, 0, 1, 1, 1];
    let weights = [0.5; 8];
    let mut batch = choices(&experts, &weights, 1);
    batch.sequence = 4;
    let rule = ModelCapacity::PerSequence { capacity: 2 };
    let got = rule.apply(&batch).unwrap();
    let (yes, no) = (true, false);
    assert_eq!(got.kept, [yes, yes, yes, no, yes, yes, yes, no]);
    assert_eq!((got.weights, got.capacity), (weights.to_vec(), 2));
    // Padding keeps its place in this model.
    batch.padding = Some(&[true; 8]);
    assert_eq!(rule.apply(&batch).unwrap().kept, got.kept);
    // Token by token nothing is dropped.
    batch.sequence = 1;
    assert_eq!(rule.apply(&batch).unwrap().kept, [true; 8]);
}

#[test]
fn second_choices_queue_after_every_first_one() {
    // Expert 0 is the second choice of token 0 and the first of tokens 1 and 2.
    let experts = [1, 0, 0, 1, 0, 2];
    let weights = [0.5, 0.25, 0.75, 0.125, 0.5, 0.5];
    let got = top2(Top2Capacity::Fixed(2))
        .apply(&choices(&experts, &weights, 2))
        .unwrap();
    assert_eq!(got.kept, [true, false, true, true, true, true]);
    // Token 0 lost its second choice: the first weighs all. The others keep their shares.
    assert_eq!(got.weights[..2], [1.0, 0.0]);
    assert_eq!(got.weights[2..4], [0.75 / 0.875, 0.125 / 0.875]);

    // Dropped first choices keep their place in the queue: with one place, expert 0 takes token 1,
    // expert 1 token 0, and token 1's second choice finds expert 1 taken.
    let got = top2(Top2Capacity::Fixed(1))
        .apply(&choices(&experts, &weights, 2))
        .unwrap();
    assert_eq!(got.kept, [true, false, true, false, false, true]);

    let before = ModelCapacity::Top2 {
        capacity: Top2Capacity::Fixed(2),
        prioritised: false,
        norm_before_drop: true,
        drop_padding: true,
    };
    let got = before.apply(&choices(&experts, &weights, 2)).unwrap();
    assert!(!got.kept[1]);
    assert_eq!(got.weights[..2], [0.5 / 0.75, 0.0]);
}

#[test]
fn confident_tokens_go_first_where_the_batch_is_prioritised() {
    let experts = [0, 1, 0, 1, 0, 1];
    let weights = [0.5, 0.25, 0.75, 0.125, 0.75, 0.0625];
    let rule = |prioritised| ModelCapacity::Top2 {
        capacity: Top2Capacity::Fixed(1),
        prioritised,
        norm_before_drop: false,
        drop_padding: true,
    };
    let batch = choices(&experts, &weights, 2);
    let (yes, no) = (true, false);
    let in_order = rule(false).apply(&batch).unwrap();
    assert_eq!(in_order.kept, [yes, yes, no, no, no, no]);
    // Tokens 1 and 2 tie: the lower one is first.
    let by_score = rule(true).apply(&batch).unwrap();
    assert_eq!(by_score.kept, [no, no, yes, yes, no, no]);
}

#[test]
fn padding_uses_no_capacity_unless_it_counts() {
    let experts = [0, 1, 0, 1];
    let weights = [0.5; 4];
    let padding = [true, false];
    let mut batch = choices(&experts, &weights, 2);
    batch.padding = Some(&padding);
    let rule = |drop_padding| ModelCapacity::Top2 {
        capacity: Top2Capacity::Fixed(1),
        prioritised: false,
        norm_before_drop: false,
        drop_padding,
    };
    let kept = |drop| rule(drop).apply(&batch).unwrap().kept;
    assert_eq!(kept(true), [false, false, true, true]);
    assert_eq!(kept(false), [true, true, false, false]);
}

#[test]
fn capacities_count_padding_and_round_up() {
    assert_eq!(Top2Capacity::Fraction(0.25).of(25, 4), 7);
    assert_eq!(Top2Capacity::Fraction(1.0).of(25, 4), 25);
    assert_eq!(Top2Capacity::PerExpert.of(25, 4), 14);
    assert_eq!(Top2Capacity::Fixed(64).of(25, 4), 64);
}

#[test]
fn bf16_rounds_each_step_and_small_sums_meet_its_epsilon() {
    let experts = [0, 1];
    let mut batch = choices(&experts, &[0.664_062_5, 0.330_078_13], 2);
    batch.dtype = Format::Bf16;
    let got = top2(Top2Capacity::Fixed(9)).apply(&batch).unwrap();
    // The sum, 509/512, becomes 254/256; the quotients 171.3/256 and 170.3/512 are rounded too.
    assert_eq!(got.weights, [0.667_968_75, 0.332_031_25]);
    let tiny = [0.001_953_125, 0.0];
    batch.weights = &tiny;
    let got = top2(Top2Capacity::Fixed(9)).apply(&batch).unwrap();
    assert_eq!(got.weights, [0.25, 0.0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let (experts, weights) = ([0, 1], [0.5; 2]);
    let said =
        |rule: ModelCapacity, batch: ModelChoices<'_>| rule.apply(&batch).unwrap_err().to_string();
    let rule = top2(Top2Capacity::Fixed(1));
    assert!(said(rule, choices(&experts, &weights, 1)).starts_with("top_k: 1, expected 2"));
    assert!(said(rule, choices(&experts, &weights[..1], 2)).starts_with("weights: 1 elements"));
    assert!(said(rule, choices(&[0, 7], &weights, 2)).contains("expert"));
    let nothing = top2(Top2Capacity::Fraction(0.0));
    assert!(said(nothing, choices(&experts, &weights, 2)).starts_with("capacity fraction: 0"));
    let mut batch = choices(&experts, &weights, 1);
    batch.sequence = 3;
    let per = ModelCapacity::PerSequence { capacity: 1 };
    assert_eq!(
        said(per, batch),
        "sequence: 3, expected a divisor of 2, the number of tokens"
    );
}
