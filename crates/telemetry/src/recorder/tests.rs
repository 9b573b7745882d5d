use super::*;
use crate::{CombineKind, ExchangeKind, Identity, Load, Run, Source};
use proptest::prelude::*;

fn endpoints() -> Vec<String> {
    ["coordinator", "worker-0", "worker-1"]
        .map(str::to_owned)
        .to_vec()
}

fn identity(exchange: ExchangeKind) -> Identity {
    Identity {
        seed: 7,
        model: "synthetic".to_owned(),
        shape: None,
        placement_digest: String::new(),
        workload: "uniform".to_owned(),
        exchange,
        groups: Vec::new(),
        combine: CombineKind::Exact,
        workers: 2,
        endpoints: Vec::new(),
        numerics: "fma-chain/2".to_owned(),
    }
}

fn finish(recorder: &RunRecorder, exchange: ExchangeKind) -> Run {
    recorder.finish(
        identity(exchange),
        Load::closed(0, 2, 1.0),
        Source::Measured,
        None,
    )
}

fn step() -> StepRecord {
    let mut phases_ns = [10_000; Phase::COUNT];
    phases_ns[Phase::Shared.index()] = 70_000;
    StepRecord {
        step_ns: 100_000,
        exchange_ns: 90_000,
        dispatch_ns: 30_000,
        combine_ns: 20_000,
        phases_ns,
        longest_experts_ns: 40_000,
        clock_error_ns: 0,
        payload_bytes: 900,
        local_bytes: 50,
        resent_bytes: 7,
        migrated_bytes: 3,
        saved_by_dedup_bytes: 11,
        messages: 4,
        matrix: vec![vec![0, 300, 100], vec![100, 0, 200], vec![50, 150, 0]],
        choices_per_worker: vec![8, 0],
    }
}

fn expert(computed: u64, dropped: u64, skipped: u64) -> ExpertOverflow {
    ExpertOverflow {
        assigned: computed + dropped + skipped,
        computed,
        dropped,
        skipped,
        assigned_gate_weight: 1.0,
        lost_gate_weight: 0.25,
        ..ExpertOverflow::default()
    }
}

fn recorded(steps: usize) -> RunRecorder {
    let mut recorder = RunRecorder::new(&endpoints());
    for _ in 0..steps {
        recorder.record(&step()).unwrap();
        recorder
            .overflow(&[expert(6, 2, 0), expert(2, 0, 5)], Some(1.0), Some(1.5))
            .unwrap();
    }
    recorder
}

#[test]
fn shares_come_from_sums_and_leave_shared_out() {
    let run = finish(&recorded(3), ExchangeKind::AllToAll);
    // 8 phases of 10 µs explain 80 of 100 µs.
    assert!((run.latency_us.residual_share.unwrap() - 0.2).abs() < 1e-12);
    assert!((run.communication.time_share.unwrap() - 0.5).abs() < 1e-12);
    assert_eq!(run.latency_us.phases["shared"].count, 3);
    assert_eq!(run.latency_us.floor, None);
    assert_eq!(run.latency_us.clock_error_us, None);
    assert_eq!((run.load.steps, run.load.warmup_steps), (3, 2));
    assert_eq!(run.identity.endpoints, endpoints());
}

#[test]
fn overlapping_phases_show_as_a_negative_residual() {
    let mut recorder = RunRecorder::new(&endpoints());
    recorder
        .record(&StepRecord {
            step_ns: 40_000,
            ..step()
        })
        .unwrap();
    let residual = finish(&recorder, ExchangeKind::Star)
        .latency_us
        .residual_share
        .unwrap();
    assert!((residual + 1.0).abs() < 1e-12, "{residual}");
}

#[test]
fn bandwidth_follows_nccl_tests() {
    let run = finish(&recorded(4), ExchangeKind::AllToAll);
    let communication = &run.communication;
    assert_eq!(
        communication.matrix_bytes,
        [[0, 1200, 400], [400, 0, 800], [200, 600, 0]]
    );
    // Received: 150, 450, 300 a step; sent: 400, 300, 200. The most is 450 B in 90 µs.
    let algbw = 450.0 / 90_000.0;
    assert!((communication.algbw_gbps.unwrap() - algbw).abs() < 1e-15);
    assert!((communication.busbw_gbps.unwrap() - algbw * 2.0 / 3.0).abs() < 1e-15);
    assert_eq!(
        finish(&recorded(4), ExchangeKind::Star)
            .communication
            .busbw_gbps,
        None
    );
    assert_eq!(bandwidth::algbw_gbps(&[vec![1]], 0), None);
    assert_eq!(bandwidth::algbw_gbps(&[], 5), Some(0.0));
}

#[test]
fn bytes_are_summed_and_wire_bytes_need_a_socket() {
    let mut recorder = recorded(2);
    let communication = finish(&recorder, ExchangeKind::Star).communication;
    assert_eq!(
        (communication.payload_bytes, communication.local_bytes),
        (1800, 100)
    );
    assert_eq!(
        (communication.resent_bytes, communication.migrated_bytes),
        (14, 6)
    );
    assert_eq!(
        (communication.saved_by_dedup_bytes, communication.messages),
        (22, 8)
    );
    assert_eq!(communication.wire_bytes, None);
    recorder.wire_bytes(2000);
    recorder.wire_bytes(1);
    let run = finish(&recorder, ExchangeKind::Star);
    assert_eq!(run.communication.wire_bytes, Some(2001));
    assert_eq!(run.source["communication.wire_bytes"], Source::Measured);
}

