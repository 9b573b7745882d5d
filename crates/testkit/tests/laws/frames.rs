//! What a worker makes of frames that lie, and a coordinator of workers of another protocol.

mod relays;

use bytes::{BufMut as _, Bytes, BytesMut};
use expertmesh_exchange::ExchangeKind;
use expertmesh_kernels::{Format, encode_row};
use expertmesh_testkit::{Cluster, ClusterSpec, FakeWorker, Node, Parts, inputs, tensor};
use expertmesh_transport::{
    CloseReason, LinkOptions, StreamHandle, StreamHello, StreamSink, TransportError, WorkerClient,
    open_stream,
};
use expertmesh_wire::{
    BufferPool, ErrorCode, FrameKind, FrameView, FrameWriter, Header, RemoteError, Tag,
    protocol_version, v1,
};
use tokio::sync::mpsc;

use crate::common::{same_bits, small, soon};

const SESSION: u64 = 99;
const HIDDEN: u32 = 64;
/// The longest message that the worker takes.
const LIMIT: usize = 1 << 20;

#[derive(Debug)]
enum Event {
    Frame(FrameView),
    Closed(CloseReason),
}

struct Probe(mpsc::UnboundedSender<Event>);

impl StreamSink for Probe {
    fn on_message(&mut self, message: Bytes) {
        let _ = self.0.send(Event::Frame(FrameView::read(message).unwrap()));
    }

    fn on_close(&mut self, reason: CloseReason) {
        let _ = self.0.send(Event::Closed(reason));
    }
}

/// A raw stream to a real worker.
struct Raw {
    stream: StreamHandle,
    events: mpsc::UnboundedReceiver<Event>,
}

/// What is wrong with a ROWS frame, if anything.
#[derive(Clone)]
struct Rows {
    header: Header,
    counts: Vec<u32>,
    experts: Vec<u32>,
    x: Vec<f32>,
}

fn options() -> LinkOptions {
    LinkOptions {
        max_message_bytes: LIMIT,
        ..LinkOptions::default()
    }
}

fn spec() -> ClusterSpec {
    let mut spec = ClusterSpec::new(small(Format::F32), 2);
    spec.chunk_bytes = LIMIT / 2;
    spec.options = options();
    spec
}

/// A worker with the first half of the experts of [`spec`], configured by hand.
async fn configured() -> Node {
    let node = spec().worker("worker-0");
    let client = WorkerClient::connect(&node.addr(), &options())
        .await
        .unwrap();
    let endpoint = |id: u32, address: &str| v1::Endpoint {
        id,
        name: format!("endpoint-{id}"),
        address: address.to_owned(),
    };
    let placement = (0..8).map(|expert| v1::Replicas {
        endpoints: vec![1 + expert / 4],
    });
    let request = v1::ConfigureRequest {
        protocol: Some(protocol_version()),
        session: SESSION,
        epoch: 0,
        endpoint: 1,
        endpoints: vec![endpoint(0, ""), endpoint(1, &node.addr()), endpoint(2, "")],
        exchange: v1::ExchangeKind::Star.into(),
        model: Some(small(Format::F32).wire),
        placement: placement.collect(),
        wire_dtype: v1::NumberFormat::F32.into(),
        on_loss: v1::OnLoss::Fail.into(),
        chunk_bytes: (LIMIT / 2) as u64,
        credits: 4,
        groups: Vec::new(),
    };
    let reply = client.configure(request).await.unwrap();
    assert_eq!(reply.experts, 4);
    node
}

fn tag() -> Tag {
    Tag {
        session: SESSION,
        step: 5,
        ..Tag::default()
    }
}

/// Three rows with four choices.
fn honest() -> Rows {
    let mut header = Header::new(FrameKind::Rows, tag(), HIDDEN, Format::F32);
    header.row_count = 3;
    header.extent = 1;
    header.budget_ns = 1_000_000_000;
    Rows {
        header,
        counts: vec![1, 2, 1],
        experts: vec![3, 0, 2, 1],
        x: inputs(8, 3, 64, Format::F32),
    }
}

