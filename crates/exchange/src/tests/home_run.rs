use expertmesh_kernels::Format;
use expertmesh_wire::{BufferPool, FrameKind, FrameView, Header, Times};

use super::{F32_RULE, HAND, hand_plan, names, read, tag, wide};
use crate::{
    Beside, ClockMap, CombineRule, HomeRun, HomeSetup, HostTable, Kept, Limits, LossCause, OnLoss,
    Outgoing, RowSource, RowsJob, ShardPlan, StepError,
};

const HIDDEN: usize = 2;
/// Rows of the three tokens.
const X: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const START: u64 = 1_000;

fn run(limits: Limits, on_loss: OnLoss) -> HomeRun {
    HomeRun::new(hand_plan(0, limits), setup(F32_RULE, on_loss))
}

fn setup(rule: CombineRule, on_loss: OnLoss) -> HomeSetup {
    HomeSetup {
        tag: tag(),
        hidden: 2,
        rule,
        credits: 9,
        on_loss,
        started_ns: START,
        deadline_ns: START + 1_000_000,
        names: names(),
        extents: Vec::new(),
    }
}

fn next(run: &mut HomeRun, now_ns: u64) -> Option<Outgoing> {
    run.poll(RowSource::F32(&X), &BufferPool::default(), || now_ns)
}

/// Sends until nothing is left to send: endpoint and frame.
fn sent(run: &mut HomeRun, now_ns: u64) -> Vec<(u32, FrameView)> {
    let mut sent = Vec::new();
    while let Some(Outgoing::Send { endpoint, message }) = next(run, now_ns) {
        sent.push((endpoint, read(message)));
    }
    sent
}

/// Expert `e` multiplies by `e + 1`.
fn answer(frame: &FrameView, times: Times) -> FrameView {
    let job = RowsJob::read(frame.clone(), 2, |_| true).unwrap();
    let mut results = job.results(&BufferPool::default());
    results.set_header(&job.results_header(times));
    let mut at = 0;
    for (row, pair) in job.offsets.windows(2).enumerate() {
        for expert in &job.experts[pair[0] as usize..pair[1] as usize] {
            for word in job.frame.row(row).chunks_exact(4) {
                let x = f32::from_le_bytes(word.try_into().unwrap());
                let y = x * (*expert as f32 + 1.0);
                results.rows()[at..at + 4].copy_from_slice(&y.to_le_bytes());
                at += 4;
            }
        }
    }
    read(results.finish())
}

fn outputs(run: &HomeRun) -> Vec<f32> {
    let mut out = vec![f32::NAN; 3 * HIDDEN];
    run.combine(0..3, &mut out, Beside::default());
    out
}

/// Token 0: (3·½ + 1·¼ + 2·⅛)·x; token 1: nothing; token 2: (4·2 + 1·4)·x.
const EXPECTED: [f32; 6] = [2.0, 4.0, 0.0, 0.0, 60.0, 72.0];

#[test]
fn rows_go_out_and_results_are_added_up() {
    for limits in [
        wide(HIDDEN),
        Limits {
            row_bytes: 8,
            chunk_bytes: 0,
            row_per_choice: false,
        },
    ] {
        let mut run = run(limits, OnLoss::Fail);
        let frames = sent(&mut run, START + 10);
        assert_eq!(
            frames.len(),
            run.plan().hosts.iter().map(|host| host.chunks.len()).sum()
        );
        let first = &frames[0].1.header;
        assert_eq!(
            (first.kind, first.hidden, first.format),
            (FrameKind::Rows, 2, Format::F32)
        );
        assert_eq!(
            (first.times.sent_ns, first.budget_ns),
            (START + 10, 1_000_000 - 10)
        );
        // The last to be asked answers first.
        for (endpoint, frame) in frames.iter().rev() {
            assert!(next(&mut run, START).is_none());
            let results = answer(frame, Times::default());
            run.on_results(*endpoint, results, &mut ClockMap::shared(), START + 20);
        }
        assert!(matches!(next(&mut run, START), Some(Outgoing::Combine)));
        assert_eq!(outputs(&run), EXPECTED);
        assert!(run.lost().is_empty());
    }
}

#[test]
fn a_shared_row_and_encoded_rows_change_nothing_else() {
    let mut run = run(wide(HIDDEN), OnLoss::Fail);
    let encoded: Vec<u8> = X.iter().flat_map(|value| value.to_le_bytes()).collect();
    let pool = BufferPool::default();
    while let Some(Outgoing::Send { endpoint, message }) =
        run.poll(RowSource::Encoded(&encoded), &pool, || START)
    {
        let results = answer(&read(message), Times::default());
        run.on_results(endpoint, results, &mut ClockMap::shared(), START);
    }
    let mut out = [0.0; 4];
    let beside = Beside {
        shared: Some(&[9.0, 9.0, 0.5, 0.25, 1.0, 1.0]),
        own: &[],
    };
    run.combine(1..3, &mut out, beside);
    assert_eq!(out, [0.5, 0.25, 61.0, 73.0]);
}

