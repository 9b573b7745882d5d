use super::{hand_plan, names, wide};
use crate::{
    Home, HomeAction, HostTable, Kept, Limits, LossCause, OnLoss, ShardPlan, StepError, Target,
};

const START: u64 = 1_000;
const DEADLINE: u64 = 50_001_000;

/// Rows of one choice each: five chunks for endpoint 1, two for endpoint 2.
fn plan() -> ShardPlan {
    let table = HostTable::from_endpoints(vec![1, 2], 3);
    let kept = Kept {
        offsets: &[0, 1, 2, 3, 4, 5, 6, 7],
        targets: &[0, 0, 0, 0, 0, 1, 1],
        weights: &[1.0; 7],
    };
    let limits = Limits {
        row_bytes: 16,
        chunk_bytes: 0,
        row_per_choice: false,
    };
    ShardPlan::new(0, kept, &table, limits)
}

fn home(credits: usize, on_loss: OnLoss) -> Home {
    Home::new(5, &plan(), &names(), credits, START, DEADLINE, on_loss)
}

fn sends(home: &mut Home) -> Vec<(usize, usize)> {
    let mut sends = Vec::new();
    while let Some(action) = home.poll() {
        match action {
            HomeAction::Send { host, chunk } => sends.push((host, chunk)),
            other => panic!("expected a send, got {other:?}"),
        }
    }
    sends
}

fn gone() -> LossCause {
    LossCause::Disconnected("reset".into())
}

#[test]
fn chunks_go_out_in_turn_within_the_credits() {
    let mut home = home(2, OnLoss::Fail);
    assert_eq!(sends(&mut home), [(0, 0), (1, 0), (0, 1), (1, 1)]);
    assert!(home.on_results(0, 1), "results come in any order");
    assert_eq!(sends(&mut home), [(0, 2)]);
    assert!(home.on_results(0, 0));
    assert!(home.on_results(0, 2));
    assert_eq!(sends(&mut home), [(0, 3), (0, 4)]);
    for (host, chunk) in [(1, 1), (1, 0), (0, 4)] {
        assert!(home.on_results(host, chunk));
        assert_eq!(home.poll(), None);
    }
    assert!(home.on_results(0, 3));
    assert_eq!(home.poll(), Some(HomeAction::Combine));
    assert_eq!(home.poll(), None);
}

#[test]
fn no_credits_are_one_credit() {
    assert_eq!(sends(&mut home(0, OnLoss::Fail)), [(0, 0), (1, 0)]);
}

#[test]
fn what_nobody_awaits_is_ignored() {
    let mut home = home(1, OnLoss::Fail);
    assert_eq!(sends(&mut home).len(), 2);
    assert!(!home.on_results(0, 1), "not sent yet");
    assert!(!home.on_results(0, 5), "no such chunk");
    assert!(!home.on_results(2, 0), "no such host");
    assert!(home.on_results(0, 0));
    assert!(!home.on_results(0, 0), "a duplicate");
    assert_eq!(sends(&mut home), [(0, 1)], "which gave no credit");
}

#[test]
fn a_plan_without_rows_combines_at_once() {
    let kept = Kept {
        offsets: &[0, 0],
        targets: &[],
        weights: &[],
    };
    let plan = ShardPlan::new(0, kept, &super::table(), wide(4));
    let mut home = Home::new(5, &plan, &names(), 1, START, DEADLINE, OnLoss::Fail);
    assert_eq!(home.poll(), Some(HomeAction::Combine));
    assert_eq!(home.poll(), None);
    home.on_tick(u64::MAX);
    assert_eq!(home.poll(), None, "it is over");
}

#[test]
fn a_lost_host_ends_the_step_by_name() {
    let mut home = home(4, OnLoss::Fail);
    home.on_host_lost(9, gone());
    home.on_host_lost(2, gone());
    let Some(HomeAction::Fail(error)) = home.poll() else {
        panic!("expected the end");
    };
    assert_eq!(
        error.to_string(),
        "step 5: bob was lost: its connection ended (reset)"
    );
    assert_eq!(error.endpoint(), 2);
    assert_eq!(home.poll(), None, "sends are void");
    assert!(!home.on_results(0, 0), "and results are late");
    home.on_tick(DEADLINE);
    assert_eq!(home.poll(), None);
}

#[test]
fn a_lost_host_is_dropped_and_the_others_go_on() {
    let mut home = home(2, OnLoss::Drop);
    assert_eq!(sends(&mut home).len(), 4);
    assert!(home.on_results(0, 0));
    home.on_host_lost(1, gone());
    assert!(!home.on_results(0, 1), "late");
    assert_eq!(home.lost().collect::<Vec<_>>(), [1]);
    home.on_host_lost(1, gone());
    assert!(home.on_results(1, 0));
    assert!(home.on_results(1, 1));
    let last = std::iter::from_fn(|| home.poll()).last();
    assert_eq!(last, Some(HomeAction::Combine));
}

