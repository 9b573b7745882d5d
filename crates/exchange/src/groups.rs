//! Which workers stand together: the groups of a `hierarchical` exchange.

/// The groups of a session's workers, from any worker → group table: the hosts of a topology, or so
/// many workers at a time.
///
/// Groups have numbers below that of the workers; which numbers, and in what order, means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// `[workers]` the group of worker `w`, which is endpoint `w + 1`.
    of: Vec<u32>,
    /// `[workers]` position of each worker among those of its group.
    ranks: Vec<u32>,
    /// `[groups]` workers of each group.
    sizes: Vec<u32>,
}

// === impl Groups ===

impl Groups {
    /// The groups of a table: `of[w]` is the group of worker `w`, below the number of workers.
    ///
    /// # Errors
    /// A sentence naming the first worker whose group has no such number.
    pub fn new(of: Vec<u32>) -> Result<Self, String> {
        let mut sizes = vec![0; of.len()];
        let mut ranks = Vec::with_capacity(of.len());
        for (worker, group) in of.iter().enumerate() {
            let Some(size) = sizes.get_mut(*group as usize) else {
                return Err(format!(
                    "worker {worker} in group {group}, expected a number below {}, that of the workers",
                    of.len()
                ));
            };
            ranks.push(*size);
            *size += 1;
        }
        Ok(Self { of, ranks, sizes })
    }

    /// The table of groups of `size` workers that follow each other; the last may be smaller. A
    /// `size` of 0 counts as 1.
    pub fn contiguous(workers: usize, size: usize) -> Vec<u32> {
        (0..workers)
            .map(|worker| crate::plan::index(worker / size.max(1)))
            .collect()
    }

    /// `[workers]` the group of each worker.
    pub fn table(&self) -> &[u32] {
        &self.of
    }

    /// The group of an endpoint; `None` for the coordinator and endpoints that do not exist.
    pub fn group(&self, endpoint: u32) -> Option<u32> {
        self.of.get(worker(endpoint)?).copied()
    }

    /// Whether two endpoints are workers of one group.
    pub fn together(&self, one: u32, other: u32) -> bool {
        self.group(one)
            .is_some_and(|group| self.group(other) == Some(group))
    }

    /// How far after the place of `home` in its own group `host` stands in its, counted round that
    /// group: of the hosts of a bundle the nearest passes it on, so that the homes of one group
    /// take different ones.
    pub(crate) fn distance(&self, home: u32, host: u32) -> u32 {
        let rank = |endpoint| worker(endpoint).and_then(|at| self.ranks.get(at)).copied();
        let size = self
            .group(host)
            .map_or(1, |group| self.sizes[group as usize]);
        let (home, host) = (rank(home).unwrap_or(0), rank(host).unwrap_or(0));
        (host + size - home % size) % size
    }
}

fn worker(endpoint: u32) -> Option<usize> {
    (endpoint as usize).checked_sub(1)
}
