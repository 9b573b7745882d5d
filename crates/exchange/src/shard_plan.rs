//! Route + placement → the rows that each expert host gets, and where each result belongs.
//!
//! Everything lies in a few flat arrays, host after host and, within a host, wave after wave, whose
//! sizes are counted before they are filled: a plan allocates the same number of times for any
//! number of tokens and hosts. Kept choices are read twice in a row, so that memory streams: to
//! count them and cut their rows into chunks ([`cut`]), and to fill the arrays.

use std::borrow::Cow;
use std::ops::Range;

use expertmesh_wire::encoded_len;

use expertmesh_kernels::prefetch_to_write;

use crate::bundles::Bundles;
use crate::cut::{Cursor, Cutter};
use crate::groups::Groups;
use crate::plan::{HostTable, Kept, Limits, index};
use crate::spare::{self, Spare};
use crate::target::Target;
use crate::timeline::TIMELINE_WORDS;

/// Hosts whose streams, four for each, a CPU follows by itself.
const FOLLOWED: usize = 16;

/// Elements of a line of memory.
const LINE: usize = 16;

/// Rows and choices of one message to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Range in [`HostRows::tokens`].
    pub rows: Range<usize>,
    /// Range in [`HostRows::experts`].
    pub choices: Range<usize>,
    /// The wave it is sent in: not before the results of every earlier wave are in.
    pub wave: u8,
}

/// An expert host of a plan, and where its part of the plan lies. [`ShardPlan::host`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Endpoint id of the host.
    pub endpoint: u32,
    /// Its rows among those of the plan.
    pub rows: Range<usize>,
    /// Its choices among those of the plan, host after host.
    pub choices: Range<usize>,
    /// Its chunks among those of the plan.
    pub chunks: Range<usize>,
}

/// What one expert host gets of a shard: each token's row once, however many of its experts live
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRows<'a> {
    /// Endpoint id of the host.
    pub endpoint: u32,
    /// `[rows]` token (local to the shard) of each row, ascending in a wave.
    pub tokens: &'a [u32],
    /// `[rows + 1]` offsets into `experts`.
    pub offsets: &'a [u32],
    /// `[choices]` expert of each choice, row by row in slot order.
    pub experts: &'a [u32],
    /// `[choices]` index of each choice among the shard's kept choices.
    pub kept: &'a [u32],
    /// The messages, in the order they are sent.
    pub chunks: &'a [Chunk],
}

/// Where the result row of a choice arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ResultAt {
    /// Chunk of the plan, counted over all hosts, or [`OWN`].
    pub(crate) chunk: u32,
    /// Row of the chunk's result frame, or position in [`ShardPlan::own`].
    pub(crate) row: u32,
}

/// In place of a chunk: the home computes the choice itself.
pub(crate) const OWN: u32 = u32::MAX;

/// A choice for which its home answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnChoice {
    /// Token, local to the shard.
    pub token: u32,
    /// A free expert.
    pub expert: u32,
}

/// The plan of one home's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardPlan {
    /// Endpoint id of the home.
    pub home: u32,
    /// Tokens of the shard.
    pub tokens: usize,
    /// `[tokens + 1]` offsets of each token's kept choices.
    pub offsets: Vec<u32>,
    /// `[choices]` weight of each kept choice.
    pub weights: Vec<f32>,
    /// Choices of free experts, in token order.
    pub own: Vec<OwnChoice>,
    /// Hosts that get rows, ascending by endpoint.
    pub hosts: Vec<HostPlan>,
    pub(crate) results: Vec<ResultAt>,
    /// `[rows + hosts]`, host after host, as the next three: before those of a host comes a 0.
    row_tokens: Vec<u32>,
    /// `[rows + hosts]`: a host has one more than it has rows.
    row_offsets: Vec<u32>,
    /// `[choices]`
    experts: Vec<u32>,
    /// `[choices]`
    kept: Vec<u32>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) bundles: Bundles,
}

/// The rows that a host gets in one wave.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Position of the host in the plan.
    pub(crate) host: usize,
    pub(crate) wave: u8,
    /// Rows of the host.
    pub(crate) rows: Range<usize>,
    /// Chunks of the plan.
    pub(crate) chunks: Range<usize>,
}

// === impl ShardPlan ===

