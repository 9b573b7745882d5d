//! The child's side of the promise that nothing survives its launcher.

use rustix::process::getppid;

use crate::error::Failure;

/// Has the kernel kill this process when its parent dies, however that happens.
///
/// `parent` is the parent's process id as the parent told it. A parent that died before the
/// kernel was asked sends no signal any more; it is noticed by whose child this process is now.
///
/// # Errors
/// [`Failure::Run`] if the kernel refuses, or the parent is gone already.
pub(crate) fn die_with_parent(parent: u32) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(
        |error| {
            Failure::run(format!(
                "cannot ask to be stopped with the launcher: {error}"
            ))
        },
    )?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) {
        Ok(())
    } else {
        Err(Failure::run(format!(
            "the launcher, process {parent}, is gone"
        )))
    }
}
