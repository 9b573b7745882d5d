//! The frames between a coordinator and the homes of its shards (`all-to-all`).
//!
//! A `SHARD` index is `counts [tokens] | targets [choices] | weights [choices] | extents
//! [endpoints]`; a `COMBINED` index is the home's [`Timeline`] and, after a loss, the kept choices
//! that were lost.

use std::ops::Range;

use bytes::Bytes;
use expertmesh_kernels::{Format, decode_row, encode_row};
use expertmesh_wire::{BufferPool, FrameView, FrameWriter, Header, WireError, words};

use crate::jobs::{check_distinct, field};
use crate::plan::{HostTable, Kept, index};
use crate::target::Target;
use crate::timeline::{TIMELINE_WORDS, Timeline};

/// A shard as its home reads it.
#[derive(Debug, Clone)]
pub struct ShardFrame {
    /// The frame; its rows are the shard's tokens.
    pub frame: FrameView,
    /// `[tokens + 1]` offsets of each token's choices.
    pub offsets: Vec<u32>,
    /// `[choices]` packed [`Target`]s.
    pub targets: Vec<u32>,
    /// `[choices]` weights that results are multiplied by.
    pub weights: Vec<f32>,
    /// `[endpoints]` chunks that all homes together send to each host in this step before they
    /// wait for results.
    pub extents: Vec<u32>,
}

/// A shard's outputs as the coordinator reads them.
#[derive(Debug, Clone)]
pub struct CombinedFrame {
    /// The frame; its rows are the outputs in token order.
    pub frame: FrameView,
    /// Where the home's time went.
    pub timeline: Timeline,
    /// Kept choices of the shard that were lost.
    pub lost: Vec<u32>,
}

/// Writes a `SHARD` frame for the tokens whose rows are `rows` `[tokens, hidden]`.
///
/// `stamp` is called once the rows are packed: now on the local clock, and what is left of the
/// deadline then.
pub fn write_shard(
    pool: &BufferPool,
    mut header: Header,
    rows: &[f32],
    kept: Kept<'_>,
    extents: &[u32],
    stamp: impl FnOnce() -> (u64, u64),
) -> Bytes {
    let tokens = kept.offsets.len().saturating_sub(1);
    let choices = kept.targets.len();
    header.row_count = index(tokens);
    let row_bytes = header.row_bytes();
    let mut writer = FrameWriter::new(
        pool,
        &header,
        tokens + 2 * choices + extents.len(),
        tokens * row_bytes,
    );
    let (table, body) = writer.parts();
    let counts = kept.offsets.windows(2).map(|pair| pair[1] - pair[0]);
    let weights = kept.weights.iter().map(|weight| weight.to_bits());
    let values = counts
        .chain(kept.targets.iter().copied())
        .chain(weights)
        .chain(extents.iter().copied());
    for (word, value) in table.chunks_exact_mut(4).zip(values) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    let hidden = header.hidden as usize;
    for (slot, row) in body
        .chunks_exact_mut(row_bytes.max(1))
        .zip(rows.chunks_exact(hidden.max(1)))
    {
        encode_row(header.format, row, slot);
    }
    (header.times.sent_ns, header.budget_ns) = stamp();
    writer.set_header(&header);
    writer.finish()
}

/// Writes a `COMBINED` frame with the outputs `out` `[tokens, hidden]`.
pub fn write_combined(
    pool: &BufferPool,
    mut header: Header,
    out: &[f32],
    timeline: &Timeline,
    lost: &[u32],
    sent_ns: impl FnOnce() -> u64,
) -> Bytes {
    let row_bytes = header.row_bytes();
    let rows = header.row_count as usize * row_bytes;
    let mut writer = FrameWriter::new(pool, &header, TIMELINE_WORDS + lost.len(), rows);
    let (table, body) = writer.parts();
    let (line, tail) = table.split_at_mut(TIMELINE_WORDS * 4);
    timeline.write(line);
    for (word, choice) in tail.chunks_exact_mut(4).zip(lost) {
        word.copy_from_slice(&choice.to_le_bytes());
    }
    let hidden = header.hidden as usize;
    for (slot, row) in body
        .chunks_exact_mut(row_bytes.max(1))
        .zip(out.chunks_exact(hidden.max(1)))
    {
        encode_row(header.format, row, slot);
    }
    header.times.sent_ns = sent_ns();
    writer.set_header(&header);
    writer.finish()
}

// === impl ShardFrame ===

