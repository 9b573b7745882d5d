//! The machine of an expert host: which queued chunks are computed together.

use std::collections::{BTreeMap, VecDeque};

/// What the driver of a [`Host`] must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAction {
    /// Compute these jobs together, grouped by expert.
    Run(Vec<u64>),
}

/// The chunks of one step at a host, whoever their homes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cohort {
    /// Number of the step.
    pub step: u64,
    /// Chunks that all homes together send to this host before they wait for results. What they
    /// send later waits for nobody.
    pub chunks: u32,
    /// How long this chunk may wait for the others, nanoseconds; 0 for one that is cheap to
    /// compute, which waits for nobody and still counts for those that do.
    pub patience_ns: u64,
}

/// A batch closes at this many choices: beyond it, reading weights no longer dominates.
pub const BATCH_CHOICES: usize = 4096;

/// Chunks that cost less do not wait for their cohort: timers count milliseconds, and a wait must not
/// last longer than what it may save.
pub const PATIENT_FROM_NS: u64 = 1_000_000;

/// Rough speed of one core, for choices of where and when only: multiply-adds count two.
const FLOPS_PER_NS: u64 = 40;
/// Rough speed of reading weights and copying rows, for the same choices.
const BYTES_PER_NS: u64 = 8;

/// What computing a chunk alone will roughly cost, nanoseconds: arithmetic or the reading of its
/// experts' weights, whichever is longer, and the copying of `row_bytes` of results.
pub fn estimate_ns(flops: u64, weight_bytes: u64, row_bytes: u64) -> u64 {
    (flops / FLOPS_PER_NS).max(weight_bytes / BYTES_PER_NS) + row_bytes / BYTES_PER_NS
}

/// Queues chunks of rows and hands them to the experts in batches.
///
/// The homes of a step send to a host at about the same time, and computing the first chunk alone
/// means reading the weights of its experts again for the others. So a chunk may wait until its
/// cohort is complete, but no longer than computing it would take: whatever comes, waiting costs at
/// most as much as not having waited. Chunks that are cheap to compute should not wait at all.
///
/// While a batch runs, chunks of other homes, steps and clients gather, and the next batch takes
/// them together. An expert's result for a row does not depend on its batch, so neither does any
/// output.
#[derive(Debug)]
pub struct Host {
    queue: VecDeque<Waiting>,
    cohorts: BTreeMap<u64, Gathering>,
    /// Chunks in the queue that wait for nobody, and choices of all that are in it.
    free: usize,
    choices: usize,
    running: bool,
    batch_choices: usize,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    job: u64,
    choices: usize,
    /// The step whose other chunks it waits for.
    step: Option<u64>,
}

/// A cohort of which something has come.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    missing: u32,
    patience: Patience,
    /// Chunks in the queue that wait for the others.
    waiting: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Nothing that came needs any.
    None,
    Until(u64),
    /// It is over, or the cohort is complete.
    Over,
}

/// Cohorts are remembered for chunks that come late, and forgotten beyond this number.
const MOST_COHORTS: usize = 64;

// === impl Cohort ===

impl Cohort {
    /// The cohort of a chunk that [`estimate_ns`] says costs `cost_ns` to compute alone: it waits
    /// as long, unless it is cheap.
    pub fn new(step: u64, chunks: u32, cost_ns: u64) -> Self {
        let patience_ns = if cost_ns < PATIENT_FROM_NS {
            0
        } else {
            cost_ns
        };
        Self {
            step,
            chunks,
            patience_ns,
        }
    }
}

// === impl Host ===

impl Host {
    /// A host whose batches close once they hold `batch_choices` choices.
    pub fn new(batch_choices: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            cohorts: BTreeMap::new(),
            free: 0,
            choices: 0,
            running: false,
            batch_choices: batch_choices.max(1),
        }
    }

    /// A chunk with `choices` choices arrived, under a key of the driver's.
    pub fn on_rows(&mut self, job: u64, choices: usize, cohort: Cohort, now_ns: u64) {
        if self.cohorts.len() >= MOST_COHORTS && !self.cohorts.contains_key(&cohort.step) {
            self.cohorts.clear();
            // Nobody waits for a cohort that is forgotten.
            self.queue.iter_mut().for_each(|next| next.step = None);
            self.free = self.queue.len();
        }
        let gathering = self.cohorts.entry(cohort.step).or_insert(Gathering {
            missing: cohort.chunks,
            patience: Patience::None,
            waiting: 0,
        });
        gathering.missing = gathering.missing.saturating_sub(1);
        let waits = cohort.patience_ns > 0;
        if gathering.missing == 0 {
            gathering.patience = Patience::Over;
        } else if waits && gathering.patience == Patience::None {
            gathering.patience = Patience::Until(now_ns.saturating_add(cohort.patience_ns));
        }
        match waits {
            true => gathering.waiting += 1,
            false => self.free += 1,
        }
        self.choices += choices;
        let step = waits.then_some(cohort.step);
        self.queue.push_back(Waiting { job, choices, step });
    }

    /// The batch that ran is done.
    pub fn on_done(&mut self) {
        self.running = false;
    }

    /// Time passed: cohorts whose patience is over wait no longer.
    pub fn on_tick(&mut self, now_ns: u64) {
        if self.free == self.queue.len() {
            return;
        }
        for gathering in self.cohorts.values_mut() {
            if matches!(gathering.patience, Patience::Until(until) if until <= now_ns) {
                gathering.patience = Patience::Over;
            }
        }
    }

    /// When [`Host::on_tick`] has something to say; `None` if nothing waits for a cohort.
    pub fn deadline_ns(&self) -> Option<u64> {
        if self.running || self.queue.is_empty() {
            return None;
        }
        let until = |gathering: &Gathering| match gathering.patience {
            Patience::Until(until) => Some(until),
            Patience::None | Patience::Over => None,
        };
        self.cohorts.values().filter_map(until).min()
    }

    /// Chunks that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next batch, `None` while one runs, nothing waits, or all that waits still gathers.
    pub fn poll(&mut self) -> Option<HostAction> {
        if self.running || !self.is_worth_running() {
            return None;
        }
        let mut jobs = Vec::new();
        let mut total = 0;
        while let Some(next) = self.queue.front() {
            if !jobs.is_empty() && total + next.choices > self.batch_choices {
                break;
            }
            total += next.choices;
            jobs.push(next.job);
            match next.step.and_then(|step| self.cohorts.get_mut(&step)) {
                Some(cohort) => cohort.waiting -= 1,
                None => self.free -= 1,
            }
            self.queue.pop_front();
        }
        self.choices -= total;
        self.running = true;
        Some(HostAction::Run(jobs))
    }

    /// Some chunk waits for nobody, or a whole batch is there.
    fn is_worth_running(&self) -> bool {
        let is_ready = |cohort: &Gathering| {
            cohort.waiting > 0 && !matches!(cohort.patience, Patience::Until(_))
        };
        self.free > 0 || self.choices >= self.batch_choices || self.cohorts.values().any(is_ready)
    }
}