impl ShardPlan {
    /// Plans the kept choices of `home`'s tokens: rows for each host, chunks, places of results.
    ///
    /// Targets are looked up in `table`; every one must be there (the caller checks what arrives
    /// from the network). Linear in tokens and choices. With groups in `table`, rows for several
    /// hosts of a group that is not the home's travel together.
    pub fn new(home: u32, kept: Kept<'_>, table: &HostTable, limits: Limits) -> Self {
        // At least as many waves as there are.
        let waves = kept.targets.iter().fold(0, |bits, target| bits | target) >> Target::WAVE_BIT;
        let waves = waves as usize + 1;
        let primaries = table.primaries();
        let walk = Walk {
            kept,
            table,
            usual: match waves {
                1 => primaries.into(),
                _ => primaries.iter().map(|host| host * index(waves)).collect(),
            },
            waves,
            row_per_choice: limits.row_per_choice,
        };
        let mut cutter = Cutter::new(limits, kept.targets.len());
        let mut cursors = cutter.cursors(table.endpoints() * waves);
        walk.each(&mut cursors, |cursor, at, token, _, choice| {
            cursor.choices += 1;
            cursor.rows += walk.begins_row(cursor, token);
            cursor.last = walk.mark(token);
            let walk = &walk;
            cutter.add(cursor, at, move || walk.choices_of_row(at, token, choice));
        });
        let (hosts, chunks) = cutter.lay_out(&mut cursors, waves);
        let rows = hosts.last().map_or(0, |host| host.rows.end);
        let sent = hosts.last().map_or(0, |host| host.choices.end);
        let choices = kept.targets.len();
        let mut plan = Self {
            home,
            tokens: kept.offsets.len().saturating_sub(1),
            offsets: copied(kept.offsets),
            weights: copied(kept.weights),
            own: Vec::new(),
            results: spare::take(choices),
            row_tokens: spare::take(rows + hosts.len()),
            row_offsets: spare::take(rows + hosts.len()),
            experts: spare::take(sent),
            kept: spare::take(sent),
            chunks,
            bundles: Bundles::default(),
            hosts,
        };
        if sent < choices {
            plan.results.fill(ResultAt::default());
            plan.keep_own(kept, table);
        }
        match plan.hosts.len() > FOLLOWED {
            true => plan.fill::<true>(&walk, &mut cursors),
            false => plan.fill::<false>(&walk, &mut cursors),
        }
        if let Some(groups) = table.groups().filter(|groups| plan.has_company(groups)) {
            plan.cut_again(limits, groups);
        }
        plan
    }

