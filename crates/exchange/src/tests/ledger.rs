use expertmesh_wire::encoded_len;

use super::{hand_plan, table, wide};
use crate::timeline::TIMELINE_WORDS;
use crate::{ExchangeKind, Kept, Limits, LinkCell, ShardPlan, TrafficLedger};

const ROW: usize = 16;

fn cell(messages: u64, rows: u64, bytes: usize) -> LinkCell {
    LinkCell {
        messages,
        rows,
        bytes: bytes as u64,
    }
}

#[test]
fn a_star_by_hand() {
    let plan = hand_plan(0, wide(4));
    let ledger = TrafficLedger::of_step(ExchangeKind::Star, &[plan], 4, wide(4), ROW);
    // ann: two rows for three choices; bob and cid: one for one.
    assert_eq!(ledger.cell(0, 1), cell(1, 2, encoded_len(5, 2 * ROW)));
    assert_eq!(ledger.cell(1, 0), cell(1, 3, encoded_len(0, 3 * ROW)));
    for bob in [2, 3] {
        assert_eq!(ledger.cell(0, bob), cell(1, 1, encoded_len(2, ROW)));
        assert_eq!(ledger.cell(bob, 0), cell(1, 1, encoded_len(0, ROW)));
    }
    assert_eq!(ledger.cell(1, 2), LinkCell::default());
    assert_eq!(ledger.local_bytes, 0);
    assert_eq!(ledger.saved_by_dedup_bytes, ROW as u64);
    assert_eq!(ledger.links().count(), 6);
    let total = ledger.total();
    assert_eq!((total.messages, total.rows), (6, 4 + 5));
    assert_eq!(ledger.requested(0, 1), encoded_len(5, 2 * ROW) as u64);
    assert_eq!(ledger.answered(0, 1), 0);
    assert_eq!(ledger.answered(1, 0), encoded_len(0, 3 * ROW) as u64);
    // 5 of prefix, 2 + 119 of header, and keys with lengths: the sizes of the wire are constants.
    assert_eq!(encoded_len(0, 0), 5 + 2 + 119 + 2 + 2);
}

#[test]
fn an_all_to_all_by_hand() {
    // The same tokens with ann as their home, bf16 rows, f32 outputs.
    let limits = Limits {
        row_bytes: 8,
        chunk_bytes: 1 << 20,
        row_per_choice: false,
    };
    let plan = hand_plan(1, limits);
    let idle = ShardPlan::new(
        2,
        Kept {
            offsets: &[0],
            targets: &[],
            weights: &[],
        },
        &table(),
        limits,
    );
    let ledger = TrafficLedger::of_step(ExchangeKind::AllToAll, &[plan, idle], 4, limits, ROW);
    // The shard: 3 counts, 5 experts, 5 weights, 4 extents and 3 rows; back: a timeline and 3
    // outputs.
    assert_eq!(ledger.cell(0, 1), cell(1, 3, encoded_len(17, 3 * 8)));
    assert_eq!(
        ledger.cell(1, 0),
        cell(1, 3, encoded_len(TIMELINE_WORDS, 3 * ROW))
    );
    assert_eq!(
        ledger.cell(0, 2),
        LinkCell::default(),
        "a shard of no tokens is not sent"
    );
    assert_eq!(ledger.cell(1, 2), cell(1, 1, encoded_len(2, 8)));
    assert_eq!(ledger.cell(2, 1), cell(1, 1, encoded_len(0, 8)));
    let local = encoded_len(5, 2 * 8) + encoded_len(0, 3 * 8);
    assert_eq!(
        ledger.local_bytes, local as u64,
        "rows at home never leave it"
    );
    assert_eq!(ledger.saved_by_dedup_bytes, 0);
}

#[test]
fn every_chunk_is_a_message() {
    let limits = Limits {
        row_bytes: ROW,
        chunk_bytes: 0,
        row_per_choice: false,
    };
    let plan = hand_plan(0, limits);
    let ledger = TrafficLedger::of_step(ExchangeKind::Star, &[plan], 4, limits, ROW);
    let there = encoded_len(3, ROW) + encoded_len(2, ROW);
    assert_eq!(ledger.cell(0, 1), cell(2, 2, there));
    assert_eq!(
        ledger.cell(1, 0),
        cell(2, 3, encoded_len(0, 2 * ROW) + encoded_len(0, ROW))
    );
}

#[test]
fn nothing_is_nothing() {
    let ledger = TrafficLedger::of_step(ExchangeKind::AllToAll, &[], 4, wide(4), ROW);
    assert_eq!(ledger, TrafficLedger::new(4));
    assert_eq!(ledger.total(), LinkCell::default());
    assert_eq!(ledger.endpoints(), 4);
}
