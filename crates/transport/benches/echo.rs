//! Round trips over one exchange stream between two processes, both on current-thread runtimes.
//!
//! `cargo bench -p expertmesh-transport --bench echo` prints the median of every size over several
//! restarts of the server, with the range: where the scheduler puts two processes changes small
//! round trips by a factor of four, and only a restart draws again.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a bench talks to its terminal"
)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use expertmesh_transport::{
    CloseReason, LinkOptions, Listener, Outbox, RemoteError, StreamAcceptor, StreamHello,
    StreamSink, WorkerControl, open_stream, serve_worker,
};
use expertmesh_wire::v1;
use tokio::sync::oneshot;

type Failure = Box<dyn std::error::Error>;

/// Payload bytes and round trips of one restart.
const LOADS: [(usize, usize); 4] = [
    (64, 4000),
    (4 << 10, 4000),
    (64 << 10, 2000),
    (1 << 20, 300),
];
const RESTARTS: usize = 7;
/// Set in the child: it serves.
const ROLE: &str = "EXPERTMESH_ECHO_SERVER";

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if std::env::var_os(ROLE).is_some() {
        return runtime.block_on(serve());
    }
    // Without `--bench`, which cargo bench gives, once is enough to see that it runs.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let restarts = if quick { 1 } else { RESTARTS };
    let mut medians: HashMap<usize, Vec<Duration>> = HashMap::new();
    for _ in 0..restarts {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut addr = String::new();
        let stdout = child.stdout.take().ok_or("the server has no output")?;
        BufReader::new(stdout).read_line(&mut addr)?;
        for (len, trips) in LOADS {
            let trips = if quick { 10 } else { trips };
            let median = runtime.block_on(ping(addr.trim(), len, trips))?;
            medians.entry(len).or_default().push(median);
        }
        // The server ends with its input.
        drop(child.stdin.take());
        child.wait()?;
    }
    for (len, _) in LOADS {
        let mut p50 = medians.remove(&len).unwrap_or_default();
        p50.sort_unstable();
        let us = |at: usize| p50.get(at).map_or(0.0, |p50| p50.as_secs_f64() * 1e6);
        let (low, mid, high) = (us(0), us(p50.len() / 2), us(p50.len().saturating_sub(1)));
        println!("{len:>8} B  p50 {mid:8.1} µs  [{low:.1}-{high:.1}] over {restarts} restarts");
    }
    Ok(())
}

// === the measuring side ===

/// Sends the next message from within the arrival of the last: no hop that is not the stream's.
struct Pinger {
    outbox: Outbox,
    ping: Bytes,
    sent: Instant,
    left: usize,
    trips: Vec<Duration>,
    done: Option<oneshot::Sender<Vec<Duration>>>,
}

async fn ping(addr: &str, len: usize, trips: usize) -> Result<Duration, Failure> {
    let warmup = trips / 5;
    let (done, result) = oneshot::channel();
    let message = framed(len)?;
    let (ping, hello) = (message.clone(), StreamHello::new(1, 0));
    let stream = open_stream(addr, hello, &LinkOptions::default(), |outbox| {
        let (left, sent) = (warmup + trips, Instant::now());
        Box::new(Pinger {
            outbox,
            ping,
            sent,
            left,
            trips: Vec::new(),
            done: Some(done),
        })
    })
    .await?;
    stream.outbox().send(message)?;
    let mut times = result.await?.split_off(warmup);
    stream.close().await;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

impl StreamSink for Pinger {
    fn on_message(&mut self, _: Bytes) {
        self.trips.push(self.sent.elapsed());
        self.left -= 1;
        if self.left > 0 {
            self.sent = Instant::now();
            let _ = self.outbox.send(self.ping.clone());
        } else if let Some(done) = self.done.take() {
            let _ = done.send(std::mem::take(&mut self.trips));
        }
    }

    fn on_close(&mut self, _: CloseReason) {}
}

fn framed(len: usize) -> Result<Bytes, Failure> {
    let mut message = BytesMut::with_capacity(5 + len);
    message.put_u8(0);
    message.put_u32(u32::try_from(len)?);
    message.put_bytes(7, len);
    Ok(message.freeze())
}

// === the serving side ===

/// Answers with as many bytes as it got, made once for every size.
struct Ponger {
    outbox: Outbox,
    pong: Bytes,
}

struct Acceptor;

struct NoControl;

async fn serve() -> Result<(), Failure> {
    let listener = Listener::bind("127.0.0.1:0", &LinkOptions::default())?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr())?;
    stdout.flush()?;
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lines().count();
        drop(stop);
    });
    let shutdown = async {
        let _ = stopped.await;
    };
    serve_worker(listener, Arc::new(NoControl), Arc::new(Acceptor), shutdown).await?;
    Ok(())
}

impl StreamAcceptor for Acceptor {
    fn accept(&self, _: StreamHello, outbox: Outbox) -> Result<Box<dyn StreamSink>, RemoteError> {
        Ok(Box::new(Ponger {
            outbox,
            pong: Bytes::new(),
        }))
    }
}

impl StreamSink for Ponger {
    fn on_message(&mut self, message: Bytes) {
        if self.pong.len() != 5 + message.len() {
            self.pong = framed(message.len()).unwrap_or_default();
        }
        let _ = self.outbox.send(self.pong.clone());
    }

    fn on_close(&mut self, _: CloseReason) {}
}

fn refuse<T>() -> Result<T, RemoteError> {
    Err(RemoteError::invalid("this server echoes only"))
}

impl WorkerControl for NoControl {
    async fn describe(&self, _: v1::DescribeRequest) -> Result<v1::DescribeReply, RemoteError> {
        refuse()
    }

    async fn configure(&self, _: v1::ConfigureRequest) -> Result<v1::ConfigureReply, RemoteError> {
        refuse()
    }

    async fn connect(&self, _: v1::ConnectRequest) -> Result<v1::ConnectReply, RemoteError> {
        refuse()
    }

    async fn release(&self, _: v1::ReleaseRequest) -> Result<v1::ReleaseReply, RemoteError> {
        refuse()
    }

    async fn traffic(&self, _: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        refuse()
    }
}
