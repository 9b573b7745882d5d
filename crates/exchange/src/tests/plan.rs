use std::collections::BTreeMap;

use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, Fate, Route};
use expertmesh_wire::encoded_len;
use proptest::prelude::*;

use super::{HAND, hand_plan, table, wide};
use crate::shard_plan::{OWN, ResultAt};
use crate::{Chunk, HostTable, KeptChoices, Limits, OwnChoice, ShardPlan, Target, shard_ranges};

#[test]
fn a_token_with_two_experts_on_one_host_is_one_row() {
    let plan = hand_plan(0, wide(4));
    let hosts: Vec<u32> = plan.hosts.iter().map(|host| host.endpoint).collect();
    assert_eq!(hosts, [1, 2, 3]);
    let ann = plan.host(0);
    assert_eq!(ann.tokens, [0, 2]);
    assert_eq!(ann.offsets, [0, 2, 3]);
    assert_eq!(ann.experts, [2, 0, 0], "in slot order");
    assert_eq!(ann.kept, [0, 1, 4]);
    assert_eq!(
        ann.chunks,
        [Chunk {
            rows: 0..2,
            choices: 0..3,
            wave: 0,
        }]
    );
    let bob = plan.host(1);
    assert_eq!((bob.tokens, bob.experts), ([0].as_slice(), [1].as_slice()));
    let cid = plan.host(2);
    assert_eq!((cid.tokens, cid.experts), ([2].as_slice(), [3].as_slice()));
    let at = |chunk, row| ResultAt { chunk, row };
    assert_eq!(
        plan.results,
        [at(0, 0), at(0, 1), at(1, 0), at(2, 0), at(0, 2)]
    );
    assert_eq!((plan.tokens, plan.choices()), (3, 5));
    assert_eq!(plan.rows_saved(), 1);
    assert_eq!(plan.host_index(3), Some(2));
    assert_eq!(plan.host_index(0), None);
}

#[test]
fn rows_that_stay_at_home_save_nothing() {
    assert_eq!(hand_plan(1, wide(4)).rows_saved(), 0);
    assert_eq!(hand_plan(2, wide(4)).rows_saved(), 1);
}

#[test]
fn chunks_are_cut_where_the_next_row_would_not_fit() {
    let table = HostTable::from_endpoints(vec![1], 2);
    let offsets: Vec<u32> = (0..=5).collect();
    let kept = crate::Kept {
        offsets: &offsets,
        targets: &[0; 5],
        weights: &[1.0; 5],
    };
    // Exactly two rows with a choice each fit.
    let row_bytes = 400;
    let chunk_bytes = encoded_len(4, 2 * row_bytes);
    let cut = |chunk_bytes| {
        let limits = Limits {
            row_bytes,
            chunk_bytes,
            row_per_choice: false,
        };
        let plan = ShardPlan::new(0, kept, &table, limits);
        let sizes: Vec<usize> = plan
            .host(0)
            .chunks
            .iter()
            .map(|chunk| chunk.rows.len())
            .collect();
        sizes
    };
    assert_eq!(cut(chunk_bytes), [2, 2, 1]);
    assert_eq!(cut(chunk_bytes - 1), [1; 5]);
    assert_eq!(cut(0), [1; 5], "a row that fits nowhere goes alone");
    assert_eq!(cut(1 << 20), [5]);
}

/// Of many tokens with two choices each; the last of the experts is free, and some have a wave.
fn large_plan(seed: u32) -> ShardPlan {
    const TOKENS: u32 = 70_000;
    let table = HostTable::from_endpoints(vec![1, 2, 2], 3).with_free(1);
    let offsets: Vec<u32> = (0..=TOKENS).map(|token| 2 * token).collect();
    let target = |choice: u32| Target {
        expert: (choice.wrapping_mul(seed) >> 7) % 4,
        replica: 0,
        wave: u8::from(choice.is_multiple_of(5)),
    };
    let targets: Vec<u32> = (0..2 * TOKENS).map(|at| target(at).pack()).collect();
    let kept = crate::Kept {
        offsets: &offsets,
        targets: &targets,
        weights: &vec![1.0; targets.len()],
    };
    ShardPlan::new(0, kept, &table, wide(4))
}

#[test]
fn what_a_plan_leaves_in_its_memory_shows_in_no_other() {
    let (first, other) = (large_plan(0x9e37_79b1), large_plan(0x85eb_ca6b));
    assert!(first != other);
    drop(other);
    assert!(large_plan(0x9e37_79b1) == first);
}

#[test]
fn memory_that_was_given_back_is_taken_again() {
    // An element type that no test beside this one takes so many of.
    let mut array: Vec<ResultAt> = crate::spare::take(3_000_000);
    array[7] = ResultAt { chunk: 5, row: 6 };
    let place = array.as_ptr();
    crate::spare::give(&mut array);
    assert_eq!(array.capacity(), 0);
    let again: Vec<ResultAt> = crate::spare::take(2_900_000);
    assert_eq!(
        (again.as_ptr(), again.len(), again[7].row),
        (place, 2_900_000, 6)
    );
}

