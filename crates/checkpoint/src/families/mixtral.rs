//! Mixtral and those with its names: MiniMax (the same block), Phi-MoE (another router).

use expertmesh_routing::{Norm, Post, RouterConfig, Score, Select, WeightDtype};

use super::common::{Common, FIELDS, MIXTRAL_NAMES};
use super::{Family, Model};
use crate::config::Config;
use crate::error::CheckpointError;
use crate::layout::Names;

pub(super) const FAMILIES: &[Family] = &[
    Family::new("mixtral", mixtral),
    // What differs is the residual, outside the block.
    Family::new("minimax", mixtral),
    Family::new("phimoe", phimoe),
];

/// Every layer has experts, gate weights stay in f32.
fn mixtral(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    Ok(common.model(common.router(), MIXTRAL_NAMES))
}

/// SparseMixer routing, which makes two choices and works in the model's format throughout.
fn phimoe(config: &Config) -> Result<Model, CheckpointError> {
    let common = Common::read(config, FIELDS)?;
    if common.top_k != 2 {
        let found = common.top_k.to_string();
        let expected = "2, the choices of a sparse mixer";
        return Err(config.wrong("num_experts_per_tok", found, expected));
    }
    let eps = config.number_or("router_jitter_noise", 0.01)?;
    if eps < 0.0 {
        return Err(config.wrong("router_jitter_noise", eps.to_string(), "0 or more"));
    }
    let router = RouterConfig {
        score: Score::None,
        select: Select::Logit,
        post: Post::SparseMixer { eps },
        norm: Norm::None,
        weight_dtype: WeightDtype::Model,
        ..common.router()
    };
    let names = Names {
        gate: &["gate.weight", "router.weight"],
        ..MIXTRAL_NAMES
    };
    Ok(common.model(router, names))
}
