//! A worker, bound to an address and served.

use std::net::SocketAddr;
use std::sync::Arc;

use expertmesh_experts::ComputePool;
use expertmesh_transport::{LinkOptions, Listener, boot_id, serve_worker};
use tracing::info;

use crate::acceptor::Acceptor;
use crate::control::{Control, Sessions};
use crate::error::WorkerError;
use crate::registry::ExpertRegistry;

/// What a worker is told at its start; everything about a layer comes with a session.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Name in logs and reports.
    pub name: String,
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Compute threads.
    pub threads: usize,
    /// HTTP/2 settings and limits.
    pub options: LinkOptions,
    /// Experts of the embedding program.
    pub registry: ExpertRegistry,
}

/// A worker that listens and is not served yet.
pub struct Worker {
    listener: Listener,
    control: Arc<Control>,
}

// === impl Worker ===

impl Worker {
    /// Binds the address and makes the compute pool.
    ///
    /// # Errors
    /// [`WorkerError`] if the address cannot be bound or `threads` is 0.
    pub fn bind(config: WorkerConfig) -> Result<Self, WorkerError> {
        let compute = ComputePool::new(config.threads, &config.name)?;
        let listener = Listener::bind(&config.listen, &config.options)?;
        let control = Arc::new(Control {
            name: config.name,
            boot_id: boot_id(),
            compute,
            registry: config.registry,
            options: config.options,
            sessions: Arc::new(Sessions::default()),
        });
        Ok(Self { listener, control })
    }

    /// The address that peers dial.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes.
    ///
    /// # Errors
    /// [`WorkerError::Transport`] if the listener fails.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        info!(name = self.control.name, addr = %self.local_addr(), "worker serves");
        self.listener.health().set_ready(true);
        let acceptor = Acceptor {
            sessions: Arc::clone(&self.control.sessions),
        };
        serve_worker(self.listener, self.control, Arc::new(acceptor), shutdown).await?;
        Ok(())
    }
}