#[test]
fn results_bound_a_chunk_as_requests_do() {
    // One row for three experts: its results are three rows.
    let table = HostTable::from_endpoints(vec![1; 3], 2);
    let kept = crate::Kept {
        offsets: &[0, 3, 6],
        targets: &[0, 1, 2, 2, 1, 0],
        weights: &[1.0; 6],
    };
    let row_bytes = 100;
    let fits = Limits {
        row_bytes,
        chunk_bytes: encoded_len(0, 6 * row_bytes),
        row_per_choice: false,
    };
    let plan = ShardPlan::new(0, kept, &table, fits);
    assert_eq!(plan.hosts[0].chunks.len(), 1);
    let short = Limits {
        row_bytes,
        chunk_bytes: encoded_len(0, 6 * row_bytes) - 1,
        row_per_choice: false,
    };
    let plan = ShardPlan::new(0, kept, &table, short);
    assert_eq!(plan.hosts[0].chunks.len(), 2);
    assert_eq!(plan.results[4], ResultAt { chunk: 1, row: 1 });
}

#[test]
fn only_choices_to_be_computed_are_kept() {
    let route = Route {
        tokens: 3,
        top_k: 2,
        offsets: None,
        experts_total: 4,
        logits: Vec::new(),
        experts: vec![0, 1, 2, 3, 1, 0],
        weights: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        padding: None,
    };
    let admission = Admission {
        fates: vec![
            Fate::Dropped,
            Fate::Computed,
            Fate::Skipped,
            Fate::Lost,
            Fate::Rerouted,
            Fate::Computed,
        ],
        ..Admission::default()
    };
    let kept = KeptChoices::new(&route, &admission, 0..3);
    assert_eq!(kept.offsets, [0, 1, 1, 3]);
    assert_eq!(kept.targets, [1, 1, 0]);
    assert_eq!(kept.weights, [2.0, 5.0, 6.0]);
    assert_eq!(kept.origin, [1, 4, 5]);
    let tail = KeptChoices::new(&route, &admission, 2..3);
    assert_eq!(
        (tail.offsets.as_slice(), tail.origin.as_slice()),
        ([0, 2].as_slice(), [4, 5].as_slice())
    );
    let moved = Admission {
        executed: Some(vec![0, 3, 0, 0, 2, 0]),
        weights: Some(vec![0.0, 0.5, 0.0, 0.0, 0.25, 1.0]),
        replicas: Some(vec![0, 0, 0, 0, 1, 0]),
        waves: Some(vec![0, 0, 0, 0, 0, 2]),
        ..admission
    };
    let kept = KeptChoices::new(&route, &moved, 0..3);
    let targets: Vec<Target> = kept
        .targets
        .iter()
        .map(|word| Target::unpack(*word))
        .collect();
    let target = |expert, replica, wave| Target {
        expert,
        replica,
        wave,
    };
    assert_eq!(targets, [target(3, 0, 0), target(2, 1, 0), target(0, 0, 2)]);
    assert_eq!(kept.weights, [0.5, 0.25, 1.0]);
}

/// Two tokens and two hosts that both hold expert 1; expert 2 is free.
fn moved_plan(row_per_choice: bool) -> ShardPlan {
    let table = HostTable::from_replicas([vec![1], vec![2, 1]], 3).with_free(1);
    let target = |expert, replica, wave| {
        let target = Target {
            expert,
            replica,
            wave,
        };
        target.pack()
    };
    let targets = [
        target(0, 0, 0),
        target(1, 1, 0),
        target(2, 0, 0),
        target(0, 0, 1),
        target(1, 0, 1),
    ];
    let kept = crate::Kept {
        offsets: &[0, 3, 5],
        targets: &targets,
        weights: &[1.0; 5],
    };
    let limits = Limits {
        row_bytes: 4,
        chunk_bytes: 1 << 20,
        row_per_choice,
    };
    ShardPlan::new(0, kept, &table, limits)
}

#[test]
fn replicas_waves_and_free_experts_have_their_places() {
    let plan = moved_plan(false);
    let own = OwnChoice {
        token: 0,
        expert: 2,
    };
    assert_eq!(plan.own, [own]);
    let first = plan.host(0);
    assert_eq!((first.endpoint, first.tokens), (1, [0, 1].as_slice()));
    assert_eq!(
        first.experts,
        [0, 1, 0],
        "the second replica of expert 1 is here"
    );
    let waves: Vec<u8> = first.chunks.iter().map(|chunk| chunk.wave).collect();
    assert_eq!(waves, [0, 1], "a wave has chunks of its own");
    let second = plan.host(1);
    assert_eq!((second.endpoint, second.chunks[0].wave), (2, 1));
    let at = |chunk, row| ResultAt { chunk, row };
    assert_eq!(
        plan.results,
        [at(0, 0), at(0, 1), at(OWN, 0), at(1, 0), at(2, 0)]
    );
    let one_each = ShardPlan::first_chunks(std::slice::from_ref(&plan), 3, 4);
    assert_eq!(
        one_each,
        [0, 1, 0],
        "a later wave is not among the first chunks"
    );
    assert_eq!(
        moved_plan(true).host(0).tokens,
        [0, 0, 1],
        "a row for each choice"
    );
}

