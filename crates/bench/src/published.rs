//! Figures that others published, beside what this code computes for them.
//!
//! Nothing is fitted per row: a section says which parameters it used, where they are from, and on
//! which rows they were fitted; rows that were fitted on are marked and bounded apart. A row that
//! misses its bound stays in the table with its error.
//!
//! Reading order: [`volumes`] (UCCL-EP: bytes of a dispatch), [`low_latency`] (DeepEP on H800: time by
//! the number of ranks), [`Table`] and [`table_fit`], [`table_nodes`] (measured tables: time by size
//! and number of nodes), [`overflow_shares`] (exact drop shares).

mod fit;
mod latency;
mod overflow;
mod ranks;
mod table;
#[cfg(test)]
mod tests;
mod volume;

pub use latency::low_latency;
pub use overflow::overflow_shares;
pub use table::{Table, TableError, table_fit, table_nodes};
pub use volume::volumes;

use expertmesh_topology::TopologyError;
use serde::{Deserialize, Serialize};

/// One published figure and ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured, for example `EP64 dispatch`.
    pub name: String,
    /// As published, in the section's unit.
    pub published: f64,
    /// As computed.
    pub predicted: f64,
    /// Largest size of the error, a share; `None` for rows that parameters were fitted on and that
    /// no bound is stated for.
    pub bound: Option<f64>,
}

/// Figures of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Whose figures, and of what.
    pub title: String,
    /// Unit of the figures.
    pub unit: String,
    /// What went in, each with its source; what was fitted, and on which rows.
    pub parameters: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// What is missing where a bound is missed.
    pub note: Option<String>,
}

/// Why figures cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// A topology of ours cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Routes that cannot be admitted.
    #[error(transparent)]
    Routing(#[from] expertmesh_routing::RoutingError),
    /// Nodes that are no groups of ranks.
    #[error("{0}")]
    Groups(String),
}

// === impl Row ===

impl Row {
    /// Signed error as a share of the published figure.
    pub fn error(&self) -> f64 {
        self.predicted / self.published - 1.0
    }

    /// Whether the error is within the bound, if there is one.
    pub fn holds(&self) -> bool {
        self.bound.is_none_or(|bound| self.error().abs() <= bound)
    }
}

// === impl Section ===

impl Section {
    /// The rows that miss their bounds.
    pub fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.holds())
    }

    /// Largest size of an error among the bounded rows.
    pub fn largest(&self) -> Option<f64> {
        let bounded = self.rows.iter().filter(|row| row.bound.is_some());
        bounded.map(|row| row.error().abs()).max_by(f64::total_cmp)
    }
}

/// Everything that this version knows, and `tables` of the same form besides.
///
/// # Errors
/// [`PublishedError`] for a table that cannot be used.
pub fn every_section(tables: &[Table]) -> Result<Vec<Section>, PublishedError> {
    let mut sections = vec![volumes()?, low_latency()?];
    for table in tables {
        sections.extend(table_fit(table)?);
        sections.extend(table_nodes(table)?);
    }
    sections.push(overflow_shares()?);
    Ok(sections)
}
