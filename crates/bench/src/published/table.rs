//! Measured tables of low-latency dispatch and combine: columns of aiconfigurator's, as CSV.

use std::collections::BTreeMap;
use std::path::Path;

use expertmesh_exchange::ExchangeKind;
use expertmesh_topology::{Fabric, Topology};
use serde::Deserialize;

use crate::published::fit::line;
use crate::published::latency::CHECKED;
use crate::published::ranks::{Ranks, completions, mean_us};
use crate::published::{PublishedError, Row, Section};

/// Largest error where α and β are those of the row's own number of nodes.
const FIT_BOUND: f64 = 0.10;
/// Largest error at other numbers of nodes than those that were fitted on.
const NODES_BOUND: f64 = 0.20;

/// A measured table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Whose, for titles.
    pub name: String,
    rows: Vec<Measured>,
}

/// A line of it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
struct Measured {
    nodes: usize,
    ranks: usize,
    tokens_per_rank: usize,
    hidden: u64,
    topk: usize,
    experts: usize,
    dispatch_us: f64,
    combine_us: f64,
}

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file is not there or cannot be read.
    #[error("{file}: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        reason: String,
    },
    /// A line that is no measurement.
    #[error("{file}, line {line}: {reason}")]
    Line {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: u64,
        /// What it held and what was expected.
        reason: String,
    },
}

/// α and β of a phase at a number of nodes.
#[derive(Debug, Clone, Copy)]
struct Fitted {
    alpha_us: f64,
    /// µs for each µs that the bytes take at 1 GB/s.
    slope: f64,
}

/// Which of the two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dispatch,
    Combine,
}

// === impl Table ===

impl Table {
    /// DeepEP's low-latency kernels on 1, 2 and 4 nodes of 8 GPUs (aiconfigurator, `h100_sxm`,
    /// sglang 0.5.6.post2; Apache-2.0). The device label is uncertain: `data/README.md`.
    ///
    /// # Errors
    /// [`TableError`] if the table in the binary is none, which a test rules out.
    pub fn deepep_h100() -> Result<Self, TableError> {
        let text = include_str!("../../data/deepep_low_latency_h100.csv");
        Self::parse(text, "DeepEP low latency, aiconfigurator h100_sxm")
    }

    /// Reads a table with the columns `nodes, ranks, tokens_per_rank, hidden, topk, experts,
    /// dispatch_us, combine_us`, in any order.
    ///
    /// # Errors
    /// [`TableError`] with the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, TableError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => Err(TableError::Unreadable {
                file,
                reason: error.to_string(),
            }),
        }
    }

    /// [`Self::read`] of text that is there.
    ///
    /// # Errors
    /// [`TableError`] with the line that is wrong.
    pub fn parse(text: &str, name: &str) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut rows: Vec<Measured> = Vec::new();
        let wrong = |line: u64, reason: String| TableError::Line {
            file: name.to_owned(),
            line,
            reason,
        };
        for (at, row) in (2..).zip(reader.deserialize()) {
            let row: Measured = row.map_err(|error: csv::Error| {
                let line = error.position().map_or(at, csv::Position::line);
                wrong(line, error.to_string())
            })?;
            row.check().map_err(|reason| wrong(at, reason))?;
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(wrong(1, "no rows, expected measurements".to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            rows,
        })
    }

    /// Numbers of nodes, ascending, each with its rows.
    fn by_nodes(&self) -> BTreeMap<usize, Vec<Measured>> {
        let mut by_nodes: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
        for row in &self.rows {
            by_nodes.entry(row.nodes).or_default().push(*row);
        }
        by_nodes
    }
}

// === impl Measured ===

