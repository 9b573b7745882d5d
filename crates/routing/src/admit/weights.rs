//! What becomes of gate weights when choices are dropped.

use super::Admission;
use crate::{
    capacity::WeightRule,
    route::{Fate, Route},
};

/// Applies the rule to fates that are otherwise final.
pub(super) fn apply(route: &Route, rule: WeightRule, admission: &mut Admission) {
    match rule {
        WeightRule::Keep => {}
        WeightRule::Renormalise => admission.weights = Some(renormalised(route, &admission.fates)),
        WeightRule::Zero => drop_all_or_none(route, &mut admission.fates),
    }
}

fn renormalised(route: &Route, fates: &[Fate]) -> Vec<f32> {
    let mut weights = route.weights.clone();
    for token in (0..route.tokens).filter(|&token| !route.is_padding(token)) {
        let choices = route.choices_of(token);
        let (weights, fates) = (&mut weights[choices.clone()], &fates[choices]);
        let kept = weights.iter().zip(fates);
        let kept = kept.filter(|(_, fate)| **fate != Fate::Dropped);
        let sum = kept.fold(0.0, |sum, (weight, _)| sum + weight);
        let divisor = f32::EPSILON.max(sum);
        weights.iter_mut().for_each(|weight| *weight /= divisor);
    }
    weights
}

fn drop_all_or_none(route: &Route, fates: &mut [Fate]) {
    for token in 0..route.tokens {
        let fates = &mut fates[route.choices_of(token)];
        if fates.contains(&Fate::Dropped) {
            let all = fates.iter_mut().filter(|fate| **fate != Fate::Skipped);
            all.for_each(|fate| *fate = Fate::Dropped);
        }
    }
}
