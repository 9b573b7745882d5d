use expertmesh_wire::{ErrorCode, RemoteError};

use super::names;
use crate::{Conductor, ConductorAction, LossCause, OnLoss, StepError};

const START: u64 = 7;
const DEADLINE: u64 = 2_000_000_007;

fn conductor(on_loss: OnLoss) -> Conductor {
    Conductor::new(5, &[1, 3], &names(), START, DEADLINE, on_loss)
}

fn send(shard: usize) -> Option<ConductorAction> {
    Some(ConductorAction::SendShard { shard })
}

fn sent(on_loss: OnLoss) -> Conductor {
    let mut conductor = conductor(on_loss);
    assert_eq!(
        (conductor.poll(), conductor.poll(), conductor.poll()),
        (send(0), send(1), None)
    );
    conductor
}

fn failure(conductor: &mut Conductor) -> StepError {
    match conductor.poll() {
        Some(ConductorAction::Fail(error)) => error,
        other => panic!("expected the end, got {other:?}"),
    }
}

fn gone() -> LossCause {
    LossCause::Disconnected("reset".into())
}

#[test]
fn shards_go_out_and_come_back() {
    let mut conductor = sent(OnLoss::Fail);
    assert_eq!(conductor.awaited(2), None, "home to nothing");
    assert_eq!(conductor.awaited(3), Some(1));
    conductor.on_combined(1);
    assert_eq!(conductor.awaited(3), None);
    conductor.on_combined(1);
    assert_eq!(conductor.poll(), None);
    conductor.on_combined(0);
    assert_eq!(conductor.poll(), Some(ConductorAction::Finish));
    assert_eq!(conductor.poll(), None);
    assert_eq!(conductor.lost().count(), 0);
}

#[test]
fn a_step_without_shards_is_over() {
    let mut conductor = Conductor::new(5, &[], &names(), START, DEADLINE, OnLoss::Fail);
    assert_eq!(conductor.poll(), Some(ConductorAction::Finish));
    assert_eq!(conductor.poll(), None);
    conductor.on_tick(DEADLINE);
    assert_eq!(conductor.poll(), None);
}

#[test]
fn an_answer_to_what_was_not_sent_is_not_awaited() {
    let mut conductor = conductor(OnLoss::Drop);
    assert_eq!(conductor.awaited(1), None);
    conductor.on_shard_failed(1, RemoteError::invalid("too early"));
    assert_eq!(conductor.poll(), send(0));
    assert_eq!(conductor.awaited(1), Some(0));
}

#[test]
fn a_home_may_be_lost_before_its_shard_is_sent() {
    let mut conductor = conductor(OnLoss::Drop);
    conductor.on_home_lost(1, gone());
    assert_eq!(conductor.poll(), send(1), "the lost one is not sent");
    conductor.on_combined(1);
    assert_eq!(conductor.poll(), Some(ConductorAction::Finish));
    assert_eq!(conductor.lost().collect::<Vec<_>>(), [0]);
}

#[test]
fn a_lost_home_ends_the_step_by_name() {
    let mut conductor = conductor(OnLoss::Fail);
    conductor.on_home_lost(3, gone());
    let error = failure(&mut conductor);
    assert_eq!(
        error.to_string(),
        "step 5: cid was lost: its connection ended (reset)"
    );
    assert_eq!(conductor.poll(), None);
    assert_eq!(conductor.awaited(1), None, "it is over");
}

#[test]
fn a_home_names_the_endpoint_at_fault_in_one_sentence() {
    let mut conductor = sent(OnLoss::Fail);
    let late = StepError::Lost {
        step: 5,
        endpoint: 2,
        name: "bob".into(),
        cause: LossCause::Deadline { waited_ms: 1500 },
    };
    conductor.on_shard_failed(1, late.to_remote());
    let error = failure(&mut conductor);
    assert_eq!(error.endpoint(), 2);
    assert_eq!(
        error.to_string(),
        "step 5: bob was lost: it did not answer within 1500 ms"
    );
    assert_eq!(error.to_remote().code, ErrorCode::Deadline);
    assert_eq!(error.to_remote().endpoint, Some(2));
}

#[test]
fn a_bad_frame_that_a_home_reports_keeps_its_kind() {
    let mut conductor = sent(OnLoss::Fail);
    let bad = StepError::BadFrame {
        step: 5,
        endpoint: 2,
        name: "bob".into(),
        reason: "1 result rows, expected 2".into(),
    };
    conductor.on_shard_failed(1, bad.to_remote());
    let error = failure(&mut conductor);
    assert_eq!(error.to_remote().code, ErrorCode::BadFrame);
    assert_eq!(
        error.to_string(),
        "step 5: bob was lost: bob sent a frame that the plan contradicts: \
         1 result rows, expected 2"
    );
}

#[test]
fn an_error_about_nobody_is_about_its_home() {
    let mut conductor = sent(OnLoss::Fail);
    conductor.on_shard_failed(3, RemoteError::new(ErrorCode::Internal, "out of luck"));
    let error = failure(&mut conductor);
    assert_eq!(error.to_string(), "step 5: cid was lost: out of luck");
}

#[test]
fn an_endpoint_that_does_not_exist_is_named_by_number() {
    let mut conductor = sent(OnLoss::Fail);
    conductor.on_shard_failed(3, RemoteError::invalid("odd").about(99));
    assert_eq!(
        failure(&mut conductor).to_string(),
        "step 5: endpoint 99 was lost: odd"
    );
}

#[test]
fn the_deadline_ends_or_drops_what_is_out() {
    let mut late = sent(OnLoss::Fail);
    late.on_combined(0);
    late.on_tick(DEADLINE - 1);
    assert_eq!(late.poll(), None);
    late.on_tick(DEADLINE);
    let error = failure(&mut late);
    assert_eq!(
        error.to_string(),
        "step 5: cid was lost: it did not answer within 2000 ms"
    );

    let mut late = sent(OnLoss::Drop);
    late.on_combined(1);
    late.on_tick(DEADLINE);
    assert_eq!(late.poll(), Some(ConductorAction::Finish));
    assert_eq!(late.lost().collect::<Vec<_>>(), [0]);
    late.on_combined(0);
    assert_eq!(late.lost().count(), 1, "too late");
    assert_eq!(late.deadline_ns(), DEADLINE);
}
