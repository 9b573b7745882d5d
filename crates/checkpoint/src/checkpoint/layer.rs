//! One layer of a checkpoint: its parts, each read when it is asked for.

use std::sync::Arc;

use expertmesh_experts::{
    ConstantExpert, Expert, ExpertError, ExpertSource, IdentityExpert, LatentProjections,
    MlpExpert, SharedExpert, SwigluBiases, SwigluExpert,
};
use expertmesh_kernels::{Format, PackedMatrix};
use expertmesh_routing::Gate;

use crate::error::CheckpointError;
use crate::families::{Form, Model};
use crate::layout::{Block, Network, Part, SharedParts, Sizes};
use crate::spec::{self, LayerSource, LayerSpec};
use crate::store::Store;
use crate::weights::Reader;

/// One layer of a [`Checkpoint`](crate::Checkpoint), for arithmetic in one number format.
#[derive(Clone, Debug)]
pub struct CheckpointLayer {
    spec: LayerSpec,
    sizes: Sizes,
    model: Arc<Model>,
    store: Arc<Store>,
    block: Block,
}

// === impl CheckpointLayer ===

impl CheckpointLayer {
    pub(super) fn new(
        spec: LayerSpec,
        sizes: Sizes,
        model: Arc<Model>,
        store: Arc<Store>,
        block: Block,
    ) -> Self {
        Self {
            spec,
            sizes,
            model,
            store,
            block,
        }
    }

    fn dtype(&self) -> Format {
        self.spec.expert.dtype
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            store: &self.store,
            fp8_block: self.model.fp8_block,
        }
    }

    fn matrix(&self, part: &Part) -> Result<PackedMatrix, CheckpointError> {
        self.reader().matrix(part, self.dtype())
    }

    fn vector(&self, part: Option<&Part>) -> Result<Option<Vec<f32>>, CheckpointError> {
        part.map(|part| self.reader().vector(part, self.dtype()))
            .transpose()
    }

    /// The network that `parts` hold; `scale` multiplies the output of one that is not gated.
    fn network(
        &self,
        parts: &Network,
        scale: bool,
        what: &str,
    ) -> Result<Box<dyn Expert>, CheckpointError> {
        let refused = |source| self.refused(what, source);
        let up = self.matrix(&parts.up)?;
        let down = self.matrix(&parts.down)?;
        let gate_bias = self.vector(parts.gate_bias.as_ref())?;
        let up_bias = self.vector(parts.up_bias.as_ref())?;
        let down_bias = self.vector(parts.down_bias.as_ref())?;
        let dtype = self.dtype();
        let activation = self.model.form.activation();
        let Some(gate) = &parts.gate else {
            let network = MlpExpert::new(up, up_bias, down, down_bias, activation, dtype);
            let factor = match self.model.form {
                Form::Mlp { scale: factor, .. } if scale => factor,
                _ => 1.0,
            };
            return Ok(Box::new(network.map_err(refused)?.scaled(factor)));
        };
        let gate = self.matrix(gate)?;
        let mut network = SwigluExpert::new(gate, up, down, activation, dtype).map_err(refused)?;
        if let Form::Glu { clamp, .. } = self.model.form {
            network = network.clamped(clamp);
        }
        if let (Some(gate), Some(up), Some(down)) = (gate_bias, up_bias, down_bias) {
            let biases = SwigluBiases { gate, up, down };
            network = network.biased(biases).map_err(refused)?;
        }
        Ok(Box::new(network))
    }

    fn refused(&self, what: &str, source: ExpertError) -> CheckpointError {
        CheckpointError::Expert {
            what: what.to_owned(),
            layer: self.spec.layer,
            source,
        }
    }
}

impl LayerSource for CheckpointLayer {
    fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    fn gate(&self) -> Result<Gate, CheckpointError> {
        let weight = self.matrix(&self.block.gate(self.sizes))?;
        let bias = self.vector(self.block.gate_bias(self.sizes).as_ref())?;
        let selection = self.vector(self.block.selection(self.sizes).as_ref())?;
        Gate::new(self.spec.router.clone(), weight, bias, selection).map_err(|source| {
            CheckpointError::Gate {
                layer: self.spec.layer,
                source,
            }
        })
    }

    fn expert(&self, expert: usize) -> Result<Arc<dyn Expert>, CheckpointError> {
        let experts = self.spec.experts;
        if expert >= experts {
            return Err(CheckpointError::NoSuchExpert { expert, experts });
        }
        let what = format!("expert {expert}");
        let refused = |source| self.refused(&what, source);
        if expert >= self.sizes.routed() {
            let identity = IdentityExpert::new(self.spec.hidden).map_err(refused)?;
            return Ok(Arc::new(identity));
        }
        let network = self.network(&self.block.expert(expert, self.sizes), true, &what)?;
        Ok(Arc::from(network))
    }

    fn projections(&self) -> Result<Option<LatentProjections>, CheckpointError> {
        let Some([into, out_of]) = self.block.latent(self.sizes) else {
            return Ok(None);
        };
        let (into, out_of) = (self.matrix(&into)?, self.matrix(&out_of)?);
        let both = LatentProjections::new(into, out_of, self.dtype());
        both.map(Some)
            .map_err(|source| self.refused("latent projections", source))
    }

    fn shared(&self) -> Result<Option<Arc<SharedExpert>>, CheckpointError> {
        let Some(shared) = self.spec.shared else {
            return Ok(None);
        };
        let Some(parts) = self.block.shared(self.spec.hidden, shared.ffn) else {
            return Ok(None);
        };
        let what = "shared expert";
        let refused = |source| self.refused(what, source);
        let (expert, gate): (Box<dyn Expert>, _) = match &parts {
            SharedParts::Network(network, mix) => {
                let gate = mix.as_ref().map(|mix| self.matrix(mix)).transpose()?;
                (self.network(network, false, what)?, gate)
            }
            SharedParts::Constant(row) => {
                let row = self.reader().vector(row, self.dtype())?;
                let constant = ConstantExpert::new(row, self.dtype().bytes()).map_err(refused)?;
                (Box::new(constant), None)
            }
        };
        let built = SharedExpert::new(expert, gate, self.dtype()).map_err(refused)?;
        Ok(Some(Arc::new(built)))
    }
}

impl ExpertSource for CheckpointLayer {
    fn load(&self, expert: usize) -> Result<Arc<dyn Expert>, ExpertError> {
        spec::load(self, expert)
    }
}
