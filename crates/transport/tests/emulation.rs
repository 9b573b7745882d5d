//! Emulated links between ends of one process. Bounds from below hold on any machine; how close
//! real processes come is `benches/emulation.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use common::{Server, closed, echo, framed, message, open, payload, probe, soon, start};
use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::{
    CloseReason, Emulation, LinkOptions, Outbox, PortWords, ProbePlan, RemoteError, StreamAcceptor,
    StreamHello, StreamSink, TransportError, monotonic_ns, open_stream,
};
use tokio::sync::mpsc;

const LINK: &str = "
[[host]]
count = 8
[tier.rack]
latency = \"2 ms\"
bandwidth = \"1 Gbit/s\"
";

/// Ends of one emulated network.
struct Network {
    fabric: Fabric,
    words: PortWords,
}

/// Tells when messages arrive.
struct Stopwatch(mpsc::UnboundedSender<(u64, usize)>);

/// Keeps the way back open, whose end would end the stream.
struct Stop(mpsc::UnboundedSender<(u64, usize)>, Outbox);

// === impl Network ===

impl Network {
    fn new(topology: &str, number: u64) -> Self {
        let topology = Topology::parse(topology, "test.toml").unwrap();
        let fabric = Fabric::new(&topology, 8).unwrap();
        let words: Vec<AtomicU64> = (0..Emulation::words_for(&fabric))
            .map(|at| AtomicU64::new(if at == 0 { number } else { 0 }))
            .collect();
        Self {
            fabric,
            words: Arc::new(words),
        }
    }

    fn options(&self, endpoint: u32) -> LinkOptions {
        let words = Arc::clone(&self.words);
        LinkOptions {
            emulation: Some(Emulation::new(self.fabric.clone(), endpoint, words).unwrap()),
            ..LinkOptions::default()
        }
    }

    /// A worker that tells when messages arrive.
    fn stopwatch(&self, endpoint: u32) -> (Server, mpsc::UnboundedReceiver<(u64, usize)>) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let server = start(&self.options(endpoint), Arc::new(Stopwatch(sender)));
        (server, arrivals)
    }
}

impl StreamAcceptor for Stopwatch {
    fn accept(&self, _: StreamHello, outbox: Outbox) -> Result<Box<dyn StreamSink>, RemoteError> {
        Ok(Box::new(Stop(self.0.clone(), outbox)))
    }
}

impl StreamSink for Stop {
    fn on_message(&mut self, message: Bytes) {
        let _ = self.0.send((monotonic_ns(), message.len()));
    }

    fn on_close(&mut self, _: CloseReason) {
        self.1.finish();
    }
}

#[tokio::test]
async fn a_message_takes_its_latency_and_its_bytes() {
    let network = Network::new(LINK, 1);
    let (server, mut arrivals) = network.stopwatch(1);
    let (stream, _events) = open(&server.addr, &network.options(2)).await;
    for len in [1, 64 << 10, 1 << 20] {
        let message = framed(&payload(len, 1));
        let sent = monotonic_ns();
        stream.outbox().send(message).unwrap();
        let (arrived, _) = soon(arrivals.recv()).await.unwrap();
        let least = network.fabric.path(2, 1).idle_ns(len as u64 + 5);
        assert!(least >= 2_000_000 + 8 * len as u64);
        assert!(
            arrived - sent >= least,
            "{len} bytes in {} of {least} ns",
            arrived - sent
        );
    }
}

