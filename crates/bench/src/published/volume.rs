//! UCCL-EP's normal kernels: bytes that a rank dispatches and gets back.

use std::collections::BTreeSet;

use crate::published::ranks::uniform_choices;
use crate::published::{Row, Section};

const EXPERTS: u32 = 288;
const TOP_K: usize = 8;
const TOKENS: usize = 4096;
const HIDDEN: f64 = 7168.0;
/// GPUs of a node.
const NODE: u32 = 8;

/// Published bandwidth × time, MB: ranks, dispatch GB/s and µs, combine GB/s and µs.
const PUBLISHED: [(u32, [f64; 4]); 4] = [
    (8, [320.0, 500.0, 319.0, 973.0]),
    (16, [50.0, 1196.0, 18.0, 6379.0]),
    (24, [53.0, 1633.0, 26.0, 6365.0]),
    (32, [54.0, 2022.0, 43.0, 4899.0]),
];

/// Bytes of a rank's dispatch and combine, each row once for every place that needs it: a rank
/// within one node, a node beyond.
pub fn volumes() -> Section {
    let chosen = uniform_choices(TOKENS, EXPERTS, TOP_K, 0);
    let mut rows = Vec::new();
    for (ranks, [dispatch_gbs, dispatch_us, combine_gbs, combine_us]) in PUBLISHED {
        let places = if ranks == NODE { NODE } else { ranks / NODE };
        let sent: usize = chosen
            .chunks_exact(TOP_K)
            .map(|experts| {
                let place = |expert: &u32| expert * places / EXPERTS;
                experts.iter().map(place).collect::<BTreeSet<u32>>().len()
            })
            .sum();
        // fp8 with a scale of 4 bytes for every 128 values; back in bf16.
        let (there, back) = (HIDDEN + 4.0 * HIDDEN / 128.0, 2.0 * HIDDEN);
        let row = |name: &str, published: f64, row_bytes: f64| Row {
            name: format!("EP{ranks} {name}"),
            published,
            predicted: sent as f64 * row_bytes / 1e6,
            bound: Some(0.03),
        };
        rows.push(row("dispatch", dispatch_gbs * dispatch_us / 1e3, there));
        rows.push(row("combine", combine_gbs * combine_us / 1e3, back));
    }
    Section {
        title: "UCCL-EP, normal kernels, p5en: bytes of a rank".to_owned(),
        unit: "MB".to_owned(),
        parameters: vec![
            format!("E = {EXPERTS} experts, which 8, 16, 24 and 32 ranks divide; top-{TOP_K}, {TOKENS} tokens a rank, H = 7168 (README of UCCL-EP)"),
            "uniform choices, seed 0; fp8 rows of 7392 B there, bf16 rows of 14336 B back".to_owned(),
            "a row goes once to each rank (EP8) or node (EP16 and more), its own included, as the published GB/s count it; nothing is fitted".to_owned(),
        ],
        rows,
        note: None,
    }
}
