//! The TOML form of a table.
//!
//! ```toml
//! # Entry e lists the workers that hold expert e, its primary first.
//! experts = [[0], [1], [0, 2]]
//! ```

use serde::Deserialize;

use crate::{error::PlacementError, placement::Placement};

/// The file as written. Indices are signed so that `-1` is refused by entry, not by syntax.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementFile {
    experts: Vec<Vec<i64>>,
}

// === impl Placement ===

impl Placement {
    /// Reads the table of a layer with `experts` experts for a cluster of `workers` workers.
    ///
    /// # Errors
    /// Text that is not TOML, a key other than `experts`, another number of entries than
    /// `experts`, and whatever [`from_table`](Self::from_table) refuses.
    pub fn parse_toml(text: &str, experts: usize, workers: usize) -> Result<Self, PlacementError> {
        let file: PlacementFile = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            PlacementError::File {
                line,
                message: error.message().trim().replace('\n', ", "),
            }
        })?;
        if file.experts.len() != experts {
            return Err(PlacementError::ExpertCount {
                found: file.experts.len(),
                expected: experts,
            });
        }
        let table = file
            .experts
            .iter()
            .enumerate()
            .map(|(expert, entry)| read_entry(expert, entry, workers))
            .collect::<Result<_, _>>()?;
        Self::from_table(table, workers)
    }

    /// The table as a file that [`parse_toml`](Self::parse_toml) reads back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("experts = [\n");
        for entry in self.entries() {
            let workers: Vec<String> = entry.iter().map(u32::to_string).collect();
            text.push_str(&format!("    [{}],\n", workers.join(", ")));
        }
        text.push_str("]\n");
        text
    }
}

fn read_entry(expert: usize, entry: &[i64], workers: usize) -> Result<Vec<u32>, PlacementError> {
    entry
        .iter()
        .enumerate()
        .map(|(replica, &worker)| {
            u32::try_from(worker).map_err(|_| PlacementError::NoSuchWorker {
                expert,
                replica,
                worker,
                workers,
            })
        })
        .collect()
}
