//! One step: hidden states in, outputs in token order out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use expertmesh_exchange::{
    CombineRule, ExchangeKind, HomeRun, HomeSetup, KeptChoices, LossCause, OnLoss, ShardPlan,
    StepError, TrafficLedger, shard_ranges,
};
use expertmesh_experts::{INLINE_NS, Scratch, for_each_row_block};
use expertmesh_kernels::{Format, decode_row, encode_row};
use expertmesh_routing::{Fate, OverflowLedger, Route, WeightDtype, admit};
use expertmesh_telemetry::{StepRecord, spans};
use expertmesh_transport::monotonic_ns;
use expertmesh_wire::Tag;
use ndarray::{ArcArray2, Array2};
use tokio::sync::oneshot;
use tracing::{Instrument as _, debug_span, info_span};

use crate::connect::Coordinator;
use crate::engine::Exchange;
use crate::error::CoordinatorError;
use crate::record::{Moments, record};
use crate::shards::{Shard, ShardsRun, ShardsSetup};

/// What a step gave.
#[derive(Debug)]
pub struct StepOutput {
    /// Number of the step.
    pub step: u64,
    /// `[tokens, hidden]` outputs, lost and dropped choices adding nothing.
    pub output: Array2<f32>,
    /// The gate's choices.
    pub route: Route,
    /// `[tokens × k]` what became of each choice.
    pub fates: Vec<Fate>,
    /// The choices counted by expert.
    pub overflow: OverflowLedger,
    /// Where the time went.
    pub record: StepRecord,
    /// What was sent.
    pub traffic: StepTraffic,
}

/// What a step sent, and who held it up.
#[derive(Debug, Clone)]
pub struct StepTraffic {
    /// Messages, rows and bytes by pair of endpoints.
    pub ledger: TrafficLedger,
    /// Endpoint id of the worker on the critical path; 0 if no row left.
    pub critical_endpoint: u32,
}

/// A step on its way through [`Coordinator::forward`].
struct Planned {
    kept: Vec<KeptChoices>,
    ledger: TrafficLedger,
    exchange: Exchange,
}

/// Rows of the shared expert, and how long they took, nanoseconds.
type SharedRows = (Vec<f32>, u64);

/// Multiply-adds of a combine per nanosecond, for the choice between inline and pool only.
const ADDS_PER_NS: u64 = 6;

/// A combine of more pieces than this runs on the pool.
const MOST_PIECES: usize = 8;

// === impl Coordinator ===