// === impl Rows ===

impl Rows {
    fn message(&self) -> Bytes {
        let words = self.counts.len() + self.experts.len();
        let bytes = self.header.format.bytes();
        let pool = BufferPool::default();
        let mut writer = FrameWriter::new(&pool, &self.header, words, self.x.len() * bytes);
        let (index, rows) = writer.parts();
        for (word, value) in index
            .chunks_exact_mut(4)
            .zip(self.counts.iter().chain(&self.experts))
        {
            word.copy_from_slice(&value.to_le_bytes());
        }
        encode_row(self.header.format, &self.x, rows);
        writer.finish()
    }
}

// === impl Raw ===

impl Raw {
    async fn open(node: &Node, endpoint: u32) -> Self {
        let hello = StreamHello::new(SESSION, endpoint);
        let (sender, events) = mpsc::unbounded_channel();
        let stream = open_stream(&node.addr(), hello, &options(), |_| Box::new(Probe(sender)))
            .await
            .unwrap();
        Self { stream, events }
    }

    fn send(&self, message: Bytes) {
        self.stream.outbox().send(message).unwrap();
    }

    async fn frame(&mut self) -> FrameView {
        match soon(self.events.recv()).await {
            Some(Event::Frame(frame)) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    async fn closed(&mut self) -> CloseReason {
        match soon(self.events.recv()).await {
            Some(Event::Closed(reason)) => reason,
            other => panic!("expected the end, got {other:?}"),
        }
    }

    async fn error(&mut self, message: Bytes) -> RemoteError {
        self.send(message);
        let frame = self.frame().await;
        assert_eq!(frame.header.kind, FrameKind::Error);
        RemoteError::decode(&frame.rows)
    }

    /// An honest frame gets the results that the experts give.
    async fn serves(&mut self) {
        let rows = honest();
        self.send(rows.message());
        let results = self.frame().await;
        assert_eq!(results.header.kind, FrameKind::Results);
        assert_eq!(results.header.row_count, 4);
        assert_eq!(results.header.tag, rows.header.tag);
        let parts = Parts::load(small(Format::F32).source.as_ref());
        let token_of = [0, 1, 1, 2];
        for (at, (expert, token)) in rows.experts.iter().zip(token_of).enumerate() {
            let (mut y, mut got) = (vec![0.0; 64], vec![0.0; 64]);
            let x = &rows.x[token * 64..(token + 1) * 64];
            let expert = &parts.experts[*expert as usize];
            expert.forward(x, &mut y, &mut Default::default()).unwrap();
            expertmesh_kernels::decode_row(Format::F32, results.row(at), &mut got);
            same_bits(&got, &y, "a result");
        }
    }
}

/// One clear sentence: lowercase, no period at its end, no debris of a debug format.
#[track_caller]
fn sentence(text: &str, says: &[&str]) {
    println!("{text}");
    for part in says {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
    assert!(
        !text.ends_with('.') && !text.contains('\n') && text.len() < 300,
        "{text}"
    );
    assert!(
        !text.contains("Error {") && !text.contains("Some("),
        "{text}"
    );
}

fn changed(change: impl FnOnce(&mut Rows)) -> Bytes {
    let mut rows = honest();
    change(&mut rows);
    rows.message()
}

#[tokio::test]
async fn frames_that_lie_are_refused_and_the_worker_serves_on() {
    let node = configured().await;
    let mut raw = Raw::open(&node, 0).await;
    raw.serves().await;
    let lies: Vec<(Bytes, &[&str])> = vec![
        (
            changed(|rows| rows.counts[1] = 3),
            &["counts of 5 choices and 4 experts"],
        ),
        (
            changed(|rows| rows.counts[0] = u32::MAX),
            &["counts of", "4 experts"],
        ),
        (
            changed(|rows| rows.experts[0] = 4),
            &["expert 4", "an expert of this worker"],
        ),
        (
            changed(|rows| rows.experts[0] = u32::MAX),
            &["expert 4294967295"],
        ),
        (changed(|rows| rows.experts[2] = 0), &["expert 0 twice"]),
        (
            changed(|rows| (rows.counts, rows.experts) = (vec![1, 0, 1], vec![3, 1])),
            &["a row for no expert"],
        ),
        (
            changed(|rows| (rows.counts, rows.experts) = (vec![1], vec![])),
            &["1 words", "each of 3 rows"],
        ),
        (
            changed(|rows| (rows.header.hidden, rows.x) = (32, inputs(1, 3, 32, Format::F32))),
            &["`hidden`", "32", "64"],
        ),
        (
            changed(|rows| (rows.header.row_count, rows.header.hidden) = (96, 2)),
            &["`hidden`", "2"],
        ),
        (
            changed(|rows| rows.header.row_count = 4),
            &["`rows` holds 768 bytes", "1024"],
        ),
        (
            changed(|rows| rows.header.row_count = u32::MAX),
            &["`rows` holds 768 bytes"],
        ),
        (
            changed(|rows| rows.header.hidden = u32::MAX),
            &["`rows` holds 768 bytes"],
        ),
        (
            changed(|rows| rows.header.format = Format::Bf16),
            &["`format` holds bf16, expected f32"],
        ),
        (
            changed(|rows| rows.header.tag.session = 1),
            &["`session` holds 0x1", "0x63"],
        ),
        (
            changed(|rows| rows.header.tag.epoch = 3),
            &["`epoch` holds 3, expected 0"],
        ),
        (
            changed(|rows| rows.header.kind = FrameKind::Results),
            &["`kind`", "RELAY"],
        ),
        (
            framed(b"these bytes are no frame"),
            &["not a protobuf message"],
        ),
        (framed(&[]), &["lacks `header`"]),
        (framed(&[0x0a, 0x00]), &["lacks `kind`"]),
    ];
    for (message, says) in lies {
        let error = raw.error(message).await;
        assert_eq!(error.code, ErrorCode::BadFrame, "{error}");
        assert_eq!(error.endpoint, Some(1), "{error}");
        sentence(&error.message, says);
        raw.serves().await;
    }
}

/// A shard's index is read by another reader than that of rows.
#[tokio::test]
async fn shards_that_lie_are_refused_and_the_worker_serves_on() {
    let node = configured().await;
    let mut raw = Raw::open(&node, 0).await;
    let weights = |count: usize| vec![1f32.to_bits(); count];
    // One for each endpoint.
    let extents = [0; 3];
    let shard = |counts: &[u32], experts: &[u32], weights: &[u32]| {
        let mut rows = honest();
        rows.header.kind = FrameKind::Shard;
        rows.counts = counts.to_vec();
        rows.experts = [experts, weights, &extents].concat();
        rows.message()
    };
    let lies: Vec<(Bytes, &[&str])> = vec![
        (
            shard(&[1, 2, 1], &[3, 0, 2, 1], &weights(3)),
            &["13 words", "3 extents"],
        ),
        (
            shard(&[1, 1, 1], &[3, 0, 2, 1], &weights(4)),
            &["counts of 3 choices and 4 experts"],
        ),
        (
            shard(&[1, 2, 1], &[3, 0, 8, 1], &weights(4)),
            &["expert 8", "placement of 8 experts"],
        ),
        (
            shard(&[1, 2, 1], &[3, 2, 2, 1], &weights(4)),
            &["expert 2 twice"],
        ),
        (
            shard(&[1, 2, 1], &[3, 0, 2, 1], &[f32::NAN.to_bits(), 0, 0, 0]),
            &["gate weight NaN"],
        ),
        (shard(&[1, 2], &[], &[]), &["5 words"]),
    ];
    for (message, says) in lies {
        let error = raw.error(message).await;
        assert_eq!(error.code, ErrorCode::BadFrame, "{error}");
        sentence(&error.message, says);
        raw.serves().await;
    }
}

fn framed(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap());
    message.extend_from_slice(payload);
    message.freeze()
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_its_stream_and_nothing_else() {
    let node = configured().await;
    let mut raw = Raw::open(&node, 0).await;
    let mut long = Raw::open(&node, 2).await;
    long.send(framed(&vec![0; LIMIT + 1]));
    let CloseReason::Remote(error) = long.closed().await else {
        panic!("expected the worker's refusal");
    };
    assert_eq!(error.code, ErrorCode::BadFrame);
    sentence(
        &error.message,
        &["1048577 bytes", "limit of 1048576", "max_message_bytes"],
    );
    raw.serves().await;
}

async fn refusal(node: &Node, hello: StreamHello) -> TransportError {
    let (sender, _events) = mpsc::unbounded_channel();
    open_stream(&node.addr(), hello, &options(), |_| Box::new(Probe(sender)))
        .await
        .expect_err("a refusal")
}

#[tokio::test]
async fn streams_of_strangers_are_refused() {
    let node = configured().await;
    let other = StreamHello {
        protocol_major: 9,
        protocol_minor: 4,
        ..StreamHello::new(SESSION, 0)
    };
    let refused = refusal(&node, other).await;
    assert!(
        matches!(refused, TransportError::Protocol { .. }),
        "{refused}"
    );
    let unknown = refusal(&node, StreamHello::new(1, 0)).await;
    sentence(&unknown.to_string(), &["session 0x1", "not configured"]);
    let nobody = refusal(&node, StreamHello::new(SESSION, 3)).await;
    sentence(&nobody.to_string(), &["endpoint 3", "session's 3"]);
    Raw::open(&node, 0).await.serves().await;
}

/// After all of it the worker takes part in a cluster like any other.
#[tokio::test]
async fn a_worker_that_was_lied_to_serves_a_normal_step() {
    let node = configured().await;
    let mut raw = Raw::open(&node, 0).await;
    raw.error(framed(b"nonsense")).await;
    raw.error(changed(|rows| rows.counts[1] = 9)).await;
    for exchange in ExchangeKind::ALL {
        let spec = spec().exchange(exchange);
        let other = spec.worker("worker-1");
        let coordinator = spec.connect(vec![node.addr(), other.addr()]).await.unwrap();
        let x = inputs(4, 20, 64, Format::F32);
        let step = coordinator.forward(tensor(&x, 64), None).await.unwrap();
        let parts = Parts::load(spec.model.source.as_ref());
        let expected = parts.forward(Format::F32, &x, &step.route, &step.admission);
        same_bits(step.output.as_slice().unwrap(), &expected, "a normal step");
    }
    raw.serves().await;
}

#[tokio::test]
async fn a_worker_of_another_protocol_is_refused_with_both_versions() {
    let fake = FakeWorker {
        protocol: (9, 4),
        ..FakeWorker::swallows()
    }
    .start();
    let spec = ClusterSpec::new(small(Format::F32), 2);
    let real = spec.worker("worker-0");
    let refused = spec.connect(vec![real.addr(), fake.addr()]).await;
    let Err(error) = refused else {
        panic!("a worker of protocol 9.4 was taken");
    };
    sentence(&error.to_string(), &["worker-1", "9.4", "1.0"]);
    assert!(error.is_input(), "{error}");
    // The healthy one is free for others.
    let alone = ClusterSpec::new(small(Format::F32), 1);
    let cluster = Cluster::of_nodes(&alone, vec![real]).await;
    assert_eq!(
        cluster.outputs(&inputs(1, 3, 64, Format::F32)).await.len(),
        3 * 64
    );
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let spec = ClusterSpec::new(small(Format::F32), 1);
    let node = spec.worker("worker-0");
    let addr = node.addr();
    node.kill();
    let Err(error) = spec.connect(vec![addr.clone()]).await else {
        panic!("nobody was reached");
    };
    sentence(&error.to_string(), &["worker-0", &addr, "no one listens"]);
}
