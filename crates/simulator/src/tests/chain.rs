//! Steps behind each other, and what lies between them.

use expertmesh_exchange::ExchangeKind;
use expertmesh_routing::{Admission, Route};

use super::{admitted, config, free, lab, route, table};
use crate::{Failure, Fault, SimConfig, SimRun, Simulator, StepInput};

const BEHIND: u64 = 300_000;
const EXPERT: u64 = 700_000;

/// One worker with one expert that takes [`EXPERT`].
fn alone() -> SimConfig {
    config(1, 1, ExchangeKind::Star)
}

fn run(config: SimConfig, inputs: &[StepInput<'_>]) -> SimRun {
    let mut costs = free();
    // Devices compute.
    costs.on_cores = false;
    costs.experts.tables = vec![table(1, EXPERT as f64)];
    let workers = config.placement.workers();
    let mut sim = Simulator::new(&lab(workers, 4), costs, config).unwrap();
    sim.run(inputs).unwrap()
}

/// So many batches through so many layers, with [`BEHIND`] behind each.
fn stack<'a>(
    batches: usize,
    layers: usize,
    route: &'a Route,
    admission: &'a Admission,
) -> Vec<StepInput<'a>> {
    let input = |at: usize| StepInput {
        follows: at.checked_sub(batches),
        behind_ns: BEHIND,
        ..StepInput::at(0, route, admission)
    };
    (0..batches * layers).map(input).collect()
}

#[test]
fn a_batch_alone_takes_its_layers_and_what_lies_behind_each() {
    let route = route(1, &[0]);
    let admission = admitted(&route);
    let run = run(alone(), &stack(1, 3, &route, &admission));
    let step_ns = run.steps[0].record.step_ns;
    assert!(step_ns > EXPERT);
    for (at, step) in (1..).zip(&run.steps) {
        assert_eq!(step.record.step_ns, step_ns);
        assert_eq!(step.left_ns, at * (step_ns + BEHIND));
    }
}

/// The device is what is short: it never rests while either batch has work for it, and never does
/// two things at once.
#[test]
fn a_device_computes_for_one_batch_at_a_time_in_whatever_layer_they_are() {
    let route = route(1, &[0]);
    let admission = admitted(&route);
    let run = run(alone(), &stack(2, 3, &route, &admission));
    let last = run.steps.iter().map(|step| step.left_ns).max().unwrap();
    let work = 6 * (EXPERT + BEHIND);
    assert_eq!(run.endpoints[1].compute_ns, work);
    // Beside its work there is the first batch's way there.
    let way = run.steps[0].record.step_ns - EXPERT;
    assert!((work..=work + way).contains(&last), "{last} of {work}");
}

#[test]
fn a_step_begins_no_earlier_than_it_may() {
    let route = route(1, &[0]);
    let admission = admitted(&route);
    let mut inputs = stack(1, 2, &route, &admission);
    inputs[1].begins_ns = 50_000_000;
    let run = run(alone(), &inputs);
    let took = run.steps[1].record.step_ns + BEHIND;
    assert_eq!(run.steps[1].left_ns, 50_000_000 + took);
}

#[test]
fn nobody_waits_for_what_a_lost_worker_would_have_computed() {
    let mut config = config(2, 2, ExchangeKind::Star);
    config.on_loss = expertmesh_exchange::OnLoss::Drop;
    let route = route(2, &[0]);
    let admission = admitted(&route);
    let inputs = stack(1, 2, &route, &admission);
    let whole = run(config.clone(), &inputs);
    // The first layer is over, and both compute what lies behind it.
    let at_ns = whole.steps[0].left_ns - 1;
    config.faults = vec![Fault::Lost {
        endpoint: 2,
        at_ns,
        how: Failure::Dies,
    }];
    let without = run(config, &inputs);
    assert_eq!(without.steps[0].left_ns, whole.steps[0].left_ns);
    assert_eq!(without.steps[1].left_ns, whole.steps[1].left_ns);
}

/// Its results of the first layer come too late for that, and before the second begins.
#[test]
fn who_was_late_is_back_in_the_next_layer() {
    for exchange in ExchangeKind::ALL {
        let mut config = config(1, 1, exchange);
        config.on_loss = expertmesh_exchange::OnLoss::Drop;
        config.deadline_ns = EXPERT / 2;
        let route = route(1, &[0]);
        let admission = admitted(&route);
        let run = run(config, &stack(1, 2, &route, &admission));
        let [first, second] = &run.steps[..] else {
            panic!("two layers");
        };
        assert_eq!(first.lost.len(), 1, "{exchange}");
        assert!(first.ledger.total().messages > 0, "{exchange}");
        assert_eq!(second.ledger, first.ledger, "{exchange}");
    }
}

#[test]
fn a_failed_step_is_followed_by_nothing() {
    let mut config = alone();
    config.faults = vec![Fault::Lost {
        endpoint: 1,
        at_ns: 0,
        how: Failure::Dies,
    }];
    let route = route(1, &[0]);
    let admission = admitted(&route);
    let mut sim = Simulator::new(&lab(1, 4), free(), config).unwrap();
    let error = sim.run(&stack(2, 3, &route, &admission)).unwrap_err();
    assert!(error.to_string().contains("worker-0"), "{error}");
}

#[test]
fn a_step_follows_an_earlier_one_that_no_other_follows() {
    let route = route(1, &[0]);
    let admission = admitted(&route);
    let mut sim = Simulator::new(&lab(1, 4), free(), alone()).unwrap();
    for follows in [[None, Some(1), None], [None, Some(0), Some(0)]] {
        let inputs = follows.map(|follows| StepInput {
            follows,
            ..StepInput::at(0, &route, &admission)
        });
        let error = sim.run(&inputs).unwrap_err().to_string();
        assert!(error.starts_with("follows is"), "{error}");
    }
}
