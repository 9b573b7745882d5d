//! A chunk of rows at an expert host.

use expertmesh_wire::{
    BufferPool, FrameKind, FrameView, FrameWriter, Header, RemoteError, Times, WireError, words,
};

/// Rows that a host must compute, checked against what was announced.
#[derive(Debug, Clone)]
pub struct RowsJob {
    /// The frame that brought them.
    pub frame: FrameView,
    /// `[rows + 1]` offsets into `experts`.
    pub offsets: Vec<u32>,
    /// `[choices]` expert of each result row, row by row in slot order.
    pub experts: Vec<u32>,
}

/// A frame of kind `ERROR` that answers `request`.
pub fn error_frame(pool: &BufferPool, request: &Header, error: &RemoteError) -> bytes::Bytes {
    let detail = error.encode();
    let mut header = *request;
    header.kind = FrameKind::Error;
    header.row_count = 0;
    header.budget_ns = 0;
    let mut writer = FrameWriter::new(pool, &header, 0, detail.len());
    writer.rows().copy_from_slice(&detail);
    writer.finish()
}

// === impl RowsJob ===

impl RowsJob {
    /// Reads a `ROWS` frame for a layer of `hidden` elements whose experts here are those that
    /// `holds` says.
    ///
    /// # Errors
    /// [`WireError`] naming the field: rows of another width, counts that do not add up to the
    /// experts listed, a row for no expert or for one twice, or an expert that is not here.
    pub fn read(
        frame: FrameView,
        hidden: u32,
        holds: impl Fn(u32) -> bool,
    ) -> Result<Self, WireError> {
        let header = frame.header;
        if header.hidden != hidden {
            return Err(field(
                "hidden",
                header.hidden,
                format!("{hidden}, the layer's"),
            ));
        }
        let rows = header.row_count as usize;
        let total = frame.index.len() / 4;
        let Some(choices) = total.checked_sub(rows) else {
            return Err(field(
                "index",
                format!("{total} words"),
                format!("at least one word for each of {rows} rows"),
            ));
        };
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut sum = 0u64;
        offsets.push(0);
        for count in words(&frame.index[..rows * 4]) {
            if count == 0 {
                return Err(field(
                    "index",
                    "a row for no expert",
                    "at least one expert a row",
                ));
            }
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
        let experts: Vec<u32> = words(&frame.index[rows * 4..]).collect();
        if let Some(expert) = experts.iter().find(|expert| !holds(**expert)) {
            return Err(field(
                "index",
                format!("expert {expert}"),
                "an expert of this worker",
            ));
        }
        check_distinct(&offsets, &experts)?;
        Ok(Self {
            frame,
            offsets,
            experts,
        })
    }

    /// Number of result rows.
    pub fn choices(&self) -> usize {
        self.experts.len()
    }

    /// The header of the results.
    pub fn results_header(&self, times: Times) -> Header {
        let mut header = self.frame.header;
        header.kind = FrameKind::Results;
        header.row_count = crate::plan::index(self.choices());
        header.budget_ns = 0;
        header.times = times;
        header
    }

    /// Lays out the result frame, its rows still to be filled.
    pub fn results(&self, pool: &BufferPool) -> FrameWriter {
        let header = self.results_header(Times::default());
        FrameWriter::new(pool, &header, 0, self.choices() * header.row_bytes())
    }
}

/// A row's experts are distinct: were one listed a million times, a short request would ask for a
/// million result rows. A list of experts that exist repeats one before it is longer than they
/// are many, which bounds the search.
pub(crate) fn check_distinct(offsets: &[u32], experts: &[u32]) -> Result<(), WireError> {
    for pair in offsets.windows(2) {
        let row = &experts[pair[0] as usize..pair[1] as usize];
        let repeated = (1..row.len()).find(|at| row[..*at].contains(&row[*at]));
        if let Some(at) = repeated {
            let held = format!("expert {} twice for one row", row[at]);
            return Err(field("index", held, "a row's experts to differ"));
        }
    }
    Ok(())
}

pub(crate) fn field(
    field: &'static str,
    held: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> WireError {
    WireError::Field {
        field,
        held: held.to_string(),
        expected: expected.to_string(),
    }
}
