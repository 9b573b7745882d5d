//! DeepEP V1's low-latency kernels on H800: time by the number of ranks.

use expertmesh_exchange::ExchangeKind;
use expertmesh_topology::{Fabric, Topology};

use crate::published::ranks::{Ranks, completions, mean_us};
use crate::published::{PublishedError, Row, Section};

const EXPERTS: usize = 256;
const TOP_K: usize = 8;
const TOKENS: usize = 128;
/// fp8 values, a scale of 4 bytes for every 128 of them, and 16 bytes of header.
const ROW_THERE: u64 = 7168 + 7168 / 128 * 4 + 16;
/// bf16 values.
const ROW_BACK: u64 = 2 * 7168;

/// Ranks, dispatch and combine in µs.
const PUBLISHED: [(usize, [f64; 2]); 5] = [
    (16, [118.0, 195.0]),
    (32, [155.0, 273.0]),
    (64, [173.0, 314.0]),
    (128, [192.0, 369.0]),
    (256, [194.0, 360.0]),
];
/// α is fitted on the first two.
const FITTED: usize = 2;
/// Largest errors of dispatch and combine beyond them.
const BOUNDS: [f64; 2] = [0.05, 0.12];

/// Dispatch and combine through the ports of the `h800` preset, and one α for each of them.
///
/// # Errors
/// [`PublishedError::Topology`] if the preset cannot be used.
pub fn low_latency() -> Result<Section, PublishedError> {
    let topology = Topology::preset("h800")?;
    let names = ["dispatch", "combine"];
    let mut alphas = Vec::new();
    let mut rows = Vec::new();
    let sent = PUBLISHED.iter().map(|(ranks, _)| {
        let one = Ranks {
            ranks: *ranks,
            kind: ExchangeKind::AllToAll,
            node: 1,
            row_bytes: ROW_THERE as usize,
            row_per_choice: true,
        };
        one.rows(TOKENS, EXPERTS, TOP_K, 0)
    });
    let sent = sent.collect::<Result<Vec<_>, _>>()?;
    for (phase, row_bytes) in [ROW_THERE, ROW_BACK].into_iter().enumerate() {
        let mut carried = Vec::new();
        for ((ranks, _), there) in PUBLISHED.into_iter().zip(&sent) {
            let fabric = Fabric::new(&topology, ranks)?;
            // What a combine sends is what a dispatch brought, the other way.
            let matrix = match phase {
                0 => there.clone(),
                _ => transposed(there, ranks),
            };
            carried.push(mean_us(&completions(&fabric, &matrix, row_bytes)));
        }
        let rests = PUBLISHED.iter().zip(&carried).take(FITTED);
        let alpha = rests
            .map(|((_, us), carried)| us[phase] - carried)
            .sum::<f64>();
        let alpha = alpha / FITTED as f64;
        alphas.push(format!("{alpha:.1} µs for {}", names[phase]));
        for (at, ((ranks, us), carried)) in PUBLISHED.iter().zip(&carried).enumerate() {
            rows.push(Row {
                name: format!("EP{ranks} {}", names[phase]),
                published: us[phase],
                predicted: alpha + carried,
                bound: (at >= FITTED).then_some(BOUNDS[phase]),
            });
        }
    }
    Ok(Section {
        title: "DeepEP V1, low latency, H800: time by the number of ranks".to_owned(),
        unit: "µs".to_owned(),
        parameters: vec![
            format!("{TOKENS} tokens a rank, H = 7168, top-{TOP_K} of {EXPERTS}, uniform choices, seed 0; one row a choice: {ROW_THERE} B there, {ROW_BACK} B back"),
            "rows by the exchange's own plan; links of the preset h800 (cluster/topologies/h800.toml); mean over the ranks of when each has sent and got everything".to_owned(),
            CHECKED.to_owned(),
            format!("α on top, the mean rest of EP16 and EP32 alone: {}", alphas.join(", ")),
        ],
        rows,
        note: None,
    })
}

/// What these times say of a simulation, and what not.
pub(super) const CHECKED: &str = "this holds the plan's rows, the port model and its arithmetic against measurements; ranks send \
     in turns without conflict, as homes of a simulated step do (within 1 %, by a test); its chunks, credits and threads are not in it";

fn transposed(matrix: &[u64], ranks: usize) -> Vec<u64> {
    let cell = |at: usize| matrix[at % ranks * ranks + at / ranks];
    (0..ranks * ranks).map(cell).collect()
}