#[test]
fn overflow_and_balance_add_up_over_steps() {
    let mut recorder = recorded(2);
    recorder
        .overflow(&[expert(1, 0, 0), expert(0, 3, 0)], Some(1.0), Some(1.25))
        .unwrap();
    let run = finish(&recorder, ExchangeKind::Star);
    assert_eq!(run.overflow.check_conservation(), Ok(()));
    assert_eq!((run.overflow.assigned, run.overflow.computed), (34, 17));
    assert_eq!((run.overflow.dropped, run.overflow.skipped), (7, 10));
    assert_eq!(run.overflow.smallest_sufficient_capacity_factor, Some(1.5));
    assert!((run.overflow.lost_gate_weight - 1.5).abs() < 1e-12);
    // Demand 17 and 7: what was skipped asked nobody for work.
    assert!((run.balance.max_over_mean - 17.0 / 12.0).abs() < 1e-12);
    assert_eq!(run.balance.idle_workers, Some(1));
}

#[test]
fn a_floor_and_a_clock_error_appear_when_they_were_given() {
    let mut recorder = recorded(1);
    recorder.floor(5_000);
    recorder
        .record(&StepRecord {
            clock_error_ns: 2_000,
            ..step()
        })
        .unwrap();
    recorder
        .record(&StepRecord {
            clock_error_ns: 1_000,
            ..step()
        })
        .unwrap();
    let run = finish(&recorder, ExchangeKind::AllToAll);
    assert_eq!(run.latency_us.floor.map(|floor| floor.count), Some(1));
    assert_eq!(run.latency_us.clock_error_us, Some(2.0));
    assert!(run.source.contains_key("latency_us.floor"));
}

#[test]
fn records_of_another_shape_are_refused_and_leave_no_trace() {
    let mut recorder = recorded(1);
    let before = finish(&recorder, ExchangeKind::Star);
    let mut refused = |edit: fn(&mut StepRecord), message: &str| {
        let mut step = step();
        edit(&mut step);
        let error = recorder.record(&step).unwrap_err().to_string();
        assert_eq!(error, format!("{message}; one run keeps one shape"));
    };
    refused(
        |step| drop(step.matrix.pop()),
        "matrix has 2 entries, expected 3",
    );
    refused(
        |step| step.matrix[1].push(0),
        "matrix[1] has 4 entries, expected 3",
    );
    refused(
        |step| step.choices_per_worker.push(0),
        "choices_per_worker has 3 entries, expected 2",
    );
    assert!(recorder.overflow(&[expert(1, 0, 0)], None, None).is_err());
    let mut unbalanced = expert(4, 0, 0);
    unbalanced.assigned = 5;
    assert_eq!(
        recorder.overflow(&[expert(1, 0, 0), unbalanced], None, None),
        Err(TelemetryError::NotConserved {
            expert: 1,
            assigned: 5,
            fates: 4
        })
    );
    assert!(recorder.merge(&RunRecorder::new(&[])).is_err());
    assert_eq!(finish(&recorder, ExchangeKind::Star), before);
}

#[test]
fn a_run_without_steps_states_nothing() {
    let run = finish(&RunRecorder::new(&[]), ExchangeKind::AllToAll);
    assert_eq!(run.latency_us.step.count, 0);
    assert_eq!(run.latency_us.residual_share, None);
    assert_eq!(run.communication.algbw_gbps, None);
    assert_eq!(run.balance.idle_workers, None);
    assert_eq!(run.non_finite(), None);
}

#[test]
fn a_step_without_traffic_needs_no_matrix() {
    let mut recorder = RunRecorder::new(&endpoints());
    recorder
        .record(&StepRecord {
            matrix: Vec::new(),
            ..step()
        })
        .unwrap();
    assert_eq!(
        finish(&recorder, ExchangeKind::Star)
            .communication
            .matrix_bytes,
        [[0; 3]; 3]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn merging_recorders_equals_one_recorder(
        steps in prop::collection::vec(any::<[u32; 4]>(), 0..12),
        split in 0_usize..12,
    ) {
        let record = |steps: &[[u32; 4]]| {
            let mut recorder = RunRecorder::new(&endpoints());
            for [step_ns, bytes, computed, dropped] in steps {
                let record = StepRecord {
                    step_ns: u64::from(*step_ns),
                    matrix: vec![vec![u64::from(*bytes); 3]; 3],
                    choices_per_worker: vec![u64::from(*computed), 0],
                    ..step()
                };
                recorder.record(&record).unwrap();
                let expert = expert(u64::from(*computed), u64::from(*dropped), 1);
                recorder.overflow(&[expert], None, Some(f64::from(*dropped))).unwrap();
                recorder.wire_bytes(u64::from(*bytes));
            }
            recorder
        };
        let (first, second) = steps.split_at(split.min(steps.len()));
        let mut merged = record(first);
        merged.merge(&record(second)).unwrap();
        prop_assert_eq!(
            finish(&merged, ExchangeKind::AllToAll),
            finish(&record(&steps), ExchangeKind::AllToAll)
        );
    }
}
