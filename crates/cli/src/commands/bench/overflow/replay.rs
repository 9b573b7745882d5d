//! A synthetic layer whose gate repeats the choices of a trace, and the batches for it.

use std::path::Path;
use std::sync::Arc;

use expertmesh_bench::overflow::OverflowBatch;
use expertmesh_bench::trace::{ReadOptions, Record, Trace};
use expertmesh_bench::workload::{
    Replay as Steps, ReplayShape, ReplayedStep, WorkloadShape, steered_rows,
};
use expertmesh_checkpoint::{CheckpointError, LayerSource, LayerSpec};
use expertmesh_coordinator::{Replayed, StepInput};
use expertmesh_experts::{Expert, LatentProjections, SharedExpert, synthetic_gate};
use expertmesh_kernels::PackedMatrix;
use expertmesh_routing::{Gate, Kind, RouterConfig};
use ndarray::ArcArray2;

use crate::args::model::{Model, ModelArgs};
use crate::error::Failure;

/// A layer, and what is driven through it.
pub(super) struct Replay {
    pub(super) model: Model,
    pub(super) batches: Vec<OverflowBatch>,
    /// Where the batches are from.
    pub(super) name: String,
    pub(super) notes: Vec<String>,
}

/// A layer with the gate that [`Kind::Replay`] describes.
struct ReplayLayer {
    inner: Arc<dyn LayerSource>,
    spec: LayerSpec,
    /// `[E, H]`.
    gate: Vec<f32>,
}

/// Reads `file` for a layer of the trace's experts, and makes a batch of each of its first
/// `steps` steps.
pub(super) fn replay(
    file: &Path,
    layer: Option<u32>,
    model: &ModelArgs,
    steps: u64,
) -> Result<Replay, Failure> {
    let options = ReadOptions {
        experts: model
            .experts
            .and_then(|experts| u32::try_from(experts).ok()),
        ..ReadOptions::default()
    };
    let wrong = |error: &dyn std::fmt::Display| Failure::input(format!("--trace: {error}"));
    let trace = Trace::read_with(file, &options).map_err(|error| wrong(&error))?;
    let mut args = model.clone();
    let header = trace.header();
    agree("--experts", &mut args.experts, header.experts as usize)?;
    agree("--top-k", &mut args.top_k, header.top_k as usize)?;
    let mut model = args.resolve()?;
    let spec = model.source.spec();
    let gate = synthetic_gate(spec.experts, spec.hidden, model.seed, spec.layer);
    let shape = WorkloadShape {
        tokens: 0,
        hidden: spec.hidden,
        experts: spec.experts,
        top_k: spec.top_k,
    };
    let layer = match (
        layer,
        trace.records().iter().map(|record| record.layer).min(),
    ) {
        (Some(layer), _) => layer,
        (None, first) => first.unwrap_or_default(),
    };
    let records = trace
        .records()
        .iter()
        .filter(|record| record.layer == layer);
    let held = records.clone().count();
    if held == 0 {
        return Err(Failure::input(format!(
            "--trace-layer is {layer}, expected a layer that {} has",
            file.display()
        )));
    }
    let count = usize::try_from(steps).unwrap_or(usize::MAX).min(held);
    let replayed = ReplayShape {
        experts: spec.experts,
        top_k: spec.top_k,
        layer,
        from: Some(layer),
    };
    let replayed = Steps::new(&trace, "", &replayed).map_err(|error| wrong(&error))?;
    let batches = records.take(count).zip(0..).map(|(record, at)| {
        batch(record, replayed.step(at), shape, &gate, model.seed).map_err(|error| wrong(&error))
    });
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    let inner = Arc::clone(&model.source);
    let spec = LayerSpec {
        router: RouterConfig {
            kind: Kind::Replay,
            ..spec.router.clone()
        },
        ..spec.clone()
    };
    model.source = Arc::new(ReplayLayer { inner, spec, gate });
    let file = file.display();
    Ok(Replay {
        model,
        batches,
        name: format!("trace {file} layer {layer}"),
        notes: vec![format!(
            "trace: {count} of the {held} steps that {file} has of layer {layer}"
        )],
    })
}

/// Takes `held` for a flag that is not given, and refuses another value.
fn agree(flag: &str, given: &mut Option<usize>, held: usize) -> Result<(), Failure> {
    match *given.get_or_insert(held) {
        given if given == held => Ok(()),
        given => Err(Failure::input(format!(
            "{flag} is {given}, expected {held}, as the file of --trace says"
        ))),
    }
}

/// Rows that make the gate's logits fit the choices, and the choices to replay.
fn batch(
    record: &Record,
    step: &ReplayedStep,
    shape: WorkloadShape,
    gate: &[f32],
    seed: u64,
) -> Result<OverflowBatch, String> {
    let shape = WorkloadShape {
        tokens: step.tokens,
        ..shape
    };
    let rows = steered_rows(&record.experts, shape, gate, seed, record.step);
    let rows = rows.map_err(|error| error.to_string())?;
    let rows = ArcArray2::from_shape_vec((shape.tokens, shape.hidden), rows);
    Ok(OverflowBatch {
        rows: rows.map_err(|error| error.to_string())?,
        input: StepInput {
            padding: step.padding.clone(),
            replay: Some(Replayed {
                experts: step.experts.clone(),
                weights: step.weights.clone(),
            }),
            ..StepInput::default()
        },
    })
}

// === impl ReplayLayer ===

impl LayerSource for ReplayLayer {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        let LayerSpec {
            experts,
            hidden,
            router,
            layer,
            ..
        } = &self.spec;
        let weight = PackedMatrix::from_f32_as(router.dtype, &self.gate, *experts, *hidden);
        let weight = weight.map_err(|source| CheckpointError::Matrix {
            tensor: "synthetic gate".to_owned(),
            source,
        })?;
        Gate::new(router.clone(), weight, None, None).map_err(|source| CheckpointError::Gate {
            layer: *layer,
            source,
        })
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        self.inner.expert(expert)
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        self.inner.shared()
    }

    fn projections(&self) -> Result<Option<LatentProjections>, CheckpointError> {
        self.inner.projections()
    }
}