    /// What the host at `at` in [`ShardPlan::hosts`] gets.
    pub fn host(&self, at: usize) -> HostRows<'_> {
        let HostPlan {
            endpoint,
            rows,
            choices,
            chunks,
        } = self.hosts[at].clone();
        HostRows {
            endpoint,
            tokens: &self.row_tokens[rows.start + at + 1..=rows.end + at],
            offsets: &self.row_offsets[rows.start + at..=rows.end + at],
            experts: &self.experts[choices.clone()],
            kept: &self.kept[choices],
            chunks: &self.chunks[chunks],
        }
    }

    /// Number of kept choices.
    pub fn choices(&self) -> usize {
        self.weights.len()
    }

    /// Number of chunks to all hosts.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Length of the `SHARD` frame that tells a home this plan's tokens and choices, in a cluster
    /// of `endpoints` endpoints.
    pub fn shard_frame_len(&self, row_bytes: usize, endpoints: usize) -> usize {
        encoded_len(
            self.tokens + 2 * self.choices() + endpoints,
            self.tokens * row_bytes,
        )
    }

    /// Length of the `COMBINED` frame that brings this plan's outputs back, if nothing is lost.
    pub fn combined_frame_len(&self, output_row_bytes: usize) -> usize {
        self.combined_frame_len_without(0, output_row_bytes)
    }

    /// The same if so many choices are lost, each of which it names.
    pub fn combined_frame_len_without(&self, lost: usize, output_row_bytes: usize) -> usize {
        encoded_len(TIMELINE_WORDS + lost, self.tokens * output_row_bytes)
    }

    /// Kept choices, ascending, whose results come with chunks that `answered` says are missing;
    /// chunks are counted over all hosts.
    pub fn unanswered(&self, answered: impl Fn(usize) -> bool) -> Vec<u32> {
        let results = self.results.iter().enumerate();
        results
            .filter(|(_, from)| from.chunk != OWN && !answered(from.chunk as usize))
            .map(|(at, _)| index(at))
            .collect()
    }

    /// Position of `endpoint` in [`ShardPlan::hosts`].
    pub fn host_index(&self, endpoint: u32) -> Option<usize> {
        self.hosts
            .binary_search_by_key(&endpoint, |host| host.endpoint)
            .ok()
    }

    /// Writes what goes where. `AHEAD` asks memory for what comes next of each host.
    fn fill<const AHEAD: bool>(&mut self, walk: &Walk<'_>, cursors: &mut [Cursor]) {
        for (at, host) in self.hosts.iter().enumerate() {
            self.row_tokens[host.rows.start + at] = 0;
            self.row_offsets[host.rows.start + at] = 0;
        }
        let experts = &mut self.experts[..];
        let kept = &mut self.kept[..experts.len()];
        let results = &mut self.results[..];
        let row_tokens = &mut self.row_tokens[..];
        let row_offsets = &mut self.row_offsets[..row_tokens.len()];
        walk.each(cursors, |cursor, _, token, expert, choice| {
            if cursor.choices == cursor.end {
                cursor.next_chunk(&self.chunks);
            }
            let at = cursor.choices;
            // Whether a row is new is as good as random: rather than ask, what it begins is written
            // again for each of its choices.
            let row = cursor.rows + walk.begins_row(cursor, token);
            if AHEAD {
                prefetch_to_write(experts, at as usize + LINE);
                prefetch_to_write(kept, at as usize + LINE);
                prefetch_to_write(row_tokens, row as usize + LINE);
                prefetch_to_write(row_offsets, row as usize + LINE);
            }
            experts[at as usize] = expert;
            kept[at as usize] = choice;
            row_tokens[row as usize] = token;
            row_offsets[row as usize] = at + 1 - cursor.first;
            results[choice as usize] = ResultAt {
                chunk: cursor.chunk,
                row: at - cursor.start,
            };
            cursor.choices = at + 1;
            cursor.rows = row;
            cursor.last = walk.mark(token);
        });
    }

    /// Cuts rows for hosts of a group together, and says anew where results arrive.
    fn cut_again(&mut self, limits: Limits, groups: &Groups) {
        let mut segments: Vec<Segment> = Vec::new();
        for (host, plan) in self.hosts.iter().enumerate() {
            for chunk in &self.chunks[plan.chunks.clone()] {
                match segments.last_mut() {
                    Some(last) if (last.host, last.wave) == (host, chunk.wave) => {
                        last.rows.end = chunk.rows.end;
                    }
                    _ => segments.push(Segment {
                        host,
                        wave: chunk.wave,
                        rows: chunk.rows.clone(),
                        chunks: 0..0,
                    }),
                }
            }
        }
        self.cut_in_groups(&mut segments, limits, groups);
        for host in &self.hosts {
            let kept = &self.kept[host.choices.clone()];
            for at in host.chunks.clone() {
                let choices = kept[self.chunks[at].choices.clone()].iter();
                for (row, choice) in (0..).zip(choices) {
                    self.results[*choice as usize] = ResultAt {
                        chunk: index(at),
                        row,
                    };
                }
            }
        }
    }

    /// Lists the choices that no host computes.
    fn keep_own(&mut self, kept: Kept<'_>, table: &HostTable) {
        let mut choice = 0;
        for (token, range) in (0..).zip(kept.offsets.windows(2)) {
            for &target in &kept.targets[range[0] as usize..range[1] as usize] {
                if table.is_free(target) {
                    let expert = Target::unpack(target).expert;
                    self.results[choice] = ResultAt {
                        chunk: OWN,
                        row: index(self.own.len()),
                    };
                    self.own.push(OwnChoice { token, expert });
                }
                choice += 1;
            }
        }
    }
}

/// The kept choices, as they are read again and again.
struct Walk<'a> {
    kept: Kept<'a>,
    table: &'a HostTable,
    /// `[E]` the cursor of each expert's first replica in the first wave.
    usual: Cow<'a, [u32]>,
    waves: usize,
    row_per_choice: bool,
}

// === impl Walk ===

