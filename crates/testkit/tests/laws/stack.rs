//! Several layers, and tokens that leave between them.

use std::sync::Arc;

use expertmesh_coordinator::{
    CoordinatorConfig, CoordinatorError, CoordinatorService, Replayed, Stack, StackOutput,
    StepInput, to_record,
};
use expertmesh_kernels::{Format, PackedMatrix, bf16_round};
use expertmesh_routing::{AdmitContext, CapacityConfig, ExitGate, ExitRule, Fate, admit};
use expertmesh_testkit::{Cluster, ClusterSpec, Model, Node, Parts, inputs, tensor};
use expertmesh_transport::CoordinatorControl as _;
use expertmesh_wire::{protocol_version, v1};

use crate::common::{EXCHANGES, same_bits, shape};
use crate::depth::{router, weights, who_passes};

const HIDDEN: usize = 64;
const TOKENS: usize = 40;
const LAYERS: u32 = 3;
const CLASSES: usize = 2;
const THRESHOLD: f32 = 0.45;

fn layer(number: u32, dtype: Format) -> Model {
    let mut spec = shape(dtype);
    spec.layer = number;
    Model::synthetic(spec)
}

fn head() -> Vec<f32> {
    let rows = inputs(77, CLASSES, HIDDEN, Format::F32);
    rows.into_iter().map(|weight| weight / 64.0).collect()
}

fn exit() -> Arc<ExitGate> {
    let head = PackedMatrix::from_f32(&head(), CLASSES, HIDDEN).unwrap();
    Arc::new(ExitGate::new(head, None, ExitRule::Entropy(THRESHOLD)).unwrap())
}

/// Large enough that what a layer adds to them counts.
fn states(dtype: Format) -> Vec<f32> {
    let states = inputs(13, TOKENS, HIDDEN, dtype);
    states.into_iter().map(|value| 8.0 * value).collect()
}

fn padding() -> Vec<bool> {
    (0..TOKENS).map(|token| token % 9 == 4).collect()
}

/// Workers, and what a coordinator of each layer is told. The layer in the middle has
/// mixture-of-depths where `deep`.
fn cluster(spec: &ClusterSpec, dtype: Format, deep: bool) -> (Vec<Node>, Vec<CoordinatorConfig>) {
    let nodes: Vec<_> = (0..spec.workers)
        .map(|at| spec.worker(&format!("worker-{at}")))
        .collect();
    let addresses: Vec<String> = nodes.iter().map(Node::addr).collect();
    let configs = (0..LAYERS).map(|number| {
        let mut spec = spec.clone();
        spec.model = layer(number, dtype);
        spec.depth = (deep && number == 1).then(|| router(31, HIDDEN));
        spec.config(addresses.clone())
    });
    let configs = configs.collect();
    (nodes, configs)
}

/// The entropy of the head's softmax, in f64, is below the threshold.
fn leaves(state: &[f32], head: &[f32]) -> bool {
    let logit = |row: &[f32]| -> f64 {
        let products = row.iter().zip(state);
        products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
    };
    let logits: Vec<f64> = head.chunks(HIDDEN).map(logit).collect();
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let total: f64 = logits.iter().map(|z| (z - most).exp()).sum();
    let p = logits.iter().map(|z| (z - most).exp() / total);
    let entropy: f64 = p.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy < f64::from(THRESHOLD)
}