#[test]
fn lost_choices_add_nothing_and_are_listed() {
    let mut run = run(wide(HIDDEN), OnLoss::Drop);
    let frames = sent(&mut run, START);
    run.on_host_lost(1, LossCause::Disconnected("reset".into()));
    for (endpoint, frame) in &frames {
        // What the lost one still says comes too late.
        let results = answer(frame, Times::default());
        run.on_results(*endpoint, results, &mut ClockMap::shared(), START);
    }
    assert!(matches!(next(&mut run, START), Some(Outgoing::Combine)));
    assert_eq!(run.lost(), [0, 1, 4]);
    assert_eq!(run.late().count(), 0, "it is gone, not late");
    assert_eq!(outputs(&run), [0.25, 0.5, 0.0, 0.0, 40.0, 48.0]);
    assert_eq!(HAND.targets.len(), 5);
}

#[test]
fn a_frame_that_the_plan_contradicts_ends_the_step() {
    type Change = fn(&mut Header);
    let lies: [(Change, &str); 4] = [
        (
            |header| header.tag.chunk = 1,
            "chunk 1 of a host with 1 chunks",
        ),
        (|header| header.row_count = 2, "2 result rows, expected 3"),
        (
            |header| header.hidden = 3,
            "rows of 3 f32 elements, expected 2 f32",
        ),
        (
            |header| header.format = Format::Bf16,
            "rows of 2 bf16 elements, expected 2 f32",
        ),
    ];
    for (lie, says) in lies {
        let mut run = run(wide(HIDDEN), OnLoss::Drop);
        let frames = sent(&mut run, START);
        let mut results = answer(&frames[0].1, Times::default());
        lie(&mut results.header);
        run.on_results(1, results, &mut ClockMap::shared(), START);
        let Some(Outgoing::Fail(error @ StepError::BadFrame { .. })) = next(&mut run, START) else {
            panic!("{says}: taken");
        };
        let text = format!("step 5: ann sent a frame that the plan contradicts: {says}");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn results_of_strangers_and_duplicates_are_ignored() {
    let mut run = run(wide(HIDDEN), OnLoss::Fail);
    let frames = sent(&mut run, START);
    let results = answer(&frames[0].1, Times::default());
    run.on_results(9, results.clone(), &mut ClockMap::shared(), START);
    for _ in 0..3 {
        run.on_results(1, results.clone(), &mut ClockMap::shared(), START);
    }
    assert!(next(&mut run, START).is_none(), "bob and cid are awaited");
}

#[test]
fn ticking_reaches_the_machine() {
    let mut late = run(wide(HIDDEN), OnLoss::Fail);
    sent(&mut late, START);
    assert_eq!(late.deadline_ns(), START + 1_000_000);
    late.on_tick(START + 1_000_000);
    let Some(Outgoing::Fail(error)) = next(&mut late, START) else {
        panic!("expected the end");
    };
    assert_eq!(
        error.to_string(),
        "step 5: ann was lost: it did not answer within 1 ms"
    );
}

fn times(received_ns: u64, started_ns: u64, computed_ns: u64, sent_ns: u64) -> Times {
    Times {
        received_ns,
        started_ns,
        computed_ns,
        sent_ns,
    }
}

#[test]
fn the_timeline_is_that_of_the_last_results() {
    let mut run = run(wide(HIDDEN), OnLoss::Fail);
    let frames = sent(&mut run, 1_100);
    let answers = [
        (0, times(1_200, 1_210, 1_300, 1_310), 1_400),
        (2, times(1_250, 1_260, 1_270, 1_280), 1_450),
        (1, times(1_500, 1_600, 1_800, 1_810), 1_900),
    ];
    for (at, times, now) in answers {
        let results = answer(&frames[at].1, times);
        run.on_results(frames[at].0, results, &mut ClockMap::shared(), now);
    }
    let line = run.timeline(2_000, 33);
    assert_eq!(line.critical, 2);
    let chain = [
        line.packed,
        line.received,
        line.started,
        line.computed,
        line.arrived,
        line.done,
    ];
    assert_eq!(chain, [100, 500, 600, 800, 900, 1_000]);
    assert_eq!((line.dispatched, line.first_result), (500, 280));
    assert_eq!(
        (line.longest_experts, line.shared, line.clock_error),
        (200, 33, 0)
    );
    assert!(line.is_ordered());
}

#[test]
fn chunks_of_one_batch_share_its_time() {
    // ann's two chunks were computed together, in 400 ns.
    let mut run = run(
        Limits {
            row_bytes: 8,
            chunk_bytes: 0,
            row_per_choice: false,
        },
        OnLoss::Fail,
    );
    let frames = sent(&mut run, START);
    for (endpoint, frame) in frames.iter().filter(|(endpoint, _)| *endpoint == 1) {
        let results = answer(frame, times(1_100, 1_200, 1_600, 1_610));
        run.on_results(*endpoint, results, &mut ClockMap::shared(), 1_700);
    }
    assert_eq!(run.timeline(2_000, 0).longest_experts, 400);
}

/// A host whose moments make no sense gives a timeline that still does.
#[test]
fn moments_are_kept_in_order() {
    let wild = [
        times(0, 0, 0, 0),
        times(u64::MAX, 3, u64::MAX, 1),
        times(9_000, 8_000, 7_000, 6_000),
    ];
    for times in wild {
        let mut clock = ClockMap::unknown();
        let mut run = run(wide(HIDDEN), OnLoss::Fail);
        for (endpoint, frame) in sent(&mut run, START + 5) {
            run.on_results(endpoint, answer(&frame, times), &mut clock, START + 90);
        }
        let line = run.timeline(START + 100, 0);
        assert!(line.is_ordered(), "{line:?}");
        assert_eq!((line.arrived, line.done), (90, 100));
    }
}

#[test]
fn a_host_is_told_how_many_chunks_come_first() {
    let plan = hand_plan(0, wide(HIDDEN));
    let hosts: Vec<u32> = plan.hosts.iter().map(|host| host.endpoint).collect();
    let setup = HomeSetup {
        tag: tag(),
        hidden: 2,
        rule: F32_RULE,
        credits: 9,
        on_loss: OnLoss::Fail,
        started_ns: START,
        deadline_ns: START + 1_000_000,
        names: names(),
        extents: vec![0, 11, 12, 13],
    };
    let mut run = HomeRun::new(plan, setup);
    let frames = sent(&mut run, START);
    assert_eq!(frames.len(), hosts.len());
    for (endpoint, frame) in frames {
        assert_eq!(frame.header.extent, 10 + endpoint);
    }
}

#[test]
fn a_home_alone_counts_its_own_first_chunks() {
    // One row a chunk, and two of them before the first results.
    let tight = Limits {
        row_bytes: HIDDEN * 4,
        chunk_bytes: 1,
        row_per_choice: false,
    };
    let plan = hand_plan(0, tight);
    let first = ShardPlan::first_chunks(std::slice::from_ref(&plan), 4, 2);
    for host in &plan.hosts {
        assert_eq!(
            first[host.endpoint as usize] as usize,
            host.chunks.len().min(2)
        );
    }
    let both = ShardPlan::first_chunks(&[plan.clone(), plan], 4, 2);
    assert!(first.iter().zip(&both).all(|(one, two)| 2 * one == *two));
    let mut run = run(tight, OnLoss::Fail);
    for (endpoint, frame) in sent(&mut run, START) {
        let chunks = hand_plan(0, tight);
        let chunks = chunks
            .hosts
            .iter()
            .find(|host| host.endpoint == endpoint)
            .unwrap();
        assert_eq!(frame.header.extent as usize, chunks.chunks.len());
    }
}

#[test]
fn weights_on_the_input_travel_with_the_rows() {
    let limits = Limits {
        row_per_choice: true,
        ..wide(HIDDEN)
    };
    let rule = CombineRule {
        weight_on_input: true,
        routed_scale: 0.5,
        ..F32_RULE
    };
    for encoded in [false, true] {
        let mut run = HomeRun::new(hand_plan(0, limits), setup(rule, OnLoss::Fail));
        let bytes: Vec<u8> = X.iter().flat_map(|value| value.to_le_bytes()).collect();
        let rows = if encoded {
            RowSource::Encoded(&bytes)
        } else {
            RowSource::F32(&X)
        };
        let pool = BufferPool::default();
        while let Some(Outgoing::Send { endpoint, message }) = run.poll(rows, &pool, || START) {
            let frame = read(message);
            let job = RowsJob::read(frame.clone(), 2, |_| true).unwrap();
            assert_eq!(job.offsets.len(), job.experts.len() + 1, "a row a choice");
            let results = answer(&frame, Times::default());
            run.on_results(endpoint, results, &mut ClockMap::shared(), START);
        }
        // The experts here are linear, so it does not matter what is weighted.
        assert_eq!(outputs(&run), EXPECTED.map(|value| value * 0.5));
    }
}

#[test]
fn a_home_answers_for_free_experts() {
    let table = HostTable::from_endpoints(vec![1], 2).with_free(1);
    let kept = Kept {
        offsets: &[0, 2, 3, 3],
        targets: &[1, 0, 1],
        weights: &[0.5, 2.0, 3.0],
    };
    let plan = ShardPlan::new(0, kept, &table, wide(HIDDEN));
    let mut run = HomeRun::new(plan, setup(F32_RULE, OnLoss::Drop));
    for (endpoint, frame) in sent(&mut run, START) {
        let results = answer(&frame, Times::default());
        run.on_results(endpoint, results, &mut ClockMap::shared(), START);
    }
    let own: Vec<u8> = [10.0_f32, 20.0, 1.0, 2.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let beside = Beside {
        shared: None,
        own: &own,
    };
    let mut out = [f32::NAN; 6];
    run.combine(0..3, &mut out, beside);
    assert_eq!(out, [5.0 + 2.0, 10.0 + 4.0, 3.0, 6.0, 0.0, 0.0]);
    assert!(run.lost().is_empty(), "nobody else can lose them");
}
