//! Which layer: of a checkpoint, or out of a seed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use expertmesh_checkpoint::{Checkpoint, LayerSource, SyntheticLayer, SyntheticSpec};
use expertmesh_experts::ExpertKind;
use expertmesh_kernels::Format;
use expertmesh_routing::FreeExpert;
use expertmesh_telemetry::Shape;
use expertmesh_wire::{format_to_wire, v1};

use crate::args::values::{GateChoice, parsed, push, whole};
use crate::error::Failure;

/// Experts of a synthetic layer.
pub(crate) const EXPERTS: usize = 8;
/// Choices of a token in a synthetic layer.
pub(crate) const TOP_K: usize = 2;
/// Elements of a token row in a synthetic layer.
pub(crate) const HIDDEN: usize = 1024;
/// Inner size of a synthetic expert.
pub(crate) const FFN: usize = 2816;

/// The flags that say which layer. Absent ones are `None`, so that a command can tell what its
/// user asked for from what is usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Layer")]
pub(crate) struct ModelArgs {
    /// Directory of a Hugging Face checkpoint; without it the layer is made from the seed
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// Layer of the checkpoint, from 0
    #[arg(long, value_name = "N", requires = "model", value_parser = whole::<u32>)]
    pub(crate) layer: Option<u32>,
    /// Experts of the layer [default: 8]
    #[arg(long, value_name = "N", conflicts_with = "model", value_parser = whole::<usize>)]
    pub(crate) experts: Option<usize>,
    /// Experts that each token chooses [default: 2, or what the gate asks for]
    #[arg(long, value_name = "K", conflicts_with = "model", value_parser = whole::<usize>)]
    pub(crate) top_k: Option<usize>,
    /// Elements of a token row [default: 1024]
    #[arg(long, value_name = "H", conflicts_with = "model", value_parser = whole::<usize>)]
    pub(crate) hidden: Option<usize>,
    /// Inner size of an expert [default: 2816]
    #[arg(long, value_name = "F", conflicts_with = "model", value_parser = whole::<usize>)]
    pub(crate) ffn: Option<usize>,
    /// Kind of the experts: swiglu, mlp or identity [default: swiglu]
    #[arg(long, value_name = "KIND", conflicts_with = "model")]
    #[arg(value_parser = parsed::<ExpertKind>)]
    pub(crate) expert: Option<ExpertKind>,
    /// Rule that chooses experts, as NAME or NAME:ARG,ARG; `--gate help` lists them [default: topk]
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = parsed::<GateChoice>)]
    pub(crate) gate: Option<GateChoice>,
    /// Seed of weights, workload and shuffled placement [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Number format of weights and arithmetic: f32 or bf16 [default: f32]
    #[arg(long, value_name = "FORMAT", value_parser = parsed::<Format>)]
    pub(crate) dtype: Option<Format>,
}

/// A layer, ready to be read.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) source: Arc<dyn LayerSource>,
    /// The same layer as workers are told to load it.
    pub(crate) wire: v1::ModelSource,
    pub(crate) dtype: Format,
    pub(crate) seed: u64,
}

// === impl ModelArgs ===

impl ModelArgs {
    /// Opens the layer; weights stay where they are.
    ///
    /// # Errors
    /// [`Failure::Input`] for a checkpoint or a shape that cannot be used.
    pub(crate) fn resolve(&self) -> Result<Model, Failure> {
        self.resolve_at(0)
    }

