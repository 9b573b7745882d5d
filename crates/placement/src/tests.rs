use std::collections::HashSet;

use proptest::{prelude::*, strategy::Strategy as _, test_runner::RngSeed};

use crate::{MAX_EXPERTS, MAX_WORKERS, Placement, PlacementError, Strategy};

fn table(placement: &Placement) -> Vec<Vec<u32>> {
    placement.entries().map(<[u32]>::to_vec).collect()
}

#[test]
fn contiguous_gives_the_remainder_to_the_first_workers() {
    let placement = Placement::contiguous(8, 3).unwrap();
    let held: Vec<_> = (0..3).map(|worker| placement.experts_of(worker)).collect();
    assert_eq!(held, [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
    assert_eq!(placement.loads(), [3, 3, 2]);
}

#[test]
fn more_workers_than_experts_leaves_the_last_workers_idle() {
    let placement = Placement::contiguous(2, 4).unwrap();
    assert_eq!(table(&placement), [[0], [1]]);
    assert_eq!(placement.workers(), 4);
    assert!(placement.experts_of(3).is_empty());
    assert!(placement.experts_of(99).is_empty());
}

#[test]
fn round_robin_deals_experts_out() {
    assert_eq!(
        table(&Placement::round_robin(5, 2).unwrap()),
        [[0], [1], [0], [1], [0]]
    );
}

#[test]
fn a_seed_names_one_shuffle_for_ever() {
    // Pinned: a run's identity holds the seed, so the draw may not change between versions.
    let placement = Placement::shuffled(8, 2, 7).unwrap();
    let primaries: Vec<u32> = (0..8).map(|expert| placement.primary(expert)).collect();
    assert_eq!(primaries, [1, 0, 1, 0, 0, 1, 1, 0]);
    assert_ne!(placement, Placement::shuffled(8, 2, 8).unwrap());
}

#[test]
fn the_digest_is_sha256_of_the_documented_bytes() {
    let placement = Placement::from_table(vec![vec![0], vec![1, 0]], 2).unwrap();
    assert_eq!(
        placement.digest(),
        "a800d61885e81bea774e626a7635a184c93c6bc18a12ce11e8ff40a2ff327c3e"
    );
}

#[test]
fn display_draws_runs_together() {
    let placement = Placement::from_table(vec![vec![0], vec![0], vec![0, 1], vec![1]], 3).unwrap();
    assert_eq!(
        placement.to_string(),
        "4 experts on 3 workers: w0 [0-2], w1 [2-3], w2 []"
    );
    let dealt = Placement::round_robin(5, 2).unwrap();
    assert_eq!(
        dealt.to_string(),
        "5 experts on 2 workers: w0 [0 2 4], w1 [1 3]"
    );
}

#[test]
fn a_file_is_read_back() {
    let text = "# by hand\nexperts = [[0], [1], [0, 2]]\n";
    let placement = Placement::parse_toml(text, 3, 3).unwrap();
    assert_eq!(placement.replicas(2), [0, 2]);
    assert_eq!(placement.primary(2), 0);
    assert_eq!(placement.experts_of(0), [0, 2]);
    assert_eq!(
        Placement::parse_toml(&placement.to_toml(), 3, 3),
        Ok(placement)
    );
}

#[test]
fn bad_tables_are_refused_by_entry() {
    let cases = [
        (vec![], 1, PlacementError::Experts { found: 0 }),
        (vec![vec![0]], 0, PlacementError::Workers { found: 0 }),
        (
            vec![vec![0], vec![]],
            2,
            PlacementError::Unplaced {
                expert: 1,
                workers: 2,
            },
        ),
        (
            vec![vec![0], vec![1, 2]],
            2,
            PlacementError::NoSuchWorker {
                expert: 1,
                replica: 1,
                worker: 2,
                workers: 2,
            },
        ),
        (
            vec![vec![1, 0, 1]],
            2,
            PlacementError::DuplicateReplica {
                expert: 0,
                worker: 1,
            },
        ),
    ];
    for (table, workers, expected) in cases {
        assert_eq!(Placement::from_table(table, workers), Err(expected));
    }
}

#[test]
fn sizes_past_the_limit_are_refused_before_they_are_allocated() {
    for strategy in Strategy::ALL {
        for (experts, workers) in [(0, 1), (1, 0), (MAX_EXPERTS + 1, 1), (1, MAX_WORKERS + 1)] {
            assert!(strategy.place(experts, workers, 0).is_err());
        }
    }
}

#[test]
fn bad_files_are_refused_by_line_or_entry() {
    let message = |text: &str, experts| {
        Placement::parse_toml(text, experts, 2)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        message("experts = [[0], [1, -1]]", 2),
        "experts[1][1]: worker -1, expected an index below 2, the number of workers"
    );
    assert_eq!(
        message("experts = [[0]]", 2),
        "experts: 1 entries, expected 2, one for each expert of the layer"
    );
    let unknown = message("experts = [[0]]\nworker = 2\n", 1);
    assert!(
        unknown.starts_with("placement file, line 2: unknown field `worker`"),
        "{unknown}"
    );
    let missing = message("", 1);
    assert!(missing.contains("missing field `experts`"), "{missing}");
    for text in [
        "experts = [[0]",
        "experts = [0]",
        "experts = [[0.5]]",
        "experts = \"é",
        "\u{feff}[",
    ] {
        let refused = message(text, 1);
        assert!(refused.starts_with("placement file, line 1: "), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn names_go_both_ways() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.to_string().parse(), Ok(strategy));
    }
    assert_eq!(
        "rr".parse::<Strategy>().unwrap_err().to_string(),
        "placement: \"rr\", expected contiguous, round-robin or shuffled"
    );
}

fn any_strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    proptest::sample::select(Strategy::ALL.to_vec())
}

/// Tables of one to eight experts on `workers` workers, each entry a non-empty set in any order.
fn any_table(workers: u32) -> impl proptest::strategy::Strategy<Value = Vec<Vec<u32>>> {
    let all: Vec<u32> = (0..workers).collect();
    let entry = proptest::sample::subsequence(all, 1..=workers as usize).prop_shuffle();
    proptest::collection::vec(entry, 1..=8)
}

/// The same cases in every run.
fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn small_tables_have_digests_of_their_own() {
    let mut tables = HashSet::new();
    let mut digests = HashSet::new();
    for strategy in Strategy::ALL {
        for (experts, workers) in (1..12).flat_map(|e| (1..6).map(move |w| (e, w))) {
            let placement = strategy.place(experts, workers, 3).unwrap();
            digests.insert(placement.digest());
            tables.insert((workers, table(&placement)));
        }
    }
    assert!(tables.len() > 100);
    assert_eq!(digests.len(), tables.len());
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_expert_is_placed_once_and_loads_differ_by_at_most_one(
        strategy in any_strategy(), experts in 1_usize..300, workers in 1_usize..40, seed: u64,
    ) {
        let placement = strategy.place(experts, workers, seed).unwrap();
        prop_assert_eq!(placement.experts(), experts);
        prop_assert_eq!(placement.workers(), workers);
        let mut seen: Vec<u32> = (0..workers).flat_map(|w| placement.experts_of(w)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..experts as u32).collect::<Vec<_>>());
        for expert in 0..experts {
            prop_assert_eq!(placement.replicas(expert), [placement.primary(expert)]);
        }
        let loads = placement.loads();
        let least = loads.iter().min().unwrap();
        prop_assert!(loads.iter().all(|load| load - least <= 1));
        prop_assert_eq!(loads.iter().sum::<usize>(), experts);
        // What a strategy makes passes the checks that a table from outside must pass.
        prop_assert_eq!(Placement::from_table(table(&placement), workers), Ok(placement));
    }

    #[test]
    fn digests_are_equal_exactly_when_tables_are(
        a in any_table(4), b in any_table(4), wider in 4_usize..6,
    ) {
        let one = Placement::from_table(a.clone(), 4).unwrap();
        let other = Placement::from_table(b.clone(), wider).unwrap();
        prop_assert_eq!(a == b && wider == 4, one.digest() == other.digest());
        prop_assert_eq!(one.digest(), Placement::from_table(a, 4).unwrap().digest());
    }

    #[test]
    fn any_table_survives_its_file(entries in any_table(5)) {
        let placement = Placement::from_table(entries, 5).unwrap();
        let text = placement.to_toml();
        prop_assert_eq!(Placement::parse_toml(&text, placement.experts(), 5), Ok(placement));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(experts|=|\\[|\\]|,|[0-9]|-|\n|\"|é| ){0,40}") {
        let _ = Placement::parse_toml(&text, 2, 2);
    }
}
