//! Rows into frames: a chunk as `ROWS`, a bundle as `RELAY`.

use bytes::Bytes;
use expertmesh_kernels::{Format, decode_row, encode_row};
use expertmesh_wire::{BufferPool, FrameKind, FrameWriter, Header, Tag, encoded_len};

use super::HomeRun;
use crate::bundles::{Bundle, step};
use crate::plan::index;
use crate::timeline::ChunkWay;

/// The shard's token rows.
#[derive(Debug, Clone, Copy)]
pub enum RowSource<'a> {
    /// `[tokens, hidden]`, encoded when packed.
    F32(&'a [f32]),
    /// `[tokens]` rows in the wire's format already.
    Encoded(&'a [u8]),
}

/// Fills the words of an index one by one.
struct Words<'a>(std::slice::ChunksExactMut<'a, u8>);

// === impl Words ===

impl Words<'_> {
    fn push(&mut self, word: u32) {
        if let Some(slot) = self.0.next() {
            slot.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn extend(&mut self, words: impl IntoIterator<Item = u32>) {
        words.into_iter().for_each(|word| self.push(word));
    }
}

// === impl RowSource ===

impl RowSource<'_> {
    /// Copies or encodes the rows of `tokens` into `slots`.
    fn pack<'a>(
        self,
        format: Format,
        hidden: usize,
        tokens: impl Iterator<Item = u32>,
        slots: impl Iterator<Item = &'a mut [u8]>,
    ) {
        let row_bytes = hidden * format.bytes();
        for (slot, token) in slots.zip(tokens) {
            let token = token as usize;
            match self {
                Self::F32(x) => {
                    encode_row(format, &x[token * hidden..(token + 1) * hidden], slot);
                }
                Self::Encoded(x) => {
                    slot.copy_from_slice(&x[token * row_bytes..(token + 1) * row_bytes]);
                }
            }
        }
    }

    /// The row `[hidden]` of `token`, decoded.
    fn read(self, format: Format, token: usize, row: &mut [f32]) {
        let hidden = row.len();
        match self {
            Self::F32(x) => {
                row.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
                // As a row that has passed the wire: other homes have no other.
                if format != Format::F32 {
                    let mut bytes = vec![0; hidden * format.bytes()];
                    encode_row(format, row, &mut bytes);
                    decode_row(format, &bytes, row);
                }
            }
            Self::Encoded(x) => {
                let row_bytes = hidden * format.bytes();
                decode_row(format, &x[token * row_bytes..(token + 1) * row_bytes], row);
            }
        }
    }
}

// === impl HomeRun ===

impl HomeRun {
    pub(super) fn pack(
        &mut self,
        host: usize,
        chunk: usize,
        rows: RowSource<'_>,
        pool: &BufferPool,
        now_ns: &impl Fn() -> u64,
    ) -> Bytes {
        let began = now_ns();
        let plan = self.plan.host(host);
        let piece = &plan.chunks[chunk];
        let mut header = self.header(FrameKind::Rows, index(chunk));
        header.extent = self.extent(host);
        header.row_count = index(piece.rows.len());
        let row_bytes = header.row_bytes();
        let words = piece.rows.len() + piece.choices.len();
        let mut writer = FrameWriter::new(pool, &header, words, piece.rows.len() * row_bytes);
        let (table, body) = writer.parts();
        let mut table = Words(table.chunks_exact_mut(4));
        let counts = piece.rows.clone();
        table.extend(counts.map(|row| plan.offsets[row + 1] - plan.offsets[row]));
        table.extend(plan.experts[piece.choices.clone()].iter().copied());
        let slots = body.chunks_exact_mut(row_bytes.max(1));
        let tokens = plan.tokens[piece.rows.clone()].iter().copied();
        if self.setup.rule.weight_on_input {
            // Every choice has a row of its own.
            let weights = plan.kept[piece.choices.clone()].iter();
            let weights = weights.map(|kept| self.plan.weights[*kept as usize]);
            self.pack_weighted(rows, tokens.zip(weights), slots);
        } else {
            rows.pack(header.format, self.setup.hidden as usize, tokens, slots);
        }
        let now = now_ns();
        let endpoint = plan.endpoint;
        let request_bytes = encoded_len(words, piece.rows.len() * row_bytes) as u64;
        let at = self.plan.hosts[host].chunks.start + chunk;
        self.packed(at, endpoint, (began, now), request_bytes);
        self.stamp(writer, header, now)
    }

