//! How many choices an expert accepts, and what happens to the rest.

use std::ffi::OsString;

use clap::Args;
use expertmesh_routing::{
    CapacityConfig, CapacityPreset, CapacityScope, CapacityShare, Overflow, QueueOrder, WeightRule,
};

use crate::args::values::{parsed, push, push_set, whole};
use crate::error::Failure;

/// The flags of capacity and overflow; `None` for absent ones.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Capacity")]
pub(crate) struct CapacityArgs {
    /// Choices that an expert accepts in a step, as a multiple of an even share
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true, value_parser = factor)]
    pub(crate) capacity_factor: Option<f64>,
    /// The same outside training [default: as --capacity-factor]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true, value_parser = factor)]
    pub(crate) eval_capacity_factor: Option<f64>,
    /// What exceeds the capacity: dropless; drop-position (= drop), drop-weight, drop-random or
    /// drop-prioritised (= bpr); reroute, reroute-to-replica, spill or grow-and-replay (= grow)
    /// [default: dropless, with a capacity factor drop-position]
    #[arg(long, value_name = "POLICY", value_parser = parsed::<Overflow>)]
    pub(crate) overflow: Option<Overflow>,
    /// The rule of a published system, which the other flags then change: switch, gshard,
    /// megatron, megatron-position, deepspeed-top1, deepspeed-top2, deepspeed-topk, tutel,
    /// tutel-bpr, megablocks or fastmoe-gshard
    #[arg(long, value_name = "SYSTEM", value_parser = parsed::<CapacityPreset>)]
    pub(crate) capacity_preset: Option<CapacityPreset>,
    /// Choices that an expert accepts whatever the factor [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    pub(crate) min_capacity: Option<u32>,
    /// Capacities are rounded up to a multiple of this [default: 1]
    #[arg(long, value_name = "N", value_parser = whole::<u32>)]
    pub(crate) capacity_alignment: Option<u32>,
    /// A capacity is no larger than what the step needs, and without a factor just that
    #[arg(long)]
    pub(crate) automatic_capacity: bool,
    /// Whose capacity it is: that of an expert, or a worker's receive budget [default: expert]
    #[arg(long, value_name = "WHOSE", value_parser = parsed::<CapacityScope>)]
    pub(crate) capacity_scope: Option<CapacityScope>,
    /// Which tokens share a capacity: batch, sequence or senders:N [default: batch]
    #[arg(long, value_name = "TOKENS", value_parser = parsed::<CapacityShare>)]
    pub(crate) capacity_share: Option<CapacityShare>,
    /// Who is served first: token-major or choice-major [default: token-major]
    #[arg(long, value_name = "ORDER", value_parser = parsed::<QueueOrder>)]
    pub(crate) queue_order: Option<QueueOrder>,
    /// Gate weights of a token that lost a choice: keep, renormalise or zero [default: keep]
    #[arg(long, value_name = "RULE", value_parser = parsed::<WeightRule>)]
    pub(crate) drop_weights: Option<WeightRule>,
    /// After each step move the gate's selection bias by this, towards experts of low load; for
    /// gates that select by a bias, such as --gate sigmoid-bias
    #[arg(long, value_name = "RATE", requires = "training", value_parser = rate)]
    pub(crate) bias_rate: Option<f32>,
    /// Draw the gate's noise, and use the capacity factor of training
    #[arg(long)]
    pub(crate) training: bool,
}

// === impl CapacityArgs ===

impl CapacityArgs {
    /// Makes every choice. A factor alone drops by position; without one nothing is dropped.
    ///
    /// # Errors
    /// [`Failure::Input`] for flags that contradict each other.
    pub(crate) fn resolve(&self) -> Result<CapacityConfig, Failure> {
        let preset = self.capacity_preset.map(CapacityPreset::config);
        let factor = self.capacity_factor.is_some() || self.automatic_capacity;
        let usual = preset.unwrap_or_else(|| CapacityConfig {
            overflow: if factor || self.eval_capacity_factor.is_some() {
                Overflow::DropPosition
            } else {
                Overflow::Dropless
            },
            ..CapacityConfig::default()
        });
        let config = CapacityConfig {
            factor: self.capacity_factor.or(usual.factor),
            // Who names one factor means it, whatever a preset has for evaluation.
            eval_factor: self
                .eval_capacity_factor
                .or(self.capacity_factor)
                .or(usual.eval_factor),
            training: self.training,
            automatic: self.automatic_capacity || usual.automatic,
            overflow: self.overflow.unwrap_or(usual.overflow),
            min_capacity: self.min_capacity.unwrap_or(usual.min_capacity),
            alignment: self.capacity_alignment.unwrap_or(usual.alignment),
            scope: self.capacity_scope.unwrap_or(usual.scope),
            share: self.capacity_share.unwrap_or(usual.share),
            order: self.queue_order.unwrap_or(usual.order),
            weights: self.drop_weights.unwrap_or(usual.weights),
            ..usual
        };
        if config.overflow == Overflow::Dropless
            && let Some(flag) = self.needs_capacity()
        {
            return Err(Failure::input(format!(
                "{flag} has no meaning with --overflow dropless; add --capacity-factor"
            )));
        }
        self.check_factors(&config)?;
        config.validate()?;
        Ok(config)
    }

