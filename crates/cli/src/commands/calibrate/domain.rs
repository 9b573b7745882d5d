//! The flags that say which layers, batches and clusters a profile is for.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use expertmesh_bench::calibrate::{Domain, LayerShape};
use expertmesh_report::human;
use expertmesh_transport::LinkOptions;

use crate::args::values::{parsed, whole};
use crate::error::Failure;

/// Processes beyond which one machine's cores say nothing of a cluster any more.
const MOST_WORKERS: usize = 64;
/// Weights of a layer, f32, that its workers and the timing of its experts may hold.
const MOST_WEIGHTS: usize = 16 << 30;
/// What a call carries besides its rows.
const HEAD: usize = 4096;
/// Fewer points do not tell what a message costs from what a byte costs.
const FEWEST_POINTS: usize = 4;

/// What a profile is for; `None` and none: what [`Domain::default`] has.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Domain, which `validate` draws from and beyond which `simulate` says \
                               `extrapolated`"
)]
pub(super) struct DomainArgs {
    /// Fewest and most workers [default: 2,6]
    #[arg(long, value_name = "LOW,HIGH", value_parser = parsed::<Range>)]
    workers: Option<Range>,
    /// Fewest and most tokens of a step [default: 1,1024]
    #[arg(long, value_name = "LOW,HIGH", value_parser = parsed::<Range>)]
    tokens: Option<Range>,
    /// A layer of swiglu experts in f32: experts, choices of a token, elements of a row, inner size
    /// of an expert; may be repeated [default: 8,2,1024,2816 16,4,512,1024 32,4,256,512]
    #[arg(long, value_name = "E,K,H,F", value_parser = parsed::<ShapeFlag>)]
    #[arg(action = clap::ArgAction::Append)]
    shape: Vec<ShapeFlag>,
    /// Most points to measure, drawn from the grid of the domain; fewer are sooner done and tell
    /// less [default: all of the grid]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    points: Option<usize>,
}

/// Two numbers, the second no less than the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    low: usize,
    high: usize,
}

/// A layer as a flag spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShapeFlag(LayerShape);

// === impl DomainArgs ===

impl DomainArgs {
    /// The domain that the flags ask for, and how many points of its grid are measured at most.
    ///
    /// # Errors
    /// [`Failure::Input`] for what one machine cannot hold or carry.
    pub(super) fn resolve(&self) -> Result<(Domain, usize), Failure> {
        let mut domain = Domain::default();
        if let Some(workers) = self.workers {
            domain.workers = (workers.low, workers.high);
        }
        if let Some(tokens) = self.tokens {
            domain.tokens = (tokens.low, tokens.high);
        }
        if !self.shape.is_empty() {
            domain.shapes.clear();
            for ShapeFlag(shape) in &self.shape {
                if !domain.shapes.contains(shape) {
                    domain.shapes.push(*shape);
                }
            }
        }
        let most = domain.workers.1;
        if most > MOST_WORKERS {
            return Err(Failure::input(format!(
                "--workers goes up to {most}, expected at most {MOST_WORKERS} processes on one machine"
            )));
        }
        for shape in &domain.shapes {
            fits(shape, domain.tokens.1)?;
        }
        let points = self.points.unwrap_or(usize::MAX);
        if points < FEWEST_POINTS {
            return Err(Failure::input(format!(
                "--points is {points}, expected at least {FEWEST_POINTS}"
            )));
        }
        let grid = domain.grid().len();
        if grid < FEWEST_POINTS {
            return Err(Failure::input(format!(
                "--workers, --tokens and --shape leave {grid} points, expected at least {FEWEST_POINTS}"
            )));
        }
        Ok((domain, points))
    }
}

/// Whether one machine holds the layer's weights and one call carries `tokens` of its rows.
fn fits(shape: &LayerShape, tokens: usize) -> Result<(), Failure> {
    let product = |sizes: &[usize]| {
        sizes
            .iter()
            .fold(1_usize, |sum, one| sum.saturating_mul(*one))
    };
    let weights = product(&[shape.experts, 3, shape.hidden, shape.ffn, 4]);
    let flag = ShapeFlag(*shape);
    if weights > MOST_WEIGHTS {
        return Err(Failure::input(format!(
            "--shape {flag} has {} of weights, expected at most {} on one machine",
            human::bytes(weights as u64),
            human::bytes(MOST_WEIGHTS as u64)
        )));
    }
    let (batch, most) = (
        product(&[tokens, shape.hidden, 4]),
        LinkOptions::default().max_message_bytes - HEAD,
    );
    if batch > most {
        return Err(Failure::input(format!(
            "--tokens goes up to {tokens}, expected at most {} of --shape {flag}, which one call \
             carries",
            most / (4 * shape.hidden)
        )));
    }
    Ok(())
}

// === impl Range ===

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match numbers(text)[..] {
            [Some(low), Some(high)] if 0 < low && low <= high => Ok(Self { low, high }),
            _ => Err("expected LOW,HIGH: whole numbers of at least 1, the lower first".to_owned()),
        }
    }
}

// === impl ShapeFlag ===

impl FromStr for ShapeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected E,K,H,F: experts, choices of a token, elements of a row and inner \
                        size of an expert";
        let all: Option<Vec<usize>> = numbers(text).into_iter().collect();
        let Some([experts, top_k, hidden, ffn]) = all.as_deref() else {
            return Err(expected.to_owned());
        };
        if [experts, top_k, hidden, ffn].contains(&&0) {
            return Err(format!("{expected}, each at least 1"));
        }
        if top_k > experts {
            return Err(format!(
                "K is {top_k}, expected 1 to {experts}, the number of experts"
            ));
        }
        Ok(Self(LayerShape {
            experts: *experts,
            top_k: *top_k,
            hidden: *hidden,
            ffn: *ffn,
        }))
    }
}

impl fmt::Display for ShapeFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LayerShape {
            experts,
            top_k,
            hidden,
            ffn,
        } = self.0;
        write!(f, "{experts},{top_k},{hidden},{ffn}")
    }
}

/// Numbers between commas; `None` for what is none.
fn numbers(text: &str) -> Vec<Option<usize>> {
    text.split(',').map(|one| one.trim().parse().ok()).collect()
}
