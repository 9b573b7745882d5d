//! A tiny checkpoint of one family: what its configuration says and which tensors it has.

use std::fs;

use safetensors::Dtype;

use crate::common::Tensors;

pub(crate) const HIDDEN: usize = 8;
/// Inner size of an expert.
pub(crate) const FFN: usize = 4;
pub(crate) const EXPERTS: usize = 4;

pub(crate) const MLP: &str = "model.layers.1.mlp.";
pub(crate) const MIXTRAL: &str = "model.layers.1.block_sparse_moe.";
pub(crate) const FEED_FORWARD: &str = "model.layers.1.feed_forward.";
const ALL: [u32; 4] = [0, 1, 2, 3];

/// A model type, what its configuration says, and the tensors of its layer 1.
pub(crate) struct Kin {
    pub(crate) model_type: &'static str,
    pub(crate) config: String,
    pub(crate) prefix: &'static str,
    pub(crate) tensors: Vec<(String, Vec<usize>)>,
    /// The layers with experts, of four.
    pub(crate) moe_layers: Vec<u32>,
    /// Inner size of the shared expert.
    pub(crate) shared: Option<usize>,
}

impl Kin {
    pub(crate) fn new(model_type: &'static str, config: &str, prefix: &'static str) -> Self {
        Self {
            model_type,
            config: format!(
                r#""hidden_size": {HIDDEN}, "num_hidden_layers": 4, "num_experts_per_tok": 2 {config}"#
            ),
            prefix,
            tensors: Vec::new(),
            moe_layers: ALL.to_vec(),
            shared: None,
        }
    }

    /// As [`Kin::new`], with nothing said in advance.
    pub(crate) fn bare(model_type: &'static str, config: &str, prefix: &'static str) -> Self {
        let config = config.to_owned();
        Self {
            config,
            ..Self::new(model_type, "", prefix)
        }
    }

    pub(crate) fn after_dense(mut self, first: u32) -> Self {
        self.moe_layers.retain(|layer| *layer >= first);
        self
    }

    pub(crate) fn only(self, moe_layers: &[u32]) -> Self {
        let moe_layers = moe_layers.to_vec();
        Self { moe_layers, ..self }
    }

    pub(crate) fn nested(self) -> Self {
        let config = format!(r#""text_config": {{ {} }}"#, self.config);
        Self { config, ..self }
    }

    pub(crate) fn with(mut self, name: &str, shape: &[usize]) -> Self {
        self.tensors
            .push((format!("{}{name}", self.prefix), shape.to_vec()));
        self
    }

    pub(crate) fn gate(self, name: &str) -> Self {
        self.with(name, &[EXPERTS, HIDDEN])
    }

    pub(crate) fn bias(self, name: &str) -> Self {
        self.with(name, &[EXPERTS])
    }

    /// Each expert's matrices by name: those of `[FFN, HIDDEN]` first, then the other one.
    pub(crate) fn experts(mut self, wide: &[&str], narrow: &str) -> Self {
        for expert in 0..EXPERTS {
            for name in wide {
                let name = format!("experts.{expert}.{name}.weight");
                self = self.with(&name, &[FFN, HIDDEN]);
            }
            let name = format!("experts.{expert}.{narrow}.weight");
            self = self.with(&name, &[HIDDEN, FFN]);
        }
        self
    }

    pub(crate) fn projections(self) -> Self {
        self.experts(&["gate_proj", "up_proj"], "down_proj")
    }

    pub(crate) fn numbered(self) -> Self {
        self.experts(&["w1", "w3"], "w2")
    }

    pub(crate) fn shared(self, name: &str, ffn: usize) -> Self {
        let kin = self
            .with(&format!("{name}.gate_proj.weight"), &[ffn, HIDDEN])
            .with(&format!("{name}.up_proj.weight"), &[ffn, HIDDEN])
            .with(&format!("{name}.down_proj.weight"), &[HIDDEN, ffn]);
        Self {
            shared: Some(ffn),
            ..kin
        }
    }

    pub(crate) fn stacked_for_x_w(self, gate_up: &str, down: &str) -> Self {
        self.with(gate_up, &[EXPERTS, HIDDEN, 2 * FFN])
            .with(down, &[EXPERTS, FFN, HIDDEN])
    }

    pub(crate) fn write(&self, without: Option<&str>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            r#"{{"model_type": "{}", {}}}"#,
            self.model_type, self.config
        );
        fs::write(directory.path().join("config.json"), config).unwrap();
        let mut tensors = Tensors::default();
        let kept = self
            .tensors
            .iter()
            .filter(|(name, _)| Some(&name[..]) != without);
        for (at, (name, shape)) in kept.enumerate() {
            let values = (0..shape.iter().product()).map(|i: usize| (i * 7 + at) % 11);
            let data = values.flat_map(|v| (v as f32 / 8.0 - 0.6).to_le_bytes());
            let tensor = (Dtype::F32, shape.clone(), data.collect());
            tensors.0.insert(name.clone(), tensor);
        }
        tensors.write(&directory.path().join("model.safetensors"));
        directory
    }
}
