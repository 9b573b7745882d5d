//! The shape of a layer: all that a simulation knows of its tensors.

use expertmesh_checkpoint::LayerSpec;
use expertmesh_exchange::Limits;
use expertmesh_experts::ExpertSpec;
use expertmesh_kernels::Format;

/// Sizes of a mixture-of-experts layer, and the rules that its plan follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Elements H of a token row.
    pub hidden: usize,
    /// Elements of the rows that experts work on and that travel, where the coordinator projects token
    /// rows into them and sums out of them.
    pub latent: Option<usize>,
    /// Routed experts, the free ones left out.
    pub experts: usize,
    /// Free experts: every home answers for them itself.
    pub free_experts: usize,
    /// Choices a token makes, k.
    pub top_k: usize,
    /// One routed expert.
    pub expert: NetworkShape,
    /// What every home computes for each of its tokens beside the exchange; with latent rows, what
    /// whoever has the token rows does.
    pub shared: Option<NetworkShape>,
    /// Format of rows on the wire.
    pub wire: Format,
    /// Format of outputs.
    pub dtype: Format,
    /// Every choice has a row of its own: gate weights multiply what experts are given.
    pub row_per_choice: bool,
    /// Choices are added up in the order of their experts.
    pub one_by_one: bool,
}

/// What a network costs to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkShape {
    /// Elements of a row that it is given.
    pub hidden: usize,
    /// Values between its layers; 0 where it has none.
    pub ffn: usize,
    /// Matrices: 3 for a gated network, 2 for an MLP, 0 for identity.
    pub matrices: usize,
    /// Floating-point operations for one row.
    pub flops_per_row: u64,
    /// Bytes of its weights.
    pub weight_bytes: u64,
}

// === impl Layer ===

impl Layer {
    /// A layer of plain experts with the limits of most: no shared or free experts, weights on
    /// outputs, rows and outputs in `format`.
    pub fn new(hidden: usize, experts: usize, top_k: usize, expert: ExpertSpec) -> Self {
        Self {
            hidden,
            latent: None,
            experts,
            free_experts: 0,
            top_k,
            expert: NetworkShape::of(&expert),
            shared: None,
            wire: expert.dtype,
            dtype: expert.dtype,
            row_per_choice: false,
            one_by_one: false,
        }
    }

    /// The shape of a described layer whose rows travel in `wire`.
    pub fn of(spec: &LayerSpec, wire: Format) -> Self {
        let shared = spec.shared.map(|shared| {
            let matrices = match shared.kind {
                expertmesh_checkpoint::SharedKind::Glu => 3,
                expertmesh_checkpoint::SharedKind::Mlp => 2,
                expertmesh_checkpoint::SharedKind::Constant => 0,
            };
            NetworkShape {
                hidden: spec.hidden,
                ffn: shared.ffn,
                matrices,
                flops_per_row: (2 * matrices * spec.hidden * shared.ffn) as u64,
                weight_bytes: spec.weights.shared.bytes,
            }
        });
        let expert = NetworkShape {
            weight_bytes: spec.weights.expert.bytes,
            ..NetworkShape::of(&spec.expert)
        };
        Self {
            hidden: spec.hidden,
            latent: spec.latent,
            experts: spec.experts - spec.free_experts,
            free_experts: spec.free_experts,
            top_k: spec.top_k,
            expert,
            shared,
            wire,
            dtype: spec.router.dtype,
            row_per_choice: spec.weight_on_input,
            one_by_one: spec.one_by_one,
        }
    }

    /// What bounds a chunk of at most `chunk_bytes` bytes.
    pub fn limits(&self, chunk_bytes: usize) -> Limits {
        Limits {
            row_bytes: self.row_bytes(),
            chunk_bytes,
            row_per_choice: self.row_per_choice,
        }
    }

    /// Elements of a row that travels.
    pub fn row_width(&self) -> usize {
        self.latent.unwrap_or(self.hidden)
    }

    /// Bytes of an encoded row.
    pub fn row_bytes(&self) -> usize {
        self.row_width() * self.wire.bytes()
    }

    /// Bytes of a combined row, as a home sends it back.
    pub fn output_row_bytes(&self) -> usize {
        self.row_width() * self.dtype.bytes()
    }

    /// Floating-point operations of one of the two projections around the experts for `tokens` tokens;
    /// 0 without latent rows.
    pub fn projection_flops(&self, tokens: u64) -> u64 {
        let latent = self.latent.unwrap_or_default();
        2 * tokens * (self.hidden * latent) as u64
    }
}

// === impl NetworkShape ===

impl NetworkShape {
    /// The shape of a described expert.
    pub fn of(spec: &ExpertSpec) -> Self {
        Self {
            hidden: spec.hidden,
            ffn: spec.ffn,
            matrices: spec.kind.matrices(),
            flops_per_row: spec.flops_per_row(),
            weight_bytes: spec.weight_bytes() as u64,
        }
    }
}
