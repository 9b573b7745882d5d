//! Law 2: the same input gives the same bits, however it is computed.

use expertmesh_exchange::ExchangeKind;
use expertmesh_kernels::Format;
use expertmesh_placement::Strategy;
use expertmesh_routing::{Admission, Fate};
use expertmesh_testkit::{
    Bus, BusSetup, Cluster, ClusterSpec, Golden, Model, Parts, digest, inputs,
};

use crate::common::{EXCHANGES, same_bits, shape, small};

const TOKENS: usize = 37;

/// The answer that everything is compared with.
fn naive(model: &Model, wire: Format, x: &[f32]) -> Vec<f32> {
    let parts = Parts::load(model.source.as_ref());
    let route = parts.route(x, None);
    let admission = Admission {
        fates: vec![Fate::Computed; route.choices()],
        ..Admission::default()
    };
    parts.forward(wire, x, &route, &admission)
}

/// Runs `x` through clusters of 1 to 5 and of 9 workers with every exchange and placement;
/// threads, chunks and credits vary along.
async fn sweep(model: &Model, wire: Format, x: &[f32], name: &str) {
    let expected = naive(model, wire, x);
    let row = model.source.spec().hidden * 4;
    let mut turn = 0;
    for workers in [1, 2, 3, 4, 5, 9] {
        for strategy in Strategy::ALL {
            for exchange in EXCHANGES {
                let mut spec = ClusterSpec::new(model.clone(), workers)
                    .placed(strategy, 5)
                    .exchange(exchange);
                spec.wire_dtype = wire;
                // Periods without a common factor: every pair of values meets.
                spec.threads = 1 + turn % 2;
                spec.credits = [1, 4, 2][turn % 3];
                spec.group_size = [2, 3, 1, 5][turn % 4];
                spec.chunk_bytes = [1 << 20, 4 * row, 1, 9 * row, 1 << 16][turn % 5];
                turn += 1;
                let what = format!(
                    "{name}, {workers} workers, {strategy}, {exchange}, groups of {}, {} threads, \
                     {} credits, chunks of {}",
                    spec.group_size, spec.threads, spec.credits, spec.chunk_bytes
                );
                let cluster = Cluster::start(spec).await;
                let step = cluster.forward(x).await.unwrap();
                same_bits(step.output.as_slice().unwrap(), &expected, &what);
                // Streams, pools and buffers are warm the second time, the output's included.
                cluster.coordinator().recycle(step.output);
                same_bits(&cluster.outputs(x).await, &expected, &what);
            }
        }
    }
}

#[tokio::test]
async fn same_bits_in_f32_on_any_cluster() {
    let x = inputs(1, TOKENS, 64, Format::F32);
    sweep(&small(Format::F32), Format::F32, &x, "f32").await;
}

#[tokio::test]
async fn same_bits_in_bf16_on_any_cluster() {
    let x = inputs(2, TOKENS, 64, Format::Bf16);
    sweep(&small(Format::Bf16), Format::Bf16, &x, "bf16").await;
}

#[tokio::test]
async fn same_bits_with_a_shared_expert_and_rounded_weights_on_any_cluster() {
    let golden = Golden::open("qwen2_moe", Format::Bf16);
    sweep(&golden.model, Format::Bf16, &golden.x, "qwen2_moe").await;
}

#[tokio::test]
async fn a_lossy_wire_format_applies_to_rows_that_stay_at_home_too() {
    let x = inputs(3, TOKENS, 64, Format::F32);
    let model = small(Format::F32);
    let expected = naive(&model, Format::Bf16, &x);
    assert_ne!(digest(&expected), digest(&naive(&model, Format::F32, &x)));
    let golden = Golden::open("qwen2_moe", Format::F32);
    let shared = naive(&golden.model, Format::Bf16, &golden.x);
    for exchange in EXCHANGES {
        for workers in [1, 3] {
            let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
            spec.wire_dtype = Format::Bf16;
            let cluster = Cluster::start(spec.clone()).await;
            let what = format!("{workers} workers, {exchange}");
            same_bits(&cluster.outputs(&x).await, &expected, &what);
            spec.model = golden.model.clone();
            let cluster = Cluster::start(spec).await;
            same_bits(&cluster.outputs(&golden.x).await, &shared, &what);
        }
    }
}

#[test]
fn same_bits_in_any_order_of_arrival() {
    let golden = Golden::open("qwen2_moe", Format::Bf16);
    let cases = [
        (
            small(Format::F32),
            inputs(1, TOKENS, 64, Format::F32),
            Format::F32,
        ),
        (
            small(Format::Bf16),
            inputs(2, TOKENS, 64, Format::Bf16),
            Format::Bf16,
        ),
        (golden.model.clone(), golden.x.clone(), Format::Bf16),
    ];
    for (model, x, wire) in cases {
        let expected = digest(&naive(&model, wire, &x));
        let experts = model.source.spec().experts;
        for exchange in EXCHANGES {
            let placement = Strategy::Shuffled.place(experts, 3, 4).unwrap();
            let mut setup = BusSetup::new(placement, exchange);
            setup.wire = wire;
            setup.echoes = true;
            setup.chunk_bytes = 1024;
            let bus = Bus::new(Parts::load(model.source.as_ref()), setup);
            for seed in 0..20 {
                let step = bus.step(&x, None, seed, &[]).unwrap();
                assert_eq!(step.digest(), expected, "{exchange}, order {seed}");
                assert_eq!(
                    step.carried,
                    step.planned_links(),
                    "{exchange}, order {seed}"
                );
            }
        }
    }
}

#[test]
fn the_digest_is_that_of_the_little_endian_bytes() {
    // printf '\x00\x00\x80\x3f\x00\x00\x00\xc0' | sha256sum
    assert_eq!(
        digest(&[1.0, -2.0]),
        "ee4ac73c2bd27756ab82780f27c73a7bc4d3f0bb6acb37e008bc27eccd7e588b"
    );
}

#[tokio::test]
async fn a_row_alone_in_seven_and_in_three_hundred_has_the_same_bits() {
    for (dtype, exchange) in [
        (Format::F32, ExchangeKind::AllToAll),
        (Format::Bf16, ExchangeKind::Star),
    ] {
        let hidden = shape(dtype).hidden;
        let x = inputs(9, 300, hidden, dtype);
        let mut spec = ClusterSpec::new(small(dtype), 3).exchange(exchange);
        spec.wire_dtype = dtype;
        spec.threads = 2;
        let cluster = Cluster::start(spec).await;
        let whole = cluster.outputs(&x).await;
        for first in (0..300).step_by(7) {
            let rows = first * hidden..(first + 7).min(300) * hidden;
            let sevens = cluster.outputs(&x[rows.clone()]).await;
            same_bits(
                &sevens,
                &whole[rows],
                &format!("{dtype}, seven from {first}"),
            );
        }
        for token in (0..300).step_by(11) {
            let row = token * hidden..(token + 1) * hidden;
            let alone = cluster.outputs(&x[row.clone()]).await;
            same_bits(
                &alone,
                &whole[row],
                &format!("{dtype}, token {token} alone"),
            );
        }
        cluster.stop().await;
    }
}
