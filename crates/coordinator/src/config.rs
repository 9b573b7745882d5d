//! What a coordinator is told at its start.

use std::sync::Arc;
use std::time::Duration;

use expertmesh_checkpoint::{LayerSource, LayerSpec};
use expertmesh_exchange::{ExchangeKind, Groups, OnLoss, Target};
use expertmesh_kernels::Format;
use expertmesh_placement::Placement;
use expertmesh_routing::{
    BiasUpdate, CapacityConfig, DepthRouter, Kind, ModelCapacity, Overflow, WeightDtype,
};
use expertmesh_transport::LinkOptions;
use expertmesh_wire::v1;

use crate::error::CoordinatorError;

/// Everything that a coordinator's steps depend on.
#[derive(Clone)]
pub struct CoordinatorConfig {
    /// Name in logs.
    pub name: String,
    /// Addresses of the workers, `host:port`, in the order of their endpoint ids.
    pub workers: Vec<String>,
    /// Gate, shared expert and shape of the layer.
    pub source: Arc<dyn LayerSource>,
    /// The same layer as the workers are told to load it.
    pub model: v1::ModelSource,
    /// Which worker holds which expert.
    pub placement: Placement,
    /// How rows travel.
    pub exchange: ExchangeKind,
    /// `[workers]` the group of each, in `hierarchical`: a row goes to a group once; any numbers
    /// below that of the workers. Empty for the other kinds.
    pub groups: Vec<u32>,
    /// Format of rows on the wire.
    pub wire_dtype: Format,
    /// Capacity of the experts.
    pub capacity: CapacityConfig,
    /// Seed of everything random in gate and capacity.
    pub seed: u64,
    /// How a step moves the selection bias of its gate, if it does.
    pub bias_update: Option<BiasUpdate>,
    /// Whether gates draw noise, and experts have their capacity of training.
    pub training: bool,
    /// Which tokens pass through the layer; `None`: all of them. The others go round it.
    pub depth: Option<Arc<DepthRouter>>,
    /// Takes the choices from the layer's gate, whatever it is: [`Kind::Replay`],
    /// [`Kind::ForcedBalance`] or [`Kind::ForcedSkew`]; `None`: the gate chooses.
    pub force: Option<Kind>,
    /// What a lost worker means.
    pub on_loss: OnLoss,
    /// A step that takes longer ends.
    pub deadline: Duration,
    /// The longest frame that rows or results are cut to, bytes.
    pub chunk_bytes: usize,
    /// Chunks that a home may have under way at one host.
    pub credits: usize,
    /// Compute threads for the gate, the shared expert and large combines.
    pub threads: usize,
    /// HTTP/2 settings and limits.
    pub options: LinkOptions,
}

/// Values that most clusters need not change, each with its reason.
#[derive(Debug, Clone, Copy)]
pub struct Defaults;

// === impl Defaults ===

impl Defaults {
    /// A frame of this size fits one HTTP/2 DATA frame of 1 MiB, so it is written at once and
    /// arrives in one piece.
    pub const CHUNK_BYTES: usize = (1 << 20) - 1024;
    /// Two chunks keep a host busy while results travel; two more absorb a slow reply.
    pub const CREDITS: usize = 4;
    /// Longer than any step of a layer on a machine that works.
    pub const DEADLINE: Duration = Duration::from_secs(30);
}

// === impl CoordinatorConfig ===

