//! Several layers behind one call: the residual stream between them, and early exit from it.

mod advance;
mod checks;
mod report;

use std::sync::Arc;

use expertmesh_experts::ComputePool;
use expertmesh_routing::{ExitGate, ExitState};
use expertmesh_transport::monotonic_ns;
use ndarray::{ArcArray2, Array2};

use self::advance::advance;
use crate::config::CoordinatorConfig;
use crate::connect::Coordinator;
use crate::depth::{computed, either};
use crate::error::CoordinatorError;
use crate::forward::StepOutput;
use crate::input::StepInput;

/// Multiply-adds of an exit head per nanosecond, for the choice between inline and pool only.
const EXITS_PER_NS: u64 = 4;

/// Layers one after another, each a session of its own on the same workers.
///
/// With `f` for a layer, `x' = x + f(x)` where the stack has the residual (in f32, rounded once to
/// the model's format), else `x' = f(x)`. After each layer the exit gate looks at `x'`: a token
/// that it lets go is in no later layer, and its hidden state stays what it is. Every layer is a
/// step all the same, even with nobody left in it: its gate sees every token, and the choices of
/// those that left are skipped, so that each token has its choices in the ledger of each layer.
///
/// A stack of one layer without residual and exit gate is that layer.
pub struct Stack {
    layers: Vec<Arc<Coordinator>>,
    residual: bool,
    exit: Option<Arc<ExitGate>>,
}

/// What a stack gave.
#[derive(Debug)]
pub struct StackOutput {
    /// `[tokens, hidden]`: the hidden states behind the last layer, of a token that left those
    /// with which it left.
    pub output: Array2<f32>,
    /// The step of each layer. Their `output` has moved on and is empty.
    pub layers: Vec<StepOutput>,
    /// `[tokens]`: the layer (its place in the stack, from 0) after which a token left; `None` for
    /// one that is still there at the end, and for padding.
    pub left_at: Vec<Option<u32>>,
    /// Time that the residual took, nanoseconds.
    pub residual_ns: u64,
    /// Time that the exit gate took, nanoseconds.
    pub exit_ns: u64,
}

/// Who is still in the stack.
struct Leavers {
    gate: Arc<ExitGate>,
    state: ExitState,
}

// === impl Stack ===

impl Stack {
    /// Joins layers that are up.
    ///
    /// # Errors
    /// [`CoordinatorError::Field`]: no layer, layers that differ in shape, format or workers, a
    /// layer that tokens may skip without a residual to carry them, an exit gate of another width.
    pub fn new(
        layers: Vec<Arc<Coordinator>>,
        residual: bool,
        exit: Option<Arc<ExitGate>>,
    ) -> Result<Self, CoordinatorError> {
        let configs: Vec<_> = layers.iter().map(|layer| layer.config()).collect();
        checks::check(&configs, residual, exit.as_deref())?;
        Ok(Self {
            layers,
            residual,
            exit,
        })
    }

    /// Brings every layer up, in order. Their steps share the compute threads of the first.
    ///
    /// # Errors
    /// As [`Stack::new`] and [`Coordinator::connect`].
    pub async fn connect(
        configs: Vec<CoordinatorConfig>,
        residual: bool,
        exit: Option<Arc<ExitGate>>,
    ) -> Result<Self, CoordinatorError> {
        checks::check(
            &configs.iter().collect::<Vec<_>>(),
            residual,
            exit.as_deref(),
        )?;
        let mut layers = Vec::with_capacity(configs.len());
        let mut pool: Option<ComputePool> = None;
        for config in configs {
            let compute = match &pool {
                Some(pool) => pool.clone(),
                None => ComputePool::new(config.threads, &config.name)?,
            };
            pool = Some(compute.clone());
            layers.push(Arc::new(Coordinator::connect_on(config, compute).await?));
        }
        Self::new(layers, residual, exit)
    }

    /// The layers, in order.
    pub fn layers(&self) -> &[Arc<Coordinator>] {
        &self.layers
    }

    /// Forwards `x` `[tokens, hidden]` through the layers. Choices of tokens that `padding`
    /// `[tokens]` marks are skipped.
    ///
    /// # Errors
    /// As [`Stack::forward_in`].
    pub async fn forward(
        &self,
        x: ArcArray2<f32>,
        padding: Option<Vec<bool>>,
    ) -> Result<StackOutput, CoordinatorError> {
        self.forward_in(x, StepInput::padded(padding)).await
    }

