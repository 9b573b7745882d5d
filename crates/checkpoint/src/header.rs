//! The safetensors header, checked before it is believed.
//!
//! A file is eight little-endian bytes of header length, a JSON header, then the data. The header
//! comes from whoever made the file, so nothing is allocated or sliced by its claims before they
//! were compared with the real length of the file. The `safetensors` parser has the last word;
//! the checks here come first because they name the tensor and both numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::CheckpointError;

/// The cap of the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The header's length field.
const PREFIX: usize = 8;

/// Where one tensor lies and what it is.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Bytes from the beginning of the file; always inside it.
    pub(crate) bytes: Range<usize>,
}

/// One tensor as the JSON states it.
#[derive(serde::Deserialize)]
struct Claim {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's JSON, with every name it holds, repeated ones too.
struct Claims(Vec<(String, Claim)>);

/// Parses and checks the header of `file`, whose whole content is `content`.
///
/// # Errors
/// [`CheckpointError::Header`] or [`CheckpointError::HeaderTensor`] for any claim that the file
/// does not keep.
pub(crate) fn read(
    file: &Path,
    content: &[u8],
) -> Result<BTreeMap<String, Entry>, CheckpointError> {
    let bad = |reason: String| CheckpointError::Header {
        file: file.to_path_buf(),
        reason,
    };
    let Some((prefix, rest)) = content.split_first_chunk::<PREFIX>() else {
        return Err(bad(format!(
            "the file has {} bytes, fewer than a header",
            content.len()
        )));
    };
    let claimed = u64::from_le_bytes(*prefix);
    if claimed > MAX_HEADER_BYTES {
        return Err(bad(format!(
            "its length field says {claimed} bytes, at most {MAX_HEADER_BYTES} are accepted"
        )));
    }
    let json = usize::try_from(claimed).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
        bad(format!(
            "its length field says {claimed} bytes, but the file ends after {}; it looks truncated",
            rest.len()
        ))
    })?;
    let Claims(claims) =
        serde_json::from_slice(json).map_err(|error| bad(format!("not valid: {error}")))?;
    check_claims(file, &claims, rest.len() - json.len())?;

    let (header, metadata) =
        SafeTensors::read_metadata(content).map_err(|error| bad(error.to_string()))?;
    let start = PREFIX + header;
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        let entry = Entry {
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: start + from..start + to,
        };
        (name, entry)
    });
    Ok(entries.collect())
}

/// Compares every claim with the `data` bytes that follow the header, and with its neighbours.
fn check_claims(
    file: &Path,
    claims: &[(String, Claim)],
    data: usize,
) -> Result<(), CheckpointError> {
    let bad = |tensor: &str, reason: String| CheckpointError::HeaderTensor {
        file: file.to_path_buf(),
        tensor: tensor.to_owned(),
        reason,
    };
    for (name, claim) in claims {
        let (from, to) = claim.data_offsets;
        let spelling: StrDeserializer<'_, de::value::Error> = StrDeserializer::new(&claim.dtype);
        let dtype = Dtype::deserialize(spelling).map_err(|_| {
            bad(
                name,
                format!(
                    "has dtype {:?}, which safetensors does not define",
                    claim.dtype
                ),
            )
        })?;
        let inside = usize::try_from(to).is_ok_and(|to| to <= data);
        if from > to || !inside {
            return Err(bad(
                name,
                format!("claims bytes {from}..{to} of {data}; the file is damaged or truncated"),
            ));
        }
        let bits = claim
            .shape
            .iter()
            .try_fold(1u64, |n, &dim| n.checked_mul(dim));
        let bits = bits.and_then(|n| n.checked_mul(u64::try_from(dtype.bitsize()).ok()?));
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != to - from) {
            return Err(bad(
                name,
                format!(
                    "has shape {:?} of {dtype}, which does not fill its bytes {from}..{to}",
                    claim.shape
                ),
            ));
        }
    }
    let mut by_offset: Vec<_> = claims
        .iter()
        .map(|(name, c)| (c.data_offsets, name))
        .collect();
    by_offset.sort_unstable();
    for pair in by_offset.windows(2) {
        if let [((_, end), first), ((start, _), second)] = pair
            && start < end
        {
            return Err(bad(
                second,
                format!("begins at byte {start}, inside tensor {first:?} which ends at {end}"),
            ));
        }
    }
    let mut names: Vec<&String> = claims.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(bad(name, "is named twice".to_owned()));
    }
    Ok(())
}

// === impl Claims ===

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Claims;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        let claim = map.next_value().map_err(|error| {
                            de::Error::custom(format_args!("tensor {name:?}: {error}"))
                        })?;
                        claims.push((name, claim));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests;
