use clap::Parser;
use expertmesh_bench::calibrate::{Domain, Point, Profile};
use expertmesh_bench::validate::FigureErrors;
use expertmesh_simulator::Costs;
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
        let simulator = &seven.simulation.layers[0].simulator;
        assert_eq!(simulator.config().one_machine, Some(7), "{topology}");
        assert_eq!(simulator.config().threads, 2, "7 cores for 3 workers");
        let place = ", all processes on the 7 cores of one machine";
        assert_eq!(seven.machines.place(), place);
        let (seven, one) = (mean(seven), mean(on_profile(&words, 1)));
        assert!(one > 1.2 * seven, "{topology}: {one} and {seven} µs");
    }
    let told = on_profile("--workers 3 --threads 5 --tokens 4", 7);
    assert_eq!(told.simulation.layers[0].simulator.config().threads, 5);
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
