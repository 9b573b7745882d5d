//! The block of each family against tensors that the reference implementation computed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod common;

use common::cases::{CASES, golden_layer};
use common::golden;
use expertmesh_checkpoint::{Checkpoint, Combine, LayerSource, TensorFile};
use expertmesh_experts::Scratch;
use expertmesh_kernels::{Format, bf16_round};
use expertmesh_routing::{Logits, ModelAdmission, ModelChoices, Route, WeightDtype};

/// One layer of a case, its input and what was expected of it.
struct Case {
    name: &'static str,
    layer: Box<dyn LayerSource>,
    x: Vec<f32>,
    tokens: usize,
    sequence: usize,
    padding: Option<Vec<bool>>,
    expected: TensorFile,
    dtype: Format,
}

impl Case {
    fn open(name: &'static str, dtype: Format) -> Self {
        let directory = golden(name);
        let checkpoint = Checkpoint::open(&directory).unwrap();
        let layer = checkpoint.layer(golden_layer(name), dtype).unwrap();
        let input = TensorFile::open(&directory.join("input.safetensors")).unwrap();
        let (shape, x) = input.f32("hidden_states").unwrap();
        assert_eq!(shape[2], layer.spec().hidden);
        let mask = || input.mask("padding_mask").unwrap().1;
        let expected = TensorFile::open(&directory.join("expected.safetensors")).unwrap();
        Self {
            name,
            layer: Box::new(layer),
            x,
            tokens: shape[0] * shape[1],
            sequence: shape[1],
            padding: input.contains("padding_mask").then(mask),
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

    /// One f32 sum over the slots, where the case has it.
    fn expected_output(&self) -> Vec<f32> {
        let grouped = format!("{}.output_grouped_mm", self.dtype);
        if self.expected.contains(&grouped) {
            self.expected("output_grouped_mm")
        } else {
            self.expected("output")
        }
    }

    fn route(&self) -> Route {
        self.layer
            .gate()
            .unwrap()
            .route(&self.x, self.tokens, None)
            .unwrap()
    }

    /// The route after the model's own capacity rule.
    fn admit(&self, route: &Route) -> ModelAdmission {
        let spec = self.layer.spec();
        let Some(capacity) = spec.capacity else {
            return ModelAdmission {
                capacity: u64::MAX,
                kept: vec![true; route.experts.len()],
                weights: route.weights.clone(),
            };
        };
        let choices = ModelChoices {
            experts_total: spec.experts,
            top_k: spec.top_k,
            sequence: self.sequence,
            experts: &route.experts,
            weights: &route.weights,
            padding: self.padding.as_deref(),
            dtype: self.dtype,
        };
        capacity.apply(&choices).unwrap()
    }

    fn round(&self, value: f32) -> f32 {
        match self.dtype {
            Format::F32 => value,
            Format::Bf16 => bf16_round(value),
        }
    }

    /// The block one token and one choice at a time: summed up in slot order and then rounded, or,
    /// `step_by_step`, in the order of the experts and rounded after each, as transformers' loops do.
    fn output(&self, route: &Route, admitted: &ModelAdmission, step_by_step: bool) -> Vec<f32> {
        let spec = self.layer.spec();
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
            let mut slots: Vec<_> = (token * spec.top_k..(token + 1) * spec.top_k).collect();
            if step_by_step {
                slots.sort_by_key(|slot| route.experts[*slot]);
            }
            for slot in slots {
                if !admitted.kept[slot] {
                    continue;
                }
                let expert = &experts[route.experts[slot] as usize];
                let mut weight = admitted.weights[slot];
                let mut x = x.to_vec();
                if spec.weight_on_input {
                    x.iter_mut().for_each(|x| *x = self.round(*x * weight));
                    weight = 1.0;
                }
                expert.forward(&x, &mut y, &mut scratch).unwrap();
                for (sum, y) in row.iter_mut().zip(&y) {
                    let product = weight * y;
                    *sum += if in_model_format {
                        self.round(product)
                    } else {
                        product
                    };
                    if step_by_step {
                        *sum = self.round(*sum);
                    }
                }
            }
            for value in &mut row {
                *value = self.round(self.round(*value) * spec.routed_scale);
            }
            if let Some(shared) = &shared {
                shared.forward(x, &mut y, &mut scratch).unwrap();
                let average = spec.shared.is_some_and(|s| s.combine == Combine::Average);
                for (sum, y) in row.iter_mut().zip(&y) {
                    *sum = self.round(*sum + y) / if average { 2.0 } else { 1.0 };
                }
            }
            output.extend(row);
        }
        output
    }

    /// The largest distance between the expected weight of a choice and the admitted one, after
    /// checking that every token chose the expected experts, and that those kept are those whose
    /// weight in the combination is not 0.
    fn weight_error(&self, route: &Route, admitted: &ModelAdmission) -> f32 {
        let (shape, index) = self
            .expected
            .i64(&format!("{}.topk_index", self.dtype))
            .unwrap();
        assert_eq!(shape, [self.tokens, route.top_k]);
        let weight = self.expected("topk_weight");
        let combine = self.expected("combine");
        let mut worst = 0f32;
        for token in 0..self.tokens {
            let slots = token * route.top_k..(token + 1) * route.top_k;
            let mut got: Vec<_> = slots
                .clone()
                .map(|slot| {
                    let (kept, weight) = (admitted.kept[slot], admitted.weights[slot]);
                    (i64::from(route.experts[slot]), weight, kept)
                })
                .collect();
            got.sort_by_key(|choice| choice.0);
            for (slot, (expert, value, kept)) in slots.zip(got) {
                assert_eq!(expert, index[slot], "{} token {token}", self.name);
                let column = usize::try_from(expert).unwrap();
                let share = combine[token * route.experts_total + column];
                assert_eq!(kept, share != 0.0, "{} token {token}", self.name);
                if value != weight[slot] {
                    worst = worst.max((value - weight[slot]).abs() / weight[slot].abs());
                }
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
    for name in CASES {
        let case = Case::open(name, Format::F32);
        let route = case.route();
        let admitted = case.admit(&route);
        let weights = case.weight_error(&route, &admitted);
        let logits = relative(&route.logits, &case.expected("router_logits"));
        let output = case.output(&route, &admitted, case.layer.spec().one_by_one);
        let error = relative(&output, &case.expected_output());
        println!("{name} f32: weights {weights:.1e}, logits {logits:.1e}, output {error:.1e}");
        assert!(weights <= 2e-6, "{name}: weights {weights:e}");
        assert!(logits <= 1e-6, "{name}: logits {logits:e}");
        assert!(error <= 2e-5, "{name}: output {error:e}");
    }
}

#[test]
fn bf16_agrees_with_the_reference_almost_bit_for_bit() {
    for name in CASES {
        let case = Case::open(name, Format::Bf16);
        let route = case.route();
        let admitted = case.admit(&route);
        let weights = case.weight_error(&route, &admitted);
        let expected = case.expected("router_logits");
        let logits = equal_share(&route.logits, &expected);
        let off = relative(&route.logits, &expected);
        let (output, expected) = (
            case.output(&route, &admitted, case.layer.spec().one_by_one),
            case.expected_output(),
        );
        let error = relative(&output, &expected);
        let share = equal_share(&output, &expected);
        println!(
            "{name} bf16: weights {weights:.1e}, logits {:.2} % equal, output {error:.1e}, \
             {:.2} % equal",
            100.0 * logits,
            100.0 * share
        );
        assert!(weights <= 2e-6, "{name}: weights {weights:e}");
        match case.layer.spec().router.logits {
            Logits::F32 => assert!(off <= 1e-6, "{name}: logits {off:e}"),
            _ => assert_eq!(logits, 1.0, "{name}: share of equal logits"),
        }
        assert!(error <= 3e-2, "{name}: output {error:e}");
        assert!(share >= 0.9, "{name}: {share} of the outputs are equal");
        if !case.expected.contains("bf16.output_grouped_mm") {
            let looped = case.output(&route, &admitted, true);
            assert_eq!(equal_share(&looped, &expected), 1.0, "{name} step by step");
        }
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
