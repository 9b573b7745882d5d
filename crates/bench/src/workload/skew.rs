//! How uneven the gate's choices were.

use std::fmt;

/// The spread that a run's routes had, beside what the workload claimed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skew {
    /// Choices of the hottest expert over the mean.
    pub max_over_mean: f64,
    /// Share of all choices that the hottest expert got.
    pub hottest_share: f64,
    /// The share that the workload claimed, where it claims one.
    pub claimed_share: Option<f64>,
}

// === impl Skew ===

impl Skew {
    /// From choices by expert, padding left out.
    pub fn of(choices: impl Iterator<Item = u64>, claimed_share: Option<f64>) -> Self {
        let (mut total, mut max, mut experts) = (0_u64, 0_u64, 0_u32);
        for count in choices {
            total += count;
            max = max.max(count);
            experts += 1;
        }
        let hottest_share = match total {
            0 => 0.0,
            total => max as f64 / total as f64,
        };
        Self {
            max_over_mean: hottest_share * f64::from(experts),
            hottest_share,
            claimed_share,
        }
    }
}

/// `max/mean 2.13, hottest expert 26.6 % of the choices (claimed 26.4 %)`
impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            max_over_mean,
            hottest_share,
            claimed_share,
        } = self;
        let percent = 100.0 * hottest_share;
        write!(
            f,
            "max/mean {max_over_mean:.2}, hottest expert {percent:.1} % of the choices"
        )?;
        match claimed_share {
            Some(claimed) => write!(f, " (claimed {:.1} %)", 100.0 * claimed),
            None => Ok(()),
        }
    }
}
