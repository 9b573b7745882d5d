//! What a profile vouches for, and what a ranking is worth.

use expertmesh_bench::calibrate::Verdict;
use expertmesh_telemetry::Source;

use super::*;
use crate::commands::simulate::trust::verdict;

/// A profile that passed its validation, of a machine of 8 cores.
fn passing() -> Profile {
    let mut profile = profile(8, Costs::loopback());
    profile.error.points = Verdict::FEWEST_POINTS;
    let verdict = serde_json::json!({
        "holdout_seeds": [1], "failed_seeds": [], "error": profile.error, "passed": true,
    });
    profile.verdict = Some(serde_json::from_value::<Verdict>(verdict).unwrap());
    profile
}

fn judged(words: &str, topology: Topology) -> (Source, Option<String>) {
    let machines = Machines::calibrated(&passing(), topology);
    let args = flags(&format!("--workers 4 --tokens 64 {words}"));
    let planned = plan_on(&args, 0, machines).unwrap();
    let outside = planned.machines.trust.unwrap().outside;
    (planned.simulation.source, outside)
}

#[test]
fn a_profile_covers_what_was_calibrated_and_nothing_else() {
    let own = || Topology::preset("loopback").unwrap();
    let usual = "--credits 4 --placement contiguous --workload balanced --gate topk --threads 2 \
                 --overlap 1 --layers 1 --experts 8 --top-k 2 --dtype f32";
    for inside in ["", usual, "--exchange star --steps 3 --seed 9"] {
        assert_eq!(
            judged(inside, own()),
            (Source::Calibrated, None),
            "{inside}"
        );
    }
    let cases = [
        ("--experts 256", "256x1024x2816"),
        ("--experts 32 --top-k 16", "top-16"),
        ("--expert mlp", "swiglu"),
        ("--dtype bf16", "f32"),
        ("--wire-dtype bf16", "f32"),
        ("--overlap 8", "--overlap"),
        ("--layers 8", "several layers"),
        ("--workload zipf:1.5", "workload"),
        ("--resident", "--resident"),
        ("--fault slow-link:1:10", "--fault"),
        ("--exchange hierarchical --group-size 2", "hierarchical"),
        ("--capacity-factor 1.25", "capacity"),
        ("--credits 1", "--credits"),
        ("--chunk-bytes 4096", "--chunk-bytes"),
        ("--placement round-robin", "placement"),
        ("--gate switch --top-k 1", "gate"),
        ("--threads 3", "--threads"),
        ("--force-routes balance", "forced"),
        ("--model olmoe", "a model's own layers"),
    ];
    for (words, named) in cases {
        let (source, outside) = judged(words, own());
        assert_eq!(source, Source::Extrapolated, "{words}");
        let outside = outside.unwrap();
        assert!(outside.contains(named), "{words}: {outside}");
    }
    let (_, both) = judged("--overlap 8 --credits 1", own());
    assert_eq!(
        both.unwrap(),
        "not calibrated with --overlap, --credits",
        "everything that is outside is named"
    );
}

#[test]
fn a_file_that_is_called_loopback_is_not_this_machine() {
    let text = r#"
        name = "loopback"
        [[host]]
        count = 4
        slots = 1
        [tier.host]
        latency = "9 ms"
        bandwidth = "1 Gbit/s"
        [tier.rack]
        latency = "9 ms"
        bandwidth = "1 Gbit/s"
        "#;
    let own = Topology::parse(text, "sub/loopback.toml").unwrap();
    let machines = Machines::calibrated(&passing(), own.clone());
    assert_eq!(machines.topology, own);
    let (source, outside) = judged("", own);
    assert_eq!(source, Source::Extrapolated);
    assert!(outside.unwrap().contains("links of loopback"));
}

#[test]
fn costs_that_somebody_wrote_down_are_presets() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("costs.toml");
    for claimed in [Source::Measured, Source::Calibrated, Source::Emulated] {
        let mut costs = Costs::loopback();
        costs.source = claimed;
        costs.sources.insert("gate".to_owned(), claimed);
        std::fs::write(&file, costs.to_toml().unwrap()).unwrap();
        let words = format!("--costs {}", file.display());
        let machines = Machines::read(&flags(&words)).unwrap();
        assert_eq!(machines.source(), Source::Preset);
        let mut sources = machines.costs.sources.values();
        assert!(sources.all(|one| *one == Source::Preset));
    }
}

#[test]
fn a_ranking_says_how_far_it_holds() {
    let said = |order: &[(&str, f64)], error| verdict(order, Some(error));
    let clear = [("a", 1.0), ("b", 2.0), ("c", 4.0)];
    let all = said(&clear, 0.1);
    assert_eq!(
        all,
        "a stays first and all 3 places hold within the error band of ±10 %"
    );
    let late = said(&[("a", 1.0), ("b", 2.0), ("c", 2.1), ("d", 4.0)], 0.1);
    assert!(late.starts_with("a stays first; b and c are 5 % apart, less than"));
    let later = said(&[("a", 1.0), ("b", 2.0), ("c", 4.0), ("d", 4.1)], 0.1);
    assert!(later.starts_with("a stays first and the first 2 places hold; c and d"));
    let first = said(&[("a", 1.0), ("b", 1.1), ("c", 1.15)], 0.1);
    assert!(first.starts_with("a and b are 10 % apart"), "{first}");
    assert!(first.ends_with("so it is with 2 of the 2 neighbours"));
    // An error of more than everything vouches for nothing.
    assert!(said(&[("a", 1.0), ("b", 1e6)], 1.5).starts_with("a and b are"));
}
