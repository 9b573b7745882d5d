//! What a worker makes of rows to be passed on, and of rows that were, when they lie.

use bytes::Bytes;
use expertmesh_kernels::Format;
use expertmesh_testkit::{Node, inputs};
use expertmesh_transport::WorkerClient;
use expertmesh_wire::{ErrorCode, FrameKind, FrameView, Header, protocol_version, v1};

use super::{HIDDEN, LIMIT, Raw, Rows, SESSION, framed, options, sentence, spec, tag};
use crate::common::small;

/// The home: alone in the other group.
const HOME: u32 = 3;

/// Worker 1 of three, in a group with worker 2; worker 1 has experts 0 to 3, worker 2 the others.
async fn configured() -> Node {
    let node = spec().worker("worker-0");
    let client = WorkerClient::connect(&node.addr(), &options())
        .await
        .unwrap();
    let endpoint = |id: u32| v1::Endpoint {
        id,
        name: format!("endpoint-{id}"),
        address: String::new(),
    };
    let request = v1::ConfigureRequest {
        protocol: Some(protocol_version()),
        session: SESSION,
        epoch: 0,
        endpoint: 1,
        endpoints: (0..4).map(endpoint).collect(),
        exchange: v1::ExchangeKind::Hierarchical.into(),
        model: Some(small(Format::F32).wire),
        placement: (0..8)
            .map(|expert| v1::Replicas {
                endpoints: vec![1 + expert / 4],
            })
            .collect(),
        wire_dtype: v1::NumberFormat::F32.into(),
        on_loss: v1::OnLoss::Fail.into(),
        chunk_bytes: (LIMIT / 2) as u64,
        credits: 4,
        groups: vec![0, 0, 1],
    };
    client.configure(request).await.unwrap();
    node
}

/// Three rows: the first two for worker 1, the last two for worker 2.
fn honest() -> Rows {
    let mut header = Header::new(FrameKind::Relay, tag(), HIDDEN, Format::F32);
    header.tag.shard = HOME;
    header.row_count = 3;
    header.budget_ns = 1_000_000_000;
    Rows {
        header,
        // Two parts: endpoint, chunk, extent, rows, choices.
        counts: vec![2, 1, 7, 1, 2, 3, 2, 8, 1, 2, 2],
        // Numbers, counts, experts, twice.
        experts: vec![0, 1, 1, 2, 3, 0, 2, 1, 2, 1, 1, 4, 5],
        x: inputs(8, 3, 64, Format::F32),
    }
}

fn changed(change: impl FnOnce(&mut Rows)) -> Bytes {
    let mut rows = honest();
    change(&mut rows);
    rows.message()
}

/// An honest frame: the worker's own rows are answered, and the others it cannot pass on.
async fn serves(raw: &mut Raw) {
    raw.send(honest().message());
    let frames: [FrameView; 2] = [raw.frame().await, raw.frame().await];
    let of = |kind| {
        frames
            .iter()
            .find(|frame| frame.header.kind == kind)
            .unwrap()
    };
    let results = of(FrameKind::Results);
    assert_eq!((results.header.tag.chunk, results.header.row_count), (7, 3));
    let error = expertmesh_wire::RemoteError::decode(&of(FrameKind::Error).rows);
    assert_eq!(
        (error.code, error.endpoint),
        (ErrorCode::WorkerLost, Some(2))
    );
    sentence(
        &error.message,
        &["endpoint-1 could not pass rows on to endpoint-2"],
    );
}

#[tokio::test]
async fn relays_that_lie_are_refused_and_the_worker_serves_on() {
    let node = configured().await;
    let mut raw = Raw::open(&node, HOME).await;
    serves(&mut raw).await;
    let lies: Vec<(Bytes, &[&str])> = vec![
        (
            changed(|rows| rows.counts.clear()),
            &["13 words", "more than the lists"],
        ),
        (
            changed(|rows| (rows.counts, rows.experts) = (vec![], vec![])),
            &["0 words, no count"],
        ),
        (
            changed(|rows| rows.counts[0] = 3),
            &["too few for the lists"],
        ),
        (changed(|rows| rows.counts[0] = 1), &["more than the lists"]),
        (changed(|rows| rows.counts[0] = 0), &["more than the lists"]),
        (
            changed(|rows| rows.counts[0] = u32::MAX),
            &["too few for the heads"],
        ),
        (
            changed(|rows| rows.counts[4] = u32::MAX),
            &["too few for the lists"],
        ),
        (
            changed(|rows| rows.counts[10] = 3),
            &["too few for the lists"],
        ),
        (
            changed(|rows| rows.experts.push(1)),
            &["more than the lists"],
        ),
        (
            changed(|rows| rows.counts[6] = 1),
            &["part for endpoint 1", "ascending"],
        ),
        (
            changed(|rows| rows.counts[6] = HOME),
            &["part for endpoint 3", "group"],
        ),
        (
            changed(|rows| rows.counts[6] = 9),
            &["part for endpoint 9", "group"],
        ),
        (
            changed(|rows| rows.counts[1] = 0),
            &["part for endpoint 0", "group"],
        ),
        (
            changed(|rows| {
                rows.counts.splice(6.., [2, 8, 1, 0, 0]);
                rows.experts.truncate(7);
            }),
            &["no rows for endpoint 2"],
        ),
        (
            changed(|rows| rows.experts[1] = 3),
            &["row 3", "row numbers"],
        ),
        (
            changed(|rows| rows.experts[1] = u32::MAX),
            &["row 4294967295"],
        ),
        (
            changed(|rows| rows.experts[1] = 0),
            &["row 0", "ascending in a part"],
        ),
        (
            changed(|rows| rows.experts[7..9].copy_from_slice(&[0, 1])),
            &["row 2 for nobody"],
        ),
        (
            changed(|rows| rows.experts[2] = 0),
            &["a row for no expert"],
        ),
        (
            changed(|rows| rows.experts[2] = 2),
            &["counts of 4 choices and 3 experts"],
        ),
        (
            changed(|rows| rows.experts[3] = u32::MAX),
            &["counts of", "3 experts"],
        ),
        (
            changed(|rows| rows.experts[4] = 4),
            &["expert 4 at endpoint 1"],
        ),
        (
            changed(|rows| rows.experts[11] = 3),
            &["expert 3 at endpoint 2"],
        ),
        (
            changed(|rows| rows.experts[11] = u32::MAX),
            &["expert 4294967295"],
        ),
        (changed(|rows| rows.experts[6] = 0), &["expert 0 twice"]),
        (
            changed(|rows| rows.header.tag.shard = 2),
            &["`shard` holds 2", "endpoint 3"],
        ),
        (
            changed(|rows| (rows.header.hidden, rows.x) = (32, inputs(1, 3, 32, Format::F32))),
            &["`hidden`", "32", "64"],
        ),
        (
            changed(|rows| rows.header.row_count = 4),
            &["`rows` holds 768 bytes", "1024"],
        ),
        (
            changed(|rows| rows.header.format = Format::Bf16),
            &["`format` holds bf16"],
        ),
        (
            changed(|rows| rows.header.tag.session = 1),
            &["`session` holds 0x1"],
        ),
        (
            framed(b"these bytes are no frame"),
            &["not a protobuf message"],
        ),
    ];
    for (message, says) in lies {
        let error = raw.error(message).await;
        assert_eq!(error.code, ErrorCode::BadFrame, "{error}");
        assert_eq!(error.endpoint, Some(1), "{error}");
        sentence(&error.message, says);
        serves(&mut raw).await;
    }
}

