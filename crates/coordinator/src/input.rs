//! What a step is given besides its hidden states.

use expertmesh_wire::{RemoteError, v1};

use crate::error::CoordinatorError;

/// What a step is given besides its hidden states. The default is a batch of one sequence without
/// padding.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepInput {
    /// `[tokens]`, true for padding: its choices are skipped.
    pub padding: Option<Vec<bool>>,
    /// `[tokens]`, true for tokens that are not in the layer, because they left the stack before
    /// it: their choices are skipped, nothing is sent for them, the shared expert leaves them out,
    /// and their rows of the output are zero.
    pub absent: Option<Vec<bool>>,
    /// `[tokens]`, for gates that hash them.
    pub token_ids: Option<Vec<u32>>,
    /// Tokens of a sequence, for capacities and gates that look at one; 0 for one sequence.
    pub sequence: usize,
    /// Number of the first token in the batch that this is a part of.
    pub first_token: u64,
    /// Number of the step for everything random; `None`: the coordinator counts.
    pub at_step: Option<u64>,
    /// The choices of an earlier run, for a gate that replays.
    pub replay: Option<Replayed>,
    /// Whether [`StepOutput::lanes`](crate::StepOutput::lanes) are wanted.
    pub want_lanes: bool,
}

/// Choices of an earlier run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replayed {
    /// `[tokens, top_k]`, in slot order; [`NO_CHOICE`](expertmesh_routing::NO_CHOICE) behind the
    /// choices of a token with fewer.
    pub experts: Vec<u32>,
    /// `[tokens, top_k]`; `None`: what the gate makes of the experts' logits.
    pub weights: Option<Vec<f32>>,
}

// === impl StepInput ===

impl StepInput {
    /// A batch of one sequence with `padding`.
    pub fn padded(padding: Option<Vec<bool>>) -> Self {
        Self {
            padding,
            ..Self::default()
        }
    }

    /// Checks the tables against a batch of `tokens`, of which each has `top_k` choices.
    pub(crate) fn check(&self, tokens: usize, top_k: usize) -> Result<(), CoordinatorError> {
        let check = |field, held: Option<usize>, expected: usize, each: &str| match held {
            Some(held) if held != expected => {
                let held = format!("{held} entries");
                let expected = format!("{expected} entries, {each}");
                Err(CoordinatorError::field(field, held, expected))
            }
            _ => Ok(()),
        };
        let padding = self.padding.as_ref().map(Vec::len);
        check("padding_mask", padding, tokens, "one a token")?;
        let absent = self.absent.as_ref().map(Vec::len);
        check("absent", absent, tokens, "one a token")?;
        let ids = self.token_ids.as_ref().map(Vec::len);
        check("token_ids", ids, tokens, "one a token")?;
        let replay = self.replay.as_ref();
        let (choices, each) = (tokens * top_k, "one a choice");
        let experts = replay.map(|replay| replay.experts.len());
        check("replay.experts", experts, choices, each)?;
        let weights = replay.and_then(|replay| replay.weights.as_ref());
        check("replay.weights", weights.map(Vec::len), choices, each)?;
        if self.first_token.checked_add(tokens as u64).is_none() {
            let expected = format!("a number with room for {tokens} tokens after it");
            return Err(CoordinatorError::field(
                "first_token",
                self.first_token,
                expected,
            ));
        }
        if self.sequence != 0 && !self.first_token.is_multiple_of(self.sequence as u64) {
            let expected = format!("a multiple of {}, the sequence", self.sequence);
            return Err(CoordinatorError::field(
                "first_token",
                self.first_token,
                expected,
            ));
        }
        if self.sequence != 0 && !tokens.is_multiple_of(self.sequence) {
            let expected = format!("a divisor of {tokens}, the number of tokens, or 0");
            return Err(CoordinatorError::field("sequence", self.sequence, expected));
        }
        Ok(())
    }

    /// What a request carries besides its hidden states.
    ///
    /// # Errors
    /// A table that is no whole number of 32-bit words, named.
    pub(crate) fn read(request: &v1::ForwardRequest) -> Result<Self, RemoteError> {
        let padding = &request.padding_mask;
        let padding =
            (!padding.is_empty()).then(|| padding.iter().map(|byte| *byte != 0).collect());
        let replay = match &request.replay {
            None => None,
            Some(replay) => Some(Replayed {
                experts: words("replay.experts", &replay.experts)?.collect(),
                weights: match replay.weights.is_empty() {
                    true => None,
                    false => {
                        let words = words("replay.weights", &replay.weights)?;
                        Some(words.map(f32::from_bits).collect())
                    }
                },
            }),
        };
        let ids = &request.token_ids;
        Ok(Self {
            padding,
            token_ids: match ids.is_empty() {
                true => None,
                false => Some(words("token_ids", ids)?.collect()),
            },
            sequence: request.sequence as usize,
            first_token: request.first_token,
            at_step: request.at_step,
            replay,
            want_lanes: request.want_lanes,
            ..Self::default()
        })
    }
}

fn words<'a>(field: &str, bytes: &'a [u8]) -> Result<impl Iterator<Item = u32> + 'a, RemoteError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        return Ok(words.iter().map(|word| u32::from_le_bytes(*word)));
    }
    Err(RemoteError::invalid(format!(
        "`{field}` holds {} bytes, expected whole words of 4",
        bytes.len()
    )))
}
