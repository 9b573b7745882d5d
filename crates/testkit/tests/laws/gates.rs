//! Every gate by name, through clusters.

use expertmesh_checkpoint::{SyntheticLayer, SyntheticSpec};
use expertmesh_coordinator::{StepInput, StepOutput};
use expertmesh_kernels::Format;
use expertmesh_routing::{BiasUpdate, Fate, Kind, RouterPreset};
use expertmesh_testkit::{Cluster, ClusterSpec, Model, Parts, inputs, tensor};

use crate::common::{EXCHANGES, same_bits, shape, small};

const TOKENS: usize = 37;
const HIDDEN: usize = 64;

fn presets() -> Vec<RouterPreset> {
    // Groups of one expert have no two highest; replay has a test of its own.
    let skip = ["replay"];
    let all = RouterPreset::all().iter();
    let named = all.filter(|info| !skip.contains(&info.name));
    named.map(|info| info.name.parse().unwrap()).collect()
}

fn model(preset: &RouterPreset) -> Model {
    let spec = SyntheticSpec {
        experts: 16,
        top_k: preset.top_k(2),
        ..shape(Format::F32)
    };
    let layer = SyntheticLayer::new(spec).unwrap().with_gate(preset);
    Model::gated(spec, layer.unwrap())
}

async fn step(model: &Model, workers: usize, star: bool, x: &[f32]) -> StepOutput {
    let exchange = EXCHANGES[usize::from(!star)];
    let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
    spec.training = true;
    let cluster = Cluster::start(spec).await;
    let input = StepInput {
        token_ids: Some(
            (0..)
                .take(TOKENS)
                .map(|token| token * 7919 % 1000)
                .collect(),
        ),
        at_step: Some(5),
        ..StepInput::default()
    };
    let step = cluster.coordinator().forward_in(tensor(x, HIDDEN), input);
    step.await.unwrap()
}

/// What the experts make of the rows of `step`, one choice after another, and for a gate that
/// mixes tokens what each takes of the slots.
fn naive(parts: &Parts, x: &[f32], step: &StepOutput) -> Vec<f32> {
    let Some(mix) = &step.mix else {
        return parts.forward(Format::F32, x, &step.route, &step.admission);
    };
    let mut slots = vec![0.0; mix.slot_count() * HIDDEN];
    mix.slot_rows(x, HIDDEN, 0..mix.slot_count(), &mut slots)
        .unwrap();
    let results = parts.forward(Format::F32, &slots, &step.route, &step.admission);
    let mut out = vec![0.0; x.len()];
    mix.outputs(&results, HIDDEN, 0..TOKENS, &mut out).unwrap();
    out
}

#[tokio::test]
async fn every_gate_has_the_bits_of_its_choices_on_any_cluster() {
    let x = inputs(31, TOKENS, HIDDEN, Format::F32);
    for preset in presets() {
        let model = model(&preset);
        let parts = Parts::load(model.source.as_ref());
        let router = &model.source.spec().router;
        let jitters = router.noise.jitter.is_some_and(|jitter| jitter.experts_see);
        // These look at who holds which expert, so their answers differ with the cluster.
        let by_place = router.needs().domains;
        let mut first: Option<StepOutput> = None;
        for (workers, star) in [(1, true), (3, true), (3, false), (4, false)] {
            let what = format!("{preset}, {workers} workers, star: {star}");
            let step = step(&model, workers, star, &x).await;
            step.overflow.check_conservation().unwrap();
            let totals = step.overflow.totals();
            assert_eq!(totals.dropped + totals.lost, 0, "{what}");
            let output = step.output.as_slice().unwrap();
            if !jitters {
                same_bits(output, &naive(&parts, &x, &step), &what);
            }
            match &first {
                Some(first) if !by_place => {
                    assert_eq!(step.route, first.route, "{what}");
                    assert_eq!(step.admission, first.admission, "{what}");
                    same_bits(output, first.output.as_slice().unwrap(), &what);
                }
                Some(_) => {}
                None => first = Some(step),
            }
        }
        let first = first.unwrap();
        let skipped = first
            .admission
            .fates
            .iter()
            .filter(|fate| **fate == Fate::Skipped);
        let null = router.free.contains(&expertmesh_routing::FreeExpert::Null);
        assert_eq!(
            skipped.count() > 0,
            null,
            "{preset}: only null experts are skipped"
        );
    }
}

