//! The example services of the demo, attached over real gRPC: what a company's own would look like.
//!
//! | service | takes | does |
//! | --- | --- | --- |
//! | `users` | `shop.v1.UserCreated` | logs it |
//! | `billing` | `shop.v1.OrderPaid`, `shop.v2.OrderPaid` | books it, pushes a `shop.v1.Receipt` to the session that sent it |
//! | | `shop.v1.GetQuote` | answers with a `shop.v1.Quote` |
//! | `stock` | `shop.v1.InventoryUpdated` | pushes it to everyone on the channel `live:stock` |

mod billing;
mod stock;
mod users;

use std::future::Future;

use tokio_util::sync::CancellationToken;
use trestle_service::ServiceError;

/// The shop's messages, generated from `proto/examples/shop`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod shop {
    /// The first version.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/shop.v1.rs"));
    }
    /// The second version of some of them.
    pub mod v2 {
        include!(concat!(env!("OUT_DIR"), "/shop.v2.rs"));
    }
}

/// Runs all three services against the gateway at `endpoint` until `shutdown`.
///
/// # Errors
/// The first of them that the gateway will not take; the others are stopped then.
pub async fn run(endpoint: String, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let services = [users::service(), billing::service(), stock::service()];
    let running = services.map(|service| service.endpoint(&endpoint).run(stop.clone().cancelled_owned()));
    let running = futures_util::future::try_join_all(running);
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return ended.map(drop),
        () = shutdown => stop.cancel(),
    }
    running.await.map(drop)
}
