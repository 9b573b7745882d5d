//! Configurations that are measured: a grid to learn from, and draws to be held out.

use std::collections::BTreeSet;
use std::fmt;

use expertmesh_exchange::ExchangeKind;
use expertmesh_experts::{Activation, ExpertKind, ExpertSpec};
use expertmesh_kernels::Format;
use serde::{Deserialize, Serialize};

use crate::draw::{below, generator, shuffle, unit};

/// Dimensions of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerShape {
    /// Experts of the layer, E.
    pub experts: usize,
    /// Choices of a token, k.
    pub top_k: usize,
    /// Elements of a token row, H.
    pub hidden: usize,
    /// Inner size of a SwiGLU expert, F.
    pub ffn: usize,
}

/// One configuration: what is launched, and what is simulated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// Worker processes.
    pub workers: usize,
    /// Token rows of a step.
    pub tokens: usize,
    /// The layer.
    pub shape: LayerShape,
    /// `star` or `all-to-all`, by name.
    pub exchange: String,
    /// Topology file or preset whose links are emulated; `None`: loopback as it is.
    pub links: Option<String>,
}

/// What points may be drawn from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Fewest and most workers.
    pub workers: (usize, usize),
    /// Fewest and most tokens.
    pub tokens: (usize, usize),
    /// The layers.
    pub shapes: Vec<LayerShape>,
    /// Names of exchanges.
    pub exchanges: Vec<String>,
    /// Emulated links, beside loopback.
    pub links: Vec<Option<String>>,
}

/// Tokens and workers of a grid; what lies between is for the held-out points.
const GRID_TOKENS: [usize; 9] = [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536];
const GRID_WORKERS: [usize; 10] = [2, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/// The stream that decides which points of a grid are measured.
const CHOICE: u64 = 1 << 62;

// === impl LayerShape ===

impl LayerShape {
    /// One expert of the layer.
    pub fn expert(&self) -> ExpertSpec {
        ExpertSpec {
            hidden: self.hidden,
            ffn: self.ffn,
            kind: ExpertKind::Swiglu,
            activation: Activation::Silu,
            dtype: Format::F32,
        }
    }
}

impl fmt::Display for LayerShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            experts,
            top_k,
            hidden,
            ffn,
        } = self;
        f.pad(&format!("{experts}x{hidden}x{ffn} top-{top_k}"))
    }
}

// === impl Point ===

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.links.as_deref().unwrap_or("loopback");
        write!(
            f,
            "{}, {} on {links}, {} workers, {} tokens",
            self.shape, self.exchange, self.workers, self.tokens
        )
    }
}

// === impl Domain ===

impl Default for Domain {
    /// 2–6 workers, 1–1024 tokens, a small, a middle and a large layer, both exchanges, loopback.
    fn default() -> Self {
        let shape = |experts, top_k, hidden, ffn| LayerShape {
            experts,
            top_k,
            hidden,
            ffn,
        };
        Self {
            workers: (2, 6),
            tokens: (1, 1024),
            shapes: vec![
                shape(8, 2, 1024, 2816),
                shape(16, 4, 512, 1024),
                shape(32, 4, 256, 512),
            ],
            exchanges: [ExchangeKind::Star, ExchangeKind::AllToAll]
                .map(|kind| kind.to_string())
                .to_vec(),
            links: vec![None],
        }
    }
}

impl fmt::Display for Domain {
    /// "2 to 6 workers, 1 to 1024 tokens, 8x1024x2816 top-2, star and all-to-all on loopback".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |(low, high): (usize, usize)| match low == high {
            true => low.to_string(),
            false => format!("{low} to {high}"),
        };
        let (workers, tokens) = (range(self.workers), range(self.tokens));
        write!(f, "{workers} workers, {tokens} tokens, ")?;
        for shape in &self.shapes {
            write!(f, "{shape}, ")?;
        }
        let links = self.links.iter().map(|one| one.as_deref());
        let links: Vec<&str> = links.map(|one| one.unwrap_or("loopback")).collect();
        let exchanges = self.exchanges.join(" and ");
        write!(f, "{exchanges} on {}", links.join(" and "))
    }
}

impl Domain {
    /// All points of the grid, in ascending order.
    pub fn grid(&self) -> Vec<Point> {
        let mut points = BTreeSet::new();
        for workers in self.within(&GRID_WORKERS, self.workers) {
            for tokens in self.within(&GRID_TOKENS, self.tokens) {
                for shape in &self.shapes {
                    for exchange in &self.exchanges {
                        points.insert(Point {
                            workers,
                            tokens,
                            shape: *shape,
                            exchange: exchange.clone(),
                            links: None,
                        });
                    }
                }
            }
        }
        points.into_iter().collect()
    }

    /// The points that a calibration measures, in ascending order: at most `most` of the grid, drawn
    /// by `seed` if it has more.
    pub fn measured(&self, most: usize, seed: u64) -> Vec<Point> {
        let grid = self.grid();
        let mut order: Vec<u32> = (0..grid.len() as u32).collect();
        if grid.len() > most {
            shuffle(&mut generator(seed, CHOICE), &mut order);
            order.truncate(most);
            order.sort_unstable();
        }
        order
            .into_iter()
            .map(|at| grid[at as usize].clone())
            .collect()
    }

    /// `count` points outside `seen`, no two alike: tokens uniform in their logarithm, everything
    /// else uniform. Fewer if the domain has no more.
    #[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
    pub fn held_out(&self, seen: &[Point], seed: u64, count: usize) -> Vec<Point> {
        let mut random = generator(seed, 0);
        let mut drawn: Vec<Point> = Vec::new();
        // A domain may hold fewer points than are asked for.
        for _ in 0..count * 64 {
            if drawn.len() == count {
                break;
            }
            let mut pick = |many: usize| below(&mut random, many as u64) as usize;
            let workers = self.workers.0 + pick(self.workers.1 - self.workers.0 + 1);
            let shape = self.shapes[pick(self.shapes.len())];
            let exchange = self.exchanges[pick(self.exchanges.len())].clone();
            let links = self.links[pick(self.links.len())].clone();
            let (low, high) = (self.tokens.0 as f64, self.tokens.1 as f64);
            let tokens = low * (high / low).powf(unit(&mut random));
            let point = Point {
                workers,
                tokens: (tokens.round() as usize).clamp(self.tokens.0, self.tokens.1),
                shape,
                exchange,
                links,
            };
            if !seen.contains(&point) && !drawn.contains(&point) {
                drawn.push(point);
            }
        }
        drawn
    }

    /// The values of a grid that the domain holds, and the domain's own ends.
    fn within(&self, grid: &[usize], (low, high): (usize, usize)) -> BTreeSet<usize> {
        let inside = grid
            .iter()
            .copied()
            .filter(|one| (low..=high).contains(one));
        inside.chain([low, high]).collect()
    }
}
