//! Experts that work on latent rows: the model's order of sums, and bytes of latent rows alone.

use std::sync::Arc;

use expertmesh_checkpoint::{CheckpointError, LayerSource, LayerSpec};
use expertmesh_coordinator::{Stack, StepInput, StepOutput};
use expertmesh_exchange::{COORDINATOR, ExchangeKind, LinkCell, OnLoss, TrafficLedger};
use expertmesh_experts::{Expert, SharedExpert};
use expertmesh_kernels::{Format, bf16_round};
use expertmesh_placement::Placement;
use expertmesh_routing::{AdmitContext, CapacityConfig, Fate, Gate, admit};
use expertmesh_simulator::{Costs, Layer, SimConfig, Simulator};
use expertmesh_telemetry::Phase;
use expertmesh_testkit::{
    Cluster, ClusterSpec, Golden, LatentCase, Model, Node, golden_dir, tensor,
};
use expertmesh_topology::Topology;

use crate::common::{EXCHANGES, same_bits, soon};
use crate::depth::router;

const HIDDEN: usize = LatentCase::HIDDEN;
const LATENT: usize = LatentCase::LATENT;
/// The case's name among the golden ones.
const CASE: &str = "nemotron_h";

/// The layer, its golden input, and the directory that must outlive its workers' loading.
struct Setup {
    case: LatentCase,
    model: Model,
    x: Vec<f32>,
    _directory: tempfile::TempDir,
}

fn setup(dtype: Format) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let case = LatentCase::write(&golden_dir(CASE), directory.path());
    let model = Model::checkpoint(directory.path(), LatentCase::LAYER, dtype);
    Setup {
        case,
        model,
        x: Golden::open(CASE, dtype).x,
        _directory: directory,
    }
}

async fn step(spec: ClusterSpec, x: &[f32], input: StepInput) -> StepOutput {
    let cluster = Cluster::start(spec).await;
    let step = cluster.coordinator().forward_in(tensor(x, HIDDEN), input);
    let step = step.await.unwrap();
    let traffic = cluster.coordinator().traffic().await.unwrap();
    let carried: u64 = traffic.iter().map(|link| link.message_bytes).sum();
    let planned = step.traffic.ledger.total().bytes;
    assert_eq!(carried, planned, "ledger = transport");
    step
}

/// The largest distance over the largest expected magnitude, and the share of equal bits.
fn compared(got: &[f32], expected: &[f32]) -> (f32, f64) {
    assert_eq!(got.len(), expected.len());
    let pairs = || got.iter().zip(expected);
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    let distance = pairs().fold(0f32, |a, (got, expected)| a.max((got - expected).abs()));
    let equal = pairs().filter(|(got, expected)| got.to_bits() == expected.to_bits());
    (
        distance / largest,
        equal.count() as f64 / expected.len() as f64,
    )
}

#[tokio::test]
async fn latent_experts_agree_with_the_models_order_of_sums() {
    for dtype in [Format::F32, Format::Bf16] {
        let Setup { case, model, x, .. } = &setup(dtype);
        let mut first: Option<Vec<f32>> = None;
        for workers in [1, 3] {
            for exchange in EXCHANGES {
                let what = format!("{dtype}, {workers} workers, {exchange}");
                let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
                (spec.wire_dtype, spec.threads) = (dtype, workers);
                let input = StepInput {
                    want_lanes: true,
                    ..StepInput::default()
                };
                let step = step(spec, x, input).await;
                let output = step.output.as_slice().unwrap();
                let route = &step.route;
                let expected = case.expected(x, &route.experts, &route.weights, dtype);
                let (error, equal) = compared(output, &expected);
                match dtype {
                    Format::F32 => assert!(error <= 2e-5, "{what}: {error:e}"),
                    Format::Bf16 => {
                        assert!(error <= 3e-2, "{what}: {error:e}");
                        assert!(equal >= 0.9, "{what}: {equal} equal");
                    }
                }
                let phases = &step.record.phases_ns;
                assert!(phases[Phase::Shared.index()] > 0, "{what}");
                let shared = step.lanes.iter().filter(|one| one.phase == Phase::Shared);
                let places: Vec<u32> = shared.map(|one| one.endpoint).collect();
                assert_eq!(places, [COORDINATOR], "{what}");
                match &first {
                    None => {
                        let share = 100.0 * equal;
                        println!("{what}: error {error:.1e}, {share:.2} % bit-equal");
                        first = Some(output.to_vec());
                    }
                    Some(first) => same_bits(output, first, &what),
                }
            }
        }
    }
}

