//! Admission once more, written from the definitions: one list of choices, one sort, one map of
//! counters, no table that is shared with the code it checks but the draw of lots.

use std::collections::HashMap;

use crate::{
    AdmitContext, CapacityConfig, CapacityFormula, CapacityScope, CapacityShare, Fate, FreeExpert,
    NoiseKey, Overflow, Priority, Purpose, QueueOrder, Route, WeightRule,
};

/// Every table filled, absent or not in the original.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slow {
    pub(super) fates: Vec<Fate>,
    pub(super) executed: Vec<u32>,
    pub(super) weights: Vec<f32>,
    pub(super) replicas: Vec<u8>,
    pub(super) waves: Vec<u8>,
    pub(super) capacity: Option<u64>,
    pub(super) replays: u32,
}

#[derive(Debug, Clone, Copy)]
struct Choice {
    index: usize,
    token: usize,
    slot: usize,
    expert: u32,
    /// Of its token.
    rank: f32,
}

/// The formulas as their systems print them.
fn formula(config: &CapacityConfig, t: u64, k: u64, e: u64, needed: u64) -> u64 {
    let factor = match config.training {
        true => config.factor,
        false => config.eval_factor.or(config.factor),
    };
    let (tf, kf, ef) = (t as f64, k as f64, e as f64);
    let limit = factor.and_then(|cf| match config.formula {
        CapacityFormula::Megatron => Some((tf * kf / ef * cf).ceil() as u64),
        CapacityFormula::Switch => Some((tf / ef * cf).trunc() as u64),
        CapacityFormula::GShard => Some((kf * tf * cf / ef).trunc() as u64),
        CapacityFormula::DeepSpeed => {
            let scaled = (cf * kf) as f32;
            Some((((tf / ef) as f32) * scaled).ceil() as u64)
        }
        CapacityFormula::Tutel if cf == 0.0 => None,
        CapacityFormula::Tutel => Some(k * (cf.abs() * t.div_ceil(e) as f64).trunc() as u64),
        CapacityFormula::MegaBlocks => match (cf * (kf * tf / ef)).trunc() as u64 {
            0 => None,
            capacity => Some(capacity),
        },
        CapacityFormula::FastMoe => Some((cf * tf).ceil() as u64 * k / e),
    });
    let mut capacity = match limit {
        None => needed,
        Some(limit) => {
            let limit = limit.max(u64::from(config.min_capacity));
            let capped = config.automatic || factor.is_some_and(|cf| cf < 0.0);
            if capped { limit.min(needed) } else { limit }
        }
    };
    while config.alignment > 1 && !capacity.is_multiple_of(u64::from(config.alignment)) {
        capacity += 1;
    }
    capacity
}

fn part_of(route: &Route, config: &CapacityConfig, context: &AdmitContext<'_>, t: usize) -> usize {
    match config.share {
        CapacityShare::Batch => 0,
        CapacityShare::Senders(n) => {
            let n = n.get() as usize;
            let holds = |i: &usize| route.tokens * i / n <= t && t < route.tokens * (i + 1) / n;
            (0..n).find(holds).unwrap()
        }
        CapacityShare::Sequence if context.sequence == 0 => 0,
        CapacityShare::Sequence => {
            ((context.first_token + t as u64) / context.sequence as u64) as usize
        }
    }
}

fn rank_of(route: &Route, config: &CapacityConfig, token: usize) -> f32 {
    let e = route.experts_total;
    match config.priority {
        Priority::GateWeight => route.weights[route.choices_of(token)]
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| a.max(b)),
        Priority::Probability if route.logits.is_empty() => 0.0,
        Priority::Probability => {
            let mut row = route.logits[token * e..(token + 1) * e].to_vec();
            expertmesh_kernels::math::softmax(&mut row);
            row.into_iter().fold(0.0, f32::max)
        }
    }
}

pub(super) fn slow_admit(route: &Route, config: &CapacityConfig, ctx: &AdmitContext<'_>) -> Slow {
    let held = (route.experts_total - ctx.free.len()) as u32;
    let mut all = Vec::new();
    for token in 0..route.tokens {
        let rank = rank_of(route, config, token);
        for (slot, index) in route.choices_of(token).enumerate() {
            let expert = route.experts[index];
            all.push(Choice {
                index,
                token,
                slot,
                expert,
                rank,
            });
        }
    }
    let mut slow = Slow {
        fates: vec![Fate::Computed; all.len()],
        executed: route.experts.clone(),
        weights: route.weights.clone(),
        replicas: vec![0; all.len()],
        waves: vec![0; all.len()],
        capacity: None,
        replays: 0,
    };
    for choice in &all {
        let null =
            choice.expert >= held && ctx.free[(choice.expert - held) as usize] == FreeExpert::Null;
        if null || route.is_padding(choice.token) {
            slow.fates[choice.index] = Fate::Skipped;
        }
    }
    all.retain(|choice| choice.expert < held && slow.fates[choice.index] == Fate::Computed);

    if config.overflow != Overflow::Dropless {
        let part = |token: usize| part_of(route, config, ctx, token);
        let mut parts: Vec<usize> = (0..route.tokens).map(part).collect();
        parts.dedup();
        if parts.is_empty() {
            parts.push(0);
        }
        for number in parts {
            let queue: Vec<Choice> = all
                .iter()
                .copied()
                .filter(|choice| part(choice.token) == number)
                .collect();
            let real = (0..route.tokens)
                .filter(|&token| part(token) == number && !route.is_padding(token))
                .count();
            admit_part(route, config, ctx, queue, real as u64, held, &mut slow);
        }
    }
    weigh(route, config.weights, &mut slow);
    slow
}

