use std::collections::BTreeSet;

use expertmesh_wire::{BufferPool, ErrorCode, FrameKind, FrameView, RemoteError, Tag, encoded_len};
use proptest::prelude::*;

use super::{F32_RULE, read, tag};
use crate::{
    ExchangeKind, Groups, Home, HomeAction, HomeRun, HomeSetup, HostTable, Kept, Limits, LinkCell,
    LossCause, OnLoss, Outgoing, RelayFrame, RowSource, ShardPlan, StepError, TrafficLedger,
};

const ROW: usize = 16;
const LIMITS: Limits = Limits {
    row_bytes: ROW,
    chunk_bytes: 1 << 20,
    row_per_choice: false,
};

/// Expert `e` at endpoint `e + 1`; ann and bob (1, 2), cid and dee (3, 4) stand together.
fn table() -> HostTable {
    grouped(vec![0, 0, 1, 1])
}

fn grouped(groups: Vec<u32>) -> HostTable {
    plain().with_groups(Groups::new(groups).unwrap())
}

fn plain() -> HostTable {
    HostTable::from_endpoints(vec![1, 2, 3, 4], 5)
}

fn names() -> std::sync::Arc<[String]> {
    ["coordinator", "ann", "bob", "cid", "dee"]
        .map(String::from)
        .into()
}

/// Four tokens: for all but ann, for cid and dee, for dee, for ann.
const HAND: Kept<'static> = Kept {
    offsets: &[0, 3, 5, 6, 7],
    targets: &[3, 1, 2, 2, 3, 3, 0],
    weights: &[1.0; 7],
};

fn plan(home: u32, limits: Limits) -> ShardPlan {
    ShardPlan::new(home, HAND, &table(), limits)
}

#[test]
fn a_row_goes_to_a_group_once() {
    assert_eq!(
        plan(2, LIMITS).bundles()[2].relay,
        4,
        "of two homes each has its own"
    );
    let plan = plan(1, LIMITS);
    let bundles: Vec<(u32, usize, usize)> = plan
        .bundles()
        .iter()
        .map(|one| (one.relay, one.rows, one.parts.len()))
        .collect();
    // To ann itself, to bob beside it, and to the other group, whose first relays for the first.
    assert_eq!(bundles, [(1, 1, 1), (2, 1, 1), (3, 3, 2)]);
    assert_eq!(
        plan.rows_saved(),
        2,
        "six choices leave in one row to bob and three to the others"
    );
}

#[test]
fn a_bundle_by_hand() {
    let plan = plan(1, LIMITS);
    let ledger = TrafficLedger::of_step(ExchangeKind::Hierarchical, &[plan], 5, LIMITS, ROW);
    let cell = |rows, bytes: usize| LinkCell {
        messages: 1,
        rows,
        bytes: bytes as u64,
    };
    // A count, two heads; cid: two rows, one choice each; dee: three.
    let words = 1 + 2 * 5 + (2 + 2 + 2) + (3 + 3 + 3);
    assert_eq!(ledger.cell(1, 3), cell(3, encoded_len(words, 3 * ROW)));
    assert_eq!(ledger.cell(3, 4), cell(3, encoded_len(6, 3 * ROW)));
    assert_eq!(ledger.cell(1, 4), LinkCell::default());
    assert_eq!(ledger.cell(3, 1), cell(2, encoded_len(0, 2 * ROW)));
    assert_eq!(ledger.cell(4, 1), cell(3, encoded_len(0, 3 * ROW)));
    assert_eq!(ledger.cell(1, 2), cell(1, encoded_len(2, ROW)));
    // Ann's own row and result, and the rows that cid hands to itself.
    let local = encoded_len(2, ROW) + encoded_len(0, ROW) + encoded_len(4, 2 * ROW);
    assert_eq!(ledger.local_bytes, local as u64);
    assert_eq!(ledger.saved_by_dedup_bytes, 2 * ROW as u64);
}

#[test]
fn one_group_and_groups_of_one_are_all_to_all() {
    for groups in [vec![0, 0, 0, 0], vec![2, 0, 3, 1]] {
        let table = grouped(groups);
        for home in 1..=4 {
            let limits = Limits {
                chunk_bytes: encoded_len(4, 2 * ROW),
                ..LIMITS
            };
            let alone = ShardPlan::new(home, HAND, &plain(), limits);
            let there = ShardPlan::new(home, HAND, &table, limits);
            assert_eq!(there, alone);
            let ledger = |kind, plan| TrafficLedger::of_step(kind, &[plan], 5, limits, ROW);
            assert_eq!(
                ledger(ExchangeKind::Hierarchical, there),
                ledger(ExchangeKind::AllToAll, alone)
            );
        }
    }
}

#[test]
fn a_host_that_gets_nothing_relays_nothing() {
    // Cid is down: its choices were lost before the plan.
    let kept = Kept {
        offsets: &[0, 2],
        targets: &[3, 4],
        weights: &[1.0; 2],
    };
    let table = HostTable::from_endpoints(vec![1, 2, 3, 4, 5], 6);
    let table = table.with_groups(Groups::new(vec![0, 0, 1, 1, 1]).unwrap());
    let relay = |home| ShardPlan::new(home, kept, &table, LIMITS).bundles()[0].relay;
    assert_eq!(
        (relay(1), relay(2)),
        (4, 4),
        "the next after cid, and dee itself"
    );
}

