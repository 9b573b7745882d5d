//! One step: hidden states in, outputs in token order out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use expertmesh_exchange::{LossCause, Missing, StepError, StepMoments, TrafficLedger};
use expertmesh_experts::HomeRows;
use expertmesh_routing::{Admission, DepthRoute, Fate, Gate, OverflowLedger, Route, SlotMix};
use expertmesh_telemetry::{Lane, StepRecord, spans};
use expertmesh_transport::monotonic_ns;
use ndarray::{ArcArray2, Array2};
use tracing::{Instrument as _, debug_span, info_span};

use crate::combine::{late, lost_origins};
use crate::connect::Coordinator;
use crate::engine::Exchange;
use crate::error::CoordinatorError;
use crate::gate::Routed;
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
    /// missing that the gate needs, or a worker lost under [`OnLoss::Fail`](expertmesh_exchange::OnLoss::Fail).
    pub async fn forward_in(
        &self,
        x: ArcArray2<f32>,
        input: StepInput,
    ) -> Result<StepOutput, CoordinatorError> {
        // What a step costs includes the look at its input.
        let begun = monotonic_ns();
        self.config
            .check_input(&x, &input, self.decider.gate.config())?;
        let x = self.config.in_form(x);
        let step = self.next_step.fetch_add(1, Ordering::Relaxed);
        let span = info_span!(spans::STEP, step, tokens = x.nrows());
        self.forward_step(step, begun, x, input)
            .instrument(span)
            .await
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
        let job = self.decider.job(&self.config, step, x, &input);
        let gating = job.run(&self.compute).instrument(debug_span!(spans::GATE));
        let Routed {
            route,
            rows: x,
            mix,
        } = gating.await?;
        if mix.is_some() {
            around.mixed();
        }
        self.decider.move_bias(&self.config, &route)?;
        let x = self.gather(&around, x).await?;
        let rows = self.enter_latent(&x).await?;
        at.gated = monotonic_ns();
        let planning = debug_span!(spans::PLAN).entered();
        let context = self.decider.context(&self.config, step, &input);
        let mut admission = self.decider.admit(&self.config, &route, &context)?;
        let homes = self.settle_losses(step, &route, &mut admission)?;
        let Planned {
            kept,
            ledger,
            exchange,
        } = self.plan(step, &route, &admission, &around, &homes, &mut at)?;
        drop(planning);

        let own = exchange.own_choices();
        let ended = self.engine.begin(step, exchange, rows);
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
        let (own, beside) = match self.projections {
            None => (own, HomeRows::default()),
            Some(_) => (HomeRows::default(), own),
        };
        let (combined, exchange) = self.combine(exchange, x.nrows(), own).await?;
        let output = self.leave_latent(combined, beside).await?;
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
            true => {
                let ways = self.ways(&exchange, step).await;
                lanes(&self.engine, &exchange, &at, &ledger, &ways, step)
            }
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

    /// The gate as the steps so far have left it.
    pub fn current_gate(&self) -> Arc<Gate> {
        self.decider.current_gate()
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