/// Room is counted by (expert, replica) or (worker, 0).
type Bin = (u32, usize);

fn bin(config: &CapacityConfig, ctx: &AdmitContext<'_>, expert: u32, replica: usize) -> Bin {
    match config.scope {
        CapacityScope::Expert => (expert, replica),
        CapacityScope::Worker => (ctx.domains.unwrap().of(expert)[replica], 0),
    }
}

fn admit_part(
    route: &Route,
    config: &CapacityConfig,
    ctx: &AdmitContext<'_>,
    mut queue: Vec<Choice>,
    real: u64,
    held: u32,
    slow: &mut Slow,
) {
    let mut demand: HashMap<Bin, u64> = HashMap::new();
    for choice in &queue {
        *demand
            .entry(bin(config, ctx, choice.expert, 0))
            .or_default() += 1;
    }
    let needed = demand.values().copied().max().unwrap_or(0);
    let sharers = match config.scope {
        CapacityScope::Expert => route.experts_total,
        CapacityScope::Worker => ctx.domains.unwrap().count(),
    };
    let mut capacity = formula(config, real, route.top_k as u64, sharers as u64, needed);
    if config.overflow == Overflow::GrowAndReplay {
        capacity = capacity.max(ctx.grown.unwrap_or(0));
        if needed > capacity {
            slow.replays = 1;
            capacity = needed;
            while config.alignment > 1 && !capacity.is_multiple_of(u64::from(config.alignment)) {
                capacity += 1;
            }
        }
    }
    slow.capacity = slow.capacity.max(Some(capacity));

    // The queue: stable sorts, the last one being the first to decide.
    let major = |choice: &Choice| match config.order {
        QueueOrder::TokenMajor => 0,
        QueueOrder::ChoiceMajor => choice.slot,
    };
    queue.sort_by_key(|choice| (choice.token, choice.slot));
    if config.overflow == Overflow::DropPrioritised {
        queue.sort_by(|a, b| b.rank.total_cmp(&a.rank));
    }
    queue.sort_by_key(major);
    match config.overflow {
        Overflow::DropWeight => {
            queue.sort_by(|a, b| route.weights[b.index].total_cmp(&route.weights[a.index]))
        }
        Overflow::DropRandom => queue.sort_by_key(|choice| {
            let token = ctx.first_token + choice.token as u64;
            let (seed, step, layer) = (ctx.seed, ctx.step, ctx.layer);
            let key = NoiseKey { seed, step, layer };
            key.stream(Purpose::RandomDrop).word(token, choice.expert)
        }),
        _ => {}
    }

    let mut taken: HashMap<Bin, u64> = HashMap::new();
    let mut refused = Vec::new();
    for choice in &queue {
        let count = taken.entry(bin(config, ctx, choice.expert, 0)).or_default();
        if *count < capacity || config.overflow == Overflow::GrowAndReplay {
            *count += 1;
        } else if config.overflow == Overflow::Spill {
            if capacity == 0 || *count / capacity > 255 {
                slow.fates[choice.index] = Fate::Dropped;
            } else {
                slow.waves[choice.index] = (*count / capacity) as u8;
            }
            *count += 1;
        } else {
            slow.fates[choice.index] = Fate::Dropped;
            refused.push(*choice);
        }
    }
    for choice in refused {
        let mut options: Vec<(u32, usize)> = Vec::new();
        match config.overflow {
            Overflow::Reroute => {
                let row = &route.logits[choice.token * route.experts_total..];
                let mut experts: Vec<u32> = (0..held).collect();
                experts.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
                let has = route.choices_of(choice.token);
                experts.retain(|expert| !route.experts[has.clone()].contains(expert));
                experts.retain(|expert| !slow.executed[has.clone()].contains(expert));
                options.extend(experts.into_iter().map(|expert| (expert, 0)));
            }
            Overflow::RerouteToReplica => {
                let replicas = ctx.domains.unwrap().of(choice.expert).len();
                options.extend((1..replicas).map(|replica| (choice.expert, replica)));
            }
            _ => {}
        }
        for (expert, replica) in options {
            let count = taken.entry(bin(config, ctx, expert, replica)).or_default();
            if *count < capacity {
                *count += 1;
                slow.fates[choice.index] = Fate::Rerouted;
                slow.executed[choice.index] = expert;
                slow.replicas[choice.index] = replica as u8;
                break;
            }
        }
    }
}

fn weigh(route: &Route, rule: WeightRule, slow: &mut Slow) {
    for token in (0..route.tokens).filter(|&token| !route.is_padding(token)) {
        let choices = route.choices_of(token);
        let lost = choices
            .clone()
            .any(|choice| slow.fates[choice] == Fate::Dropped);
        match rule {
            WeightRule::Keep => {}
            WeightRule::Renormalise => {
                let kept = choices
                    .clone()
                    .filter(|&choice| slow.fates[choice] != Fate::Dropped);
                let mut sum = 0.0;
                for choice in kept {
                    sum += route.weights[choice];
                }
                for choice in choices {
                    slow.weights[choice] = route.weights[choice] / sum.max(f32::EPSILON);
                }
            }
            WeightRule::Zero if lost => {
                for choice in choices {
                    if slow.fates[choice] != Fate::Skipped {
                        slow.fates[choice] = Fate::Dropped;
                    }
                }
            }
            WeightRule::Zero => {}
        }
    }
}