#[tokio::test]
async fn four_senders_queue_at_the_port_of_one_receiver() {
    let network = Network::new(LINK, 2);
    let (server, mut arrivals) = network.stopwatch(1);
    let mut streams = Vec::new();
    for endpoint in 2..6 {
        streams.push(open(&server.addr, &network.options(endpoint)).await);
    }
    let message = framed(&payload(1 << 20, 1));
    let sent = monotonic_ns();
    for (stream, _) in &streams {
        stream.outbox().send(message.clone()).unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..4 {
        times.push(soon(arrivals.recv()).await.unwrap().0 - sent);
    }
    let transfer = 8 * (1 << 20);
    for (time, turn) in times.iter().zip(1..) {
        assert!(*time >= 2_000_000 + turn * transfer, "{turn}: {times:?}");
    }
}

#[tokio::test]
async fn endpoints_of_a_host_share_its_port_on_the_way_out() {
    let text = LINK.replace("count = 8", "count = 4\nslots = 2");
    let network = Network::new(&text, 3);
    let (one, mut at_one) = network.stopwatch(1);
    let (other, mut at_other) = network.stopwatch(3);
    // Workers 5 and 6 sit on the third host, and send to different ones.
    let (left, _events) = open(&one.addr, &network.options(5)).await;
    let (right, _others) = open(&other.addr, &network.options(6)).await;
    let message = framed(&payload(1 << 20, 1));
    let sent = monotonic_ns();
    left.outbox().send(message.clone()).unwrap();
    right.outbox().send(message).unwrap();
    let times = [soon(at_one.recv()).await, soon(at_other.recv()).await];
    let last = times
        .map(|time| time.unwrap().0 - sent)
        .into_iter()
        .max()
        .unwrap();
    assert!(last >= 2_000_000 + 2 * 8 * (1 << 20), "{last}");
}

#[tokio::test]
async fn jitter_and_loss_keep_the_order_and_a_close_waits_for_what_is_under_way() {
    let text = format!("seed = 5\n{LINK}jitter = \"3 ms\"\nloss = \"1 %\"\n");
    let network = Network::new(&text, 4);
    let (server, mut closes) = echo(&network.options(1));
    let (stream, mut events) = open(&server.addr, &network.options(2)).await;
    for index in 0..50_u32 {
        stream.outbox().send(framed(&index.to_le_bytes())).unwrap();
    }
    let counters = Arc::clone(stream.counters());
    let closing = tokio::spawn(stream.close());
    for index in 0..50_u32 {
        assert_eq!(message(&mut events).await, index.to_le_bytes().as_slice());
    }
    assert_eq!(closed(&mut events).await, CloseReason::Finished);
    assert_eq!(soon(closes.recv()).await, Some(CloseReason::Finished));
    soon(closing).await.unwrap();
    // Stamps are no payload.
    let totals = counters.totals();
    assert_eq!((totals.messages_out, totals.messages_in), (50, 50));
    assert_eq!(
        (totals.message_bytes_out, totals.message_bytes_in),
        (450, 450)
    );
    assert!(totals.wire_bytes_out > 50 * (9 + 29), "{totals:?}");
}

#[tokio::test]
async fn a_peer_that_dies_is_heard_to_the_end() {
    let network = Network::new(&LINK.replace("2 ms", "100 ms"), 5);
    let (server, _closes) = echo(&network.options(1));
    let (stream, mut events) = open(&server.addr, &network.options(2)).await;
    stream.outbox().send(framed(b"ping")).unwrap();
    // The echo has left when the server has counted it, 100 ms before it arrives.
    assert_eq!(message(&mut events).await, b"ping".as_slice());
    stream.outbox().send(framed(b"last")).unwrap();
    let _ = server.stop.send(());
    soon(server.task).await.unwrap().unwrap();
    let CloseReason::Remote(error) = closed(&mut events).await else {
        panic!("expected the server's farewell");
    };
    assert!(error.message.contains("shutting down"), "{error}");
}

#[tokio::test]
async fn ends_that_do_not_emulate_the_same_network_refuse_each_other() {
    let network = Network::new(LINK, 6);
    let other = Network::new(LINK, 7);
    let real = LinkOptions::default();
    let (emulated, _closes) = echo(&network.options(1));
    let (plain, _others) = echo(&real);
    let one_sided = "one end has links of a topology and the other has real ones";
    let cases = [
        (&emulated.addr, real.clone(), one_sided),
        (&plain.addr, network.options(2), one_sided),
        (
            &emulated.addr,
            other.options(2),
            "the peer is in network 7, expected 6",
        ),
        (
            &emulated.addr,
            network.options(1),
            "the peer is endpoint 1, expected another of 9",
        ),
    ];
    for (addr, options, said) in cases {
        let (sink, _events) = probe();
        let opened = open_stream(addr, StreamHello::new(7, 3), &options, |_| sink).await;
        let error = opened.unwrap_err();
        let words = error.to_string();
        assert!(words.contains(said), "{words}, expected {said}");
        assert!(error.is_input(), "{words}");
    }
}

#[tokio::test]
async fn fabrics_that_cannot_be_emulated_are_refused() {
    let network = Network::new(LINK, 8);
    let refused = |text: &str, endpoint: u32| {
        let topology = Topology::parse(text, "test.toml").unwrap();
        let fabric = Fabric::new(&topology, 8).unwrap();
        let made = Emulation::new(fabric, endpoint, Arc::clone(&network.words));
        let Err(TransportError::Emulation { reason }) = made else {
            panic!("expected a refusal");
        };
        reason
    };
    let per_peer = format!("{LINK}per_peer = \"1 us\"\n");
    assert!(refused(&per_peer, 1).contains("`per_peer`"));
    assert!(refused(LINK, 9).contains("endpoint is 9"));
    assert!(refused(&LINK.replace("count = 8", "count = 99"), 1).contains("shared words"));
}

#[tokio::test]
async fn probes_time_both_directions_and_those_between_others() {
    let network = Network::new(LINK, 9);
    let (one, _closes) = echo(&network.options(1));
    let (other, _others) = echo(&network.options(2));
    let plan = ProbePlan {
        small_bytes: ProbePlan::SMALLEST,
        small_rounds: 2,
        large_bytes: 100_000,
        large_rounds: 1,
        pause: std::time::Duration::ZERO,
        bare: false,
    };
    let asker = network.options(0);
    let between = expertmesh_transport::probe_between(&one.addr, &other.addr, &asker, &plan);
    let direct = expertmesh_transport::probe(&one.addr, &asker, &plan);
    let (direct, between) = (soon(direct).await.unwrap(), soon(between).await.unwrap());
    // Worker 1 sits on the coordinator's host, whose links no [tier.host] describes.
    assert!(direct.there.small_ns > 0 && direct.back.large_ns > 0);
    assert!(
        asker
            .emulation
            .as_ref()
            .unwrap()
            .path(0, 1)
            .hops()
            .is_empty()
    );
    for way in [between.there, between.back] {
        assert!(way.small_ns >= 2_000_000, "{way:?}");
        assert!(way.large_ns >= 2_800_000, "{way:?}");
    }
    let gone = expertmesh_transport::probe_between(&one.addr, "127.0.0.1:1", &asker, &plan);
    let error = soon(gone).await.unwrap_err().to_string();
    assert!(error.contains("no one listens at 127.0.0.1:1"), "{error}");
}