impl CoordinatorConfig {
    /// Checks the fields against each other.
    ///
    /// # Errors
    /// [`CoordinatorError::Field`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<(), CoordinatorError> {
        let spec = self.source.spec();
        if self.workers.is_empty() {
            return Err(CoordinatorError::field("workers", 0, "at least 1 worker"));
        }
        if self.placement.workers() != self.workers.len() {
            let expected = format!("{}, the number of workers", self.workers.len());
            return Err(CoordinatorError::field(
                "placement workers",
                self.placement.workers(),
                expected,
            ));
        }
        if self.placement.experts() != spec.routed_experts() {
            let expected = format!("{}, the layer's routed experts", spec.routed_experts());
            return Err(CoordinatorError::field(
                "placement experts",
                self.placement.experts(),
                expected,
            ));
        }
        if self.credits == 0 {
            return Err(CoordinatorError::field(
                "credits",
                0,
                "at least 1 chunk under way",
            ));
        }
        if self.deadline.is_zero() {
            return Err(CoordinatorError::field(
                "deadline",
                "0 s",
                "a time greater than 0",
            ));
        }
        let row = expertmesh_wire::encoded_len(1 + spec.top_k, spec.row_width() * 4 * spec.top_k);
        let limit = self.options.max_message_bytes;
        if row > limit {
            let expected = format!(
                "rows whose {} results fit a message of {limit} bytes",
                spec.top_k
            );
            return Err(CoordinatorError::field(
                row_name(spec),
                spec.row_width(),
                expected,
            ));
        }
        if self.chunk_bytes > limit {
            let expected = format!("at most the message limit of {limit}");
            return Err(CoordinatorError::field(
                "chunk_bytes",
                self.chunk_bytes,
                expected,
            ));
        }
        self.check_groups(spec)?;
        self.check_bits(spec)?;
        self.check_own_rule(spec)?;
        if let Some(depth) = &self.depth
            && depth.hidden() != spec.hidden
        {
            let expected = format!("{}, the layer's", spec.hidden);
            return Err(CoordinatorError::field(
                "depth hidden",
                depth.hidden(),
                expected,
            ));
        }
        self.check_custom(spec)?;
        self.capacity.validate()?;
        Ok(())
    }

    /// Groups are there where they are used, and a row with the lists of a relay fits a message.
    fn check_groups(&self, spec: &LayerSpec) -> Result<(), CoordinatorError> {
        if self.exchange != ExchangeKind::Hierarchical {
            let expected = format!("no groups, because the exchange is {}", self.exchange);
            return match self.groups.len() {
                0 => Ok(()),
                held => Err(CoordinatorError::field("groups", held, expected)),
            };
        }
        if self.groups.len() != self.workers.len() {
            let expected = format!("{}, one for each worker", self.workers.len());
            let held = self.groups.len();
            return Err(CoordinatorError::field("groups", held, expected));
        }
        let groups = Groups::new(self.groups.clone());
        groups.map_err(|held| CoordinatorError::field("groups", held, "groups counted from 0"))?;
        // A part's head, a row number, a count and an expert for each choice.
        let words = 1 + spec.top_k * (5 + 3);
        let row = expertmesh_wire::encoded_len(words, spec.row_width() * 4 * spec.top_k);
        let limit = self.options.max_message_bytes;
        if row > limit {
            let expected = format!("rows that a relay passes on in a message of {limit} bytes");
            return Err(CoordinatorError::field(
                row_name(spec),
                spec.row_width(),
                expected,
            ));
        }
        Ok(())
    }

    /// What a layer brings that other options would contradict.
    fn check_own_rule(&self, spec: &LayerSpec) -> Result<(), CoordinatorError> {
        if let (Some(latent), 1..) = (spec.latent, spec.free_experts) {
            let held = format!("{} beside a latent size of {latent}", spec.free_experts);
            let expected = "none there, because a free expert answers with hidden states";
            return Err(CoordinatorError::field("free experts", held, expected));
        }
        let normalises = matches!(spec.capacity, Some(ModelCapacity::Top2 { .. }));
        if normalises && self.capacity.overflow != Overflow::Dropless {
            let expected = "dropless, because this family normalises its gate weights in a capacity \
                            rule of its own";
            let held = self.capacity.overflow;
            return Err(CoordinatorError::field("overflow", held, expected));
        }
        if spec.capacity.is_some() && self.depth.is_some() {
            let expected = "none, because the layer's own capacity rule counts every token";
            return Err(CoordinatorError::field("depth", "a router", expected));
        }
        if self.bias_update.is_some() && !spec.router.needs().selection_bias {
            let expected = "none, because the gate selects without a bias";
            return Err(CoordinatorError::field("bias_update", "a rate", expected));
        }
        let mixes = matches!(spec.router.kind, Kind::Soft { .. });
        if mixes && self.capacity.asks_for_logits() {
            let expected =
                "another policy, because the slots of soft MoE have no logits of their own";
            return Err(CoordinatorError::field(
                "overflow",
                self.capacity.overflow,
                expected,
            ));
        }
        if mixes && (spec.shared.is_some() || spec.weight_on_input) {
            let held = "a mixing gate with a shared expert or weights on the input";
            let expected = "a gate that routes tokens, because slots are not tokens";
            return Err(CoordinatorError::field("gate", held, expected));
        }
        Ok(())
    }

    /// Experts and replicas fit the words that plans and frames carry them in.
    fn check_bits(&self, spec: &LayerSpec) -> Result<(), CoordinatorError> {
        if spec.experts >= Target::EXPERTS {
            let expected = format!("fewer than {}", Target::EXPERTS);
            return Err(CoordinatorError::field("experts", spec.experts, expected));
        }
        let replicas = self.placement.entries().map(<[u32]>::len).max();
        match replicas {
            Some(replicas) if replicas > Target::REPLICAS => {
                let expected = format!("at most {} replicas of an expert", Target::REPLICAS);
                Err(CoordinatorError::field("placement", replicas, expected))
            }
            _ => Ok(()),
        }
    }

    /// What workers are told of a custom layer must be what its source says: they add up results
    /// by it.
    fn check_custom(&self, spec: &LayerSpec) -> Result<(), CoordinatorError> {
        let Some(v1::model_source::Source::Custom(custom)) = &self.model.source else {
            return Ok(());
        };
        let one_by_one = spec.one_by_one || spec.weight_on_input;
        if one_by_one || spec.routed_scale != 1.0 || spec.free_experts > 0 {
            let held = "a custom layer that is added up one by one, or with weights on the input, a \
                        scale or free experts";
            let expected = "one without, because its homes are told no more than its weights";
            return Err(CoordinatorError::field("model.custom", held, expected));
        }
        let weight_in_dtype = spec.router.weight_dtype == WeightDtype::Model;
        if custom.weight_in_dtype != weight_in_dtype {
            let expected = format!("{weight_in_dtype}, as the router's weight dtype says");
            let held = custom.weight_in_dtype;
            return Err(CoordinatorError::field(
                "model.custom.weight_in_dtype",
                held,
                expected,
            ));
        }
        if custom.hidden as usize != spec.row_width() {
            let expected = format!("{}, the length of the layer's rows", spec.row_width());
            let field = "model.custom.hidden";
            return Err(CoordinatorError::field(field, custom.hidden, expected));
        }
        if spec.shared.is_some() && spec.latent.is_none() && self.exchange.is_sharded() {
            return Err(CoordinatorError::field(
                "exchange",
                self.exchange,
                "star for a custom layer with a shared expert, which its homes do not have",
            ));
        }
        Ok(())
    }
}

/// Which size of the layer is the length of the rows that travel.
fn row_name(spec: &LayerSpec) -> &'static str {
    match spec.latent {
        None => "hidden",
        Some(_) => "latent",
    }
}
