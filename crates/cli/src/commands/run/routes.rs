//! `run --trace`: the choices of an earlier run, for the hidden states of this one.

use std::path::PathBuf;

use clap::Args;
use expertmesh_bench::workload::{ReplayShape, ReplayedStep};
use expertmesh_checkpoint::LayerSpec;
use expertmesh_wire::v1;
use v1::model_source::Source;

use crate::args::force::{ForceArgs, ForceFlag};
use crate::args::load::LoadArgs;
use crate::args::values::whole;
use crate::error::Failure;
use crate::tensors::Hidden;
use crate::traces::replay;

/// Flags about whose choices a run carries out.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Routes")]
pub(crate) struct RoutesArgs {
    /// Trace whose first step's choices, and weights where it has them, replace those of the
    /// gate; it must have the input's tokens, and the layer's experts and top-k. A coordinator
    /// that is up must have been started with --force-routes replay
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Layer of the trace [default: the layer's own number, or the only one that is there]
    #[arg(long, value_name = "N", requires = "trace", value_parser = whole::<u32>)]
    trace_layer: Option<u32>,
}

/// A layer that replays.
pub(super) struct Layer {
    shape: ReplayShape,
    is_synthetic: bool,
}

// === impl RoutesArgs ===

impl RoutesArgs {
    /// Whose choices the coordinator of a cluster of its own carries out.
    pub(super) fn force(&self) -> ForceArgs {
        ForceArgs {
            force_routes: self.trace.is_some().then_some(ForceFlag::Replay),
        }
    }

    /// The load that an exchange is chosen for: the choices where they are replayed, which have as
    /// many tokens as `input`.
    pub(super) fn load(&self, input: PathBuf) -> LoadArgs {
        LoadArgs {
            input: self.trace.is_none().then_some(input),
            trace: self.trace.clone(),
            trace_layer: self.trace_layer,
            ..LoadArgs::default()
        }
    }

    /// What is replayed, if anything is.
    ///
    /// # Errors
    /// [`Failure::Input`] for a trace that cannot be read, or that fits neither layer nor input.
    pub(super) fn read(
        &self,
        layer: &Layer,
        hidden: &Hidden,
    ) -> Result<Option<ReplayedStep>, Failure> {
        let Some(file) = &self.trace else {
            return Ok(None);
        };
        let shape = ReplayShape {
            from: self.trace_layer,
            ..layer.shape
        };
        let replay = replay(file, &shape, layer.is_synthetic)?;
        let step = replay.step(0);
        if step.tokens != hidden.tokens {
            return Err(Failure::input(format!(
                "trace {}: tokens of its first step is {}, expected {}, as {} has",
                file.display(),
                step.tokens,
                hidden.tokens,
                hidden.file.display()
            )));
        }
        Ok(Some(step.clone()))
    }

    /// Checks that a cluster that is up replays, if it is asked to.
    ///
    /// # Errors
    /// A sentence that says what its gate is.
    pub(super) fn agree(&self, cluster: &v1::ClusterReply) -> Result<(), String> {
        match &self.trace {
            Some(_) if cluster.gate != "replay" => Err(format!(
                "--trace brings choices, and the gate there is {}, expected one that was started \
                 with --force-routes replay",
                cluster.gate
            )),
            _ => Ok(()),
        }
    }

    /// What is driven through the layer, for reports.
    pub(super) fn name(&self, hidden: &Hidden) -> String {
        let input = hidden.file.display();
        match &self.trace {
            Some(trace) => format!("{input}, routes of {}", trace.display()),
            None => input.to_string(),
        }
    }
}

// === impl Layer ===

impl From<&LayerSpec> for Layer {
    fn from(spec: &LayerSpec) -> Self {
        Self {
            shape: ReplayShape {
                experts: spec.experts,
                top_k: spec.top_k,
                layer: spec.layer,
                from: None,
            },
            is_synthetic: spec.family == "synthetic",
        }
    }
}

impl From<&v1::ClusterReply> for Layer {
    fn from(cluster: &v1::ClusterReply) -> Self {
        let model = cluster.model.as_ref();
        let source = model.and_then(|model| model.source.as_ref());
        Self {
            shape: ReplayShape {
                experts: cluster.experts as usize,
                top_k: cluster.top_k as usize,
                layer: match source {
                    Some(Source::Checkpoint(from)) => from.layer,
                    Some(Source::Synthetic(spec)) => spec.layer,
                    Some(Source::Custom(_)) | None => 0,
                },
                from: None,
            },
            is_synthetic: matches!(source, Some(Source::Synthetic(_))),
        }
    }
}