fn run(plan: ShardPlan, on_loss: OnLoss) -> HomeRun {
    let setup = HomeSetup {
        tag: Tag { shard: 1, ..tag() },
        hidden: 4,
        rule: F32_RULE,
        credits: 9,
        on_loss,
        started_ns: 0,
        deadline_ns: 1_000_000,
        names: names(),
        extents: vec![0, 1, 2, 3, 4],
    };
    HomeRun::new(plan, setup)
}

/// `[4, 4]` rows.
fn x() -> Vec<f32> {
    (0..16u8).map(f32::from).collect()
}

fn sent(run: &mut HomeRun) -> Vec<(u32, FrameView)> {
    let (x, pool) = (x(), BufferPool::default());
    let mut sent = Vec::new();
    while let Some(Outgoing::Send { endpoint, message }) = run.poll(RowSource::F32(&x), &pool, || 5)
    {
        sent.push((endpoint, read(message)));
    }
    sent
}

#[test]
fn a_relay_makes_the_rows_that_the_home_means() {
    let mut home = run(plan(1, LIMITS), OnLoss::Fail);
    let frames = sent(&mut home);
    let (to, frame) = frames.last().unwrap();
    assert_eq!((*to, frame.header.kind), (3, FrameKind::Relay));
    let bundle = &home.plan().bundles()[2];
    assert_eq!(
        encoded_len(frame.index.len() / 4, frame.rows.len()),
        home.plan().relay_frame_len(bundle, ROW)
    );
    let relay = RelayFrame::read(frame.clone(), 4, [3, 1], &table()).unwrap();
    let pool = BufferPool::default();
    for part in relay.parts() {
        let rows = read(relay.rows_frame(part, &pool, || (7, 8)));
        // What the home would have sent without groups.
        let mut alone = run(ShardPlan::new(1, HAND, &plain(), LIMITS), OnLoss::Fail);
        let meant = sent(&mut alone);
        let (_, meant) = meant.iter().find(|(to, _)| *to == part.endpoint).unwrap();
        assert_eq!((&rows.index, &rows.rows), (&meant.index, &meant.rows));
        let mut header = rows.header;
        assert_eq!((header.times.sent_ns, header.budget_ns), (7, 8));
        (header.times, header.budget_ns) = (meant.header.times, meant.header.budget_ns);
        assert_eq!(header, meant.header);
        assert_eq!(part.rows() as u32, header.row_count);
    }
}

fn home(limits: Limits, credits: usize, on_loss: OnLoss) -> (Home, ShardPlan) {
    let plan = plan(1, limits);
    let home = Home::new(5, &plan, &names(), credits, 0, 50, on_loss);
    (home, plan)
}

fn actions(home: &mut Home) -> Vec<HomeAction> {
    std::iter::from_fn(|| home.poll()).collect()
}

#[test]
fn hosts_of_a_group_share_their_credits() {
    let limits = Limits {
        chunk_bytes: 0,
        ..LIMITS
    };
    let (mut home, plan) = home(limits, 2, OnLoss::Fail);
    assert_eq!(
        plan.bundles().len(),
        5,
        "ann, bob, and a bundle for each of three tokens"
    );
    let send = |host, chunk| HomeAction::Send { host, chunk };
    assert_eq!(
        actions(&mut home),
        [
            send(0, 0),
            send(1, 0),
            HomeAction::Relay { bundle: 2 },
            HomeAction::Relay { bundle: 3 }
        ]
    );
    // A bundle is under way until all of its chunks are back.
    assert!(home.on_results(2, 0));
    assert!(home.on_results(2, 1));
    assert_eq!(actions(&mut home), []);
    assert!(!home.on_results(3, 2), "it was not sent yet");
    assert!(home.on_results(3, 0));
    // The last bundle is for dee alone: a chunk like any other.
    assert_eq!(actions(&mut home), [send(3, 2)]);
    assert_eq!(
        ShardPlan::first_chunks(&[plan], 5, 2),
        [0, 1, 1, 2, 2],
        "what is sent before anybody waits"
    );
}

#[test]
fn a_lost_relay_takes_along_what_is_behind_it() {
    let gone = || LossCause::Disconnected("reset".into());
    let (mut home, _) = home(LIMITS, 2, OnLoss::Drop);
    actions(&mut home);
    assert!(home.on_results(0, 0) && home.on_results(1, 0) && home.on_results(2, 0));
    // Cid has answered, but what dee was to get may never have left it.
    home.on_host_lost(3, gone());
    assert_eq!(actions(&mut home), [HomeAction::Combine]);
    assert_eq!(home.lost().collect::<Vec<_>>(), [3]);
    assert!(!home.on_results(3, 0), "too late");
    let (mut home, _) = self::home(LIMITS, 2, OnLoss::Fail);
    actions(&mut home);
    home.on_host_lost(3, gone());
    let failed = actions(&mut home);
    let [HomeAction::Fail(StepError::Lost { endpoint, name, .. })] = failed.as_slice() else {
        panic!("{failed:?}");
    };
    assert_eq!((*endpoint, name.as_str()), (3, "cid"));
}

