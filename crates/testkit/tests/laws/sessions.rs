//! Sessions come and go; what they hold goes with them.

use std::sync::Arc;

use expertmesh_checkpoint::SyntheticLayer;
use expertmesh_coordinator::CoordinatorError;
use expertmesh_experts::{Expert, ExpertError, ExpertKind, ExpertSource, Scratch};
use expertmesh_kernels::Format;
use expertmesh_testkit::{Cluster, ClusterSpec, Model, Node, Parts, inputs, tensor};
use tokio::sync::mpsc;

use crate::common::{EXCHANGES, PATIENCE, same_bits, shape, small, soon};

/// Experts that say when they are freed.
struct Mortals {
    layer: SyntheticLayer,
    freed: mpsc::UnboundedSender<()>,
}

struct Mortal {
    expert: Arc<dyn Expert>,
    freed: mpsc::UnboundedSender<()>,
}

impl ExpertSource for Mortals {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        Ok(Arc::new(Mortal {
            expert: self.layer.load(expert)?,
            freed: self.freed.clone(),
        }))
    }
}

impl Expert for Mortal {
    fn hidden(&self) -> usize {
        self.expert.hidden()
    }

    fn weight_bytes(&self) -> usize {
        self.expert.weight_bytes()
    }

    fn flops_per_row(&self) -> u64 {
        self.expert.flops_per_row()
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        self.expert.forward(x, y, scratch)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.freed.send(());
    }
}

#[tokio::test]
async fn a_coordinator_that_leaves_frees_its_experts() {
    for exchange in EXCHANGES {
        let (freed, mut hears) = mpsc::unbounded_channel();
        let layer = SyntheticLayer::new(shape(Format::F32)).unwrap();
        let experts = Arc::new(Mortals { layer, freed });
        let model = Model::custom(shape(Format::F32), experts);
        let spec = ClusterSpec::new(model, 3).exchange(exchange);
        let nodes: Vec<_> = (0..3)
            .map(|at| spec.worker(&format!("worker-{at}")))
            .collect();
        let addresses = nodes.iter().map(Node::addr).collect();
        let coordinator = spec.connect(addresses).await.unwrap();
        let x = tensor(&inputs(1, 9, 64, Format::F32), 64);
        coordinator.forward(x, None).await.unwrap();
        assert!(hears.try_recv().is_err(), "an expert was freed in use");
        drop(coordinator);
        for freed in 0..8 {
            let heard = tokio::time::timeout(PATIENCE, hears.recv()).await;
            assert!(heard.is_ok(), "{exchange}: {freed} of 8 experts were freed");
        }
    }
}

#[tokio::test]
async fn several_coordinators_share_one_set_of_workers() {
    let x = inputs(6, 30, 64, Format::F32);
    let spec = ClusterSpec::new(small(Format::F32), 3);
    let cluster = Cluster::start(spec.clone()).await;
    let expected = cluster.outputs(&x).await;
    let addresses: Vec<String> = (0..3).map(|worker| cluster.addr(worker)).collect();
    for exchange in EXCHANGES {
        let spec = spec.clone().exchange(exchange);
        let other = spec.connect(addresses.clone()).await.unwrap();
        let rows = tensor(&x, 64);
        let (mine, theirs) = tokio::join!(cluster.outputs(&x), other.forward(rows, None));
        same_bits(&mine, &expected, "the first coordinator");
        same_bits(
            theirs.unwrap().output.as_slice().unwrap(),
            &expected,
            "the second",
        );
        drop(other);
        same_bits(
            &cluster.outputs(&x).await,
            &expected,
            "after the second left",
        );
    }
}

#[tokio::test]
async fn many_steps_at_once_do_not_mix() {
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(small(Format::F32), 3).exchange(exchange);
        spec.chunk_bytes = 2000;
        spec.credits = 1;
        let cluster = Cluster::start(spec).await;
        let batches: Vec<_> = (0..8)
            .map(|at| inputs(at, 20 + at as usize, 64, Format::F32))
            .collect();
        let mut expected = Vec::new();
        for x in &batches {
            expected.push(cluster.outputs(x).await);
        }
        let all = tokio::join!(
            cluster.outputs(&batches[0]),
            cluster.outputs(&batches[1]),
            cluster.outputs(&batches[2]),
            cluster.outputs(&batches[3]),
            cluster.outputs(&batches[4]),
            cluster.outputs(&batches[5]),
            cluster.outputs(&batches[6]),
            cluster.outputs(&batches[7]),
        );
        let all = [all.0, all.1, all.2, all.3, all.4, all.5, all.6, all.7];
        for (got, expected) in all.iter().zip(&expected) {
            same_bits(got, expected, "a step among others");
        }
    }
}

/// A home that is its own host hands chunk after chunk to itself; were each handed over inside
/// the results of the one before, a long shard would exhaust the stack.
#[tokio::test]
async fn a_home_with_thousands_of_chunks_for_itself_keeps_its_stack() {
    let mut spec = shape(Format::F32);
    (spec.kind, spec.hidden) = (ExpertKind::Identity, 8);
    let model = Model::synthetic(spec);
    let mut spec = ClusterSpec::new(model.clone(), 1);
    spec.chunk_bytes = 1;
    let cluster = Cluster::start(spec).await;
    let x = inputs(1, 20_000, 8, Format::F32);
    let step = soon(cluster.forward(&x)).await.unwrap();
    let expected =
        Parts::load(model.source.as_ref()).forward(Format::F32, &x, &step.route, &step.admission);
    same_bits(
        step.output.as_slice().unwrap(),
        &expected,
        "twenty thousand chunks",
    );
}

#[tokio::test]
async fn inputs_that_cannot_be_used_are_refused_by_name() {
    let cluster = Cluster::start(ClusterSpec::new(small(Format::F32), 2)).await;
    let good = inputs(1, 5, 64, Format::F32);
    let mut bad = good.clone();
    bad[2 * 64 + 7] = f32::NAN;
    let error = cluster.forward(&bad).await.unwrap_err();
    assert!(error.is_input(), "{error}");
    let text = error.to_string();
    assert!(text.contains("token 2, element 7 is NaN"), "{text}");
    let coordinator = cluster.coordinator();
    let error = coordinator
        .forward(tensor(&good, 32), None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`hidden` holds 32, expected 64, the layer's"
    );
    let error = coordinator
        .forward(tensor(&good, 64), Some(vec![true]))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("`padding_mask` holds 1 entries"),
        "{error}"
    );
    assert_eq!(
        cluster.outputs(&good).await.len(),
        good.len(),
        "and the cluster goes on"
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_be_is_refused_by_name() {
    let mut spec = ClusterSpec::new(small(Format::F32), 2);
    let refused = |error: Result<_, CoordinatorError>, says: &str| match error {
        Ok(_) => panic!("taken, expected: {says}"),
        Err(error) => assert!(error.to_string().contains(says), "{error}"),
    };
    let connect = spec.connect(Vec::new()).await.map(drop);
    refused(connect, "`workers` holds 0, expected at least 1 worker");
    let addr = "127.0.0.1:1".to_owned();
    let connect = spec.connect(vec![addr.clone(); 3]).await.map(drop);
    refused(connect, "`placement workers` holds 2, expected 3");
    spec.credits = 0;
    let connect = spec.connect(vec![addr.clone(); 2]).await.map(drop);
    refused(connect, "`credits` holds 0");
    (spec.credits, spec.chunk_bytes) = (1, usize::MAX);
    let connect = spec.connect(vec![addr; 2]).await.map(drop);
    refused(connect, "`chunk_bytes`");
}