/// Rows that the wire rounds, whose shared expert still sees what no wire has seen.
#[tokio::test]
async fn a_lossy_wire_gives_the_same_bits_everywhere() {
    let Setup { model, x, .. } = &setup(Format::F32);
    let mut first: Option<Vec<f32>> = None;
    for workers in [1, 3] {
        for exchange in EXCHANGES {
            let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
            spec.wire_dtype = Format::Bf16;
            let step = step(spec, x, StepInput::default()).await;
            let output = step.output.as_slice().unwrap();
            match &first {
                None => first = Some(output.to_vec()),
                Some(first) => same_bits(output, first, "over bf16"),
            }
        }
    }
}

/// By pair: messages, rows, and bytes beside the rows.
fn links(ledger: &TrafficLedger, row_bytes: usize) -> Vec<([u64; 4], u64)> {
    let of = |(from, to, cell): (u32, u32, LinkCell)| {
        let rows = cell.rows * row_bytes as u64;
        let beside = cell.bytes.checked_sub(rows);
        let key = [u64::from(from), u64::from(to), cell.messages, cell.rows];
        (key, beside.expect("rows are in the bytes"))
    };
    ledger.links().map(of).collect()
}

/// The golden layer has the same gate, and so the same choices, and rows of hidden states.
#[tokio::test]
async fn what_travels_is_latent_rows() {
    let dtype = Format::Bf16;
    let Setup { model, x, .. } = &setup(dtype);
    let plain = Golden::open(CASE, dtype);
    for exchange in EXCHANGES {
        let ledger = async |model: &Model| {
            let mut spec = ClusterSpec::new(model.clone(), 3).exchange(exchange);
            spec.wire_dtype = dtype;
            step(spec, x, StepInput::default()).await.traffic.ledger
        };
        let (wide, narrow) = (ledger(&plain.model).await, ledger(model).await);
        let (of_wide, of_narrow) = (links(&wide, HIDDEN * 2), links(&narrow, LATENT * 2));
        assert!(!of_wide.is_empty());
        for ((key, beside), (other, less)) in of_wide.iter().zip(&of_narrow) {
            assert_eq!(key, other, "{exchange}: the same messages of as many rows");
            // Lengths are written in fewer bytes, at most one of each of the two.
            assert!((beside - 2 * key[2]..=*beside).contains(less), "{exchange}");
        }
        let rows: u64 = of_wide.iter().map(|(key, _)| key[3]).sum();
        let least = rows * 2 * (HIDDEN - LATENT) as u64;
        assert!(wide.total().bytes - narrow.total().bytes >= least);
        let saved = (wide.saved_by_dedup_bytes, narrow.saved_by_dedup_bytes);
        assert_eq!(saved.0 * LATENT as u64, saved.1 * HIDDEN as u64);
    }
}

#[tokio::test]
async fn a_simulation_has_the_ledger_of_the_run() {
    let Setup { model, x, .. } = &setup(Format::F32);
    let spec = model.source.spec();
    let route = (model.source.gate().unwrap()).route(x, x.len() / HIDDEN, None);
    let route = route.unwrap();
    let admission = admit(&route, &CapacityConfig::default(), &AdmitContext::default()).unwrap();
    let text = "[[host]]\ncount = 3\nslots = 1\n[tier.rack]\nlatency = \"9 us\"\n\
                bandwidth = \"1 Gbit/s\"\n";
    let topology = Topology::parse(text, "latent.toml").unwrap();
    for exchange in EXCHANGES {
        let mut real = ClusterSpec::new(model.clone(), 3).exchange(exchange);
        real.group_size = 1;
        let real = step(real, x, StepInput::default()).await;
        let layer = Layer::of(spec, Format::F32);
        let placement = Placement::contiguous(spec.experts, 3).unwrap();
        let mut config = SimConfig::new(layer, placement, exchange);
        if exchange == ExchangeKind::Hierarchical {
            config.groups = vec![0, 1, 2];
        }
        let mut simulator = Simulator::new(&topology, Costs::loopback(), config).unwrap();
        let one = simulator.step(&route, &admission).unwrap();
        assert_eq!(one.ledger, real.traffic.ledger, "{exchange}");
        assert_eq!(one.carried, one.ledger, "{exchange}");
        let phases = &one.record.phases_ns;
        assert!(phases[Phase::Shared.index()] > 0, "{exchange}");
    }
}