    /// Opens the layer that is `at` layers with experts behind the one that the flags name.
    ///
    /// # Errors
    /// As [`Self::resolve`], and a checkpoint that ends before.
    pub(crate) fn resolve_at(&self, at: u32) -> Result<Model, Failure> {
        let dtype = self.dtype.unwrap_or(Format::F32);
        let seed = self.seed.unwrap_or(0);
        let (source, wire): (Arc<dyn LayerSource>, _) = match &self.model {
            Some(directory) => {
                let Some(layer) = self.layer else {
                    return Err(Failure::input(format!(
                        "--model is {}, expected --layer N beside it: one of its layers is run",
                        directory.display()
                    )));
                };
                let checkpoint = Checkpoint::open(directory)?;
                let layer = behind(&checkpoint, layer, at)?;
                // Workers run in directories of their own.
                let directory = directory.canonicalize().map_err(|error| {
                    Failure::input(format!("cannot open {}: {error}", directory.display()))
                })?;
                let wire = v1::CheckpointModel {
                    directory: directory.display().to_string(),
                    layer,
                };
                let wire = v1::model_source::Source::Checkpoint(wire);
                (Arc::new(checkpoint.layer(layer, dtype)?), wire)
            }
            None => {
                let spec = self.synthetic(dtype, seed, at);
                let wire = v1::SyntheticModel {
                    hidden: narrow("hidden", spec.hidden)?,
                    ffn: narrow("ffn", spec.ffn)?,
                    experts: narrow("experts", spec.experts)?,
                    top_k: narrow("top-k", spec.top_k)?,
                    expert: spec.kind.to_string(),
                    seed,
                    free: Vec::new(),
                    layer: spec.layer,
                };
                let mut layer = SyntheticLayer::new(spec)?;
                if let Some(GateChoice(preset)) = &self.gate {
                    layer = layer.with_gate(preset)?;
                }
                let router = &layer.spec().router;
                let wire = v1::SyntheticModel {
                    experts: narrow("experts", router.experts)?,
                    free: router.free.iter().map(|kind| free(*kind).into()).collect(),
                    ..wire
                };
                let wire = v1::model_source::Source::Synthetic(wire);
                (Arc::new(layer), wire)
            }
        };
        Ok(Model {
            source,
            wire: v1::ModelSource {
                source: Some(wire),
                dtype: format_to_wire(dtype).into(),
            },
            dtype,
            seed,
        })
    }

    /// The flags again, for a child process.
    pub(crate) fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        if let Some(directory) = &self.model {
            argv.extend(["--model".into(), directory.into()]);
        }
        push(&mut argv, "--layer", self.layer);
        push(&mut argv, "--experts", self.experts);
        push(&mut argv, "--top-k", self.top_k);
        push(&mut argv, "--hidden", self.hidden);
        push(&mut argv, "--ffn", self.ffn);
        push(&mut argv, "--expert", self.expert);
        push(&mut argv, "--gate", self.gate.as_ref());
        push(&mut argv, "--seed", self.seed);
        push(&mut argv, "--dtype", self.dtype);
        argv
    }

    fn synthetic(&self, dtype: Format, seed: u64, layer: u32) -> SyntheticSpec {
        SyntheticSpec {
            hidden: self.hidden.unwrap_or(HIDDEN),
            ffn: self.ffn.unwrap_or(FFN),
            experts: self.experts.unwrap_or(EXPERTS),
            top_k: self.top_k.unwrap_or_else(|| match &self.gate {
                Some(GateChoice(preset)) => preset.top_k(TOP_K),
                None => TOP_K,
            }),
            kind: self.expert.unwrap_or(ExpertKind::Swiglu),
            seed,
            layer,
            dtype,
        }
    }
}

fn free(kind: FreeExpert) -> v1::FreeExpert {
    match kind {
        FreeExpert::Null => v1::FreeExpert::Null,
        FreeExpert::Identity => v1::FreeExpert::Identity,
        FreeExpert::Constant => v1::FreeExpert::Constant,
    }
}

// === impl Model ===

impl Model {
    /// `synthetic`, or the family, the layer and the directory of a checkpoint.
    pub(crate) fn describe(&self) -> String {
        let spec = self.source.spec();
        match &self.wire.source {
            Some(v1::model_source::Source::Checkpoint(from)) => {
                format!("{} layer {} of {}", spec.family, spec.layer, from.directory)
            }
            _ => spec.family.clone(),
        }
    }

    /// Dimensions of the layer and of batches of `tokens` tokens.
    pub(crate) fn shape(&self, tokens: usize, wire_dtype: Format) -> Shape {
        let spec = self.source.spec();
        Shape {
            tokens: tokens as u64,
            hidden: spec.hidden as u64,
            ffn: spec.ffn as u64,
            experts: spec.experts as u64,
            top_k: spec.top_k as u64,
            expert: spec.expert.kind.to_string(),
            dtype: self.dtype.to_string(),
            wire_dtype: wire_dtype.to_string(),
        }
    }
}

/// The layer with experts that is `at` of them behind `first`.
fn behind(checkpoint: &Checkpoint, first: u32, at: u32) -> Result<u32, Failure> {
    if at == 0 {
        return Ok(first);
    }
    let rest = checkpoint.moe_layers().iter().filter(|one| **one >= first);
    let count = rest.clone().count();
    rest.copied().nth(at as usize).ok_or_else(|| {
        Failure::input(format!(
            "--layers asks for more than the {count} layers with experts that {} has from layer \
             {first} on",
            checkpoint.directory().display()
        ))
    })
}

fn narrow(flag: &str, value: usize) -> Result<u32, Failure> {
    u32::try_from(value).map_err(|_| {
        Failure::input(format!(
            "--{flag} is {value}, expected at most {}",
            u32::MAX
        ))
    })
}
