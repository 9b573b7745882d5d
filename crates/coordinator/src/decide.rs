//! What a coordinator decides about a step before it sends anything: choices, and their fates by
//! capacity. [`Rehearsal`] decides the same without a cluster, for whoever simulates the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use expertmesh_placement::Placement;
use expertmesh_routing::{
    Admission, AdmitContext, Domains, Fate, Gate, Overflow, OverflowLedger, Route, admit,
};
use ndarray::ArcArray2;

use crate::config::CoordinatorConfig;
use crate::error::CoordinatorError;
use crate::gate::{GateJob, Routed};
use crate::input::StepInput;

/// A gate, a capacity rule, and what earlier steps taught them.
pub(crate) struct Decider {
    pub(crate) gate: Arc<Gate>,
    /// The gate with the selection bias that steps have moved; `None` before the first.
    moved_gate: Mutex<Option<Arc<Gate>>>,
    /// Which workers hold each expert, for policies that look at it: worker `w` is domain `w`.
    pub(crate) domains: Arc<Domains>,
    /// The capacity that steps grew to, for the policy that grows; 0 for none.
    pub(crate) grown: AtomicU64,
}

/// The decisions of a [`Coordinator`](crate::Coordinator) of the same configuration, without any
/// worker: equal input gives equal routes and fates, to the last bit.
pub struct Rehearsal {
    pub(crate) config: CoordinatorConfig,
    pub(crate) decider: Decider,
}

/// What was decided about a step.
#[derive(Debug)]
pub struct Decided {
    /// The gate's choices.
    pub route: Route,
    /// What capacity leaves of them.
    pub admission: Admission,
    step: u64,
    input: StepInput,
}

// === impl Decider ===

impl Decider {
    pub(crate) fn new(config: &CoordinatorConfig) -> Result<Self, CoordinatorError> {
        let gate = config.source.gate()?;
        Ok(Self {
            gate: Arc::new(match config.force {
                None => gate,
                Some(kind) => gate.with_kind(kind)?,
            }),
            moved_gate: Mutex::new(None),
            domains: Arc::new(domains(&config.placement)?),
            grown: AtomicU64::new(0),
        })
    }

    /// A batch on its way through the gate.
    pub(crate) fn job(
        &self,
        config: &CoordinatorConfig,
        step: u64,
        x: ArcArray2<f32>,
        input: &Arc<StepInput>,
    ) -> GateJob {
        GateJob {
            gate: self.current_gate(),
            x,
            input: Arc::clone(input),
            domains: Arc::clone(&self.domains),
            seed: config.seed,
            step: input.at_step.unwrap_or(step),
            layer: config.source.spec().layer,
            training: config.training,
        }
    }

    /// The gate as the steps so far have left it.
    pub(crate) fn current_gate(&self) -> Arc<Gate> {
        let moved = self.moved_gate.lock();
        let moved = moved.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(moved.as_ref().unwrap_or(&self.gate))
    }

    /// Moves the selection bias by what a step's tokens chose, where the run asks for it. Steps
    /// under way at the same time move it in the order in which they were gated.
    pub(crate) fn move_bias(
        &self,
        config: &CoordinatorConfig,
        route: &Route,
    ) -> Result<(), CoordinatorError> {
        let Some(update) = &config.bias_update else {
            return Ok(());
        };
        let moved = self.moved_gate.lock();
        let mut moved = moved.unwrap_or_else(PoisonError::into_inner);
        let gate = moved.as_ref().unwrap_or(&self.gate);
        let next = gate.with_moved_bias(update, &route.demand())?;
        *moved = Some(Arc::new(next));
        Ok(())
    }

    /// What a step is admitted under.
    pub(crate) fn context(
        &self,
        config: &CoordinatorConfig,
        step: u64,
        input: &StepInput,
    ) -> AdmitContext<'_> {
        let grown = self.grown.load(Ordering::Relaxed);
        AdmitContext {
            seed: config.seed,
            step: input.at_step.unwrap_or(step),
            layer: config.source.spec().layer,
            first_token: input.first_token,
            sequence: input.sequence,
            domains: Some(&self.domains),
            grown: (grown > 0).then_some(grown),
            free: &self.gate.config().free,
        }
    }

    /// What capacity leaves of the gate's choices: by the run's rule where it limits anything,
    /// else by the model's own. A capacity that had to grow is remembered for the steps to come.
    pub(crate) fn admit(
        &self,
        config: &CoordinatorConfig,
        route: &Route,
        context: &AdmitContext<'_>,
    ) -> Result<Admission, CoordinatorError> {
        let rule = &config.capacity;
        let own = config.source.spec().capacity;
        let admission = match own.filter(|_| rule.overflow == Overflow::Dropless) {
            None => admit(route, rule, context)?,
            Some(own) => own.admit(route, context.sequence, self.gate.config().dtype)?,
        };
        if let (1.., Some(capacity)) = (admission.replays, admission.capacity) {
            self.grown.fetch_max(capacity, Ordering::Relaxed);
        }
        Ok(admission)
    }
}