/// What a stack does, by hand: states, who left when, and skipped choices of each layer.
fn by_hand(
    dtype: Format,
    x: &[f32],
    deep: bool,
    padding: &[bool],
) -> (Vec<f32>, Vec<Option<u32>>, Vec<u64>) {
    let round = |value: f32| match dtype {
        Format::Bf16 => bf16_round(value),
        _ => value,
    };
    let (mut x, mut left) = (x.to_vec(), vec![None; TOKENS]);
    let mut skipped = Vec::new();
    for number in 0..LAYERS {
        let parts = Parts::load(layer(number, dtype).source.as_ref());
        let out: Vec<bool> = (0..TOKENS)
            .map(|t| padding[t] || left[t].is_some())
            .collect();
        let passes = match deep && number == 1 {
            true => who_passes(&weights(31, HIDDEN), &x, TOKENS, &out),
            false => out.iter().map(|out| !out).collect(),
        };
        let skip: Vec<bool> = passes.iter().map(|passes| !passes).collect();
        let route = parts.route(&x, Some(&skip));
        let config = CapacityConfig::default();
        let admission = admit(&route, &config, &AdmitContext::default()).unwrap();
        let y = parts.forward(Format::F32, &x, &route, &admission);
        skipped.push(2 * skip.iter().filter(|skip| **skip).count() as u64);
        let router = weights(31, HIDDEN);
        for (token, (x, y)) in x.chunks_mut(HIDDEN).zip(y.chunks(HIDDEN)).enumerate() {
            if passes[token] {
                let score = match deep && number == 1 {
                    true => x
                        .iter()
                        .zip(&router)
                        .fold(0.0_f32, |sum, (x, w)| x.mul_add(*w, sum)),
                    false => 1.0,
                };
                let sums = x.iter_mut().zip(y);
                sums.for_each(|(x, y)| *x = round(*x + round(score * y)));
            }
            if !padding[token] && left[token].is_none() && leaves(x, &head()) {
                left[token] = Some(number);
            }
        }
    }
    (x, left, skipped)
}

fn check(got: &StackOutput, expected: &(Vec<f32>, Vec<Option<u32>>, Vec<u64>), what: &str) {
    let (output, left_at, skipped) = expected;
    assert_eq!(&got.left_at, left_at, "{what}");
    same_bits(got.output.as_slice().unwrap(), output, what);
    assert_eq!(got.layers.len(), LAYERS as usize);
    for (step, skipped) in got.layers.iter().zip(skipped) {
        step.overflow.check_conservation().unwrap();
        let totals = step.overflow.totals();
        assert_eq!(totals.assigned, 2 * TOKENS as u64, "{what}");
        assert_eq!(totals.skipped, *skipped, "{what}");
        let fates = step.admission.fates.iter();
        let counted = fates.filter(|fate| **fate == Fate::Skipped).count() as u64;
        assert_eq!(counted, *skipped, "{what}");
    }
}

#[tokio::test]
async fn a_stack_is_its_layers_one_after_another() {
    for (dtype, deep) in [
        (Format::F32, false),
        (Format::F32, true),
        (Format::Bf16, true),
    ] {
        let x = states(dtype);
        let expected = by_hand(dtype, &x, deep, &padding());
        let gone = |layer| {
            expected
                .1
                .iter()
                .filter(|left| **left == Some(layer))
                .count()
        };
        assert!(gone(0) > 0 && gone(1) > 0, "{:?}", expected.1);
        assert!(expected.1.contains(&None));
        for exchange in EXCHANGES {
            for workers in 1..=4 {
                let spec = ClusterSpec::new(layer(0, dtype), workers).exchange(exchange);
                let (_nodes, configs) = cluster(&spec, dtype, deep);
                let stack = Stack::connect(configs, true, Some(exit())).await.unwrap();
                let what = format!("{dtype}, deep {deep}, {workers} workers, {exchange}");
                for again in ["first", "again"] {
                    let got = stack.forward(tensor(&x, HIDDEN), Some(padding())).await;
                    check(&got.unwrap(), &expected, &format!("{what}, {again}"));
                }
            }
        }
    }
}

/// Behind an exit that everybody takes the layers still count, and nothing is sent.
#[tokio::test]
async fn layers_behind_the_last_token_send_nothing_and_count_everything() {
    let head = PackedMatrix::from_f32(&vec![0.0; HIDDEN], 1, HIDDEN).unwrap();
    let gate = Arc::new(ExitGate::new(head, None, ExitRule::Classifier(0.5)).unwrap());
    let x = states(Format::F32);
    for exchange in EXCHANGES {
        let spec = ClusterSpec::new(layer(0, Format::F32), 3).exchange(exchange);
        let (_nodes, configs) = cluster(&spec, Format::F32, false);
        let stack = Stack::connect(configs, true, Some(Arc::clone(&gate)))
            .await
            .unwrap();
        let got = stack.forward(tensor(&x, HIDDEN), None).await.unwrap();
        assert_eq!(got.left_at, vec![Some(0); TOKENS], "{exchange}");
        assert!(got.layers[0].traffic.ledger.total().bytes > 0, "{exchange}");
        for step in &got.layers[1..] {
            assert_eq!(step.traffic.ledger.total().messages, 0, "{exchange}");
            assert_eq!(
                step.overflow.totals().skipped,
                2 * TOKENS as u64,
                "{exchange}"
            );
            step.overflow.check_conservation().unwrap();
        }
        let carried: u64 = stack
            .traffic()
            .await
            .unwrap()
            .iter()
            .map(|l| l.message_bytes)
            .sum();
        let bytes = got.layers[0].traffic.ledger.total().bytes;
        assert_eq!(carried, bytes, "{exchange}: ledger = transport");
    }
}

