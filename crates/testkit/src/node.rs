//! A server on a thread and runtime of its own, which can be stopped in good order or killed.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use expertmesh_worker::{Worker, WorkerConfig};
use tokio::sync::oneshot;

/// A worker (or what poses as one) on its own thread.
///
/// Dropping it kills it, as `kill -9` would a process: its runtime is dropped, and its sockets
/// with it.
pub struct Node {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<Stop>>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

enum Stop {
    InGoodOrder,
    AtOnce,
}

// === impl Node ===

impl Node {
    /// Binds a worker and serves it.
    pub fn worker(config: WorkerConfig) -> Self {
        let worker = Worker::bind(config).expect("a free port");
        let addr = worker.local_addr();
        Self::serve(addr, |shutdown| async move {
            worker.serve(shutdown).await.expect("a worker that serves");
        })
    }

    /// Runs `serve`, which must return soon after the future that it is given completes.
    pub(crate) fn serve<F>(
        addr: SocketAddr,
        serve: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()>,
    {
        let (stop, mut stopping) = oneshot::channel();
        let (told, ended) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let (shutdown, shut) = oneshot::channel::<()>();
                let serving = serve(Box::pin(async move {
                    // Never sent to: the sender is dropped when it is time.
                    let _ = shut.await;
                }));
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    how = &mut stopping => if let Ok(Stop::InGoodOrder) = how {
                        drop(shutdown);
                        serving.await;
                    },
                    () = &mut serving => {}
                }
            });
            runtime.shutdown_background();
            // Whoever waits may be gone.
            let _ = told.send(());
        };
        let name = format!("node-{}", addr.port());
        let thread = std::thread::Builder::new().name(name).spawn(run);
        Self {
            addr,
            stop: Some(stop),
            ended: Some(ended),
            thread: Some(thread.expect("a thread")),
        }
    }

    /// Where it listens, `host:port`.
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// Kills it and waits until its sockets are closed.
    pub fn kill(mut self) {
        self.end(Stop::AtOnce);
    }

    /// Stops it in good order.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Refused if it has ended by itself.
            let _ = stop.send(Stop::InGoodOrder);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
        self.join();
    }

    fn end(&mut self, how: Stop) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(how);
        }
        self.join();
    }

    fn join(&mut self) {
        let joined = self.thread.take().map(JoinHandle::join);
        if let (Some(Err(panic)), false) = (joined, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Stop::AtOnce);
    }
}
