//! Threads on the cores of their hosts.
//!
//! A host has as many servers as cores. A thread that has work takes a free one; where none is,
//! threads that do I/O go first and may take the core of a thread that computes, as a scheduler
//! grants it to whoever has slept. A thread that has had a core for a slice gives it to the next
//! that waits. What a thread does is unknown here.

use std::collections::VecDeque;

use crate::costs::whole;

/// How often work that others slow down is looked at, and the shortest time between two looks.
const LOOKS: u64 = 8;
const SHORTEST_LOOK_NS: u64 = 100_000;

/// All hosts' cores and their threads.
#[derive(Debug)]
pub(crate) struct Cpus {
    hosts: Vec<Cores>,
    threads: Vec<Thread>,
    slice_ns: u64,
}

#[derive(Debug, Default)]
struct Cores {
    free: u32,
    /// Whether there are more threads than cores.
    is_short: bool,
    cores: u32,
    threads: u32,
    /// Threads that do I/O and wait for a core, and those that compute.
    io: VecDeque<u32>,
    pool: VecDeque<u32>,
    /// Threads that compute and have a core, the latest last.
    computing: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    host: u32,
    is_io: bool,
    /// Work left of what it was doing when it lost its core.
    left_ns: u64,
    /// What it does now ends then; an event at another time is stale.
    ends_ns: Option<u64>,
    /// How many times as long its work takes while every other core computes too.
    slowdown: f64,
    /// How many times as long it takes now.
    rate: f64,
    /// When it got its core.
    granted_ns: u64,
    /// Sums.
    busy_ns: u64,
    waited_ns: u64,
    asked_ns: u64,
}

/// What to do with a thread next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It has a core and nothing under way: give it work.
    Begin(u32),
    /// It goes on with what it was doing, until then.
    Goes(u32, u64),
}

// === impl Cpus ===

impl Cpus {
    pub(crate) fn new(cores: &[u32], slice_ns: u64) -> Self {
        let host = |cores: &u32| Cores {
            free: (*cores).max(1),
            cores: (*cores).max(1),
            ..Cores::default()
        };
        Self {
            hosts: cores.iter().map(host).collect(),
            threads: Vec::new(),
            slice_ns: slice_ns.max(1),
        }
    }

    pub(crate) fn add(&mut self, host: u32, is_io: bool) {
        let cores = &mut self.hosts[host as usize];
        cores.threads += 1;
        cores.is_short = cores.threads > cores.cores;
        self.threads.push(Thread {
            host,
            is_io,
            left_ns: 0,
            ends_ns: None,
            slowdown: 1.0,
            rate: 1.0,
            granted_ns: 0,
            busy_ns: 0,
            waited_ns: 0,
            asked_ns: 0,
        });
    }

    /// Nanoseconds of work of a thread, and those that it waited for a core.
    pub(crate) fn sums(&self, thread: u32) -> (u64, u64) {
        let thread = &self.threads[thread as usize];
        (thread.busy_ns, thread.waited_ns)
    }

    /// A thread that slept has work.
    pub(crate) fn ask(&mut self, thread: u32, now_ns: u64) -> Option<Grant> {
        let Thread { host, is_io, .. } = self.threads[thread as usize];
        self.threads[thread as usize].asked_ns = now_ns;
        let cores = &mut self.hosts[host as usize];
        if cores.free > 0 {
            cores.free -= 1;
            return Some(self.grant(thread, now_ns));
        }
        // One whose work is over in this very moment is about to free its core.
        let works = |one: &u32| self.threads[*one as usize].ends_ns > Some(now_ns);
        if is_io && let Some(at) = cores.computing.iter().rposition(works) {
            let victim = cores.computing.remove(at);
            cores.pool.push_front(victim);
            self.stop(victim, now_ns);
            return Some(self.grant(thread, now_ns));
        }
        match is_io {
            true => cores.io.push_back(thread),
            false => cores.pool.push_back(thread),
        }
        None
    }

    /// A thread that was told to begin works for `ns`, or `slowdown` times as long while every other
    /// core computes; returns when its event comes.
    pub(crate) fn work(&mut self, thread: u32, ns: u64, slowdown: f64, now_ns: u64) -> u64 {
        self.threads[thread as usize].slowdown = slowdown;
        self.works(thread, ns, now_ns)
    }

