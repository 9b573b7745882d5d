//! What emulated links of 1 Gbit/s and 2 ms make of messages between processes.
//!
//! `cargo bench -p expertmesh-transport --bench emulation` sends 1 MiB from one process to another,
//! and from four processes into the port of one, and holds the medians against latency + size / rate
//! and latency + 4 · size / rate. It exits with 3 where one is off by more than 5 %.
#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a bench talks to its terminal"
)]

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use expertmesh_kernels::SharedWords;
use expertmesh_topology::{Fabric, Topology};
use expertmesh_transport::{
    CloseReason, Emulation, LinkOptions, Listener, Outbox, RemoteError, StreamAcceptor,
    StreamHello, StreamSink, WorkerControl, monotonic_ns, open_stream, serve_worker,
};
use expertmesh_wire::v1;
use tokio::io::AsyncBufReadExt as _;

type Failure = Box<dyn std::error::Error>;

const TOPOLOGY: &str = "
[[host]]
count = 5
[tier.rack]
latency = \"2 ms\"
bandwidth = \"1 Gbit/s\"
";
const WORKERS: usize = 5;
const RECEIVER: u32 = 1;
const SENDERS: std::ops::Range<u32> = 2..6;
/// Bytes of a message, its prefix included.
const BYTES: usize = 1 << 20;
const ROUNDS: usize = 41;
const TOLERANCE: f64 = 0.05;
/// From the order to the moment at which senders send.
const HEAD_START: u64 = 20_000_000;
/// Set in children: file of the shared words, endpoint, and the address to send to.
const ROLE: &str = "EXPERTMESH_EMULATION_BENCH";

fn main() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Ok(role) = std::env::var(ROLE) {
        let words: Vec<&str> = role.split(' ').collect();
        let [file, endpoint, addr] = words.as_slice() else {
            return Err(format!("{ROLE} holds {role}").into());
        };
        let options = options(Path::new(file), endpoint.parse()?)?;
        match addr.is_empty() {
            true => runtime.block_on(receive(&options))?,
            false => runtime.block_on(send(addr, &options))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Without `--bench`, which cargo bench gives, once is enough to see that it runs.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ports");
    let fabric = fabric()?;
    let needed = Emulation::words_for(&fabric);
    let shared = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&file)?;
    shared.set_len(8 * needed as u64)?;
    SharedWords::map(&shared, needed)?.as_ref()[0].store(1, Ordering::Release);

    let mut cluster = Cluster::start(&file)?;
    let rounds = if quick { 1 } else { ROUNDS };
    let mut missed = false;
    for (what, senders) in [("one sender", 1), ("four senders, one port", 4)] {
        let path = fabric.path(2, 1);
        let expected = path.idle_ns(senders * BYTES as u64) as f64;
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(cluster.round(senders)?);
        }
        times.sort_unstable();
        let at = |share: usize| times[share * (times.len() - 1) / 100] as f64;
        let off = at(50) / expected - 1.0;
        missed |= !quick && off.abs() > TOLERANCE;
        println!(
            "{what:<24} expected {:8.3} ms, median {:8.3} ms ({:+.2} %), p10 {:.3}, p90 {:.3} ms",
            expected / 1e6,
            at(50) / 1e6,
            100.0 * off,
            at(10) / 1e6,
            at(90) / 1e6,
        );
    }
    cluster.stop();
    Ok(ExitCode::from(if missed { 3 } else { 0 }))
}

fn fabric() -> Result<Fabric, Failure> {
    Ok(Fabric::new(
        &Topology::parse(TOPOLOGY, "bench.toml")?,
        WORKERS,
    )?)
}

fn options(file: &Path, endpoint: u32) -> Result<LinkOptions, Failure> {
    let fabric = fabric()?;
    let file = File::options().read(true).write(true).open(file)?;
    let words = SharedWords::map(&file, Emulation::words_for(&fabric))?;
    Ok(LinkOptions {
        emulation: Some(Emulation::new(fabric, endpoint, Arc::new(words))?),
        ..LinkOptions::default()
    })
}

// === the orchestrating side ===

struct Cluster {
    receiver: Child,
    arrivals: BufReader<ChildStdout>,
    senders: Vec<Child>,
}

