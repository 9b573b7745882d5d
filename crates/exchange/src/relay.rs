//! The `RELAY` frame: rows for several workers of a group, each row once, and who gets which.
//!
//! Its index is `parts [1] | heads [parts × 5] |` and, part after part, `numbers [rows] | counts
//! [rows] | experts [choices]`. A head is (endpoint, chunk, extent, rows, choices); `numbers` are
//! positions among the rows of the frame; counts and experts are those of the `ROWS` frame that the
//! relay makes of the part, whose tag is the frame's with the chunk of the head.

use std::ops::Range;

use bytes::Bytes;
use expertmesh_wire::{BufferPool, FrameKind, FrameView, FrameWriter, Header, WireError, words};

use crate::bundles::{PART_HEAD, RELAY_HEAD};
use crate::jobs::{check_distinct, field};
use crate::plan::{HostTable, index};

/// Rows to be passed on, checked against what was announced.
#[derive(Debug, Clone)]
pub struct RelayFrame {
    frame: FrameView,
    parts: Vec<RelayPart>,
}

/// What one worker gets of a [`RelayFrame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPart {
    /// Endpoint id of the worker.
    pub endpoint: u32,
    /// Position among the chunks of the home for this worker.
    pub chunk: u32,
    /// Chunks that all homes together send to this worker before they wait for results.
    pub extent: u32,
    /// Words of the index: row numbers, then counts, then experts.
    numbers: Range<usize>,
    counts: Range<usize>,
    experts: Range<usize>,
}

/// The index of a frame, as a reader consumes it.
struct Cursor<'a> {
    index: &'a [u8],
    at: usize,
}

// === impl Cursor ===

impl Cursor<'_> {
    /// The next `count` words, if there are as many.
    fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(count)?;
        if end > self.index.len() / 4 {
            return None;
        }
        let taken = self.at..end;
        self.at = end;
        Some(taken)
    }
}

// === impl RelayFrame ===

impl RelayFrame {
    /// Reads a `RELAY` frame that the home `from` sent to `me`, for a layer of `hidden` elements
    /// whose experts and groups are those of `table`.
    ///
    /// # Errors
    /// [`WireError`] naming the field: a home that is not the sender, or of the receiver's own
    /// group; rows of another width; lists that do not add up to the index; workers that are not of
    /// the receiver's group or not ascending; rows that do not exist, are not ascending in a list
    /// or in none; experts that their worker does not have, or one twice for a row.
    pub fn read(
        frame: FrameView,
        hidden: u32,
        [me, from]: [u32; 2],
        table: &HostTable,
    ) -> Result<Self, WireError> {
        let header = frame.header;
        if header.hidden != hidden {
            let expected = format!("{hidden}, the layer's");
            return Err(field("hidden", header.hidden, expected));
        }
        let groups = table.groups().ok_or_else(|| {
            let expected = "ROWS or SHARD: nothing is relayed without groups";
            field("kind", "RELAY", expected)
        })?;
        let foreign = groups.group(from).is_some() && !groups.together(from, me);
        if header.tag.shard != from || !foreign {
            let held = format!("{} in a frame of endpoint {from}", header.tag.shard);
            let expected = "the sender, a worker of another group";
            return Err(field("shard", held, expected));
        }
        let parts = read_parts(&frame)?;
        let mut used = vec![false; header.row_count as usize];
        let mut last = None;
        for part in &parts {
            if last >= Some(part.endpoint) || !groups.together(part.endpoint, me) {
                let held = format!("a part for endpoint {}", part.endpoint);
                let expected = "workers of the receiver's group, ascending";
                return Err(field("index", held, expected));
            }
            last = Some(part.endpoint);
            part.check(&frame.index, &mut used, table)?;
        }
        if let Some(row) = used.iter().position(|used| !used) {
            let held = format!("row {row} for nobody");
            return Err(field("index", held, "every row in a part"));
        }
        Ok(Self { frame, parts })
    }

    /// The header of the frame.
    pub fn header(&self) -> &Header {
        &self.frame.header
    }

    /// What each worker gets, ascending by endpoint.
    pub fn parts(&self) -> &[RelayPart] {
        &self.parts
    }

