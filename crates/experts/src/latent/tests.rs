use super::*;
use crate::ComputePool;
use crate::testing::{bits, linear, packed, round, values};

const HIDDEN: usize = 33;
const LATENT: usize = 12;

fn projections(dtype: Format) -> LatentProjections {
    let matrix = |seed, out, inner| packed(&values(out * inner, seed, dtype), out, inner, dtype);
    let (into, out_of) = (matrix(3, LATENT, HIDDEN), matrix(4, HIDDEN, LATENT));
    LatentProjections::new(into, out_of, dtype).unwrap()
}

/// Over the pool and without it; three blocks, the last of them not full.
#[test]
fn rows_pass_each_projection_by_themselves() {
    const ROWS: usize = 2 * GATE_TOKENS + 5;
    let pool = ComputePool::new(2, "latent").unwrap();
    for dtype in [Format::F32, Format::Bf16] {
        let both = projections(dtype);
        let x = values(ROWS * HIDDEN, 5, dtype);
        let project = |x: &[f32], inner, out: usize, seed| -> Vec<f32> {
            let weights = values(out * inner, seed, dtype);
            let rows = x.chunks_exact(inner).flat_map(|x| linear(x, &weights));
            rows.map(|value| round(value, dtype)).collect()
        };
        let latent = project(&x, HIDDEN, LATENT, 3);
        let expected = project(&latent, LATENT, HIDDEN, 4);
        let (mut z, mut y) = (vec![9.0; ROWS * LATENT], vec![9.0; ROWS * HIDDEN]);
        both.enter(&x, &mut z).unwrap();
        both.leave(&z, &mut y).unwrap();
        assert_eq!(bits(&z), bits(&latent), "{dtype}");
        assert_eq!(bits(&y), bits(&expected), "{dtype}");
        z.fill(9.0);
        y.fill(9.0);
        pool.install(|| both.enter(&x, &mut z).and_then(|()| both.leave(&z, &mut y)))
            .unwrap();
        assert_eq!(bits(&y), bits(&expected), "{dtype} on the pool");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let both = projections(Format::F32);
    assert_eq!((both.hidden(), both.latent()), (HIDDEN, LATENT));
    assert_eq!(both.flops_per_row(), (2 * LATENT * HIDDEN) as u64);
    let matrix = || packed(&[0.0; 2], 2, 1, Format::F32);
    let error = LatentProjections::new(matrix(), matrix(), Format::F32);
    let error = error.err().unwrap().to_string();
    assert!(
        error.starts_with("weights latent_out: got shape [2, 1], expected [1, 2]"),
        "{error}"
    );
    let pool = ComputePool::new(2, "latent").unwrap();
    for (x, z) in [(3, 2), (2, 3), (0, 1)] {
        let (x, mut z) = (vec![0.0; x * HIDDEN], vec![0.0; z * LATENT]);
        assert!(both.enter(&x, &mut z).is_err());
        assert!(pool.install(|| both.enter(&x, &mut z)).is_err());
    }
    // Whole blocks and one value more.
    let (z, mut y) = (
        vec![0.0; GATE_TOKENS * LATENT + 1],
        vec![0.0; GATE_TOKENS * HIDDEN],
    );
    assert!(pool.install(|| both.leave(&z, &mut y)).is_err());
}

#[test]
fn no_rows_are_no_work() {
    projections(Format::Bf16).enter(&[], &mut []).unwrap();
}