/// A gate whose bias follows the load evens out, the same on any cluster.
#[tokio::test]
async fn an_online_bias_evens_out_the_load_of_steps() {
    let model = model(&"sigmoid-bias".parse().unwrap());
    // Rows that lean to one side of the gate: some experts are chosen by all.
    let mut x = inputs(34, TOKENS, HIDDEN, Format::F32);
    x.chunks_exact_mut(HIDDEN)
        .for_each(|row| row[..8].fill(1.5));
    let mut ends = Vec::new();
    for workers in [1, 3] {
        let mut spec = ClusterSpec::new(model.clone(), workers);
        spec.bias_update = Some(BiasUpdate { rate: 0.02 });
        let cluster = Cluster::start(spec).await;
        let mut highest = Vec::new();
        let mut last = Vec::new();
        for _ in 0..60 {
            let step = cluster.forward(&x).await.unwrap();
            highest.push(step.route.demand().into_iter().max().unwrap());
            last = step.output.into_raw_vec_and_offset().0;
        }
        let even = (TOKENS * 2 / 16) as u64;
        assert!(highest[0] > 3 * even, "{highest:?}: nothing to even out");
        assert!(highest[59] <= 2 * even + 1, "{highest:?}");
        let gate = cluster.coordinator().current_gate();
        ends.push((gate.selection_bias().unwrap().to_vec(), last));
    }
    assert_eq!(ends[0].0, ends[1].0, "the same bias");
    same_bits(&ends[0].1, &ends[1].1, "the last step");
    let plain = small(Format::F32);
    let mut spec = ClusterSpec::new(plain, 1);
    spec.bias_update = Some(BiasUpdate { rate: 0.1 });
    let refused = spec.connect(vec!["127.0.0.1:1".to_owned()]).await;
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(error.contains("bias_update"), "{error}");
}

#[tokio::test]
async fn free_experts_send_nothing() {
    let x = inputs(32, TOKENS, HIDDEN, Format::F32);
    let model = model(&"longcat:16".parse().unwrap());
    let step = step(&model, 3, true, &x).await;
    let held = |expert: &&u32| **expert < 16;
    let sent = step.route.experts.iter().filter(held).count();
    assert!(sent < TOKENS * 2, "a case that says something");
    let results: u64 = (1..4)
        .map(|worker| step.traffic.ledger.cell(worker, 0).rows)
        .sum();
    assert_eq!(
        results, sent as u64,
        "one row a choice of an expert that is held"
    );
    assert_eq!(step.overflow.totals().computed, (TOKENS * 2) as u64);
}

#[tokio::test]
async fn a_gate_without_what_it_needs_says_so() {
    let hash = model(&"hash".parse().unwrap());
    let cluster = Cluster::start(ClusterSpec::new(hash, 1)).await;
    let x = inputs(33, TOKENS, HIDDEN, Format::F32);
    let error = cluster.forward(&x).await.unwrap_err();
    assert!(error.is_input(), "{error}");
    assert!(error.to_string().contains("token_ids"), "{error}");
}

#[test]
fn presets_are_of_every_kind() {
    let mut names: Vec<&str> = presets()
        .iter()
        .map(|preset| {
            preset
                .config(16, preset.top_k(2), Format::F32)
                .unwrap()
                .kind
                .name()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    for kind in [Kind::TopK, Kind::Sampled, Kind::ForcedBalance] {
        assert!(names.contains(&kind.name()));
    }
    assert!(names.len() >= 14, "{names:?}");
}
