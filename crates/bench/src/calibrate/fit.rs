//! Measured points → costs.
//!
//! What a phase shows by itself (gate, plan, combine) is fitted to that phase alone. What
//! only shows in whole steps (messages, bytes, wake-ups, experts beside each other) is fitted through the
//! simulator: costs are moved until simulated steps and phases are as long as measured ones.

use std::collections::BTreeMap;

use expertmesh_simulator::{CombineCost, Costs, Line};

use crate::calibrate::search::search;

/// A point as a fit sees it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Tokens of a step.
    pub tokens: f64,
    /// Choices of a step.
    pub choices: f64,
    /// Operations of the gate's product: 2·T·H·E.
    pub gate_flops: f64,
    /// Bytes that a combine at the coordinator reads and writes; `None` where workers are homes.
    pub combined_bytes: Option<f64>,
    /// Medians by figure, µs.
    pub measured_us: BTreeMap<String, f64>,
}

/// Figures that a fit through the simulator looks at besides `step`, with their weights.
const PARTS: [(&str, f64); 6] = [
    ("phases.send", 0.3),
    ("phases.queue", 0.2),
    ("phases.experts", 0.5),
    ("phases.return", 0.3),
    ("phases.combine", 0.3),
    ("phases.pack", 0.2),
];
/// The finest factor by which a cost is still moved.
const FINEST: f64 = 1.03;

/// One cost that the simulator shows, as a number to be moved.
type Knob = fn(&mut Costs) -> &mut f64;

/// Costs that are moved together with the simulator; each is one number.
const KNOBS: [Knob; 12] = [
    |costs| &mut costs.write.fixed_ns,
    |costs| &mut costs.write.unit_ns,
    |costs| &mut costs.read.fixed_ns,
    |costs| &mut costs.read.unit_ns,
    |costs| &mut costs.wake_ns,
    |costs| &mut costs.pool_ns,
    |costs| &mut costs.pack.unit_ns,
    |costs| &mut costs.experts.batch_ns,
    |costs| &mut costs.experts.byte_ns,
    |costs| &mut costs.slice_ns,
    |costs| &mut costs.collect.unit_ns,
    |costs| &mut costs.shard_plan.unit_ns,
];

/// Costs that a fit leaves as they were: nothing that is measured shows them by themselves.
pub const NOT_FITTED: [&str; 8] = [
    "check",
    "local",
    "reply",
    "timer_ns",
    "pack.fixed_ns",
    "shard_plan.fixed_ns",
    "collect.fixed_ns",
    "experts.bandwidth_share",
];

/// Fits `costs` to `samples`; `simulate` gives the figures of every sample under some costs, `links`
/// are numbers of the topology that it uses besides and that are moved too. Returns the loss left.
pub fn fit(
    costs: &mut Costs,
    links: &mut Vec<f64>,
    samples: &[Sample],
    mut simulate: impl FnMut(&Costs, &[f64]) -> Vec<BTreeMap<String, f64>>,
) -> f64 {
    direct(costs, samples);
    let tables = costs.experts.tables.clone();
    let mut parameters: Vec<f64> = KNOBS.iter().map(|knob| (*knob(costs)).max(1e-3)).collect();
    // Experts in a step beside experts in a loop, with few rows and with many; then the links.
    parameters.extend([1.0, 1.0]);
    parameters.extend(links.iter());
    let apply = |parameters: &[f64], costs: &mut Costs| {
        for (knob, value) in KNOBS.iter().zip(parameters) {
            *knob(costs) = *value;
        }
        let ends = [parameters[KNOBS.len()], parameters[KNOBS.len() + 1]];
        for (table, loop_times) in costs.experts.tables.iter_mut().zip(&tables) {
            scale(&mut table.points, &loop_times.points, ends);
            scale(&mut table.beside, &loop_times.beside, ends);
        }
    };
    let mut trial = costs.clone();
    let left = search(&mut parameters, FINEST, |parameters| {
        apply(parameters, &mut trial);
        let predicted = simulate(&trial, &parameters[KNOBS.len() + 2..]);
        loss(samples, &predicted)
    });
    apply(&parameters, costs);
    *links = parameters[KNOBS.len() + 2..].to_vec();
    left
}

/// Times of a table, multiplied by one factor at its fewest rows and another at its most, by a power
/// of the rows between them.
fn scale(now: &mut [(u32, f64)], from: &[(u32, f64)], ends: [f64; 2]) {
    let last = from
        .last()
        .map_or(1.0, |(rows, _)| f64::from(*rows))
        .ln()
        .max(1.0);
    for (now, (rows, ns)) in now.iter_mut().zip(from) {
        let along = f64::from(*rows).ln() / last;
        now.1 = ns * ends[0].powf(1.0 - along) * ends[1].powf(along);
    }
}

