//! The rules of published systems, worked by hand on one batch.

use super::admit;
use crate::{
    Admission, CapacityConfig, CapacityFormula, CapacityPreset, CapacityScope, CapacityShare, Fate,
    Overflow, Priority, QueueOrder, Route, WeightRule,
};

/// Six tokens with two of three experts each, weights in sixteenths. Demand is 6, 3 and 3; the
/// mean is 6 · 2 / 3 = 4.
///
/// Expert 0 by place: tokens 0 to 5 with 10, 11, 9, 3, 14 and 4 sixteenths; it is the first choice
/// of tokens 0, 1, 2 and 4.
pub(super) fn six_tokens() -> Route {
    let choices: [[(u32, f32); 2]; 6] = [
        [(0, 10.0), (1, 6.0)],
        [(0, 11.0), (1, 5.0)],
        [(0, 9.0), (2, 7.0)],
        [(1, 13.0), (0, 3.0)],
        [(0, 14.0), (2, 2.0)],
        [(2, 12.0), (0, 4.0)],
    ];
    let mut logits = vec![0.0; 18];
    for (token, choices) in choices.iter().enumerate() {
        for (expert, weight) in choices {
            logits[token * 3 + *expert as usize] = weight / 4.0;
        }
    }
    let all = choices.as_flattened();
    Route {
        tokens: 6,
        top_k: 2,
        offsets: None,
        experts_total: 3,
        logits,
        experts: all.iter().map(|choice| choice.0).collect(),
        weights: all.iter().map(|choice| choice.1 / 16.0).collect(),
        padding: None,
    }
}

/// The (token, expert) pairs that were dropped.
pub(super) fn dropped(route: &Route, admission: &Admission) -> Vec<(usize, u32)> {
    let all = 0..route.choices();
    all.filter(|&choice| admission.fates[choice] == Fate::Dropped)
        .map(|choice| (choice / 2, route.experts[choice]))
        .collect()
}

fn preset(name: &str) -> CapacityConfig {
    name.parse::<CapacityPreset>().unwrap().config()
}

/// Capacity and drops of six tokens.
fn admitted(config: CapacityConfig) -> (u64, Vec<(usize, u32)>) {
    let route = six_tokens();
    let admission = admit(&route, &config).unwrap();
    (admission.capacity.unwrap(), dropped(&route, &admission))
}

fn at(factor: f64, config: CapacityConfig) -> CapacityConfig {
    CapacityConfig {
        factor: Some(factor),
        eval_factor: None,
        ..config
    }
}

#[test]
fn switch_by_hand() {
    let eval = preset("switch");
    let train = CapacityConfig {
        training: true,
        ..eval
    };
    // 10 / 3 · 1.25 = 4.17 and 10 / 3 · 2 = 6.67, cut off.
    assert_eq!(train.capacity(10, 1, 3), Some(4));
    assert_eq!(eval.capacity(10, 1, 3), Some(6));
    // The first are kept, the weight is the gate's.
    let route = Route {
        tokens: 4,
        top_k: 1,
        offsets: None,
        experts_total: 2,
        logits: vec![],
        experts: vec![1, 1, 0, 1],
        weights: vec![0.6, 0.9, 0.8, 1.0],
        padding: None,
    };
    // 4 / 2 · 1.25 = 2.5, cut off to 2.
    let admission = admit(&route, &train).unwrap();
    assert_eq!(admission.capacity, Some(2));
    assert_eq!(admission.fates[3], Fate::Dropped);
    assert_eq!(admission.fates[..3], [Fate::Computed; 3]);
    assert_eq!(admission.weights, None);
}

#[test]
fn gshard_by_hand() {
    // int(2 · 6 · 1 / 3) = 4, the paper's 2N/E: expert 0 takes all first choices, which are of
    // tokens 0, 1, 2 and 4, and has no room for second ones.
    assert_eq!(admitted(preset("gshard")), (4, vec![(3, 0), (5, 0)]));
    assert_eq!(preset("gshard").weights, WeightRule::Keep);
    // int(2 · 7 · 1.1 / 3) = int(5.13)
    assert_eq!(at(1.1, preset("gshard")).capacity(7, 2, 3), Some(5));
}

#[test]
fn megatron_by_hand() {
    // ceil(6 · 2 / 3 · 1) = 4: the weights that stay are 14, 11, 10 and 9 sixteenths.
    assert_eq!(admitted(preset("megatron")), (4, vec![(3, 0), (5, 0)]));
    // By place the first four tokens stay.
    let position = preset("megatron-position");
    assert_eq!(admitted(position), (4, vec![(4, 0), (5, 0)]));
    // ceil(4 · 1.1) = ceil(4.4): one more.
    assert_eq!(admitted(at(1.1, position)), (5, vec![(5, 0)]));
    // Local tokens: ceil(3 · 2 / 3) = 2 in each half, tokens 0 to 2 and 3 to 5.
    let share = CapacityShare::senders(2).unwrap();
    let local = CapacityConfig { share, ..position };
    assert_eq!(admitted(local), (2, vec![(2, 0), (5, 0)]));
    assert_eq!(position.weights, WeightRule::Keep);
}

