//! Lines through measured times, by relative error.

/// Rounds of reweighting; the largest error no longer moves in its fourth digit after half of them.
const ROUNDS: usize = 400;

/// α and slope of `y ≈ α + slope · x` with the smallest largest relative error.
///
/// Lawson's iteration (C. L. Lawson, UCLA thesis, 1961): weighted least squares of the relative
/// errors, each point's weight multiplied by the size of its error, until only the points of the
/// largest error are left.
pub(super) fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let error = |(alpha, slope): (f64, f64), at: usize| (alpha + slope * x[at]) / y[at] - 1.0;
    let largest = |fitted| {
        (0..x.len())
            .map(|at| error(fitted, at).abs())
            .fold(0.0, f64::max)
    };
    let mut weights = vec![1.0; x.len()];
    let mut best = squares(x, y, &weights);
    for _ in 0..ROUNDS {
        let fitted = squares(x, y, &weights);
        if largest(fitted) < largest(best) {
            best = fitted;
        }
        for (at, weight) in weights.iter_mut().enumerate() {
            *weight *= error(fitted, at).abs();
        }
        let sum: f64 = weights.iter().sum();
        // A line through every point.
        if sum <= 0.0 {
            break;
        }
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    best
}

/// Least squares of weighted relative errors; a constant where `x` does not vary.
fn squares(x: &[f64], y: &[f64], weights: &[f64]) -> (f64, f64) {
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        let points = x.iter().zip(y).zip(weights);
        points.map(|((x, y), weight)| weight * of(*x, *y)).sum()
    };
    let s11 = sum(&|_, y| 1.0 / y / y);
    let s12 = sum(&|x, y| x / y / y);
    let s22 = sum(&|x, y| x * x / y / y);
    let (t1, t2) = (sum(&|_, y| 1.0 / y), sum(&|x, y| x / y));
    let determinant = s11 * s22 - s12 * s12;
    if determinant <= 1e-12 * s11 * s22 {
        return (t1 / s11, 0.0);
    }
    (
        (t1 * s22 - t2 * s12) / determinant,
        (t2 * s11 - t1 * s12) / determinant,
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_largest_relative_error_is_the_smallest_there_is() {
        // Of a + b·x with errors in turn +10 %, −10 %, +10 % the line itself is the answer.
        let x = [1.0, 10.0, 100.0];
        let y = [12.0 / 1.1, 30.0 / 0.9, 210.0 / 1.1];
        let (alpha, slope) = line(&x, &y);
        assert!((alpha - 10.0).abs() < 0.05, "{alpha}");
        assert!((slope - 2.0).abs() < 0.01, "{slope}");
    }

    #[test]
    fn a_line_through_every_point_is_found() {
        let (alpha, slope) = line(&[0.0, 1.0, 5.0], &[3.0, 5.0, 13.0]);
        assert!((alpha - 3.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
    }
}
