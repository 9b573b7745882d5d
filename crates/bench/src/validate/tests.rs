use expertmesh_exchange::ExchangeKind;
use expertmesh_kernels::Format;
use expertmesh_simulator::Layer;

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
    // Measured once, nothing is known of the noise.
    assert_eq!(comparison(&[90.0], 110.0).spread(STEP), None);
}

#[test]
fn figures_stand_in_the_order_of_a_report() {
    let names = [
        "phases.experts",
        "combine",
        "phases.gate",
        "step",
        "exchange",
    ];
    let figures = BTreeMap::from(names.map(|name| (name.to_owned(), 10.0)));
    let mut one = comparison(&[10.0], 10.0);
    (one.measured_us, one.predicted_us) = (vec![figures.clone()], figures);
    let table = ErrorTable::of(&[one]);
    let names: Vec<&str> = table
        .figures
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        "step",
        "exchange",
        "combine",
        "phases.gate",
        "phases.experts",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_verdict_passes_if_every_seed_does_and_no_ledger_differs() {
    let gates = Gates::of_this_version().unwrap();
    let judged = |seed, predicted| Judged::of(seed, vec![comparison(&[100.0], predicted)], &gates);
    let (good, bad) = (judged(1, 105.0), judged(2, 200.0));
    let both = verdict(&[good.clone(), bad.clone()]).unwrap();
    assert_eq!((both.holdout_seeds, both.passed), (vec![1, 2], false));
    assert_eq!((both.error.points, both.error.max), (2, 1.0));
    // 23 good points and a seed of one bad point: together within the gates, and still not passed.
    let many = Judged::of(3, vec![comparison(&[100.0], 105.0); 23], &gates);
    assert!(!verdict(&[many.clone(), bad.clone()]).unwrap().passed);
    assert!(verdict(&[good.clone(), many]).unwrap().passed);
    let mut other = good.clone();
    other.points[0].ledger_difference = Some("messages: 1 measured, 2 simulated".to_owned());
    assert!(other.missed().is_none() && !other.passed());
    assert!(!verdict(&[other]).unwrap().passed);
    assert_eq!(verdict(&[]), None);
    // A seed that failed stays red until it is validated again, whatever others say.
    let red = verdict(std::slice::from_ref(&bad)).unwrap();
    assert_eq!(red.failed_seeds, [bad.holdout_seed]);
    let still = verdict(std::slice::from_ref(&good))
        .unwrap()
        .after(Some(&red));
    assert!(!still.passed && still.lock().is_some());
    let mended = Judged {
        holdout_seed: bad.holdout_seed,
        ..good.clone()
    };
    assert!(verdict(&[mended]).unwrap().after(Some(&still)).passed);
}

#[test]
fn what_is_measured_of_a_grid_is_drawn_from_it_and_all_of_it_where_there_is_room() {
    let domain = Domain::default();
    let grid = domain.grid();
    assert_eq!(grid.len(), 108);
    assert_eq!(domain.measured(108, 1), grid);
    let some = domain.measured(20, 1);
    assert_eq!(some.len(), 20);
    assert!(some.is_sorted() && some.iter().all(|point| grid.contains(point)));
    assert_eq!(some, domain.measured(20, 1));
    assert_ne!(some, domain.measured(20, 2));
    let star = some.iter().filter(|point| point.exchange == "star").count();
    assert!((4..=16).contains(&star), "{star}");
}

#[test]
fn a_grid_has_the_ends_of_its_domain_and_says_what_it_is() {
    let domain = Domain {
        workers: (3, 9),
        tokens: (2, 2000),
        shapes: Domain::default().shapes[..1].to_vec(),
        ..Domain::default()
    };
    let of = |what: fn(&Point) -> usize| -> Vec<usize> {
        let all: std::collections::BTreeSet<usize> = domain.grid().iter().map(what).collect();
        all.into_iter().collect()
    };
    assert_eq!(of(|point| point.workers), [3, 4, 6, 8, 9]);
    assert_eq!(of(|point| point.tokens), [2, 4, 16, 64, 256, 1024, 2000]);
    assert_eq!(
        domain.to_string(),
        "3 to 9 workers, 2 to 2000 tokens, 8x1024x2816 top-2, star and all-to-all on loopback"
    );
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

#[test]
fn only_what_was_calibrated_is_inside_of_a_domain() {
    let domain = Domain::default();
    let shape = domain.shapes[0];
    let layer = Layer::new(shape.hidden, shape.experts, shape.top_k, shape.expert());
    let star = ExchangeKind::Star;
    assert_eq!(domain.outside(2, 1, &layer, star), None);
    assert_eq!(domain.outside(6, 1024, &layer, star), None);
    let with = |change: fn(&mut Layer)| {
        let mut other = layer.clone();
        change(&mut other);
        domain.outside(2, 1, &other, star)
    };
    let cases = [
        (domain.outside(7, 1, &layer, star), "workers is 7"),
        (domain.outside(2, 1025, &layer, star), "tokens is 1025"),
        (
            domain.outside(2, 1, &layer, ExchangeKind::Hierarchical),
            "exchange is hierarchical, calibrated with star and all-to-all",
        ),
        (
            with(|layer| layer.top_k = 3),
            "8x1024x2816 top-3, calibrated with 8x1024x2816 top-2",
        ),
        (with(|layer| layer.experts = 64), "64x1024x2816"),
        (
            with(|layer| layer.expert.matrices = 2),
            "swiglu alone in f32",
        ),
        (
            with(|layer| layer.expert.weight_bytes /= 2),
            "swiglu alone in f32",
        ),
        (
            with(|layer| layer.wire = Format::Bf16),
            "swiglu alone in f32",
        ),
        (
            with(|layer| layer.shared = Some(layer.expert)),
            "swiglu alone in f32",
        ),
    ];
    for (outside, words) in cases {
        let outside = outside.expect(words);
        assert!(outside.contains(words), "{outside}");
    }
}
