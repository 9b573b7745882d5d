//! Rows of several hosts, walked in the order in which one message carries them.

use std::ops::Range;

use crate::shard_plan::HostRows;

/// One host's rows of a wave, as they are walked beside those of its group.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    pub(crate) rows: HostRows<'a>,
    /// Position of its segment, while chunks are cut.
    pub(super) segment: usize,
    /// Rows from `begin` to before `at` have been walked; `end` is behind the last.
    pub(super) begin: usize,
    pub(super) at: usize,
    end: usize,
    /// Whether the last step took a row of it.
    pub(super) took: bool,
}

// === impl Line ===

impl<'a> Line<'a> {
    /// The rows of a host in `range`, of the segment at a position.
    pub(crate) fn new(rows: HostRows<'a>, range: Range<usize>, segment: usize) -> Self {
        Self {
            rows,
            segment,
            begin: range.start,
            at: range.start,
            end: range.end,
            took: false,
        }
    }

    /// The row of the host that the last step took, if it took one.
    pub(crate) fn taken(&self) -> Option<usize> {
        self.took.then(|| self.at - 1)
    }

    fn token(&self) -> Option<u32> {
        (self.at < self.end).then(|| self.rows.tokens[self.at])
    }

    pub(super) fn choices(&self) -> Range<usize> {
        self.rows.offsets[self.begin] as usize..self.rows.offsets[self.at] as usize
    }
}

/// Takes the next row of a group off the lines of its hosts: that of the lowest token, for all
/// hosts that it is for; with a row for each choice, for the first host alone. Returns the token.
pub(crate) fn step(lines: &mut [Line<'_>], row_per_choice: bool) -> Option<u32> {
    let token = lines.iter().filter_map(Line::token).min()?;
    let mut shared = true;
    for line in lines {
        line.took = shared && line.token() == Some(token);
        line.at += usize::from(line.took);
        shared &= !(line.took && row_per_choice);
    }
    Some(token)
}
