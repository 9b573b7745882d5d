//! From a few measured configurations to the costs that a simulation needs.
//!
//! Reading order:
//!
//! 1. [`Point`] and [`Domain`]: what is measured, and what is held out.
//! 2. [`ExpertTimes`]: what a core does with one expert, alone and beside others.
//! 3. [`Profile`]: what is left of it all, for simulations to come.

mod machine;
mod point;
mod profile;
pub(crate) mod search;

pub use machine::{ExpertTimes, time_expert};
pub use point::{Domain, LayerShape, Point};
pub use profile::{PointRecord, Profile, ProfileError};
