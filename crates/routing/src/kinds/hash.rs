//! Experts by token id: S. Roller et al., "Hash layers for large sparse models", NeurIPS 2021.

use super::{Rows, Weigh};
use crate::{
    config::{HashWeights, RouterConfig},
    error::RoutingError,
    gate::Choices,
};

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The expert of `slot` for a token id, where the slots before it hold `taken`.
///
/// `h = mix(mix(seed + G · (id + 1)) + G · (slot + 1))` with `G` = 0x9e3779b97f4a7c15, sums and
/// products modulo 2^64, and `mix` the finaliser of SplitMix64 (Steele et al., OOPSLA 2014). The
/// expert is number `⌊h · (experts - slot) / 2^64⌋` of those that are not taken, ascending. So
/// a token's experts differ, and each is as likely as the next.
#[must_use]
pub fn hash_expert(seed: u64, id: u32, experts: usize, taken: &[u32]) -> u32 {
    let place = |count: u64| GOLDEN.wrapping_mul(count + 1);
    let token = mix(seed.wrapping_add(place(u64::from(id))));
    let hash = mix(token.wrapping_add(place(taken.len() as u64)));
    let free = experts.saturating_sub(taken.len()) as u128;
    // Below `experts`, which an expert's index can hold.
    let rank = ((u128::from(hash) * free) >> 64) as u32;
    // The expert with `rank` free ones before it: as many experts further as are taken up to it.
    let mut expert = rank;
    loop {
        let passed = taken.iter().filter(|&&taken| taken <= expert).count() as u32;
        if rank + passed == expert {
            return expert;
        }
        expert = rank + passed;
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A table `[vocabulary, k]` that spreads tokens evenly, for
/// [`Gate::with_token_table`](crate::Gate::with_token_table): Roller et al.'s balanced assignment.
/// Token ids by falling frequency, ties to the lower id, each take the `k` experts of least load so
/// far, ties to the lower expert; a token adds its frequency to the load of each.
///
/// # Errors
/// A `top_k` that is not 1 to `experts`, more experts than an index holds.
pub fn balanced_table(
    frequencies: &[u64],
    experts: usize,
    top_k: usize,
) -> Result<Vec<u32>, RoutingError> {
    let Ok(count) = u32::try_from(experts) else {
        let expected = format!("1 to {}", u32::MAX);
        return Err(RoutingError::config("experts", experts, expected));
    };
    if !(1..=experts).contains(&top_k) {
        let expected = format!("1 to {experts}, the number of experts");
        return Err(RoutingError::config("top_k", top_k, expected));
    }
    let mut ids: Vec<usize> = (0..frequencies.len()).collect();
    ids.sort_by_key(|&id| std::cmp::Reverse(frequencies[id]));
    let mut table = vec![0; frequencies.len() * top_k];
    let mut queue: std::collections::BTreeSet<(u128, u32)> =
        (0..count).map(|expert| (0, expert)).collect();
    for id in ids {
        let row = &mut table[id * top_k..(id + 1) * top_k];
        let lightest: Vec<(u128, u32)> = queue.iter().take(top_k).copied().collect();
        for (slot, (load, expert)) in row.iter_mut().zip(lightest) {
            *slot = expert;
            queue.remove(&(load, expert));
            queue.insert((load + u128::from(frequencies[id]), expert));
        }
    }
    Ok(table)
}

/// Refuses a table `[vocabulary, k]` that the router cannot choose from.
pub(crate) fn check_table(
    field: &'static str,
    table: &[u32],
    config: &RouterConfig,
) -> Result<(), RoutingError> {
    let k = config.top_k;
    let rows = table.len() / k;
    RoutingError::check_length(field, table.len(), [rows, k], "rows x top_k")?;
    let mut rows = table.chunks_exact(k).enumerate();
    rows.try_for_each(|(token, row)| check_row(field, token, row, config.experts))
}

/// Refuses experts of `token` that are not there or not distinct.
pub(crate) fn check_row(
    field: &'static str,
    token: usize,
    row: &[u32],
    experts: usize,
) -> Result<(), RoutingError> {
    for (slot, &expert) in row.iter().enumerate() {
        if expert as usize >= experts {
            return Err(RoutingError::NoSuchExpert {
                token,
                slot,
                expert,
                experts,
            });
        }
        if row[..slot].contains(&expert) {
            let found = format!("expert {expert} twice in row {token}");
            return Err(RoutingError::config(field, found, "experts that differ"));
        }
    }
    Ok(())
}

/// By [`hash_expert`].
pub(crate) fn hash(
    rows: &Rows<'_>,
    seed: u64,
    weights: HashWeights,
) -> Result<Choices, RoutingError> {
    let ids = ids(rows)?;
    rows.fixed(weights.into(), |token, row, experts, _| {
        for slot in 0..experts.len() {
            experts[slot] = hash_expert(seed, ids[token], row.len(), &experts[..slot]);
        }
        Ok(())
    })
}

/// By a table `[vocabulary, k]` that was checked.
pub(crate) fn by_table(
    rows: &Rows<'_>,
    table: &[u32],
    weights: HashWeights,
) -> Result<Choices, RoutingError> {
    let ids = ids(rows)?;
    let k = rows.top_k();
    rows.fixed(weights.into(), |token, _, experts, _| {
        let id = ids[token] as usize;
        let Some(row) = table.chunks_exact(k).nth(id) else {
            let found = format!("{id} at token {}", rows.number(token));
            let expected = format!("below {}, the rows of the token table", table.len() / k);
            return Err(RoutingError::config("token_ids", found, expected));
        };
        experts.copy_from_slice(row);
        Ok(())
    })
}

fn ids<'a>(rows: &Rows<'a>) -> Result<&'a [u32], RoutingError> {
    let ids = rows.context.token_ids;
    ids.ok_or_else(|| rows.missing("token_ids", "the id of each token"))
}

// === impl Weigh ===

impl From<HashWeights> for Weigh {
    fn from(weights: HashWeights) -> Self {
        match weights {
            HashWeights::Uniform => Self::Uniform,
            HashWeights::Scores => Self::Scores,
        }
    }
}
