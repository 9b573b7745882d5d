use super::*;
use crate::calibrate::Domain;

fn comparison(measured: &[f64], predicted: f64) -> Comparison {
    let figure = |value: f64| BTreeMap::from([(STEP.to_owned(), value)]);
    Comparison {
        point: Domain::default().grid()[0].clone(),
        measured_us: measured.iter().map(|one| figure(*one)).collect(),
        predicted_us: figure(predicted),
        ledger_difference: None,
    }
}

#[test]
fn a_comparison_is_made_of_medians_and_half_the_range() {
    let one = comparison(&[90.0, 130.0, 100.0], 110.0);
    assert_eq!(one.median_us(STEP), Some(100.0));
    assert!((one.error(STEP).unwrap() - 0.1).abs() < 1e-12);
    assert!((one.spread(STEP).unwrap() - 0.2).abs() < 1e-12);
    assert_eq!(one.error("combine"), None);
}

#[test]
fn errors_are_summed_up_by_size_and_the_bias_keeps_its_sign() {
    let errors = FigureErrors::of(vec![-0.2, 0.1, -0.1, -0.3, 0.0]).unwrap();
    assert_eq!(errors.points, 5);
    assert!((errors.median - 0.1).abs() < 1e-12);
    assert!((errors.p90 - 0.3).abs() < 1e-12);
    assert!((errors.bias + 0.1).abs() < 1e-12);
    assert_eq!(FigureErrors::of(Vec::new()), None);
}

#[test]
fn gates_fail_on_large_errors_and_on_no_points_at_all() {
    let gates = Gates::of_this_version().unwrap();
    let verdict = |points: &[Comparison]| -> Vec<bool> {
        let judged = gates.judge(&ErrorTable::of(points));
        judged.iter().map(Gate::holds).collect()
    };
    assert_eq!(verdict(&[]), [false, false]);
    let good = comparison(&[100.0], 105.0);
    assert_eq!(verdict(&vec![good.clone(); 10]), [true, true]);
    let bad = comparison(&[100.0], 200.0);
    let mixed: Vec<Comparison> = [vec![good; 8], vec![bad; 2]].concat();
    assert_eq!(verdict(&mixed), [true, false]);
}

#[test]
fn held_out_points_are_new_distinct_and_a_function_of_the_seed() {
    let domain = Domain::default();
    let grid = domain.grid();
    let drawn = domain.held_out(&grid, 7, 40);
    assert_eq!(drawn.len(), 40);
    assert_eq!(drawn, domain.held_out(&grid, 7, 40));
    assert_ne!(drawn, domain.held_out(&grid, 8, 40));
    assert!(drawn.iter().all(|point| !grid.contains(point)));
    let workers = drawn.iter().map(|point| point.workers);
    assert!(workers.clone().all(|workers| (2..=6).contains(&workers)));
    assert!(workers.clone().max() > workers.min());
}
