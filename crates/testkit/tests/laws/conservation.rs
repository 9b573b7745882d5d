//! Law 1: every choice is accounted for, whatever happens.

use expertmesh_checkpoint::SyntheticSpec;
use expertmesh_exchange::{ExchangeKind, OnLoss, StepError, shard_ranges};
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_placement::{Placement, Strategy as Placing};
use expertmesh_routing::{
    CapacityConfig, CapacityScope, CapacityShare, Fate, Overflow, QueueOrder, Route, WeightRule,
    admit,
};
use expertmesh_testkit::{Bus, BusSetup, BusStep, Fault, FaultKind, Model, Parts, inputs};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::common::same_bits;

const HIDDEN: usize = 4;

/// A random step.
#[derive(Debug, Clone)]
struct Case {
    experts: usize,
    top_k: usize,
    workers: usize,
    placing: Placing,
    tokens: usize,
    /// Exponent of a Zipf law over the experts; 0 is uniform.
    skew: i32,
    padded: bool,
    /// Whether every second expert has a second worker.
    replicated: bool,
    capacity: CapacityConfig,
    exchange: ExchangeKind,
    /// Drawn groups of more workers than there are, of which any numbers will do.
    groups: Vec<u32>,
    credits: usize,
    chunk_bytes: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1..=9usize)
        .prop_flat_map(|experts| (Just(experts), 1..=experts, 1..=experts + 3, 0..3usize));
    let load = (
        prop_oneof![Just(0), Just(1), 2..40usize],
        0..4i32,
        any::<bool>(),
    );
    let links = (
        0..3usize,
        1..4usize,
        prop_oneof![Just(1), Just(400), Just(1 << 16)],
        any::<u64>(),
        prop::collection::vec(0..12u32, 12),
    );
    (shape, load, capacities(), any::<bool>(), links).prop_map(
        |(shape, load, capacity, replicated, links)| Case {
            experts: shape.0,
            top_k: shape.1,
            workers: shape.2,
            placing: Placing::ALL[shape.3],
            tokens: load.0,
            skew: load.1,
            padded: load.2,
            replicated,
            capacity,
            exchange: ExchangeKind::ALL[links.0],
            groups: links.4,
            credits: links.1,
            chunk_bytes: links.2,
            seed: links.3,
        },
    )
}

/// Every overflow policy in every order, share and scope, with every weight rule.
fn capacities() -> impl Strategy<Value = CapacityConfig> {
    let policy = (
        prop::sample::select(&Overflow::ALL[..]),
        0.05..2.0f64,
        0..3u32,
    );
    let rules = (
        prop::sample::select(&[QueueOrder::TokenMajor, QueueOrder::ChoiceMajor][..]),
        prop::sample::select(&[CapacityScope::Expert, CapacityScope::Worker][..]),
        1..4u32,
        prop::sample::select(&[WeightRule::Keep, WeightRule::Renormalise, WeightRule::Zero][..]),
    );
    (policy, rules).prop_map(|((overflow, factor, min_capacity), rules)| CapacityConfig {
        factor: (overflow != Overflow::Dropless).then_some(factor),
        overflow,
        min_capacity,
        order: rules.0,
        // A replica's room is its own already.
        scope: match overflow {
            Overflow::RerouteToReplica => CapacityScope::Expert,
            _ => rules.1,
        },
        share: CapacityShare::senders(rules.2).unwrap(),
        weights: rules.3,
        ..CapacityConfig::default()
    })
}

/// Up to two workers that fail.
fn faults() -> impl Strategy<Value = Vec<(u32, usize, bool)>> {
    prop::collection::vec((0..12u32, 0..6usize, any::<bool>()), 1..3)
}

// === impl Case ===

impl Case {
    fn placement(&self) -> Placement {
        let placement = self
            .placing
            .place(self.experts, self.workers, self.seed)
            .unwrap();
        if !self.replicated || self.workers == 1 {
            return placement;
        }
        let workers = u32::try_from(self.workers).unwrap();
        let mut table: Vec<Vec<u32>> = placement.entries().map(<[u32]>::to_vec).collect();
        for replicas in table.iter_mut().step_by(2) {
            replicas.push((replicas[0] + 1) % workers);
        }
        Placement::from_table(table, self.workers).unwrap()
    }

