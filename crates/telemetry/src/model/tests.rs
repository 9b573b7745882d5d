use super::*;
use crate::{Phase, RunRecorder, StepRecord};
use serde_json::{Value, json};

fn environment() -> Environment {
    Environment {
        version: "0.1.0".to_owned(),
        cores: 2,
        kernel: "avx2+fma".to_owned(),
        network: Network::Loopback,
        topology: None,
        os: None,
        cpu: None,
    }
}

fn identity(exchange: ExchangeKind) -> Identity {
    Identity {
        seed: 7,
        model: "synthetic".to_owned(),
        shape: None,
        placement_digest: "ab".to_owned(),
        workload: "uniform".to_owned(),
        exchange,
        groups: Vec::new(),
        combine: CombineKind::Exact,
        workers: 1,
        endpoints: Vec::new(),
        numerics: "fma-chain/2".to_owned(),
    }
}

fn sample(exchange: ExchangeKind) -> Run {
    let mut recorder = RunRecorder::new(&["coordinator".to_owned(), "worker-0".to_owned()]);
    let step = StepRecord {
        step_ns: 1_000,
        exchange_ns: 800,
        matrix: vec![vec![0, 100], vec![200, 0]],
        ..StepRecord::default()
    };
    recorder.record(&step).unwrap();
    let expert = ExpertOverflow {
        assigned: 2,
        computed: 2,
        ..ExpertOverflow::default()
    };
    recorder.overflow(&[expert], None, Some(1.0)).unwrap();
    let load = Load::closed(1, 3, 0.5);
    let mut run = recorder.finish(
        identity(exchange),
        load,
        Source::Measured,
        Some("ff".into()),
    );
    run.losses.insert("load_balancing".to_owned(), 1.25);
    run.bands
        .insert("latency_us.step.p50".to_owned(), [1.0, 2.0]);
    run
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn the_json_is_the_schema_key_for_key() {
    let report = Report {
        runs: vec![sample(ExchangeKind::AllToAll)],
        ..Report::new(environment())
    };
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(keys(&value), ["environment", "runs", "schema"]);
    assert_eq!(value["schema"], "expertmesh.report/1");
    let environment = json!(
        {"version": "0.1.0", "cores": 2, "kernel": "avx2+fma", "network": "loopback"}
    );
    assert_eq!(value["environment"], environment);

    let run = &value["runs"][0];
    let expect = |value: &Value, names: &str| {
        let mut names: Vec<&str> = names.split_whitespace().collect();
        names.sort_unstable();
        assert_eq!(keys(value), names);
    };
    expect(
        run,
        "identity load latency_us communication overflow balance losses source bands digest",
    );
    expect(
        &run["identity"],
        "seed model placement_digest workload exchange combine workers endpoints numerics",
    );
    assert_eq!(run["identity"]["exchange"], "all-to-all");
    assert_eq!(run["identity"]["combine"], "exact");
    assert_eq!(
        run["identity"]["endpoints"],
        json!(["coordinator", "worker-0"])
    );
    expect(
        &run["load"],
        "mode offered_per_s achieved_per_s max_lag_us steps warmup_steps",
    );
    assert_eq!(run["load"]["mode"], "closed");
    expect(
        &run["latency_us"],
        "step exchange dispatch combine phases residual_share distribution",
    );
    let latency = "count min mean p50 p90 p95 p99 p999 max";
    expect(&run["latency_us"]["step"], latency);
    assert_eq!(run["latency_us"]["step"]["p50"], Value::Null);
    expect(
        &run["latency_us"]["phases"],
        "gate plan pack send queue experts shared return combine",
    );
    expect(&run["latency_us"]["phases"]["gate"], latency);
    expect(
        &run["communication"],
        "payload_bytes wire_bytes local_bytes resent_bytes migrated_bytes messages \
         saved_by_dedup_bytes time_share matrix_bytes algbw_gbps busbw_gbps",
    );
    assert_eq!(
        run["communication"]["matrix_bytes"],
        json!([[0, 100], [200, 0]])
    );
    expect(
        &run["overflow"],
        "assigned computed rerouted dropped skipped lost assigned_gate_weight lost_gate_weight \
         policy capacity_factor smallest_sufficient_capacity_factor per_expert \
         tokens_without_expert spilled waves replays dropped_by_slot",
    );
    expect(
        &run["overflow"]["per_expert"][0],
        "assigned computed rerouted dropped skipped lost assigned_gate_weight lost_gate_weight \
         received",
    );
    expect(
        &run["balance"],
        "gini max_over_mean entropy idle_experts idle_workers",
    );
    assert_eq!(run["losses"], json!({"load_balancing": 1.25}));
    assert_eq!(run["bands"], json!({"latency_us.step.p50": [1.0, 2.0]}));
    assert_eq!(run["source"]["latency_us.step"], "measured");
    assert_eq!(run["digest"], "ff");
}

#[test]
fn a_report_reads_back_equal_and_ignores_what_it_does_not_know() {
    let report = Report {
        runs: vec![sample(ExchangeKind::Star)],
        ..Report::new(environment())
    };
    let mut value = serde_json::to_value(&report).unwrap();
    value["runs"][0]["of_a_later_version"] = json!(1);
    assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
}

#[test]
fn names_parse_back_and_wrong_ones_list_the_right_ones() {
    for kind in ExchangeKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(*kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
    let error = "ring".parse::<ExchangeKind>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "exchange is \"ring\", expected one of star, all-to-all, hierarchical"
    );
}

#[test]
fn phases_are_in_order_and_only_shared_is_beside_the_path() {
    assert!(
        Phase::ALL
            .iter()
            .enumerate()
            .all(|(index, phase)| phase.index() == index)
    );
    let beside: Vec<_> = Phase::ALL
        .iter()
        .filter(|phase| !phase.on_critical_path())
        .collect();
    assert_eq!(beside, [&Phase::Shared]);
    assert!(
        Phase::ALL
            .iter()
            .all(|phase| phase.span() == format!("step.{phase}"))
    );
}

#[test]
fn every_figure_has_a_source_from_its_own_entry_or_one_above() {
    let mut run = sample(ExchangeKind::AllToAll);
    run.source
        .insert("overflow.lost".to_owned(), Source::Preset);
    assert_eq!(
        run.source_of("latency_us.phases.gate.p99"),
        Some(Source::Measured)
    );
    assert_eq!(run.source_of("overflow.lost"), Some(Source::Preset));
    assert_eq!(run.source_of("overflow.dropped"), Some(Source::Measured));
    assert_eq!(run.source_of("losses.load_balancing"), None);
}

#[test]
fn the_first_figure_that_json_cannot_hold_is_named() {
    type Edit = fn(&mut Run);
    let edits: [(Edit, &str); 9] = [
        (
            |run| run.load.achieved_per_s = Some(f64::INFINITY),
            "load.achieved_per_s",
        ),
        (
            |run| run.latency_us.exchange.mean = f64::NAN,
            "latency_us.exchange.mean",
        ),
        (
            |run| run.latency_us.phases.get_mut("gate").unwrap().p99 = Some(f64::NAN),
            "latency_us.phases.gate.p99",
        ),
        (
            |run| run.communication.time_share = Some(f64::NAN),
            "communication.time_share",
        ),
        (
            |run| run.overflow.per_expert[0].lost_gate_weight = f64::NAN,
            "overflow.per_expert[0]",
        ),
        (|run| run.balance.gini = f64::NAN, "balance.gini"),
        (
            |run| run.losses.extend([("z".to_owned(), f64::NAN)]),
            "losses.z",
        ),
        (
            |run| run.bands.extend([("a".to_owned(), [0.0, f64::NAN])]),
            "bands.a",
        ),
        (
            |run| {
                run.exchange_choice = Some(ExchangeChoice {
                    costs: String::new(),
                    predicted_us: BTreeMap::from([("star".to_owned(), f64::INFINITY)]),
                    passed_over: BTreeMap::new(),
                    verdict: String::new(),
                });
            },
            "exchange_choice.predicted_us.star",
        ),
    ];
    for (edit, path) in edits {
        let mut report = Report::new(environment());
        report.runs = vec![sample(ExchangeKind::Star), sample(ExchangeKind::Star)];
        assert_eq!(report.non_finite(), None);
        edit(&mut report.runs[1]);
        assert_eq!(report.non_finite(), Some(format!("runs[1].{path}")));
    }
}

#[test]
fn balance_of_equal_one_sided_and_no_counts() {
    let equal = Balance::of(&[5; 8], Some(&[1, 0, 3]));
    assert!(equal.gini.abs() < 1e-12 && (equal.max_over_mean - 1.0).abs() < 1e-12);
    assert!((equal.entropy - 8_f64.ln()).abs() < 1e-12);
    assert_eq!((equal.idle_experts, equal.idle_workers), (0, Some(1)));

    let one = Balance::of(&[0, 0, 12, 0], None);
    assert!((one.gini - 0.75).abs() < 1e-12 && (one.max_over_mean - 4.0).abs() < 1e-12);
    assert_eq!(
        (one.entropy, one.idle_experts, one.idle_workers),
        (0.0, 3, None)
    );

    // Mean absolute difference of 1, 2, 3, 4 is 20/16; over twice the mean 2.5: 0.25.
    assert!((Balance::of(&[4, 1, 3, 2], None).gini - 0.25).abs() < 1e-12);

    let none = Balance::of(&[0; 4], None);
    assert_eq!(
        (none.gini, none.max_over_mean, none.entropy),
        (0.0, 0.0, 0.0)
    );
    assert_eq!(Balance::of(&[], None).idle_experts, 0);
}

#[test]
fn an_open_load_keeps_its_schedule_beside_what_was_achieved() {
    let load = Load::open(100, 10, 2.0, 60.0, 15.0);
    assert_eq!(
        (load.mode, load.achieved_per_s),
        (LoadMode::Open, Some(50.0))
    );
    assert_eq!(
        (load.offered_per_s, load.max_lag_us),
        (Some(60.0), Some(15.0))
    );
    assert_eq!(Load::closed(0, 0, 0.0).achieved_per_s, None);
}

#[test]
fn an_emulated_run_has_the_times_of_its_topology() {
    let measured = sample(ExchangeKind::AllToAll);
    let mut run = measured.clone();
    run.emulate(10.0);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b.abs();
    assert!(close(
        run.latency_us.step.mean * 10.0,
        measured.latency_us.step.mean
    ));
    assert!(close(
        run.latency_us.exchange.max * 10.0,
        measured.latency_us.exchange.max
    ));
    let rate = |run: &Run| run.communication.algbw_gbps.unwrap();
    assert!(close(rate(&run), 10.0 * rate(&measured)));
    assert_eq!(run.source_of("latency_us.step"), Some(Source::Emulated));
    assert_eq!(run.source_of("overflow.dropped"), Some(Source::Measured));
    assert_eq!(
        run.communication.matrix_bytes,
        measured.communication.matrix_bytes
    );
}
