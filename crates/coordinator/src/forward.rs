//! One step: hidden states in, outputs in token order out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use expertmesh_exchange::{LossCause, Missing, StepError, StepMoments, TrafficLedger};
use expertmesh_experts::HomeRows;
use expertmesh_kernels::{Format, round_bf16};
use expertmesh_routing::{
    Admission, AdmitContext, DepthRoute, Fate, Gate, Overflow, OverflowLedger, Route, SlotMix,
    admit,
};
use expertmesh_telemetry::{Lane, StepRecord, spans};
use expertmesh_transport::monotonic_ns;
use ndarray::{ArcArray2, Array2};
use tracing::{Instrument as _, debug_span, info_span};

use crate::combine::{late, lost_origins};
use crate::connect::Coordinator;
use crate::engine::Exchange;
use crate::error::CoordinatorError;
use crate::gate::{GateJob, Routed};
use crate::input::StepInput;
use crate::lanes::lanes;
use crate::plan::Planned;
use crate::record::record;

/// What a step gave.
#[derive(Debug)]
pub struct StepOutput {
    /// Number of the step.
    pub step: u64,
    /// `[tokens, hidden]` outputs, lost and dropped choices adding nothing.
    pub output: Array2<f32>,
    /// The gate's choices.
    pub route: Route,
    /// How tokens were mixed into slots, by a gate that does: the route is then that of the slots.
    pub mix: Option<SlotMix>,
    /// Who passed through the layer, where it has mixture-of-depths; the others' rows of the output
    /// are zero.
    pub depth: Option<DepthRoute>,
    /// What was done for each choice, its fates being the last word.
    pub admission: Admission,
    /// The choices counted by expert.
    pub overflow: OverflowLedger,
    /// Where the time went.
    pub record: StepRecord,
    /// What was sent.
    pub traffic: StepTraffic,
    /// When each endpoint did what, if the input asked for it.
    pub lanes: Vec<Lane>,
}

/// What a step sent, and who held it up.
#[derive(Debug, Clone)]
pub struct StepTraffic {
    /// Messages, rows and bytes by pair of endpoints.
    pub ledger: TrafficLedger,
    /// Endpoint id of the worker on the critical path; 0 if no row left.
    pub critical_endpoint: u32,
}

// === impl Coordinator ===

