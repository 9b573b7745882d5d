//! How a step runs: placement, exchange, capacity, and what happens when a worker is lost.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use expertmesh_coordinator::{CoordinatorConfig, Defaults};
use expertmesh_exchange::{ExchangeKind, Groups, OnLoss};
use expertmesh_kernels::Format;
use expertmesh_placement::{Placement, Strategy};
use expertmesh_routing::{BiasUpdate, CapacityConfig};
use expertmesh_simulator::{Layer, SimConfig};
use expertmesh_transport::LinkOptions;

use crate::args::capacity::CapacityArgs;
use crate::args::model::Model;
use crate::args::values::{
    Combine, ExchangeFlag, PlacementChoice, Wait, at_least_one, parsed, push,
};
use crate::error::Failure;

/// The flags that say how a step runs; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Step")]
pub(crate) struct StepArgs {
    /// Which worker holds which expert: contiguous, round-robin, shuffled, or a TOML file with a
    /// table such as `experts = [[0], [1], [0, 1]]` [default: contiguous]
    #[arg(long, value_name = "RULE", value_parser = parsed::<PlacementChoice>)]
    pub(crate) placement: Option<PlacementChoice>,
    /// How rows travel: star, all-to-all or hierarchical (needs --group-size, or a --topology whose
    /// hosts are the groups); or auto: in launch, run, bench dispatch and simulate the one whose
    /// predicted mean step is the least [default: all-to-all]
    #[arg(long, value_name = "KIND", value_parser = parsed::<ExchangeFlag>)]
    pub(crate) exchange: Option<ExchangeFlag>,
    /// Workers of a group, in the order of their names: in the hierarchical exchange a row goes to
    /// each group once, and is passed on inside it; with auto it may be that one
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) group_size: Option<NonZeroUsize>,
    /// Where results are added up: exact [default: exact]
    #[arg(long, value_name = "HOW", value_parser = parsed::<Combine>)]
    pub(crate) combine: Option<Combine>,
    /// Number format of rows on the wire: f32 or bf16 [default: as --dtype]
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<Format>)]
    pub(crate) wire_dtype: Option<Format>,
    /// When a worker is lost: fail the step, or drop its choices and count them [default: fail]
    #[arg(long, value_name = "POLICY", value_parser = parsed::<OnLoss>)]
    pub(crate) on_loss: Option<OnLoss>,
    /// Longest time of a step, such as 30s or 500ms [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parsed::<Wait>)]
    pub(crate) deadline: Option<Wait>,
    /// Chunks that may be under way from a home to one worker [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) credits: Option<NonZeroUsize>,
    /// Longest frame that rows are cut to, bytes [default: 1047552]
    #[arg(long, value_name = "BYTES", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) chunk_bytes: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) capacity: CapacityArgs,
}

/// How a step runs, with every choice made.
#[derive(Debug, Clone)]
pub(crate) struct StepOptions {
    pub(crate) placement: Placement,
    pub(crate) exchange: ExchangeKind,
    /// `[workers]` the group of each; empty where the exchange has none.
    pub(crate) groups: Vec<u32>,
    pub(crate) capacity: CapacityConfig,
    pub(crate) bias_update: Option<BiasUpdate>,
    pub(crate) wire_dtype: Format,
    pub(crate) on_loss: OnLoss,
    pub(crate) deadline: Wait,
    pub(crate) credits: usize,
    pub(crate) chunk_bytes: usize,
}

// === impl StepArgs ===

impl StepArgs {
    /// Makes every choice for a layer of `experts` experts on `workers` workers.
    ///
    /// # Errors
    /// [`Failure::Input`] for flags that contradict each other and placement files that do not fit.
    pub(crate) fn resolve(
        &self,
        experts: usize,
        workers: usize,
        dtype: Format,
        seed: u64,
    ) -> Result<StepOptions, Failure> {
        let capacity = self.capacity.resolve()?;
        Ok(StepOptions {
            placement: self.place(experts, workers, seed)?,
            exchange: self.kind()?,
            groups: self.groups(workers)?,
            capacity,
            bias_update: self.capacity.bias_rate.map(|rate| BiasUpdate { rate }),
            wire_dtype: self.wire_dtype.unwrap_or(dtype),
            on_loss: self.on_loss.unwrap_or_default(),
            deadline: self.deadline.unwrap_or(Wait(Defaults::DEADLINE)),
            credits: self.credits.map_or(Defaults::CREDITS, usize::from),
            chunk_bytes: self.chunk_bytes.map_or(Defaults::CHUNK_BYTES, usize::from),
        })
    }

