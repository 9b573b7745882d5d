//! UCCL-EP's normal kernels: bytes that a rank dispatches and gets back.

use std::collections::BTreeSet;

use expertmesh_exchange::ExchangeKind;

use crate::published::ranks::{Ranks, uniform_route};
use crate::published::{PublishedError, Row, Section};

const EXPERTS: usize = 288;
const TOP_K: usize = 8;
const TOKENS: usize = 4096;
const HIDDEN: f64 = 7168.0;
/// GPUs of a node.
const NODE: usize = 8;
/// fp8 with a scale of 4 bytes for every 128 values.
const ROW_THERE: usize = 7168 + 4 * 7168 / 128;
/// The rank that is looked at, as an endpoint.
const HOME: u32 = 1;

/// Published bandwidth × time, MB: ranks, dispatch GB/s and µs, combine GB/s and µs.
const PUBLISHED: [(usize, [f64; 4]); 4] = [
    (8, [320.0, 500.0, 319.0, 973.0]),
    (16, [50.0, 1196.0, 18.0, 6379.0]),
    (24, [53.0, 1633.0, 26.0, 6365.0]),
    (32, [54.0, 2022.0, 43.0, 4899.0]),
];

/// Bytes of a rank's dispatch and combine, each row once for every place that needs it: a rank
/// within one node, a node beyond.
///
/// # Errors
/// [`PublishedError::Routing`] for routes that cannot be admitted.
pub fn volumes() -> Result<Section, PublishedError> {
    let mut rows = Vec::new();
    for (ranks, [dispatch_gbs, dispatch_us, combine_gbs, combine_us]) in PUBLISHED {
        let sent = rows_of(ranks)?;
        let row = |name: &str, published: f64, row_bytes: f64| Row {
            name: format!("EP{ranks} {name}"),
            published,
            predicted: sent as f64 * row_bytes / 1e6,
            bound: Some(0.03),
        };
        let (there, back) = (ROW_THERE as f64, 2.0 * HIDDEN);
        rows.push(row("dispatch", dispatch_gbs * dispatch_us / 1e3, there));
        rows.push(row("combine", combine_gbs * combine_us / 1e3, back));
    }
    Ok(Section {
        title: "UCCL-EP, normal kernels, p5en: bytes of a rank".to_owned(),
        unit: "MB".to_owned(),
        parameters: vec![
            format!("E = {EXPERTS} experts, which 8, 16, 24 and 32 ranks divide; top-{TOP_K}, {TOKENS} tokens a rank, H = 7168 (README of UCCL-EP)"),
            "uniform choices, seed 0; fp8 rows of 7392 B there, bf16 rows of 14336 B back".to_owned(),
            "rows of our plan and ledger, all-to-all (EP8) or hierarchical with nodes as groups: one to each rank or node, its own included, as the published GB/s count it; nothing is fitted".to_owned(),
            "back: as many, since UCCL-EP adds up at the rank or node; ours returns a row a choice, for the same bits everywhere, and would move more".to_owned(),
        ],
        rows,
        note: None,
    })
}

/// Rows that leave [`HOME`] by the ledger of its plan, and the tokens that stay at its own place.
fn rows_of(ranks: usize) -> Result<u64, PublishedError> {
    let is_one_node = ranks == NODE;
    let layout = Ranks {
        ranks,
        kind: match is_one_node {
            true => ExchangeKind::AllToAll,
            false => ExchangeKind::Hierarchical,
        },
        node: NODE,
        row_bytes: ROW_THERE,
        row_per_choice: false,
    };
    let plan = layout.plan(&uniform_route(TOKENS, EXPERTS, TOP_K, 0), &[HOME])?;
    // The home itself, or the ranks of its node, which get rows without a relay.
    let near = if is_one_node { HOME } else { NODE as u32 };
    let away = near + 1..=ranks as u32;
    let away = away.map(|rank| plan.ledger.cell(HOME, rank).rows);
    let mut stay: BTreeSet<u32> = BTreeSet::new();
    for shard in &plan.shards {
        let hosts = shard.plan.hosts.iter().enumerate();
        for (at, _) in hosts.filter(|(_, host)| host.endpoint <= near) {
            stay.extend(shard.plan.host(at).tokens.iter().copied());
        }
    }
    Ok(away.sum::<u64>() + stay.len() as u64)
}