    pub(super) fn pack_bundle(
        &mut self,
        at: usize,
        rows: RowSource<'_>,
        pool: &BufferPool,
        now_ns: &impl Fn() -> u64,
    ) -> Bytes {
        let began = now_ns();
        let bundle = &self.plan.bundles()[at];
        let mut header = self.header(FrameKind::Relay, index(at));
        header.row_count = index(bundle.rows);
        let row_bytes = header.row_bytes();
        let words = self.plan.relay_words(bundle);
        let mut writer = FrameWriter::new(pool, &header, words, bundle.rows * row_bytes);
        let (table, body) = writer.parts();
        let lists = self.bundle_lists(bundle, Words(table.chunks_exact_mut(4)));
        let slots = body.chunks_exact_mut(row_bytes.max(1));
        let weight_on_input = self.setup.rule.weight_on_input;
        if weight_on_input {
            self.pack_weighted(rows, lists.into_iter(), slots);
        } else {
            let tokens = lists.into_iter().map(|(token, _)| token);
            rows.pack(header.format, self.setup.hidden as usize, tokens, slots);
        }
        let now = now_ns();
        for part in bundle.parts.clone() {
            let part = self.plan.parts()[part];
            let host = self.plan.host(part.host);
            let (endpoint, piece) = (host.endpoint, &host.chunks[part.chunk]);
            // What the relay hands on, as if it had come from here.
            let words = piece.rows.len() + piece.choices.len();
            let bytes = encoded_len(words, piece.rows.len() * row_bytes) as u64;
            let at = self.plan.chunk_at(part);
            self.packed(at, endpoint, (began, now), bytes);
        }
        self.stamp(writer, header, now)
    }

    /// Remembers when chunk `at` of the plan was packed, from begin to end.
    fn packed(&mut self, at: usize, endpoint: u32, (began, packed): (u64, u64), bytes: u64) {
        self.moments.packed(at, packed);
        self.ways[at] = ChunkWay {
            endpoint,
            began,
            packed,
            request_bytes: bytes,
            ..ChunkWay::default()
        };
    }

    /// Writes who gets what; returns the token of each row, and the weight of the first choice that
    /// it is for.
    fn bundle_lists(&self, bundle: &Bundle, mut table: Words<'_>) -> Vec<(u32, f32)> {
        let parts = &self.plan.parts()[bundle.parts.clone()];
        table.push(index(parts.len()));
        for part in parts {
            let host = self.plan.host(part.host);
            let chunk = &host.chunks[part.chunk];
            let sizes = [chunk.rows.len(), chunk.choices.len()].map(index);
            let extent = self.extent(part.host);
            table.extend([host.endpoint, index(part.chunk), extent, sizes[0], sizes[1]]);
        }
        let mut lines = self.plan.lines(bundle);
        let mut numbers = vec![Vec::new(); lines.len()];
        let mut rows: Vec<(u32, f32)> = Vec::with_capacity(bundle.rows);
        while let Some(token) = step(&mut lines, self.setup.rule.weight_on_input) {
            let mut weight = None;
            for (line, numbers) in lines.iter().zip(&mut numbers) {
                let Some(row) = line.taken() else { continue };
                numbers.push(index(rows.len()));
                let kept = line.rows.kept[line.rows.offsets[row] as usize];
                weight = weight.or(Some(self.plan.weights[kept as usize]));
            }
            rows.push((token, weight.unwrap_or_default()));
        }
        for (part, numbers) in parts.iter().zip(numbers) {
            let host = self.plan.host(part.host);
            let chunk = &host.chunks[part.chunk];
            table.extend(numbers);
            let counts = chunk.rows.clone();
            table.extend(counts.map(|row| host.offsets[row + 1] - host.offsets[row]));
            table.extend(host.experts[chunk.choices.clone()].iter().copied());
        }
        rows
    }

    /// Chunks that all homes together send to a host before they wait for results.
    fn extent(&self, host: usize) -> u32 {
        let plan = self.plan.host(host);
        let first_wave = plan.chunks.iter().take_while(|chunk| chunk.wave == 0);
        let alone = || index(first_wave.count().min(self.setup.credits));
        let told = self.setup.extents.get(plan.endpoint as usize).copied();
        told.unwrap_or_else(alone)
    }

    /// Rows of tokens multiplied by the weights of the choices that they are for.
    fn pack_weighted<'a>(
        &self,
        rows: RowSource<'_>,
        tokens: impl Iterator<Item = (u32, f32)>,
        slots: impl Iterator<Item = &'a mut [u8]>,
    ) {
        let (rule, hidden) = (self.setup.rule, self.setup.hidden as usize);
        let mut row = vec![0.0; hidden];
        for (slot, (token, weight)) in slots.zip(tokens) {
            rows.read(rule.row_format, token as usize, &mut row);
            rule.weigh_input(weight, &mut row);
            encode_row(rule.row_format, &row, slot);
        }
    }

    /// A finished frame that is handed over at `now_ns`.
    fn stamp(&self, mut writer: FrameWriter, mut header: Header, now_ns: u64) -> Bytes {
        header.times.sent_ns = now_ns;
        header.budget_ns = self.setup.deadline_ns.saturating_sub(now_ns);
        writer.set_header(&header);
        writer.finish()
    }

    fn header(&self, kind: FrameKind, chunk: u32) -> Header {
        let tag = Tag {
            chunk,
            ..self.setup.tag
        };
        Header::new(kind, tag, self.setup.hidden, self.setup.rule.row_format)
    }
}