impl Coordinator {
    /// Forwards `x` `[tokens, hidden]` through the layer. Choices of tokens that `padding`
    /// `[tokens]` marks are skipped.
    ///
    /// # Errors
    /// [`CoordinatorError`]: input of another shape or with a number that is not finite, or a
    /// worker lost under [`OnLoss::Fail`].
    pub async fn forward(
        &self,
        x: ArcArray2<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<StepOutput, CoordinatorError> {
        self.check_input(&x, padding.as_deref())?;
        let x = if x.is_standard_layout() {
            x
        } else {
            x.as_standard_layout().to_shared()
        };
        let step = self.next_step.fetch_add(1, Ordering::Relaxed);
        let span = info_span!(spans::STEP, step, tokens = x.nrows());
        self.forward_step(step, x, padding).instrument(span).await
    }

    /// Takes an output's memory back for later steps: fresh memory costs a page fault for every
    /// 4 KiB.
    pub fn recycle(&self, output: Array2<f32>) {
        self.engine.recycle(output.into_raw_vec_and_offset().0);
    }

    async fn forward_step(
        &self,
        step: u64,
        x: ArcArray2<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<StepOutput, CoordinatorError> {
        let mut at = Moments {
            begun: monotonic_ns(),
            ..Moments::default()
        };
        let route = crate::gate::route(&self.gate, &self.compute, &x, padding)
            .instrument(debug_span!(spans::GATE))
            .await?;
        at.gated = monotonic_ns();
        let planning = debug_span!(spans::PLAN).entered();
        let mut fates = admit(&route, &self.config.capacity)?.fates;
        let homes = self.settle_losses(step, &route, &mut fates)?;
        let Planned {
            kept,
            ledger,
            exchange,
        } = self.plan(step, &route, &fates, &homes, &mut at)?;
        drop(planning);

        let ended = self.engine.begin(step, exchange, x.clone());
        let guard = StepGuard {
            coordinator: self,
            step,
        };
        // The first message is on its way while the next is packed.
        while debug_span!(spans::PACK).in_scope(|| self.engine.pump_one(step)) {
            tokio::task::yield_now().await;
        }
        let shared = self.start_shared(&x);
        let outcome = ended.await;
        let exchange = guard.finish();
        outcome
            .map_err(|error| CoordinatorError::Internal(error.to_string()))?
            .inspect_err(|error| {
                if let StepError::Lost {
                    endpoint, cause, ..
                } = error
                {
                    self.engine.mark_late([(*endpoint, cause.clone())]);
                }
            })?;
        let exchange =
            exchange.ok_or_else(|| CoordinatorError::Internal("step without its run".into()))?;
        let shared = match shared {
            None => None,
            Some(rows) => {
                let rows = rows
                    .await
                    .map_err(|e| CoordinatorError::Internal(e.to_string()))??;
                at.shared = rows.1;
                Some(rows.0)
            }
        };
        let lost = lost_origins(&exchange, &kept);
        let (output, exchange) = self.combine(exchange, x.nrows(), shared).await?;
        at.done = monotonic_ns();

        for origin in lost {
            fates[origin as usize] = Fate::Lost;
        }
        let (record, critical_endpoint) = record(
            &self.engine,
            &exchange,
            &at,
            &ledger,
            self.executed(&route, &fates),
        );
        let overflow = OverflowLedger::tally(&route, &fates, &self.config.capacity)?;
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
            fates,
            overflow,
            record,
            traffic,
        })
    }

