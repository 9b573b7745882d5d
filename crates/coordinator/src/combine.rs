//! Results → outputs in token order, and the shared expert beside them.

use expertmesh_exchange::{Beside, ExchangeKind, KeptChoices, LossCause, OwnChoice};
use expertmesh_experts::pieces::{ADDS_PER_NS, INLINE_NS, MOST_PIECES};
use expertmesh_experts::{HomeRows, for_each_row_block};
use expertmesh_kernels::{Format, decode_row, encode_row, round_bf16};
use expertmesh_routing::SlotMix;
use expertmesh_telemetry::spans;
use expertmesh_transport::monotonic_ns;
use ndarray::{ArcArray2, Array2};
use tokio::sync::oneshot;
use tracing::debug_span;

use crate::connect::Coordinator;
use crate::engine::Exchange;
use crate::error::CoordinatorError;

/// Rows that the coordinator computed as a home, and how long they took, nanoseconds.
type OwnRows = (HomeRows, u64);

// === impl Coordinator ===

impl Coordinator {
    /// In `star` the coordinator is home: what a home computes itself runs while rows travel. Of a
    /// layer with latent rows the shared expert does, under any exchange. `x` are hidden states, `own`
    /// the choices of free experts.
    pub(crate) fn start_own(
        &self,
        x: &ArcArray2<f32>,
        own: Vec<OwnChoice>,
    ) -> Option<oneshot::Receiver<Result<OwnRows, CoordinatorError>>> {
        let here = self.config.exchange == ExchangeKind::Star || self.projections.is_some();
        if !here || x.is_empty() || self.home.is_empty() {
            return None;
        }
        let home = self.home.clone();
        let (sender, rows) = oneshot::channel();
        let (x, wire) = (x.clone(), self.config.wire_dtype);
        // Hidden states of a layer with latent rows never travel.
        let passes = match self.projections {
            None => wire,
            Some(_) => Format::F32,
        };
        self.compute.run(INLINE_NS + 1, move || {
            let _entered = debug_span!(spans::SHARED).entered();
            let started = monotonic_ns();
            let hidden = x.ncols();
            // Rows at home pass the wire's format like all others.
            let x = through_wire(x.as_slice().unwrap_or_default(), hidden, passes);
            let own = own.iter().map(|own| (own.token, own.expert));
            let outcome = home.run(&x, hidden, wire, own);
            let took = monotonic_ns() - started;
            let outcome = outcome.map(|rows| (rows, took));
            let _ = sender.send(outcome.map_err(CoordinatorError::from));
        });
        Some(rows)
    }

    /// Rows `[tokens, row width]` in token order, which are outputs unless they are latent: in short
    /// pieces between which the IO thread serves its sockets, or over the pool where that would take
    /// long.
    ///
    /// The rows have just come through this thread and its caches; another core would fetch them
    /// anew and wake this thread at the end, which costs more than a few pieces.
    pub(crate) async fn combine(
        &self,
        exchange: Exchange,
        tokens: usize,
        own: HomeRows,
    ) -> Result<(Array2<f32>, Exchange), CoordinatorError> {
        let hidden = self.row_width();
        let mut out = self.engine.take_output(tokens * hidden);
        let choices = tokens * self.decider.gate.config().top_k;
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
                span.in_scope(|| combine_rows(&exchange, at * piece, rows, hidden, &own));
            }
            (out, exchange)
        } else {
            let (sender, combined) = oneshot::channel();
            self.compute.run(cost_ns, move || {
                let _entered = span.entered();
                for_each_row_block(&mut out, hidden, |first, rows| {
                    combine_rows(&exchange, first, rows, hidden, &own);
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
}

// === mixing gates ===

impl Coordinator {
    /// Outputs of the batch's `tokens` from those of its slots, where a gate mixed tokens.
    pub(crate) async fn unmix(
        &self,
        output: Array2<f32>,
        mix: Option<SlotMix>,
        tokens: usize,
    ) -> Result<(Array2<f32>, Option<SlotMix>), CoordinatorError> {
        let Some(mix) = mix else {
            return Ok((output, None));
        };
        let hidden = self.hidden();
        let round = self.rule().dtype == Format::Bf16;
        let adds = (tokens * mix.slots * hidden) as u64;
        let (sender, mixed) = oneshot::channel();
        self.compute.run(adds / ADDS_PER_NS, move || {
            let slots = output.as_slice().unwrap_or_default();
            let mut out = Array2::zeros((tokens, hidden));
            let mut outcome = Ok(());
            if let Some(rows) = out.as_slice_mut() {
                outcome = mix.outputs(slots, hidden, 0..tokens, rows);
                if round {
                    round_bf16(rows);
                }
            }
            let _ = sender.send(outcome.map(|()| (out, mix)));
        });
        let mixed = mixed
            .await
            .map_err(|error| CoordinatorError::Internal(error.to_string()))?;
        let (out, mix) = mixed?;
        Ok((out, Some(mix)))
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
    own: &HomeRows,
) {
    let tokens = first..first + rows.len() / hidden.max(1);
    match exchange {
        Exchange::Star(run) => {
            let beside = Beside {
                shared: own.shared.as_deref(),
                own: &own.own,
            };
            run.combine(tokens, rows, beside);
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

/// Positions in the route of the choices that were lost.
pub(crate) fn lost_origins(exchange: &Exchange, kept: &KeptChoices) -> Vec<u32> {
    match exchange {
        Exchange::Star(run) => run
            .lost()
            .into_iter()
            .map(|at| kept.origin[at as usize])
            .collect(),
        Exchange::AllToAll(run) => run.lost_origins(),
        Exchange::Floor(_) => Vec::new(),
    }
}

/// Workers that the step went on without because they did not answer in time.
pub(crate) fn late(exchange: &Exchange) -> Vec<(u32, LossCause)> {
    match exchange {
        Exchange::Star(run) => run.late().collect(),
        Exchange::AllToAll(run) => run.late().collect(),
        Exchange::Floor(_) => Vec::new(),
    }
}
