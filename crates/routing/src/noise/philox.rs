//! Philox4x32-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011. The generator of cuRAND and of PyTorch on GPUs.

const ROUNDS: u32 = 10;
/// Multipliers of the first and of the third word.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What a round adds to each word of the key: the golden ratio, and √3 - 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four random words for a counter and a key: a bijection of the counter.
pub(crate) fn philox4x32_10(counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut words = counter;
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(words[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(words[2]);
        let high = |product: u64| (product >> 32) as u32;
        words = [
            high(second) ^ words[1] ^ key[0],
            second as u32,
            high(first) ^ words[3] ^ key[1],
            first as u32,
        ];
        key[0] = key[0].wrapping_add(WEYL[0]);
        key[1] = key[1].wrapping_add(WEYL[1]);
    }
    words
}
