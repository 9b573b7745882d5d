//! One step over a part of the logits, stage by stage.

use std::sync::OnceLock;
use std::time::Instant;

use expertmesh_exchange::{
    COORDINATOR, ExchangeKind, HostTable, KeptChoices, Limits, ShardPlan, TrafficLedger,
    shard_ranges,
};
use expertmesh_kernels::Format;
use expertmesh_placement::Placement;
use expertmesh_routing::{
    AdmitContext, CapacityConfig, GroupScore, Groups, Logits, Norm, Overflow, Route, RouterConfig,
    Score, Select, SelectScratch, Selector, admit,
};

const EXPERTS: usize = 256;
const TOP_K: usize = 8;

/// A gate to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Sigmoid, score plus bias, 4 of 8 groups by the sum of two, weights divided by their sum.
    DeepSeekV3,
    /// Softmax, 4 of 8 groups by the highest score.
    DeepSeekV2,
    /// Softmax and the highest 8 of all.
    Softmax,
}

/// Who is home to the tokens, and how many workers hold the experts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) kind: ExchangeKind,
    pub(crate) workers: usize,
}

/// The stages of a step, in their order.
pub(crate) const STAGES: [&str; 5] = ["select", "admit", "keep", "plan", "ledger"];

/// A step with its buffers.
pub(crate) struct Step {
    logits: &'static [f32],
    selector: Selector,
    scratch: SelectScratch,
    route: Route,
    exchange: Exchange,
    table: HostTable,
    limits: Limits,
}

// === impl Gate ===

impl Gate {
    pub(crate) const ALL: [Self; 3] = [Self::DeepSeekV3, Self::DeepSeekV2, Self::Softmax];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DeepSeekV3 => "deepseek_v3",
            Self::DeepSeekV2 => "deepseek_v2",
            Self::Softmax => "softmax_top_8",
        }
    }

    fn selector(self) -> Selector {
        let groups = |by, fill, weights_from_masked| {
            Some(Groups {
                n: 8,
                keep: 4,
                by,
                fill,
                weights_from_masked,
            })
        };
        let base = RouterConfig {
            logits: Logits::F32,
            ..RouterConfig::mixtral(EXPERTS, TOP_K, Format::F32)
        };
        let config = match self {
            Self::DeepSeekV3 => RouterConfig {
                score: Score::Sigmoid { f32: true },
                select: Select::ScorePlusBias,
                groups: groups(GroupScore::Sum2, f32::NEG_INFINITY, false),
                norm: Norm::Sum { eps: 1e-20 },
                scale: 2.5,
                ..base
            },
            Self::DeepSeekV2 => RouterConfig {
                groups: groups(GroupScore::Max, 0.0, true),
                norm: Norm::None,
                scale: 16.0,
                ..base
            },
            Self::Softmax => base,
        };
        let bias = (config.select == Select::ScorePlusBias).then(|| {
            (0..EXPERTS as u64)
                .map(|expert| 0.02 * normal(!expert))
                .collect()
        });
        Selector::new(config, bias).unwrap()
    }
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn star(workers: usize) -> Self {
        let kind = ExchangeKind::Star;
        Self { kind, workers }
    }

    pub(crate) fn all_to_all(workers: usize) -> Self {
        let kind = ExchangeKind::AllToAll;
        Self { kind, workers }
    }
}

// === impl Step ===

impl Step {
    pub(crate) fn new(gate: Gate, exchange: Exchange, tokens: usize) -> Self {
        let placement = Placement::contiguous(EXPERTS, exchange.workers).unwrap();
        Self {
            logits: logits(tokens),
            selector: gate.selector(),
            scratch: SelectScratch::default(),
            route: Route {
                offsets: None,
                tokens,
                top_k: TOP_K,
                experts_total: EXPERTS,
                logits: Vec::new(),
                experts: vec![0; tokens * TOP_K],
                weights: vec![0.0; tokens * TOP_K],
                padding: None,
            },
            exchange,
            table: HostTable::new(&placement),
            limits: Limits {
                row_per_choice: false,
                row_bytes: 7168 * 2,
                chunk_bytes: 1 << 20,
            },
        }
    }

    /// Runs every stage; nanoseconds of each, and the ledger.
    pub(crate) fn run(&mut self) -> ([u64; STAGES.len()], TrafficLedger) {
        let mut ns = [0; STAGES.len()];
        let mut last = Instant::now();
        let mut lap = |stage: usize| {
            let now = Instant::now();
            ns[stage] = u64::try_from((now - last).as_nanos()).unwrap();
            last = now;
        };
        let Self { route, .. } = self;
        self.selector
            .select(
                self.logits,
                route.tokens,
                &mut route.experts,
                &mut route.weights,
                &mut self.scratch,
            )
            .unwrap();
        lap(0);
        let capacity = CapacityConfig {
            factor: Some(1.25),
            overflow: Overflow::DropPosition,
            ..CapacityConfig::default()
        };
        let admission = admit(route, &capacity, &AdmitContext::default()).unwrap();
        lap(1);
        let homes: Vec<u32> = match self.exchange.kind {
            ExchangeKind::Star => vec![COORDINATOR],
            ExchangeKind::AllToAll | ExchangeKind::Hierarchical => {
                (1..).take(self.exchange.workers).collect()
            }
        };
        let kept: Vec<KeptChoices> = shard_ranges(route.tokens, homes.len())
            .into_iter()
            .map(|tokens| KeptChoices::new(route, &admission, tokens))
            .collect();
        lap(2);
        let plans: Vec<ShardPlan> = homes
            .iter()
            .zip(&kept)
            .map(|(home, kept)| ShardPlan::new(*home, kept.as_kept(), &self.table, self.limits))
            .collect();
        lap(3);
        let ledger = TrafficLedger::of_step(
            self.exchange.kind,
            &plans,
            self.exchange.workers + 1,
            self.limits,
            7168 * 4,
        );
        lap(4);
        (ns, ledger)
    }
}

// === logits ===

/// `[tokens, EXPERTS]`: nearly normal, with experts that are liked more than others. `tokens` is a
/// power of two up to 1 Mi.
fn logits(tokens: usize) -> &'static [f32] {
    // For each size its own: a test has no use for the gigabyte of the bench.
    static MADE: [OnceLock<Vec<f32>>; 21] = [const { OnceLock::new() }; 21];
    MADE[tokens.ilog2() as usize].get_or_init(|| {
        let liked: Vec<f32> = (0..EXPERTS as u64)
            .map(|expert| 0.2 * normal(expert))
            .collect();
        (0..tokens * EXPERTS)
            .map(|at| normal(at as u64) + liked[at % EXPERTS])
            .collect()
    })
}

/// The sum of four uniform numbers, scaled to a variance of 1, from SplitMix64's output function.
fn normal(at: u64) -> f32 {
    let mut bits = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let sum: u32 = (0..4)
        .map(|part| u32::from((bits >> (16 * part)) as u16))
        .sum();
    (sum as f32 / 65_536.0 - 2.0) * 3.0_f32.sqrt()
}
