//! Flags that contradict each other or would do nothing. A sweep sets flags one by one, so that what
//! the command line would refuse is refused here, too.

use expertmesh_simulator::Costs;

use crate::commands::simulate::SimulateArgs;
use crate::commands::simulate::load::{StageFlag, is_from_file};
use crate::error::Failure;

/// Layers of a simulation: each has a coordinator of its own in memory, which gates and admits.
const MOST_LAYERS: u32 = 4096;

/// Tokens in a cache: more than the models look back at. Attention over more takes seconds of
/// simulated time, which cores deal out in slices of microseconds.
const MOST_CONTEXT: u64 = 1 << 20;

/// Flags that cannot stand beside each other.
///
/// # Errors
/// [`Failure::Input`] for the first such pair.
pub(super) fn check(args: &SimulateArgs) -> Result<(), Failure> {
    let load = &args.load;
    let prefill = args.stage == Some(StageFlag::Prefill);
    let pairs = [
        (
            args.costs.is_some() && args.profile.is_some(),
            "--costs and --profile both say what work takes; drop one of them",
        ),
        (
            load.input.is_some() && load.trace.is_some(),
            "--input and --trace both bring a load; drop one of them",
        ),
        (
            load.tokens.is_some() && is_from_file(args),
            "--tokens is about a load that is drawn, --input and --trace bring their own; drop one of \
             them",
        ),
        (
            load.workload.is_some() && is_from_file(args),
            "--workload is about a load that is drawn, --input and --trace bring their own; drop one \
             of them",
        ),
        (
            prefill && args.context.is_some(),
            "--context is about decoding, --stage is prefill, whose sequences begin with nothing; \
             drop one of them",
        ),
        (
            load.warmup.is_some(),
            "--warmup is for machines whose caches must fill; a simulated step is like the next, \
             drop the flag",
        ),
    ];
    if let Some((_, sentence)) = pairs.iter().find(|(refused, _)| *refused) {
        return Err(Failure::input(sentence));
    }
    match (args.layers, args.context) {
        (Some(layers), _) if layers.get() > MOST_LAYERS => Err(Failure::input(format!(
            "--layers is {layers}, expected at most {MOST_LAYERS}"
        ))),
        (_, Some(context)) if context > MOST_CONTEXT => Err(Failure::input(format!(
            "--context is {context}, expected at most {MOST_CONTEXT}"
        ))),
        _ => Ok(()),
    }
}

/// Workers that faults name, as the flag counts them.
///
/// # Errors
/// [`Failure::Input`] for one that is not there.
pub(super) fn check_faults(args: &SimulateArgs, workers: usize) -> Result<(), Failure> {
    let named = args.fault.iter().map(|fault| fault.worker());
    match named.max().filter(|worker| *worker as usize >= workers) {
        Some(worker) => Err(Failure::input(format!(
            "--fault names worker {worker}, expected 0 to {}, the last of {workers} workers",
            workers - 1
        ))),
        None => Ok(()),
    }
}

/// Flags of a sweep that only one simulation can honour.
///
/// # Errors
/// [`Failure::Input`] for the first of them.
pub(super) fn check_sweep(args: &SimulateArgs) -> Result<(), Failure> {
    let one = [
        (args.event_log.is_some(), "--event-log holds"),
        (args.what_if, "--what-if is about"),
        (args.print_costs, "--print-costs is about"),
    ];
    match one.iter().find(|(given, _)| *given) {
        Some((_, flag)) => Err(Failure::input(format!(
            "{flag} one simulation, --sweep asks for several; drop one of them"
        ))),
        None => Ok(()),
    }
}

/// Threads are those of cores.
///
/// # Errors
/// [`Failure::Input`] for threads of devices.
pub(super) fn check_costs(args: &SimulateArgs, costs: &Costs) -> Result<(), Failure> {
    match args.processes.threads {
        Some(threads) if !costs.on_cores => Err(Failure::input(format!(
            "--threads is {threads}, but with the costs of {} devices compute, which have no threads; \
             drop the flag",
            costs.name
        ))),
        _ => Ok(()),
    }
}

/// Steps that are simulated: `overlap` of them are under way at once.
///
/// # Errors
/// [`Failure::Input`] for fewer.
pub(super) fn check_steps(asked: Option<u64>, usual: u64, overlap: u64) -> Result<u64, Failure> {
    match asked {
        Some(steps) if steps > 0 && steps < overlap => Err(Failure::input(format!(
            "--overlap is {overlap}, but --steps is {steps}: so many are never under way at once; \
             raise --steps or lower --overlap"
        ))),
        Some(steps) => Ok(steps),
        None => Ok(usual.max(overlap)),
    }
}
