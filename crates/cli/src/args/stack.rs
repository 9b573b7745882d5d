//! How many layers, and which tokens are in each: the stack, mixture-of-depths and early exit.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use expertmesh_experts::{SyntheticHead, synthetic_head};
use expertmesh_kernels::PackedMatrix;
use expertmesh_routing::{DepthRouter, ExitGate, ExitRule};

use crate::args::model::{Model, ModelArgs};
use crate::args::values::{at_least_one, parsed, push};
use crate::error::Failure;

/// Classes of the seeded exit head, where its rule is about classes. With two, both a probability
/// of 0.9 and an entropy of 0.5 nats are met by some hidden states and not by others.
const CLASSES: usize = 2;

/// The flags that make a stack of a layer; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Stack")]
pub(crate) struct StackArgs {
    /// Layers of the stack, each adding to the hidden states: of a checkpoint those with experts
    /// from --layer on [default: 1, which gives the layer's output as it is]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU32>)]
    pub(crate) layers: Option<NonZeroU32>,
    /// Mixture-of-depths: the share of the tokens that passes through each layer, above 0 and at
    /// most 1; the others go round it. Its routers are made from the seed
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) depth_capacity: Option<f64>,
    /// When a token leaves the stack: probability, gap, classifier or entropy and a threshold, such
    /// as entropy:0.5. The head is made from the seed, as a stand-in: checkpoints carry none
    #[arg(long, value_name = "RULE:THRESHOLD", value_parser = parsed::<ExitFlag>)]
    pub(crate) exit: Option<ExitFlag>,
}

/// An exit rule as a flag spells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExitFlag(ExitRule);

// === impl StackArgs ===

impl StackArgs {
    /// Opens every layer; weights stay where they are.
    ///
    /// # Errors
    /// What [`ModelArgs::resolve_at`] says, and `--exit` for a single layer.
    pub(crate) fn layers(&self, model: &ModelArgs) -> Result<Vec<Model>, Failure> {
        let count = self.layers.map_or(1, NonZeroU32::get);
        if let (Some(exit), 1) = (self.exit, count) {
            return Err(Failure::input(format!(
                "--exit {exit} has no meaning with one layer; add --layers 2 or more"
            )));
        }
        (0..count).map(|at| model.resolve_at(at)).collect()
    }

    /// Whether layers add to the hidden states.
    pub(crate) fn residual(&self) -> bool {
        self.layers.is_some_and(|layers| layers.get() > 1)
    }

    /// The router of mixture-of-depths of a layer, if there is one.
    ///
    /// # Errors
    /// What [`DepthRouter::new`] says.
    pub(crate) fn depth(&self, layer: &Model) -> Result<Option<Arc<DepthRouter>>, Failure> {
        let Some(capacity) = self.depth_capacity else {
            return Ok(None);
        };
        let spec = layer.source.spec();
        let head = SyntheticHead::Depth;
        let weight = synthetic_head(head, 1, spec.hidden, layer.seed, spec.layer);
        Ok(Some(Arc::new(DepthRouter::new(weight, capacity)?)))
    }

    /// The exit gate of a stack that begins with `first`, if it has one.
    ///
    /// # Errors
    /// What [`ExitGate::new`] says.
    pub(crate) fn exit(&self, first: &Model) -> Result<Option<Arc<ExitGate>>, Failure> {
        let Some(ExitFlag(rule)) = self.exit else {
            return Ok(None);
        };
        let hidden = first.source.spec().hidden;
        let classes = match rule {
            ExitRule::Classifier(_) => 1,
            _ => CLASSES,
        };
        let head = synthetic_head(SyntheticHead::Exit, classes, hidden, first.seed, 0);
        let head = PackedMatrix::from_f32(&head, classes, hidden).map_err(Failure::run)?;
        Ok(Some(Arc::new(ExitGate::new(head, None, rule)?)))
    }

    /// `model`, which is the name of the first layer, and what these flags add to it.
    pub(crate) fn describe(&self, mut model: String) -> String {
        let mut add = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                model.push_str(&format!(", {what}{value}"));
            }
        };
        let layers = self.layers.filter(|layers| layers.get() > 1);
        add("", layers.map(|layers| format!("{layers} layers")));
        add("depth ", self.depth_capacity.map(|share| share.to_string()));
        add("exit ", self.exit.map(|exit| exit.to_string()));
        model
    }

    /// The flags again, for a child process.
    pub(crate) fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        push(&mut argv, "--layers", self.layers);
        push(&mut argv, "--depth-capacity", self.depth_capacity);
        push(&mut argv, "--exit", self.exit);
        argv
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0 and at most 1, such as 0.125".to_owned()),
    }
}

// === impl ExitFlag ===

impl FromStr for ExitFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected a rule (probability, gap, classifier or entropy) and its \
                        threshold, such as probability:0.9";
        let (rule, threshold) = text.split_once(':').ok_or(expected)?;
        let threshold: f32 = threshold.parse().map_err(|_| expected)?;
        let (rule, most): (fn(f32) -> ExitRule, _) = match rule {
            "probability" => (ExitRule::Probability, 1.0),
            "gap" => (ExitRule::Gap, 1.0),
            "classifier" => (ExitRule::Classifier, 1.0),
            "entropy" => (ExitRule::Entropy, f32::MAX),
            _ => return Err(expected.to_owned()),
        };
        if threshold > 0.0 && threshold <= most {
            return Ok(Self(rule(threshold)));
        }
        Err(if most == 1.0 {
            "expected a threshold above 0 and at most 1, such as probability:0.9".to_owned()
        } else {
            "expected a threshold above 0, in nats, such as entropy:0.5".to_owned()
        })
    }
}

impl Display for ExitFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rule, threshold) = match self.0 {
            ExitRule::Probability(threshold) => ("probability", threshold),
            ExitRule::Gap(threshold) => ("gap", threshold),
            ExitRule::Classifier(threshold) => ("classifier", threshold),
            ExitRule::Entropy(threshold) => ("entropy", threshold),
        };
        write!(f, "{rule}:{threshold}")
    }
}
