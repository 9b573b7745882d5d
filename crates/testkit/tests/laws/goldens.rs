//! Real families, known answers, through a cluster.

use expertmesh_coordinator::StepInput;
use expertmesh_kernels::{Format, bf16_round};
use expertmesh_placement::Placement;
use expertmesh_testkit::{CASES, Cluster, ClusterSpec, Golden, tensor};

use crate::common::{EXCHANGES, same_bits};

/// The largest distance over the largest expected magnitude.
fn relative(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    let distance = got
        .iter()
        .zip(expected)
        .fold(0f32, |a, (got, expected)| a.max((got - expected).abs()));
    assert!(got.iter().all(|value| value.is_finite()));
    distance / largest
}

async fn through_clusters(case: &'static str, dtype: Format) {
    let golden = Golden::open(case, dtype);
    let experts = golden.expected_experts();
    let expected = golden.expected_output();
    let mut first: Option<Vec<f32>> = None;
    for workers in [1, 2, 3] {
        for exchange in EXCHANGES {
            let what = format!("{case} {dtype}, {workers} workers, {exchange}");
            let mut spec = ClusterSpec::new(golden.model.clone(), workers).exchange(exchange);
            spec.wire_dtype = dtype;
            if workers == 2 {
                // One expert here, all others there.
                let experts = u32::try_from(golden.model.source.spec().routed_experts()).unwrap();
                let uneven = (0..experts)
                    .map(|expert| vec![u32::from(expert != 3)])
                    .collect();
                spec.placement = Some(Placement::from_table(uneven, 2).unwrap());
            }
            let cluster = Cluster::start(spec).await;
            let input = StepInput {
                sequence: golden.sequence,
                ..StepInput::default()
            };
            let x = tensor(&golden.x, golden.model.source.spec().hidden);
            let step = cluster.coordinator().forward_in(x, input).await.unwrap();
            assert_eq!(step.route.tokens, golden.tokens);
            for (token, chosen) in step
                .route
                .experts
                .chunks_exact(step.route.top_k)
                .enumerate()
            {
                let mut chosen = chosen.to_vec();
                chosen.sort_unstable();
                assert_eq!(chosen, experts[token], "{what}: token {token}");
            }
            let output = step.output.as_slice().unwrap();
            let error = relative(output, &expected);
            match dtype {
                Format::F32 => assert!(error <= 2e-5, "{what}: {error:e}"),
                Format::Bf16 => {
                    let equal = output
                        .iter()
                        .zip(&expected)
                        .filter(|(a, b)| bf16_round(**a).to_bits() == bf16_round(**b).to_bits());
                    let share = equal.count() as f64 / expected.len() as f64;
                    assert!(error <= 3e-2, "{what}: {error:e}");
                    assert!(share >= 0.9, "{what}: {share} equal");
                    if first.is_none() {
                        println!(
                            "{what}: {:.2} % bit-equal, error {error:.1e}",
                            100.0 * share
                        );
                    }
                }
            }
            match &first {
                None => {
                    println!("{what}: error {error:.1e}");
                    first = Some(output.to_vec());
                }
                Some(first) => same_bits(output, first, &what),
            }
        }
    }
}

/// A weighted row is made from the row as the wire leaves it, wherever its home is.
#[tokio::test]
async fn weights_on_the_input_have_the_same_bits_over_a_lossy_wire() {
    let golden = Golden::open("llama4", Format::F32);
    let mut first: Option<Vec<f32>> = None;
    for exchange in EXCHANGES {
        let mut spec = ClusterSpec::new(golden.model.clone(), 3).exchange(exchange);
        spec.wire_dtype = Format::Bf16;
        let cluster = Cluster::start(spec).await;
        let step = cluster.forward(&golden.x).await.unwrap();
        let output = step.output.as_slice().unwrap();
        match &first {
            None => first = Some(output.to_vec()),
            Some(first) => same_bits(output, first, "llama4"),
        }
    }
}

#[tokio::test]
async fn goldens_in_f32() {
    for case in CASES {
        through_clusters(case, Format::F32).await;
    }
}

#[tokio::test]
async fn goldens_in_bf16() {
    for case in CASES {
        through_clusters(case, Format::Bf16).await;
    }
}
