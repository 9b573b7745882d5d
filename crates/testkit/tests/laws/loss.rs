//! Workers that die and workers that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use expertmesh_checkpoint::SyntheticLayer;
use expertmesh_coordinator::{CoordinatorError, StepOutput};
use expertmesh_exchange::{
    ExchangeKind, LossCause, OnLoss, RowsJob, StepError, Timeline, error_frame, write_combined,
};
use expertmesh_experts::{Expert, ExpertError, ExpertKind, ExpertSource, Scratch};
use expertmesh_kernels::Format;
use expertmesh_routing::Fate;
use expertmesh_testkit::{
    Cluster, ClusterSpec, Entered, FakeWorker, Model, Node, Parts, Trap, inputs,
};
use expertmesh_wire::{BufferPool, ErrorCode, FrameKind, FrameView, Header, RemoteError, Times};

use crate::common::{EXCHANGES, same_bits, shape, small, soon};

const TOKENS: usize = 37;
/// The worker that fails, as a position and as an endpoint.
const WORKER: usize = 1;
const ENDPOINT: u32 = 2;

fn x() -> Vec<f32> {
    inputs(31, TOKENS, 64, Format::F32)
}

fn step_error(outcome: Result<StepOutput, CoordinatorError>) -> StepError {
    match outcome {
        Err(CoordinatorError::Step(error)) => error,
        Err(other) => panic!("expected a step's error, got {other}"),
        Ok(_) => panic!("expected a step's error, got outputs"),
    }
}

/// A cluster of three whose second worker stops within expert 4.
async fn trapped(exchange: ExchangeKind, on_loss: OnLoss) -> (Cluster, Arc<Trap>, Entered) {
    let spec = shape(Format::F32);
    let (trap, entered) = Trap::new(spec, 4);
    let model = Model::custom(spec, trap.clone());
    let mut spec = ClusterSpec::new(model, 3).exchange(exchange);
    spec.on_loss = on_loss;
    assert_eq!(spec.placement().primary(4) as usize, WORKER);
    (Cluster::start(spec).await, trap, entered)
}

/// A step in whose middle the worker is killed.
async fn killed(
    cluster: &mut Cluster,
    entered: &mut Entered,
) -> Result<StepOutput, CoordinatorError> {
    let node = cluster.take(WORKER).unwrap();
    let x = x();
    let (step, ()) = soon(async {
        tokio::join!(cluster.forward(&x), async {
            entered.recv().await.unwrap();
            node.kill();
        })
    })
    .await;
    step
}

fn host(cluster: &Cluster, expert: u32) -> usize {
    cluster
        .coordinator()
        .config()
        .placement
        .primary(expert as usize) as usize
}

/// Outputs are those of the computed choices, and every choice is counted.
fn check(step: &StepOutput) {
    let parts = Parts::load(small(Format::F32).source.as_ref());
    let expected = parts.forward(Format::F32, &x(), &step.route, &step.admission);
    same_bits(step.output.as_slice().unwrap(), &expected, "outputs");
    step.overflow.check_conservation().unwrap();
    let lost = step
        .admission
        .fates
        .iter()
        .filter(|fate| **fate == Fate::Lost)
        .count();
    assert_eq!(step.overflow.totals().lost, lost as u64);
}

#[tokio::test]
async fn a_worker_that_dies_in_mid_step_is_named() {
    for exchange in EXCHANGES {
        let (mut cluster, trap, mut entered) = trapped(exchange, OnLoss::Fail).await;
        let error = step_error(killed(&mut cluster, &mut entered).await);
        assert_eq!(error.endpoint(), ENDPOINT, "{error}");
        assert!(error.to_string().contains("worker-1 was lost"), "{error}");
        // It stays dead, and is named at once.
        let error = step_error(soon(cluster.forward(&x())).await);
        assert_eq!(error.endpoint(), ENDPOINT, "{error}");
        trap.open();
    }
}

