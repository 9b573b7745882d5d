//! What each pattern claims, and how it is measured.

use crate::trace::NO_CHOICE;
use crate::workload::choose::{Rule, is_burst};
use crate::workload::claims_of_heat::HeatCount;
use crate::workload::claims_of_slots::{PairCount, ZipfCount, first_is_drawn};
use crate::workload::draws::Draws;
use crate::workload::selftest::{Claim, SelfTest, bernstein};
use crate::workload::{Pattern, WorkloadError, WorkloadShape};

/// A deck makes loads of a step differ by at most this; see `choose`.
const DEALT: f64 = 2.0;

/// The choices of one step: those of tokens that are no padding.
pub(super) struct Step<'a> {
    pub(super) step: u64,
    /// `[live, k]`.
    pub(super) rows: Vec<&'a [u32]>,
    /// `[E]`.
    pub(super) counts: Vec<u64>,
}

// === impl Draws ===

impl Draws {
    /// Holds choices against what the pattern claims: of each step its number and its experts
    /// `[T, k]` in slot order, be they [`Self::step`] or the routes of the gate that was given
    /// the workload's rows. Entries of padding are not looked at.
    ///
    /// A claim that does not hold is no error here: ask [`SelfTest::verdict`], or print it.
    ///
    /// # Errors
    /// [`WorkloadError`]: no steps, or a step of another shape or with an expert out of range.
    pub fn self_test<E: AsRef<[u32]>>(
        &self,
        steps: impl IntoIterator<Item = (u64, E)>,
    ) -> Result<SelfTest, WorkloadError> {
        let mut count = Count::new(self);
        for (step, experts) in steps {
            count.add(&self.read(step, experts.as_ref())?);
        }
        if count.steps == 0 {
            let expected = "at least 1".to_owned();
            return Err(WorkloadError::new(
                self.pattern,
                "steps",
                "0".to_owned(),
                expected,
            ));
        }
        Ok(SelfTest {
            workload: self.pattern.to_string(),
            steps: count.steps,
            claims: count.claims(),
        })
    }

    fn read<'a>(&self, step: u64, table: &'a [u32]) -> Result<Step<'a>, WorkloadError> {
        let WorkloadShape {
            tokens,
            experts,
            top_k,
            ..
        } = self.shape;
        let wrong = |field: &str, held: String, expected: String| {
            let field = format!("{field} of step {step}");
            Err(WorkloadError::new(self.pattern, &field, held, expected))
        };
        if table.len() != tokens * top_k {
            let held = format!("{} experts", table.len());
            return wrong("choices", held, format!("{tokens} tokens of {top_k}"));
        }
        let is_live = |token: usize| self.padding.as_ref().is_none_or(|padding| !padding[token]);
        let rows = table.chunks_exact(top_k).enumerate();
        let rows: Vec<&[u32]> = rows
            .filter_map(|(token, row)| is_live(token).then_some(row))
            .collect();
        let mut counts = vec![0; experts];
        for &expert in rows
            .iter()
            .copied()
            .flatten()
            .filter(|&&expert| expert != NO_CHOICE)
        {
            match counts.get_mut(expert as usize) {
                Some(count) => *count += 1,
                None => return wrong("expert", expert.to_string(), format!("below {experts}")),
            }
        }
        Ok(Step { step, rows, counts })
    }

    /// The share of all choices that the hottest expert is expected to get, where it is the same
    /// expert in every step.
    pub fn claimed_share(&self) -> Option<f64> {
        let (k, experts) = (self.shape.top_k as f64, self.shape.experts);
        let of_token = match &self.chooser.rule {
            Rule::Balanced(experts) => k / experts.len() as f64,
            Rule::Hot(..) if experts == self.shape.top_k => 1.0,
            Rule::Hot(_, share) => *share,
            Rule::Zipf(_, weights) => first_is_drawn(weights, self.shape.top_k),
            Rule::Heat(heat) if heat.places.len() == 1 => heat.hottest(),
            Rule::Locality(_) => k / experts as f64,
            Rule::Heat(_) | Rule::Burst(..) => return None,
        };
        Some(of_token / k)
    }
}

/// Counts over the steps of a self-test.
struct Count<'a> {
    draws: &'a Draws,
    steps: u64,
    /// Tokens that are no padding, of all steps.
    tokens: u64,
    /// Choices of all steps.
    choices: u64,
    /// Choices by expert.
    counts: Vec<u64>,
    /// Highest difference of two loads that are dealt, in one step.
    dealt: Option<f64>,
    rule: RuleCount<'a>,
}

