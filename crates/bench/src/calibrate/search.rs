//! Pattern search (Hooke and Jeeves, "Direct Search", J. ACM 8, 1961): a minimum without derivatives.

/// Factor by which a parameter is first moved.
const FIRST: f64 = 2.0;
/// A round that takes less than this share off the loss is followed by one of smaller moves: parameters
/// that hardly matter would else wander on for ever.
const WORTH: f64 = 2e-4;

/// Moves `parameters`, all above 0, by factors until no round lowers `loss` by much any more, down to
/// the factor `finest`; returns the loss that is left. Deterministic: parameters take turns in
/// their order.
pub(crate) fn search(
    parameters: &mut [f64],
    finest: f64,
    mut loss: impl FnMut(&[f64]) -> f64,
) -> f64 {
    let mut best = loss(parameters);
    let mut factor = FIRST;
    while factor > finest {
        let (before, begun) = (parameters.to_vec(), best);
        for at in 0..parameters.len() {
            for step in [factor, 1.0 / factor] {
                let held = parameters[at];
                parameters[at] = held * step;
                let now = loss(parameters);
                if now < best {
                    best = now;
                    break;
                }
                parameters[at] = held;
            }
        }
        if best >= begun * (1.0 - WORTH) {
            factor = factor.sqrt();
            continue;
        }
        // What helped once may help again: the same move for all parameters together.
        let ahead: Vec<f64> = before
            .iter()
            .zip(parameters.iter())
            .map(|(old, new)| new * new / old)
            .collect();
        let now = loss(&ahead);
        if now < best {
            best = now;
            parameters.copy_from_slice(&ahead);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::search;

    #[test]
    fn the_minimum_of_a_bent_valley_is_found() {
        // In logarithms: a valley along x·y = 6 with its lowest point at x = 3, y = 2.
        let loss = |p: &[f64]| {
            let (x, y) = (p[0].ln(), p[1].ln());
            10.0 * (x + y - 6.0_f64.ln()).powi(2) + (x - 3.0_f64.ln()).powi(2)
        };
        let mut parameters = [0.1, 50.0];
        let left = search(&mut parameters, 1.01, loss);
        assert!(left < 0.01, "{left} left at {parameters:?}");
        assert!((parameters[0] * parameters[1] / 6.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_loss_that_sinks_without_end_is_left_alone() {
        // The further off, the better, by ever less: every move pays, none is worth it.
        let mut calls = 0;
        let mut parameters = [1.0; 4];
        let left = search(&mut parameters, 1.03, |p| {
            calls += 1;
            1.0 + 0.01 / (1.0 + p.iter().map(|one| one.ln().abs()).sum::<f64>())
        });
        assert!(left < 1.01 && calls < 500, "{left} after {calls} calls");
    }

    #[test]
    fn a_parameter_that_does_not_matter_stays() {
        let mut parameters = [5.0, 7.0];
        let left = search(&mut parameters, 1.01, |p| (p[0] - 2.0).abs());
        assert!(left < 0.05, "{left}");
        assert!((parameters[1] - 7.0).abs() < 1e-12);
    }
}