#[tokio::test]
async fn a_worker_that_dies_in_mid_step_is_counted() {
    for exchange in EXCHANGES {
        let (mut cluster, trap, mut entered) = trapped(exchange, OnLoss::Drop).await;
        let step = killed(&mut cluster, &mut entered).await.unwrap();
        check(&step);
        for (expert, fate) in step.route.experts.iter().zip(&step.admission.fates) {
            assert!(
                *expert != 4 || *fate == Fate::Lost,
                "the trapped expert computed"
            );
            let here = host(&cluster, *expert) == WORKER;
            // Where it was home to tokens, those are lost too.
            let may_be_lost = here || exchange.is_sharded();
            assert!(
                *fate == Fate::Computed || may_be_lost,
                "expert {expert}: {fate}"
            );
        }
        // The next steps go on without it: its experts' choices are lost, all others computed.
        for _ in 0..2 {
            let step = soon(cluster.forward(&x())).await.unwrap();
            check(&step);
            for (expert, fate) in step.route.experts.iter().zip(&step.admission.fates) {
                let here = host(&cluster, *expert) == WORKER;
                let expected = if here { Fate::Lost } else { Fate::Computed };
                assert_eq!(*fate, expected, "{exchange}, expert {expert}");
            }
        }
        trap.open();
    }
}

/// Two groups of two: for the first home, worker 2 passes rows on to worker 3.
const RELAY: usize = 2;

#[tokio::test]
async fn a_relay_that_dies_in_mid_step_is_named_or_counted() {
    for on_loss in [OnLoss::Fail, OnLoss::Drop] {
        let layer = shape(Format::F32);
        let (trap, mut entered) = Trap::new(layer, 4);
        let model = Model::custom(layer, trap.clone());
        let mut spec = ClusterSpec::new(model, 4).exchange(ExchangeKind::Hierarchical);
        spec.on_loss = on_loss;
        assert_eq!(spec.placement().primary(4) as usize, RELAY);
        let mut cluster = Cluster::start(spec).await;
        let node = cluster.take(RELAY).unwrap();
        let x = x();
        let (step, ()) = soon(async {
            tokio::join!(cluster.forward(&x), async {
                entered.recv().await.unwrap();
                node.kill();
            })
        })
        .await;
        match on_loss {
            OnLoss::Fail => {
                let error = step_error(step);
                assert_eq!(error.endpoint() as usize, RELAY + 1, "{error}");
            }
            OnLoss::Drop => check(&step.unwrap()),
        }
        trap.open();
        if on_loss == OnLoss::Fail {
            continue;
        }
        // Later steps have the others pass rows on: only its own experts are missing.
        let step = soon(cluster.forward(&x)).await.unwrap();
        check(&step);
        for (expert, fate) in step.route.experts.iter().zip(&step.admission.fates) {
            let here = host(&cluster, *expert) == RELAY;
            let expected = if here { Fate::Lost } else { Fate::Computed };
            assert_eq!(*fate, expected, "expert {expert}");
        }
    }
}

#[tokio::test]
async fn a_relay_that_hangs_is_named_and_not_those_behind_it() {
    let layer = shape(Format::F32);
    let mut spec = ClusterSpec::new(Model::synthetic(layer), 4);
    (spec.exchange, spec.deadline) = (ExchangeKind::Hierarchical, DEADLINE);
    let node = |at: usize| match at {
        RELAY => FakeWorker::swallows().start(),
        _ => spec.worker(&format!("worker-{at}")),
    };
    let nodes = (0..4).map(node).collect();
    let cluster = Cluster::of_nodes(&spec, nodes).await;
    let error = step_error(soon(cluster.forward(&x())).await);
    assert_eq!(error.endpoint() as usize, RELAY + 1, "{error}");
}

/// A cluster of three whose second worker is not what it seems.
async fn with_fake(
    fake: FakeWorker,
    kind: ExpertKind,
    exchange: ExchangeKind,
    on_loss: OnLoss,
    deadline: Duration,
) -> Cluster {
    let mut spec = shape(Format::F32);
    spec.kind = kind;
    let mut spec = ClusterSpec::new(Model::synthetic(spec), 3).exchange(exchange);
    spec.on_loss = on_loss;
    spec.deadline = deadline;
    let nodes: Vec<Node> = vec![
        spec.worker("worker-0"),
        fake.start(),
        spec.worker("worker-2"),
    ];
    Cluster::of_nodes(&spec, nodes).await
}

