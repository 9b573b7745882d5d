//! One layer's names: which of a family's spellings its files have.

use super::network::Place;
use super::{Layout, Names, Network, Part, SharedLayout, Sizes, Stored};
use crate::store::Store;

/// A block's names once its prefix and spellings are known.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    prefix: String,
    names: Names,
    gate: &'static str,
    layout: Layout,
    selection: Option<&'static str>,
    has_shared: bool,
}

/// A shared expert's parts.
#[derive(Clone, Debug)]
pub(crate) enum SharedParts {
    /// A network, and its sigmoid gate `[1, H]`.
    Network(Box<Network>, Option<Part>),
    /// One row for every token.
    Constant(Part),
}

// === impl Block ===

impl Block {
    /// Finds out which of a family's spellings `layer` has in `store`. Where none is there it
    /// answers with the hub's, so that a message about a missing tensor names what users know.
    pub(crate) fn resolve(names: &Names, layer: u32, store: &Store) -> Self {
        let (prefixes, number) = match names.second {
            Some(second) if layer >= second.first => (second.prefixes, layer - second.first),
            _ => (names.prefixes, layer),
        };
        let numbered_layer = |prefix: &&str| prefix.replace("{layer}", &number.to_string());
        let here = |prefix: &str, tail: &str| store.contains(&join(prefix, tail));
        let has_gate = |prefix: &String| names.gate.iter().any(|gate| here(prefix, gate));
        let mut all = prefixes.iter().map(numbered_layer);
        let hub = all.next().unwrap_or_default();
        let prefix = if has_gate(&hub) {
            hub
        } else {
            all.find(has_gate).unwrap_or(hub)
        };
        let first_here = |tails: &'static [&'static str]| -> &'static str {
            let found = tails.iter().find(|tail| here(&prefix, tail));
            found.or(tails.first()).copied().unwrap_or_default()
        };
        let layout = |layout: &&Layout| here(&prefix, &numbered(layout.first_tensor(), 0));
        let layouts = names.experts;
        let layout = layouts.iter().find(layout).or(layouts.first());
        let has_shared = names.shared.is_some_and(|shared| {
            !shared.optional
                || shared
                    .layout
                    .tensors()
                    .iter()
                    .any(|tail| here(&prefix, tail))
        });
        Self {
            names: *names,
            gate: first_here(names.gate),
            layout: layout
                .copied()
                .unwrap_or(Layout::StackedMlp { up: "", down: "" }),
            selection: names.selection.map(|selection| first_here(selection.names)),
            has_shared,
            prefix,
        }
    }

    /// What every name of the block begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn name(&self, tail: &str) -> String {
        join(&self.prefix, tail)
    }

    /// The gate's matrix `[E, H]`.
    pub(crate) fn gate(&self, sizes: Sizes) -> Part {
        let (experts, hidden) = (sizes.experts, sizes.hidden);
        let part = Part::matrix(
            self.name(self.gate),
            experts,
            hidden,
            "[experts, hidden_size]",
        );
        Part {
            stored: kept(self.names.gate_f32),
            ..part
        }
    }

    /// The gate's bias `[E]`.
    pub(crate) fn gate_bias(&self, sizes: Sizes) -> Option<Part> {
        let name = self.names.gate_bias?;
        let part = Part::vector(self.name(name), sizes.experts, "[experts]");
        Some(Part {
            stored: kept(self.names.gate_f32),
            ..part
        })
    }

    /// The selection's bias, of E elements.
    pub(crate) fn selection(&self, sizes: Sizes) -> Option<Part> {
        let (names, name) = (self.names.selection?, self.selection?);
        let mut part = Part::vector(self.name(name), sizes.experts, "[experts]");
        if names.row {
            part.shape.insert(0, 1);
            part.meaning = "[1, experts]";
        }
        part.stored = kept(names.f32);
        Some(part)
    }

    /// Everything that the gate is made of.
    pub(crate) fn gate_parts(&self, sizes: Sizes) -> Vec<Part> {
        let biases = [self.gate_bias(sizes), self.selection(sizes)];
        let mut parts = vec![self.gate(sizes)];
        parts.extend(biases.into_iter().flatten());
        parts
    }

    /// The matrices of routed expert `expert`.
    pub(crate) fn expert(&self, expert: usize, sizes: Sizes) -> Network {
        let place = Place {
            expert,
            experts: sizes.routed(),
            hidden: sizes.row(),
            ffn: sizes.ffn,
        };
        Network::at(&self.layout, place, |tail| {
            self.name(&numbered(tail, expert))
        })
    }

    /// The projections `[latent, H]` and `[H, latent]` around the experts.
    pub(crate) fn latent(&self, sizes: Sizes) -> Option<[Part; 2]> {
        let (latent, hidden) = (sizes.latent?, sizes.hidden);
        let [into, out_of] = self.names.latent.map(|tail| self.name(tail));
        Some([
            Part::matrix(into, latent, hidden, "[latent size, hidden_size]"),
            Part::matrix(out_of, hidden, latent, "[hidden_size, latent size]"),
        ])
    }

    /// The parts of the shared expert of `ffn` units; `None` where there is none.
    pub(crate) fn shared(&self, hidden: usize, ffn: usize) -> Option<SharedParts> {
        let names = self.names.shared.filter(|_| self.has_shared)?;
        let wide = |tail| {
            let meaning = "[shared ffn size, hidden_size]";
            Part::matrix(self.name(tail), ffn, hidden, meaning)
        };
        let narrow = |tail| {
            let meaning = "[hidden_size, shared ffn size]";
            Part::matrix(self.name(tail), hidden, ffn, meaning)
        };
        let network = match names.layout {
            SharedLayout::Glu { gate, up, down } => {
                Network::gated(wide(gate), wide(up), narrow(down))
            }
            SharedLayout::Halves { gate_up, down } => {
                let half = |which: usize| Part {
                    shape: vec![2 * ffn, hidden],
                    meaning: "[2 * shared ffn size, hidden_size]",
                    skip: which * ffn.saturating_mul(hidden),
                    ..wide(gate_up)
                };
                Network::gated(half(0), half(1), narrow(down))
            }
            SharedLayout::Mlp { up, down } => Network::mlp(wide(up), narrow(down)),
            SharedLayout::Constant { row } => {
                let row = Part::vector(self.name(row), hidden, "[hidden_size]");
                return Some(SharedParts::Constant(row));
            }
        };
        let mix = names
            .mix
            .map(|tail| Part::matrix(self.name(tail), 1, hidden, "[1, hidden_size]"));
        Some(SharedParts::Network(Box::new(network), mix))
    }
}