#[tokio::test]
async fn only_a_worker_of_another_group_has_rows_passed_on() {
    let node = configured().await;
    // The worker's neighbour, itself, the coordinator.
    for from in [2, 1, 0] {
        let mut raw = Raw::open(&node, from).await;
        let error = raw
            .error(changed(|rows| rows.header.tag.shard = from))
            .await;
        sentence(&error.message, &["`shard`", "a worker of another group"]);
    }
}

#[tokio::test]
async fn nothing_is_passed_on_without_groups() {
    let node = super::configured().await;
    let mut raw = Raw::open(&node, 2).await;
    let error = raw.error(changed(|rows| rows.header.tag.shard = 2)).await;
    sentence(&error.message, &["`kind` holds RELAY", "without groups"]);
}

/// Rows that the worker's neighbour passes on are answered to their home, and only there.
#[tokio::test]
async fn rows_that_were_passed_on_are_answered_to_their_home() {
    let node = configured().await;
    let mut neighbour = Raw::open(&node, 2).await;
    let rows = |shard| {
        let mut rows = super::honest();
        rows.header.tag.shard = shard;
        rows
    };
    // A home that is not connected, of this group, the coordinator, nobody.
    for shard in [HOME, 1, 0, 9, u32::MAX] {
        let error = neighbour.error(rows(shard).message()).await;
        sentence(
            &error.message,
            &["`shard` holds", "a home of another group"],
        );
    }
    let mut home = Raw::open(&node, HOME).await;
    neighbour.send(rows(HOME).message());
    let results = home.frame().await;
    assert_eq!(results.header.kind, FrameKind::Results);
    assert_eq!(results.header.tag.shard, HOME);
    // So is what is wrong with them.
    let mut wrong = rows(HOME);
    wrong.experts[0] = 4;
    neighbour.send(wrong.message());
    let error = home.frame().await;
    assert_eq!(error.header.kind, FrameKind::Error);
    // Its own rows are answered to the neighbour, as ever.
    neighbour.send(rows(2).message());
    let results = neighbour.frame().await;
    assert_eq!(
        (results.header.kind, results.header.tag.shard),
        (FrameKind::Results, 2)
    );
    // A home has no worker of its own group in between, nor one of another.
    let error = home.error(rows(2).message()).await;
    sentence(&error.message, &["`shard` holds 2"]);
}

#[tokio::test]
async fn groups_that_do_not_fit_are_refused() {
    let node = spec().worker("worker-0");
    let client = WorkerClient::connect(&node.addr(), &options())
        .await
        .unwrap();
    let endpoint = |id: u32| v1::Endpoint {
        id,
        ..v1::Endpoint::default()
    };
    let request = |exchange: v1::ExchangeKind, groups: &[u32]| v1::ConfigureRequest {
        protocol: Some(protocol_version()),
        session: SESSION,
        endpoint: 1,
        endpoints: (0..3).map(endpoint).collect(),
        exchange: exchange.into(),
        model: Some(small(Format::F32).wire),
        placement: vec![v1::Replicas { endpoints: vec![1] }; 8],
        wire_dtype: v1::NumberFormat::F32.into(),
        chunk_bytes: (LIMIT / 2) as u64,
        credits: 4,
        groups: groups.to_vec(),
        ..v1::ConfigureRequest::default()
    };
    let kinds = v1::ExchangeKind::Hierarchical;
    for (request, says) in [
        (request(kinds, &[]), "0 entries"),
        (request(kinds, &[0, 0, 0]), "3 entries"),
        (request(kinds, &[0, 2]), "worker 1 in group 2"),
        (request(v1::ExchangeKind::AllToAll, &[0, 1]), "2 entries"),
    ] {
        let error = client.configure(request).await.unwrap_err();
        sentence(&error.to_string(), &["groups", says]);
    }
}
