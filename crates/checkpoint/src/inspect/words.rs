//! Gates and experts in words.

use expertmesh_experts::Clamp;
use expertmesh_routing::{
    GroupScore, Groups, Logits, ModelCapacity, Norm, Post, RouterConfig, Score, Select,
    Top2Capacity, WeightDtype,
};

use crate::families::{Form, Model};
use crate::layout::Sizes;

/// A router, with the model's own capacity rule, as a sentence.
pub(super) fn gate(router: &RouterConfig, capacity: Option<&ModelCapacity>) -> String {
    let logits = match router.logits {
        Logits::Model => "logits in the model's format",
        Logits::ModelThenF32 => "logits in the model's format, continued in f32",
        Logits::F32 => "logits in f32",
    };
    let capped = router
        .softcap
        .map_or(String::new(), |cap| format!(", capped softly at {cap}"));
    let score = match router.score {
        Score::None => "",
        Score::Softmax { .. } => ", softmax over all experts",
        Score::Sigmoid { .. } => ", sigmoid of each",
        Score::SqrtSoftplus => ", square root of softplus of each",
    };
    let key = match router.select {
        Select::Score => "score",
        Select::ScorePlusBias => "score plus bias",
        Select::Logit => "logit",
        Select::SecondByLogit => "score, the second by logit",
    };
    let groups = router
        .groups
        .map_or(String::new(), |Groups { n, keep, by, .. }| {
            let by = match by {
                GroupScore::Max => "best expert",
                GroupScore::Sum2 => "two best experts",
                GroupScore::SumTop { .. } => "best experts",
            };
            format!(" among the {keep} groups of {n} with the {by}")
        });
    let post = match router.post {
        Post::None => "",
        Post::Softmax { .. } => ", softmax over those",
        Post::Sigmoid { .. } => ", sigmoid of those",
        Post::SparseMixer { .. } => ", each by a softmax over the experts near it",
    };
    let norm = match router.norm {
        Norm::None => "not normalised".to_owned(),
        Norm::Sum { eps: 0.0 } => "divided by their sum".to_owned(),
        Norm::Sum { eps } => format!("divided by their sum + {eps:e}"),
        Norm::ClampSum { min } => format!("divided by their sum, at least {min:e}"),
        Norm::PNorm { p } => format!("divided by their {p}-norm"),
    };
    let scale = match router.scale {
        1.0 => String::new(),
        scale => format!(", times {scale}"),
    };
    let format = match router.weight_dtype {
        WeightDtype::F32 => "kept in f32",
        WeightDtype::Model => "in the model's format",
    };
    let limit = capacity.map_or(String::new(), limit);
    format!(
        "{logits}{capped}{score}; the {} highest by {key}{groups}{post}; \
         weights {norm}{scale}, {format}{limit}",
        router.top_k
    )
}

/// A capacity rule as the end of that sentence.
fn limit(capacity: &ModelCapacity) -> String {
    match *capacity {
        ModelCapacity::PerSequence { capacity } => {
            format!("; an expert takes the first {capacity} tokens of a sequence")
        }
        ModelCapacity::Top2 {
            capacity,
            prioritised,
            norm_before_drop,
            drop_padding,
        } => {
            let count = match capacity {
                Top2Capacity::Fraction(fraction) => format!("{fraction} of a batch's tokens"),
                Top2Capacity::PerExpert => "twice its share of a batch's tokens".to_owned(),
                Top2Capacity::Fixed(count) => format!("{count} tokens of a batch"),
            };
            let order = if prioritised { "score" } else { "position" };
            let over = if norm_before_drop { "chosen" } else { "kept" };
            let padding = if drop_padding { "skipped" } else { "counted" };
            format!(
                "; an expert takes {count}, by {order}, second choices last; weights divided by \
                 the sum of those {over}, padding {padding}"
            )
        }
    }
}

/// What is special about a model's experts and the sum of their results.
pub(super) fn specials(model: &Model, sizes: Sizes) -> Vec<String> {
    let mut all = Vec::new();
    match model.form {
        Form::Glu { clamp, .. } => match clamp {
            Clamp::None => {}
            Clamp::Before { limit } => all.push(format!("gate and up limited to {limit}")),
            Clamp::After { limit } => {
                all.push(format!("activation and up limited to {limit}"));
            }
            Clamp::Swish { limit, alpha } => all.push(format!(
                "(up + 1) times gate times sigmoid({alpha} gate), limited to {limit}"
            )),
        },
        Form::Mlp { scale, .. } => {
            all.push("two layers, not gated".to_owned());
            if scale != 1.0 {
                all.push(format!("output times {scale}"));
            }
        }
    }
    if let Some(latent) = sizes.latent {
        all.push(format!(
            "experts work on rows of {latent} values, which travel; the coordinator projects hidden \
             states into them and sums out of them"
        ));
    }
    if sizes.free > 0 {
        all.push(format!("the last {} experts hand rows back", sizes.free));
    }
    if model.weight_on_input {
        all.push("gate weights multiply the experts' input".to_owned());
    }
    if model.routed_scale != 1.0 {
        let scale = model.routed_scale;
        all.push(format!("sum over the routed experts times {scale}"));
    }
    if !model.by_layer.is_empty() {
        all.push("sizes differ from layer to layer; the largest are shown".to_owned());
    }
    all
}