    /// What a policy and a factor ask of each other, by flag.
    fn check_factors(&self, config: &CapacityConfig) -> Result<(), Failure> {
        let policy = config.overflow;
        if policy == Overflow::Dropless {
            let given = [
                ("--capacity-factor", self.capacity_factor.is_some()),
                (
                    "--eval-capacity-factor",
                    self.eval_capacity_factor.is_some(),
                ),
                ("--automatic-capacity", self.automatic_capacity),
            ];
            return match first_given(given) {
                None => Ok(()),
                Some(flag) => Err(Failure::input(format!(
                    "{flag} has no meaning with --overflow dropless; drop one of them, or take \
                     another policy, such as --overflow drop-position"
                ))),
            };
        }
        if config.active_factor().is_none() && !config.automatic {
            return Err(Failure::input(format!(
                "--overflow is {policy}, which asks for a capacity: add --capacity-factor, such as \
                 --capacity-factor 1.25, or --automatic-capacity"
            )));
        }
        Ok(())
    }

    /// The flags again, for a child process.
    pub(crate) fn to_argv(&self, argv: &mut Vec<OsString>) {
        push(argv, "--capacity-factor", self.capacity_factor);
        push(argv, "--eval-capacity-factor", self.eval_capacity_factor);
        push(argv, "--overflow", self.overflow);
        push(argv, "--capacity-preset", self.capacity_preset);
        push(argv, "--min-capacity", self.min_capacity);
        push(argv, "--capacity-alignment", self.capacity_alignment);
        push_set(argv, "--automatic-capacity", self.automatic_capacity);
        push(argv, "--capacity-scope", self.capacity_scope);
        push(argv, "--capacity-share", self.capacity_share);
        push(argv, "--queue-order", self.queue_order);
        push(argv, "--drop-weights", self.drop_weights);
        push(argv, "--bias-rate", self.bias_rate);
        push_set(argv, "--training", self.training);
    }

    /// The first flag of those under which an expert may refuse a choice.
    pub(crate) fn limits(&self) -> Option<&'static str> {
        let overflow = self.overflow.is_some_and(|one| one != Overflow::Dropless);
        let given = [
            ("--overflow", overflow),
            ("--capacity-factor", self.capacity_factor.is_some()),
            (
                "--eval-capacity-factor",
                self.eval_capacity_factor.is_some(),
            ),
            ("--capacity-preset", self.capacity_preset.is_some()),
            ("--automatic-capacity", self.automatic_capacity),
        ];
        first_given(given)
    }

    /// The first flag of those that a cluster does not tell about itself.
    pub(crate) fn untold(&self) -> Option<&'static str> {
        let given = [
            (
                "--eval-capacity-factor",
                self.eval_capacity_factor.is_some(),
            ),
            ("--capacity-preset", self.capacity_preset.is_some()),
            ("--automatic-capacity", self.automatic_capacity),
            ("--bias-rate", self.bias_rate.is_some()),
            ("--training", self.training),
        ];
        first_given(given)
    }

    /// The first flag that only a capacity gives a meaning.
    pub(crate) fn needs_capacity(&self) -> Option<&'static str> {
        let given = [
            ("--min-capacity", self.min_capacity.is_some()),
            ("--capacity-alignment", self.capacity_alignment.is_some()),
            ("--capacity-scope", self.capacity_scope.is_some()),
            ("--capacity-share", self.capacity_share.is_some()),
            ("--queue-order", self.queue_order.is_some()),
            ("--drop-weights", self.drop_weights.is_some()),
        ];
        first_given(given)
    }
}

/// The first flag that was given.
fn first_given<const N: usize>(flags: [(&'static str, bool); N]) -> Option<&'static str> {
    let mut given = flags.into_iter().filter(|(_, given)| *given);
    given.next().map(|(flag, _)| flag)
}

fn rate(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("expected a finite number above 0, such as 0.001".to_owned()),
    }
}

/// Reads a capacity factor. 0 and below have a meaning in some systems; the rule says which numbers it
/// takes.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() => Ok(factor),
        _ => Err("expected a finite number, such as 1.25".to_owned()),
    }
}
