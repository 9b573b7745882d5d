//! Processes that are waited for without sleeping.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::LIMIT;

/// A running `expertmesh`, killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process, identified beyond the reuse of its number.
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: Pid,
    handle: OwnedFd,
}

// === impl Running ===

impl Running {
    /// Starts `expertmesh` with `args`, logging at `info`.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_expertmesh"))
            .args(args)
            .env("EXPERTMESH_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The first line of stderr that contains `words`.
    #[track_caller]
    pub(crate) fn stderr_line(&mut self, words: &str) -> String {
        line(&mut self.stderr, words)
    }

    /// The first line of stdout that contains `words`.
    #[track_caller]
    pub(crate) fn stdout_line(&mut self, words: &str) -> String {
        line(&mut self.stdout, words)
    }

    /// The processes that it started and that still run, by name.
    pub(crate) fn children(&self) -> Vec<Watched> {
        processes_of(self.pid())
    }

    /// Waits for its end and reads what is left of its output.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let watched = Watched::new("launcher".to_owned(), self.pid()).unwrap();
        assert!(watched.is_gone_within(LIMIT), "it does not end");
        let status = self.child.wait().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ended {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed; its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn line(from: &mut impl BufRead, words: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap() == 0 {
            panic!("no {words:?} in {seen}");
        }
        if line.contains(words) {
            return line;
        }
        seen.push_str(&line);
    }
}

// === impl Watched ===

impl Watched {
    /// `None` if there is no such process any more.
    fn new(name: String, pid: Pid) -> Option<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { name, pid, handle })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for its end, which the kernel reports on its descriptor.
    pub(crate) fn is_gone_within(&self, limit: Duration) -> bool {
        let mut ends = [PollFd::new(&self.handle, PollFlags::IN)];
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match poll(&mut ends, Some(&Timespec::try_from(left).unwrap())) {
                Ok(ready) => return ready == 1,
                // A child of another test ended.
                Err(Errno::INTR) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Every process that was told to die with `parent`, whoever its parent is now.
pub(crate) fn processes_of(parent: Pid) -> Vec<Watched> {
    let marker = parent.as_raw_nonzero().to_string();
    let mut found: Vec<Watched> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|number| {
            let line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
            let line = String::from_utf8(line).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            let after = |flag| {
                let at = words.iter().position(|word| *word == flag)?;
                words.get(at + 1).copied()
            };
            (after("--die-with-parent") == Some(marker.as_str())).then_some(())?;
            Watched::new(after("--name")?.to_owned(), Pid::from_raw(number)?)
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Fails if any of `processes` outlives a generous deadline.
#[track_caller]
pub(crate) fn all_gone(processes: &[Watched]) {
    for process in processes {
        assert!(
            process.is_gone_within(LIMIT),
            "{} (process {}) is left behind",
            process.name,
            process.pid.as_raw_nonzero()
        );
    }
}
