//! Serves gRPC on a listener until it is told to stop; then drains and closes, in order.
//!
//! Stopping: health says NOT_SERVING, no hello is taken, intakes stop (what waits for room is answered), services are
//! told `draining`; what is in flight has the drain's deadline to be acked; the rest is given back; the listener closes.

use std::{future::Future, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_stream::Stream;
use tonic::transport::{
    Server,
    server::{Connected, TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use trestle_bus::{BusState, Heard};
use trestle_wire::v1::{self, admin_server::AdminServer, bridge_server::BridgeServer};

use crate::{Bridge, Shared, admin::AdminService, attach::FINISH_WAIT, grpc::BridgeService, serve::Backoff};

/// How long connections may take to close after everything on them is done; health watches never end by themselves.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// The names that health answers to: the whole node, and the service that services attach to.
const HEALTH: [&str; 2] = ["", "trestle.v1.Bridge"];

/// Why gRPC could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of `trestle.v1` could not be read.
    #[error("reflection could not be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Bridge {
    /// The most that [`Bridge::serve`] takes beyond the drain's deadline: the bus takes work back, connections close.
    pub const AFTER_DRAIN: Duration = FINISH_WAIT.saturating_add(CLOSE_WAIT);

    /// Replaces [`Config::drain_deadline`](crate::Config::drain_deadline), where the node knows that it has less time
    /// left, or more. Counts from the `shutdown` of [`Bridge::serve`]; to be called before that.
    pub fn set_drain_deadline(&self, deadline: Duration) {
        *self.0.drain_deadline.lock() = deadline;
    }

    /// Serves gRPC on `listener` until `shutdown`, then drains. Returns when everything is closed, at the latest the
    /// drain's deadline and [`Bridge::AFTER_DRAIN`] after `shutdown`.
    ///
    /// # Errors
    /// [`ServeError`] if the server itself fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        self.serve_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown).await
    }

    /// As [`Bridge::serve`], on any stream of connections.
    ///
    /// # Errors
    /// As [`Bridge::serve`].
    pub async fn serve_incoming<I, C, E>(
        &self,
        incoming: I,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError>
    where
        I: Stream<Item = Result<C, E>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        C::ConnectInfo: Clone + Send + Sync + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let shared = &self.0;
        let config = &shared.config;
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(trestle_wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let bridge =
            BridgeServer::new(BridgeService(shared.clone())).max_decoding_message_size(config.message_bytes_max);
        let admin = AdminServer::new(AdminService(shared.clone()));

        shared.tasks.spawn(report_health(shared.clone(), health));
        // Not one of the tasks that a drain waits for: what is in flight may still be cancelled then.
        tokio::spawn(hear_cancels(shared.clone()));

        let closed = tokio_util::sync::CancellationToken::new();
        let _closes = closed.clone().drop_guard();
        let server = Server::builder()
            .http2_keepalive_interval(Some(config.keepalive_interval))
            .http2_keepalive_timeout(Some(config.keepalive_timeout))
            .add_service(bridge)
            .add_service(admin)
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned());
        tokio::pin!(server);

        let _ends = shared.closing.clone().drop_guard();
        tokio::select! {
            result = &mut server => return Ok(result?),
            () = async { shutdown.await; shared.drain().await } => {}
        }
        closed.cancel();
        match tokio::time::timeout(CLOSE_WAIT, &mut server).await {
            Ok(result) => Ok(result?),
            Err(_) => Ok(()), // only watches of health were left
        }
    }
}

impl Shared {
    /// Stops intake, waits for what is in flight, gives back the rest.
    async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        let deadline = *self.drain_deadline.lock();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(?deadline, "work was still in flight at the end of the drain; it is given back");
        }
        self.closing.cancel();
        if tokio::time::timeout(FINISH_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("the bus took too long to take work back; it comes again after ack_wait");
        }
    }
}

/// Says SERVING while the bus is connected and the node does not drain.
async fn report_health(shared: Arc<Shared>, health: HealthReporter) {
    let mut bus = shared.fabric.bus.state();
    loop {
        let connected = matches!(*bus.borrow_and_update(), BusState::Connected(_));
        say(&health, if connected { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        tokio::select! {
            () = shared.draining.cancelled() => break,
            changed = bus.changed() => if changed.is_err() { break },
        }
    }
    say(&health, ServingStatus::NotServing).await;
}

async fn say(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH {
        health.set_service_status(name, status).await;
    }
}

/// Listens for requests that were given up, on any node, until the node closes.
async fn hear_cancels(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let done = shared.closing.clone();
    while !done.is_cancelled() {
        match shared.fabric.bus.subscribe(&shared.subjects.cancel(), None).await {
            Ok(mut subscription) => {
                backoff = Backoff::default();
                loop {
                    let heard = tokio::select! {
                        () = done.cancelled() => return,
                        heard = subscription.next() => heard,
                    };
                    match heard {
                        Some(Heard::Message(message)) => shared.cancel(&message.payload),
                        // Their requests end at their deadlines.
                        Some(Heard::Lost(count)) => tracing::warn!(count, "the bus lost cancels of requests"),
                        None => break,
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot listen for cancelled requests; trying again"),
        }
        backoff.pause(&done).await;
    }
}

impl Shared {
    fn cancel(&self, payload: &[u8]) {
        let request = match v1::CancelRequest::decode(payload) {
            Ok(request) => request,
            Err(error) => return tracing::warn!(%error, "a cancel could not be read"),
        };
        if let Some((instance, id)) = self.tickets.cancel(&request.correlation_id)
            && let Some(task) = instance.cancel(id)
        {
            self.cancelled(&self.services.get(&instance.service, &self.metrics), task);
        }
    }
}
