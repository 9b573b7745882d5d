//! Noise that is a pure function of where it is asked for.
//!
//! The value for (seed, step, layer, purpose, token, lane) does not depend on what else was drawn,
//! on the number of workers or on the order of calls: a counter-based generator (Philox4x32-10)
//! answers each question by itself. A sequential generator would need every caller to draw in the
//! same order; a block cipher of the ChaCha family has random access too, but makes 64 words a
//! call where a random drop asks for one.
//!
//! Seed, step, layer and purpose are hashed into the key of a [`Noise`] (Philox again, keyed by the
//! seed, as JAX's `fold_in` does with its own generator); token and lane are its counter. `token`
//! is the index of the token in the whole batch and not in a shard of it, or the answer would
//! depend on the sharding. A `lane` is an expert, or whatever else a token has several of.

mod normal;
mod philox;

use expertmesh_kernels::math;

use self::{normal::inverse_normal, philox::philox4x32_10};

/// Where noise belongs: two keys that differ in any field give unrelated noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoiseKey {
    /// The run's seed.
    pub seed: u64,
    /// The step, from 0.
    pub step: u64,
    /// The layer, from 0.
    pub layer: u32,
}

/// What noise is for. Each purpose has values of its own, so that switching one kind of noise on
/// does not change another. The numbers are part of the stream: they never change.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Factors near 1 on hidden states; a lane is an element of the row.
    Jitter = 0,
    /// Normal noise on logits; a lane is an expert.
    LogitNoise = 1,
    /// Gumbel noise on logits, so that the highest is a sample of the softmax (`RSample`); a lane
    /// is an expert.
    RSample = 2,
    /// Whether, or by which lottery, a token gets its second expert.
    SecondExpert = 3,
    /// The lots by which an expert that is full refuses choices: whole words, a lane is an expert.
    RandomDrop = 4,
}

/// How a value is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Uniform in `[0, 1)`, on the grid of 2^-24.
    Uniform,
    /// Uniform in `(0, 1)`, on the odd multiples of 2^-24: neither end occurs, and a logarithm is
    /// finite. Symmetric about 1/2.
    OpenUniform,
    /// Normal with mean 0 and variance 1: the inverse of the distribution function at
    /// [`OpenUniform`](Self::OpenUniform), by Wichura's AS 241, within 5e-7 of the exact inverse
    /// relatively. Its grid ends at ±5.2947, past which lies a share of 1.2e-7.
    Normal,
    /// Standard Gumbel, `-ln(-ln u)` at [`OpenUniform`](Self::OpenUniform): from -2.81 to 16.6,
    /// mean 0.5772, variance π²/6.
    Gumbel,
}

/// The noise of one [`NoiseKey`] for one [`Purpose`].
///
/// ```
/// use expertmesh_routing::noise::{Distribution, NoiseKey, Purpose};
///
/// let key = NoiseKey { seed: 1, step: 0, layer: 3 };
/// let noise = key.stream(Purpose::LogitNoise);
/// // A row at once, or lane by lane in any order: the same values.
/// let mut row = [0.0; 8];
/// noise.fill(Distribution::Normal, 17, &mut row);
/// assert_eq!(row[5], noise.normal(17, 5));
/// assert_ne!(row[5], key.stream(Purpose::RSample).normal(17, 5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Noise {
    key: [u32; 2],
}

// === impl NoiseKey ===

impl NoiseKey {
    /// The noise of this place for `purpose`.
    #[must_use]
    pub fn stream(self, purpose: Purpose) -> Noise {
        let [low, high] = halves(self.step);
        let counter = [low, high, self.layer, purpose as u32];
        let [first, second, ..] = philox4x32_10(counter, halves(self.seed));
        Noise {
            key: [first, second],
        }
    }
}

// === impl Noise ===

impl Noise {
    /// The 32 random bits of one lane of one token: what every distribution is made of.
    #[must_use]
    pub fn word(&self, token: u64, lane: u32) -> u32 {
        self.block(token, lane / 4)[lane as usize % 4]
    }

    /// The value of one lane of one token.
    #[must_use]
    pub fn value(&self, distribution: Distribution, token: u64, lane: u32) -> f32 {
        distribution.of(self.word(token, lane))
    }

    /// The values of lanes 0, 1, … of one token: [`Noise::value`] at a quarter of the cost.
    pub fn fill(&self, distribution: Distribution, token: u64, values: &mut [f32]) {
        for (block, values) in (0_u32..).zip(values.chunks_mut(4)) {
            let words = self.block(token, block);
            for (value, word) in values.iter_mut().zip(words) {
                *value = distribution.of(word);
            }
        }
    }

    /// [`Distribution::Uniform`].
    #[must_use]
    pub fn uniform(&self, token: u64, lane: u32) -> f32 {
        self.value(Distribution::Uniform, token, lane)
    }

    /// [`Distribution::OpenUniform`].
    #[must_use]
    pub fn open_uniform(&self, token: u64, lane: u32) -> f32 {
        self.value(Distribution::OpenUniform, token, lane)
    }

    /// [`Distribution::Normal`].
    #[must_use]
    pub fn normal(&self, token: u64, lane: u32) -> f32 {
        self.value(Distribution::Normal, token, lane)
    }

    /// [`Distribution::Gumbel`].
    #[must_use]
    pub fn gumbel(&self, token: u64, lane: u32) -> f32 {
        self.value(Distribution::Gumbel, token, lane)
    }

    /// Words of lanes `4 · block` to `4 · block + 3`.
    fn block(&self, token: u64, block: u32) -> [u32; 4] {
        let [low, high] = halves(token);
        philox4x32_10([low, high, block, 0], self.key)
    }
}

// === impl Distribution ===

impl Distribution {
    fn of(self, word: u32) -> f32 {
        match self {
            // 24 bits, as many as an f32 between 1/2 and 1 can tell apart.
            Self::Uniform => (word >> 8) as f32 * GRID,
            Self::OpenUniform => open(word),
            Self::Normal => inverse_normal(open(word)),
            Self::Gumbel => -math::log(-math::log(open(word))),
        }
    }
}

/// 2^-24.
const GRID: f32 = 1.0 / 16_777_216.0;

/// An odd multiple of 2^-24 below 1.
fn open(word: u32) -> f32 {
    ((word >> 9) * 2 + 1) as f32 * GRID
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
pub(crate) use self::{
    normal::inverse_normal as inverse_normal_at, philox::philox4x32_10 as philox,
};