// === impl Rehearsal ===

impl Rehearsal {
    /// A rehearsal of `config`, whose addresses of workers are not used but counted.
    ///
    /// # Errors
    /// As [`CoordinatorConfig::validate`], and mixture-of-depths, which needs the hidden states of
    /// the layers before.
    pub fn new(config: CoordinatorConfig) -> Result<Self, CoordinatorError> {
        config.validate()?;
        if config.depth.is_some() {
            let expected = "none: a rehearsal sees the tokens of one layer only";
            return Err(CoordinatorError::field("depth", "a router", expected));
        }
        let decider = Decider::new(&config)?;
        Ok(Self { config, decider })
    }

    /// The configuration that is rehearsed.
    pub fn config(&self) -> &CoordinatorConfig {
        &self.config
    }

    /// The gate as it was configured.
    pub fn gate(&self) -> &Gate {
        &self.decider.gate
    }

    /// Decides about step number `step` of hidden states `x` `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`Coordinator::forward_in`](crate::Coordinator::forward_in).
    pub fn decide(
        &self,
        step: u64,
        x: ArcArray2<f32>,
        input: StepInput,
    ) -> Result<Decided, CoordinatorError> {
        self.config
            .check_input(&x, &input, self.decider.gate.config())?;
        let x = self.config.in_form(x);
        let input = Arc::new(input);
        let job = self.decider.job(&self.config, step, x, &input);
        let Routed { route, .. } = job.in_blocks()?;
        self.decided(step, route, Arc::unwrap_or_clone(input))
    }

    /// The same from `logits` `[tokens, E]` instead of hidden states: for batches whose rows would
    /// only be made to be multiplied with the gate.
    ///
    /// # Errors
    /// As [`Self::decide`], and a gate that looks at more than logits.
    pub fn decide_scored(
        &self,
        step: u64,
        logits: Vec<f32>,
        tokens: usize,
        input: StepInput,
    ) -> Result<Decided, CoordinatorError> {
        let input = Arc::new(input);
        let none = ndarray::Array2::zeros((0, self.decider.gate.hidden())).into_shared();
        let job = self.decider.job(&self.config, step, none, &input);
        let route = job.of_logits(logits, tokens)?;
        // The job's own handle is gone by now.
        self.decided(step, route, Arc::unwrap_or_clone(input))
    }

    /// Counts the choices of a decided step, whose last fates are `fates`.
    ///
    /// # Errors
    /// [`CoordinatorError`] for fates of another step.
    pub fn tally(
        &self,
        decided: &Decided,
        fates: &[Fate],
    ) -> Result<OverflowLedger, CoordinatorError> {
        let context = self
            .decider
            .context(&self.config, decided.step, &decided.input);
        let admission = Admission {
            fates: fates.to_vec(),
            ..decided.admission.clone()
        };
        let rule = &self.config.capacity;
        Ok(OverflowLedger::tally(
            &decided.route,
            &admission,
            rule,
            &context,
        )?)
    }

    fn decided(
        &self,
        step: u64,
        route: Route,
        input: StepInput,
    ) -> Result<Decided, CoordinatorError> {
        self.decider.move_bias(&self.config, &route)?;
        let context = self.decider.context(&self.config, step, &input);
        let admission = self.decider.admit(&self.config, &route, &context)?;
        Ok(Decided {
            route,
            admission,
            step,
            input,
        })
    }
}

/// Which workers hold each expert.
fn domains(placement: &Placement) -> Result<Domains, CoordinatorError> {
    let of: Vec<&[u32]> = (0..placement.experts())
        .map(|expert| placement.replicas(expert))
        .collect();
    Ok(Domains::new(&of, placement.workers())?)
}
