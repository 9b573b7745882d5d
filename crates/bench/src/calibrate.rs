//! From a few measured configurations to the costs that a simulation needs.
//!
//! Reading order:
//!
//! 1. [`Point`] and [`Domain`]: what is measured, and what is held out.
//! 2. [`ExpertTimes`]: what a core does with one expert, alone and beside others.
//! 3. [`Predictor`], [`figures_of`], [`ledger_difference`]: a point simulated, and beside a real run.
//! 4. [`fit`]: costs under which simulated points are as long as measured ones.
//! 5. [`Profile`]: what is left of it all, for simulations to come.

mod fit;
mod machine;
mod point;
mod predict;
mod profile;
pub(crate) mod search;

pub use fit::{NOT_FITTED, Sample, fit};
pub use machine::{ExpertTimes, time_expert};
pub use point::{Domain, LayerShape, Point};
pub use predict::{Predictor, figures_of, ledger_difference};
pub use profile::{PointRecord, Profile, ProfileError, Verdict, set_loopback};
