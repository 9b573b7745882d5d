//! Law 3: the ledger that follows from the plans is what the transport was handed.

use std::collections::BTreeMap;

use expertmesh_checkpoint::SyntheticSpec;
use expertmesh_exchange::{ExchangeKind, TrafficLedger};
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_placement::Strategy;
use expertmesh_testkit::{Cluster, ClusterSpec, Golden, Model, inputs};
use expertmesh_wire::v1::LinkTraffic;

use crate::common::{EXCHANGES, small};

type Links = BTreeMap<(u32, u32), (u64, u64)>;

fn add(links: &mut Links, ledger: &TrafficLedger) {
    for (from, to, cell) in ledger.links() {
        let sum = links.entry((from, to)).or_default();
        *sum = (sum.0 + cell.messages, sum.1 + cell.bytes);
    }
}

/// What the transport counted, by pair; a pair may have two streams.
fn counted(traffic: &[LinkTraffic]) -> Links {
    let mut links = Links::new();
    for link in traffic.iter().filter(|link| link.messages > 0) {
        let sum = links.entry((link.source, link.destination)).or_default();
        *sum = (sum.0 + link.messages, sum.1 + link.message_bytes);
    }
    links
}

#[tokio::test]
async fn the_ledger_of_steps_is_what_the_transport_was_handed() {
    for exchange in EXCHANGES {
        for (workers, chunk_bytes, wire) in [
            (1, 1 << 20, Format::F32),
            (3, 1500, Format::Bf16),
            (5, 3000, Format::F32),
        ] {
            let mut spec = ClusterSpec::new(small(Format::F32), workers)
                .placed(Strategy::RoundRobin, 0)
                .exchange(exchange);
            (spec.chunk_bytes, spec.wire_dtype) = (chunk_bytes, wire);
            let cluster = Cluster::start(spec).await;
            let mut ledgers = Links::new();
            let mut messages = 0;
            for tokens in [0, 1, 2, 37, 100] {
                let x = inputs(tokens as u64, tokens, 64, Format::F32);
                let step = cluster.forward(&x).await.unwrap();
                let total = step.traffic.ledger.total();
                assert_eq!(step.record.payload_bytes, total.bytes);
                assert_eq!(step.record.messages, total.messages);
                messages += total.messages;
                add(&mut ledgers, &step.traffic.ledger);
            }
            assert!(messages > 0);
            let traffic = cluster.coordinator().traffic().await.unwrap();
            assert_eq!(counted(&traffic), ledgers, "{exchange}, {workers} workers");
            cluster.stop().await;
        }
    }
}

/// Where nobody passes rows on, a hierarchical step sends what an all-to-all step does; with groups
/// a row crosses to each of them once.
#[tokio::test]
async fn groups_save_rows_and_nothing_else_changes() {
    let x = inputs(6, 64, 64, Format::F32);
    let mut steps = Vec::new();
    for (exchange, group_size) in [
        (ExchangeKind::AllToAll, 1),
        (ExchangeKind::Hierarchical, 1),
        (ExchangeKind::Hierarchical, 4),
        (ExchangeKind::Hierarchical, 2),
    ] {
        let mut spec = ClusterSpec::new(small(Format::F32), 4)
            .placed(Strategy::RoundRobin, 0)
            .exchange(exchange);
        spec.group_size = group_size;
        let cluster = Cluster::start(spec).await;
        steps.push(cluster.forward(&x).await.unwrap());
        cluster.stop().await;
    }
    let ledger = |at: usize| &steps[at].traffic.ledger;
    assert_eq!(ledger(1), ledger(0));
    assert_eq!(ledger(2), ledger(0));
    let crossed = |ledger: &TrafficLedger| {
        let group = |endpoint: u32| (endpoint - 1) / 2;
        let links = ledger.links().filter(|(from, to, _)| *from > 0 && *to > 0);
        let requests = links.filter(|(from, to, _)| group(*from) != group(*to));
        requests
            .map(|(from, to, _)| ledger.requested(from, to))
            .sum::<u64>()
    };
    assert!(crossed(ledger(3)) < crossed(ledger(0)));
    assert!(ledger(3).saved_by_dedup_bytes > ledger(0).saved_by_dedup_bytes);
    for step in &steps {
        assert_eq!(step.output, steps[0].output);
    }
}

#[tokio::test]
async fn a_shared_expert_stays_outside_the_ledger() {
    let golden = Golden::open("qwen2_moe", Format::Bf16);
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(golden.model.clone(), 2).exchange(exchange);
        spec.wire_dtype = Format::Bf16;
        let cluster = Cluster::start(spec).await;
        let step = cluster.forward(&golden.x).await.unwrap();
        let mut ledger = Links::new();
        add(&mut ledger, &step.traffic.ledger);
        let traffic = cluster.coordinator().traffic().await.unwrap();
        assert_eq!(counted(&traffic), ledger, "{exchange}");
    }
}

/// 64 rows of H = 1024 f32 for each worker: what the sockets carry is at most 3 % above the
/// messages, what it took to connect included.
#[tokio::test]
async fn the_wire_adds_at_most_three_percent() {
    let model = Model::synthetic(SyntheticSpec {
        hidden: 1024,
        ffn: 1,
        experts: 8,
        top_k: 2,
        kind: ExpertKind::Identity,
        seed: 3,
        layer: 0,
        dtype: Format::F32,
    });
    let workers = 4;
    for exchange in EXCHANGES {
        let cluster =
            Cluster::start(ClusterSpec::new(model.clone(), workers).exchange(exchange)).await;
        // Two choices a token over four workers: some 64 rows reach each of them in `star`, and
        // in `all-to-all` each is home to 64.
        let tokens = if exchange == EXCHANGES[0] {
            147
        } else {
            64 * workers
        };
        let x = inputs(5, tokens, 1024, Format::F32);
        for _ in 0..4 {
            cluster.outputs(&x).await;
        }
        let traffic = cluster.coordinator().traffic().await.unwrap();
        let (mut bytes, mut wire) = (0, 0);
        for link in &traffic {
            bytes += link.message_bytes;
            wire += link.wire_bytes;
            assert!(
                link.wire_bytes >= link.message_bytes || link.messages == 0,
                "{link:?}"
            );
        }
        let above = wire as f64 / bytes as f64 - 1.0;
        println!(
            "{exchange}: wire bytes {:.3} % above message bytes",
            100.0 * above
        );
        assert!(above <= 0.03, "{exchange}: {above}");
        cluster.stop().await;
    }
}
