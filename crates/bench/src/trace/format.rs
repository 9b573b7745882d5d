//! Which format a file has; reading and writing files.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::trace::{Trace, TraceError, csv, megatron, moetrace, parquet, sglang};

/// How a trace is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceFormat {
    /// `.moetrace`: everything a trace holds, in bincode format.
    Moetrace,
    /// `.csv`: `step,layer,src_rank,token,slot,expert,weight`, a line for every slot. The header
    /// is not in it: E is the highest expert + 1 unless [`ReadOptions::experts`] says more.
    Csv,
    /// `.parquet`: the same columns, with the header as metadata of the file.
    Parquet,
    /// `.jsonl`, or a directory of them: what Megatron's `router_trace.py` records. Read only.
    Megatron,
    /// `.json`: SGLang's recorder in mode `per_token`, by way of
    /// `examples/traces/sglang_to_json.py`. Read only.
    Sglang,
}

/// How to read a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format, where neither the name nor the content of the file should decide.
    pub format: Option<TraceFormat>,
    /// Experts of a layer, for formats that do not say: without it, the highest index + 1.
    pub experts: Option<u32>,
    /// Longest file that is read, in bytes; a reader needs a few times as much memory.
    pub max_bytes: u64,
}

/// 1 GiB: about 200 million choices in `.moetrace`.
const MAX_BYTES: u64 = 1 << 30;

// === impl ReadOptions ===

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            experts: None,
            max_bytes: MAX_BYTES,
        }
    }
}

// === impl TraceFormat ===

impl TraceFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [
        Self::Moetrace,
        Self::Csv,
        Self::Parquet,
        Self::Megatron,
        Self::Sglang,
    ];

    /// The name that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Moetrace => "moetrace",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Megatron => "megatron",
            Self::Sglang => "sglang",
        }
    }

    /// The format that the extension of `path` stands for.
    pub fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "moetrace" => Some(Self::Moetrace),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            "jsonl" => Some(Self::Megatron),
            "json" => Some(Self::Sglang),
            _ => None,
        }
    }

    /// The format of a file by its first bytes; text that is no JSON is taken for CSV.
    pub fn of_content(bytes: &[u8]) -> Self {
        let start = bytes.get(..bytes.len().min(200)).unwrap_or_default();
        let has = |word: &str| start.windows(word.len()).any(|at| at == word.as_bytes());
        match start.trim_ascii_start() {
            start if start.starts_with(&moetrace::MAGIC) => Self::Moetrace,
            start if start.starts_with(b"PAR1") => Self::Parquet,
            start if start.starts_with(b"{") && has(sglang::PER_TOKEN) => Self::Sglang,
            start if start.starts_with(b"{") => Self::Megatron,
            _ => Self::Csv,
        }
    }
}

impl FromStr for TraceFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|format| format.name() == text);
        named.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}")
        })
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// === impl Trace ===

impl Trace {
    /// Reads `path`, whose extension says the format; for another extension, its first bytes do.
    ///
    /// # Errors
    /// [`TraceError`] with the file and the line, or the step, layer and token.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        Self::read_with(path, &ReadOptions::default())
    }

    /// Reads `path` by `options`. A directory is read as what the ranks of a Megatron run wrote:
    /// every `.jsonl` in it.
    ///
    /// # Errors
    /// As [`Self::read`]; also for a file longer than `options.max_bytes`.
    pub fn read_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let source = path.display().to_string();
        if path.is_dir() {
            let files = jsonl_files(path)?;
            let mut lines = Vec::new();
            let mut left = options.max_bytes;
            for file in &files {
                let bytes = load(file, left)?;
                left = left.saturating_sub(bytes.len() as u64);
                megatron::parse(&bytes, &mut lines).map_err(|error| error.in_file(file))?;
            }
            let trace = megatron::join(lines, options.experts, source);
            return trace.map_err(|error| error.in_file(path));
        }
        let bytes = load(path, options.max_bytes)?;
        let format = options.format.or_else(|| TraceFormat::of_extension(path));
        let format = format.unwrap_or_else(|| TraceFormat::of_content(&bytes));
        let trace = match format {
            TraceFormat::Moetrace => moetrace::read(&bytes),
            TraceFormat::Csv => csv::read(&bytes, options.experts, source),
            TraceFormat::Parquet => parquet::read(bytes, options.experts, source),
            TraceFormat::Megatron => {
                let mut lines = Vec::new();
                megatron::parse(&bytes, &mut lines)
                    .and_then(|()| megatron::join(lines, options.experts, source))
            }
            TraceFormat::Sglang => sglang::read(&bytes, options.experts, source),
        };
        trace.map_err(|error| error.in_file(path))
    }

    /// Writes `path` in `format`, or in the one that its extension says.
    ///
    /// # Errors
    /// [`TraceError`]: the file system's, no known extension, or a format that is only read.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        format: Option<TraceFormat>,
    ) -> Result<(), TraceError> {
        let path = path.as_ref();
        let wrong = |held: String| {
            let expected = "moetrace, csv or parquet";
            TraceError::wrong("", "format", held, expected).in_file(path)
        };
        let bytes = match format.or_else(|| TraceFormat::of_extension(path)) {
            Some(TraceFormat::Moetrace) => moetrace::write(self),
            Some(TraceFormat::Csv) => csv::write(self),
            Some(TraceFormat::Parquet) => parquet::write(self),
            Some(format) => return Err(wrong(format!("{format}, which is only read"))),
            None => return Err(wrong("not said by the file's name".to_owned())),
        };
        let bytes = bytes.map_err(|error| error.in_file(path))?;
        fs::write(path, bytes).map_err(|error| TraceError::io(path, error))
    }
}

/// A whole file of at most `max` bytes.
pub(super) fn load(path: &Path, max: u64) -> Result<Vec<u8>, TraceError> {
    let io = |error| TraceError::io(path, error);
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    // One byte more tells a file that is too long from one that just fits.
    let mut limited = file.take(max.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max {
        let expected = format!("at most {max} bytes");
        return Err(TraceError::wrong("", "length", "more", expected).in_file(path));
    }
    Ok(bytes)
}

/// The `.jsonl` files of a directory, by name.
fn jsonl_files(directory: &Path) -> Result<Vec<PathBuf>, TraceError> {
    let io = |error| TraceError::io(directory, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => {
            let expected = "at least one, as Megatron's ranks write them";
            Err(TraceError::wrong("", "jsonl files", "0", expected).in_file(directory))
        }
        false => Ok(files),
    }
}