    fn check_input(
        &self,
        x: &ArcArray2<f32>,
        padding: Option<&[bool]>,
    ) -> Result<(), CoordinatorError> {
        let hidden = self.config.source.spec().hidden;
        if x.ncols() != hidden {
            let expected = format!("{hidden}, the layer's");
            return Err(CoordinatorError::field("hidden", x.ncols(), expected));
        }
        if let Some(padding) = padding
            && padding.len() != x.nrows()
        {
            let expected = format!("{} entries, one a token", x.nrows());
            let held = format!("{} entries", padding.len());
            return Err(CoordinatorError::field("padding_mask", held, expected));
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
        fates: &mut [Fate],
    ) -> Result<Vec<u32>, CoordinatorError> {
        let workers = 1..u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        let down: Vec<(u32, LossCause)> = workers
            .clone()
            .filter_map(|id| self.engine.down(id).map(|cause| (id, cause)))
            .collect();
        let Some((first, cause)) = down.first() else {
            return Ok(workers.collect());
        };
        let lost = |endpoint: u32, cause: &LossCause| StepError::Lost {
            step,
            endpoint,
            name: self.endpoints[endpoint as usize].name.clone(),
            cause: cause.clone(),
        };
        if self.config.on_loss == OnLoss::Fail {
            return Err(lost(*first, cause).into());
        }
        let is_down = |id: u32| down.iter().any(|(one, _)| *one == id);
        for (fate, expert) in fates.iter_mut().zip(&route.experts) {
            if *fate == Fate::Computed && self.table.host(*expert).is_some_and(is_down) {
                *fate = Fate::Lost;
            }
        }
        let homes: Vec<u32> = workers.filter(|id| !is_down(*id)).collect();
        if homes.is_empty() && self.config.exchange == ExchangeKind::AllToAll {
            return Err(lost(*first, cause).into());
        }
        Ok(homes)
    }

    fn plan(
        &self,
        step: u64,
        route: &Route,
        fates: &[Fate],
        homes: &[u32],
        at: &mut Moments,
    ) -> Result<Planned, CoordinatorError> {
        let kind = self.config.exchange;
        let ranges = match kind {
            ExchangeKind::Star => vec![(expertmesh_exchange::COORDINATOR, 0..route.tokens)],
            ExchangeKind::AllToAll => homes
                .iter()
                .copied()
                .zip(shard_ranges(route.tokens, homes.len()))
                .filter(|(_, range)| !range.is_empty())
                .collect(),
        };
        let kept: Vec<KeptChoices> = ranges
            .iter()
            .map(|(_, range)| KeptChoices::new(route, fates, range.clone()))
            .collect();
        let plans: Vec<ShardPlan> = ranges
            .iter()
            .zip(&kept)
            .map(|((home, _), kept)| {
                ShardPlan::new(*home, kept.as_kept(), &self.table, self.limits)
            })
            .collect();
        let output_row = self.limits_hidden() * self.rule().dtype.bytes();
        let endpoints = self.endpoints.len();
        let ledger = TrafficLedger::of_step(kind, &plans, endpoints, self.limits, output_row);
        at.planned = monotonic_ns();
        let tag = Tag {
            session: self.session,
            step,
            layer: self.layer(),
            ..Tag::default()
        };
        let hidden = u32::try_from(self.limits_hidden()).unwrap_or(u32::MAX);
        let budget = u64::try_from(self.config.deadline.as_nanos()).unwrap_or(u64::MAX);
        let (started_ns, deadline_ns) = (at.planned, at.begun.saturating_add(budget));
        let names = Arc::clone(&self.engine.names);
        let (rule, on_loss) = (self.rule(), self.config.on_loss);
        let exchange = if kind == ExchangeKind::Star {
            let credits = self.config.credits;
            let setup = HomeSetup {
                tag,
                hidden,
                rule,
                credits,
                on_loss,
                started_ns,
                deadline_ns,
                names,
            };
            let plan = plans.into_iter().next();
            let plan =
                plan.ok_or_else(|| CoordinatorError::Internal("a star has one shard".into()))?;
            Exchange::Star(HomeRun::new(plan, setup))
        } else {
            let setup = ShardsSetup {
                tag,
                hidden,
                rule,
                started_ns,
                deadline_ns,
                on_loss,
                names,
            };
            let shards =
                ranges
                    .into_iter()
                    .zip(plans)
                    .zip(&kept)
                    .map(|(((_, tokens), plan), kept)| Shard {
                        tokens,
                        kept: kept.clone(),
                        plan,
                        packed_ns: started_ns,
                        combined: None,
                    });
            Exchange::AllToAll(ShardsRun::new(shards.collect(), &setup))
        };
        Ok(Planned {
            kept,
            ledger,
            exchange,
        })
    }

    /// In `star` the coordinator is home: its shared expert runs while rows travel.
    fn start_shared(
        &self,
        x: &ArcArray2<f32>,
    ) -> Option<oneshot::Receiver<Result<SharedRows, CoordinatorError>>> {
        if self.config.exchange != ExchangeKind::Star || x.is_empty() {
            return None;
        }
        let expert = self.shared.clone()?;
        let (sender, rows) = oneshot::channel();
        let (x, wire) = (x.clone(), self.config.wire_dtype);
        self.compute.run(INLINE_NS + 1, move || {
            let _entered = debug_span!(spans::SHARED).entered();
            let started = monotonic_ns();
            let hidden = x.ncols();
            // Rows at home pass the wire's format like all others.
            let x = through_wire(x.as_slice().unwrap_or_default(), hidden, wire);
            let mut out = vec![0.0; x.len()];
            let outcome = expert.forward(&x, &mut out, &mut Scratch::default());
            let took = monotonic_ns() - started;
            let _ = sender.send(
                outcome
                    .map(|()| (out, took))
                    .map_err(CoordinatorError::from),
            );
        });
        Some(rows)
    }

    /// Outputs in token order: in short pieces between which the IO thread serves its sockets, or
    /// over the pool where that would take long.
    ///
    /// The rows have just come through this thread and its caches; another core would fetch them
    /// anew and wake this thread at the end, which costs more than a few pieces.
    async fn combine(
        &self,
        exchange: Exchange,
        tokens: usize,
        shared: Option<Vec<f32>>,
    ) -> Result<(Array2<f32>, Exchange), CoordinatorError> {
        let hidden = self.limits_hidden();
        let mut out = self.engine.take_output(tokens * hidden);
        let choices = tokens * self.gate.config().top_k;
        let cost_ns = ((choices + tokens) * hidden) as u64 / ADDS_PER_NS;
        let pieces = usize::try_from(cost_ns / INLINE_NS + 1).unwrap_or(usize::MAX);
        let span = debug_span!(spans::COMBINE);
        let internal = |error: String| CoordinatorError::Internal(error);
        let (out, exchange) = if pieces <= MOST_PIECES {
            let piece = tokens.div_ceil(pieces).max(1);
            for (at, rows) in out.chunks_mut(piece * hidden.max(1)).enumerate() {
                if at > 0 {
                    tokio::task::yield_now().await;
                }
                span.in_scope(|| {
                    combine_rows(&exchange, at * piece, rows, hidden, shared.as_deref())
                });
            }
            (out, exchange)
        } else {
            let (sender, combined) = oneshot::channel();
            self.compute.run(cost_ns, move || {
                let _entered = span.entered();
                for_each_row_block(&mut out, hidden, |first, rows| {
                    combine_rows(&exchange, first, rows, hidden, shared.as_deref());
                });
                let _ = sender.send((out, exchange));
            });
            combined
                .await
                .map_err(|error| internal(error.to_string()))?
        };
        let output = Array2::from_shape_vec((tokens, hidden), out);
        Ok((
            output.map_err(|error| internal(error.to_string()))?,
            exchange,
        ))
    }

    /// Choices computed by each worker.
    fn executed(&self, route: &Route, fates: &[Fate]) -> Vec<u64> {
        let mut counts = vec![0; self.endpoints.len() - 1];
        for (expert, fate) in route.experts.iter().zip(fates) {
            if let (Fate::Computed, Some(host)) = (fate, self.table.host(*expert)) {
                counts[host as usize - 1] += 1;
            }
        }
        counts
    }

    pub(crate) fn rule(&self) -> CombineRule {
        let router = self.gate.config();
        CombineRule {
            row_format: self.config.wire_dtype,
            dtype: router.dtype,
            weight_in_dtype: router.weight_dtype == WeightDtype::Model,
        }
    }

    fn limits_hidden(&self) -> usize {
        self.config.source.spec().hidden
    }

    fn layer(&self) -> u32 {
        self.config.source.spec().layer
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

fn through_wire(x: &[f32], hidden: usize, wire: Format) -> Vec<f32> {
    let mut x = x.to_vec();
    if wire != Format::F32 {
        let mut row_bytes = vec![0; hidden * wire.bytes()];
        for row in x.chunks_exact_mut(hidden.max(1)) {
            encode_row(wire, row, &mut row_bytes);
            decode_row(wire, &row_bytes, row);
        }
    }
    x
}

/// Combines the tokens from `first` on whose output rows are `rows`.
fn combine_rows(
    exchange: &Exchange,
    first: usize,
    rows: &mut [f32],
    hidden: usize,
    shared: Option<&[f32]>,
) {
    let tokens = first..first + rows.len() / hidden.max(1);
    match exchange {
        Exchange::Star(run) => {
            let shared = shared.map(|all| &all[tokens.start * hidden..tokens.end * hidden]);
            run.combine(tokens, rows, shared);
        }
        Exchange::AllToAll(run) => {
            for shard in &run.shards {
                let part = tokens.start.max(shard.tokens.start)..tokens.end.min(shard.tokens.end);
                if part.is_empty() {
                    continue;
                }
                let slot = &mut rows[(part.start - first) * hidden..(part.end - first) * hidden];
                let base = shard.tokens.start;
                match &shard.combined {
                    Some((combined, _)) => {
                        combined.outputs(part.start - base..part.end - base, slot);
                    }
                    None => slot.fill(0.0),
                }
            }
        }
        Exchange::Floor(_) => {}
    }
}

fn lost_origins(exchange: &Exchange, kept: &[KeptChoices]) -> Vec<u32> {
    match exchange {
        Exchange::Star(run) => {
            let origins = kept
                .first()
                .map(|kept| kept.origin.as_slice())
                .unwrap_or_default();
            run.lost()
                .into_iter()
                .map(|at| origins[at as usize])
                .collect()
        }
        Exchange::AllToAll(run) => run.lost_origins(),
        Exchange::Floor(_) => Vec::new(),
    }
}
