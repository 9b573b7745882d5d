//! The block of each family against tensors that the reference implementation computed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use common::{FAMILIES, golden};
use expertmesh_checkpoint::{Checkpoint, LayerSource, TensorFile};
use expertmesh_experts::Scratch;
use expertmesh_kernels::{Format, bf16_round};
use expertmesh_routing::{Route, WeightDtype};

/// Layer 1 of a case, its input and what was expected of it.
struct Case {
    name: &'static str,
    layer: Box<dyn LayerSource>,
    x: Vec<f32>,
    tokens: usize,
    expected: TensorFile,
    dtype: Format,
}

impl Case {
    fn open(name: &'static str, dtype: Format) -> Self {
        let directory = golden(name);
        let checkpoint = Checkpoint::open(&directory).unwrap();
        let layer = checkpoint.layer(1, dtype).unwrap();
        let input = TensorFile::open(&directory.join("input.safetensors")).unwrap();
        let (shape, x) = input.f32("hidden_states").unwrap();
        assert_eq!(shape[2], layer.spec().hidden);
        let expected = TensorFile::open(&directory.join("expected.safetensors")).unwrap();
        Self {
            name,
            layer: Box::new(layer),
            x,
            tokens: shape[0] * shape[1],
            expected,
            dtype,
        }
    }

    fn expected(&self, tensor: &str) -> Vec<f32> {
        self.expected
            .f32(&format!("{}.{tensor}", self.dtype))
            .unwrap()
            .1
    }

    fn route(&self) -> Route {
        self.layer
            .gate()
            .unwrap()
            .route(&self.x, self.tokens, None)
            .unwrap()
    }

    /// The block one token and one choice at a time, in slot order.
    fn output(&self, route: &Route) -> Vec<f32> {
        let spec = self.layer.spec();
        let round = |value: f32| {
            if self.dtype == Format::Bf16 {
                bf16_round(value)
            } else {
                value
            }
        };
        let in_model_format = spec.router.weight_dtype == WeightDtype::Model;
        let experts: Vec<_> = (0..spec.experts)
            .map(|e| self.layer.expert(e).unwrap())
            .collect();
        let shared = self.layer.shared().unwrap();
        assert_eq!(shared.is_some(), spec.shared.is_some());
        let mut scratch = Scratch::default();
        let mut y = vec![0.0; spec.hidden];
        let mut output = Vec::new();
        for (token, x) in self.x.chunks_exact(spec.hidden).enumerate() {
            let mut row = vec![0.0; spec.hidden];
            for slot in token * spec.top_k..(token + 1) * spec.top_k {
                let expert = &experts[route.experts[slot] as usize];
                expert.forward(x, &mut y, &mut scratch).unwrap();
                for (sum, y) in row.iter_mut().zip(&y) {
                    let product = route.weights[slot] * y;
                    *sum += if in_model_format {
                        round(product)
                    } else {
                        product
                    };
                }
            }
            row.iter_mut().for_each(|value| *value = round(*value));
            if let Some(shared) = &shared {
                shared.forward(x, &mut y, &mut scratch).unwrap();
                row.iter_mut()
                    .zip(&y)
                    .for_each(|(sum, y)| *sum = round(*sum + y));
            }
            output.extend(row);
        }
        output
    }

    /// The largest distance between the expected weight of a choice and the route's, after
    /// checking that every token chose the expected experts.
    fn weight_error(&self, route: &Route) -> f32 {
        let (shape, index) = self
            .expected
            .i64(&format!("{}.topk_index", self.dtype))
            .unwrap();
        assert_eq!(shape, [self.tokens, route.top_k]);
        let weight = self.expected("topk_weight");
        let mut worst = 0f32;
        for token in 0..self.tokens {
            let slots = token * route.top_k..(token + 1) * route.top_k;
            let mut got: Vec<_> = slots
                .clone()
                .map(|slot| (i64::from(route.experts[slot]), route.weights[slot]))
                .collect();
            got.sort_by_key(|choice| choice.0);
            for (slot, (expert, value)) in slots.zip(got) {
                assert_eq!(expert, index[slot], "{} token {token}", self.name);
                worst = worst.max((value - weight[slot]).abs() / weight[slot]);
            }
        }
        worst
    }
}

/// The largest absolute difference over the largest absolute expected value.
fn relative(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |a, b| a.max(b.abs()));
    let difference = largest(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    assert!(difference.is_finite());
    difference / largest(&mut expected.iter().copied())
}

fn equal_share(got: &[f32], expected: &[f32]) -> f64 {
    let equal = got
        .iter()
        .zip(expected)
        .filter(|(a, b)| a.to_bits() == b.to_bits())
        .count();
    equal as f64 / expected.len() as f64
}

#[test]
fn f32_agrees_with_the_reference() {
    for name in FAMILIES {
        let case = Case::open(name, Format::F32);
        let route = case.route();
        let weights = case.weight_error(&route);
        let logits = relative(&route.logits, &case.expected("router_logits"));
        let output = case.output(&route);
        let error = relative(&output, &case.expected("output_grouped_mm"));
        println!("{name} f32: weights {weights:.1e}, logits {logits:.1e}, output {error:.1e}");
        assert!(weights <= 1e-6, "{name}: weights {weights:e}");
        assert!(logits <= 1e-6, "{name}: logits {logits:e}");
        assert!(error <= 2e-5, "{name}: output {error:e}");
    }
}

#[test]
fn bf16_agrees_with_the_reference_almost_bit_for_bit() {
    for name in FAMILIES {
        let case = Case::open(name, Format::Bf16);
        let route = case.route();
        let weights = case.weight_error(&route);
        let logits = equal_share(&route.logits, &case.expected("router_logits"));
        let (output, expected) = (case.output(&route), case.expected("output_grouped_mm"));
        let error = relative(&output, &expected);
        let share = equal_share(&output, &expected);
        println!(
            "{name} bf16: weights {weights:.1e}, logits {:.2} % equal, output {error:.1e}, \
             {:.2} % equal",
            100.0 * logits,
            100.0 * share
        );
        assert!(weights <= 1e-6, "{name}: weights {weights:e}");
        assert_eq!(logits, 1.0, "{name}: share of equal logits");
        assert!(error <= 3e-2, "{name}: output {error:e}");
        assert!(share >= 0.99, "{name}: {share} of the outputs are equal");
    }
}

#[test]
fn an_input_holds_masks_and_a_missing_tensor_is_named() {
    let input = TensorFile::open(&golden("mixtral").join("input.safetensors")).unwrap();
    let (shape, mask) = input.mask("attention_mask").unwrap();
    assert_eq!(shape, [2, 12]);
    assert!(mask.contains(&true));
    assert_eq!(
        input.names().collect::<Vec<_>>(),
        ["attention_mask", "hidden_states"]
    );
    assert_eq!(input.shape("hidden_states").unwrap(), [2, 12, 32]);
    let missing = input.f32("hidden").unwrap_err().to_string();
    assert!(
        missing.contains("tensor \"hidden\" is missing from "),
        "{missing}"
    );
    let dtype = input.f32("attention_mask").unwrap_err().to_string();
    assert!(dtype.ends_with("is I64, expected F32 or BF16"), "{dtype}");
    let dtype = input.mask("hidden_states").unwrap_err().to_string();
    assert!(
        dtype.ends_with("is F32, expected I64, I32, U8 or BOOL"),
        "{dtype}"
    );
}
