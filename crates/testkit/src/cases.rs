//! The list of the committed cases. Tests of crates that may not depend on this one read the file by
//! its path, so it uses nothing.

/// The committed cases, most of them a family each.
pub const CASES: [&str; 23] = [
    "dbrx",
    "deepseek_v2_greedy",
    "deepseek_v3",
    "ernie4_5_moe",
    "glm4_moe",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "granitemoe",
    "hunyuan_v1_moe",
    "jamba",
    "jetmoe",
    "lfm2_moe",
    "llama4",
    "minimax_m2",
    "mixtral",
    "nemotron_h",
    "nllb_moe",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_next",
    "switch_transformers",
];

/// Those of them whose layer has a capacity of its own or weights on the input: a plain run has
/// other fates or other sums than choices and weights tell.
pub const SPECIAL: [&str; 3] = ["llama4", "nllb_moe", "switch_transformers"];

/// The layer of a case that has experts.
#[must_use]
pub fn golden_layer(case: &str) -> u32 {
    u32::from(case != "nllb_moe")
}
