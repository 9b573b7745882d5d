//! `.moetrace`: a whole trace in bincode format.
//!
//! The file is what bincode 1 with its usual settings (fixed-width little-endian integers, `u64`
//! lengths, one byte before an optional value) makes of
//! `(magic: [u8; 8], version: u32, header: Header, records: Vec<Record>)`. `wincode` reads and
//! writes the values one by one: its own limit, 4 MiB a sequence, would refuse long steps in
//! either direction, and without a limit it would believe any length. So the limit is off, and
//! every length is held against the bytes that are left before a sequence is read.

use wincode::config::{self, Configuration, PREALLOCATION_SIZE_LIMIT_DISABLED};
use wincode::{SchemaReadOwned, SchemaWrite};

use crate::trace::{Header, Record, Trace, TraceError};

/// First bytes of every `.moetrace` file.
pub(super) const MAGIC: [u8; 8] = *b"MOETRACE";
/// Version of what follows; readers know this one alone.
pub(super) const VERSION: u32 = 1;

type Config = Configuration<true, PREALLOCATION_SIZE_LIMIT_DISABLED>;
const CONFIG: Config = Configuration::default().disable_preallocation_size_limit();

/// The file that holds `trace`.
pub(super) fn write(trace: &Trace) -> Result<Vec<u8>, TraceError> {
    let mut out = Writer(Vec::new());
    out.put(&MAGIC)?;
    out.put(&VERSION)?;
    let Header {
        experts,
        top_k,
        layers,
        source,
        seed,
    } = trace.header();
    out.put(experts)?;
    out.put(top_k)?;
    out.put(layers)?;
    out.put(source)?;
    out.put(seed)?;
    out.put(&(trace.records().len() as u64))?;
    for record in trace.records() {
        out.put(&record.step)?;
        out.put(&record.layer)?;
        out.put(&record.tokens)?;
        out.put(&record.ranks)?;
        out.put(&record.token_ids)?;
        out.put(&record.experts)?;
        out.put(&record.weights)?;
    }
    Ok(out.0)
}

/// The trace of a file.
pub(super) fn read(bytes: &[u8]) -> Result<Trace, TraceError> {
    let mut from = Reader {
        left: bytes,
        length: bytes.len(),
    };
    let magic: [u8; 8] = from.scalar("magic")?;
    if magic != MAGIC {
        let held = format!("{:?}", String::from_utf8_lossy(&magic));
        return Err(from.wrong("magic", held, "\"MOETRACE\""));
    }
    let version: u32 = from.scalar("version")?;
    if version != VERSION {
        return Err(from.wrong("version", version, VERSION));
    }
    let header = Header {
        experts: from.scalar("experts")?,
        top_k: from.scalar("top_k")?,
        layers: from.scalar("layers")?,
        source: from.text("source")?,
        seed: from.scalar("seed")?,
    };
    let count: u64 = from.scalar("records")?;
    let mut records = Vec::new();
    // No memory is taken for the number that is claimed: each record takes bytes that are there.
    for _ in 0..count {
        records.push(Record {
            step: from.scalar("step")?,
            layer: from.scalar("layer")?,
            tokens: from.scalar("tokens")?,
            ranks: from.optional("ranks")?,
            token_ids: from.optional("token_ids")?,
            experts: from.sequence("experts")?,
            weights: from.optional("weights")?,
        });
    }
    if !from.left.is_empty() {
        let held = format!("{} bytes", from.left.len());
        return Err(from.wrong("rest", held, "nothing after the last record"));
    }
    Trace::new(header, records)
}

struct Writer(Vec<u8>);

// === impl Writer ===

impl Writer {
    fn put<T: SchemaWrite<Config, Src = T>>(&mut self, value: &T) -> Result<(), TraceError> {
        let bytes = config::serialize(value, CONFIG);
        let bytes = bytes.map_err(|error| TraceError::wrong("", "value", error, "one to write"))?;
        self.0.extend_from_slice(&bytes);
        Ok(())
    }
}

/// Bytes that were not read yet.
struct Reader<'a> {
    left: &'a [u8],
    length: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn wrong(
        &self,
        field: &'static str,
        held: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> TraceError {
        let at = format!("byte {}", self.length - self.left.len());
        TraceError::wrong(at, field, held, expected)
    }

    /// A value whose length does not depend on the file.
    fn scalar<T: SchemaReadOwned<Config, Dst = T>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, TraceError> {
        let before = self.left;
        config::deserialize_from(&mut self.left, CONFIG).map_err(|error| {
            self.left = before;
            self.wrong(field, format!("cut off or damaged: {error}"), "a value")
        })
    }

    /// Fails where the length that comes next, of items of `width` bytes, is beyond the file.
    fn check_length(&self, field: &'static str, width: usize) -> Result<(), TraceError> {
        let Some((length, rest)) = self.left.split_first_chunk() else {
            let held = format!("{} bytes", self.left.len());
            return Err(self.wrong(field, held, "a length, 8 bytes"));
        };
        let items = u64::from_le_bytes(*length);
        let fit = (rest.len() / width) as u64;
        match items <= fit {
            true => Ok(()),
            false => {
                let held = format!("{items} entries long");
                Err(self.wrong(field, held, format!("at most {fit}, the rest of the file")))
            }
        }
    }

    fn text(&mut self, field: &'static str) -> Result<String, TraceError> {
        self.check_length(field, 1)?;
        self.scalar(field)
    }

    /// `T` is 4 bytes wide.
    fn sequence<T>(&mut self, field: &'static str) -> Result<Vec<T>, TraceError>
    where
        Vec<T>: SchemaReadOwned<Config, Dst = Vec<T>>,
    {
        self.check_length(field, size_of::<T>())?;
        self.scalar(field)
    }

    /// A sequence that may be absent: one byte, 0 or 1, stands before it.
    fn optional<T>(&mut self, field: &'static str) -> Result<Option<Vec<T>>, TraceError>
    where
        Vec<T>: SchemaReadOwned<Config, Dst = Vec<T>>,
    {
        match self.scalar::<u8>(field)? {
            0 => Ok(None),
            1 => self.sequence(field).map(Some),
            tag => Err(self.wrong(field, format!("marked {tag}"), "0 (absent) or 1")),
        }
    }
}
