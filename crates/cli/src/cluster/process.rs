//! Child processes that live no longer than their group.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::cluster::network::Place;
use crate::cluster::ready::Ready;
use crate::cluster::tail::Tail;
use crate::error::Failure;

/// How long a child may take to end after SIGTERM. Its own grace for calls in flight is 2 s.
const STOP_GRACE: Duration = Duration::from_secs(4);
/// How long the last words of a child that ended may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One `expertmesh` process to start.
#[derive(Debug, Clone)]
pub(crate) struct ChildSpec {
    /// Name in messages.
    pub(crate) name: String,
    /// Command and flags, without `--die-with-parent`, which every child is given.
    pub(crate) args: Vec<OsString>,
    /// Network that it is to be in; `None` for that of this process.
    pub(crate) place: Option<Place>,
}

/// A child that ended.
#[derive(Debug)]
pub(crate) struct Exited {
    pub(crate) name: String,
    pub(crate) pid: u32,
    status: Option<ExitStatus>,
    last_words: Option<String>,
}

/// Children of this process, all stopped together.
///
/// Dropping it kills what still runs; [`ProcessGroup::stop`] asks first.
pub(crate) struct ProcessGroup {
    children: JoinSet<Exited>,
    /// One for each call of [`ProcessGroup::start`]: later children use earlier ones, so they are
    /// stopped first.
    stops: Vec<watch::Sender<bool>>,
}

/// A child that was started and has not said that it serves.
struct Starting {
    name: String,
    tail: Tail,
    ready: oneshot::Receiver<Ready>,
}

// === impl ProcessGroup ===

impl ProcessGroup {
    pub(crate) fn new() -> Self {
        Self {
            children: JoinSet::new(),
            stops: Vec::new(),
        }
    }

    /// Starts `specs` at the same time and waits until each has said that it serves.
    ///
    /// Must be called on the main thread (see [`crate::cluster`]).
    ///
    /// # Errors
    /// [`Failure`] naming the first child that could not be started, ended, or said nothing for
    /// `patience`; with the exit code and the last words of one that ended. Other children may be
    /// up then: stop the group.
    pub(crate) async fn start(
        &mut self,
        specs: Vec<ChildSpec>,
        patience: Duration,
    ) -> Result<Vec<Ready>, Failure> {
        let stop = watch::Sender::new(false);
        let starting: Result<Vec<_>, _> = specs
            .into_iter()
            .map(|spec| self.spawn(spec, stop.subscribe()))
            .collect();
        self.stops.push(stop);
        let starting = starting?;
        let limit = tokio::time::Instant::now() + patience;
        let mut ready = Vec::with_capacity(starting.len());
        for mut child in starting {
            let failure = match timeout_at(limit, &mut child.ready).await {
                Ok(Ok(line)) => {
                    child.tail.pass_on();
                    ready.push(line);
                    continue;
                }
                // Nothing more will come from it: it has ended, and its supervisor says how.
                Ok(Err(_)) => timeout_at(limit, self.exited()).await.ok(),
                Err(_) => None,
            };
            return Err(match failure {
                Some(exited) => exited.before_it_served(),
                None => child.was_silent(patience),
            });
        }
        Ok(ready)
    }

