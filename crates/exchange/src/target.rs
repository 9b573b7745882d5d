//! Who computes a choice, and when, in the 32 bits that plans and frames carry.

/// The expert of a choice, which of its replicas computes it, and the wave that it is sent in.
///
/// Packed as `wave << 24 | replica << 18 | expert`: the usual choice, by the first replica in the
/// first wave, is the number of its expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Expert, below [`Target::EXPERTS`].
    pub expert: u32,
    /// Position among the endpoints that hold it, below [`Target::REPLICAS`].
    pub replica: u8,
    /// Wave, from 0.
    pub wave: u8,
}

const EXPERT_BITS: u32 = 18;
const REPLICA_BITS: u32 = 6;

// === impl Target ===

impl Target {
    /// Experts of a layer are fewer.
    pub const EXPERTS: usize = 1 << EXPERT_BITS;
    /// Replicas of an expert are at most as many.
    pub const REPLICAS: usize = 1 << REPLICA_BITS;
    /// Where the wave begins: packed targets are ordered by it first.
    pub(crate) const WAVE_BIT: u32 = EXPERT_BITS + REPLICA_BITS;

    /// The packed form. What exceeds its bits was refused when the layer was configured.
    pub fn pack(self) -> u32 {
        let replica = u32::from(self.replica) & ((1 << REPLICA_BITS) - 1);
        u32::from(self.wave) << Self::WAVE_BIT
            | replica << EXPERT_BITS
            | self.expert & ((1 << EXPERT_BITS) - 1)
    }

    /// What `word` stands for; every word stands for something.
    pub fn unpack(word: u32) -> Self {
        let [.., wave] = word.to_le_bytes();
        Self {
            expert: word & ((1 << EXPERT_BITS) - 1),
            replica: (word >> EXPERT_BITS & ((1 << REPLICA_BITS) - 1)) as u8,
            wave,
        }
    }
}
