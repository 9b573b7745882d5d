//! How far the costs of a simulation can be trusted, and what of a ranking that leaves.

use expertmesh_bench::calibrate::{Domain, Profile};

/// How far a profile's costs can be trusted.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// Error that nine of ten points had, as a share: at held-out points where it was validated, else
    /// at those that it was fitted to.
    pub(crate) error: f64,
    pub(super) domain: Domain,
    /// Why figures are extrapolated whatever is simulated.
    pub(super) locked: Option<&'static str>,
    /// Why these are.
    pub(super) outside: Option<String>,
}

/// One of several settings, with its predicted mean step.
pub(super) type Ranked<'a> = (&'a str, f64);

// === impl Trust ===

impl Trust {
    /// What `profile` says of itself.
    pub(super) fn of(profile: &Profile) -> Self {
        let (error, locked) = match &profile.verdict {
            None => (profile.error.p90, Some("the profile was never validated")),
            Some(one) if one.passed => (one.error.p90, None),
            Some(one) => (one.error.p90, Some("the profile failed its validation")),
        };
        Self {
            error,
            domain: profile.domain.clone(),
            locked,
            outside: None,
        }
    }
}

/// Whether the first of a ranking would still be the first if every time were off by `error`, a
/// share; `None` for costs of which no error is known.
pub(super) fn verdict(order: &[Ranked<'_>], error: Option<f64>) -> String {
    let [(first, least), (second, next), ..] = order else {
        return "one simulation has no rank".to_owned();
    };
    let Some(error) = error else {
        return "the costs are presets, which have no error band: take the order for a hint, and \
                calibrate for more"
            .to_owned();
    };
    let apart = next / least.max(f64::MIN_POSITIVE);
    let bands = (1.0 + error) / (1.0 - error).max(0.01);
    match apart > bands {
        true => format!(
            "{first} stays first within the error band of ±{:.0} %",
            100.0 * error
        ),
        false => format!(
            "{first} and {second} are {:.0} % apart, less than the error band of ±{:.0} % can tell: \
             the order may be the other way round",
            100.0 * (apart - 1.0),
            100.0 * error
        ),
    }
}