    /// The next child that ends by itself. Pending while all run.
    pub(crate) async fn exited(&mut self) -> Exited {
        loop {
            match self.children.join_next().await {
                Some(Ok(exited)) => return exited,
                // A supervisor neither panics nor is aborted while its group lives.
                Some(Err(error)) => tracing::error!(%error, "a supervisor ended"),
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// Ends every child: SIGTERM, a grace, SIGKILL; those that were started last come first.
    /// Returns when none is left.
    pub(crate) async fn stop(&mut self) {
        while let Some(stop) = self.stops.pop() {
            stop.send_replace(true);
            // Every supervisor lets go of it when its child has ended.
            stop.closed().await;
        }
        while self.children.join_next().await.is_some() {}
    }

    fn spawn(&mut self, spec: ChildSpec, stop: watch::Receiver<bool>) -> Result<Starting, Failure> {
        let ChildSpec { name, args, place } = spec;
        let refused = |error| Failure::run(format!("cannot start {name}: {error}"));
        let program = std::env::current_exe().map_err(refused)?;
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("--die-with-parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C goes to a terminal's whole foreground group: it is for the launcher, which
            // stops its children in good order.
            .process_group(0)
            .kill_on_drop(true);
        let spawned = match place {
            Some(place) => place.within(|| command.spawn())?,
            None => command.spawn(),
        };
        let mut child = spawned.map_err(refused)?;
        let tail = Tail::default();
        let words = child
            .stderr
            .take()
            .map(|stderr| tokio::spawn(tail.clone().follow(stderr)));
        let (announced, ready) = oneshot::channel();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read_ready(stdout, announced));
        }
        let supervisor = Supervisor {
            name: name.clone(),
            pid: child.id().unwrap_or(0),
            child,
            stop,
        };
        let last = tail.clone();
        self.children.spawn(async move {
            let mut exited = supervisor.watch().await;
            if let Some(words) = words {
                // Fails only if somebody else holds the pipe open; then the words so far count.
                let _ = tokio::time::timeout(LAST_WORDS, words).await;
            }
            exited.last_words = last.last_words();
            exited
        });
        Ok(Starting { name, tail, ready })
    }
}

// === impl Starting ===

impl Starting {
    fn was_silent(&self, patience: Duration) -> Failure {
        let words = self.tail.last_words();
        let words = words.map_or(String::new(), |words| format!("; it said: {words}"));
        let name = &self.name;
        Failure::run(format!("{name} did not come up within {patience:?}{words}"))
    }
}

/// Takes the ready line and lets go of everything else that a child prints.
async fn read_ready(stdout: ChildStdout, announced: oneshot::Sender<Ready>) {
    let mut lines = BufReader::new(stdout).lines();
    if let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            // Nobody waits any more if the start was given up.
            Ok(ready) => drop(announced.send(ready)),
            Err(error) => tracing::warn!(%error, line, "a child's first line is no ready line"),
        }
    }
    while let Ok(Some(_)) = lines.next_line().await {}
}

/// Owns one child until it has ended.
struct Supervisor {
    name: String,
    pid: u32,
    child: Child,
    stop: watch::Receiver<bool>,
}

// === impl Supervisor ===

impl Supervisor {
    async fn watch(mut self) -> Exited {
        let ended = tokio::select! {
            status = self.child.wait() => Some(status.ok()),
            // An error means that the group is gone, which is the same.
            _ = self.stop.wait_for(|stop| *stop) => None,
        };
        let status = match ended {
            Some(status) => status,
            None => self.terminate().await,
        };
        Exited {
            name: self.name,
            pid: self.pid,
            status,
            last_words: None,
        }
    }

    async fn terminate(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        // A stopped process takes no other signal than SIGKILL before it continues.
        self.signal(Signal::CONT);
        if let Ok(status) = tokio::time::timeout(STOP_GRACE, self.child.wait()).await {
            return status.ok();
        }
        tracing::warn!(
            name = self.name,
            pid = self.pid,
            "did not stop in time, killing it"
        );
        // Fails only if it has ended in the meantime.
        let _ = self.child.start_kill();
        self.child.wait().await.ok()
    }

    fn signal(&self, signal: Signal) {
        // No id: the child was waited for, and its number may be another process's by now.
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Fails only if it has ended in the meantime.
            let _ = kill_process(pid, signal);
        }
    }
}

// === impl Exited ===

impl Exited {
    /// "worker-1 (process 4711) was ended by signal 9".
    pub(crate) fn describe(&self) -> String {
        use std::os::unix::process::ExitStatusExt as _;
        let how = match self.status {
            None => "ended in a way that the system does not tell".to_owned(),
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("was ended by signal {signal}"),
                (None, code) => format!("ended with exit code {}", code.unwrap_or(0)),
            },
        };
        format!("{} (process {}) {how}", self.name, self.pid)
    }

    /// The failure of a run that needed it.
    pub(crate) fn during_the_run(&self) -> Failure {
        Failure::run(format!("{} while the cluster ran", self.describe()))
    }

    /// The failure of a start. What was wrong input to the child was so to its launcher.
    fn before_it_served(self) -> Failure {
        let is_input = self.status.and_then(|status| status.code()) == Some(2);
        let words = self.last_words.clone();
        match words {
            Some(words) => Failure::by_fault(is_input, format!("{}: {words}", self.name)),
            None => Failure::by_fault(is_input, format!("{} before it served", self.describe())),
        }
    }
}