    /// Forwards `x` `[tokens, hidden]` through the layers, with whatever else their gates ask for.
    ///
    /// # Errors
    /// What [`Coordinator::forward_in`] says, with the layer's number where there are several;
    /// choices to replay, which are those of one layer, for a stack of several.
    pub async fn forward_in(
        &self,
        x: ArcArray2<f32>,
        mut input: StepInput,
    ) -> Result<StackOutput, CoordinatorError> {
        self.check_input(&input)?;
        let tokens = x.nrows();
        let absent = input.absent.take();
        let mut leavers = self.exit.as_ref().map(|gate| Leavers {
            gate: Arc::clone(gate),
            state: ExitState::new(tokens),
        });
        let (mut residual_ns, mut exit_ns) = (0, 0);
        let mut layers = Vec::with_capacity(self.layers.len());
        // Without, the layer's output is the stack's, and nothing is measured twice.
        let moves_on = self.residual || self.layers.len() > 1;
        let mut x = x;
        for (at, layer) in self.layers.iter().enumerate() {
            let left = leavers
                .as_ref()
                .map(|all| all.left(input.padding.as_deref()));
            let outside = either(absent.as_deref(), left.as_deref());
            let given = StepInput {
                absent: outside.clone(),
                ..input.clone()
            };
            let rows = match moves_on {
                true => x.clone(),
                false => std::mem::take(&mut x),
            };
            let step = layer.forward_in(rows, given).await;
            let mut step = step.map_err(|error| self.in_layer(at, error))?;
            // All layers count as one step, whoever else is served.
            input.at_step.get_or_insert(step.step);
            let output = std::mem::take(&mut step.output);
            if moves_on {
                let begun = monotonic_ns();
                if at == 0 {
                    // As the layer saw them; later ones are in its form already.
                    x = layer.config.in_form(x);
                }
                let passes = step.depth.as_ref().map(|depth| depth.passes.clone());
                let moved = advance(layer, x, output, outside, passes, self.residual).await;
                x = moved.map_err(|error| self.in_layer(at, error))?;
                residual_ns += monotonic_ns() - begun;
            } else {
                x = output.into_shared();
            }
            layers.push(step);
            if let Some(all) = leavers.take() {
                let begun = monotonic_ns();
                let number = u32::try_from(at).unwrap_or(u32::MAX);
                let seen = all.observe(layer, number, x.clone()).await;
                leavers = Some(seen.map_err(|error| self.in_layer(at, error))?);
                exit_ns += monotonic_ns() - begun;
            }
        }
        let mut left_at = vec![None; tokens];
        if let Some(all) = &leavers {
            let never = either(absent.as_deref(), input.padding.as_deref());
            for (token, (slot, left)) in left_at.iter_mut().zip(all.state.left_at()).enumerate() {
                let never = never.as_ref().is_some_and(|never| never[token]);
                *slot = left.filter(|_| !never);
            }
        }
        Ok(StackOutput {
            output: x.into_owned(),
            layers,
            left_at,
            residual_ns,
            exit_ns,
        })
    }

    /// Takes an output's memory back for later steps, as [`Coordinator::recycle`].
    pub fn recycle(&self, output: Array2<f32>) {
        if let Some(last) = self.layers.last() {
            last.recycle(output);
        }
    }

    /// Names the layer of an error, where there are several.
    fn in_layer(&self, at: usize, error: CoordinatorError) -> CoordinatorError {
        match self.layers.len() {
            1 => error,
            _ => CoordinatorError::Layer {
                layer: self.layers[at].config().source.spec().layer,
                source: Box::new(error),
            },
        }
    }
}

impl From<Arc<Coordinator>> for Stack {
    /// The stack of one layer.
    fn from(layer: Arc<Coordinator>) -> Self {
        Self {
            layers: vec![layer],
            residual: false,
            exit: None,
        }
    }
}

// === impl Leavers ===

impl Leavers {
    /// `[tokens]`, true for those that left. Padding never does.
    fn left(&self, padding: Option<&[bool]>) -> Vec<bool> {
        let mut left = self.state.skip_mask();
        if let Some(padding) = padding {
            let all = left.iter_mut().zip(padding);
            all.for_each(|(left, padding)| *left &= !padding);
        }
        left
    }

    /// Lets tokens leave after layer `number`, which put out `x` `[tokens, hidden]`.
    async fn observe(
        mut self,
        layer: &Coordinator,
        number: u32,
        x: ArcArray2<f32>,
    ) -> Result<Self, CoordinatorError> {
        let cost_ns = x.len() as u64 / EXITS_PER_NS;
        let seen = computed(&layer.compute, cost_ns, move || {
            let rows = x.as_slice().unwrap_or_default();
            let seen = self.state.observe(&self.gate, number, rows);
            seen.map(|_| self)
        });
        Ok(seen.await??)
    }
}
