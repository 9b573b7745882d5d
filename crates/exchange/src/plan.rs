//! What a plan is made of: hosts of experts, kept choices, the bounds of a chunk, shares of tokens.

use std::ops::Range;

use expertmesh_placement::Placement;
use expertmesh_routing::{Admission, Fate, Route};
use expertmesh_wire::encoded_len;

use crate::groups::Groups;
use crate::spare;
use crate::target::Target;

/// Which endpoints execute which expert, and in `hierarchical` which of them stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTable {
    /// `[E + 1]` offsets into `of`.
    first: Vec<u32>,
    /// Endpoints of every expert, the first replica first.
    of: Vec<u32>,
    /// `[E]` the first endpoint of every expert.
    primaries: Vec<u32>,
    /// Experts after those that endpoints hold: every home answers for them itself.
    free: u32,
    endpoints: u32,
    groups: Option<Groups>,
}

/// The choices of a shard's tokens that have a host, token by token in slot order.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// `[tokens + 1]`: the choices of token `t` are `offsets[t]..offsets[t + 1]`.
    pub offsets: &'a [u32],
    /// `[choices]` packed [`Target`]s.
    pub targets: &'a [u32],
    /// `[choices]` weights that results are multiplied by.
    pub weights: &'a [f32],
}

/// The kept choices of some tokens of a route: those whose fate is to be computed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeptChoices {
    /// `[tokens + 1]` offsets of each token's kept choices.
    pub offsets: Vec<u32>,
    /// `[choices]` packed [`Target`]s.
    pub targets: Vec<u32>,
    /// `[choices]` weights that results are multiplied by.
    pub weights: Vec<f32>,
    /// `[choices]` where each stands in the route.
    pub origin: Vec<u32>,
}

/// What bounds a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one encoded row.
    pub row_bytes: usize,
    /// The longest encoded frame, request or result, that a chunk may give.
    pub chunk_bytes: usize,
    /// Whether every choice has a row of its own, as a layer needs that weighs the rows it sends;
    /// else a token's row goes to a host once.
    pub row_per_choice: bool,
}

/// Contiguous shares of `tokens` for each of `homes`, as even as possible, earlier homes first.
pub fn shard_ranges(tokens: usize, homes: usize) -> Vec<Range<usize>> {
    (0..homes)
        .map(|at| tokens * at / homes..tokens * (at + 1) / homes)
        .collect()
}

// === impl HostTable ===

impl HostTable {
    /// The hosts of a placement: worker `w` is endpoint `w + 1`.
    pub fn new(placement: &Placement) -> Self {
        let hosts = (0..placement.experts()).map(|expert| {
            let replicas = placement.replicas(expert).iter();
            replicas.map(|worker| worker + 1).collect::<Vec<u32>>()
        });
        Self::from_replicas(hosts, index(placement.workers()) + 1)
    }

    /// One host for each expert: `of[expert]` is an endpoint id below `endpoints`.
    pub fn from_endpoints(of: Vec<u32>, endpoints: u32) -> Self {
        Self::from_replicas(of.into_iter().map(|host| [host]), endpoints)
    }

    /// The hosts named one by one: every list names endpoints below `endpoints`, at least one.
    pub fn from_replicas<L: AsRef<[u32]>>(of: impl IntoIterator<Item = L>, endpoints: u32) -> Self {
        let mut table = Self {
            first: vec![0],
            of: Vec::new(),
            primaries: Vec::new(),
            free: 0,
            endpoints,
            groups: None,
        };
        for hosts in of {
            table.primaries.extend(hosts.as_ref().first());
            table.of.extend_from_slice(hosts.as_ref());
            table.first.push(index(table.of.len()));
        }
        table
    }

    /// The same table with `free` experts more that no endpoint holds.
    #[must_use]
    pub fn with_free(mut self, free: usize) -> Self {
        self.free = index(free);
        self
    }

    /// The same for workers in `groups`: plans made with it are those of a `hierarchical` exchange.
    #[must_use]
    pub fn with_groups(mut self, groups: Groups) -> Self {
        self.groups = Some(groups);
        self
    }

    /// Who stands together, in a `hierarchical` exchange.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// Endpoint id of the host of a packed [`Target`], `None` for an expert or a replica that does
    /// not exist and for free experts.
    pub fn host(&self, target: u32) -> Option<u32> {
        let Target {
            expert, replica, ..
        } = Target::unpack(target);
        let ends = self.first.get(expert as usize..expert as usize + 2)?;
        self.of[ends[0] as usize..ends[1] as usize]
            .get(usize::from(replica))
            .copied()
    }

    /// Whether `endpoint` holds `expert`, as whichever replica.
    pub fn holds(&self, endpoint: u32, expert: u32) -> bool {
        match self.first.get(expert as usize..expert as usize + 2) {
            Some(ends) => self.of[ends[0] as usize..ends[1] as usize].contains(&endpoint),
            None => false,
        }
    }

    /// Whether a packed [`Target`] is of a free expert.
    pub fn is_free(&self, target: u32) -> bool {
        let expert = Target::unpack(target).expert as usize;
        (self.experts()..self.experts() + self.free as usize).contains(&expert)
    }

    /// `[E]` the endpoint of the first replica of each expert.
    pub(crate) fn primaries(&self) -> &[u32] {
        &self.primaries
    }

