//! The matrices of one expert in each layout.

use super::{Layout, Part, Stored};

/// Rows of a dimension that MXFP4 scales together.
const MX_BLOCK: usize = 32;

/// The matrices of one network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Absent in a network that is not gated.
    pub(crate) gate: Option<Part>,
    pub(crate) up: Part,
    pub(crate) down: Part,
    pub(crate) gate_bias: Option<Part>,
    pub(crate) up_bias: Option<Part>,
    pub(crate) down_bias: Option<Part>,
}

/// One expert among its layer's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) expert: usize,
    /// Experts with weights.
    pub(crate) experts: usize,
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
}

// === impl Network ===

impl Network {
    /// A gated network of three matrices.
    pub(crate) fn gated(gate: Part, up: Part, down: Part) -> Self {
        Self {
            gate: Some(gate),
            ..Self::mlp(up, down)
        }
    }

    /// A network of two matrices.
    pub(crate) fn mlp(up: Part, down: Part) -> Self {
        Self {
            gate: None,
            up,
            down,
            gate_bias: None,
            up_bias: None,
            down_bias: None,
        }
    }

    /// Every part, the large ones first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Part> {
        let matrices = self.gate.iter().chain([&self.up, &self.down]);
        let biases = [&self.gate_bias, &self.up_bias, &self.down_bias];
        matrices.chain(biases.into_iter().flatten())
    }

    /// The matrices of the expert at `place`; `name` completes a tensor's name.
    pub(crate) fn at(layout: &Layout, place: Place, name: impl Fn(&str) -> String) -> Self {
        let Place { hidden, ffn, .. } = place;
        let wide = |tail: &str| {
            let tensor = name(tail);
            Part::matrix(tensor, ffn, hidden, "[expert ffn size, hidden_size]")
        };
        let narrow = |tail: &str| {
            let tensor = name(tail);
            Part::matrix(tensor, hidden, ffn, "[hidden_size, expert ffn size]")
        };
        match *layout {
            Layout::PerExpert { gate, up, down } => Self::gated(wide(gate), wide(up), narrow(down)),
            Layout::PerExpertMlp { up, down, biases } => {
                let bias = |at: usize, len, meaning| {
                    biases.map(|biases| Part::vector(name(biases[at]), len, meaning))
                };
                Self {
                    up_bias: bias(0, ffn, "[expert ffn size]"),
                    down_bias: bias(1, hidden, "[hidden_size]"),
                    ..Self::mlp(wide(up), narrow(down))
                }
            }
            Layout::Stacked { gate_up, down } => {
                let half =
                    |which| place.stacked(name(gate_up), [2 * ffn, hidden], which * ffn, ffn);
                let down = place.stacked(name(down), [hidden, ffn], 0, hidden);
                Self::gated(half(0), half(1), down)
            }
            Layout::StackedMlp { up, down } => Self::mlp(
                place.stacked(name(up), [ffn, hidden], 0, ffn),
                place.stacked(name(down), [hidden, ffn], 0, hidden),
            ),
            Layout::Transposed {
                gate_up,
                down,
                interleaved,
                biases,
            } => {
                let columns = |which: usize| {
                    let (first, step) = if interleaved {
                        (which, 2)
                    } else {
                        (which * ffn, 1)
                    };
                    place.transposed(name(gate_up), [hidden, 2 * ffn], first, step, ffn)
                };
                let down = place.transposed(name(down), [ffn, hidden], 0, 1, hidden);
                let network = Self::gated(columns(0), columns(1), down);
                match biases {
                    Some(biases) => network.with_biases(place, biases.map(&name), interleaved),
                    None => network,
                }
            }
            Layout::Rows { gate, up, down } => {
                let rows = |tail: &str, out: usize, inner: usize, strides| Part {
                    tensor: name(tail),
                    shape: vec![place.experts * ffn, hidden],
                    meaning: "[experts * expert ffn size, hidden_size]",
                    stored: Stored::Plain,
                    skip: place.expert.saturating_mul(ffn).saturating_mul(hidden),
                    out,
                    inner,
                    strides,
                };
                Self::gated(
                    rows(gate, ffn, hidden, [hidden, 1]),
                    rows(up, ffn, hidden, [hidden, 1]),
                    rows(down, hidden, ffn, [1, hidden]),
                )
            }
            Layout::Mxfp4 {
                gate_up,
                down,
                biases,
            } => {
                let wide = |which| place.mxfp4(gate_up.map(&name), [2 * ffn, hidden], which, 2);
                let down = place.mxfp4(down.map(&name), [hidden, ffn], 0, 1);
                Self::gated(wide(0), wide(1), down).with_biases(place, biases.map(&name), true)
            }
        }
    }

    /// Adds the biases `[E, 2F]` and `[E, H]`.
    fn with_biases(self, place: Place, names: [String; 2], interleaved: bool) -> Self {
        let Place { ffn, hidden, .. } = place;
        let [gate_up, down] = names;
        let half = |which: usize| {
            let (first, step) = if interleaved {
                (which, 2)
            } else {
                (which * ffn, 1)
            };
            place.bias(gate_up.clone(), 2 * ffn, first, step, ffn)
        };
        Self {
            gate_bias: Some(half(0)),
            up_bias: Some(half(1)),
            down_bias: Some(place.bias(down, hidden, 0, 1, hidden)),
            ..self
        }
    }
}

