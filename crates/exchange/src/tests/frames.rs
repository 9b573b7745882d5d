//! Frames that are written are read again; frames that anyone could send never panic.

use bytes::Bytes;
use expertmesh_kernels::Format;
use expertmesh_wire::{
    BufferPool, ErrorCode, FrameKind, FrameView, FrameWriter, Header, RemoteError, WireError,
};
use proptest::prelude::*;

use super::{HAND, read, table, tag};
use crate::{
    CombinedFrame, Kept, RowsJob, ShardFrame, Timeline, error_frame, write_combined, write_shard,
};

const HIDDEN: u32 = 3;
/// Chunks for each endpoint of the hand table.
const EXTENTS: [u32; 4] = [0, 1, 2, 3];

fn header(kind: FrameKind, format: Format) -> Header {
    Header::new(kind, tag(), HIDDEN, format)
}

fn x() -> Vec<f32> {
    (0..9u8).map(f32::from).collect()
}

fn shard(kept: Kept<'_>, format: Format) -> Bytes {
    let header = header(FrameKind::Shard, format);
    write_shard(&BufferPool::default(), header, &x(), kept, &EXTENTS, || {
        (11, 22)
    })
}

fn combined(line: &Timeline, lost: &[u32]) -> Bytes {
    let mut header = header(FrameKind::Combined, Format::F32);
    header.row_count = 3;
    write_combined(&BufferPool::default(), header, &x(), line, lost, || 33)
}

fn rows(counts: &[u32], experts: &[u32]) -> Bytes {
    let mut header = header(FrameKind::Rows, Format::F32);
    header.row_count = 3;
    let words = counts.len() + experts.len();
    let mut writer = FrameWriter::new(&BufferPool::default(), &header, words, 3 * 12);
    let (index, _) = writer.parts();
    for (word, value) in index.chunks_exact_mut(4).zip(counts.iter().chain(experts)) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    writer.finish()
}