    fn bus(&self, kind: ExpertKind, on_loss: OnLoss) -> Bus {
        let model = Model::synthetic(SyntheticSpec {
            hidden: HIDDEN,
            ffn: 3,
            experts: self.experts,
            top_k: self.top_k,
            kind,
            seed: 1,
            layer: 0,
            dtype: Format::F32,
        });
        let mut setup = BusSetup::new(self.placement(), self.exchange);
        setup.groups = (0..self.workers).map(|worker| self.group(worker)).collect();
        setup.capacity = self.capacity;
        setup.seed = self.seed;
        setup.credits = self.credits;
        setup.chunk_bytes = self.chunk_bytes;
        setup.on_loss = on_loss;
        setup.echoes = self.seed.is_multiple_of(2);
        Bus::new(Parts::load(model.source.as_ref()), setup)
    }

    /// Choices as skewed as the case wants, each token's experts distinct.
    fn route(&self) -> Route {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let mut route = Route {
            tokens: self.tokens,
            top_k: self.top_k,
            offsets: None,
            experts_total: self.experts,
            logits: Vec::new(),
            experts: Vec::new(),
            weights: Vec::new(),
            padding: None,
        };
        for _ in 0..self.tokens {
            let mut left: Vec<u32> = (0..).take(self.experts).collect();
            for _ in 0..self.top_k {
                let mass = |expert: u32| f64::from(expert + 1).powi(-self.skew);
                let total: f64 = left.iter().copied().map(mass).sum();
                let mut aim = unit() * total;
                let at = left.iter().position(|expert| {
                    aim -= mass(*expert);
                    aim <= 0.0
                });
                route
                    .experts
                    .push(left.remove(at.unwrap_or(left.len() - 1)));
                route.weights.push((0.01 + unit()) as f32);
            }
        }
        route.logits = (0..self.tokens * self.experts)
            .map(|_| unit() as f32)
            .collect();
        if self.padded {
            route.padding = Some((0..self.tokens).map(|_| unit() < 0.3).collect());
        }
        route
    }

    fn x(&self) -> Vec<f32> {
        inputs(self.seed ^ 1, self.tokens, HIDDEN, Format::F32)
    }

    fn group(&self, worker: usize) -> u32 {
        self.groups[worker] % u32::try_from(self.workers).unwrap()
    }

    /// Workers that may pass rows of `home` on to `host`.
    fn relays(&self, home: usize, host: usize) -> impl Iterator<Item = usize> {
        let group = self.group(host);
        let foreign = self.exchange == ExchangeKind::Hierarchical && self.group(home) != group;
        (0..self.workers).filter(move |worker| foreign && self.group(*worker) == group)
    }

    fn faults(&self, drawn: &[(u32, usize, bool)]) -> Vec<Fault> {
        let workers = u32::try_from(self.workers).unwrap();
        let mut faults: Vec<Fault> = Vec::new();
        for (worker, after, dies) in drawn {
            let fault = Fault {
                endpoint: 1 + worker % workers,
                after: *after,
                kind: if *dies {
                    FaultKind::Dies
                } else {
                    FaultKind::Hangs
                },
            };
            // A worker fails once.
            if faults.iter().all(|one| one.endpoint != fault.endpoint) {
                faults.push(fault);
            }
        }
        faults
    }
}