impl Cluster {
    fn start(file: &Path) -> Result<Self, Failure> {
        let spawn = |endpoint: u32, addr: &str| {
            Command::new(std::env::current_exe()?)
                .env(ROLE, format!("{} {endpoint} {addr}", file.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        };
        let mut receiver = spawn(RECEIVER, "")?;
        let mut arrivals = BufReader::new(receiver.stdout.take().ok_or("no output")?);
        let addr = line(&mut arrivals)?;
        let mut senders = Vec::new();
        for endpoint in SENDERS {
            let mut sender = spawn(endpoint, &addr)?;
            // It says so when its stream is open.
            line(&mut BufReader::new(
                sender.stdout.take().ok_or("no output")?,
            ))?;
            senders.push(sender);
        }
        Ok(Self {
            receiver,
            arrivals,
            senders,
        })
    }

    /// Nanoseconds from the moment at which `senders` send to the last arrival.
    fn round(&mut self, senders: u64) -> Result<u64, Failure> {
        let at = monotonic_ns() + HEAD_START;
        let count = usize::try_from(senders)?;
        for sender in self.senders.iter_mut().take(count) {
            let input = sender.stdin.as_mut().ok_or("no input")?;
            writeln!(input, "{at}")?;
        }
        let mut last = 0;
        for _ in 0..senders {
            last = line(&mut self.arrivals)?.parse::<u64>()?.max(last);
        }
        Ok(last.saturating_sub(at))
    }

    /// Children end with their input.
    fn stop(mut self) {
        for child in self.senders.iter_mut().chain([&mut self.receiver]) {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn line(from: &mut impl std::io::BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Err("a child ended".into()),
        _ => Ok(line.trim().to_owned()),
    }
}

// === the sending side ===

struct Silent;

impl StreamSink for Silent {
    fn on_message(&mut self, _: Bytes) {}
    fn on_close(&mut self, _: CloseReason) {}
}

/// Sends one message at each moment that a line of its input names.
async fn send(addr: &str, options: &LinkOptions) -> Result<(), Failure> {
    let hello = StreamHello::new(1, 1);
    let stream = open_stream(addr, hello, options, |_| Box::new(Silent)).await?;
    println!("open");
    let mut message = BytesMut::with_capacity(BYTES);
    message.put_u8(0);
    message.put_u32(u32::try_from(BYTES - 5)?);
    message.put_bytes(7, BYTES - 5);
    let message = message.freeze();
    let mut orders = tokio::io::BufReader::new(input()?).lines();
    while let Some(order) = orders.next_line().await? {
        let at: u64 = order.parse()?;
        let left = at.saturating_sub(monotonic_ns() + 2_000_000);
        tokio::time::sleep(Duration::from_nanos(left)).await;
        while monotonic_ns() < at {
            std::hint::spin_loop();
        }
        stream.outbox().send(message.clone())?;
    }
    stream.close().await;
    Ok(())
}

/// Standard input as a pipe of the runtime.
fn input() -> std::io::Result<tokio::net::unix::pipe::Receiver> {
    let file = File::open("/proc/self/fd/0")?;
    tokio::net::unix::pipe::Receiver::from_file(file)
}

// === the receiving side ===

struct Tell;

struct TellSink(Outbox);

impl StreamAcceptor for Tell {
    fn accept(&self, _: StreamHello, outbox: Outbox) -> Result<Box<dyn StreamSink>, RemoteError> {
        Ok(Box::new(TellSink(outbox)))
    }
}

impl StreamSink for TellSink {
    fn on_message(&mut self, _: Bytes) {
        println!("{}", monotonic_ns());
    }

    fn on_close(&mut self, _: CloseReason) {
        self.0.finish();
    }
}

struct NoControl;

impl WorkerControl for NoControl {
    async fn describe(&self, _: v1::DescribeRequest) -> Result<v1::DescribeReply, RemoteError> {
        Ok(v1::DescribeReply::default())
    }
    async fn configure(&self, _: v1::ConfigureRequest) -> Result<v1::ConfigureReply, RemoteError> {
        Ok(v1::ConfigureReply::default())
    }
    async fn connect(&self, _: v1::ConnectRequest) -> Result<v1::ConnectReply, RemoteError> {
        Ok(v1::ConnectReply::default())
    }
    async fn release(&self, _: v1::ReleaseRequest) -> Result<v1::ReleaseReply, RemoteError> {
        Ok(v1::ReleaseReply::default())
    }
    async fn traffic(&self, _: v1::TrafficRequest) -> Result<v1::TrafficReply, RemoteError> {
        Ok(v1::TrafficReply::default())
    }
}

async fn receive(options: &LinkOptions) -> Result<(), Failure> {
    let listener = Listener::bind("127.0.0.1:0", options)?;
    println!("{}", listener.local_addr());
    let ended = async {
        let mut lines = match input() {
            Ok(input) => tokio::io::BufReader::new(input).lines(),
            Err(_) => return,
        };
        while let Ok(Some(_)) = lines.next_line().await {}
    };
    serve_worker(listener, Arc::new(NoControl), Arc::new(Tell), ended).await?;
    Ok(())
}
