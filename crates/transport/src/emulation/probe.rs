//! Holding emulated links against what was asked for: messages there and back, timed one way.
//!
//! A probe is a stream like others, answered by the transport itself. Both ends read one clock, so
//! that each direction has a time of its own.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use expertmesh_wire::{ErrorCode, GRPC_PREFIX, RemoteError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::emulation::link::Shaping;
use crate::error::{CloseReason, TransportError};
use crate::open::{StreamHandle, open_shaped};
use crate::options::LinkOptions;
use crate::protocol::StreamHello;
use crate::stream::{Outbox, StreamSink};
use crate::watchdog::monotonic_ns;

/// What a probe sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePlan {
    /// Bytes of a small message, its prefix included; at least [`ProbePlan::SMALLEST`].
    pub small_bytes: u32,
    /// How often it is sent each way.
    pub small_rounds: u32,
    /// Bytes of a large message.
    pub large_bytes: u32,
    /// How often it is sent each way.
    pub large_rounds: u32,
    /// Idle time before each message: a machine that slept takes longer to hear one.
    pub pause: Duration,
    /// Whether the machine below is probed, and not the emulated link.
    pub bare: bool,
}

/// Times of one direction, from hand-over to delivery: the median over the rounds, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OneWay {
    /// Of the small message.
    pub small_ns: u64,
    /// Of the large one.
    pub large_ns: u64,
}

/// Both directions of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probed {
    /// From the one who probes.
    pub there: OneWay,
    /// To the one who probes.
    pub back: OneWay,
}

const PING: u64 = 1;
const PONG: u64 = 2;
const ASK: u64 = 3;
const ANSWER: u64 = 4;
const REFUSAL: u64 = 5;

/// What arrived, and when.
type Arrivals = UnboundedReceiver<(u64, Bytes)>;

struct Arrive(UnboundedSender<(u64, Bytes)>);

/// The answering end of a probe.
pub(crate) struct ProbeSink {
    outbox: Outbox,
    options: LinkOptions,
}

/// Probes the link to the worker at `addr`; `options` hold the emulation.
///
/// # Errors
/// As [`crate::open_stream`]; [`TransportError::Deadline`] if an answer takes longer than
/// `options.call_timeout`.
pub async fn probe(
    addr: &str,
    options: &LinkOptions,
    plan: &ProbePlan,
) -> Result<Probed, TransportError> {
    let shaping = if plan.bare {
        Shaping::Bare
    } else {
        Shaping::Quiet
    };
    let mut talk = Talk::open(addr, options, shaping).await?;
    let mut there = [Vec::new(), Vec::new()];
    let mut back = [Vec::new(), Vec::new()];
    let (small, large) = (plan.small_bytes, plan.large_bytes);
    // The first message of a stream finds nothing warm.
    talk.ping(small, small).await?;
    for _ in 0..plan.small_rounds {
        talk.rest(plan.pause).await;
        let (out, home) = talk.ping(small, small).await?;
        there[0].push(out);
        back[0].push(home);
    }
    for _ in 0..plan.large_rounds {
        talk.rest(plan.pause).await;
        there[1].push(talk.ping(large, small).await?.0);
        back[1].push(talk.ping(small, large).await?.1);
    }
    talk.stream.close().await;
    let [there_small, there_large] = there.map(median);
    let [back_small, back_large] = back.map(median);
    Ok(Probed {
        there: OneWay {
            small_ns: there_small,
            large_ns: there_large,
        },
        back: OneWay {
            small_ns: back_small,
            large_ns: back_large,
        },
    })
}

