//! Rules that look at where experts are.

use super::{Buffers, Rows, Weigh};
use crate::{
    admit::Domains,
    config::GroupScore,
    error::RoutingError,
    gate::Choices,
    select::{group_rank, top_k},
};

/// The `k` highest keys within the `keep` best domains (DeepSeek-V3's node-limited routing). It is
/// group-limited selection, with the experts whose first domain is the same for a group: they need
/// be neither neighbours nor equally many. Ties go to the lower domain.
pub(crate) fn node_limited(
    rows: &Rows<'_>,
    keep: usize,
    by: GroupScore,
) -> Result<Choices, RoutingError> {
    let domains = table(rows)?;
    let mut members: Vec<Vec<u32>> = vec![vec![]; domains.count()];
    for expert in (0_u32..).take(rows.experts()) {
        if let Some(&first) = domains.of(expert).first() {
            members[first as usize].push(expert);
        }
    }
    // A domain without experts has no rank, and nobody could choose from it.
    members.retain(|members| !members.is_empty());
    let keep = keep.min(members.len());
    let mut sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    let fewest: usize = sizes[..keep].iter().sum();
    if fewest < rows.top_k() {
        let found = format!("{fewest} experts in the smallest {keep}");
        let expected = format!("at least {}, the choices of a token", rows.top_k());
        return Err(RoutingError::config("domains", found, expected));
    }
    let (mut ranks, mut kept) = (vec![], vec![0; keep]);
    let (mut own, mut chosen) = (vec![], vec![]);
    rows.fixed(Weigh::Scores, |_, row, experts, buffers| {
        let Buffers { select, keys, top } = buffers;
        let row = rows.selector.keys(row, select);
        ranks.clear();
        for members in &members {
            own.clear();
            own.extend(members.iter().map(|&expert| row[expert as usize]));
            ranks.push(group_rank(by, &own, &mut chosen, top));
        }
        top_k(&ranks, &mut kept, top);
        keys.clear();
        keys.resize(row.len(), f32::NEG_INFINITY);
        for &expert in kept.iter().flat_map(|&domain| &members[domain as usize]) {
            keys[expert as usize] = row[expert as usize];
        }
        top_k(keys, experts, top);
        Ok(())
    })
}

/// The domain of a token in a batch of `tokens` rows that is cut into `domains` shards of
/// neighbours: shard `i` begins at row `⌊tokens · i / domains⌋`.
#[must_use]
pub fn home_of(token: usize, tokens: usize, domains: usize) -> usize {
    let (token, tokens, domains) = (token as u128, tokens.max(1) as u128, domains as u128);
    // The last shard whose first row is not past the token.
    let home = ((token + 1) * domains).saturating_sub(1) / tokens;
    home as usize
}

/// FasterMoE's topology-aware gate: keys choose, and a token that has an expert outside its home
/// domain is outgoing. Of each domain's `n` tokens the `⌊outgoing · n⌋` outgoing ones with the
/// highest key of an expert outside stay so, ties to the lower token; the others choose again,
/// among the experts that their home holds. Padding is not counted.
///
/// FastMoE's `faster_gate.py` counts a token by its first expert alone, ranks by logits, sends the
/// tokens that leave to one expert outside and one inside, and once a domain is over its share keeps
/// in even the second experts of tokens whose first is inside. Here the share bounds the rows that
/// leave, and a token that may leave is routed as if there were no bound.
pub(crate) fn topology(rows: &Rows<'_>, outgoing: f32) -> Result<Choices, RoutingError> {
    let domains = table(rows)?;
    let homes = homes(rows, domains)?;
    let is_in = |expert: u32, home: u32| domains.of(expert).contains(&home);
    let k = rows.top_k();
    for home in (0_u32..).take(domains.count()) {
        let held = (0_u32..).take(rows.experts()).filter(|&e| is_in(e, home));
        let held = held.count();
        if held < k && homes.contains(&home) {
            let found = format!("{held} experts in domain {home}");
            let expected = format!("at least {k}, the choices of a token that may not leave it");
            return Err(RoutingError::config("domains", found, expected));
        }
    }
    let mut buffers = Buffers::default();
    // Outgoing tokens of each domain, with their ranks.
    let mut leaving: Vec<Vec<(f32, usize)>> = vec![vec![]; domains.count()];
    let mut counts = vec![0_usize; domains.count()];
    let mut chosen = vec![0; k];
    for (token, &home) in homes.iter().enumerate() {
        if rows.context.is_padding(token) {
            continue;
        }
        counts[home as usize] += 1;
        let keys = rows.selector.keys(rows.row(token), &mut buffers.select);
        top_k(keys, &mut chosen, &mut buffers.top);
        // The first outside is the highest: slots fall.
        if let Some(&expert) = chosen.iter().find(|&&expert| !is_in(expert, home)) {
            leaving[home as usize].push((keys[expert as usize], token));
        }
    }
    let mut stays = vec![false; rows.tokens];
    for (mut leaving, count) in leaving.into_iter().zip(counts) {
        #[expect(clippy::cast_sign_loss, reason = "a product of numbers not negative")]
        let quota = (count as f64 * f64::from(outgoing)).floor() as usize;
        // Stable: of equal keys the lower token goes first.
        leaving.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, token) in leaving.into_iter().skip(quota) {
            stays[token] = true;
        }
    }
    rows.fixed(Weigh::Scores, |token, row, experts, buffers| {
        let keys = rows.selector.keys(row, &mut buffers.select);
        if stays[token] {
            for (expert, key) in (0_u32..).zip(keys.iter_mut()) {
                if !is_in(expert, homes[token]) {
                    *key = f32::NEG_INFINITY;
                }
            }
        }
        top_k(keys, experts, &mut buffers.top);
        Ok(())
    })
}

fn table<'a>(rows: &Rows<'a>) -> Result<&'a Domains, RoutingError> {
    let Some(domains) = rows.context.domains else {
        return Err(rows.missing("domains", "the domains of each expert"));
    };
    if domains.experts() != rows.experts() {
        let found = format!("{} experts", domains.experts());
        let expected = format!("{}, the number of experts", rows.experts());
        return Err(RoutingError::config("domains", found, expected));
    }
    Ok(domains)
}

fn homes(rows: &Rows<'_>, domains: &Domains) -> Result<Vec<u32>, RoutingError> {
    let Some(homes) = rows.context.homes else {
        let home = |token| home_of(token, rows.tokens, domains.count()) as u32;
        return Ok((0..rows.tokens).map(home).collect());
    };
    match homes.iter().find(|&&home| home as usize >= domains.count()) {
        Some(home) => {
            let expected = format!("a domain below {}", domains.count());
            Err(RoutingError::config("homes", home, expected))
        }
        None => Ok(homes.to_vec()),
    }
}
