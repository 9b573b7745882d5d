//! Brings its own expert: a cluster of two workers and a coordinator in this process, which
//! forwards a batch through experts that expertmesh has never heard of.
//!
//! Reading order: `low_rank` (the expert), `layer` (the gate before it), then this file, which
//! registers the one with the workers, hands the other to the coordinator, and runs a step.
//!
//! On several machines the parts are the same: each worker program registers the experts under
//! the same name, and the coordinator asks for that name.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "an example shows what it computed")]

mod layer;
mod low_rank;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;

use expertmesh_coordinator::{Coordinator, CoordinatorConfig, Defaults, StepOutput};
use expertmesh_exchange::{ExchangeKind, OnLoss};
use expertmesh_kernels::Format;
use expertmesh_placement::Strategy;
use expertmesh_routing::{CapacityConfig, Overflow};
use expertmesh_transport::LinkOptions;
use expertmesh_wire::{format_to_wire, v1};
use expertmesh_worker::{ExpertRegistry, Worker, WorkerConfig};
use ndarray::ArcArray2;
use tokio::sync::watch;

use crate::layer::LowRankLayer;
use crate::low_rank::LowRanks;

const NAME: &str = "low-rank";
const HIDDEN: usize = 16;
const RANK: usize = 4;
const EXPERTS: usize = 4;
const TOP_K: usize = 2;
const SEED: u64 = 7;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    // Every expert accepts its even share of the choices, the heaviest first.
    let capacity = CapacityConfig {
        factor: Some(1.0),
        overflow: Overflow::DropWeight,
        ..CapacityConfig::default()
    };
    let step = forward(batch(12), ExchangeKind::AllToAll, capacity).await?;
    print(&step);
    Ok(())
}

/// Starts a cluster, forwards `x` `[tokens, HIDDEN]` once, and takes the cluster down.
async fn forward(
    x: ArcArray2<f32>,
    exchange: ExchangeKind,
    capacity: CapacityConfig,
) -> Outcome<StepOutput> {
    let (stop, stopped) = watch::channel(false);
    let mut addresses = Vec::new();
    let mut workers = Vec::new();
    for at in 0..2 {
        let worker = Worker::bind(WorkerConfig {
            name: format!("worker-{at}"),
            listen: "127.0.0.1:0".to_owned(),
            threads: 1,
            options: LinkOptions::default(),
            registry: ExpertRegistry::default().with(NAME, Arc::new(experts())),
        })?;
        addresses.push(worker.local_addr().to_string());
        let mut stopped = stopped.clone();
        workers.push(tokio::spawn(worker.serve(async move {
            // An error means that the sender is gone, which says the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        })));
    }

    let coordinator = Coordinator::connect(CoordinatorConfig {
        name: "coordinator".to_owned(),
        placement: Strategy::Contiguous.place(EXPERTS, addresses.len(), SEED)?,
        workers: addresses,
        source: Arc::new(LowRankLayer::new(experts(), TOP_K, SEED)),
        model: v1::ModelSource {
            source: Some(v1::model_source::Source::Custom(v1::CustomModel {
                name: NAME.to_owned(),
                hidden: u32::try_from(HIDDEN)?,
                experts: u32::try_from(EXPERTS)?,
                top_k: u32::try_from(TOP_K)?,
                seed: SEED,
                weight_in_dtype: false,
            })),
            dtype: format_to_wire(Format::F32).into(),
        },
        exchange,
        groups: Vec::new(),
        wire_dtype: Format::F32,
        capacity,
        seed: 0,
        bias_update: None,
        training: false,
        depth: None,
        force: None,
        on_loss: OnLoss::Fail,
        deadline: Defaults::DEADLINE,
        chunk_bytes: Defaults::CHUNK_BYTES,
        credits: Defaults::CREDITS,
        threads: 1,
        options: LinkOptions::default(),
    })
    .await?;
    let step = coordinator.forward(x, None).await;

    drop(coordinator);
    stop.send_replace(true);
    for worker in workers {
        worker.await??;
    }
    Ok(step?)
}

fn experts() -> LowRanks {
    LowRanks {
        experts: EXPERTS,
        hidden: HIDDEN,
        rank: RANK,
    }
}

/// Token rows `[tokens, HIDDEN]` out of a formula.
fn batch(tokens: usize) -> ArcArray2<f32> {
    ArcArray2::from_shape_fn((tokens, HIDDEN), |(token, at)| {
        ((token * 37 + at * 13) % 29) as f32 / 16.0 - 0.875
    })
}

fn print(step: &StepOutput) {
    println!("outputs, first 4 of {HIDDEN} elements of each token:");
    for (token, row) in step.output.rows().into_iter().enumerate() {
        let choices = token * step.route.top_k..(token + 1) * step.route.top_k;
        let fates = step.admission.fates[choices.clone()]
            .iter()
            .map(ToString::to_string);
        let chosen = step.route.experts[choices].iter().zip(fates);
        let chosen: Vec<String> = chosen
            .map(|(expert, fate)| format!("expert {expert} {fate}"))
            .collect();
        let start: Vec<String> = row.iter().take(4).map(|y| format!("{y:8.4}")).collect();
        println!("{token:4} {}  {}", start.join(" "), chosen.join(", "));
    }
    let ledger = &step.overflow;
    let total = ledger.totals();
    println!(
        "\noverflow: {} choices = {} computed + {} dropped, {:.3} of {:.3} gate weight lost",
        total.assigned, total.computed, total.dropped, total.dropped_weight, total.assigned_weight,
    );
    if let (Some(factor), Some(capacity)) = (ledger.capacity_factor, ledger.capacity) {
        // Rounded up: rounded down, the factor would still drop.
        let enough = (ledger.smallest_sufficient_capacity_factor * 1000.0).ceil() / 1000.0;
        println!(
            "capacity factor {factor:.3} = {capacity} choices an expert; {enough:.3} would have \
             dropped none"
        );
    }
    for (expert, count) in ledger.per_expert.iter().enumerate() {
        println!(
            "  expert {expert}: {} assigned, {} computed, {} dropped",
            count.assigned, count.computed, count.dropped
        );
    }
}
