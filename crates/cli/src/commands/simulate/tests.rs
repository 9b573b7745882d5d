mod changes;
mod covered;

use clap::Parser;
use expertmesh_bench::calibrate::{Domain, Point, Profile};
use expertmesh_bench::validate::FigureErrors;
use expertmesh_exchange::ExchangeKind;
use expertmesh_simulator::Costs;
use expertmesh_telemetry::Source;
use expertmesh_topology::Topology;

use super::plan::{Planned, plan_on};
use super::*;
use crate::commands::measure::predict;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: SimulateArgs,
}

/// The flags of `simulate`, as on its command line.
pub(super) fn flags(words: &str) -> SimulateArgs {
    let words = std::iter::once("simulate").chain(words.split_whitespace());
    Flags::try_parse_from(words).unwrap().args
}

/// A profile of a machine of `cores` cores on which work takes what `costs` say.
pub(super) fn profile(cores: u32, costs: Costs) -> Profile {
    let error = FigureErrors {
        points: 1,
        median: 0.05,
        p90: 0.1,
        max: 0.1,
        bias: 0.0,
    };
    Profile {
        schema: Profile::SCHEMA.to_owned(),
        environment: expertmesh_telemetry::Environment {
            cores,
            ..environment(&[])
        },
        seed: 3,
        domain: Domain::default(),
        costs,
        error,
        experts: Vec::new(),
        points: Vec::new(),
        loopback: [15_000.0, 1.5],
        verdict: None,
    }
}

fn on_profile(words: &str, cores: u32) -> Planned {
    let args = flags(words);
    let topology = Topology::read(args.topology.as_deref().unwrap_or("loopback")).unwrap();
    let machines = Machines::calibrated(&profile(cores, Costs::loopback()), topology);
    plan_on(&args, 0, machines).unwrap()
}

fn mean(mut planned: Planned) -> f64 {
    simulate(&mut planned).unwrap().0.run.latency_us.step.mean
}

#[test]
fn a_profile_is_simulated_with_the_cores_of_its_machine() {
    for topology in ["loopback", "lab"] {
        let words = format!(
            "--topology {topology} --workers 3 --tokens 64 --hidden 256 --ffn 512 --steps 2"
        );
        let seven = on_profile(&words, 7);
        let simulator = &seven.simulation.simulator;
        assert_eq!(simulator.config().one_machine, Some(7), "{topology}");
        assert_eq!(simulator.config().threads, 2, "7 cores for 3 workers");
        let place = ", all processes on the 7 cores of one machine";
        assert_eq!(seven.machines.place(), place);
        let (seven, one) = (mean(seven), mean(on_profile(&words, 1)));
        assert!(one > 1.2 * seven, "{topology}: {one} and {seven} µs");
    }
    let told = on_profile("--workers 3 --threads 5 --tokens 4", 7);
    assert_eq!(told.simulation.simulator.config().threads, 5);
}

#[test]
fn validate_and_simulate_predict_the_same() {
    for links in [None, Some("lab".to_owned())] {
        let shape = Domain::default().shapes[2];
        let point = Point {
            workers: 3,
            tokens: 24,
            shape,
            exchange: "star".to_owned(),
            links: links.clone(),
        };
        let profile = profile(5, Costs::loopback());
        let run = predict(&point, profile.seed, 4, &profile).unwrap();
        let mut args = flags("--workers 3 --tokens 24 --exchange star --steps 4 --seed 3");
        args.model.experts = Some(shape.experts);
        args.model.top_k = Some(shape.top_k);
        args.model.hidden = Some(shape.hidden);
        args.model.ffn = Some(shape.ffn);
        let name = links.as_deref().unwrap_or("loopback");
        let machines = Machines::calibrated(&profile, Topology::read(name).unwrap());
        let mut planned = plan_on(&args, 0, machines).unwrap();
        let simulated = simulate(&mut planned).unwrap().0.run;
        assert_eq!(simulated.latency_us, run.latency_us, "{name}");
        assert_eq!(simulated.communication, run.communication, "{name}");
    }
}

#[test]
fn a_profile_without_cores_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    std::fs::write(&file, profile(0, Costs::loopback()).to_json().unwrap()).unwrap();
    let refused = Profile::read(&file).unwrap_err().to_string();
    assert!(refused.contains("environment.cores is 0"), "{refused}");
}

// === --exchange auto ===

/// Costs under which a byte is dear: a star's coordinator, which packs and takes in every row, holds
/// everybody up.
fn dear_bytes() -> Costs {
    let mut costs = Costs::loopback();
    for line in [&mut costs.pack, &mut costs.read] {
        line.unit_ns = 20.0;
    }
    costs
}

/// Costs under which a message is dear: between workers there are many.
fn dear_messages() -> Costs {
    let mut costs = Costs::loopback();
    for line in [&mut costs.pack, &mut costs.read] {
        line.fixed_ns = 200_000.0;
    }
    costs
}

const LAYER: &str = "--exchange auto --workers 4 --tokens 64 --hidden 64 --expert identity";

fn chosen(words: &str, costs: Costs, topology: &str) -> (SimulateArgs, Choice) {
    let topology = Topology::read(topology).unwrap();
    let machines = Machines::calibrated(&profile(8, costs), topology);
    let (args, choice) = auto::settle(&flags(words), &machines).unwrap();
    (args, choice.unwrap())
}

