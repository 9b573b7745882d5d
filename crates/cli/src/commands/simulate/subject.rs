//! Which layer is simulated: of a checkpoint, out of a seed, or of a published model.

use std::sync::Arc;

use expertmesh_bench::simulate::ModelPreset;
use expertmesh_checkpoint::{LayerSource, SyntheticLayer, SyntheticSpec};
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_routing::RouterPreset;
use expertmesh_simulator::Layer;
use expertmesh_telemetry::Shape;
use expertmesh_wire::{format_to_wire, v1};

use crate::args::model::Model;
use crate::commands::simulate::SimulateArgs;
use crate::error::Failure;

/// The layer, in the three forms that are asked for.
pub(super) struct Subject {
    pub(super) model: Model,
    pub(super) layer: Layer,
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) preset: Option<&'static ModelPreset>,
}

/// The layer that the flags name.
///
/// # Errors
/// [`Failure::Input`] for a checkpoint that cannot be used and a model that is not known.
pub(super) fn subject(args: &SimulateArgs) -> Result<Subject, Failure> {
    let wire_dtype = |dtype| args.step.wire_dtype.unwrap_or(dtype);
    let named = args.model.model.as_deref().filter(|path| !path.exists());
    if let Some(path) = named {
        let name = path.display().to_string();
        let Some(preset) = ModelPreset::named(&name) else {
            let known: Vec<&str> = ModelPreset::all().iter().map(|one| one.name).collect();
            return Err(Failure::input(format!(
                "--model is `{name}`, expected a directory of a checkpoint or one of {}",
                known.join(", ")
            )));
        };
        return of_preset(args, preset);
    }
    for (flag, given) in [
        ("--stage", args.stage.is_some()),
        ("--context", args.context.is_some()),
    ] {
        if given {
            return Err(Failure::input(format!(
                "{flag} is about a whole model; add --model with one of its names, such as \
                 deepseek-v3"
            )));
        }
    }
    let model: Model = args.model.resolve()?;
    let spec = model.source.spec();
    let wire_dtype = wire_dtype(model.dtype);
    Ok(Subject {
        layer: Layer::of(spec, wire_dtype),
        name: model.describe(),
        shape: model.shape(0, wire_dtype),
        preset: None,
        model,
    })
}

/// A model that has no weights: its gate chooses by drawn scores.
fn of_preset(args: &SimulateArgs, preset: &'static ModelPreset) -> Result<Subject, Failure> {
    if args.model.layer.is_some() {
        return Err(Failure::input(format!(
            "--layer is about a checkpoint, --model {} is known by its sizes alone; drop it",
            preset.name
        )));
    }
    let dtype = args.model.dtype.unwrap_or(Format::Bf16);
    let wire_dtype = args.step.wire_dtype.unwrap_or(dtype);
    let seed = args.model.seed.unwrap_or(0);
    let spec = SyntheticSpec {
        // No row is made: the gate's own weights are as small as they can be.
        hidden: 1,
        ffn: preset.ffn,
        experts: preset.experts,
        top_k: preset.top_k,
        kind: ExpertKind::Identity,
        seed,
        layer: 0,
        dtype,
    };
    let gate: RouterPreset = preset.gate.parse()?;
    let source: Arc<dyn LayerSource> = Arc::new(SyntheticLayer::new(spec)?.with_gate(&gate)?);
    Ok(Subject {
        layer: Layer {
            wire: wire_dtype,
            ..preset.layer(dtype)
        },
        model: Model {
            source,
            // No worker is told where weights are; the format is for the report.
            wire: v1::ModelSource {
                source: None,
                dtype: format_to_wire(dtype).into(),
            },
            dtype,
            seed,
        },
        name: preset.name.to_owned(),
        shape: Shape {
            tokens: 0,
            hidden: preset.hidden as u64,
            ffn: preset.ffn as u64,
            experts: preset.experts as u64,
            top_k: preset.top_k as u64,
            expert: preset.kind.to_string(),
            dtype: dtype.to_string(),
            wire_dtype: wire_dtype.to_string(),
        },
        preset: Some(preset),
    })
}