fn line() -> Timeline {
    Timeline {
        critical: 2,
        packed: 1,
        received: 2,
        started: 3,
        computed: 4,
        arrived: 5,
        done: 6,
        ..Timeline::default()
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T, WireError>, says: &str) {
    match outcome {
        Ok(_) => panic!("taken, expected: {says}"),
        Err(error) => assert!(error.to_string().contains(says), "{error}"),
    }
}

#[test]
fn a_shard_is_read_as_it_was_written() {
    for format in [Format::F32, Format::Bf16] {
        let frame = read(shard(HAND, format));
        assert_eq!((frame.header.row_count, frame.header.tag), (3, tag()));
        assert_eq!(
            (frame.header.times.sent_ns, frame.header.budget_ns),
            (11, 22)
        );
        let shard = ShardFrame::read(frame, HIDDEN, &table()).unwrap();
        let kept = shard.kept();
        assert_eq!(
            (kept.offsets, kept.targets, kept.weights),
            (HAND.offsets, HAND.targets, HAND.weights)
        );
        let mut row = [0.0; 3];
        expertmesh_kernels::decode_row(format, shard.frame.row(2), &mut row);
        assert_eq!(row, [6.0, 7.0, 8.0]);
    }
}

#[test]
fn outputs_are_read_as_they_were_written() {
    let frame = read(combined(&line(), &[4, 0]));
    assert_eq!(frame.header.times.sent_ns, 33);
    let combined = CombinedFrame::read(frame, 3, 5, HIDDEN, Format::F32).unwrap();
    assert_eq!(
        (combined.timeline, combined.lost.as_slice()),
        (line(), [4, 0].as_slice())
    );
    let mut out = [0.0; 6];
    combined.outputs(1..3, &mut out);
    assert_eq!(out, [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
}

#[test]
fn an_empty_shard_is_a_frame_too() {
    let kept = Kept {
        offsets: &[0],
        targets: &[],
        weights: &[],
    };
    let frame = read(shard(kept, Format::F32));
    let shard = ShardFrame::read(frame, HIDDEN, &table()).unwrap();
    assert_eq!(
        (shard.offsets.as_slice(), shard.targets.len()),
        ([0].as_slice(), 0)
    );
}

#[test]
fn shards_that_lie_are_refused() {
    let with = |targets, weights| Kept {
        offsets: HAND.offsets,
        targets,
        weights,
    };
    let read_shard = |message| ShardFrame::read(read(message), HIDDEN, &table());
    let frame = read(shard(HAND, Format::F32));
    refused(
        ShardFrame::read(frame, 4, &table()),
        "`hidden` holds 3, expected 4, the layer's",
    );
    let unknown = shard(with(&[2, 0, 4, 3, 0], HAND.weights), Format::F32);
    refused(
        read_shard(unknown),
        "replica 0 of expert 4, expected one that the placement of 4 experts has",
    );
    let twice = shard(with(&[2, 0, 2, 3, 0], HAND.weights), Format::F32);
    refused(read_shard(twice), "expert 2 twice for one row");
    let endless = shard(
        with(HAND.targets, &[1.0, f32::INFINITY, 1.0, 1.0, 1.0]),
        Format::F32,
    );
    refused(
        read_shard(endless),
        "gate weight inf, expected a finite number",
    );
    let kept = Kept {
        offsets: &[0, 3, 3, 9],
        ..HAND
    };
    refused(
        read_shard(shard(kept, Format::F32)),
        "counts of 9 choices and 5 experts",
    );
}

#[test]
fn outputs_that_lie_are_refused() {
    let good = || read(combined(&line(), &[4]));
    let read = |frame, tokens, choices, hidden| {
        CombinedFrame::read(frame, tokens, choices, hidden, Format::F32)
    };
    refused(
        read(good(), 2, 5, HIDDEN),
        "`row_count` holds 3, expected 2, the shard's",
    );
    refused(
        read(good(), 3, 5, 4),
        "`hidden` holds 3 f32, expected 4 f32",
    );
    refused(
        read(good(), 3, 4, HIDDEN),
        "lost choice 4, expected one of the shard's 4",
    );
    let other = CombinedFrame::read(good(), 3, 5, HIDDEN, Format::Bf16);
    refused(other, "`hidden` holds 3 f32, expected 3 bf16");
    let backwards = Timeline {
        packed: 9,
        ..line()
    };
    let frame = super::read(combined(&backwards, &[]));
    refused(read(frame, 3, 5, HIDDEN), "a timeline out of order");
    let mut short = good();
    short.index.truncate(80);
    refused(
        read(short, 3, 5, HIDDEN),
        "80 bytes, expected at least 96 bytes of timeline",
    );
}

#[test]
fn rows_are_read_as_they_were_written() {
    let job = RowsJob::read(read(rows(&[1, 2, 1], &[3, 0, 2, 3])), HIDDEN, |_| true).unwrap();
    assert_eq!(
        (job.offsets.as_slice(), job.experts.as_slice()),
        ([0, 1, 3, 4].as_slice(), [3, 0, 2, 3].as_slice())
    );
    assert_eq!(job.choices(), 4);
    let results = read(job.results(&BufferPool::default()).finish());
    assert_eq!(
        (results.header.kind, results.header.row_count),
        (FrameKind::Results, 4)
    );
    assert_eq!((results.header.tag, results.rows.len()), (tag(), 48));
}

#[test]
fn rows_that_lie_are_refused() {
    let read_rows = |message| RowsJob::read(read(message), HIDDEN, |expert| expert < 4);
    refused(
        read_rows(rows(&[1, 1, 1], &[0])),
        "counts of 3 choices and 1 experts",
    );
    refused(read_rows(rows(&[1, 0, 1], &[0, 1])), "a row for no expert");
    refused(read_rows(rows(&[1, 1], &[])), "2 words");
    refused(read_rows(rows(&[1, 1, 1], &[0, 1, 4])), "expert 4");
    refused(
        read_rows(rows(&[1, 3, 1], &[0, 1, 2, 1, 0])),
        "expert 1 twice",
    );
    refused(
        read_rows(rows(&[u32::MAX, u32::MAX, 3], &[0])),
        "counts of 8589934593 choices",
    );
    let other = RowsJob::read(read(rows(&[1, 1, 1], &[0, 1, 2])), 4, |_| true);
    refused(other, "`hidden` holds 3, expected 4, the layer's");
}

/// A short request for one row must not make a host lay out a million result rows.
#[test]
fn a_row_cannot_ask_for_one_expert_a_million_times() {
    let experts = vec![0; 1_000_000];
    let message = rows(&[999_998, 1, 1], &experts);
    refused(
        RowsJob::read(read(message), HIDDEN, |expert| expert == 0),
        "expert 0 twice",
    );
}

#[test]
fn an_error_answers_its_request() {
    let request = read(rows(&[1, 1, 1], &[0, 1, 2])).header;
    let error = RemoteError::new(ErrorCode::Internal, "out of luck").about(2);
    let frame = read(error_frame(&BufferPool::default(), &request, &error));
    assert_eq!(frame.header.kind, FrameKind::Error);
    assert_eq!((frame.header.tag, frame.header.row_count), (request.tag, 0));
    assert_eq!(RemoteError::decode(&frame.rows), error);
}

/// Changes bytes, cuts the end off, or both; the prefix goes.
fn mutated(message: &Bytes, changes: &[(prop::sample::Index, u8)], cut: usize) -> Bytes {
    let mut bytes = message.slice(expertmesh_wire::GRPC_PREFIX..).to_vec();
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes.truncate(bytes.len() - cut.min(bytes.len()));
    bytes.into()
}

fn read_all(message: &Bytes) {
    let Ok(frame) = FrameView::read(message.clone()) else {
        return;
    };
    let hidden = frame.header.hidden;
    for hidden in [hidden, HIDDEN] {
        if let Ok(job) = RowsJob::read(frame.clone(), hidden, |expert| expert < 4) {
            assert_eq!(
                job.offsets.last().copied(),
                u32::try_from(job.choices()).ok()
            );
        }
        if let Ok(shard) = ShardFrame::read(frame.clone(), hidden, &table()) {
            let limits = super::wide(3);
            let plan = crate::ShardPlan::new(1, shard.kept(), &table(), limits);
            assert_eq!(plan.choices(), shard.targets.len());
        }
        let tokens = frame.header.row_count as usize;
        let format = frame.header.format;
        if let Ok(combined) = CombinedFrame::read(frame.clone(), tokens, 5, hidden, format) {
            assert!(combined.timeline.is_ordered());
            assert!(combined.lost.iter().all(|lost| *lost < 5));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn mutations_never_panic(
        which in 0..3usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop_oneof![3 => Just(0usize), 1 => 0..200usize],
    ) {
        let message = match which {
            0 => shard(HAND, Format::F32),
            1 => combined(&line(), &[1, 2]),
            _ => rows(&[1, 2, 1], &[3, 0, 2, 3]),
        };
        read_all(&mutated(&message, &changes, cut));
    }

    /// Words that look like an index, which changed bytes seldom do.
    #[test]
    fn any_index_never_panics(words in prop::collection::vec(prop_oneof![0..5u32, any::<u32>()], 0..20)) {
        read_all(&rows(&words, &[]).slice(expertmesh_wire::GRPC_PREFIX..));
    }

    #[test]
    fn any_shard_survives_the_way(
        tokens in prop::collection::vec(prop::sample::subsequence(vec![0u32, 1, 2, 3], 0..=4), 0..3),
        weight in -4.0..4.0f32,
    ) {
        let mut offsets = vec![0];
        for token in &tokens {
            offsets.push(offsets.last().unwrap() + u32::try_from(token.len()).unwrap());
        }
        let experts: Vec<u32> = tokens.concat();
        let weights = vec![weight; experts.len()];
        let kept = Kept { offsets: &offsets, targets: &experts, weights: &weights };
        let shard = ShardFrame::read(read(shard(kept, Format::F32)), HIDDEN, &table()).unwrap();
        prop_assert_eq!((shard.offsets, shard.targets, shard.weights), (offsets, experts, weights));
    }
}
