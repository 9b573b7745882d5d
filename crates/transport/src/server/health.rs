//! Readiness, for probes that speak `grpc.health.v1`.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

/// Says whether an endpoint is ready. Not ready until told otherwise.
///
/// Probes read it as the gRPC health of the service with the empty name. The named service, for
/// example `expertmesh.v1.Worker`, is healthy as soon as it is served: that one asks whether the
/// process answers, the other whether it has what it needs to do its work.
#[derive(Debug, Clone)]
pub struct Health {
    ready: Arc<watch::Sender<bool>>,
}

/// Carries [`Health`] over to the health service.
pub(super) struct Reporter {
    ready: watch::Receiver<bool>,
    service_name: &'static str,
    reporter: HealthReporter,
    /// Keeps the channel of `ready` open after its role has let go of it.
    _health: Health,
}

// === impl Health ===

impl Default for Health {
    fn default() -> Self {
        Self {
            ready: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Health {
    /// Tells probes, now and those that watch, whether this endpoint is ready.
    pub fn set_ready(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// What was told last.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
}

// === impl Reporter ===

impl Reporter {
    /// The reporter of a service, and the health service to be served beside it.
    pub(super) async fn new(health: &Health, service_name: &'static str) -> (Self, Routes) {
        let (reporter, service) = health_reporter();
        let mut ready = health.ready.subscribe();
        // The library begins with the empty name as SERVING.
        let now = *ready.borrow_and_update();
        reporter.set_service_status("", status(now)).await;
        reporter
            .set_service_status(service_name, status(true))
            .await;
        let this = Self {
            ready,
            service_name,
            reporter,
            _health: health.clone(),
        };
        (this, Routes::new(service))
    }

    /// Waits for a change. Nothing is lost if the wait is cancelled.
    pub(super) async fn changed(&mut self) {
        // Cannot fail while this holds a sender; if it did, there would be no change to wait for.
        if self.ready.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Passes on what was told last.
    pub(super) async fn report(&self) {
        let now = *self.ready.borrow();
        self.reporter.set_service_status("", status(now)).await;
    }

    pub(super) async fn stop(&self) {
        self.reporter.set_service_status("", status(false)).await;
        self.reporter
            .set_service_status(self.service_name, status(false))
            .await;
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}
