//! What surely does not fit this machine, told before anything asks the system for it.

use crate::error::Failure;

/// Where Linux says how much there is.
const MEMINFO: &str = "/proc/meminfo";
const GIB: f64 = (1u64 << 30) as f64;

/// Refuses `what`, which takes at least `bytes` bytes, where the machine has less.
///
/// # Errors
/// [`Failure::Input`] with both sizes.
pub(crate) fn check_memory(what: &str, bytes: f64) -> Result<(), Failure> {
    let text = std::fs::read_to_string(MEMINFO).unwrap_or_default();
    match total(&text) {
        // Where nobody says how much there is, whoever asks for too much finds out.
        Some(there) if bytes > there => Err(Failure::input(format!(
            "{what} take at least {:.0} GiB, and this machine has {:.1} GiB; ask for fewer",
            bytes / GIB,
            there / GIB
        ))),
        _ => Ok(()),
    }
}

/// Bytes of memory and swap, by the text of [`MEMINFO`].
fn total(text: &str) -> Option<f64> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    };
    Some(1024.0 * (kib("MemTotal:")? + kib("SwapTotal:").unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_hold_is_refused_with_both_sizes() {
        assert!(check_memory("these", 0.0).is_ok());
        let text = "MemTotal:       1024 kB\nMemFree: 3 kB\nSwapTotal:      1024 kB\n";
        assert_eq!(total(text), Some(2.0 * 1024.0 * 1024.0));
        assert_eq!(total("nothing"), None);
        if total(&std::fs::read_to_string(MEMINFO).unwrap_or_default()).is_some() {
            let Err(Failure::Input(said)) = check_memory("these", 1e18) else {
                panic!("a billion GB fit");
            };
            assert!(
                said.starts_with("these take at least 931322575 GiB"),
                "{said}"
            );
        }
    }
}
