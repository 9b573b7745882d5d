//! Claims about hot sets, standing, moving and in bursts.

use crate::workload::choose::is_burst;
use crate::workload::claims::Step;
use crate::workload::heat::{Heat, PERIOD};
use crate::workload::selftest::{ALPHA, Claim, bernstein, highest_variance};

/// What a set of experts got, and what it was to get.
#[derive(Debug, Clone, Copy, Default)]
struct Got {
    choices: u64,
    held: u64,
    expected: f64,
    variance: f64,
}

/// Counts of the steps of a heat.
pub(super) struct HeatCount<'a> {
    heat: &'a Heat,
    /// Steps from burst to burst, where the heat comes in bursts.
    burst: Option<u64>,
    /// The hot set of each step.
    hot: Got,
    /// The set of the phase before.
    stale: Got,
    /// The set in steps without burst.
    quiet: Got,
    quiet_steps: u64,
    /// By expert: choices, their expected number, its variance.
    loads: Vec<(u64, f64, f64)>,
    /// Step before, its phase, and the phase whose set had the most choices.
    before: Option<(u64, usize, usize)>,
    moves: u64,
    expected_moves: u64,
    /// Expected number of steps in which another set has more choices, at most.
    mistaken: f64,
}

// === impl Heat ===

impl Heat {
    /// Probability that a token chooses the likeliest expert.
    pub(super) fn hottest(&self) -> f64 {
        let most = self.lengths(0).into_iter().max();
        most.unwrap_or_default() as f64 / PERIOD as f64
    }

    /// Expected choices of a token among the set of `phase`, whose experts have these lengths.
    fn mean(&self, phase: usize, lengths: &[u64]) -> f64 {
        let of_set = self
            .set(phase)
            .map(|expert| lengths[expert as usize] as f64);
        of_set.sum::<f64>() / PERIOD as f64
    }
}

// === impl Got ===

impl Got {
    /// Adds a step of `tokens` independent tokens, each with `mean` choices in the set on
    /// average and at most `most`.
    fn add(&mut self, step: &Step<'_>, set: impl Iterator<Item = u32>, mean: f64, most: f64) {
        let tokens = step.rows.len() as f64;
        self.choices += step.counts.iter().sum::<u64>();
        self.held += set.map(|expert| step.counts[expert as usize]).sum::<u64>();
        self.expected += tokens * mean;
        self.variance += tokens * highest_variance(mean, most);
    }

    fn share(&self) -> Option<f64> {
        (self.choices > 0).then_some(self.held as f64 / self.choices as f64)
    }

    fn claim(&self, name: String, most: f64) -> Claim {
        let choices = (self.choices as f64).max(1.0);
        let tolerance = bernstein(self.variance, most, 1.0) / choices;
        Claim::new(name, self.expected / choices, self.share(), tolerance)
    }
}

// === impl HeatCount ===

impl<'a> HeatCount<'a> {
    pub(super) fn new(heat: &'a Heat, burst: Option<u64>) -> Self {
        Self {
            heat,
            burst,
            hot: Got::default(),
            stale: Got::default(),
            quiet: Got::default(),
            quiet_steps: 0,
            loads: vec![(0, 0.0, 0.0); heat.order.len()],
            before: None,
            moves: 0,
            expected_moves: 0,
            mistaken: 0.0,
        }
    }

    /// Most choices of a token in a set.
    fn most(&self) -> f64 {
        self.heat.size.min(self.heat.top_k) as f64
    }

    pub(super) fn add(&mut self, step: &Step<'_>) {
        let (heat, most) = (self.heat, self.most());
        let (phase, stale) = heat.phase(step.step);
        if self.burst.is_some_and(|steps| !is_burst(step.step, steps)) {
            let mean = heat.top_k as f64 * heat.size as f64 / heat.order.len() as f64;
            self.quiet_steps += 1;
            return self.quiet.add(step, heat.set(phase), mean, most);
        }
        let lengths = heat.lengths(phase);
        let mean = heat.mean(phase, &lengths);
        self.hot.add(step, heat.set(phase), mean, most);
        if stale != phase {
            let mean = heat.mean(stale, &lengths);
            self.stale.add(step, heat.set(stale), mean, most);
        }
        let tokens = step.rows.len() as f64;
        for ((load, length), count) in self.loads.iter_mut().zip(&lengths).zip(&step.counts) {
            let p = *length as f64 / PERIOD as f64;
            load.0 += count;
            load.1 += tokens * p;
            load.2 += tokens * p * (1.0 - p);
        }
        if self.heat.jumps {
            self.follow(step, phase, &lengths, mean);
        }
    }

