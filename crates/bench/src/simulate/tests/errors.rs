//! What cannot be simulated says so, and names what is wrong.

use expertmesh_simulator::{Failure, Fault};

use super::*;

/// What the simulation is refused with.
fn refusal(simulation: &mut Simulation, steps: u64) -> SimulateError {
    let refused = simulation.run(steps, 0, ("made up", None), || ());
    refused.expect_err("a simulation that cannot be done")
}

fn plain() -> Simulation {
    simulation(stack(ExchangeKind::AllToAll, 1, 0), drawn("balanced", 1))
}

fn normal() -> SimLoad {
    SimLoad::Rows(Workload::new(Pattern::Normal, SHAPE, 1, None).unwrap())
}

#[test]
fn nothing_to_simulate_is_named() {
    let mut overlap = plain();
    overlap.overlap = 0;
    let mut layers = plain();
    layers.layers.clear();
    let cases = [
        (plain(), 0, "steps"),
        (overlap, 1, "overlap"),
        (layers, 1, "layers"),
    ];
    for (mut simulation, steps, expected) in cases {
        let error = refusal(&mut simulation, steps);
        assert!(
            matches!(error, SimulateError::Nothing { field } if field == expected),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("at least 1"));
    }
}

#[test]
fn a_decision_that_a_coordinator_would_refuse_is_refused() {
    let shape = WorkloadShape {
        experts: 16,
        ..SHAPE
    };
    let mut simulation = plain();
    let scores = ScoredWorkload::new(Pattern::Balanced, shape, None, 1).unwrap();
    simulation.load = SimLoad::Scores(scores);
    let error = refusal(&mut simulation, 1);
    assert!(matches!(error, SimulateError::Decide(_)), "{error}");
    assert!(error.to_string().contains("64 rows of 8"), "{error}");
}

#[test]
fn a_step_that_would_fail_fails() {
    let lost = |sim: &mut SimConfig| {
        sim.faults.push(Fault::Lost {
            endpoint: 2,
            at_ns: 0,
            how: Failure::Dies,
        });
    };
    let mut simulation = simulation(stack(ExchangeKind::Star, 1, 0), drawn("balanced", 1));
    simulation.simulator = simulator_on(&lab(), &config(SHAPE, ExchangeKind::Star), lost);
    let error = refusal(&mut simulation, 1);
    assert!(
        matches!(error, SimulateError::Simulate(SimError::Step(_))),
        "{error}"
    );
    assert!(error.to_string().contains("worker-1"), "{error}");
}

#[test]
fn layers_that_the_simulator_does_not_simulate_are_refused() {
    let wide = WorkloadShape {
        experts: 16,
        ..SHAPE
    };
    let mut few = config(SHAPE, ExchangeKind::Star);
    few.workers.truncate(2);
    few.placement = expertmesh_placement::Placement::contiguous(SHAPE.experts, 2).unwrap();
    let cases = [
        (config(wide, ExchangeKind::Star), "16 experts on 4 workers"),
        (few, "8 experts on 2 workers"),
        (config(SHAPE, ExchangeKind::AllToAll), "in all-to-all"),
    ];
    for (other, words) in cases {
        let mut simulation = simulation(stack(ExchangeKind::Star, 2, 0), normal());
        simulation.layers[1] = Rehearsal::new(other).unwrap();
        let error = refusal(&mut simulation, 1);
        assert!(matches!(error, SimulateError::Layer { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("layer 1") && text.contains(words), "{text}");
        assert!(text.contains("expected 8 experts on 4 workers in star"));
    }
}

#[test]
fn a_format_without_a_name_is_refused() {
    let mut config = config(SHAPE, ExchangeKind::Star);
    config.model.dtype = 77;
    let error = refusal(&mut simulation(one(config), drawn("balanced", 1)), 1);
    assert!(matches!(error, SimulateError::Identity(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("dtype") && text.contains("77"), "{text}");
}
