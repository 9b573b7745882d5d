//! In which order a home serves its hosts.
//!
//! If every home began with the same host, all would queue at one port after another. Knows numbers
//! of workers and nothing else: not rows, not where workers stand.

/// The numbers of those that a home sends to, `receivers` being their endpoint ids, in the order in
/// which it serves them, in a cluster of so many endpoints.
pub(crate) fn order(home: u32, endpoints: usize, receivers: impl Iterator<Item = u32>) -> Vec<u32> {
    let workers = u32::try_from(endpoints.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut order: Vec<(u32, u32)> = receivers
        .map(|host| turn(home, host, workers))
        .zip(0..)
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

/// When `home` serves `host`, of so many workers: itself first, for its own rows wait for no port.
///
/// Workers are in blocks of the largest power of two that divides their number. Blocks are served
/// round from the home's own on, and within each the exclusive or of two places is their turn
/// (pairwise exchange): in each turn every worker sends to one other and gets from one. So it is
/// with any aligned part of a block for itself, for example the workers of one machine and those of
/// another.
fn turn(home: u32, host: u32, workers: u32) -> u32 {
    let Some(home) = home.checked_sub(1) else {
        // The coordinator is alone.
        return host;
    };
    let (host, workers) = (host.saturating_sub(1), workers.max(1));
    let bits = workers.trailing_zeros();
    let blocks = workers >> bits;
    let ahead = ((host >> bits) + blocks - (home >> bits) % blocks) % blocks;
    ahead << bits | (home ^ host) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::order;

    /// Every worker has rows for every other.
    #[test]
    fn in_every_turn_no_two_homes_send_to_one_host() {
        for workers in [1, 2, 5, 6, 8, 12, 24] {
            let order = |home| order(home, workers + 1, 1..=workers as u32);
            let orders: Vec<Vec<u32>> = (1..=workers as u32).map(order).collect();
            for (home, order) in (0..).zip(&orders) {
                assert_eq!(order[0], home, "its own rows wait for no port");
            }
            for turn in 0..workers {
                let mut hosts: Vec<u32> = orders.iter().map(|order| order[turn]).collect();
                hosts.sort_unstable();
                assert!(hosts.into_iter().eq(0..workers as u32), "turn {turn}");
            }
        }
    }

    /// Two machines of four: who is on the other is sent to by one of them at a time.
    #[test]
    fn homes_of_a_machine_take_another_machines_hosts_in_turn() {
        let others = |home| order(home, 9, 5..=8);
        let orders: Vec<Vec<u32>> = (1..=4).map(others).collect();
        for turn in 0..4 {
            let mut hosts: Vec<u32> = orders.iter().map(|order| order[turn]).collect();
            hosts.sort_unstable();
            assert_eq!(hosts, [0, 1, 2, 3], "turn {turn}");
        }
    }

    #[test]
    fn the_coordinator_serves_its_hosts_as_they_come() {
        assert_eq!(order(0, 4, [1, 2, 3].into_iter()), [0, 1, 2]);
    }
}
