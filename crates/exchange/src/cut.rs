//! Where rows and choices of each host lie in a plan, and how they are cut into chunks.

use std::ops::Range;

use crate::plan::{Limits, index};
use crate::shard_plan::{Chunk, HostPlan};

/// What is known of an endpoint's wave while a plan is made: while choices are counted, and while
/// the plan's arrays are filled.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Choices so far; when filling, in the flat arrays.
    pub(crate) choices: u32,
    /// Rows so far, likewise.
    pub(crate) rows: u32,
    /// 1 + the token of the last row; 0 before the first, and where every choice has a row.
    pub(crate) last: u32,
    /// Filling: where the choices of the host begin.
    pub(crate) first: u32,
    /// Counting: rows before the chunk. Filling: the host's position in the plan, which its rows
    /// are counted with.
    pub(crate) host: u32,
    /// Counting: chunks before this one. Filling: the chunk that the next choice is in.
    pub(crate) chunk: u32,
    /// Where the chunk begins among choices.
    pub(crate) start: u32,
    /// Counting: choices up to which it is not full for sure. Filling: where it ends.
    pub(crate) end: u32,
}

/// Cuts the rows of every cursor into chunks, each as long as the limits allow. None spans waves; a
/// row that fits no chunk goes alone.
pub(crate) struct Cutter {
    limits: Limits,
    /// Choices that fit a chunk, whatever their rows.
    sure: u32,
    /// Chunks that are full, with the position of their cursor.
    full: Vec<(usize, Chunk)>,
}

// === impl Cursor ===

impl Cursor {
    /// While counting: the chunk that ends before these rows and choices.
    fn chunk_before(&self, rows: u32, choices: u32) -> Chunk {
        Chunk {
            rows: self.host as usize..rows as usize,
            choices: self.start as usize..choices as usize,
            wave: 0,
        }
    }

    /// Before filling: a `chunk` that was counted within its wave, counted within its host.
    fn in_host(&self, chunk: Chunk, host: &HostPlan, wave: usize) -> Chunk {
        let moved = |range: Range<usize>, by| range.start + by..range.end + by;
        Chunk {
            rows: moved(chunk.rows, self.rows as usize - host.rows.start),
            choices: moved(chunk.choices, self.choices as usize - host.choices.start),
            // Waves are packed in 8 bits.
            wave: u8::try_from(wave).unwrap_or(u8::MAX),
        }
    }

    /// Goes on to the chunk after one that is full.
    #[cold]
    pub(crate) fn next_chunk(&mut self, chunks: &[Chunk]) {
        self.chunk += 1;
        self.start = self.end;
        self.end = self.first + index(chunks[self.chunk as usize].choices.end);
    }
}

// === impl Cutter ===

impl Cutter {
    /// For a plan of `choices` at most.
    pub(crate) fn new(limits: Limits, choices: usize) -> Self {
        let sure = limits.choices_that_fit();
        Self {
            limits,
            sure: index(sure),
            // Two chunks that follow each other have more choices than are sure to fit one.
            full: Vec::with_capacity(2 * choices / (sure + 1)),
        }
    }

    /// Cursors before the first choice.
    pub(crate) fn cursors(&self, count: usize) -> Vec<Cursor> {
        let none = Cursor {
            end: self.sure,
            ..Cursor::default()
        };
        vec![none; count]
    }

    /// Looks at the choice that the cursor at `at` has just counted; `of_row` says how many choices
    /// its row has so far.
    #[inline(always)]
    pub(crate) fn add(&mut self, cursor: &mut Cursor, at: usize, of_row: impl FnOnce() -> u32) {
        if cursor.choices > cursor.end {
            self.cut(cursor, at, of_row);
        }
    }

    /// Ends a chunk before the last row, if it does not fit with it.
    #[cold]
    fn cut(&mut self, cursor: &mut Cursor, at: usize, of_row: impl FnOnce() -> u32) {
        let rows = cursor.rows - cursor.host;
        let choices = cursor.choices - cursor.start;
        if rows < 2 || self.limits.fits(rows as usize, choices as usize) {
            return;
        }
        let first = cursor.choices - of_row();
        let chunk = cursor.chunk_before(cursor.rows - 1, first);
        self.full.push((at, chunk));
        cursor.host = cursor.rows - 1;
        cursor.start = first;
        cursor.end = first.saturating_add(self.sure);
        cursor.chunk += 1;
    }

    /// Gives every endpoint that has choices its place, wave after wave, and sets the cursors there.
    pub(crate) fn lay_out(
        self,
        cursors: &mut [Cursor],
        waves: usize,
    ) -> (Vec<HostPlan>, Vec<Chunk>) {
        let used = cursors.iter().filter(|cursor| cursor.choices > 0).count();
        let mut hosts: Vec<HostPlan> = Vec::with_capacity(used);
        let mut chunks = vec![Chunk::default(); used + self.full.len()];
        let (mut rows, mut choices, mut chunk) = (0, 0, 0);
        let in_use = |(_, cursor): &(usize, &mut Cursor)| cursor.choices > 0;
        for (at, cursor) in cursors.iter_mut().enumerate().filter(in_use) {
            let counted = *cursor;
            let endpoint = index(at / waves);
            if hosts.last().is_none_or(|host| host.endpoint != endpoint) {
                hosts.push(HostPlan {
                    endpoint,
                    rows: rows..rows,
                    choices: choices..choices,
                    chunks: chunk..chunk,
                });
            }
            let host = hosts.len() - 1;
            let plan = &mut hosts[host];
            *cursor = Cursor {
                choices: index(choices),
                rows: index(rows),
                first: index(plan.choices.start),
                host: index(host),
                chunk: index(chunk),
                start: index(choices),
                ..Cursor::default()
            };
            let last = chunk + counted.chunk as usize;
            let rest = counted.chunk_before(counted.rows, counted.choices);
            chunks[last] = cursor.in_host(rest, plan, at % waves);
            (rows, choices) = (
                rows + counted.rows as usize,
                choices + counted.choices as usize,
            );
            chunk = last + 1;
            (plan.rows.end, plan.choices.end, plan.chunks.end) = (rows, choices, chunk);
        }
        for (at, full) in self.full {
            let cursor = &mut cursors[at];
            let host = &hosts[cursor.host as usize];
            // How many of its chunks are here.
            let place = cursor.chunk + cursor.end;
            cursor.end += 1;
            chunks[place as usize] = cursor.in_host(full, host, at % waves);
        }
        for cursor in cursors {
            // Cursors that are not in use are never filled from.
            let chunk = chunks.get(cursor.chunk as usize);
            let end = chunk.map_or(0, |chunk| chunk.choices.end);
            cursor.end = cursor.first + index(end);
            cursor.rows += cursor.host;
        }
        (hosts, chunks)
    }
}