    fn works(&mut self, thread: u32, ns: u64, now_ns: u64) -> u64 {
        let one = &mut self.threads[thread as usize];
        let cores = &self.hosts[one.host as usize];
        // What computes is looked at whenever a slice is over; I/O is short and is not.
        let mut slice_ns = u64::MAX;
        if !one.is_io && cores.is_short {
            slice_ns = self.slice_ns;
        }
        one.rate = 1.0;
        if one.slowdown > 1.0 {
            let others = (cores.computing.len() as f64 - 1.0).max(0.0);
            let most = f64::from(cores.cores.max(2)) - 1.0;
            one.rate += (one.slowdown - 1.0) * (others / most).min(1.0);
            // Who computes beside it changes: it is looked at again soon.
            slice_ns = slice_ns.min((ns / LOOKS).max(SHORTEST_LOOK_NS));
        }
        let part = ns.min(slice_ns);
        one.left_ns = ns - part;
        let took = whole(part as f64 * one.rate);
        one.busy_ns += took;
        let ends_ns = now_ns + took;
        one.ends_ns = Some(ends_ns);
        ends_ns
    }

    /// The event of a thread came: `None` if it is stale, else whether its work is done.
    pub(crate) fn ended(&mut self, thread: u32, now_ns: u64) -> Option<bool> {
        let one = &mut self.threads[thread as usize];
        if one.ends_ns != Some(now_ns) {
            return None;
        }
        one.ends_ns = None;
        Some(one.left_ns == 0)
    }

    /// Whether a thread that has more work must let others go first.
    pub(crate) fn must_yield(&self, thread: u32, now_ns: u64) -> bool {
        let one = &self.threads[thread as usize];
        let cores = &self.hosts[one.host as usize];
        let waits = !cores.io.is_empty() || !cores.pool.is_empty();
        waits && now_ns >= one.granted_ns + self.slice_ns
    }

    /// A slice is over and nobody waits: goes on with what is left.
    pub(crate) fn goes_on(&mut self, thread: u32, now_ns: u64) -> u64 {
        let left = self.threads[thread as usize].left_ns;
        self.works(thread, left, now_ns)
    }

    /// A thread gives up its core and, if it has more to do, waits for another.
    pub(crate) fn leave(&mut self, thread: u32, more: bool, now_ns: u64) -> Option<Grant> {
        let Thread { host, is_io, .. } = self.threads[thread as usize];
        let cores = &mut self.hosts[host as usize];
        if !is_io && let Some(at) = cores.computing.iter().position(|one| *one == thread) {
            cores.computing.remove(at);
        }
        if more {
            self.threads[thread as usize].asked_ns = now_ns;
            match is_io {
                true => cores.io.push_back(thread),
                false => cores.pool.push_back(thread),
            }
        }
        let next = cores.io.pop_front().or_else(|| cores.pool.pop_front());
        match next {
            Some(next) => Some(self.grant(next, now_ns)),
            None => {
                cores.free += 1;
                None
            }
        }
    }

    /// A thread is gone, whatever it was doing.
    pub(crate) fn kill(&mut self, thread: u32, now_ns: u64) -> Option<Grant> {
        let one = &mut self.threads[thread as usize];
        let ran = one.ends_ns.take().is_some();
        one.left_ns = 0;
        let cores = &mut self.hosts[one.host as usize];
        cores.io.retain(|other| *other != thread);
        cores.pool.retain(|other| *other != thread);
        if ran {
            self.leave(thread, false, now_ns)
        } else {
            None
        }
    }

    fn grant(&mut self, thread: u32, now_ns: u64) -> Grant {
        let one = &mut self.threads[thread as usize];
        one.granted_ns = now_ns;
        one.waited_ns += now_ns - one.asked_ns;
        let (is_io, host, left) = (one.is_io, one.host, one.left_ns);
        if !is_io {
            self.hosts[host as usize].computing.push(thread);
        }
        match left {
            0 => Grant::Begin(thread),
            left => Grant::Goes(thread, self.works(thread, left, now_ns)),
        }
    }

    /// Takes the core of a thread that computes.
    fn stop(&mut self, thread: u32, now_ns: u64) {
        let one = &mut self.threads[thread as usize];
        let undone = one.ends_ns.take().map_or(0, |ends| ends - now_ns);
        one.left_ns += whole(undone as f64 / one.rate);
        one.busy_ns -= undone;
        one.asked_ns = now_ns;
    }
}