// === impl SharedParts ===

impl SharedParts {
    pub(crate) fn all(&self) -> Vec<&Part> {
        match self {
            Self::Network(network, mix) => network.all().chain(mix).collect(),
            Self::Constant(row) => vec![row],
        }
    }
}

// === impl Layout ===

impl Layout {
    /// A tensor that files of this layout have and those of the others do not.
    fn first_tensor(&self) -> &'static str {
        match *self {
            Self::PerExpert { gate, .. } | Self::Rows { gate, .. } => gate,
            Self::PerExpertMlp { up, .. } | Self::StackedMlp { up, .. } => up,
            Self::Stacked { gate_up, .. } | Self::Transposed { gate_up, .. } => gate_up,
            Self::Mxfp4 { gate_up, .. } => gate_up[0],
        }
    }
}

// === impl SharedLayout ===

impl SharedLayout {
    fn tensors(&self) -> [&'static str; 2] {
        match *self {
            Self::Glu { gate, down, .. } => [gate, down],
            Self::Halves { gate_up, down } => [gate_up, down],
            Self::Mlp { up, down } => [up, down],
            Self::Constant { row } => [row, row],
        }
    }
}

fn kept(f32: bool) -> Stored {
    if f32 { Stored::KeptF32 } else { Stored::Plain }
}

/// The name of an expert's tensor.
fn numbered(name: &str, expert: usize) -> String {
    name.replace("{expert}", &expert.to_string())
}

/// The full name of a tensor: `tail` behind `prefix`, or beside the block after `../`.
fn join(prefix: &str, tail: &str) -> String {
    match tail.strip_prefix("../") {
        None => format!("{prefix}{tail}"),
        Some(tail) => {
            let parent = prefix.strip_suffix('.').unwrap_or(prefix);
            let parent = parent.rfind('.').map_or("", |dot| &parent[..=dot]);
            format!("{parent}{tail}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_go_up_one_part_of_the_prefix() {
        let prefix = "model.layers.3.block_sparse_moe.";
        assert_eq!(join(prefix, "gate.weight"), format!("{prefix}gate.weight"));
        let beside = "model.layers.3.shared_mlp.w";
        assert_eq!(join(prefix, "../shared_mlp.w"), beside);
        assert_eq!(join("mlp.", "../x"), "x");
    }
}
