//! The model families: what a `config.json` of each means, and under which names its weights are.
//!
//! A family is a table entry and a function from its configuration to a [`Model`]. A new one adds
//! a module (or an entry in a kin's module) and its line in [`GROUPS`]; nothing else asks for a
//! model type. Semantics follow the `transformers` library, 5.x.

mod mixtral;
mod qwen;

use expertmesh_experts::{Activation, ExpertError, ExpertKind};
use expertmesh_kernels::Format;
use expertmesh_routing::RouterConfig;

use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::{Names, Sizes};
use crate::spec::SharedSpec;

/// Every group of families that share a module.
const GROUPS: &[&[Family]] = &[mixtral::FAMILIES, qwen::FAMILIES];

// Above every published model by orders of magnitude, and low enough that no product of three
// sizes and an element's bytes overflows 64 bits.
const MAX_SIZE: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 16;

/// One value of `model_type`.
pub(crate) struct Family {
    pub(crate) model_type: &'static str,
    /// Reads the family's fields.
    pub(crate) read: fn(&Config) -> Result<Model, CheckpointError>,
}

/// What a configuration says about its mixture-of-experts layers, the same for each of them.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) sizes: Sizes,
    pub(crate) layers: u32,
    /// Ascending.
    pub(crate) moe_layers: Vec<u32>,
    /// With `dtype` to be replaced by the one asked for.
    pub(crate) router: RouterConfig,
    pub(crate) kind: ExpertKind,
    pub(crate) activation: Activation,
    pub(crate) shared: Option<SharedSpec>,
    pub(crate) names: Names,
}

/// The model type of `config` and its meaning.
///
/// # Errors
/// No `model_type`, one that is not supported (the message lists those that are), or a field that
/// the family cannot use.
pub(crate) fn read(config: &Config) -> Result<(&'static str, Model), CheckpointError> {
    let found = config
        .text("model_type")?
        .ok_or_else(|| config.missing("model_type"))?;
    let family = GROUPS
        .iter()
        .flat_map(|group| group.iter())
        .find(|family| family.model_type == found)
        .ok_or_else(|| config.wrong("model_type", format!("{found:?}"), one_of(&known())))?;
    Ok((family.model_type, (family.read)(config)?))
}

/// The supported values of `model_type`, in alphabetical order.
pub(crate) fn known() -> Vec<&'static str> {
    let all = GROUPS.iter().flat_map(|group| group.iter());
    let mut known: Vec<_> = all.map(|family| family.model_type).collect();
    known.sort_unstable();
    known
}

fn one_of(known: &[&str]) -> String {
    format!("one of {}", known.join(", "))
}

// === fields that families share ===

/// `hidden_size`, `num_hidden_layers`, the number of experts and of choices, and the experts'
/// inner size under `ffn`.
struct Common {
    sizes: Sizes,
    top_k: usize,
    layers: u32,
    activation: Activation,
}

fn common(config: &Config, ffn: &str) -> Result<Common, CheckpointError> {
    const EXPERTS: &[&str] = &["num_experts", "num_local_experts"];
    let experts = config.size(EXPERTS, MAX_SIZE)?;
    let top_k = config.size(&["num_experts_per_tok"], MAX_SIZE)?;
    if top_k > experts {
        let expected = format!("at most {experts}, the number of experts");
        return Err(config.wrong("num_experts_per_tok", top_k.to_string(), expected));
    }
    let sizes = Sizes {
        hidden: config.size(&["hidden_size"], MAX_SIZE)?,
        ffn: config.size(&[ffn], MAX_SIZE)?,
        experts,
    };
    let layers = config.size(&["num_hidden_layers"], MAX_LAYERS)?;
    let layers = u32::try_from(layers).unwrap_or(u32::MAX);
    Ok(Common {
        sizes,
        top_k,
        layers,
        activation: activation(config, "hidden_act")?,
    })
}

/// The activation that `field` names, spelled as in published configurations; silu where it is absent.
fn activation(config: &Config, field: &str) -> Result<Activation, CheckpointError> {
    let found = config.text(field)?.unwrap_or("silu");
    found.parse().map_err(|error| match error {
        ExpertError::UnknownName { expected, .. } => {
            config.wrong(field, format!("{found:?}"), format!("one of {expected}"))
        }
        other => config.wrong(field, format!("{found:?}"), other.to_string()),
    })
}

/// The number format of a model's router before one is asked for.
const ANY_DTYPE: Format = Format::F32;

#[cfg(test)]
mod tests;
