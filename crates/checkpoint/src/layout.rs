//! Where the matrices of a layer lie: tensor names, shapes, and the part that is one matrix.

mod block;
mod network;

pub(crate) use block::{Block, SharedParts};
pub(crate) use network::Network;

/// The tensor names of a block. Where several are listed, the first that the files have is used,
/// and the first of all where they have none: the hub's name comes first, then that of a raw state
/// dict of transformers 5, which `save_pretrained` does not write.
///
/// A name is relative to the block's prefix; a leading `../` goes up one part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// What every name of the block begins with. `{layer}` stands for the layer's number.
    pub(crate) prefixes: &'static [&'static str],
    /// The same for the second tower of a model that has two.
    pub(crate) second: Option<Tower>,
    /// The gate's weights `[E, H]`.
    pub(crate) gate: &'static [&'static str],
    /// The gate's bias `[E]`, added to the product.
    pub(crate) gate_bias: Option<&'static str>,
    /// Whether the gate's weights are F32 in a bf16 model too.
    pub(crate) gate_f32: bool,
    /// The bias of the selection.
    pub(crate) selection: Option<SelectionNames>,
    /// How the experts are stored.
    pub(crate) experts: &'static [Layout],
    /// The shared expert, where the family has one.
    pub(crate) shared: Option<SharedNames>,
    /// Projections into the experts' rows and out of them.
    pub(crate) latent: [&'static str; 2],
}

/// A decoder's blocks in a model that counts its encoder's layers first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tower {
    /// The number that its layer 0 has.
    pub(crate) first: u32,
    /// As [`Names::prefixes`].
    pub(crate) prefixes: &'static [&'static str],
}

/// The bias of a selection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SelectionNames {
    pub(crate) names: &'static [&'static str],
    /// Whether it is F32 in a bf16 model too.
    pub(crate) f32: bool,
    /// Whether it is stored `[1, E]` instead of `[E]`.
    pub(crate) row: bool,
}

/// How the routed experts of a block are stored. Chosen by the family, never by shapes: `[E, F, H]`
/// and `[E, H, F]` cannot be told apart when F = H.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// Three matrices an expert, `{expert}` in the name: gate and up `[F, H]`, down `[H, F]`.
    PerExpert {
        gate: &'static str,
        up: &'static str,
        down: &'static str,
    },
    /// Two matrices an expert, not gated: up `[F, H]`, down `[H, F]`, perhaps with biases.
    PerExpertMlp {
        up: &'static str,
        down: &'static str,
        biases: Option<[&'static str; 2]>,
    },
    /// Two stacked tensors: `[E, 2F, H]`, an expert's gate rows before its up rows, and `[E, H, F]`.
    Stacked {
        gate_up: &'static str,
        down: &'static str,
    },
    /// Two stacked tensors, not gated: `[E, F, H]` and `[E, H, F]`.
    StackedMlp {
        up: &'static str,
        down: &'static str,
    },
    /// Two stacked tensors as `x W` has them: `[E, H, 2F]`, gate columns before up columns or the
    /// two in turns, and `[E, F, H]`. Biases are `[E, 2F]`, in the same order, and `[E, H]`.
    Transposed {
        gate_up: &'static str,
        down: &'static str,
        interleaved: bool,
        biases: Option<[&'static str; 2]>,
    },
    /// Three tensors `[E F, H]`, expert after expert; the down matrix is stored transposed.
    Rows {
        gate: &'static str,
        up: &'static str,
        down: &'static str,
    },
    /// MXFP4 with gate and up rows in turns: blocks `[E, 2F, H/32, 16]` and scales `[E, 2F, H/32]`,
    /// blocks `[E, H, F/32, 16]` and scales `[E, H, F/32]`, biases as for
    /// [`Transposed`](Self::Transposed).
    Mxfp4 {
        gate_up: [&'static str; 2],
        down: [&'static str; 2],
        biases: [&'static str; 2],
    },
}

/// The tensor names of a shared expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedNames {
    pub(crate) layout: SharedLayout,
    /// The sigmoid gate `[1, H]` on the shared expert's output.
    pub(crate) mix: Option<&'static str>,
    /// Whether files may leave the shared expert out, because it lies beside the block.
    pub(crate) optional: bool,
}

/// How a shared expert is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SharedLayout {
    /// Gate and up `[S, H]`, down `[H, S]`.
    Glu {
        gate: &'static str,
        up: &'static str,
        down: &'static str,
    },
    /// `[2S, H]`, the gate's rows before those of up, and `[H, S]`.
    Halves {
        gate_up: &'static str,
        down: &'static str,
    },
    /// Up `[S, H]` and down `[H, S]`, not gated.
    Mlp {
        up: &'static str,
        down: &'static str,
    },
    /// One row `[H]`, the same for every token.
    Constant { row: &'static str },
}

/// The sizes that give the shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
    /// Logits of the gate: experts with weights and free ones.
    pub(crate) experts: usize,
    /// Experts past those with weights, which hand rows back.
    pub(crate) free: usize,
    /// Values of the rows that the experts work on, where projections lead to them.
    pub(crate) latent: Option<usize>,
}

/// How the elements of a part are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Numbers that are rounded to the model's format; or F8_E4M3 with scales beside them.
    Plain,
    /// Numbers that stay F32 in a bf16 model.
    KeptF32,
    /// MXFP4: 32 elements are 16 bytes, whose scale is in this tensor.
    Mxfp4 { scales: String },
}

/// One matrix `[out, inner]` in nn.Linear layout inside a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    /// The whole tensor's shape.
    pub(crate) shape: Vec<usize>,
    /// What the dimensions are, for messages: `[num_experts, hidden_size]`.
    pub(crate) meaning: &'static str,
    pub(crate) stored: Stored,
    /// Elements of the tensor before the matrix.
    pub(crate) skip: usize,
    pub(crate) out: usize,
    pub(crate) inner: usize,
    /// Elements of the tensor from one output to the next, and from one inner position to the next.
    pub(crate) strides: [usize; 2],
}

// === impl Sizes ===

impl Sizes {
    /// Experts with weights.
    pub(crate) fn routed(&self) -> usize {
        self.experts.saturating_sub(self.free)
    }

    /// Values of the rows that an expert works on.
    pub(crate) fn row(&self) -> usize {
        self.latent.unwrap_or(self.hidden)
    }
}

// === impl Part ===

impl Part {
    /// A tensor that is one matrix.
    pub(crate) fn matrix(tensor: String, out: usize, inner: usize, meaning: &'static str) -> Self {
        Self {
            tensor,
            shape: vec![out, inner],
            meaning,
            stored: Stored::Plain,
            skip: 0,
            out,
            inner,
            strides: [inner, 1],
        }
    }

    /// A tensor that is one vector `[len]`.
    pub(crate) fn vector(tensor: String, len: usize, meaning: &'static str) -> Self {
        Self {
            shape: vec![len],
            ..Self::matrix(tensor, len, 1, meaning)
        }
    }

    /// Whether the matrix is one run of elements in its own order.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.strides == [self.inner, 1]
    }

    /// Elements of the matrix.
    pub(crate) fn elements(&self) -> u64 {
        // Sizes are bounded where the configuration is read.
        (self.out as u64).saturating_mul(self.inner as u64)
    }
}
