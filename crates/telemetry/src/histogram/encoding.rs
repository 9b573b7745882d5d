//! HdrHistogram V2 bytes, checked before the library's decoder sees them.
//!
//! The decoder trusts its input in three places: it sizes its buffer by a length from the bytes,
//! allocates by their bounds, and negates a run length that may be `i64::MIN`. Bytes arrive from
//! the network, so all three are checked here first.

use super::{DIGITS, MAX_NS};
use crate::TelemetryError;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

/// Cookie, payload length, offset, digits (u32 each), low, high (u64), ratio (f64); big-endian.
const HEADER: usize = 40;
/// V2, uncompressed, 64-bit counts.
const COOKIE: u32 = 0x1c84_9313;
/// More samples than a run can have, and few enough that sums of thousands of merged histograms
/// stay within 64 bits.
const MAX_COUNT: u64 = 1 << 48;

pub(super) fn to_bytes(histogram: &hdrhistogram::Histogram<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a vector cannot fail, nor can a u64 count be too wide before 2^63 samples.
    let written = V2Serializer::new().serialize(histogram, &mut bytes);
    debug_assert!(written.is_ok(), "a histogram encodes into memory");
    bytes
}

pub(super) fn from_bytes(bytes: &[u8]) -> Result<hdrhistogram::Histogram<u64>, TelemetryError> {
    let (header, counts) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| wrong("length", bytes.len(), format!("at least {HEADER} bytes")))?;
    let cookie = be_u32(header, 0);
    if cookie != COOKIE {
        return Err(wrong(
            "cookie",
            format!("{cookie:#010x}"),
            format!("{COOKIE:#010x}"),
        ));
    }
    let length = be_u32(header, 4);
    if usize::try_from(length) != Ok(counts.len()) {
        return Err(wrong("payload length", length, counts.len()));
    }
    let digits = be_u32(header, 12);
    if digits != u32::from(DIGITS) {
        return Err(wrong("significant digits", digits, DIGITS));
    }
    let bounds = (be_u64(header, 16), be_u64(header, 24));
    if bounds != (1, MAX_NS) {
        let found = format!("{}..={} ns", bounds.0, bounds.1);
        return Err(wrong("bounds", found, format!("1..={MAX_NS} ns")));
    }
    check_counts(counts)?;
    Deserializer::new()
        .deserialize(&mut &*bytes)
        .map_err(|error| wrong("counts", error, "counts within the bounds"))
}

/// Walks the zig-zag LEB128 numbers: a count, or a negated run of zeros.
fn check_counts(mut rest: &[u8]) -> Result<(), TelemetryError> {
    let mut total = 0_u64;
    while !rest.is_empty() {
        let mut value = 0_u64;
        let mut used = 0;
        loop {
            let Some(&byte) = rest.get(used) else {
                return Err(wrong("counts", "cut short", "whole numbers"));
            };
            // The ninth byte carries eight bits, which is how nine bytes hold 64.
            let (bits, last) = if used == 8 {
                (byte, true)
            } else {
                (byte & 0x7f, byte & 0x80 == 0)
            };
            value |= u64::from(bits) << (7 * used);
            used += 1;
            if last {
                break;
            }
        }
        rest = rest.get(used..).unwrap_or_default();
        // Zig-zag: even numbers are counts, odd ones runs of zeros; halving gives the size.
        let size = value / 2;
        total = total.saturating_add(size);
        if total > MAX_COUNT {
            return Err(wrong(
                "counts",
                format!("a sum of {total}"),
                format!("<= {MAX_COUNT}"),
            ));
        }
    }
    Ok(())
}

fn be_u32(header: &[u8; HEADER], at: usize) -> u32 {
    header[at..at + 4]
        .iter()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn be_u64(header: &[u8; HEADER], at: usize) -> u64 {
    header[at..at + 8]
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn wrong(field: &'static str, found: impl ToString, expected: impl ToString) -> TelemetryError {
    TelemetryError::HistogramBytes {
        field,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}