// === impl Place ===

impl Place {
    /// `out` rows from `first` on of this expert's matrix in `[E, rows, inner]`.
    fn stacked(&self, tensor: String, each: [usize; 2], first: usize, out: usize) -> Part {
        let [rows, inner] = each;
        Part {
            tensor,
            shape: vec![self.experts, rows, inner],
            meaning: if out == rows {
                "[experts, outputs of an expert's matrix, its inputs]"
            } else {
                "[experts, 2 * expert ffn size, hidden_size]"
            },
            stored: Stored::Plain,
            skip: self.before(each) + first.saturating_mul(inner),
            out,
            inner,
            strides: [inner, 1],
        }
    }

    /// `out` columns from `first` on, `step` apart, of this expert's matrix in
    /// `[E, inner, columns]`.
    fn transposed(
        &self,
        tensor: String,
        each: [usize; 2],
        first: usize,
        step: usize,
        out: usize,
    ) -> Part {
        let [inner, columns] = each;
        Part {
            tensor,
            shape: vec![self.experts, inner, columns],
            meaning: if out == columns {
                "[experts, expert ffn size, hidden_size]"
            } else {
                "[experts, hidden_size, 2 * expert ffn size]"
            },
            stored: Stored::Plain,
            skip: self.before(each) + first,
            out,
            inner,
            strides: [step, columns],
        }
    }

    /// Rows `first`, `first + step`, … of this expert's matrix in MXFP4 blocks and scales.
    fn mxfp4(&self, names: [String; 2], each: [usize; 2], first: usize, step: usize) -> Part {
        let ([tensor, scales], [rows, inner]) = (names, each);
        Part {
            tensor,
            shape: vec![self.experts, rows, inner / MX_BLOCK, MX_BLOCK / 2],
            meaning: "[experts, outputs of an expert's matrix, its inputs / 32, 16]",
            stored: Stored::Mxfp4 { scales },
            skip: self.before(each) + first.saturating_mul(inner),
            out: rows / step,
            inner,
            strides: [step.saturating_mul(inner), 1],
        }
    }

    /// Elements `first`, `first + step`, … of this expert's row in `[E, width]`.
    fn bias(&self, tensor: String, width: usize, first: usize, step: usize, out: usize) -> Part {
        Part {
            tensor,
            shape: vec![self.experts, width],
            meaning: "[experts, outputs of an expert's matrix]",
            stored: Stored::Plain,
            skip: self.before([1, width]) + first,
            out,
            inner: 1,
            strides: [step, 1],
        }
    }

    /// Elements of the experts before this one, so many by so many each.
    fn before(&self, [rows, columns]: [usize; 2]) -> usize {
        self.expert.saturating_mul(rows).saturating_mul(columns)
    }
}
