//! Published models, as far as a simulation of their layers needs them.

use expertmesh_experts::{Activation, ExpertKind, ExpertSpec};
use expertmesh_kernels::Format;
use expertmesh_simulator::{Layer, NetworkShape};
use expertmesh_topology::Device;

#[cfg(test)]
mod tests;

/// Sizes of a model's layers. Figures are those of its `config.json` on the Hugging Face hub.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelPreset {
    /// Name in flags.
    pub name: &'static str,
    /// Layers with experts.
    pub layers: u32,
    /// Layers without, whose time is spread over the others.
    pub dense_layers: u32,
    /// Inner size of their network.
    pub dense_ffn: usize,
    /// Elements H of a token row.
    pub hidden: usize,
    /// Inner size F of an expert.
    pub ffn: usize,
    /// Routed experts E.
    pub experts: usize,
    /// Choices of a token k.
    pub top_k: usize,
    /// Kind of the experts.
    pub kind: ExpertKind,
    /// The gate, as `--gate` names it.
    pub gate: &'static str,
    /// Inner size of the shared expert; 0 for none.
    pub shared_ffn: usize,
    /// Weights of a layer's attention.
    pub attention: u64,
    /// Values that a token leaves in the cache of a layer.
    pub cache: u64,
    /// Elements of a query and of a value, summed over the heads: what a token multiplies with each
    /// token that it attends to.
    pub heads: u64,
    /// Tokens that every second layer looks back at; `None` where all layers see the whole context.
    pub window: Option<u64>,
    /// Where the sizes are from.
    pub source: &'static str,
}

/// What a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// One token of many sequences, each with so many tokens before it.
    Decode {
        /// Tokens in the cache of every sequence.
        context: u64,
    },
    /// Whole sequences: the tokens of a worker are one.
    Prefill,
}

const MIXTRAL: ModelPreset = ModelPreset {
    name: "mixtral-8x7b",
    layers: 32,
    dense_layers: 0,
    dense_ffn: 0,
    hidden: 4096,
    ffn: 14_336,
    experts: 8,
    top_k: 2,
    kind: ExpertKind::Swiglu,
    gate: "topk",
    shared_ffn: 0,
    attention: 2 * 4096 * 4096 + 2 * 4096 * 1024,
    cache: 2 * 1024,
    heads: 32 * (128 + 128),
    window: None,
    source: "mistralai/Mixtral-8x7B-v0.1",
};

/// Every model that is known.
const ALL: [ModelPreset; 6] = [
    MIXTRAL,
    ModelPreset {
        name: "qwen3-30b-a3b",
        layers: 48,
        hidden: 2048,
        ffn: 768,
        experts: 128,
        top_k: 8,
        attention: 2 * 2048 * 4096 + 2 * 2048 * 512,
        cache: 2 * 512,
        heads: 32 * (128 + 128),
        source: "Qwen/Qwen3-30B-A3B",
        ..MIXTRAL
    },
    ModelPreset {
        name: "olmoe",
        layers: 16,
        hidden: 2048,
        ffn: 1024,
        experts: 64,
        top_k: 8,
        attention: 4 * 2048 * 2048,
        cache: 2 * 2048,
        heads: 16 * (128 + 128),
        source: "allenai/OLMoE-1B-7B-0924",
        ..MIXTRAL
    },
    ModelPreset {
        name: "deepseek-v3",
        layers: 58,
        dense_layers: 3,
        dense_ffn: 18_432,
        hidden: 7168,
        ffn: 2048,
        experts: 256,
        top_k: 8,
        gate: "deepseek-v3:8,4",
        shared_ffn: 2048,
        // Latent attention: down and up projections of queries, keys and values, and the output.
        attention: 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168,
        cache: 576,
        heads: 128 * (192 + 128),
        source: "deepseek-ai/DeepSeek-V3",
        ..MIXTRAL
    },
    ModelPreset {
        name: "gpt-oss-120b",
        layers: 36,
        hidden: 2880,
        ffn: 2880,
        experts: 128,
        top_k: 4,
        attention: 2 * 2880 * 4096 + 2 * 2880 * 512,
        cache: 2 * 512,
        heads: 64 * (64 + 64),
        window: Some(128),
        source: "openai/gpt-oss-120b, biases and clamps left out",
        ..MIXTRAL
    },
    ModelPreset {
        name: "switch-base-128",
        layers: 12,
        dense_layers: 12,
        dense_ffn: 3072,
        hidden: 768,
        ffn: 3072,
        experts: 128,
        top_k: 1,
        kind: ExpertKind::Mlp,
        gate: "switch",
        attention: 4 * 768 * 768,
        cache: 2 * 768,
        heads: 12 * (64 + 64),
        source: "google/switch-base-128, every second layer of encoder and decoder",
        ..MIXTRAL
    },
];