#[tokio::test]
async fn without_residual_a_layer_takes_what_the_one_before_it_gave() {
    let x = states(Format::F32);
    let spec = ClusterSpec::new(layer(0, Format::F32), 2);
    let (_nodes, configs) = cluster(&spec, Format::F32, false);
    let stack = Stack::connect(configs, false, None).await.unwrap();
    let mut states = x.clone();
    for layer in stack.layers() {
        let step = layer.forward(tensor(&states, HIDDEN), None).await.unwrap();
        states = step.output.into_raw_vec_and_offset().0;
    }
    let got = stack.forward(tensor(&x, HIDDEN), None).await.unwrap();
    same_bits(got.output.as_slice().unwrap(), &states, "three layers");
    assert_eq!(got.left_at, vec![None; TOKENS]);
}

fn request(x: &[f32], want_routing: bool) -> v1::ForwardRequest {
    v1::ForwardRequest {
        protocol: Some(protocol_version()),
        tokens: u32::try_from(x.len() / HIDDEN).unwrap(),
        hidden: u32::try_from(HIDDEN).unwrap(),
        hidden_states: x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        want_routing,
        ..v1::ForwardRequest::default()
    }
}

fn output(reply: &v1::ForwardReply) -> Vec<f32> {
    let words = reply.output.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// Durations apart, a report is a function of the input.
fn timeless(report: Option<v1::StepReport>) -> v1::StepReport {
    let mut report = report.unwrap();
    (report.step_ns, report.exchange_ns, report.dispatch_ns) = (0, 0, 0);
    (report.combine_ns, report.longest_experts_ns, report.step) = (0, 0, 0);
    (report.clock_error_ns, report.critical_endpoint) = (0, 0);
    report.phases_ns.values_mut().for_each(|ns| *ns = 0);
    report
}

#[tokio::test]
async fn a_stack_of_one_layer_is_that_layer() {
    let x = states(Format::F32);
    let spec = ClusterSpec::new(layer(0, Format::F32), 2);
    let cluster = Cluster::start(spec.clone()).await;
    let expected = cluster.forward(&x).await.unwrap();
    let addresses = vec![cluster.addr(0), cluster.addr(1)];
    let one = Arc::new(spec.connect(addresses.clone()).await.unwrap());
    let stack = Stack::from(Arc::clone(&one));
    let got = stack.forward(tensor(&x, HIDDEN), None).await.unwrap();
    assert_eq!(got.output, expected.output);
    assert_eq!((got.residual_ns, got.exit_ns), (0, 0));
    assert_eq!(got.layers[0].route, expected.route);
    assert_eq!(got.layers[0].overflow, expected.overflow);
    assert_eq!(got.layers[0].traffic.ledger, expected.traffic.ledger);
    assert_eq!(got.report().step_ns, got.layers[0].record.step_ns);

    let of_one = CoordinatorService::new(one)
        .forward(request(&x, true))
        .await
        .unwrap();
    assert_eq!(output(&of_one), expected.output.as_slice().unwrap());
    let fates = of_one.routing.unwrap().fate;
    assert_eq!(fates.len(), 2 * TOKENS);
}

#[tokio::test]
async fn a_service_of_several_layers_reports_their_sum() {
    let x = states(Format::F32);
    let spec = ClusterSpec::new(layer(0, Format::F32), 2);
    let (_nodes, configs) = cluster(&spec, Format::F32, true);
    let deadline = configs[0].deadline.as_micros() * 3;
    let stack = Stack::connect(configs.clone(), true, Some(exit()))
        .await
        .unwrap();
    let direct = stack.forward(tensor(&x, HIDDEN), None).await.unwrap();
    let service = CoordinatorService::new(stack);
    let reply = service.forward(request(&x, false)).await.unwrap();
    assert_eq!(output(&reply), direct.output.as_slice().unwrap());
    assert!(reply.routing.is_none());

    let sum = direct.report();
    let record = to_record(&sum, 3);
    let steps = direct.layers.iter().map(|step| &step.record);
    let inside: u64 = steps.clone().map(|record| record.step_ns).sum();
    assert_eq!(record.step_ns, inside + direct.residual_ns + direct.exit_ns);
    assert_eq!(
        record.exchange_ns,
        steps.clone().map(|one| one.exchange_ns).sum::<u64>()
    );
    assert_eq!(
        record.payload_bytes,
        steps.clone().map(|one| one.payload_bytes).sum::<u64>()
    );
    for worker in 0..2 {
        let of = steps.clone().map(|one| one.choices_per_worker[worker]);
        assert_eq!(record.choices_per_worker[worker], of.sum::<u64>());
    }
    let phases: u64 = direct
        .layers
        .iter()
        .flat_map(|step| step.record.phases_ns)
        .sum();
    let between = direct.residual_ns + direct.exit_ns;
    assert_eq!(record.phases_ns.iter().sum::<u64>(), phases + between);
    let overflow = sum.overflow.as_ref().unwrap();
    for (expert, sum) in overflow.per_expert.iter().enumerate() {
        let counts = direct
            .layers
            .iter()
            .map(|step| step.overflow.per_expert[expert]);
        let (mut assigned, mut skipped) = (0, 0);
        counts.for_each(|count| {
            (assigned, skipped) = (assigned + count.assigned, skipped + count.skipped)
        });
        assert_eq!((sum.assigned, sum.skipped), (assigned, skipped));
        assert_eq!(sum.assigned, sum.computed + sum.skipped);
    }
    let assigned: u64 = overflow.per_expert.iter().map(|one| one.assigned).sum();
    assert_eq!(assigned, 3 * 2 * TOKENS as u64);
    assert_eq!(
        timeless(reply.report),
        timeless(Some(sum)),
        "the reply's is the same"
    );

    let described = service.cluster(v1::ClusterRequest {}).await.unwrap();
    assert_eq!(u128::from(described.deadline_us), deadline);
    let error = service.forward(request(&x, true)).await.unwrap_err();
    assert_eq!(error.code, v1::ErrorCode::InvalidInput);
    assert!(
        error.message.starts_with("`want_routing` is set"),
        "{error}"
    );
}

#[tokio::test]
async fn stacks_that_cannot_be_are_refused_by_name() {
    let spec = ClusterSpec::new(layer(0, Format::F32), 1);
    let (_nodes, configs) = cluster(&spec, Format::F32, false);
    let refused = async |configs: Vec<_>, residual, exit, says: &str| {
        let error = Stack::connect(configs, residual, exit).await.map(drop);
        let error: CoordinatorError = error.unwrap_err();
        assert!(
            error.is_input() && error.to_string().contains(says),
            "{error}"
        );
    };
    refused(vec![], true, None, "`layers` holds 0").await;
    let mut wide = spec.config(configs[0].workers.clone());
    let mut other = shape(Format::F32);
    (other.hidden, other.layer) = (32, 7);
    wide.source = Model::synthetic(other).source;
    let mixed = vec![configs[0].clone(), wide];
    refused(
        mixed,
        true,
        None,
        "`hidden` holds 32 in layer 7, expected 64",
    )
    .await;
    let mut deep = configs.clone();
    deep[2].depth = Some(router(31, HIDDEN));
    refused(deep, false, None, "`residual` holds false").await;
    let head = PackedMatrix::from_f32(&[0.0; 8], 1, 8).unwrap();
    let narrow = Arc::new(ExitGate::new(head, None, ExitRule::Classifier(0.5)).unwrap());
    refused(configs.clone(), true, Some(narrow), "`exit hidden` holds 8").await;

    let stack = Stack::connect(configs, true, None).await.unwrap();
    let x = tensor(&[f32::MAX; HIDDEN], HIDDEN);
    let error = stack.forward(x, None).await.unwrap_err();
    assert!(error.to_string().starts_with("layer 0: "), "{error}");
    let input = StepInput {
        replay: Some(Replayed::default()),
        ..StepInput::default()
    };
    let error = stack
        .forward_in(tensor(&[0.0; HIDDEN], HIDDEN), input)
        .await;
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("`replay` holds"), "{error}");
}