const DEADLINE: Duration = Duration::from_millis(300);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_worker_that_hangs_is_named_at_the_deadline() {
    for exchange in EXCHANGES {
        let fake = FakeWorker::swallows();
        let cluster = with_fake(fake, ExpertKind::Swiglu, exchange, OnLoss::Fail, DEADLINE).await;
        let begun = Instant::now();
        let error = step_error(soon(cluster.forward(&x())).await);
        let waited = begun.elapsed();
        println!("{exchange}: {error} (after {waited:?})");
        assert_eq!(error.endpoint(), ENDPOINT, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("worker-1") && text.contains("did not answer within"),
            "{text}"
        );
        let StepError::Lost { cause, .. } = &error else {
            panic!("{error}");
        };
        let late = match cause {
            LossCause::Deadline { .. } => true,
            LossCause::Reported(remote) => remote.code == ErrorCode::Deadline,
            LossCause::Disconnected(_) => false,
        };
        assert!(late, "{error}");
        assert!(
            waited >= DEADLINE / 2 && waited < DEADLINE + SLACK,
            "{waited:?}"
        );
        // Until it is heard of again, nobody waits for it.
        let error = step_error(soon(cluster.forward(&x())).await);
        assert_eq!(error.endpoint(), ENDPOINT, "{error}");
    }
}

#[tokio::test]
async fn a_worker_that_hangs_is_counted_at_the_deadline() {
    for exchange in EXCHANGES {
        let fake = FakeWorker::swallows();
        let cluster = with_fake(fake, ExpertKind::Swiglu, exchange, OnLoss::Drop, DEADLINE).await;
        for at in 0..2 {
            let begun = Instant::now();
            let step = soon(cluster.forward(&x())).await.unwrap();
            let waited = begun.elapsed();
            println!("{exchange}, step {at}: {waited:?}");
            assert!(waited < DEADLINE + SLACK, "{waited:?}");
            check(&step);
            for (at, fate) in step.admission.fates.iter().enumerate() {
                let here = host(&cluster, step.route.experts[at]) == WORKER;
                assert!(!here || *fate == Fate::Lost, "choice {at} is {fate}");
            }
            assert!(step.admission.fates.contains(&Fate::Computed));
        }
    }
}

/// Answers rows as a worker with identity experts would, from the second request on.
fn refuses_once() -> FakeWorker {
    let requests = AtomicU32::new(0);
    let pool = BufferPool::default();
    FakeWorker::answers(move |_, frame| {
        if requests.fetch_add(1, Ordering::Relaxed) == 0 {
            let error = RemoteError::new(ErrorCode::Internal, "expert failed: it is Monday");
            return vec![error_frame(&pool, &frame.header, &error.about(ENDPOINT))];
        }
        vec![identity(&pool, frame)]
    })
}

/// The results of identity experts.
fn identity(pool: &BufferPool, frame: &FrameView) -> bytes::Bytes {
    let job = RowsJob::read(frame.clone(), frame.header.hidden, |_| true).unwrap();
    let mut results = job.results(pool);
    let mut slots = results.rows().chunks_exact_mut(frame.header.row_bytes());
    for (row, pair) in job.offsets.windows(2).enumerate() {
        for _ in pair[0]..pair[1] {
            slots.next().unwrap().copy_from_slice(frame.row(row));
        }
    }
    results.set_header(&job.results_header(Times::default()));
    results.finish()
}