impl Measured {
    fn check(&self) -> Result<(), String> {
        let counts = [
            ("nodes", self.nodes),
            ("tokens_per_rank", self.tokens_per_rank),
            ("topk", self.topk),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0, expected at least 1"));
        }
        if self.hidden == 0 || self.topk > self.experts {
            let (hidden, topk, experts) = (self.hidden, self.topk, self.experts);
            return Err(format!(
                "hidden {hidden}, topk {topk} of {experts} experts, expected at least 1 value and \
                 no more choices than experts"
            ));
        }
        if !self.ranks.is_multiple_of(self.nodes)
            || self.ranks < 2
            || !self.experts.is_multiple_of(self.ranks)
        {
            return Err(format!(
                "ranks is {}, expected at least 2, a multiple of {} nodes and a divisor of {} \
                 experts",
                self.ranks, self.nodes, self.experts
            ));
        }
        let times = [
            ("dispatch_us", self.dispatch_us),
            ("combine_us", self.combine_us),
        ];
        match times.iter().find(|(_, us)| !(us.is_finite() && *us > 0.0)) {
            Some((name, us)) => Err(format!("{name} is {us}, expected a time above 0")),
            None => Ok(()),
        }
    }

    fn us(&self, phase: Phase) -> f64 {
        match phase {
            Phase::Dispatch => self.dispatch_us,
            Phase::Combine => self.combine_us,
        }
    }

    /// Time that the bytes take at 1 GB/s through the ports, mean over the ranks, µs: within one
    /// node through its ranks' own ports, else through a network port for each rank.
    fn carried_us(&self, phase: Phase) -> Result<f64, PublishedError> {
        let each = self.ranks / self.nodes;
        let (host, rack) = match self.nodes {
            1 => ("1 GB/s", "1 GB/s"),
            // Not what is timed: the slower network port is.
            _ => ("450 GB/s", "1 GB/s"),
        };
        let text = format!(
            "[[host]]\ncount = {}\nslots = {each}\nnics = {each}\n\
             [tier.host]\nlatency = \"0 ns\"\nbandwidth = \"{host}\"\n\
             [tier.rack]\nlatency = \"0 ns\"\nbandwidth = \"{rack}\"\n",
            self.nodes
        );
        let fabric = Fabric::new(&Topology::parse(&text, "table")?, self.ranks)?;
        let row_bytes = match phase {
            Phase::Dispatch => self.hidden + self.hidden / 128 * 4 + 16,
            Phase::Combine => 2 * self.hidden,
        };
        let ranks = Ranks {
            ranks: self.ranks,
            kind: ExchangeKind::AllToAll,
            node: each,
            row_bytes: row_bytes as usize,
            row_per_choice: true,
        };
        let (tokens, seed) = (self.tokens_per_rank, self.tokens_per_rank as u64);
        let matrix = ranks.rows(tokens, self.experts, self.topk, seed)?;
        Ok(mean_us(&completions(&fabric, &matrix, row_bytes)))
    }
}

// === impl Phase ===

impl Phase {
    const BOTH: [Self; 2] = [Self::Dispatch, Self::Combine];

    fn name(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Combine => "combine",
        }
    }
}

// === impl Fitted ===

impl Fitted {
    fn of(rows: &[Measured], phase: Phase) -> Result<(Self, Vec<f64>), PublishedError> {
        let carried = rows.iter().map(|row| row.carried_us(phase));
        let carried = carried.collect::<Result<Vec<f64>, _>>()?;
        let times: Vec<f64> = rows.iter().map(|row| row.us(phase)).collect();
        let (alpha_us, slope) = line(&carried, &times);
        Ok((Self { alpha_us, slope }, carried))
    }

    fn describe(&self) -> String {
        format!("α {:.1} µs, β {:.1} GB/s", self.alpha_us, 1.0 / self.slope)
    }
}

fn row_of(row: &Measured, phase: Phase, predicted: f64, bound: f64) -> Row {
    let (ranks, tokens) = (row.ranks, row.tokens_per_rank);
    Row {
        name: format!("EP{ranks} {}, {tokens} tokens", phase.name()),
        published: row.us(phase),
        predicted,
        bound: Some(bound),
    }
}