/// Has the worker at `addr` probe its link to the worker at `peer`.
///
/// # Errors
/// As [`probe`], with what the worker says of its own probe.
pub async fn probe_between(
    addr: &str,
    peer: &str,
    options: &LinkOptions,
    plan: &ProbePlan,
) -> Result<Probed, TransportError> {
    let mut talk = Talk::open(addr, options, Shaping::Bare).await?;
    let mut words = BytesMut::new();
    let fields = [
        plan.small_bytes,
        plan.small_rounds,
        plan.large_bytes,
        plan.large_rounds,
    ];
    words.put_u64_le(ASK);
    fields.iter().for_each(|field| words.put_u32_le(*field));
    words.put_u64_le(u64::try_from(plan.pause.as_nanos()).unwrap_or(u64::MAX));
    words.put_u8(u8::from(plan.bare));
    words.extend_from_slice(peer.as_bytes());
    talk.send(&words)?;
    let (_, mut answer) = talk.next().await?;
    let mut word = || answer.try_get_u64_le().unwrap_or(0);
    let probed = match word() {
        ANSWER => {
            let mut way = || OneWay {
                small_ns: word(),
                large_ns: word(),
            };
            let (there, back) = (way(), way());
            Ok(Probed { there, back })
        }
        _ => {
            let reason = String::from_utf8_lossy(&answer).into_owned();
            Err(RemoteError::new(ErrorCode::Internal, reason).into())
        }
    };
    talk.stream.close().await;
    probed
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

/// `payload` as a message, filled up with zeros to `bytes`.
fn framed(payload: &[u8], bytes: usize) -> Bytes {
    let length = payload.len().max(bytes.saturating_sub(GRPC_PREFIX));
    let mut message = BytesMut::with_capacity(GRPC_PREFIX + length);
    message.put_u8(0);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.extend_from_slice(payload);
    message.put_bytes(0, length - payload.len());
    message.freeze()
}

fn words(words: [u64; 3]) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The asking end of a probe.
struct Talk {
    stream: StreamHandle,
    arrivals: Arrivals,
    addr: String,
    patience: Duration,
}

// === impl ProbePlan ===

impl ProbePlan {
    /// Bytes of the smallest message that holds what a probe says.
    pub const SMALLEST: u32 = 64;
}

// === impl Talk ===

impl Talk {
    async fn open(
        addr: &str,
        options: &LinkOptions,
        shaping: Shaping,
    ) -> Result<Self, TransportError> {
        let Some(emulation) = &options.emulation else {
            return Err(TransportError::Emulation {
                reason: "nothing to probe, expected options with an emulated network".to_owned(),
            });
        };
        let (sender, arrivals) = unbounded_channel();
        let hello = StreamHello::new(0, emulation.endpoint());
        let sink = |_| Box::new(Arrive(sender)) as Box<dyn StreamSink>;
        Ok(Self {
            stream: open_shaped(addr, hello, options, shaping, sink).await?,
            arrivals,
            addr: addr.to_owned(),
            patience: options.call_timeout,
        })
    }

    async fn rest(&self, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// One message of `out` bytes there and one of `home` bytes back: the time of each.
    async fn ping(&mut self, out: u32, home: u32) -> Result<(u64, u64), TransportError> {
        let message = framed(&words([PING, home.into(), 0]), out as usize);
        let sent_ns = monotonic_ns();
        self.hand_over(message)?;
        let (arrived_ns, mut pong) = self.next().await?;
        let mut word = || pong.try_get_u64_le().unwrap_or(0);
        let (_, received_ns, answered_ns) = (word(), word(), word());
        let out_ns = received_ns.saturating_sub(sent_ns);
        Ok((out_ns, arrived_ns.saturating_sub(answered_ns)))
    }

    fn send(&self, payload: &[u8]) -> Result<(), TransportError> {
        self.hand_over(framed(payload, 0))
    }

    fn hand_over(&self, message: Bytes) -> Result<(), TransportError> {
        self.stream
            .outbox()
            .send(message)
            .map_err(|_| self.closed())
    }

    async fn next(&mut self) -> Result<(u64, Bytes), TransportError> {
        let arrived = tokio::time::timeout(self.patience, self.arrivals.recv());
        match arrived.await {
            Ok(Some(arrived)) => Ok(arrived),
            Ok(None) => Err(self.closed()),
            Err(_) => Err(TransportError::Deadline {
                addr: self.addr.clone(),
                waited: self.patience,
            }),
        }
    }

    fn closed(&self) -> TransportError {
        TransportError::Closed {
            addr: self.addr.clone(),
            reason: "the stream of a probe ended".to_owned(),
        }
    }
}

// === impl Arrive ===

impl StreamSink for Arrive {
    fn on_message(&mut self, message: Bytes) {
        // Nobody waits any more: the probe was given up.
        let _ = self.0.send((monotonic_ns(), message));
    }

    fn on_close(&mut self, reason: CloseReason) {
        tracing::debug!(%reason, "stream of a probe ended");
    }
}

// === impl ProbeSink ===

impl ProbeSink {
    pub(crate) fn boxed(outbox: Outbox, options: &LinkOptions) -> Box<dyn StreamSink> {
        Box::new(Self {
            outbox,
            options: options.clone(),
        })
    }

    /// Probes a peer in a task of its own, and answers when it is done.
    fn ask(&self, mut rest: Bytes) {
        let mut field = || rest.try_get_u32_le().unwrap_or(0);
        let mut plan = ProbePlan {
            small_bytes: field(),
            small_rounds: field(),
            large_bytes: field(),
            large_rounds: field(),
            pause: Duration::ZERO,
            bare: false,
        };
        plan.pause = Duration::from_nanos(rest.try_get_u64_le().unwrap_or(0));
        plan.bare = rest.try_get_u8().unwrap_or(0) == 1;
        let peer = String::from_utf8_lossy(&rest).into_owned();
        let (outbox, options) = (self.outbox.clone(), self.options.clone());
        tokio::spawn(async move {
            let mut said = BytesMut::new();
            match probe(&peer, &options, &plan).await {
                Ok(Probed { there, back }) => {
                    let times = [there.small_ns, there.large_ns, back.small_ns, back.large_ns];
                    said.put_u64_le(ANSWER);
                    times.iter().for_each(|time| said.put_u64_le(*time));
                }
                Err(error) => {
                    said.put_u64_le(REFUSAL);
                    said.extend_from_slice(error.to_string().as_bytes());
                }
            }
            // Refused if the asker is gone, who then wants no answer.
            let _ = outbox.send(framed(&said, 0));
        });
    }
}

impl StreamSink for ProbeSink {
    fn on_message(&mut self, mut message: Bytes) {
        let received_ns = monotonic_ns();
        match message.try_get_u64_le() {
            Ok(PING) => {
                let wanted = message.try_get_u64_le().unwrap_or(0);
                let limit = self.options.max_message_bytes;
                let wanted = usize::try_from(wanted).map_or(limit, |wanted| wanted.min(limit));
                let mut pong = BytesMut::from(framed(&[0; 24], wanted).as_ref());
                let answer = words([PONG, received_ns, monotonic_ns()]);
                pong[GRPC_PREFIX..][..answer.len()].copy_from_slice(&answer);
                let _ = self.outbox.send(pong.freeze());
            }
            Ok(ASK) => self.ask(message),
            _ => tracing::debug!("a probe said something else than a probe says"),
        }
    }

    fn on_close(&mut self, reason: CloseReason) {
        tracing::debug!(%reason, "probe ended");
    }
}