/// Mean squared logarithm of predicted over measured, of steps and, by weight and share, of phases.
/// Beyond a factor of 1.5 it grows only in proportion: a point that the machine spoilt must not lead.
fn loss(samples: &[Sample], predicted: &[BTreeMap<String, f64>]) -> f64 {
    let mut sum = 0.0;
    for (sample, predicted) in samples.iter().zip(predicted) {
        let pair = |figure: &str| {
            let (measured, now) = (sample.measured_us.get(figure)?, predicted.get(figure)?);
            Some((*measured, *now))
        };
        let Some(step) = sample.measured_us.get("step") else {
            continue;
        };
        // What cannot be simulated takes no time at all, and is as wrong as can be.
        let now = predicted.get("step").copied().unwrap_or(0.0);
        sum += bent((now.max(1e-3) / step.max(1e-3)).ln());
        for (figure, weight) in PARTS {
            if let Some((measured, now)) = pair(figure) {
                // In shares of the step: a phase counts for what it takes.
                sum += weight * bent((now - measured) / step.max(1e-3));
            }
        }
    }
    sum / samples.len().max(1) as f64
}

/// Huber's loss with its bend at ln 1.5.
fn bent(error: f64) -> f64 {
    const BEND: f64 = 0.405;
    let size = error.abs();
    if size <= BEND {
        return size * size;
    }
    BEND * (2.0 * size - BEND)
}

/// What a phase shows by itself.
fn direct(costs: &mut Costs, samples: &[Sample]) {
    let of = |figure: &str, size: &dyn Fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        let one = |sample: &Sample| Some((size(sample), *sample.measured_us.get(figure)? * 1e3));
        samples.iter().filter_map(one).collect()
    };
    costs.plan = line(&of("phases.plan", &|sample| sample.choices), costs.plan);
    let combined = samples.iter().filter_map(|sample| {
        let ns = *sample.measured_us.get("phases.combine")? * 1e3;
        Some((sample.combined_bytes?, ns))
    });
    let start = Line::new(costs.combine.fixed_ns, costs.combine.byte_ns);
    let combine = line(&combined.collect::<Vec<_>>(), start);
    costs.combine = CombineCost {
        fixed_ns: combine.fixed_ns,
        row_ns: 0.0,
        byte_ns: combine.unit_ns,
    };
    let gate: Vec<([f64; 2], f64)> = samples
        .iter()
        .filter_map(|sample| {
            let ns = *sample.measured_us.get("phases.gate")? * 1e3;
            Some(([sample.tokens, sample.gate_flops], ns))
        })
        .collect();
    let mut parameters = [
        costs.gate.fixed_ns.max(1.0),
        costs.gate.token_ns.max(1.0),
        costs.gate.flop_ns.max(1e-4),
    ];
    search(&mut parameters, 1.005, |p| {
        gate.iter()
            .map(|([tokens, flops], ns)| {
                bent(((p[0] + p[1] * tokens + p[2] * flops) / ns.max(1.0)).ln())
            })
            .sum()
    });
    [costs.gate.fixed_ns, costs.gate.token_ns, costs.gate.flop_ns] = parameters;
}

/// A line through (size, ns) by relative error.
fn line(points: &[(f64, f64)], start: Line) -> Line {
    if points.is_empty() {
        return start;
    }
    let mut parameters = [start.fixed_ns.max(1.0), start.unit_ns.max(1e-3)];
    search(&mut parameters, 1.005, |p| {
        points
            .iter()
            .map(|(size, ns)| bent(((p[0] + p[1] * size) / ns.max(1.0)).ln()))
            .sum()
    });
    Line::new(parameters[0], parameters[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_cannot_be_simulated_are_the_worst() {
        let sample = Sample {
            tokens: 1.0,
            choices: 1.0,
            gate_flops: 1.0,
            combined_bytes: None,
            measured_us: BTreeMap::from([("step".to_owned(), 100.0)]),
        };
        let far = BTreeMap::from([("step".to_owned(), 10_000.0)]);
        let samples = std::slice::from_ref(&sample);
        assert!(loss(samples, &[BTreeMap::new()]) > loss(samples, &[far]));
    }

    /// A world in which a step is what two costs make of it.
    #[test]
    fn costs_that_made_the_steps_are_found_again() {
        let truth = |costs: &Costs, tokens: f64| {
            (costs.write.fixed_ns + costs.write.unit_ns * tokens * 1000.0) / 1e3
        };
        let mut made = Costs::loopback();
        (made.write.fixed_ns, made.write.unit_ns) = (25_000.0, 0.6);
        let tokens = [1.0, 10.0, 100.0, 1000.0];
        let samples: Vec<Sample> = tokens
            .iter()
            .map(|tokens| Sample {
                tokens: *tokens,
                choices: 2.0 * tokens,
                gate_flops: 1e3 * tokens,
                combined_bytes: None,
                measured_us: BTreeMap::from([
                    ("step".to_owned(), truth(&made, *tokens)),
                    ("phases.plan".to_owned(), 5.0 + 0.1 * tokens),
                    ("phases.gate".to_owned(), 3.0 + 0.5 * tokens),
                ]),
            })
            .collect();
        let mut costs = Costs::loopback();
        let left = fit(&mut costs, &mut Vec::new(), &samples, |costs, _| {
            let step = |tokens: &f64| BTreeMap::from([("step".to_owned(), truth(costs, *tokens))]);
            tokens.iter().map(step).collect()
        });
        assert!(left < 1e-3, "{left}");
        for tokens in [5.0, 500.0] {
            let ratio = truth(&costs, tokens) / truth(&made, tokens);
            assert!((0.95..1.05).contains(&ratio), "{ratio} at {tokens}");
        }
        assert!((costs.plan.ns(2000) as f64 / 105_000.0 - 1.0).abs() < 0.02);
    }
}
