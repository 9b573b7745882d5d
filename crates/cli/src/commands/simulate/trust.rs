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
    pub(super) locked: Option<String>,
    /// Why these are.
    pub(super) outside: Option<String>,
    /// Topology whose links are emulated on the machine; `None`: its own.
    links: Option<String>,
}

/// One of several settings, with its predicted mean step.
pub(super) type Ranked<'a> = (&'a str, f64);

// === impl Trust ===

impl Trust {
    /// What `profile` says of itself, where the links of `links` are emulated.
    pub(super) fn of(profile: &Profile, links: Option<String>) -> Self {
        let (error, locked) = match &profile.verdict {
            None => (
                profile.error.p90,
                Some("the profile was never validated".to_owned()),
            ),
            Some(one) => (one.error.p90, one.lock()),
        };
        Self {
            error,
            domain: profile.domain.clone(),
            locked,
            outside: None,
            links,
        }
    }

    /// The same with the reason why figures are extrapolated, if there is one.
    pub(super) fn with(&self, outside: Option<String>) -> Self {
        Self {
            outside,
            ..self.clone()
        }
    }

    /// Links that were not calibrated, if these are not.
    pub(super) fn elsewhere(&self) -> Option<String> {
        let links = self.links.as_ref()?;
        (!self.domain.links.contains(&self.links)).then(|| {
            format!("links of {links}, emulated between processes of the profile's machine")
        })
    }
}

/// Whether the second of two times would still be the longer one if both were off by `error`.
pub(super) fn is_certain(shorter: f64, longer: f64, error: f64) -> bool {
    // An error of all of it can make anything of a time.
    error < 1.0 && longer * (1.0 - error) > shorter * (1.0 + error)
}

/// How much of a ranking would stand if every time were off by `error`, a share; `None` for costs of
/// which no error is known.
pub(super) fn verdict(order: &[Ranked<'_>], error: Option<f64>) -> String {
    let [(first, _), _, ..] = order else {
        return "one simulation has no rank".to_owned();
    };
    let Some(error) = error else {
        return "the costs are presets, which have no error band: take the order for a hint, and \
                calibrate for more"
            .to_owned();
    };
    let band = format!("the error band of ±{:.0} %", 100.0 * error);
    let pairs = || order.iter().zip(&order[1..]);
    let open = |(a, b): &(&Ranked<'_>, &Ranked<'_>)| !is_certain(a.1, b.1, error);
    let Some(((last, shorter), (next, longer))) = pairs().find(open) else {
        return match order.len() {
            2 => format!("{first} stays first within {band}"),
            all => format!("{first} stays first and all {all} places hold within {band}"),
        };
    };
    let place = pairs().take_while(|pair| !open(pair)).count();
    let apart = 100.0 * (longer / shorter.max(f64::MIN_POSITIVE) - 1.0);
    let holds = match place {
        0 => String::new(),
        1 => format!("{first} stays first; "),
        place => format!("{first} stays first and the first {place} places hold; "),
    };
    let many = pairs().filter(open).count();
    let others = match many {
        1 => String::new(),
        many => format!(
            "; so it is with {many} of the {} neighbours",
            order.len() - 1
        ),
    };
    format!(
        "{holds}{last} and {next} are {apart:.0} % apart, less than {band} can tell: their order may be \
         the other way round{others}"
    )
}
