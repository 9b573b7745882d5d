use crate::{Cohort, Host, HostAction};

/// A chunk alone in its step, which waits for nobody.
fn at_once(host: &mut Host, job: u64, choices: usize) {
    let alone = Cohort {
        step: 1000 + job,
        chunks: 1,
        patience_ns: 0,
    };
    host.on_rows(job, choices, alone, 0);
}

#[test]
fn chunks_gather_while_a_batch_runs() {
    let mut host = Host::new(10);
    assert_eq!(host.poll(), None);
    at_once(&mut host, 1, 4);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1])));
    at_once(&mut host, 2, 4);
    at_once(&mut host, 3, 6);
    at_once(&mut host, 4, 1);
    assert_eq!(host.poll(), None, "one runs");
    assert_eq!(host.waiting(), 3);
    host.on_done();
    assert_eq!(
        host.poll(),
        Some(HostAction::Run(vec![2, 3])),
        "ten choices close a batch"
    );
    host.on_done();
    assert_eq!(host.poll(), Some(HostAction::Run(vec![4])));
    host.on_done();
    assert_eq!(host.poll(), None);
}

#[test]
fn a_chunk_longer_than_a_batch_goes_alone() {
    let mut host = Host::new(3);
    for (job, choices) in [(1, 1), (2, 50), (3, 1), (4, 2)] {
        at_once(&mut host, job, choices);
    }
    for batch in [vec![1], vec![2], vec![3, 4]] {
        assert_eq!(host.poll(), Some(HostAction::Run(batch)));
        host.on_done();
    }
}

#[test]
fn a_batch_of_no_choices_is_one_of_one() {
    let mut host = Host::new(0);
    at_once(&mut host, 1, 0);
    at_once(&mut host, 2, 1);
    at_once(&mut host, 3, 1);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1, 2])));
}

fn cohort(step: u64, chunks: u32) -> Cohort {
    Cohort {
        step,
        chunks,
        patience_ns: 100,
    }
}

#[test]
fn a_chunk_waits_for_its_cohort() {
    let mut host = Host::new(100);
    host.on_rows(1, 4, cohort(7, 3), 0);
    host.on_rows(2, 4, cohort(7, 3), 10);
    assert_eq!(host.poll(), None);
    assert_eq!(
        host.deadline_ns(),
        Some(100),
        "patience begins with the first"
    );
    host.on_rows(3, 4, cohort(7, 3), 20);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1, 2, 3])));
    assert_eq!(host.deadline_ns(), None);
}

#[test]
fn patience_ends_and_late_chunks_do_not_wait_again() {
    let mut host = Host::new(100);
    host.on_rows(1, 4, cohort(7, 3), 0);
    host.on_tick(99);
    assert_eq!(host.poll(), None);
    host.on_tick(100);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1])));
    host.on_done();
    host.on_rows(2, 4, cohort(7, 3), 150);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![2])));
}

#[test]
fn whoever_need_not_wait_takes_the_others_along() {
    let mut host = Host::new(100);
    host.on_rows(1, 4, cohort(7, 2), 0);
    at_once(&mut host, 2, 1);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1, 2])));
    host.on_done();
    host.on_rows(3, 4, cohort(8, 1), 0);
    assert_eq!(
        host.poll(),
        Some(HostAction::Run(vec![3])),
        "a cohort of one is complete"
    );
}

#[test]
fn a_full_batch_waits_for_nobody() {
    let mut host = Host::new(8);
    host.on_rows(1, 4, cohort(7, 9), 0);
    assert_eq!(host.poll(), None);
    host.on_rows(2, 4, cohort(7, 9), 0);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![1, 2])));
}

#[test]
fn cohorts_that_never_complete_are_forgotten() {
    let mut host = Host::new(1);
    for step in 0..5000 {
        host.on_rows(step, 1, cohort(step, 2), 0);
        assert_eq!(host.poll(), Some(HostAction::Run(vec![step])));
        host.on_done();
    }
    assert_eq!(host.waiting(), 0);
}

#[test]
fn a_cheap_chunk_counts_for_those_that_wait() {
    let mut host = Host::new(100);
    let cheap = Cohort {
        patience_ns: 0,
        ..cohort(7, 3)
    };
    host.on_rows(1, 1, cheap, 0);
    assert_eq!(
        host.poll(),
        Some(HostAction::Run(vec![1])),
        "it waits for nobody"
    );
    host.on_done();
    host.on_rows(2, 4, cohort(7, 3), 0);
    assert_eq!(host.poll(), None);
    host.on_rows(3, 4, cohort(7, 3), 0);
    assert_eq!(host.poll(), Some(HostAction::Run(vec![2, 3])));
}
