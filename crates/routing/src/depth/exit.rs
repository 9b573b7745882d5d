//! Early exit: who leaves the stack after which layer.

use expertmesh_kernels::{PackedMatrix, math, matmul};

use super::mixture::check_finite;
use crate::error::RoutingError;

/// When a token may leave, given the logits `[C]` that an exit head makes of its hidden state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExitRule {
    /// The highest probability of the softmax is at least the threshold (MSDNet: Huang et al.
    /// 2018, arXiv 1703.09844).
    Probability(f32),
    /// The highest probability is at least the threshold above the second (CALM's softmax
    /// response: Schuster et al. 2022, arXiv 2207.07061, section 3.4).
    Gap(f32),
    /// The entropy of the softmax, in nats, is below the threshold (BranchyNet: Teerapittayanon
    /// et al. 2016, arXiv 1709.01686, algorithm 1).
    Entropy(f32),
    /// The sigmoid of the one logit is at least the threshold (CALM's early-exit classifier).
    Classifier(f32),
}

/// An exit head with its rule. Rows are independent, to the last bit.
#[derive(Debug)]
pub struct ExitGate {
    /// `[C, H]`.
    head: PackedMatrix,
    /// `[C]`.
    bias: Option<Vec<f32>>,
    rule: ExitRule,
}

/// At which layer each token of a batch left. A token that left does not return, whatever later
/// gates say.
///
/// ```
/// use expertmesh_kernels::PackedMatrix;
/// use expertmesh_routing::{ExitGate, ExitRule, ExitState};
///
/// let head = PackedMatrix::from_f32(&[1.0], 1, 1)?;
/// let gate = ExitGate::new(head, None, ExitRule::Classifier(0.75))?;
/// let mut state = ExitState::new(2);
/// assert_eq!(state.observe(&gate, 0, &[2.0, 0.5])?, 1);
/// assert_eq!(state.skip_mask(), [true, false]);
/// assert_eq!(state.observe(&gate, 1, &[-2.0, 0.5])?, 0);
/// assert_eq!(state.left_at(), [Some(0), None]);
/// // Of 2 tokens and 4 layers, one token ran one layer and the other all.
/// assert_eq!(state.layers_run(4), 1 + 4);
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitState {
    /// `[T]`.
    left_at: Vec<Option<u32>>,
    /// The layer that was observed last.
    last: Option<u32>,
}

// === impl ExitRule ===

impl ExitRule {
    fn threshold(self) -> f32 {
        match self {
            Self::Probability(threshold)
            | Self::Gap(threshold)
            | Self::Entropy(threshold)
            | Self::Classifier(threshold) => threshold,
        }
    }

    /// What the rule compares with its threshold. Overwrites `logits`.
    fn measure(self, logits: &mut [f32]) -> f32 {
        if matches!(self, Self::Classifier(_)) {
            return math::sigmoid(logits[0]);
        }
        math::softmax(logits);
        let p = &*logits;
        let (mut first, mut second) = (0.0_f32, 0.0_f32);
        for &p in p {
            second = second.max(p.min(first));
            first = first.max(p);
        }
        match self {
            Self::Gap(_) => first - second,
            Self::Entropy(_) => {
                let terms = p.iter().filter(|&&p| p > 0.0);
                terms.map(|&p| -p * math::log(p)).sum()
            }
            Self::Probability(_) | Self::Classifier(_) => first,
        }
    }

    fn exits(self, measure: f32) -> bool {
        match self {
            Self::Entropy(threshold) => measure < threshold,
            _ => measure >= self.threshold(),
        }
    }
}

// === impl ExitGate ===

impl ExitGate {
    /// `head` is `[C, H]`, `bias` `[C]`. `C` is 1 for [`ExitRule::Classifier`], and at least 2, the
    /// classes or the vocabulary, for the others.
    ///
    /// # Errors
    /// A head of another number of rows, a bias of another length or not finite, a threshold that
    /// is not finite.
    pub fn new(
        head: PackedMatrix,
        bias: Option<Vec<f32>>,
        rule: ExitRule,
    ) -> Result<Self, RoutingError> {
        let (fits, expected) = match rule {
            ExitRule::Classifier(_) => (head.out() == 1, "1, for a classifier"),
            _ => (head.out() >= 2, "at least 2, a row for each class"),
        };
        if !fits {
            let found = head.out();
            return Err(RoutingError::config("exit head rows", found, expected));
        }
        if let Some(bias) = &bias {
            RoutingError::check_length("exit bias", bias.len(), [head.out(), 1], "classes x 1")?;
            check_finite("exit bias", "class", bias)?;
        }
        check_finite("exit threshold", "place", &[rule.threshold()])?;
        Ok(Self { head, bias, rule })
    }

