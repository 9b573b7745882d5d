//! Where the matrices of a layer lie: tensor names, shapes, and the part that is one matrix.

use crate::store::Store;

/// The tensor names of a block. `{layer}` stands for the layer's number.
///
/// The `raw_` fields are what a raw state dict of transformers 5 has where it differs from the
/// hub's checkpoints; `save_pretrained` writes the hub's names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// What every name of the block begins with.
    pub(crate) prefix: &'static str,
    /// Used where the gate is not under `prefix`.
    pub(crate) raw_prefix: Option<&'static str>,
    /// The gate's weights `[E, H]`.
    pub(crate) gate: &'static str,
    /// How the experts are stored.
    pub(crate) experts: Layout,
    /// Used where the file has the first tensor of this one.
    pub(crate) raw_experts: Option<Layout>,
    /// The shared expert, where the family has one.
    pub(crate) shared: Option<SharedNames>,
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
    /// Two stacked tensors: `[E, 2F, H]`, an expert's gate rows before its up rows, and `[E, H, F]`.
    Stacked {
        gate_up: &'static str,
        down: &'static str,
    },
}

/// The tensor names of a shared expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedNames {
    pub(crate) gate: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    /// The sigmoid gate `[1, H]` on the shared expert's output.
    pub(crate) mix: Option<&'static str>,
}

/// The sizes that give the shapes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
    pub(crate) experts: usize,
}

/// One matrix `[out, inner]` in nn.Linear layout inside a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    /// The whole tensor's shape.
    pub(crate) shape: Vec<usize>,
    /// What the dimensions are, for messages: `[num_experts, hidden_size]`.
    pub(crate) meaning: &'static str,
    /// Elements of the tensor before the matrix.
    pub(crate) skip: usize,
    pub(crate) out: usize,
    pub(crate) inner: usize,
}

/// The three matrices of a SwiGLU expert.
#[derive(Clone, Debug)]
pub(crate) struct ExpertParts {
    pub(crate) gate: Part,
    pub(crate) up: Part,
    pub(crate) down: Part,
}

/// A block's names once its prefix and layout are known.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    prefix: String,
    names: Names,
    layout: Layout,
}

// === impl Part ===

impl Part {
    fn matrix(tensor: String, out: usize, inner: usize, meaning: &'static str) -> Self {
        Self {
            tensor,
            shape: vec![out, inner],
            meaning,
            skip: 0,
            out,
            inner,
        }
    }

    /// Elements of the matrix.
    pub(crate) fn elements(&self) -> u64 {
        elements(self.out, self.inner)
    }
}

/// `out * inner` as a parameter count; sizes are bounded where the configuration is read.
fn elements(out: usize, inner: usize) -> u64 {
    (out as u64).saturating_mul(inner as u64)
}

// === impl ExpertParts ===

impl ExpertParts {
    pub(crate) fn all(&self) -> [&Part; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

// === impl Block ===

impl Block {
    /// Finds out which of a family's spellings `layer` has in `store`. Where none is there it
    /// answers with the hub's, so that a message about a missing tensor names what users know.
    pub(crate) fn resolve(names: &Names, layer: u32, store: &Store) -> Self {
        let numbered_layer = |prefix: &str| prefix.replace("{layer}", &layer.to_string());
        let has_gate = |prefix: &String| store.contains(&format!("{prefix}{}", names.gate));
        let hub = numbered_layer(names.prefix);
        let raw = names.raw_prefix.map(numbered_layer);
        let prefix = if has_gate(&hub) {
            hub
        } else {
            raw.filter(has_gate).unwrap_or(hub)
        };
        let present = |layout: &Layout| {
            store.contains(&match layout {
                Layout::PerExpert { gate, .. } => numbered(&prefix, gate, 0),
                Layout::Stacked { gate_up, .. } => format!("{prefix}{gate_up}"),
            })
        };
        let layout = names.raw_experts.filter(present).unwrap_or(names.experts);
        Self {
            prefix,
            names: *names,
            layout,
        }
    }

    /// The gate's matrix `[E, H]`.
    pub(crate) fn gate(&self, sizes: Sizes) -> Part {
        let tensor = format!("{}{}", self.prefix, self.names.gate);
        Part::matrix(
            tensor,
            sizes.experts,
            sizes.hidden,
            "[experts, hidden_size]",
        )
    }

    /// The matrices of routed expert `expert`.
    pub(crate) fn expert(&self, expert: usize, sizes: Sizes) -> ExpertParts {
        let Sizes {
            hidden,
            ffn,
            experts,
        } = sizes;
        match self.layout {
            Layout::PerExpert { gate, up, down } => {
                let wide = |name| {
                    let tensor = numbered(&self.prefix, name, expert);
                    Part::matrix(tensor, ffn, hidden, "[expert ffn size, hidden_size]")
                };
                let tensor = numbered(&self.prefix, down, expert);
                ExpertParts {
                    gate: wide(gate),
                    up: wide(up),
                    down: Part::matrix(tensor, hidden, ffn, "[hidden_size, expert ffn size]"),
                }
            }
            Layout::Stacked { gate_up, down } => {
                let half = |which: usize| Part {
                    tensor: format!("{}{gate_up}", self.prefix),
                    shape: vec![experts, 2 * ffn, hidden],
                    meaning: "[experts, 2 * expert ffn size, hidden_size]",
                    skip: (2 * expert + which)
                        .saturating_mul(ffn)
                        .saturating_mul(hidden),
                    out: ffn,
                    inner: hidden,
                };
                ExpertParts {
                    gate: half(0),
                    up: half(1),
                    down: Part {
                        tensor: format!("{}{down}", self.prefix),
                        shape: vec![experts, hidden, ffn],
                        meaning: "[experts, hidden_size, expert ffn size]",
                        skip: expert.saturating_mul(hidden).saturating_mul(ffn),
                        out: hidden,
                        inner: ffn,
                    },
                }
            }
        }
    }

    /// The matrices of the shared expert of `ffn` units, and its sigmoid gate.
    pub(crate) fn shared(&self, hidden: usize, ffn: usize) -> Option<(ExpertParts, Option<Part>)> {
        let names = self.names.shared?;
        let name = |tail: &str| format!("{}{tail}", self.prefix);
        let wide = |tail| Part::matrix(name(tail), ffn, hidden, "[shared ffn size, hidden_size]");
        let parts = ExpertParts {
            gate: wide(names.gate),
            up: wide(names.up),
            down: Part::matrix(
                name(names.down),
                hidden,
                ffn,
                "[hidden_size, shared ffn size]",
            ),
        };
        let mix = names
            .mix
            .map(|tail| Part::matrix(name(tail), 1, hidden, "[1, hidden_size]"));
        Some((parts, mix))
    }
}

fn numbered(prefix: &str, name: &str, expert: usize) -> String {
    format!("{prefix}{}", name.replace("{expert}", &expert.to_string()))
}
