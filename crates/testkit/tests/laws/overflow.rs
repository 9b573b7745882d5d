//! Capacity through a cluster.

use expertmesh_kernels::Format;
use expertmesh_routing::{AdmitContext, CapacityConfig, Fate, Overflow, admit};
use expertmesh_testkit::{Cluster, ClusterSpec, Parts, inputs, tensor};

use crate::common::{EXCHANGES, same_bits, small};

#[tokio::test]
async fn what_is_dropped_is_what_the_rule_says_and_adds_nothing() {
    for overflow in [Overflow::DropPosition, Overflow::DropWeight] {
        let capacity = CapacityConfig {
            factor: Some(0.5),
            overflow,
            ..CapacityConfig::default()
        };
        let model = small(Format::F32);
        let parts = Parts::load(model.source.as_ref());
        let x = inputs(21, 61, 64, Format::F32);
        let route = parts.route(&x, None);
        let admission = admit(&route, &capacity, &AdmitContext::default()).unwrap();
        let fates = &admission.fates;
        let dropped = fates.iter().filter(|fate| **fate == Fate::Dropped).count();
        assert!(dropped > 20, "{dropped} dropped: nothing to test");
        let expected = parts.forward(Format::F32, &x, &route, &admission);
        for workers in 1..=3 {
            for exchange in EXCHANGES {
                let what = format!("{overflow}, {workers} workers, {exchange}");
                let mut spec = ClusterSpec::new(model.clone(), workers).exchange(exchange);
                spec.capacity = capacity;
                let cluster = Cluster::start(spec).await;
                let step = cluster.forward(&x).await.unwrap();
                assert_eq!(&step.admission.fates, fates, "{what}");
                assert_eq!(step.route.experts, route.experts, "{what}");
                same_bits(step.output.as_slice().unwrap(), &expected, &what);
                step.overflow.check_conservation().unwrap();
                let totals = step.overflow.totals();
                assert_eq!(totals.dropped, dropped as u64, "{what}");
                assert_eq!(totals.assigned, 61 * 2, "{what}");
                let computed: u64 = step.record.choices_per_worker.iter().sum();
                assert_eq!(computed, totals.computed, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn padding_is_skipped_and_uses_no_capacity() {
    let capacity = CapacityConfig {
        factor: Some(1.0),
        overflow: Overflow::DropPosition,
        ..CapacityConfig::default()
    };
    let model = small(Format::F32);
    let parts = Parts::load(model.source.as_ref());
    let x = inputs(22, 40, 64, Format::F32);
    let padding: Vec<bool> = (0..40).map(|token| token % 3 == 1).collect();
    let route = parts.route(&x, Some(&padding));
    let admission = admit(&route, &capacity, &AdmitContext::default()).unwrap();
    let fates = &admission.fates;
    let expected = parts.forward(Format::F32, &x, &route, &admission);
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(model.clone(), 3).exchange(exchange);
        spec.capacity = capacity;
        let cluster = Cluster::start(spec).await;
        let step = cluster
            .coordinator()
            .forward(tensor(&x, 64), Some(padding.clone()));
        let step = step.await.unwrap();
        assert_eq!(&step.admission.fates, fates);
        same_bits(step.output.as_slice().unwrap(), &expected, "padding");
        assert_eq!(step.overflow.totals().skipped, 13 * 2);
        for token in (0..40).filter(|token| padding[*token]) {
            let row = step.output.row(token);
            assert!(row.iter().all(|value| *value == 0.0), "token {token}");
        }
        // A batch of nothing but padding moves no row.
        let all = cluster
            .coordinator()
            .forward(tensor(&x, 64), Some(vec![true; 40]));
        let all = all.await.unwrap();
        assert_eq!(all.overflow.totals().skipped, 80);
        assert!(all.output.iter().all(|value| *value == 0.0));
    }
}