/// The law, and that outputs are those of the choices that were computed.
fn check(case: &Case, bus: &Bus, step: &BusStep) {
    let context = bus.admit_context();
    let admitted = admit(&step.route, &case.capacity, &context).unwrap().fates;
    step.overflow.check_conservation().unwrap();
    let totals = step.overflow.totals();
    let choices = case.tokens * case.top_k;
    assert_eq!(totals.assigned, choices as u64);
    let parts = totals.computed + totals.rerouted + totals.dropped + totals.skipped + totals.lost;
    assert_eq!(parts, choices as u64);
    let weight: f64 = step.route.weights.iter().map(|one| f64::from(*one)).sum();
    let accounted = totals.computed_weight
        + totals.rerouted_weight
        + totals.dropped_weight
        + totals.skipped_weight
        + totals.lost_weight;
    assert!(
        (weight - accounted).abs() <= 1e-9 * (1.0 + weight),
        "{weight} {accounted}"
    );
    for (admitted, fate) in admitted.iter().zip(&step.admission.fates) {
        // Losses take from what was admitted, and from nothing else.
        let computed = matches!(admitted, Fate::Computed | Fate::Rerouted);
        let taken = computed && *fate == Fate::Lost;
        assert!(taken || admitted == fate, "{admitted} became {fate}");
    }
    let expected = bus
        .parts
        .forward(bus.setup.wire, &case.x(), &step.route, &step.admission);
    same_bits(&step.output, &expected, "outputs of the computed choices");
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn nothing_is_lost_where_nothing_fails(case in cases()) {
        let bus = case.bus(ExpertKind::Swiglu, OnLoss::Fail);
        let step = bus.step_routed(&case.x(), case.route(), case.seed, &[]).unwrap();
        check(&case, &bus, &step);
        prop_assert_eq!(step.overflow.totals().lost, 0);
        prop_assert_eq!(&step.carried, &step.planned_links());
        prop_assert_eq!(step.local_bytes, step.planned.local_bytes);
        prop_assert!(step.took_ns < bus.setup.deadline_ns / 2);
    }

    #[test]
    fn what_fails_is_counted_as_lost(case in cases(), drawn in faults()) {
        let faults = case.faults(&drawn);
        let bus = case.bus(ExpertKind::Identity, OnLoss::Drop);
        let step = bus.step_routed(&case.x(), case.route(), case.seed, &faults).unwrap();
        check(&case, &bus, &step);
        prop_assert!(step.took_ns <= bus.setup.deadline_ns);
        let placement = case.placement();
        let homes = shard_ranges(case.tokens, case.workers);
        let failed = |worker: usize| faults.iter().any(|one| one.endpoint as usize == worker + 1);
        for (at, fate) in step.admission.fates.iter().enumerate() {
            let token = at / case.top_k;
            let expert = step.admission.executed(&step.route, at) as usize;
            let replica = usize::from(step.admission.replica(at));
            let host = placement.replicas(expert)[replica] as usize;
            let home = homes.iter().position(|range| range.contains(&token)).unwrap();
            let reach = failed(host)
                // A later wave waits for whoever owes results of an earlier one.
                || (step.admission.wave(at) > 0 && !faults.is_empty())
                || (case.exchange.is_sharded() && failed(home))
                || case.relays(home, host).any(failed);
            prop_assert!(*fate != Fate::Lost || reach, "choice {at} lost on healthy workers");
            // A host that never answered anybody lost everything.
            let mute = faults.iter().any(|one| one.endpoint as usize == host + 1 && one.after == 0);
            let computed = matches!(fate, Fate::Computed | Fate::Rerouted);
            prop_assert!(!mute || !computed, "choice {at} computed by nobody");
        }
    }

    #[test]
    fn what_fails_is_named(case in cases(), drawn in faults()) {
        let faults = case.faults(&drawn);
        let bus = case.bus(ExpertKind::Identity, OnLoss::Fail);
        match bus.step_routed(&case.x(), case.route(), case.seed, &faults) {
            // It failed too late to matter.
            Ok(step) => {
                check(&case, &bus, &step);
                prop_assert_eq!(step.overflow.totals().lost, 0);
            }
            Err(error) => {
                let at_fault = faults.iter().any(|one| one.endpoint == error.endpoint());
                prop_assert!(at_fault, "{}", error);
                let worker = format!("worker-{}", error.endpoint() - 1);
                prop_assert!(error.to_string().contains(&worker), "{}", error);
                prop_assert!(matches!(error, StepError::Lost { .. }), "{}", error);
            }
        }
    }
}

/// The corners that a random draw may miss.
#[test]
fn corners() {
    let plain = Case {
        experts: 5,
        top_k: 2,
        workers: 3,
        placing: Placing::Contiguous,
        tokens: 9,
        skew: 0,
        padded: false,
        replicated: false,
        capacity: CapacityConfig::default(),
        exchange: ExchangeKind::AllToAll,
        groups: vec![0, 0, 1, 1, 1, 2, 0, 2, 2, 3, 1, 1],
        credits: 1,
        chunk_bytes: 1,
        seed: 2,
    };
    let corners = [
        Case {
            tokens: 0,
            ..plain.clone()
        },
        Case {
            tokens: 1,
            ..plain.clone()
        },
        Case {
            top_k: 5,
            ..plain.clone()
        },
        Case {
            workers: 11,
            ..plain.clone()
        },
        Case {
            experts: 1,
            top_k: 1,
            workers: 4,
            ..plain.clone()
        },
        plain,
    ];
    for corner in corners {
        for exchange in ExchangeKind::ALL {
            let case = Case {
                exchange,
                ..corner.clone()
            };
            let bus = case.bus(ExpertKind::Mlp, OnLoss::Fail);
            let step = bus.step_routed(&case.x(), case.route(), 3, &[]).unwrap();
            check(&case, &bus, &step);
            assert_eq!(step.carried, step.planned_links(), "{case:?}");
        }
    }
}