    /// Elements of a token row, `H`.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.head.inner()
    }

    /// When a token may leave.
    #[must_use]
    pub fn rule(&self) -> ExitRule {
        self.rule
    }

    /// What the rule compares with its threshold, for each of `tokens` rows: `x` `[tokens, H]` →
    /// `[tokens]`.
    ///
    /// # Errors
    /// A length that does not fit, a logit that is not finite.
    pub fn measure(&self, x: &[f32], tokens: usize) -> Result<Vec<f32>, RoutingError> {
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", x.len(), [tokens, self.hidden()], shape)?;
        let classes = self.head.out();
        let mut logits = vec![0.0; tokens * classes];
        matmul(x, &self.head, &mut logits)?;
        let mut measures = Vec::with_capacity(tokens);
        for logits in logits.chunks_exact_mut(classes) {
            if let Some(bias) = &self.bias {
                logits.iter_mut().zip(bias).for_each(|(z, bias)| *z += bias);
            }
            check_finite("exit logits", "class", logits)?;
            measures.push(self.rule.measure(logits));
        }
        Ok(measures)
    }
}

// === impl ExitState ===

impl ExitState {
    /// `tokens` tokens, all of them in the stack.
    #[must_use]
    pub fn new(tokens: usize) -> Self {
        Self {
            left_at: vec![None; tokens],
            last: None,
        }
    }

    /// Lets tokens leave after `layer`, given the hidden states `[T, H]` that it put out. Returns
    /// how many left. Rows of tokens that left before are not read.
    ///
    /// # Errors
    /// A layer that is not after the last one, and what [`ExitGate::measure`] refuses. Nothing
    /// changes then.
    pub fn observe(
        &mut self,
        gate: &ExitGate,
        layer: u32,
        hidden: &[f32],
    ) -> Result<usize, RoutingError> {
        if let Some(last) = self.last.filter(|&last| layer <= last) {
            let expected = format!("a layer after {last}, the last one");
            return Err(RoutingError::config("exit layer", layer, expected));
        }
        let (tokens, h) = (self.left_at.len(), gate.hidden());
        let shape = "tokens x hidden";
        RoutingError::check_length("hidden states", hidden.len(), [tokens, h], shape)?;
        let inside: Vec<usize> = (0..tokens)
            .filter(|&token| self.left_at[token].is_none())
            .collect();
        let mut rows = Vec::with_capacity(inside.len() * h);
        for &token in &inside {
            rows.extend_from_slice(&hidden[token * h..(token + 1) * h]);
        }
        let measures = gate.measure(&rows, inside.len())?;
        self.last = Some(layer);
        let mut left = 0;
        for (token, measure) in inside.into_iter().zip(measures) {
            if gate.rule.exits(measure) {
                self.left_at[token] = Some(layer);
                left += 1;
            }
        }
        Ok(left)
    }

    /// `[T]`: the layer after which a token left.
    #[must_use]
    pub fn left_at(&self) -> &[Option<u32>] {
        &self.left_at
    }

    /// `[T]`, true for tokens that skip every further layer.
    #[must_use]
    pub fn skip_mask(&self) -> Vec<bool> {
        self.left_at.iter().map(Option::is_some).collect()
    }

    /// Tokens that are still in the stack.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left_at.iter().filter(|left| left.is_none()).count()
    }

    /// (token, layer) pairs that are computed in a stack of `layers`: `T · layers` if nobody
    /// leaves.
    #[must_use]
    pub fn layers_run(&self, layers: u32) -> u64 {
        let run = |left: &Option<u32>| left.map_or(layers, |layer| (layer + 1).min(layers));
        self.left_at.iter().map(run).map(u64::from).sum()
    }
}