impl Coordinator {
    /// Forwards `x` `[tokens, hidden]` through the layer. Choices of tokens that `padding`
    /// `[tokens]` marks are skipped.
    ///
    /// # Errors
    /// As [`Coordinator::forward_in`].
    pub async fn forward(
        &self,
        x: ArcArray2<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<StepOutput, CoordinatorError> {
        self.forward_in(x, StepInput::padded(padding)).await
    }

    /// Forwards `x` `[tokens, hidden]` through the layer, with whatever else its gate asks for.
    ///
    /// # Errors
    /// [`CoordinatorError`]: input of another shape or with a number that is not finite, something
    /// missing that the gate needs, or a worker lost under [`OnLoss::Fail`].
    pub async fn forward_in(
        &self,
        x: ArcArray2<f32>,
        input: StepInput,
    ) -> Result<StepOutput, CoordinatorError> {
        // What a step costs includes the look at its input.
        let begun = monotonic_ns();
        self.check_input(&x, &input)?;
        let x = self.in_form(x);
        let step = self.next_step.fetch_add(1, Ordering::Relaxed);
        let span = info_span!(spans::STEP, step, tokens = x.nrows());
        self.forward_step(step, begun, x, input)
            .instrument(span)
            .await
    }

    /// Hidden states row by row, in the model's format: what a bf16 model is given, bf16 holds.
    pub(crate) fn in_form(&self, x: ArcArray2<f32>) -> ArcArray2<f32> {
        let x = if x.is_standard_layout() {
            x
        } else {
            x.as_standard_layout().to_shared()
        };
        if self.rule().dtype == Format::F32 {
            return x;
        }
        let mut x = x.into_owned();
        if let Some(values) = x.as_slice_mut() {
            round_bf16(values);
        }
        x.into_shared()
    }

    /// Takes an output's memory back for later steps: fresh memory costs a page fault for every
    /// 4 KiB.
    pub fn recycle(&self, output: Array2<f32>) {
        self.engine.recycle(output.into_raw_vec_and_offset().0);
    }

    async fn forward_step(
        &self,
        step: u64,
        begun: u64,
        x: ArcArray2<f32>,
        input: StepInput,
    ) -> Result<StepOutput, CoordinatorError> {
        let mut at = StepMoments {
            begun,
            checked: monotonic_ns(),
            ..StepMoments::default()
        };
        let mut around = self.go_round(&x, &input).await?;
        let (mut input, tokens) = (input, x.nrows());
        input.padding = around.mask(input.padding.as_deref(), tokens);
        let input = Arc::new(input);
        let job = self.gate_job(step, x, &input);
        let gating = job.run(&self.compute).instrument(debug_span!(spans::GATE));
        let Routed {
            route,
            rows: x,
            mix,
        } = gating.await?;
        if mix.is_some() {
            around.mixed();
        }
        self.move_bias(&route)?;
        at.gated = monotonic_ns();
        let planning = debug_span!(spans::PLAN).entered();
        let context = self.admit_context(step, &input);
        let mut admission = self.admit(&route, &context)?;
        self.grow(&admission);
        let homes = self.settle_losses(step, &route, &mut admission)?;
        let Planned {
            kept,
            ledger,
            exchange,
        } = self.plan(step, &route, &admission, &around, &homes, &mut at)?;
        drop(planning);

        let x = self.gather(&around, x).await?;
        let own = exchange.own_choices();
        let ended = self.engine.begin(step, exchange, x.clone());
        let guard = StepGuard {
            coordinator: self,
            step,
        };
        // The first message is on its way while the next is packed.
        while debug_span!(spans::PACK).in_scope(|| self.engine.pump_one(step)) {
            tokio::task::yield_now().await;
        }
        let own = self.start_own(&x, own);
        let outcome = ended.await;
        let exchange = guard.finish();
        let outcome = outcome.map_err(|error| CoordinatorError::Internal(error.to_string()))?;
        if let Err(StepError::Lost {
            endpoint,
            cause: cause @ LossCause::Deadline { .. },
            ..
        }) = &outcome
        {
            self.engine.mark_late([(*endpoint, cause.clone())]);
        }
        outcome?;
        let exchange =
            exchange.ok_or_else(|| CoordinatorError::Internal("step without its run".into()))?;
        self.engine.mark_late(late(&exchange));
        let own = match own {
            None => HomeRows::default(),
            Some(rows) => {
                let rows = rows
                    .await
                    .map_err(|e| CoordinatorError::Internal(e.to_string()))??;
                at.shared = rows.1;
                rows.0
            }
        };
        let lost = lost_origins(&exchange, &kept);
        let (output, exchange) = self.combine(exchange, x.nrows(), own).await?;
        let (output, mix) = self.unmix(output, mix, tokens).await?;
        let (output, depth) = self.scatter(around, output, tokens).await?;
        at.done = monotonic_ns();

        for origin in lost {
            admission.fates[origin as usize] = Fate::Lost;
        }
        let (record, critical_endpoint) = record(
            &self.engine,
            &exchange,
            &at,
            &ledger,
            self.table.executed(&route, &admission, &admission.fates),
        );
        let lanes = match input.want_lanes {
            true => lanes(&self.engine, &exchange, &at, &ledger, step),
            false => Vec::new(),
        };
        let overflow = OverflowLedger::tally(&route, &admission, &self.config.capacity, &context)?;
        debug_assert!(
            overflow.check_conservation().is_ok(),
            "a choice is unaccounted for"
        );
        let traffic = StepTraffic {
            ledger,
            critical_endpoint,
        };
        Ok(StepOutput {
            step,
            output,
            route,
            mix,
            depth,
            admission,
            overflow,
            record,
            traffic,
            lanes,
        })
    }

    fn check_input(&self, x: &ArcArray2<f32>, input: &StepInput) -> Result<(), CoordinatorError> {
        let hidden = self.config.source.spec().hidden;
        if x.ncols() != hidden {
            let expected = format!("{hidden}, the layer's");
            return Err(CoordinatorError::field("hidden", x.ncols(), expected));
        }
        let router = self.gate.config();
        input.check(x.nrows(), router.top_k)?;
        if input.replay.is_some() && !router.needs().replay {
            let held = "choices of an earlier run";
            let expected = format!("none, because the gate is {} and not replay", router.kind);
            return Err(CoordinatorError::field("replay", held, expected));
        }
        let left = input.absent.iter().flatten().any(|absent| *absent);
        if left && self.config.source.spec().capacity.is_some() {
            let held = "tokens that left the stack";
            let expected = "none, because the layer's own capacity rule counts every token";
            return Err(CoordinatorError::field("absent", held, expected));
        }
        if u32::try_from(x.len()).is_err() {
            let held = format!("{} tokens", x.nrows());
            return Err(CoordinatorError::field(
                "tokens",
                held,
                "fewer than 2^32 elements a step",
            ));
        }
        check_finite(x)
    }

    /// Marks choices whose host is down as lost, or fails; returns the workers that can be homes.
    fn settle_losses(
        &self,
        step: u64,
        route: &Route,
        admission: &mut Admission,
    ) -> Result<Vec<u32>, CoordinatorError> {
        let workers = 1..u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        let down: Vec<(u32, LossCause)> = workers
            .filter_map(|id| self.engine.down(id).map(|cause| (id, cause)))
            .collect();
        let missing = Missing {
            step,
            down: &down,
            on_loss: self.config.on_loss,
            names: &self.engine.names,
        };
        Ok(missing.settle(self.config.exchange, &self.table, route, admission)?)
    }

    fn gate_job(&self, step: u64, x: ArcArray2<f32>, input: &Arc<StepInput>) -> GateJob {
        GateJob {
            gate: self.current_gate(),
            x,
            input: Arc::clone(input),
            domains: Arc::clone(&self.domains),
            seed: self.config.seed,
            step: input.at_step.unwrap_or(step),
            layer: self.config.source.spec().layer,
            training: self.config.training,
        }
    }

    /// The gate as the steps so far have left it.
    pub fn current_gate(&self) -> Arc<Gate> {
        let moved = self.moved_gate.lock();
        let moved = moved.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(moved.as_ref().unwrap_or(&self.gate))
    }

    /// Moves the selection bias by what a step's tokens chose, where the run asks for it. Steps
    /// under way at the same time move it in the order in which they were gated.
    fn move_bias(&self, route: &Route) -> Result<(), CoordinatorError> {
        let Some(update) = &self.config.bias_update else {
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
    fn admit_context(&self, step: u64, input: &StepInput) -> AdmitContext<'_> {
        let grown = self.grown.load(Ordering::Relaxed);
        AdmitContext {
            seed: self.config.seed,
            step: input.at_step.unwrap_or(step),
            layer: self.config.source.spec().layer,
            first_token: input.first_token,
            sequence: input.sequence,
            domains: Some(&self.domains),
            grown: (grown > 0).then_some(grown),
            free: &self.gate.config().free,
        }
    }

    /// What capacity leaves of the gate's choices: by the run's rule where it limits anything,
    /// else by the model's own.
    fn admit(
        &self,
        route: &Route,
        context: &AdmitContext<'_>,
    ) -> Result<Admission, CoordinatorError> {
        let config = &self.config.capacity;
        let own = self.config.source.spec().capacity;
        match own.filter(|_| config.overflow == Overflow::Dropless) {
            None => Ok(admit(route, config, context)?),
            Some(own) => Ok(own.admit(route, context.sequence, self.rule().dtype)?),
        }
    }

    /// Remembers a capacity that had to grow, for the steps to come.
    fn grow(&self, admission: &Admission) {
        if let (1.., Some(capacity)) = (admission.replays, admission.capacity) {
            self.grown.fetch_max(capacity, Ordering::Relaxed);
        }
    }
}

/// Takes a step out of the engine even if its caller gives up in the middle.
struct StepGuard<'a> {
    coordinator: &'a Coordinator,
    step: u64,
}

impl StepGuard<'_> {
    fn finish(self) -> Option<Exchange> {
        self.coordinator.engine.finish(self.step)
    }
}

impl Drop for StepGuard<'_> {
    fn drop(&mut self) {
        self.coordinator.engine.finish(self.step);
    }
}

/// Every hidden state is finite. The whole batch is read before every step, so the usual answer
/// comes from a loop that vectorises and the search for the culprit starts only when there is one.
fn check_finite(x: &ArcArray2<f32>) -> Result<(), CoordinatorError> {
    let all_finite = |values: &[f32]| {
        values
            .chunks(1024)
            .all(|chunk| chunk.iter().fold(true, |all, one| all & one.is_finite()))
    };
    if x.as_slice().is_some_and(all_finite) {
        return Ok(());
    }
    match x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(((token, element), value)) => Err(CoordinatorError::NotFinite {
            token,
            element,
            value: *value,
        }),
    }
}
