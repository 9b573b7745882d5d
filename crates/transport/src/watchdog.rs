//! The local clock, and waiting for the next of several deadlines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Now on the monotonic clock of this kernel, nanoseconds.
///
/// Every process of one kernel reads the same clock, so moments of two processes on a machine
/// compare without an offset.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts near 0 at boot and is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Wakes its watcher when the earliest armed deadline has come.
///
/// Arming costs one atomic operation unless the deadline is the earliest, so a deadline that is
/// met can be left behind: the watcher finds nothing late and asks for the next.
#[derive(Debug)]
pub struct Watchdog {
    next_ns: AtomicU64,
    earlier: Notify,
}

// === impl Watchdog ===

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            next_ns: AtomicU64::new(u64::MAX),
            earlier: Notify::new(),
        }
    }
}

impl Watchdog {
    /// There is something to check at `deadline_ns` on [`monotonic_ns`]'s clock.
    pub fn arm(&self, deadline_ns: u64) {
        if self.next_ns.fetch_min(deadline_ns, Ordering::AcqRel) > deadline_ns {
            self.earlier.notify_one();
        }
    }

    /// Calls `tick` whenever an armed deadline comes. `tick` ends what is late and returns the
    /// earliest deadline that is left. Never returns; dropped with its owner.
    pub async fn watch(&self, mut tick: impl FnMut() -> Option<u64>) {
        loop {
            self.next_ns.store(u64::MAX, Ordering::Release);
            if let Some(next) = tick() {
                self.next_ns.fetch_min(next, Ordering::AcqRel);
            }
            // What was armed until here is in `next_ns`: a notice of it, perhaps of `tick` itself,
            // would only wake this loop again.
            tokio::select! {
                biased;
                () = self.earlier.notified() => {}
                () = std::future::ready(()) => {}
            }
            let next = self.next_ns.load(Ordering::Acquire);
            if next == u64::MAX {
                self.earlier.notified().await;
                continue;
            }
            let wait = Duration::from_nanos(next.saturating_sub(monotonic_ns()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.earlier.notified() => {}
            }
        }
    }
}

/// Identity of the running kernel; endpoints with the same one read the same monotonic clock.
/// Empty where the system does not tell, which equals nobody's.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll_once(watchdog: &Watchdog, ticks: &Cell<u32>, next: impl Fn() -> Option<u64>) {
        let watching = pin!(watchdog.watch(|| {
            ticks.set(ticks.get() + 1);
            next()
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(watching.poll(&mut context), Poll::Pending));
    }

    #[tokio::test]
    async fn arming_within_a_tick_does_not_spin() {
        let (watchdog, ticks) = (Watchdog::default(), Cell::new(0));
        let later = monotonic_ns() + 60_000_000_000;
        poll_once(&watchdog, &ticks, || {
            watchdog.arm(later);
            Some(later)
        });
        assert_eq!(ticks.get(), 1);
    }

    #[tokio::test]
    async fn a_deadline_that_is_armed_wakes_the_watcher() {
        let watchdog = Watchdog::default();
        let due = Cell::new(None);
        let met = tokio::sync::Notify::new();
        let watched = watchdog.watch(|| match due.get() {
            Some(at) if at <= monotonic_ns() => {
                met.notify_one();
                due.take();
                None
            }
            left => left,
        });
        let armed = async {
            tokio::task::yield_now().await;
            let at = monotonic_ns() + 1_000_000;
            due.set(Some(at));
            watchdog.arm(at);
            met.notified().await;
        };
        tokio::select! {
            () = watched => {}
            () = armed => {}
        }
        assert_eq!(due.get(), None);
    }
}