impl Walk<'_> {
    /// Calls `each` with every kept choice that a host computes: the cursor of its host and wave and
    /// where that is, its token, expert and number.
    #[inline(always)]
    fn each(
        &self,
        cursors: &mut [Cursor],
        mut each: impl FnMut(&mut Cursor, usize, u32, u32, u32),
    ) {
        let usual = &self.usual[..];
        let mut choice = 0;
        for (token, range) in (0..).zip(self.kept.offsets.windows(2)) {
            for &target in &self.kept.targets[range[0] as usize..range[1] as usize] {
                // The usual target is the number of its expert.
                match usual.get(target as usize) {
                    Some(&at) => {
                        let at = at as usize;
                        each(&mut cursors[at], at, token, target, choice);
                    }
                    None => {
                        if let Some(at) = self.unusual(target) {
                            let expert = Target::unpack(target).expert;
                            each(&mut cursors[at], at, token, expert, choice);
                        }
                    }
                }
                choice += 1;
            }
        }
    }

    /// The cursor of a target that is not the number of an expert; `None` if no host computes it.
    fn unusual(&self, target: u32) -> Option<usize> {
        let host = self.table.host(target)?;
        let wave = Target::unpack(target).wave;
        Some(host as usize * self.waves + usize::from(wave))
    }

    /// How many choices the row of `choice` has with it, among those of the cursor at `at`.
    fn choices_of_row(&self, at: usize, token: u32, choice: u32) -> u32 {
        if self.row_per_choice {
            return 1;
        }
        let first = self.kept.offsets[token as usize];
        let targets = self.kept.targets[first as usize..=choice as usize].iter();
        let cursor_of = |target: u32| match self.usual.get(target as usize) {
            Some(&at) => Some(at as usize),
            None => self.unusual(target),
        };
        index(
            targets
                .filter(|target| cursor_of(**target) == Some(at))
                .count(),
        )
    }

    /// 1 if a choice of `token` begins a row at `cursor`, else 0.
    #[inline(always)]
    fn begins_row(&self, cursor: &Cursor, token: u32) -> u32 {
        u32::from(cursor.last != token + 1)
    }

    /// What a cursor keeps of a row of `token`: nothing, where every choice begins one.
    #[inline(always)]
    fn mark(&self, token: u32) -> u32 {
        match self.row_per_choice {
            true => 0,
            false => token + 1,
        }
    }
}

impl Drop for ShardPlan {
    fn drop(&mut self) {
        spare::give(&mut self.offsets);
        spare::give(&mut self.weights);
        spare::give(&mut self.results);
        spare::give(&mut self.row_tokens);
        spare::give(&mut self.row_offsets);
        spare::give(&mut self.experts);
        spare::give(&mut self.kept);
    }
}

// === impl HostRows ===

impl HostRows<'_> {
    /// Chunks that are sent before their home's `credits` are used up or results are waited for.
    pub fn first_chunks(&self, credits: usize) -> u32 {
        let first = self.chunks.iter().take_while(|chunk| chunk.wave == 0);
        index(first.count().min(credits))
    }

    /// Calls `each` with the chunks of a segment of these rows. A row that fits no chunk goes alone.
    pub(crate) fn cut(&self, segment: &Segment, limits: Limits, mut each: impl FnMut(Chunk)) {
        let rows = segment.rows.end;
        // No chunk has more rows than their bytes alone allow.
        let most = limits.chunk_bytes / limits.row_bytes.max(1);
        let mut start = segment.rows.start;
        while start < rows {
            let first = self.offsets[start];
            let ends = &self.offsets[start + 1..=rows.min(start + most.max(1))];
            // How many rows fit, found by bisection: what fits falls with every row.
            let (mut fit, mut short) = (1, ends.len() + 1);
            while short - fit > 1 {
                let middle = fit + (short - fit) / 2;
                if limits.fits(middle, (ends[middle - 1] - first) as usize) {
                    fit = middle;
                } else {
                    short = middle;
                }
            }
            each(Chunk {
                rows: start..start + fit,
                choices: first as usize..ends[fit - 1] as usize,
                wave: segment.wave,
            });
            start += fit;
        }
    }
}

fn copied<T: Spare>(from: &[T]) -> Vec<T> {
    let mut copy = spare::take(from.len());
    copy.copy_from_slice(from);
    copy
}