#[test]
fn deepspeed_by_hand() {
    // max(ceil(6 / 3 · 2), 4) = 4, all first choices before all second ones.
    let top2 = preset("deepspeed-top2");
    assert_eq!(admitted(top2), (4, vec![(3, 0), (5, 0)]));
    // Weights over their sum where both stayed: 10/16 / 1; where one did: 13/16 / (13/16).
    let admission = admit(&six_tokens(), &top2).unwrap();
    let weights = admission.weights.unwrap();
    assert_eq!((weights[0], weights[1]), (10.0 / 16.0, 6.0 / 16.0));
    assert_eq!((weights[6], weights[10]), (1.0, 1.0));
    // A gate that leaves probabilities as they are: 8/16 and 4/16 become 2/3 and 1/3.
    let mut route = six_tokens();
    route.weights[..2].copy_from_slice(&[0.5, 0.25]);
    let weights = admit(&route, &top2).unwrap().weights.unwrap();
    assert_eq!(weights[..2], [0.5 / 0.75, 0.25 / 0.75]);
    // A sum of nothing is clamped: nothing stays nothing.
    route.weights[..2].copy_from_slice(&[0.0, 0.0]);
    let weights = admit(&route, &top2).unwrap().weights.unwrap();
    assert_eq!(weights[..2], [0.0, 0.0]);

    // The heaviest, as Megatron, normalised over what is left.
    let topk = preset("deepspeed-topk");
    assert_eq!(admitted(topk), (4, vec![(3, 0), (5, 0)]));
    let weights = admit(&six_tokens(), &topk).unwrap().weights.unwrap();
    assert_eq!((weights[6], weights[8]), (1.0, 14.0 / 16.0));

    // At least 4: 6 / 3 · 0.5 · 2 = 2.
    assert_eq!(admitted(at(0.5, top2)).0, 4);
    // f32: 50 · 1.1 is 55 there, and 55.00000000000001 in f64.
    let top1 = preset("deepspeed-top1");
    assert_eq!(at(1.1, top1).capacity(200, 1, 4), Some(55));
    assert_eq!(at(1.1, preset("megatron")).capacity(200, 1, 4), Some(56));
    // Random selection: as many as there is room for. ceil(12 / 2 · 1) = 6 of 12.
    let route = Route {
        tokens: 12,
        top_k: 1,
        offsets: None,
        experts_total: 2,
        logits: vec![],
        experts: vec![1; 12],
        weights: vec![0.5; 12],
        padding: None,
    };
    let admission = admit(&route, &top1).unwrap();
    let kept = admission
        .fates
        .iter()
        .filter(|&&fate| fate == Fate::Computed);
    assert_eq!((admission.capacity, kept.count()), (Some(6), 6));
    assert_eq!(admission.weights, None);
}

#[test]
fn tutel_by_hand() {
    let tutel = preset("tutel");
    // 2 · int(1 · ceil(6 / 3)) = 4, choice-major.
    assert_eq!(admitted(tutel), (4, vec![(3, 0), (5, 0)]));
    // 2 · int(1.25 · 2) = 4, and with seven tokens 2 · int(1.25 · 3) = 6.
    assert_eq!(at(1.25, tutel).capacity(6, 2, 3), Some(4));
    assert_eq!(at(1.25, tutel).capacity(7, 2, 3), Some(6));
    // 0: what is needed, 6. Below: at most 2 · int(1 · 2) = 4, or 2 · int(2 · 2) = 8.
    assert_eq!(admitted(at(0.0, tutel)), (6, vec![]));
    assert_eq!(admitted(at(-1.0, tutel)), (4, vec![(3, 0), (5, 0)]));
    assert_eq!(admitted(at(-2.0, tutel)), (6, vec![]));
    // Aligned after all else: 4 becomes 8.
    let aligned = CapacityConfig {
        alignment: 8,
        ..tutel
    };
    assert_eq!(admitted(aligned), (8, vec![]));
    assert_eq!(tutel.weights, WeightRule::Keep);

    // Batch-prioritised with 2 · int(0.5 · 2) = 2. Tokens by their highest probability: 4 (logits
    // 3.5 and 0.5), 3, 5, 1, 0, 2. First choices: expert 0 takes 4 and 1, expert 1 takes 3, expert
    // 2 takes 5. Second ones: token 4 gets 2's last place, token 1 expert 1's.
    let bpr = at(0.5, preset("tutel-bpr"));
    let lost = vec![(0, 0), (0, 1), (2, 0), (2, 2), (3, 0), (5, 0)];
    assert_eq!(admitted(bpr), (2, lost));
    assert!(
        admit(
            &Route {
                logits: vec![],
                ..six_tokens()
            },
            &bpr
        )
        .is_err()
    );
}

