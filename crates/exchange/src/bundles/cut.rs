//! Cutting the rows for hosts of one group together.
//!
//! In each wave rows are taken token after token, all hosts' rows of a token with it, until the
//! `RELAY` frame or any host's `ROWS` or results would exceed the chunk's limit. What a host has of
//! that bundle is one chunk. Hosts of the home's own group, and one that is alone of its group in the
//! plan, are cut as in `all-to-all`.

use expertmesh_wire::encoded_len;

use super::line::{Line, step};
use super::{Bundle, Bundles, PART_HEAD, Part, RELAY_HEAD};
use crate::groups::Groups;
use crate::plan::Limits;
use crate::shard_plan::{Chunk, HostRows, Segment, ShardPlan};

/// Whether what was walked since the last cut fits one bundle. Less fits where more does.
fn fits(lines: &[Line<'_>], rows: usize, limits: Limits) -> bool {
    let (mut words, mut hosts) = (RELAY_HEAD, 0);
    for line in lines.iter().filter(|line| line.at > line.begin) {
        let (own, choices) = (line.at - line.begin, line.choices().len());
        if !limits.fits(own, choices) {
            return false;
        }
        words += PART_HEAD + 2 * own + choices;
        hosts += 1;
    }
    hosts < 2 || encoded_len(words, rows * limits.row_bytes) <= limits.chunk_bytes
}

/// Chunks as they are cut, bundle after bundle, before they have their places in the plan.
#[derive(Default)]
struct Cuts {
    bundles: Bundles,
    /// One for each part: its segment, and the chunk.
    chunks: Vec<(usize, Chunk)>,
}

// === impl Cuts ===

impl Cuts {
    fn add(&mut self, segment: usize, chunk: Chunk) {
        self.chunks.push((segment, chunk));
    }

    /// Closes a bundle over the chunks that were added since the last.
    fn close(&mut self, relay: u32, wave: u8, rows: usize) {
        let last = self.bundles.all.last();
        let parts = last.map_or(0, |bundle| bundle.parts.end)..self.chunks.len();
        self.bundles.all.push(Bundle {
            relay,
            wave,
            rows,
            parts,
        });
    }

    /// A wave of one host, as `all-to-all` cuts it.
    fn alone(&mut self, rows: &HostRows<'_>, at: usize, segment: &Segment, limits: Limits) {
        rows.cut(segment, limits, |chunk| {
            let rows_of = chunk.rows.len();
            self.add(at, chunk);
            self.close(rows.endpoint, segment.wave, rows_of);
        });
    }

    /// A wave of several hosts of a group.
    fn together(&mut self, lines: &mut [Line<'_>], wave: u8, limits: Limits, to: &Relays<'_>) {
        let mut rows = 0;
        loop {
            let stepped = step(lines, limits.row_per_choice).is_some();
            let full = stepped && rows > 0 && !fits(lines, rows + 1, limits);
            if full {
                for line in &mut *lines {
                    line.at -= usize::from(line.took);
                }
            } else if stepped {
                rows += 1;
                continue;
            }
            if rows > 0 {
                self.bundle(lines, wave, rows, to);
            }
            if !full {
                return;
            }
            rows = 0;
        }
    }

    /// What was walked becomes a bundle.
    fn bundle(&mut self, lines: &mut [Line<'_>], wave: u8, rows: usize, to: &Relays<'_>) {
        let mut relay = None;
        for line in lines.iter_mut().filter(|line| line.at > line.begin) {
            let endpoint = line.rows.endpoint;
            let nearest = (to.groups.distance(to.home, endpoint), endpoint);
            relay = Some(relay.map_or(nearest, |best: (u32, u32)| best.min(nearest)));
            let chunk = Chunk {
                rows: line.begin..line.at,
                choices: line.choices(),
                wave,
            };
            self.chunks.push((line.segment, chunk));
            line.begin = line.at;
        }
        if let Some((_, relay)) = relay {
            self.close(relay, wave, rows);
        }
    }
}

/// Who passes on what.
struct Relays<'a> {
    home: u32,
    groups: &'a Groups,
}

// === impl ShardPlan ===

impl ShardPlan {
    /// Whether rows for several hosts of a group, not the home's own, travel together.
    pub(crate) fn has_company(&self, groups: &Groups) -> bool {
        let foreign = |endpoint: u32| {
            let group = groups.group(endpoint);
            group.filter(|_| !groups.together(endpoint, self.home))
        };
        let mut seen: Vec<u32> = self
            .hosts
            .iter()
            .filter_map(|host| foreign(host.endpoint))
            .collect();
        seen.sort_unstable();
        seen.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Cuts every host's rows into chunks, those of hosts of a foreign group together.
    pub(crate) fn cut_in_groups(
        &mut self,
        segments: &mut [Segment],
        limits: Limits,
        groups: &Groups,
    ) {
        let mut cuts = Cuts::default();
        for lane in self.lanes_by_group(groups) {
            let first = cuts.bundles.all.len();
            self.cut_lane(&lane, segments, limits, groups, &mut cuts);
            let bundles = first..cuts.bundles.all.len();
            cuts.bundles.lanes.push(bundles);
        }
        let Cuts {
            mut bundles,
            chunks,
        } = cuts;
        let mut next = vec![0; segments.len()];
        for (segment, _) in &chunks {
            next[*segment] += 1;
        }
        let mut begins = 0;
        for (segment, count) in segments.iter_mut().zip(&mut next) {
            segment.chunks = begins..begins + *count;
            *count = begins;
            begins = segment.chunks.end;
        }
        self.place_chunks(segments);
        let nothing = Chunk {
            rows: 0..0,
            choices: 0..0,
            wave: 0,
        };
        self.chunks = vec![nothing; chunks.len()];
        bundles.parts.reserve(chunks.len());
        for (segment, chunk) in chunks {
            let at = next[segment];
            next[segment] += 1;
            self.chunks[at] = chunk;
            let host = segments[segment].host;
            bundles.parts.push(Part {
                host,
                chunk: at - self.hosts[host].chunks.start,
            });
        }
        self.bundles = bundles;
    }

    /// Hosts by lane: those of a foreign group, and each other host alone; in the order of the
    /// first host of each.
    fn lanes_by_group(&self, groups: &Groups) -> Vec<Vec<usize>> {
        let mut lanes: Vec<Vec<usize>> = Vec::new();
        let mut lane_of = vec![None; groups.table().len()];
        for (at, host) in self.hosts.iter().enumerate() {
            let group = groups.group(host.endpoint);
            let shared = group.filter(|_| !groups.together(host.endpoint, self.home));
            let lane = shared.and_then(|group| lane_of[group as usize]);
            match lane {
                Some(lane) => {
                    let lane: &mut Vec<usize> = &mut lanes[lane];
                    lane.push(at);
                }
                None => {
                    if let Some(group) = shared {
                        lane_of[group as usize] = Some(lanes.len());
                    }
                    lanes.push(vec![at]);
                }
            }
        }
        lanes
    }

    fn cut_lane(
        &self,
        hosts: &[usize],
        segments: &[Segment],
        limits: Limits,
        groups: &Groups,
        cuts: &mut Cuts,
    ) {
        // Segments lie host after host, wave after wave.
        let of_host = |host: usize| {
            let first = segments.partition_point(|segment| segment.host < host);
            let mine = segments[first..]
                .iter()
                .take_while(move |one| one.host == host);
            (first..).zip(mine)
        };
        let all: Vec<(usize, &Segment)> = hosts.iter().flat_map(|host| of_host(*host)).collect();
        let mut waves: Vec<u8> = all.iter().map(|(_, segment)| segment.wave).collect();
        waves.sort_unstable();
        waves.dedup();
        for wave in waves {
            let here = all.iter().filter(|(_, segment)| segment.wave == wave);
            let mut lines: Vec<Line<'_>> = here
                .clone()
                .map(|(at, segment)| Line::new(self.host(segment.host), segment.rows.clone(), *at))
                .collect();
            if let [line] = lines.as_slice() {
                let at = line.segment;
                cuts.alone(&line.rows, at, &segments[at], limits);
            } else {
                let home = self.home;
                cuts.together(&mut lines, wave, limits, &Relays { home, groups });
            }
        }
    }

    /// Where the chunks of each host lie, once those of its segments are known.
    pub(crate) fn place_chunks(&mut self, segments: &[Segment]) {
        for segment in segments {
            let chunks = &mut self.hosts[segment.host].chunks;
            if segment.rows.start == 0 {
                chunks.start = segment.chunks.start;
            }
            chunks.end = segment.chunks.end;
        }
    }
}
