//! Waiting to the microsecond on the IO thread.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::watchdog::monotonic_ns;

/// A timer of the kernel, as precise as its wake-ups: the runtime's own count milliseconds.
///
/// It wakes the thread that reads sockets, by the same call that tells it of an arrival, so that a
/// delivery costs what an arrival costs. It does not spin: the processes of a cluster share a few
/// cores, and who spins takes one from those who work.
#[derive(Debug)]
pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
    armed_ns: u64,
}

// === impl Timer ===

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(
            deprecated,
            reason = "its trap is a type whose descriptor changes, which an OwnedFd's does not"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { fd, armed_ns: 0 })
    }

    /// Waits until `at_ns` on [`monotonic_ns`]' clock. May be dropped and asked again.
    pub(super) async fn until(&mut self, at_ns: u64) {
        while monotonic_ns() < at_ns {
            if self.armed_ns != at_ns && self.arm(at_ns).is_err() {
                return coarse(at_ns).await;
            }
            let Ok(mut ready) = self.fd.readable().await else {
                return coarse(at_ns).await;
            };
            // What is read is how often it went off; a moment that is over is what counts.
            let _ = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0u8; 8])?));
            if monotonic_ns() < at_ns {
                self.armed_ns = 0;
            }
        }
    }

    fn arm(&mut self, at_ns: u64) -> io::Result<()> {
        let second = 1_000_000_000;
        let time = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(at_ns / second).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at_ns % second).unwrap_or(0),
            },
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &time)?;
        self.armed_ns = at_ns;
        Ok(())
    }
}

/// The runtime's timer, for a system that takes its own back.
async fn coarse(at_ns: u64) {
    let left = at_ns.saturating_sub(monotonic_ns());
    tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
}