#[test]
fn megablocks_by_hand() {
    let megablocks = preset("megablocks");
    // int(1 · (2 · 6 / 3)) = 4, the first by place.
    assert_eq!(admitted(megablocks), (4, vec![(4, 0), (5, 0)]));
    // int(1.3 · 4) = int(5.2)
    assert_eq!(admitted(at(1.3, megablocks)), (5, vec![(5, 0)]));
    // 0, and what is cut off to 0, gives what is needed.
    assert_eq!(admitted(at(0.0, megablocks)), (6, vec![]));
    assert_eq!(admitted(at(0.2, megablocks)), (6, vec![]));
}

#[test]
fn fastmoe_by_hand() {
    let eval = preset("fastmoe-gshard");
    // ceil(2.4 · 6) · 2 div 3 = 15 · 2 div 3 = 10
    assert_eq!(admitted(eval), (10, vec![]));
    // ceil(1.2 · 6) · 2 div 3 = 8 · 2 div 3 = 5
    let train = CapacityConfig {
        training: true,
        ..eval
    };
    assert_eq!(admitted(train), (5, vec![(5, 0)]));
}

#[test]
fn an_automatic_capacity_is_what_is_needed() {
    let config = CapacityConfig {
        automatic: true,
        overflow: Overflow::DropPosition,
        ..CapacityConfig::default()
    };
    assert_eq!(admitted(config), (6, vec![]));
    // Capped at ceil(4 · 1.25) = 5, or not reached: ceil(4 · 2) = 8.
    assert_eq!(admitted(at(1.25, config)), (5, vec![(5, 0)]));
    assert_eq!(admitted(at(2.0, config)), (6, vec![]));
}

#[test]
fn training_and_evaluation_have_factors_of_their_own() {
    let both = CapacityConfig {
        factor: Some(1.0),
        eval_factor: Some(2.0),
        overflow: Overflow::DropPosition,
        ..CapacityConfig::default()
    };
    let train = CapacityConfig {
        training: true,
        ..both
    };
    assert_eq!(
        (both.active_factor(), train.active_factor()),
        (Some(2.0), Some(1.0))
    );
    let one = CapacityConfig {
        eval_factor: None,
        ..both
    };
    assert_eq!(one.active_factor(), Some(1.0));
    let none = CapacityConfig {
        factor: None,
        ..train
    };
    assert!(none.validate().is_err());
    let bad = CapacityConfig {
        eval_factor: Some(-1.0),
        ..both
    };
    let error = bad.validate().unwrap_err().to_string();
    assert_eq!(
        error,
        "eval capacity factor: -1, expected a finite number above 0"
    );
}

#[test]
fn settings_have_words() {
    fn both_ways<T>(all: &[T])
    where
        T: std::fmt::Debug + std::fmt::Display + std::str::FromStr + PartialEq,
    {
        for value in all {
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(value));
        }
        assert!("nothing of the kind".parse::<T>().is_err());
    }
    both_ways(&Overflow::ALL);
    both_ways(&CapacityFormula::ALL);
    both_ways(&CapacityPreset::ALL);
    both_ways(&[QueueOrder::TokenMajor, QueueOrder::ChoiceMajor]);
    both_ways(&[Priority::GateWeight, Priority::Probability]);
    both_ways(&[CapacityScope::Expert, CapacityScope::Worker]);
    both_ways(&[WeightRule::Keep, WeightRule::Renormalise, WeightRule::Zero]);
    let senders = CapacityShare::senders(4).unwrap();
    both_ways(&[CapacityShare::Batch, CapacityShare::Sequence, senders]);
    assert_eq!(senders.to_string(), "senders:4");
    for wrong in ["senders:0", "senders:", "senders:x", "senders"] {
        assert!(wrong.parse::<CapacityShare>().is_err(), "{wrong}");
    }
    assert!(CapacityShare::senders(0).is_err());
    for (word, overflow) in [
        ("drop", Overflow::DropPosition),
        ("drop-prioritised", Overflow::DropPrioritised),
        ("grow", Overflow::GrowAndReplay),
    ] {
        assert_eq!(word.parse::<Overflow>().unwrap(), overflow);
    }
    let error = "choice".parse::<QueueOrder>().unwrap_err().to_string();
    assert_eq!(
        error,
        "queue order: \"choice\", expected token-major or choice-major"
    );
    for preset in CapacityPreset::ALL {
        preset.config().validate().unwrap();
    }
}
