//! The table itself: checked once, then only read.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::PlacementError;

/// The most experts a table may have. Past any published layer; it keeps a mistyped number from
/// being taken for a size to allocate.
pub const MAX_EXPERTS: usize = 1 << 20;

/// The most workers a table may have, for the same reason as [`MAX_EXPERTS`].
pub const MAX_WORKERS: usize = 1 << 20;

/// Experts `0..experts` on workers `0..workers`.
///
/// Every expert has at least one replica, every replica is on a worker that exists, and no
/// worker holds an expert twice. A worker may hold nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    workers: usize,
    /// Expert `e` owns `replicas[starts[e]..starts[e + 1]]`: one flat table, because every row
    /// of every step is looked up here.
    starts: Vec<usize>,
    replicas: Vec<u32>,
}

// === impl Placement ===

impl Placement {
    /// Expert `e`'s replicas are `table[e]`, the first being its primary.
    ///
    /// # Errors
    /// A size that is zero or past its limit, an expert without a worker, a worker that does
    /// not exist, a worker named twice in one entry.
    pub fn from_table(table: Vec<Vec<u32>>, workers: usize) -> Result<Self, PlacementError> {
        check_sizes(table.len(), workers)?;
        let mut starts = Vec::with_capacity(table.len() + 1);
        let mut replicas = Vec::with_capacity(table.len());
        starts.push(0);
        for (expert, entry) in table.iter().enumerate() {
            check_entry(expert, entry, workers)?;
            replicas.extend_from_slice(entry);
            starts.push(replicas.len());
        }
        Ok(Self {
            workers,
            starts,
            replicas,
        })
    }

    /// One replica for each expert: `primary[e]` holds expert `e`. The sizes and indices are
    /// the caller's, who has made them by a rule.
    pub(crate) fn from_primaries(primary: Vec<u32>, workers: usize) -> Self {
        debug_assert!(primary.iter().all(|&worker| (worker as usize) < workers));
        Self {
            workers,
            starts: (0..=primary.len()).collect(),
            replicas: primary,
        }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of workers, those without an expert included.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The workers that hold `expert`, primary first; never empty.
    ///
    /// # Panics
    /// When `expert` is not below [`experts`](Self::experts).
    #[must_use]
    pub fn replicas(&self, expert: usize) -> &[u32] {
        &self.replicas[self.starts[expert]..self.starts[expert + 1]]
    }

    /// The worker that computes `expert` unless something stands against it.
    ///
    /// # Panics
    /// When `expert` is not below [`experts`](Self::experts).
    #[must_use]
    pub fn primary(&self, expert: usize) -> u32 {
        self.replicas[self.starts[expert]]
    }

    /// The experts that `worker` holds, as primary or as another replica, ascending. Empty for
    /// a worker that holds none or does not exist.
    #[must_use]
    pub fn experts_of(&self, worker: usize) -> Vec<u32> {
        (0_u32..)
            .zip(self.entries())
            .filter(|(_, entry)| entry.iter().any(|&holder| holder as usize == worker))
            .map(|(expert, _)| expert)
            .collect()
    }

    /// Replicas on each worker, `[workers]`.
    #[must_use]
    pub fn loads(&self) -> Vec<usize> {
        let mut loads = vec![0; self.workers];
        for &worker in &self.replicas {
            loads[worker as usize] += 1;
        }
        loads
    }

    /// The replicas of each expert, in expert order.
    pub fn entries(&self) -> impl Iterator<Item = &[u32]> {
        self.starts
            .windows(2)
            .map(|ends| &self.replicas[ends[0]..ends[1]])
    }

    /// SHA-256 over the table, in lower-case hex: two tables have one digest exactly when they
    /// have the same workers, experts and replicas in the same order.
    ///
    /// The bytes are `expertmesh.placement/1`, then little-endian: workers u64, experts u64,
    /// and for each expert its number of replicas u32 and each replica's worker u32.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"expertmesh.placement/1");
        hash.update((self.workers as u64).to_le_bytes());
        hash.update((self.experts() as u64).to_le_bytes());
        for entry in self.entries() {
            hash.update((entry.len() as u32).to_le_bytes());
            for worker in entry {
                hash.update(worker.to_le_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

// === impl Display ===

/// Experts by worker as ranges: `8 experts on 3 workers: w0 [0-2], w1 [3-5], w2 [6-7]`.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} experts on {} workers:", self.experts(), self.workers)?;
        let mut held = vec![Vec::new(); self.workers];
        for (expert, entry) in self.entries().enumerate() {
            for &worker in entry {
                held[worker as usize].push(expert);
            }
        }
        for (worker, experts) in held.iter().enumerate() {
            let comma = if worker == 0 { "" } else { "," };
            write!(f, "{comma} w{worker} [{}]", Ranges(experts))?;
        }
        Ok(())
    }
}

/// Ascending numbers, runs drawn together: `0-2 5 7-8`.
struct Ranges<'a>(&'a [usize]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let space = if position == 0 { "" } else { " " };
            match run {
                [first, .., last] => write!(f, "{space}{first}-{last}")?,
                _ => write!(f, "{space}{}", run[0])?,
            }
        }
        Ok(())
    }
}

// === checks ===

pub(crate) fn check_sizes(experts: usize, workers: usize) -> Result<(), PlacementError> {
    if !(1..=MAX_EXPERTS).contains(&experts) {
        return Err(PlacementError::Experts { found: experts });
    }
    if !(1..=MAX_WORKERS).contains(&workers) {
        return Err(PlacementError::Workers { found: workers });
    }
    Ok(())
}

fn check_entry(expert: usize, entry: &[u32], workers: usize) -> Result<(), PlacementError> {
    if entry.is_empty() {
        return Err(PlacementError::Unplaced { expert, workers });
    }
    for (replica, &worker) in entry.iter().enumerate() {
        if worker as usize >= workers {
            let worker = i64::from(worker);
            return Err(PlacementError::NoSuchWorker {
                expert,
                replica,
                worker,
                workers,
            });
        }
    }
    // Sorted rather than compared pair by pair: an entry may come from a file of any length.
    let mut sorted = entry.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PlacementError::DuplicateReplica {
            expert,
            worker: pair[0],
        }),
        None => Ok(()),
    }
}
