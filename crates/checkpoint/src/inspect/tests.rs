use expertmesh_routing::{GroupScore, Groups, Logits, Norm, RouterConfig, Score, Select};

use super::*;

#[test]
fn a_router_reads_as_a_sentence() {
    assert_eq!(
        words::gate(&RouterConfig::mixtral(8, 2, Format::F32), None),
        "logits in the model's format, softmax over all experts; the 2 highest by score; \
         weights divided by their sum, kept in f32"
    );
    assert_eq!(
        words::gate(&RouterConfig::olmoe(64, 8, false, Format::F32), None),
        "logits in the model's format, softmax over all experts; the 8 highest by score; \
         weights not normalised, in the model's format"
    );
    let grouped = RouterConfig {
        select: Select::ScorePlusBias,
        score: Score::Sigmoid { f32: true },
        groups: Some(Groups {
            n: 8,
            keep: 4,
            by: GroupScore::Sum2,
            fill: f32::NEG_INFINITY,
            weights_from_masked: false,
        }),
        norm: Norm::Sum { eps: 1e-20 },
        scale: 2.5,
        logits: Logits::F32,
        ..RouterConfig::mixtral(256, 8, Format::F32)
    };
    assert_eq!(
        words::gate(&grouped, None),
        "logits in f32, sigmoid of each; the 8 highest by score plus bias among the 4 groups of \
         8 with the two best experts; weights divided by their sum + 1e-20, times 2.5, kept in f32"
    );
}