#[test]
fn a_host_that_has_answered_everything_may_leave() {
    let mut home = home(9, OnLoss::Fail);
    assert_eq!(sends(&mut home).len(), 7);
    assert!(home.on_results(1, 0) && home.on_results(1, 1));
    home.on_host_lost(2, gone());
    assert_eq!(home.poll(), None);
    assert_eq!(home.lost().count(), 0);
}

#[test]
fn the_deadline_names_who_is_late() {
    let mut late = home(9, OnLoss::Fail);
    assert_eq!(sends(&mut late).len(), 7);
    for chunk in 0..5 {
        assert!(late.on_results(0, chunk));
    }
    late.on_tick(DEADLINE - 1);
    assert_eq!(late.poll(), None);
    late.on_tick(DEADLINE);
    let Some(HomeAction::Fail(StepError::Lost {
        endpoint,
        cause,
        name,
        ..
    })) = late.poll()
    else {
        panic!("expected the end");
    };
    assert_eq!((endpoint, name.as_str()), (2, "bob"));
    assert_eq!(cause, LossCause::Deadline { waited_ms: 50 });
    assert_eq!(late.deadline_ns(), DEADLINE);
}

#[test]
fn the_deadline_drops_all_who_are_late() {
    let mut late = home(9, OnLoss::Drop);
    assert_eq!(sends(&mut late).len(), 7);
    late.on_tick(DEADLINE + 5);
    assert_eq!(late.poll(), Some(HomeAction::Combine));
    assert_eq!(late.lost().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_failure_of_its_own_overrides_any_policy() {
    let plan = hand_plan(0, wide(4));
    let mut home = Home::new(5, &plan, &names(), 1, START, DEADLINE, OnLoss::Drop);
    let error = StepError::BadFrame {
        step: 5,
        endpoint: 1,
        name: "ann".into(),
        reason: "3 result rows, expected 2".into(),
    };
    home.fail(error.clone());
    home.fail(StepError::Lost {
        step: 5,
        endpoint: 2,
        name: "bob".into(),
        cause: gone(),
    });
    assert_eq!(
        home.poll(),
        Some(HomeAction::Fail(error)),
        "the first one counts"
    );
    assert_eq!(home.poll(), None);
}

/// Host 1 has two rows in the first wave and one in the second, host 2 one in each.
fn in_waves(on_loss: OnLoss) -> Home {
    let table = HostTable::from_endpoints(vec![1, 2], 3);
    let target = |expert, wave| {
        let replica = 0;
        let target = Target {
            expert,
            replica,
            wave,
        };
        target.pack()
    };
    let targets = [
        target(0, 0),
        target(0, 1),
        target(0, 0),
        target(1, 0),
        target(1, 1),
    ];
    let kept = Kept {
        offsets: &[0, 1, 2, 3, 4, 5],
        targets: &targets,
        weights: &[1.0; 5],
    };
    let limits = Limits {
        row_bytes: 16,
        chunk_bytes: 0,
        row_per_choice: false,
    };
    let plan = ShardPlan::new(0, kept, &table, limits);
    Home::new(5, &plan, &names(), 4, START, DEADLINE, on_loss)
}

#[test]
fn a_wave_waits_for_the_one_before() {
    let mut home = in_waves(OnLoss::Fail);
    assert_eq!(sends(&mut home), [(0, 0), (1, 0), (0, 1)]);
    assert!(home.on_results(0, 1));
    assert!(home.on_results(0, 0));
    assert_eq!(
        home.poll(),
        None,
        "host 2 still owes a result of the first wave"
    );
    assert!(home.on_results(1, 0));
    assert_eq!(sends(&mut home), [(0, 2), (1, 1)]);
}

#[test]
fn a_wave_does_not_wait_for_the_lost() {
    let mut home = in_waves(OnLoss::Drop);
    assert_eq!(sends(&mut home).len(), 3);
    assert!(home.on_results(0, 0));
    assert!(home.on_results(0, 1));
    home.on_host_lost(2, gone());
    assert_eq!(sends(&mut home), [(0, 2)]);
    assert!(home.on_results(0, 2));
    assert_eq!(home.poll(), Some(HomeAction::Combine));
}

#[test]
fn a_host_that_was_not_asked_is_not_late() {
    let mut home = in_waves(OnLoss::Drop);
    assert_eq!(sends(&mut home).len(), 3);
    assert!(home.on_results(0, 0));
    assert!(home.on_results(0, 1));
    home.on_tick(DEADLINE);
    assert_eq!(home.poll(), Some(HomeAction::Combine));
    assert_eq!(
        home.lost().collect::<Vec<_>>(),
        [2],
        "host 1 owed nothing yet"
    );
}