enum RuleCount<'a> {
    None,
    Heat(HeatCount<'a>),
    Zipf(ZipfCount<'a>),
    Pairs(PairCount),
}

// === impl Count ===

impl<'a> Count<'a> {
    fn new(draws: &'a Draws) -> Self {
        let rule = match &draws.chooser.rule {
            Rule::Heat(heat) => RuleCount::Heat(HeatCount::new(heat, None)),
            Rule::Burst(heat, steps) => RuleCount::Heat(HeatCount::new(heat, Some(*steps))),
            Rule::Zipf(ranked, weights) => RuleCount::Zipf(ZipfCount::new(ranked, weights)),
            Rule::Locality(_) => RuleCount::Pairs(PairCount::new(draws.shape.experts)),
            Rule::Balanced(_) | Rule::Hot(..) => RuleCount::None,
        };
        Self {
            draws,
            steps: 0,
            tokens: 0,
            choices: 0,
            counts: vec![0; draws.shape.experts],
            dealt: None,
            rule,
        }
    }

    fn add(&mut self, step: &Step<'_>) {
        self.steps += 1;
        self.tokens += step.rows.len() as u64;
        self.choices += step.counts.iter().sum::<u64>();
        for (total, more) in self.counts.iter_mut().zip(&step.counts) {
            *total += more;
        }
        let dealt = match &self.draws.chooser.rule {
            Rule::Balanced(experts) => &experts[..],
            Rule::Hot(ranked, _) => &ranked[1..],
            Rule::Burst(heat, steps) if !is_burst(step.step, *steps) => &heat.order,
            _ => &[],
        };
        let loads = || dealt.iter().map(|&expert| step.counts[expert as usize]);
        if let (Some(most), Some(least)) = (loads().max(), loads().min()) {
            let apart = (most - least) as f64;
            self.dealt = Some(self.dealt.map_or(apart, |before: f64| before.max(apart)));
        }
        match &mut self.rule {
            RuleCount::None => {}
            RuleCount::Heat(count) => count.add(step),
            RuleCount::Zipf(count) => count.add(step),
            RuleCount::Pairs(count) => count.add(step),
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let WorkloadShape { tokens, top_k, .. } = self.draws.shape;
        let claimed = (self.tokens * top_k as u64) as f64;
        let choices = Some(self.choices as f64);
        let mut claims = vec![Claim::new("choices of tokens", claimed, choices, 0.0)];
        if !matches!(
            self.draws.chooser.rule,
            Rule::Heat(_) | Rule::Zipf(..) | Rule::Locality(_)
        ) {
            let name = "highest difference of two dealt loads in a step";
            claims.push(Claim::new(name, 0.0, self.dealt, DEALT));
        }
        match &self.draws.chooser.rule {
            Rule::Hot(ranked, share) => claims.push(self.hot(ranked, *share)),
            Rule::Balanced(experts) if self.draws.pattern == Pattern::ZeroExpertRank => {
                let idle = |expert: u32| !experts.contains(&expert);
                let counts = (0..).zip(&self.counts);
                let held: u64 = counts
                    .filter_map(|(expert, count)| idle(expert).then_some(count))
                    .sum();
                let name = "choices of the idle rank's experts";
                claims.push(Claim::new(name, 0.0, Some(held as f64), 0.0));
            }
            Rule::Balanced(_) if self.draws.pattern == Pattern::SourceRagged => {
                claims.extend(self.sources(tokens));
            }
            Rule::Zipf(_, weights) => {
                claims.push(self.hottest(first_is_drawn(weights, top_k)));
            }
            _ => {}
        }
        match &self.rule {
            RuleCount::None => {}
            RuleCount::Heat(count) => claims.extend(count.claims()),
            RuleCount::Zipf(count) => {
                if let Pattern::Zipf { exponent } = self.draws.pattern {
                    claims.extend(count.claim(exponent));
                }
            }
            RuleCount::Pairs(count) => {
                if let Rule::Locality(locality) = &self.draws.chooser.rule {
                    claims.extend(count.claims(locality, top_k >= 2));
                }
            }
        }
        claims
    }

    /// Share of tokens that choose the hot expert.
    fn hot(&self, ranked: &[u32], share: f64) -> Claim {
        let forced = ranked.len() == self.draws.shape.top_k;
        let share = if forced { 1.0 } else { share };
        let held = self.counts[ranked[0] as usize] as f64;
        let name = format!("share of tokens that choose expert {}", ranked[0]);
        self.of_tokens(name, share, held)
    }

    /// Share of tokens that choose the hottest expert of a Zipf law.
    fn hottest(&self, share: f64) -> Claim {
        let RuleCount::Zipf(count) = &self.rule else {
            return Claim::new("hottest expert", share, None, 0.0);
        };
        let held = self.counts[count.hottest() as usize] as f64;
        let name = format!("share of tokens that choose expert {}", count.hottest());
        self.of_tokens(name, share, held)
    }

    /// A share of independent tokens.
    fn of_tokens(&self, name: String, share: f64, held: f64) -> Claim {
        /// What numerical integration may be off.
        const INTEGRAL: f64 = 1e-4;
        let tokens = self.tokens as f64;
        let tolerance = bernstein(tokens * share * (1.0 - share), 1.0, 1.0) / tokens;
        let exact = if share == 1.0 {
            0.0
        } else {
            tolerance + INTEGRAL
        };
        let measured = (self.tokens > 0).then_some(held / tokens);
        Claim::new(name, share, measured, exact)
    }

    /// Shares of the tokens of the ranks with the most and the fewest: R, and 1, of R(R+1)/2
    /// parts. Each rank's rows and tokens are rounded, which moves a share by less than
    /// 2(R + 1) tokens.
    fn sources(&self, tokens: usize) -> Vec<Claim> {
        let padding = self.draws.padding.as_deref().unwrap_or_default();
        let rows = self.draws.ranks.rows(tokens);
        let live = |range: &std::ops::Range<usize>| {
            let padding = padding.get(range.clone()).unwrap_or_default();
            padding.iter().filter(|padding| !**padding).count()
        };
        let all: Vec<usize> = rows.iter().map(live).collect();
        let total = all.iter().sum::<usize>() as f64;
        let ranks = all.len() as f64;
        let parts = ranks * (ranks + 1.0) / 2.0;
        let share = |count: Option<&usize>| count.map(|&count| count as f64 / total);
        let tolerance = 2.0 * (ranks + 1.0) / total;
        [
            ("most", ranks / parts, share(all.iter().max())),
            ("fewest", 1.0 / parts, share(all.iter().min())),
        ]
        .map(|(which, claimed, measured)| {
            let name = format!("share of the rank with the {which} tokens");
            Claim::new(name, claimed, measured, tolerance)
        })
        .into()
    }
}