    /// Follows which set has the most choices.
    fn follow(&mut self, step: &Step<'_>, phase: usize, lengths: &[u64], mean: f64) {
        let heat = self.heat;
        let load = |phase: usize| -> u64 {
            let set = heat.set(phase);
            set.map(|expert| step.counts[expert as usize]).sum()
        };
        let phases = 0..heat.places.len();
        let hottest = phases.clone().max_by_key(|&at| (load(at), at == phase));
        let hottest = hottest.unwrap_or(phase);
        // Hoeffding: that the difference of two sets, within ±c a token and g on average, comes
        // out at or below 0 has a chance of at most exp(-T·g²/2c²).
        let tokens = step.rows.len() as f64;
        let chance = |other: usize| {
            let gap = (mean - heat.mean(other, lengths)).max(0.0) / self.most();
            (-tokens * gap * gap / 2.0).exp()
        };
        let others = phases.filter(|other| *other != phase);
        self.mistaken += others.map(chance).sum::<f64>().min(1.0);
        if let Some((before, its_phase, its_hottest)) = self.before
            && before.wrapping_add(1) == step.step
        {
            self.moves += u64::from(hottest != its_hottest);
            self.expected_moves += u64::from(phase != its_phase);
        }
        self.before = Some((step.step, phase, hottest));
    }

    pub(super) fn claims(&self) -> Vec<Claim> {
        let (name, most) = (&self.heat.name, self.most());
        let in_bursts = if self.burst.is_some() {
            " in bursts"
        } else {
            ""
        };
        let mut claims = vec![
            self.hot
                .claim(format!("share of the {name}{in_bursts}"), most),
        ];
        claims.push(self.farthest());
        if self.burst.is_some() {
            claims.extend(self.ratio());
        }
        if self.heat.places.len() > 1 {
            claims.push(
                self.stale
                    .claim(format!("share of the {name} before"), most),
            );
        }
        if self.heat.jumps {
            // A step that is mistaken makes a move too many on either side, or hides one.
            let tolerance = match self.mistaken <= ALPHA {
                true => 0.0,
                false => 2.0 * (self.mistaken + bernstein(self.mistaken, 1.0, 1.0)),
            };
            let moves = Some(self.moves as f64);
            let expected = self.expected_moves as f64;
            claims.push(Claim::new(
                "moves of the hottest set",
                expected,
                moves,
                tolerance,
            ));
        }
        claims
    }

    /// The expert whose share is farthest from its claim, in parts of its tolerance.
    fn farthest(&self) -> Claim {
        let experts = self.loads.len() as f64;
        let choices = (self.hot.choices as f64).max(1.0);
        let of = |(expert, &(count, expected, variance)): (usize, &(u64, f64, f64))| {
            let tolerance = bernstein(variance, 1.0, experts);
            let off = (count as f64 - expected).abs() / tolerance;
            (off, expert, count as f64, expected, tolerance)
        };
        let all = self.loads.iter().enumerate().map(of);
        // Of equals the first.
        let worst = all.reduce(|worst, next| if next.0 > worst.0 { next } else { worst });
        let (_, expert, count, expected, tolerance) = worst.unwrap_or_default();
        let measured = (self.hot.choices > 0).then_some(count / choices);
        let name = format!("share of expert {expert}, the farthest off");
        Claim::new(name, expected / choices, measured, tolerance / choices)
    }

    /// Share of the set in quiet steps, and how many times that it has in bursts. Quiet steps are
    /// dealt: an expert is at most two choices off its share of a step.
    fn ratio(&self) -> [Claim; 2] {
        /// Choices that a load which is dealt is off at most.
        const OFF: f64 = 2.0;
        let (hot, quiet) = (&self.hot, &self.quiet);
        let choices = |got: &Got| (got.choices as f64).max(1.0);
        let even = self.heat.size as f64 / self.heat.order.len() as f64;
        let quiet_steps = self.quiet_steps as f64;
        let of_quiet = OFF * self.heat.size as f64 * quiet_steps / choices(quiet);
        let of_hot = bernstein(hot.variance, self.most(), 1.0) / choices(hot);
        let claimed = hot.expected / choices(hot) / even;
        let highest = (hot.expected / choices(hot) + of_hot) / (even - of_quiet).max(0.0);
        let both = hot.share().zip(quiet.share());
        [
            Claim::new(
                "share of that set in other steps",
                even,
                quiet.share(),
                of_quiet,
            ),
            Claim::new(
                "burst over other steps",
                claimed,
                both.map(|(hot, quiet)| hot / quiet),
                highest - claimed,
            ),
        ]
    }
}