/// One α and one β for each number of nodes and phase, at every size.
///
/// # Errors
/// [`PublishedError`] for ranks that no topology holds.
pub fn table_fit(table: &Table) -> Result<Vec<Section>, PublishedError> {
    let mut sections = Vec::new();
    for (nodes, rows) in table.by_nodes() {
        let mut section = Section {
            title: format!("{}: {nodes} node(s), one α and β for all sizes", table.name),
            unit: "µs".to_owned(),
            parameters: vec![INPUT.to_owned(), CHECKED.to_owned()],
            rows: Vec::new(),
            note: None,
        };
        for phase in Phase::BOTH {
            let (fitted, carried) = Fitted::of(&rows, phase)?;
            let described = format!("{}: {}", phase.name(), fitted.describe());
            section.parameters.push(described);
            for (row, carried) in rows.iter().zip(carried) {
                let predicted = fitted.alpha_us + fitted.slope * carried;
                section.rows.push(row_of(row, phase, predicted, FIT_BOUND));
            }
        }
        sections.push(section);
    }
    Ok(sections)
}

/// Other numbers of nodes than 1 and 2, from these alone, in two ways: with a cost for each peer,
/// and with an α for each tier.
///
/// # Errors
/// As [`table_fit`].
pub fn table_nodes(table: &Table) -> Result<Vec<Section>, PublishedError> {
    let by_nodes = table.by_nodes();
    let (Some(one), Some(two)) = (by_nodes.get(&1), by_nodes.get(&2)) else {
        return Ok(Vec::new());
    };
    let section = |how: &str| Section {
        title: format!("{}: more nodes from 1 and 2, {how}", table.name),
        unit: "µs".to_owned(),
        parameters: vec![INPUT.to_owned(), CHECKED.to_owned()],
        rows: Vec::new(),
        note: None,
    };
    let mut by_peer = section("α and a cost for each peer");
    let mut by_tier = section("α of the network's tier");
    for phase in Phase::BOTH {
        let (near, _) = Fitted::of(one, phase)?;
        let (far, _) = Fitted::of(two, phase)?;
        // Two equations: α + o · peers at 1 and at 2 nodes.
        let peers = |rows: &[Measured]| (rows[0].ranks - 1) as f64;
        let each = (far.alpha_us - near.alpha_us) / (peers(two) - peers(one));
        let alpha = near.alpha_us - each * peers(one);
        let rate = 1.0 / far.slope;
        let name = phase.name();
        by_peer.parameters.push(format!(
            "{name}: α {alpha:.2} µs + {each:.3} µs a peer from the fits of 1 and 2 nodes, β {rate:.1} GB/s of 2"
        ));
        by_tier
            .parameters
            .push(format!("{name}: {} of 2 nodes", far.describe()));
        for rows in by_nodes
            .iter()
            .filter(|(nodes, _)| **nodes > 2)
            .map(|(_, rows)| rows)
        {
            for row in rows {
                let bytes = far.slope * row.carried_us(phase)?;
                let with_peers = alpha + each * (row.ranks - 1) as f64 + bytes;
                by_peer
                    .rows
                    .push(row_of(row, phase, with_peers, NODES_BOUND));
                let with_tier = far.alpha_us + bytes;
                by_tier
                    .rows
                    .push(row_of(row, phase, with_tier, NODES_BOUND));
            }
        }
    }
    if by_peer.missed().next().is_some() {
        by_peer.note = Some(MISSING.to_owned());
    }
    Ok(vec![by_peer, by_tier]
        .into_iter()
        .filter(|one| !one.rows.is_empty())
        .collect())
}

/// What every section of a table starts from.
const INPUT: &str = "uniform choices, rows by the exchange's own plan, one a choice (fp8 with scales and 16 B there, bf16 back), through one \
     port a rank at 1 GB/s, mean over ranks; α and β have the smallest largest relative error";

/// Why a cost for each peer does not carry over.
const MISSING: &str = "From 1 to 2 nodes two things change at once: there are more peers, and rows leave the node. \
     Two numbers of nodes cannot tell them apart, so the step to the network is taken for a cost of \
     peers and counted again at every further node. A measurement of 2 nodes with fewer ranks each \
     would part them.";
