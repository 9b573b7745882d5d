//! Whether this machine could shape links in network namespaces.

use std::path::Path;
use std::process::{Command, Stdio};

/// Why `--links namespaces` is refused: what of its needs this machine has, and what works instead.
///
/// The kernel would need a queueing discipline that delays (netem); a rate (tbf) alone is no link. No
/// machine that this was developed on has it, so the backend stops at this check.
pub(crate) fn namespaces_missing() -> String {
    let missing: Vec<&str> = NEEDS
        .iter()
        .filter(|(_, there)| !there())
        .map(|(what, _)| *what)
        .collect();
    let found = match missing.is_empty() {
        true => "this machine has all that they need, and this version does not use it".to_owned(),
        false => format!("this machine lacks {}", missing.join(", ")),
    };
    format!(
        "--links namespaces is not available: {found}; leave it out, and the processes shape their own links"
    )
}

/// Whether something is there.
type Check = fn() -> bool;

/// What a backend in namespaces asks of a machine, and whether it is there.
const NEEDS: [(&str, Check); 4] = [
    ("the command ip (iproute2)", || is_on_path("ip")),
    ("the command tc (iproute2)", || is_on_path("tc")),
    ("user namespaces", has_namespaces),
    ("the qdisc netem (CONFIG_NET_SCH_NETEM)", has_netem),
];

fn is_on_path(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(system);
    folders.any(|folder| folder.join(command).is_file())
}

/// Whether an ordinary user may have a network of its own.
fn has_namespaces() -> bool {
    succeeds("unshare", &["-Urn", "true"])
}

/// Whether the kernel delays packets: asked of it, in a namespace that ends with the question.
fn has_netem() -> bool {
    let script =
        "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && tc qdisc add dev lo root netem delay 1ms";
    Path::new("/proc/self/ns/net").exists() && succeeds("unshare", &["-Urn", "sh", "-c", script])
}

fn succeeds(command: &str, args: &[&str]) -> bool {
    let ran = Command::new(command)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}
