//! A layer with latent rows: the golden case of Nemotron-H with a latent size, and what the model
//! computes of it, in the model's own order of sums. Tests of crates that may not depend on this one
//! read the file by its path.

use std::collections::BTreeMap;
use std::path::Path;

use expertmesh_checkpoint::{NamedTensor, TensorData, TensorFile, write};
use expertmesh_kernels::{Format, bf16_round};

/// What every tensor of the layer begins with.
const PREFIX: &str = "backbone.layers.1.mixer.";
const EXPERTS: usize = 8;
const FFN: usize = 16;

/// The layer's tensors by name, without their prefix.
pub struct LatentCase {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Reproducible weights, exact in bf16, for matrices with so many inputs.
fn weights(shape: [usize; 2], seed: usize) -> Vec<f32> {
    let bound = 1.5 / (shape[1] as f32).sqrt();
    (0..shape[0] * shape[1])
        .map(|i| {
            let noise = (i * 7919 + seed * 104_729 + i * i * 31) % 2003;
            bf16_round((noise as f32 / 1001.0 - 1.0) * bound)
        })
        .collect()
}

// === impl LatentCase ===

impl LatentCase {
    /// Length of hidden states.
    pub const HIDDEN: usize = 32;
    /// Length of latent rows.
    pub const LATENT: usize = 24;
    /// Choices of a token.
    pub const TOP_K: usize = 3;
    /// Number of the layer.
    pub const LAYER: u32 = 1;

    /// Makes the checkpoint in `directory` out of the golden one in `golden`: gate and shared expert
    /// are its own, the experts and their projections are made here.
    ///
    /// # Panics
    /// If the golden case cannot be read or the directory not written.
    pub fn write(golden: &Path, directory: &Path) -> Self {
        let file = TensorFile::open(&golden.join("model.safetensors")).expect("a golden file");
        let own = file.names().map(str::to_owned).collect::<Vec<_>>();
        let tensors = own
            .iter()
            .filter_map(|name| Some((name, name.strip_prefix(PREFIX)?)))
            .filter(|(_, short)| !short.starts_with("experts."))
            .map(|(name, short)| (short.to_owned(), file.f32(name).expect("a float tensor")));
        let mut tensors: BTreeMap<_, _> = tensors.collect();
        let mut put = |name: String, shape: [usize; 2], seed: usize| {
            tensors.insert(name, (shape.to_vec(), weights(shape, seed)));
        };
        let (hidden, latent) = (Self::HIDDEN, Self::LATENT);
        put("fc1_latent_proj.weight".to_owned(), [latent, hidden], 100);
        put("fc2_latent_proj.weight".to_owned(), [hidden, latent], 101);
        for expert in 0..EXPERTS {
            let name = |part: &str| format!("experts.{expert}.{part}.weight");
            put(name("up_proj"), [FFN, latent], expert);
            put(name("down_proj"), [latent, FFN], 50 + expert);
        }
        let names: Vec<String> = tensors.keys().map(|one| format!("{PREFIX}{one}")).collect();
        let named = names.iter().zip(tensors.values());
        let named = named.map(|(name, (shape, values))| NamedTensor {
            name,
            shape: shape.clone(),
            data: TensorData::F32(values),
        });
        let named: Vec<_> = named.collect();
        write(&directory.join("model.safetensors"), &named).expect("a checkpoint");
        let config = std::fs::read_to_string(golden.join("config.json")).expect("a configuration");
        let latent = format!("\"moe_latent_size\": {latent}");
        let changed = config.replace("\"moe_latent_size\": null", &latent);
        assert_ne!(changed, config, "the golden case has no latent size");
        std::fs::write(directory.join("config.json"), changed).expect("a configuration");
        Self { tensors }
    }

    /// The outputs `[tokens, hidden]` of `x` for the choices `experts` of weights `weights`
    /// `[tokens, top_k]`: sums in f64, rounded to `dtype` where the model stores them. The weighted sum
    /// over a token's experts is one of latent rows, and is rounded before it is projected.
    pub fn expected(&self, x: &[f32], experts: &[u32], weights: &[f32], dtype: Format) -> Vec<f32> {
        let round = |value: f64| match dtype {
            Format::F32 => value,
            Format::Bf16 => f64::from(bf16_round(value as f32)),
        };
        let linear = |x: &[f64], name: &str| -> Vec<f64> {
            let rows = self.tensors[name].1.chunks_exact(x.len());
            rows.map(|w| round(x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum()))
                .collect()
        };
        let network = |x: &[f64], name: &str| -> Vec<f64> {
            let up = linear(x, &format!("{name}.up_proj.weight"));
            let up: Vec<f64> = up.iter().map(|up| round(up.max(0.0).powi(2))).collect();
            linear(&up, &format!("{name}.down_proj.weight"))
        };
        let slots = (experts.chunks_exact(Self::TOP_K)).zip(weights.chunks_exact(Self::TOP_K));
        let mut output = Vec::with_capacity(x.len());
        for (x, (experts, weights)) in x.chunks_exact(Self::HIDDEN).zip(slots) {
            let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let latent = linear(&x, "fc1_latent_proj.weight");
            let mut sum = vec![0.0; Self::LATENT];
            for (expert, weight) in experts.iter().zip(weights) {
                let y = network(&latent, &format!("experts.{expert}"));
                let terms = sum.iter_mut().zip(y);
                terms.for_each(|(sum, y)| *sum += f64::from(*weight) * y);
            }
            sum.iter_mut().for_each(|sum| *sum = round(*sum));
            let routed = linear(&sum, "fc2_latent_proj.weight");
            let shared = network(&x, "shared_experts");
            let both = routed.iter().zip(shared);
            output.extend(both.map(|(routed, shared)| round(routed + shared) as f32));
        }
        output
    }
}