    /// The `ROWS` frame that the home means for a part. `stamp` is called once its rows are there:
    /// now on the local clock, and what is left of the home's budget then.
    pub fn rows_frame(
        &self,
        part: &RelayPart,
        pool: &BufferPool,
        stamp: impl FnOnce() -> (u64, u64),
    ) -> Bytes {
        let mut header = self.frame.header;
        header.kind = FrameKind::Rows;
        header.tag.chunk = part.chunk;
        header.extent = part.extent;
        header.row_count = index(part.numbers.len());
        let row_bytes = header.row_bytes();
        let lists = part.counts.start..part.experts.end;
        let rows = part.numbers.len() * row_bytes;
        let mut writer = FrameWriter::new(pool, &header, lists.len(), rows);
        let (table, body) = writer.parts();
        table.copy_from_slice(&self.frame.index[lists.start * 4..lists.end * 4]);
        let numbers = part.words(&part.numbers, &self.frame.index);
        for (slot, row) in body.chunks_exact_mut(row_bytes.max(1)).zip(numbers) {
            slot.copy_from_slice(self.frame.row(row as usize));
        }
        (header.times.sent_ns, header.budget_ns) = stamp();
        writer.set_header(&header);
        writer.finish()
    }
}

/// The lists of a frame, in whole.
fn read_parts(frame: &FrameView) -> Result<Vec<RelayPart>, WireError> {
    let total = frame.index.len() / 4;
    let cut = |what: &str| {
        let expected = "a count of parts, a head for each, and the lists that the heads announce";
        field("index", format!("{total} words, {what}"), expected)
    };
    let mut cursor = Cursor {
        index: &frame.index,
        at: 0,
    };
    let head = cursor.take(RELAY_HEAD).ok_or_else(|| cut("no count"))?;
    let count = words(&frame.index[head.start * 4..]).next().unwrap_or(0) as usize;
    let heads = count
        .checked_mul(PART_HEAD)
        .and_then(|len| cursor.take(len))
        .ok_or_else(|| cut("too few for the heads"))?;
    let heads: Vec<u32> = words(&frame.index[heads.start * 4..heads.end * 4]).collect();
    let mut parts = Vec::with_capacity(count);
    for head in heads.chunks_exact(PART_HEAD) {
        let (rows, choices) = (head[3] as usize, head[4] as usize);
        let mut list = |len| cursor.take(len).ok_or_else(|| cut("too few for the lists"));
        parts.push(RelayPart {
            endpoint: head[0],
            chunk: head[1],
            extent: head[2],
            numbers: list(rows)?,
            counts: list(rows)?,
            experts: list(choices)?,
        });
    }
    if cursor.at != total {
        return Err(cut("more than the lists"));
    }
    Ok(parts)
}

// === impl RelayPart ===

impl RelayPart {
    /// Rows that the worker gets.
    pub fn rows(&self) -> usize {
        self.numbers.len()
    }

    fn words<'a>(
        &self,
        range: &Range<usize>,
        index: &'a [u8],
    ) -> impl ExactSizeIterator<Item = u32> + 'a {
        words(&index[range.start * 4..range.end * 4])
    }

    /// Checks the lists and marks the rows in `used`, `[rows of the frame]`.
    fn check(&self, index: &[u8], used: &mut [bool], table: &HostTable) -> Result<(), WireError> {
        if self.numbers.is_empty() {
            let held = format!("no rows for endpoint {}", self.endpoint);
            return Err(field("index", held, "at least one row a part"));
        }
        let mut last = None;
        for number in self.words(&self.numbers, index) {
            let slot = used
                .get_mut(number as usize)
                .filter(|_| last < Some(number));
            let Some(slot) = slot else {
                let held = format!("row {number}");
                let expected = "row numbers of the frame, ascending in a part";
                return Err(field("index", held, expected));
            };
            *slot = true;
            last = Some(number);
        }
        let mut offsets = vec![0];
        let mut sum = 0u32;
        for count in self.words(&self.counts, index) {
            sum = sum.saturating_add(count);
            offsets.push(sum);
            if count == 0 {
                let expected = "at least one expert a row";
                return Err(field("index", "a row for no expert", expected));
            }
        }
        let experts: Vec<u32> = self.words(&self.experts, index).collect();
        if sum as usize != experts.len() {
            let held = format!("counts of {sum} choices and {} experts", experts.len());
            return Err(field("index", held, "as many experts as choices"));
        }
        let wrong = experts
            .iter()
            .find(|one| !table.holds(self.endpoint, **one));
        if let Some(expert) = wrong {
            let held = format!("expert {expert} at endpoint {}", self.endpoint);
            return Err(field(
                "index",
                held,
                "an expert that the placement has there",
            ));
        }
        check_distinct(&offsets, &experts)
    }
}