// === impl ModelPreset ===

impl ModelPreset {
    /// Every model that is known.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// The model of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|one| one.name == name)
    }

    /// One of its layers, rows in `format`.
    pub fn layer(&self, format: Format) -> Layer {
        let network = |ffn| ExpertSpec {
            hidden: self.hidden,
            ffn,
            kind: self.kind,
            activation: Activation::Silu,
            dtype: format,
        };
        let mut layer = Layer::new(self.hidden, self.experts, self.top_k, network(self.ffn));
        layer.shared = (self.shared_ffn > 0).then(|| NetworkShape::of(&network(self.shared_ffn)));
        layer
    }

    /// What a worker that holds `tokens` tokens computes for each layer with experts besides them, ns:
    /// attention, and its share of the layers without experts. Weights are in `format`.
    ///
    /// Roofline of `device`: `max(flops / (peak · efficiency), bytes / (memory rate · 0.8))`. Operations
    /// are 2 for each weight and token and, in a prefill, 2 for each element of query and value and
    /// each pair of tokens that attention looks at: half of all pairs, causal (FlashAttention-2,
    /// arXiv 2307.08691, §4.1: 4 · sequence² · head size · heads, half of it with a causal mask). Bytes are
    /// the weights and, decoding, the caches of all sequences.
    #[allow(clippy::cast_sign_loss, reason = "what is cast is not below 0")]
    pub fn between_ns(&self, stage: Stage, tokens: usize, format: Format, device: &Device) -> u64 {
        let layers = f64::from(self.layers);
        let matrices = if self.kind == ExpertKind::Mlp { 2 } else { 3 };
        let dense = (matrices * self.hidden * self.dense_ffn) as f64;
        let extra = f64::from(self.dense_layers) / layers;
        let weights = self.attention as f64 * (1.0 + extra) + dense * extra;
        let (cached, pairs) = match stage {
            Stage::Decode { context } => (tokens as f64 * self.seen(context), 0.0),
            Stage::Prefill => (0.0, self.pairs(tokens as u64)),
        };
        let cached = cached * self.cache as f64 * (1.0 + extra);
        let attended = 2.0 * self.heads as f64 * pairs * (1.0 + extra);
        let flops = 2.0 * weights * tokens as f64 + attended;
        let flops = flops / (device.flops * device.efficiency);
        let bytes = (weights + cached) * format.bytes() as f64 / (device.memory_bytes_per_s * 0.8);
        (flops.max(bytes) * 1e9).round() as u64
    }

    /// Tokens that the next one of a sequence of `context` attends to, mean over layers.
    fn seen(&self, context: u64) -> f64 {
        let near = self.window.map_or(context, |window| window.min(context));
        (context + near) as f64 / 2.0
    }

    /// Pairs of tokens that attention looks at in a sequence of `tokens`, mean over layers.
    fn pairs(&self, tokens: u64) -> f64 {
        let tokens = tokens as f64;
        let all = tokens * tokens / 2.0;
        // All but the first `window` tokens see `window` tokens.
        let window = self
            .window
            .map_or(tokens, |window| tokens.min(window as f64));
        let near = tokens * window - window * window / 2.0;
        (all + near) / 2.0
    }
}