#[tokio::test]
async fn a_worker_that_refuses_one_step_serves_the_next() {
    let fake = refuses_once();
    let cluster = with_fake(
        fake,
        ExpertKind::Identity,
        ExchangeKind::Star,
        OnLoss::Fail,
        Duration::from_secs(10),
    )
    .await;
    let error = step_error(soon(cluster.forward(&x())).await);
    assert_eq!(error.endpoint(), ENDPOINT, "{error}");
    assert!(error.to_string().contains("it is Monday"), "{error}");
    soon(cluster.forward(&x())).await.unwrap();
}

/// An expert of the embedding program that panics when it is first asked.
struct Fussy {
    layer: SyntheticLayer,
    flops: u64,
    asked: Arc<AtomicU32>,
}

struct FussyExpert {
    expert: Arc<dyn Expert>,
    flops: u64,
    asked: Arc<AtomicU32>,
}

impl ExpertSource for Fussy {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        let loaded = self.layer.load(expert)?;
        if expert != 4 {
            return Ok(loaded);
        }
        let (flops, asked) = (self.flops, Arc::clone(&self.asked));
        Ok(Arc::new(FussyExpert {
            expert: loaded,
            flops,
            asked,
        }))
    }
}

impl Expert for FussyExpert {
    fn hidden(&self) -> usize {
        self.expert.hidden()
    }

    fn weight_bytes(&self) -> usize {
        self.expert.weight_bytes()
    }

    fn flops_per_row(&self) -> u64 {
        self.flops
    }

    fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), ExpertError> {
        assert!(
            self.asked.fetch_add(1, Ordering::Relaxed) > 0,
            "it is Monday"
        );
        self.expert.forward(x, y, scratch)
    }
}

#[tokio::test]
async fn an_expert_that_panics_ends_its_step_and_nothing_else() {
    // Short work runs on the thread that does I/O, long work on the compute pool.
    for flops in [1, 1 << 30] {
        for exchange in EXCHANGES {
            let spec = shape(Format::F32);
            let layer = SyntheticLayer::new(spec).unwrap();
            let experts = Fussy {
                layer,
                flops,
                asked: Arc::default(),
            };
            let model = Model::custom(spec, Arc::new(experts));
            let cluster = Cluster::start(ClusterSpec::new(model, 3).exchange(exchange)).await;
            let error = step_error(soon(cluster.forward(&x())).await);
            assert_eq!(error.endpoint(), ENDPOINT, "{error}");
            assert!(
                error.to_string().contains("it panicked: it is Monday"),
                "{error}"
            );
            let step = soon(cluster.forward(&x())).await.unwrap();
            check(&step);
        }
    }
}

/// A home whose timeline is out of order must not take the coordinator down.
#[tokio::test]
async fn a_home_whose_moments_lie_is_refused() {
    let lies = [
        Timeline {
            packed: 9,
            received: 3,
            ..Timeline::default()
        },
        Timeline {
            arrived: u64::MAX,
            done: u64::MAX,
            ..Timeline::default()
        },
        Timeline {
            dispatched: u64::MAX,
            ..Timeline::default()
        },
        Timeline {
            computed: 5,
            arrived: 2,
            done: 9,
            ..Timeline::default()
        },
        Timeline {
            first_result: u64::MAX,
            ..Timeline::default()
        },
    ];
    for lie in lies {
        let pool = BufferPool::default();
        let fake = FakeWorker::answers(move |_, frame| match frame.header.kind {
            FrameKind::Shard => {
                let request = frame.header;
                let mut header = Header::new(
                    FrameKind::Combined,
                    request.tag,
                    request.hidden,
                    Format::F32,
                );
                header.row_count = request.row_count;
                let out = vec![0.0; frame.rows.len() / 4];
                vec![write_combined(&pool, header, &out, &lie, &[], || 0)]
            }
            _ => vec![identity(&pool, frame)],
        });
        let patience = Duration::from_secs(10);
        let exchange = ExchangeKind::AllToAll;
        let cluster = with_fake(fake, ExpertKind::Identity, exchange, OnLoss::Fail, patience).await;
        let error = step_error(soon(cluster.forward(&x())).await);
        assert_eq!(error.endpoint(), ENDPOINT, "{error}");
        assert!(error.to_string().contains("index"), "{error}");
    }
}