    /// Whether a cost model is asked for the exchange.
    pub(crate) fn is_auto(&self) -> bool {
        self.exchange == Some(ExchangeFlag::Auto)
    }

    /// The exchange, which has a name by now.
    fn kind(&self) -> Result<ExchangeKind, Failure> {
        match self.exchange {
            None => Ok(ExchangeKind::default()),
            Some(ExchangeFlag::Kind(kind)) => Ok(kind),
            Some(ExchangeFlag::Auto) => Err(Failure::input(
                "--exchange is auto, expected star, all-to-all or hierarchical here: launch, run, \
                 bench dispatch and simulate know the machines and the batch that it is chosen by; \
                 `simulate --exchange auto` tells which",
            )),
        }
    }

    /// The group of each worker, where the exchange has groups.
    fn groups(&self, workers: usize) -> Result<Vec<u32>, Failure> {
        let exchange = self.kind()?;
        match (exchange, self.group_size) {
            (ExchangeKind::Hierarchical, Some(size)) => Ok(Groups::contiguous(workers, size.get())),
            (ExchangeKind::Hierarchical, None) => Err(Failure::input(
                "--exchange hierarchical needs --group-size N, the number of workers that stand \
                 together, or a --topology whose hosts say so",
            )),
            (_, None) => Ok(Vec::new()),
            (_, Some(size)) => Err(Failure::input(format!(
                "--group-size is {size}, but --exchange {exchange} has no groups; use --exchange \
                 hierarchical"
            ))),
        }
    }

    /// The placement alone.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub(crate) fn place(
        &self,
        experts: usize,
        workers: usize,
        seed: u64,
    ) -> Result<Placement, Failure> {
        let strategy = PlacementChoice::Strategy(Strategy::default());
        match self.placement.as_ref().unwrap_or(&strategy) {
            PlacementChoice::Strategy(strategy) => Ok(strategy.place(experts, workers, seed)?),
            PlacementChoice::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::input(format!("cannot read {}: {error}", path.display()))
                })?;
                Placement::parse_toml(&text, experts, workers)
                    .map_err(|error| Failure::input(format!("{}: {error}", path.display())))
            }
        }
    }

    /// The flags again, for a child process.
    pub(crate) fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        push(&mut argv, "--placement", self.placement.as_ref());
        push(&mut argv, "--exchange", self.exchange);
        push(&mut argv, "--group-size", self.group_size);
        push(&mut argv, "--combine", self.combine);
        self.capacity.to_argv(&mut argv);
        push(&mut argv, "--wire-dtype", self.wire_dtype);
        push(&mut argv, "--on-loss", self.on_loss);
        push(&mut argv, "--deadline", self.deadline);
        push(&mut argv, "--credits", self.credits);
        push(&mut argv, "--chunk-bytes", self.chunk_bytes);
        argv
    }
}

// === impl StepOptions ===

impl StepOptions {
    /// What the coordinator of `model` is told that serves these steps over the workers at
    /// `workers`: with one compute thread, the machine's own links, no forced routes and no router of
    /// mixture-of-depths, which a command that has them sets.
    pub(crate) fn coordinator(&self, model: &Model, workers: Vec<String>) -> CoordinatorConfig {
        CoordinatorConfig {
            name: "coordinator".to_owned(),
            workers,
            source: Arc::clone(&model.source),
            model: model.wire.clone(),
            placement: self.placement.clone(),
            exchange: self.exchange,
            groups: self.groups.clone(),
            wire_dtype: self.wire_dtype,
            capacity: self.capacity,
            seed: model.seed,
            bias_update: self.bias_update,
            training: self.capacity.training,
            depth: None,
            force: None,
            on_loss: self.on_loss,
            deadline: self.deadline.0,
            chunk_bytes: self.chunk_bytes,
            credits: self.credits,
            threads: 1,
            options: LinkOptions::default(),
        }
    }

    /// The same for a simulated cluster: only routes and fates are asked of its coordinator.
    pub(crate) fn rehearsed(&self, model: &Model, workers: usize) -> CoordinatorConfig {
        self.coordinator(model, vec!["simulated".to_owned(); workers])
    }

    /// How steps of `layer` are simulated.
    pub(crate) fn simulated(&self, layer: Layer) -> SimConfig {
        SimConfig {
            groups: self.groups.clone(),
            chunk_bytes: self.chunk_bytes,
            credits: self.credits,
            on_loss: self.on_loss,
            deadline_ns: u64::try_from(self.deadline.0.as_nanos()).unwrap_or(u64::MAX),
            ..SimConfig::new(layer, self.placement.clone(), self.exchange)
        }
    }
}
