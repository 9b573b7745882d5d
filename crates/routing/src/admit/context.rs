//! What an admission is asked under, besides route and rule.

use crate::error::RoutingError;

/// What a batch is admitted under besides its route: all of it plain data, so that the answer is
/// the same wherever it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitContext<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step.
    pub step: u64,
    /// Number of the layer.
    pub layer: u32,
    /// Number of the batch's first token, for batches that are parts of one.
    pub first_token: u64,
    /// Tokens of a sequence; 0 where the batch is one sequence.
    pub sequence: usize,
    /// Which domains (workers, say) hold each expert, for policies that ask.
    pub domains: Option<&'a Domains>,
    /// The capacity that earlier steps grew to, for the policy that grows.
    pub grown: Option<u64>,
    /// The experts after those that workers hold, by ascending index.
    pub free: &'a [FreeExpert],
}

/// An expert that costs no dispatch: whoever is home to a token answers for it. Free experts use
/// no capacity and are never full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FreeExpert {
    /// Adds nothing: its choices are [`Fate::Skipped`](crate::Fate::Skipped) (MoE++'s zero expert).
    Null,
    /// Gives the row back (LongCat's zero-computation expert, MoE++'s copy expert).
    Identity,
    /// Mixes the row with a learned vector (MoE++'s constant expert).
    Constant,
}

/// A plain table of the domains that hold each expert, the first one first: workers with
/// replicas, or nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domains {
    /// `[E + 1]` offsets into `ids`.
    offsets: Vec<u32>,
    /// Domains of every expert.
    ids: Vec<u32>,
    /// Number of domains.
    count: usize,
}

// === impl Domains ===

impl Domains {
    /// The table of `count` domains in which expert `e` is held by `of[e]`, each list without
    /// repeats.
    ///
    /// # Errors
    /// An expert that no domain holds, or a domain that is not below `count`.
    pub fn new<L: AsRef<[u32]>>(of: &[L], count: usize) -> Result<Self, RoutingError> {
        let mut table = Self {
            offsets: vec![0],
            ids: Vec::with_capacity(of.len()),
            count,
        };
        for held_by in of {
            let held_by = held_by.as_ref();
            if held_by.is_empty() {
                let expected = "at least one domain for each expert";
                return Err(RoutingError::config("domains", "none", expected));
            }
            if let Some(wrong) = held_by.iter().find(|&&id| id as usize >= count) {
                let expected = format!("a domain below {count}");
                return Err(RoutingError::config("domains", wrong, expected));
            }
            table.ids.extend_from_slice(held_by);
            let end = u32::try_from(table.ids.len()).unwrap_or(u32::MAX);
            table.offsets.push(end);
        }
        Ok(table)
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of domains.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The domains that hold `expert`, the first one first; none for an expert that is not in the
    /// table.
    #[must_use]
    pub fn of(&self, expert: u32) -> &[u32] {
        match self.offsets.get(expert as usize..expert as usize + 2) {
            Some(ends) => &self.ids[ends[0] as usize..ends[1] as usize],
            None => &[],
        }
    }

    /// (expert, domain) pairs of the experts before `expert`, which may be one past the last.
    pub(super) fn pairs_before(&self, expert: usize) -> u32 {
        self.offsets.get(expert).copied().unwrap_or_default()
    }
}