#[tokio::test]
async fn padding_depth_and_stacks_keep_hidden_states() {
    for dtype in [Format::F32, Format::Bf16] {
        let Setup { model, x, .. } = &setup(dtype);
        let tokens = x.len() / HIDDEN;
        let padding: Vec<bool> = (0..tokens).map(|token| token % 7 == 3).collect();
        let whole = step(ClusterSpec::new(model.clone(), 1), x, StepInput::default()).await;
        let whole = whole.output.as_slice().unwrap();
        for exchange in EXCHANGES {
            let spec = ClusterSpec::new(model.clone(), 3).exchange(exchange);
            let none = step(spec.clone(), &[], StepInput::default()).await;
            assert_eq!(none.output.dim(), (0, HIDDEN), "{exchange}");
            let input = StepInput::padded(Some(padding.clone()));
            let padded = step(spec.clone(), x, input).await;
            let rows = padded.output.as_slice().unwrap().chunks_exact(HIDDEN);
            let pairs = rows.zip(whole.chunks_exact(HIDDEN)).enumerate();
            for (token, (got, full)) in pairs.filter(|(token, _)| !padding[*token]) {
                same_bits(got, full, &format!("{exchange}, token {token}"));
            }

            let mut deep = spec.clone();
            deep.depth = Some(router(5, HIDDEN));
            let deep = step(deep, x, StepInput::padded(Some(padding.clone()))).await;
            let depth = deep.depth.as_ref().unwrap();
            assert!(depth.passes.contains(&true) && depth.passes.contains(&false));
            let expected = whole.chunks_exact(HIDDEN).enumerate();
            let expected = expected.flat_map(|(token, row)| {
                let weighed = move |value: &f32| match (depth.passes[token], dtype) {
                    (false, _) => 0.0,
                    (true, Format::F32) => depth.gates[token] * value,
                    (true, Format::Bf16) => bf16_round(depth.gates[token] * value),
                };
                row.iter().map(weighed)
            });
            let expected: Vec<f32> = expected.collect();
            same_bits(deep.output.as_slice().unwrap(), &expected, "depth");

            let nodes: Vec<Node> = (0..3).map(|at| spec.worker(&format!("{at}"))).collect();
            let config = spec.config(nodes.iter().map(Node::addr).collect());
            let stack = Stack::connect(vec![config.clone(), config], false, None);
            let stack = stack.await.unwrap();
            let got = stack.forward(tensor(x, HIDDEN), None).await.unwrap();
            let second = stack.layers()[1].forward(tensor(whole, HIDDEN), None).await;
            assert_eq!(got.output, second.unwrap().output, "{exchange}");
        }
    }
}

/// Its experts' choices are lost, in the first step those of its tokens too; the projections and the
/// shared expert are the coordinator's, which lives.
#[tokio::test]
async fn a_lost_worker_takes_its_choices_and_no_more() {
    let Setup { case, model, x, .. } = &setup(Format::F32);
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(model.clone(), 3).exchange(exchange);
        spec.on_loss = OnLoss::Drop;
        let mut cluster = Cluster::start(spec).await;
        cluster.take(1).unwrap().kill();
        for round in 0..2 {
            let step = soon(cluster.forward(x)).await.unwrap();
            step.overflow.check_conservation().unwrap();
            let fates = &step.admission.fates;
            let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
            assert!(lost > 0 && lost < fates.len(), "{exchange}, round {round}");
            assert_eq!(step.overflow.totals().lost, lost as u64);
            let route = &step.route;
            let kept = route.weights.iter().zip(fates);
            let kept = kept.map(|(weight, fate)| match fate {
                Fate::Lost => 0.0,
                _ => *weight,
            });
            let kept: Vec<f32> = kept.collect();
            let expected = case.expected(x, &route.experts, &kept, Format::F32);
            let (error, _) = compared(step.output.as_slice().unwrap(), &expected);
            assert!(error <= 2e-5, "{exchange}, round {round}: {error:e}");
        }
    }
}

/// A source whose spec says something else than its layer.
struct Told {
    inner: Arc<dyn LayerSource>,
    spec: LayerSpec,
}

impl LayerSource for Told {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        self.inner.gate()
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        self.inner.expert(expert)
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        self.inner.shared()
    }
}

#[tokio::test]
async fn what_latent_rows_cannot_have_is_refused() {
    let Setup { model, .. } = &setup(Format::F32);
    let refused = async |change: fn(&mut LayerSpec)| {
        let mut spec = model.source.spec().clone();
        change(&mut spec);
        let (inner, wire) = (model.source.clone(), model.wire.clone());
        let told = Arc::new(Told { inner, spec });
        let home = told.home().err().map(|error| error.to_string());
        let model = Model {
            source: told,
            wire,
            ..model.clone()
        };
        let cluster = ClusterSpec::new(model, 1);
        let connected = cluster.connect(vec!["127.0.0.1:1".to_owned()]);
        (connected.await.map(drop).unwrap_err().to_string(), home)
    };
    let (error, home) = refused(|spec| spec.free_experts = 2).await;
    assert_eq!(
        error,
        "`free experts` holds 2 beside a latent size of 24, expected none there, because a free \
         expert answers with hidden states"
    );
    assert_eq!(
        home.unwrap(),
        "free experts is 2 in a layer whose experts work on 24 latent values, expected none there: a \
         free expert answers with hidden states"
    );
    let (error, home) = refused(|_| {}).await;
    assert_eq!(
        error,
        "`projections` holds nothing, expected (32, 24), the layer's hidden and latent size"
    );
    assert_eq!(home, None);
}
