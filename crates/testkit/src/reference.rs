//! A layer computed naively: one process, one choice at a time.

use std::sync::Arc;

use expertmesh_checkpoint::{LayerSource, LayerSpec};
use expertmesh_experts::{Expert, Scratch, SharedExpert};
use expertmesh_kernels::{Format, bf16_round, decode_row, encode_row};
use expertmesh_routing::{Admission, Fate, Gate, Route, WeightDtype};

/// Everything of a layer, loaded.
pub struct Parts {
    /// What the layer is.
    pub spec: LayerSpec,
    /// Its gate.
    pub gate: Gate,
    /// Its experts by id.
    pub experts: Vec<Arc<dyn Expert>>,
    /// Its shared expert.
    pub shared: Option<Arc<SharedExpert>>,
}

/// `values` as they come out of an encoding and a decoding in `format`.
pub fn through(format: Format, values: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0; values.len() * format.bytes()];
    encode_row(format, values, &mut bytes);
    let mut back = vec![0.0; values.len()];
    decode_row(format, &bytes, &mut back);
    back
}

// === impl Parts ===

impl Parts {
    /// Loads all of `source`.
    pub fn load(source: &dyn LayerSource) -> Self {
        let spec = source.spec().clone();
        assert_eq!(
            spec.latent, None,
            "latent rows have a reference of their own"
        );
        let expert = |id| source.expert(id).expect("an expert");
        Self {
            gate: source.gate().expect("a gate"),
            experts: (0..spec.experts).map(expert).collect(),
            shared: source.shared().expect("a shared expert or none"),
            spec,
        }
    }

    /// The gate's answer for `x` `[tokens, hidden]`.
    pub fn route(&self, x: &[f32], padding: Option<&[bool]>) -> Route {
        let tokens = x.len() / self.spec.hidden;
        self.gate.route(x, tokens, padding).expect("a route")
    }

    /// Outputs `[tokens, hidden]` of `x` for the choices whose fate is to be computed: slot by
    /// slot, one row a time, with the rounding points of DESIGN's law of same bits. `wire` is the
    /// format that rows would travel in.
    pub fn forward(
        &self,
        wire: Format,
        x: &[f32],
        route: &Route,
        admission: &Admission,
    ) -> Vec<f32> {
        let hidden = self.spec.hidden;
        let bf16 = self.spec.router.dtype == Format::Bf16;
        let round = |value: f32| if bf16 { bf16_round(value) } else { value };
        let product_rounds = self.spec.router.weight_dtype == WeightDtype::Model;
        let mut scratch = Scratch::default();
        let mut output = Vec::with_capacity(x.len());
        let mut y = vec![0.0; hidden];
        for (token, x) in x.chunks_exact(hidden).enumerate() {
            let x = through(wire, x);
            let mut row = vec![0.0; hidden];
            for choice in route.choices_of(token) {
                if !matches!(admission.fates[choice], Fate::Computed | Fate::Rerouted) {
                    continue;
                }
                let expert = &self.experts[admission.executed(route, choice) as usize];
                let weight = admission.weight(route, choice);
                expert.forward(&x, &mut y, &mut scratch).expect("one row");
                for (sum, y) in row.iter_mut().zip(through(wire, &y)) {
                    let product = weight * y;
                    *sum += if product_rounds {
                        round(product)
                    } else {
                        product
                    };
                }
            }
            row.iter_mut().for_each(|value| *value = round(*value));
            if let Some(shared) = &self.shared {
                shared.forward(&x, &mut y, &mut scratch).expect("one row");
                row.iter_mut()
                    .zip(&y)
                    .for_each(|(sum, y)| *sum = round(*sum + y));
            }
            output.extend(row);
        }
        output
    }
}