impl ShardFrame {
    /// Reads a `SHARD` frame for a layer of `hidden` elements whose experts are those of `table`.
    ///
    /// # Errors
    /// [`WireError`] naming the field that contradicts the others or the layer.
    pub fn read(frame: FrameView, hidden: u32, table: &HostTable) -> Result<Self, WireError> {
        let header = frame.header;
        if header.hidden != hidden {
            return Err(field(
                "hidden",
                header.hidden,
                format!("{hidden}, the layer's"),
            ));
        }
        let tokens = header.row_count as usize;
        let total = frame.index.len() / 4;
        let fixed = tokens + table.endpoints();
        let rest = total
            .checked_sub(fixed)
            .filter(|rest| rest % 2 == 0)
            .ok_or_else(|| {
                field(
                    "index",
                    format!("{total} words"),
                    format!(
                        "{tokens} counts, an expert and a weight for each choice, {} extents",
                        table.endpoints()
                    ),
                )
            })?;
        let choices = rest / 2;
        let mut offsets = Vec::with_capacity(tokens + 1);
        let mut sum = 0u64;
        offsets.push(0);
        for count in words(&frame.index[..tokens * 4]) {
            sum += u64::from(count);
            offsets.push(u32::try_from(sum).unwrap_or(u32::MAX));
        }
        if sum != choices as u64 {
            return Err(field(
                "index",
                format!("counts of {sum} choices and {choices} experts"),
                "as many experts as choices",
            ));
        }
        let (targets, tail) = frame.index[tokens * 4..].split_at(choices * 4);
        let (weights, extents) = tail.split_at(choices * 4);
        let targets: Vec<u32> = words(targets).collect();
        let unknown = |target: &&u32| table.host(**target).is_none() && !table.is_free(**target);
        if let Some(target) = targets.iter().find(unknown) {
            let Target {
                expert, replica, ..
            } = Target::unpack(*target);
            return Err(field(
                "index",
                format!("replica {replica} of expert {expert}"),
                format!("one that the placement of {} experts has", table.experts()),
            ));
        }
        let experts = targets.iter().map(|target| Target::unpack(*target).expert);
        check_distinct(&offsets, &experts.collect::<Vec<u32>>())?;
        let weights: Vec<f32> = words(weights).map(f32::from_bits).collect();
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return Err(field(
                "index",
                format!("gate weight {weight}"),
                "a finite number",
            ));
        }
        let extents = words(extents).collect();
        Ok(Self {
            frame,
            offsets,
            targets,
            weights,
            extents,
        })
    }

    /// The choices, as a plan takes them.
    pub fn kept(&self) -> Kept<'_> {
        Kept {
            offsets: &self.offsets,
            targets: &self.targets,
            weights: &self.weights,
        }
    }
}

// === impl CombinedFrame ===

impl CombinedFrame {
    /// Reads a `COMBINED` frame for a shard of `tokens` tokens and `choices` kept choices.
    ///
    /// # Errors
    /// [`WireError`] naming the field that contradicts the shard.
    pub fn read(
        frame: FrameView,
        tokens: usize,
        choices: usize,
        hidden: u32,
        format: Format,
    ) -> Result<Self, WireError> {
        let header = frame.header;
        if header.row_count as usize != tokens {
            return Err(field(
                "row_count",
                header.row_count,
                format!("{tokens}, the shard's"),
            ));
        }
        if header.hidden != hidden || header.format != format {
            return Err(field(
                "hidden",
                format!("{} {}", header.hidden, header.format),
                format!("{hidden} {format}"),
            ));
        }
        let timeline = Timeline::read(&frame.index).ok_or_else(|| {
            field(
                "index",
                format!("{} bytes", frame.index.len()),
                format!("at least {} bytes of timeline", TIMELINE_WORDS * 4),
            )
        })?;
        if !timeline.is_ordered() {
            return Err(field(
                "index",
                "a timeline out of order",
                "packed <= received <= started <= computed <= arrived <= done",
            ));
        }
        let lost: Vec<u32> = words(&frame.index[TIMELINE_WORDS * 4..]).collect();
        if let Some(choice) = lost.iter().find(|choice| **choice as usize >= choices) {
            return Err(field(
                "index",
                format!("lost choice {choice}"),
                format!("one of the shard's {choices}"),
            ));
        }
        Ok(Self {
            frame,
            timeline,
            lost,
        })
    }

    /// Decodes the outputs of `tokens`, counted from the shard's first, into `out`
    /// `[tokens, hidden]`.
    pub fn outputs(&self, tokens: Range<usize>, out: &mut [f32]) {
        let format = self.frame.header.format;
        let hidden = (self.frame.header.hidden as usize).max(1);
        for (token, slot) in tokens.zip(out.chunks_exact_mut(hidden)) {
            decode_row(format, self.frame.row(token), slot);
        }
    }
}
