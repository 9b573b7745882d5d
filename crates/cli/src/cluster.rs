//! The processes of a cluster on this machine: started, watched and stopped.
//!
//! Reading order:
//!
//! 1. [`ready`]: the one line that a role prints when it serves, and how its starter reads it.
//! 2. [`process`]: [`ProcessGroup`], children that are stopped with their group.
//! 3. [`local`]: [`start_workers`], [`start_cluster`] and [`while_all_live`] on top of it.
//! 4. [`network`]: links of a topology between them, probed before a run.
//! 5. [`orphan`]: the child's side of "nothing survives its launcher".
//!
//! **No process is left behind**, in four ways: [`ProcessGroup::stop`] ends the children of a run
//! that ends well, badly or by a signal; a dropped group kills them; each child asks the kernel
//! to be killed when its launcher dies, which covers `kill -9`; and a child that starts after its
//! launcher died notices.
//!
//! Children must be spawned from the main thread: the kernel ties a child to the *thread* that
//! made it. All of this therefore runs on a current-thread runtime driven by `main`.

mod local;
mod network;
mod orphan;
mod process;
mod ready;
mod tail;

pub(crate) use local::{LocalCluster, WorkerOptions, start_cluster, start_workers, while_all_live};
pub(crate) use network::{Emulated, Network, machines};
pub(crate) use orphan::die_with_parent;
pub(crate) use process::ProcessGroup;
pub(crate) use ready::{Ready, Role};
