//! The demo: the example services, attached to this very node over real gRPC.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Attaches them until `stop`.
pub(crate) fn start(grpc: SocketAddr, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let endpoint = format!("http://{grpc}");
        if let Err(error) = trestle_example_orders::run(endpoint, stop.cancelled_owned()).await {
            tracing::error!(%error, "the example services have stopped");
        }
    })
}