    /// Number of experts that endpoints hold.
    pub fn experts(&self) -> usize {
        self.first.len().saturating_sub(1)
    }

    /// Number of endpoints, the coordinator included.
    pub fn endpoints(&self) -> usize {
        self.endpoints as usize
    }
}

// === impl KeptChoices ===

impl KeptChoices {
    /// The choices of `tokens` in `route` that `admission` has computed, in token order and,
    /// within a token, in slot order.
    pub fn new(route: &Route, admission: &Admission, tokens: Range<usize>) -> Self {
        // A token may have none.
        let most = match tokens.is_empty() {
            true => 0,
            false => route.choices_of(tokens.end - 1).end - route.choices_of(tokens.start).start,
        };
        let mut kept = Self {
            offsets: spare::take(tokens.len() + 1),
            targets: spare::take(most),
            weights: spare::take(most),
            origin: spare::take(most),
        };
        let mut rows = Rows {
            executed: admission.executed.as_deref().unwrap_or(&route.experts),
            weights: admission.weights.as_deref().unwrap_or(&route.weights),
            admission,
            kept: &mut kept,
            end: 0,
        };
        let usual = admission.replicas.is_none() && admission.waves.is_none();
        for (at, token) in tokens.enumerate() {
            rows.kept.offsets[at] = index(rows.end);
            let choices = route.choices_of(token);
            match usual {
                true => rows.add(choices, |expert, _| expert),
                false => rows.add(choices, |expert, at| {
                    let (replica, wave) = (admission.replica(at), admission.wave(at));
                    let target = Target {
                        expert,
                        replica,
                        wave,
                    };
                    target.pack()
                }),
            }
        }
        let end = rows.end;
        if let Some(last) = kept.offsets.last_mut() {
            *last = index(end);
        }
        kept.targets.truncate(end);
        kept.weights.truncate(end);
        kept.origin.truncate(end);
        kept
    }

    /// The same with each token's choices in the order of their experts.
    #[must_use]
    pub fn by_expert(mut self) -> Self {
        for ends in self.offsets.windows(2) {
            let choices = ends[0] as usize..ends[1] as usize;
            let mut order: Vec<usize> = choices.clone().collect();
            order.sort_by_key(|choice| Target::unpack(self.targets[*choice]).expert);
            let targets: Vec<u32> = order.iter().map(|at| self.targets[*at]).collect();
            let weights: Vec<f32> = order.iter().map(|at| self.weights[*at]).collect();
            let origin: Vec<u32> = order.iter().map(|at| self.origin[*at]).collect();
            self.targets[choices.clone()].copy_from_slice(&targets);
            self.weights[choices.clone()].copy_from_slice(&weights);
            self.origin[choices].copy_from_slice(&origin);
        }
        self
    }

    /// The choices, as a plan takes them.
    pub fn as_kept(&self) -> Kept<'_> {
        Kept {
            offsets: &self.offsets,
            targets: &self.targets,
            weights: &self.weights,
        }
    }
}

impl Drop for KeptChoices {
    fn drop(&mut self) {
        spare::give(&mut self.offsets);
        spare::give(&mut self.targets);
        spare::give(&mut self.weights);
        spare::give(&mut self.origin);
    }
}

/// Choices on their way into [`KeptChoices`].
struct Rows<'a> {
    executed: &'a [u32],
    weights: &'a [f32],
    admission: &'a Admission,
    kept: &'a mut KeptChoices,
    /// Kept so far.
    end: usize,
}

// === impl Rows ===

impl Rows<'_> {
    /// Adds those of some `choices` that are kept. Which are is hard to guess where experts
    /// overflow: each is written, and the next takes the place of one that is not kept.
    #[inline(always)]
    fn add(&mut self, choices: Range<usize>, target: impl Fn(u32, usize) -> u32) {
        let fates = &self.admission.fates[choices.clone()];
        let experts = self.executed[choices.clone()].iter();
        let weights = self.weights[choices.clone()].iter();
        let choices = choices.zip(fates).zip(experts.zip(weights));
        for ((at, fate), (expert, weight)) in choices {
            self.kept.targets[self.end] = target(*expert, at);
            self.kept.weights[self.end] = *weight;
            self.kept.origin[self.end] = index(at);
            self.end += usize::from(is_kept(fate));
        }
    }
}

// === impl Limits ===

impl Limits {
    /// So many choices fit a chunk, whatever their rows.
    pub(crate) fn choices_that_fit(&self) -> usize {
        // A row and its choice have a word each.
        let mut most = self.chunk_bytes / (self.row_bytes + 2 * size_of::<u32>());
        while most > 0 && !self.fits(most, most) {
            most -= 1;
        }
        most
    }

    /// Whether a chunk may hold so many rows and choices. Fewer of either fit where more do.
    pub(crate) fn fits(&self, rows: usize, choices: usize) -> bool {
        encoded_len(rows + choices, rows * self.row_bytes) <= self.chunk_bytes
            && encoded_len(0, choices * self.row_bytes) <= self.chunk_bytes
    }
}

fn is_kept(fate: &Fate) -> bool {
    matches!(fate, Fate::Computed | Fate::Rerouted)
}

/// Counts here are bounded by tokens × k, which the caller bounds by 32 bits.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
