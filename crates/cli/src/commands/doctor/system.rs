//! What the operating system gives.

use expertmesh_transport::{boot_id, monotonic_ns};
use rustix::process::{Resource, getrlimit};

use crate::commands::cores as available;
use crate::commands::doctor::{Finding, Verdict};

/// Descriptors below which a large cluster on one machine would run out: a connection takes one at
/// each end, and `all-to-all` makes workers × (workers + 1) of them.
const FEW_DESCRIPTORS: u64 = 256;

pub(super) fn cores() -> Finding {
    let check = "cores";
    match available().get() {
        1 => Finding::new(
            check,
            Verdict::Warn,
            "1: processes take turns, latencies of several workers mean little",
        ),
        cores => Finding::ok(check, cores.to_string()),
    }
}

pub(super) fn descriptors() -> Finding {
    let check = "descriptors";
    let used = std::fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Finding::ok(check, "no limit");
    };
    let free = limit.saturating_sub(used);
    if free < FEW_DESCRIPTORS {
        let detail = format!("{free} free of {limit}: raise the limit with `ulimit -n`");
        return Finding::new(check, Verdict::Warn, detail);
    }
    Finding::ok(check, format!("{free} free of {limit}"))
}

/// Endpoints on one kernel read one clock; without its identity they estimate offsets.
pub(super) fn clock() -> Finding {
    let check = "shared clock";
    let (first, second) = (monotonic_ns(), monotonic_ns());
    if first == 0 || second < first {
        let detail = format!("the monotonic clock went from {first} ns to {second} ns");
        return Finding::new(check, Verdict::Fail, detail);
    }
    if boot_id().is_empty() {
        return Finding::new(
            check,
            Verdict::Warn,
            "the kernel has no boot id: dispatch and combine times will carry an error bound",
        );
    }
    Finding::ok(check, "monotonic, known by the kernel's boot id")
}

/// Whether the kernel stops children whose launcher was killed.
pub(super) fn survivors() -> Finding {
    let check = "kill -9 is safe";
    if cfg!(target_os = "linux") {
        Finding::ok(check, "the kernel stops processes whose launcher dies")
    } else {
        Finding::new(
            check,
            Verdict::Warn,
            "this system does not stop processes whose launcher is killed: stop them by hand",
        )
    }
}