proptest! {
    #[test]
    fn a_target_is_its_word(expert in 0u32..1 << 18, replica in 0u8..64, wave: u8) {
        let target = Target { expert, replica, wave };
        prop_assert_eq!(Target::unpack(target.pack()), target);
    }
}

#[test]
fn hosts_are_the_primaries_of_a_placement() {
    let placement = Placement::from_table(vec![vec![2, 0], vec![0]], 3).unwrap();
    let table = HostTable::new(&placement);
    assert_eq!(
        (table.host(0), table.host(1), table.host(2)),
        (Some(3), Some(1), None)
    );
    assert_eq!((table.experts(), table.endpoints()), (2, 4));
}

proptest! {
    #[test]
    fn shares_are_even_and_in_order(tokens in 0..500usize, homes in 1..12usize) {
        let ranges = shard_ranges(tokens, homes);
        prop_assert_eq!(ranges.len(), homes);
        prop_assert_eq!((ranges[0].start, ranges[homes - 1].end), (0, tokens));
        for pair in ranges.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
        }
        let longest = ranges.iter().map(ExactSizeIterator::len).max().unwrap();
        let shortest = ranges.iter().map(ExactSizeIterator::len).min().unwrap();
        prop_assert!(longest - shortest <= 1);
    }

    /// Every kept choice is asked for once, where its expert is, and its result is found again.
    #[test]
    fn every_choice_is_planned_once(
        tokens in prop::collection::vec(prop::sample::subsequence(vec![0u32, 1, 2, 3], 0..=4), 0..20),
        home in 0..4u32,
        chunk_bytes in prop_oneof![Just(0), 200..600usize, Just(1 << 20)],
    ) {
        let mut offsets = vec![0];
        for token in &tokens {
            offsets.push(offsets.last().unwrap() + u32::try_from(token.len()).unwrap());
        }
        let experts: Vec<u32> = tokens.iter().flatten().copied().collect();
        let weights = vec![1.0; experts.len()];
        let kept = crate::Kept { offsets: &offsets, targets: &experts, weights: &weights };
        let limits = Limits { row_bytes: 32, chunk_bytes, row_per_choice: false, };
        let plan = ShardPlan::new(home, kept, &table(), limits);
        let mut seen = BTreeMap::new();
        let mut pieces = 0;
        for at in 0..plan.hosts.len() {
            let host = plan.host(at);
            prop_assert_eq!(plan.hosts[at].chunks.clone(), pieces..pieces + host.chunks.len());
            prop_assert!(!host.chunks.is_empty());
            prop_assert!(host.tokens.is_sorted() && host.tokens.windows(2).all(|two| two[0] != two[1]));
            prop_assert_eq!(host.offsets.len(), host.tokens.len() + 1);
            let mut rows = 0;
            for (chunk, piece) in (pieces..).zip(host.chunks) {
                prop_assert_eq!(piece.rows.start, rows);
                rows = piece.rows.end;
                let (n, choices) = (piece.rows.len(), piece.choices.len());
                let longest = encoded_len(n + choices, n * 32).max(encoded_len(0, choices * 32));
                prop_assert!(n == 1 || longest <= chunk_bytes);
                for (row, choice) in piece.choices.clone().enumerate() {
                    let kept = host.kept[choice] as usize;
                    prop_assert_eq!(host.experts[choice], experts[kept]);
                    prop_assert_eq!(table().host(experts[kept]), Some(host.endpoint));
                    let narrow = |value: usize| u32::try_from(value).unwrap();
                    let place = ResultAt { chunk: narrow(chunk), row: narrow(row) };
                    prop_assert_eq!(plan.results[kept], place);
                    prop_assert!(seen.insert(kept, ()).is_none());
                }
            }
            prop_assert_eq!(rows, host.tokens.len());
            pieces += host.chunks.len();
        }
        prop_assert_eq!(seen.len(), experts.len());
    }
}

#[test]
fn a_shard_without_choices_has_no_hosts() {
    let plan = ShardPlan::new(
        0,
        crate::Kept {
            offsets: &[0, 0, 0],
            targets: &[],
            weights: &[],
        },
        &table(),
        wide(4),
    );
    assert!(plan.hosts.is_empty());
    assert_eq!((plan.tokens, plan.choices()), (2, 0));
    assert_eq!(HAND.offsets.len(), 4);
}