#[test]
fn auto_takes_the_exchange_that_the_costs_favour() {
    let (args, star) = chosen(LAYER, dear_messages(), "loopback");
    assert_eq!(star.exchange(), ExchangeKind::Star, "{:?}", star.predicted);
    assert_eq!(args.step.exchange, Some(ExchangeKind::Star.into()));
    let (_, sharded) = chosen(LAYER, dear_bytes(), "loopback");
    let predicted = &sharded.predicted;
    assert_eq!(sharded.exchange(), ExchangeKind::AllToAll, "{predicted:?}");
    assert_eq!(predicted.len(), 2, "one host has no groups");
    let [what, verdict] = sharded.lines();
    for words in ["auto: all-to-all", "from 8 steps", "star ", "8 cores"] {
        assert!(what.contains(words), "{words} is not in {what}");
    }
    assert!(verdict.contains("±10 %"), "{verdict}");
    // What is predicted is what a simulation of the exchange gives.
    let named = LAYER.replace("auto", "star");
    let topology = Topology::read("loopback").unwrap();
    let machines = Machines::calibrated(&profile(8, dear_bytes()), topology);
    let mut planned = plan_on(&flags(&named), 0, machines).unwrap();
    planned.steps = 8;
    assert_eq!(predicted[0], (ExchangeKind::Star, mean(planned)));
}

#[test]
fn hosts_of_a_topology_or_a_size_make_groups() {
    let kinds = |choice: &Choice| choice.predicted.iter().map(|one| one.0).collect::<Vec<_>>();
    let (_, choice) = chosen(&format!("{LAYER} --workers 16"), Costs::loopback(), "h800");
    assert_eq!(kinds(&choice), ExchangeKind::ALL, "{choice:?}");
    let sized = format!("{LAYER} --group-size 2");
    let (args, choice) = chosen(&sized, dear_messages(), "loopback");
    assert_eq!(kinds(&choice), ExchangeKind::ALL);
    assert_eq!(choice.exchange(), ExchangeKind::Star);
    assert_eq!(args.step.group_size, None, "a star has no groups");
    let resident = format!("{LAYER} --resident");
    let (_, choice) = chosen(&resident, dear_messages(), "loopback");
    assert_eq!(choice.exchange(), ExchangeKind::AllToAll);
    assert_eq!(choice.passed_over[0].0, ExchangeKind::Star);
    assert!(choice.lines()[0].contains("star passed over: its tokens are at the coordinator"));
    assert!(choice.lines()[1].contains("no other exchange"));
}

#[test]
fn groups_of_hosts_have_a_size_or_a_reason() {
    let size = |hosts: &[u32]| auto::size_of_hosts(hosts).map(|size| size.unwrap().get());
    assert_eq!(size(&[0, 0, 1, 1, 2]), Ok(2));
    assert_eq!(size(&[4, 4, 4, 0, 0, 0]), Ok(3));
    for uneven in [
        &[0, 0, 1, 1, 1][..],
        &[0, 1, 1],
        &[0, 0, 1, 1, 0],
        &[0, 0, 1, 2, 2],
    ] {
        assert!(size(uneven).is_err(), "{uneven:?}");
    }
}

#[test]
fn the_least_wins_the_first_of_equals_and_failures_are_told() {
    let all = || {
        let each = ExchangeKind::ALL.map(|exchange| {
            let one = auto::Candidate {
                exchange,
                group_size: None,
            };
            (one, Ok(()))
        });
        each.to_vec()
    };
    let as_said = |means: [Result<f64, &str>; 3]| {
        let mut means = means.into_iter();
        choice::least(all(), |_| match means.next().unwrap() {
            Ok(mean_us) => Ok(auto::Predicted {
                mean_us,
                steps: 1,
                source: Source::Preset,
            }),
            Err(reason) => Err(Failure::input(reason)),
        })
    };
    let kind = |means| as_said(means).unwrap().exchange();
    assert_eq!(kind([Ok(2.0), Ok(1.0), Ok(1.0)]), ExchangeKind::AllToAll);
    assert_eq!(kind([Ok(1.0), Ok(1.0), Ok(1.0)]), ExchangeKind::Star);
    assert_eq!(
        kind([Ok(2.0), Err("too large"), Ok(1.0)]),
        ExchangeKind::Hierarchical
    );
    let choice = as_said([Ok(2.0), Err("too large"), Err("none")]).unwrap();
    let report = choice.for_report();
    assert_eq!(report.passed_over["all-to-all"], "too large");
    assert_eq!(report.predicted_us["star"], 2.0);
    let none = as_said([Err("one"), Err("two"), Err("three")]).unwrap_err();
    assert_eq!(none.words(), "--exchange auto can predict no exchange: one");
}

#[test]
fn a_shard_travels_whole_where_workers_are_homes() {
    let run = |words: &str| simulate(&mut on_profile(words, 2)).unwrap().0.run;
    let words = "--workers 2 --tokens 8 --hidden 64 --steps 3 --exchange";
    let sharded = run(&format!("{words} all-to-all"));
    let rows = 4 * 64 * 4;
    let longest = auto::longest_shard(&sharded, false).unwrap();
    assert!((rows..2 * rows).contains(&longest), "{longest}");
    assert_eq!(auto::longest_shard(&sharded, true), None);
    let star = run(&format!("{words} star"));
    assert_eq!(auto::longest_shard(&star, false), None);
}