#[test]
fn a_host_behind_a_late_relay_is_not_late() {
    for (answered, late) in [(None, 3), (Some(3), 3), (Some(2), 4)] {
        let (mut home, _) = home(LIMITS, 2, OnLoss::Drop);
        actions(&mut home);
        assert!(home.on_results(0, 0) && home.on_results(1, 0));
        assert!(answered.is_none_or(|host| home.on_results(host, 0)));
        home.on_tick(50);
        assert_eq!(actions(&mut home), [HomeAction::Combine]);
        assert_eq!(home.lost().collect::<Vec<_>>(), [late]);
    }
}

#[test]
fn a_relay_can_say_whom_it_does_not_reach() {
    let error = RemoteError::new(ErrorCode::WorkerLost, "no way");
    let mut home = run(plan(1, LIMITS), OnLoss::Fail);
    sent(&mut home);
    home.on_error(3, error.clone().about(4));
    let named =
        |run: &mut HomeRun| match run.poll(RowSource::F32(&x()), &BufferPool::default(), || 9) {
            Some(Outgoing::Fail(error)) => error.endpoint(),
            other => panic!("{other:?}"),
        };
    assert_eq!(named(&mut home), 4);
    // Nobody relays for bob: whoever speaks of it speaks of itself.
    let mut home = run(plan(1, LIMITS), OnLoss::Fail);
    sent(&mut home);
    home.on_error(3, error.about(2));
    assert_eq!(named(&mut home), 3);
}

proptest! {
    /// Whatever the groups, tokens and limits: every chunk travels once, and every row to a group
    /// once, in messages that keep the limit.
    #[test]
    fn bundles_carry_every_chunk_once(
        tokens in prop::collection::vec(prop::sample::subsequence((0..7u32).collect::<Vec<_>>(), 0..=5), 0..24),
        groups in prop::collection::vec(0..7u32, 7),
        home in 1..8u32,
        chunk_bytes in prop_oneof![Just(0), 250..900usize, Just(1 << 20)],
        row_per_choice: bool,
    ) {
        let mut offsets = vec![0];
        for token in &tokens {
            offsets.push(offsets.last().unwrap() + u32::try_from(token.len()).unwrap());
        }
        let targets: Vec<u32> = tokens.iter().flatten().copied().collect();
        let weights = vec![1.0; targets.len()];
        let kept = Kept { offsets: &offsets, targets: &targets, weights: &weights };
        let limits = Limits { row_bytes: ROW, chunk_bytes, row_per_choice };
        let of = Groups::new(groups).unwrap();
        let table = HostTable::from_endpoints((1..8).collect(), 8).with_groups(of.clone());
        let plan = ShardPlan::new(home, kept, &table, limits);
        let (mut seen, mut crossed, mut rows) = (BTreeSet::new(), BTreeSet::new(), 0);
        plan.each_parcel(|parcel| {
            for part in parcel.parts {
                assert!(seen.insert((part.host, part.chunk)), "a chunk twice");
                let host = plan.host(part.host);
                let chunk = &host.chunks[part.chunk];
                assert_eq!(chunk.wave, parcel.wave);
                for row in chunk.rows.clone() {
                    let group = of.group(host.endpoint);
                    let shared = !of.together(host.endpoint, home) && !row_per_choice;
                    let host = (!shared).then_some((host.endpoint, row));
                    crossed.insert((group, host, plan.host(part.host).tokens[row]));
                }
            }
            let hosts: Vec<u32> =
                parcel.parts.iter().map(|part| plan.hosts[part.host].endpoint).collect();
            assert!(hosts.contains(&parcel.to) && hosts.is_sorted());
            if let Some(at) = parcel.bundle {
                assert!(hosts.iter().all(|host| of.together(*host, parcel.to)));
                assert!(!of.together(parcel.to, home));
                let len = plan.relay_frame_len(&plan.bundles()[at], ROW);
                assert!(parcel.rows == 1 || len <= chunk_bytes);
            }
            rows += parcel.rows;
        });
        prop_assert_eq!(seen.len(), plan.chunks());
        prop_assert_eq!(rows, crossed.len(), "a row twice");
        // The same hosts, rows and choices as without groups; only the cuts differ.
        let alone = HostTable::from_endpoints((1..8).collect(), 8);
        let alone = ShardPlan::new(home, kept, &alone, limits);
        for at in 0..plan.hosts.len() {
            let (mine, theirs) = (plan.host(at), alone.host(at));
            prop_assert_eq!(mine.tokens, theirs.tokens);
            prop_assert_eq!(mine.experts, theirs.experts);
            let mut end = 0;
            for chunk in mine.chunks {
                prop_assert_eq!(chunk.rows.start, end);
                end = chunk.rows.end;
            }
            prop_assert_eq!(end, mine.tokens.len());
        }
    }
}
