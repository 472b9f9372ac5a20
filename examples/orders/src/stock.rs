//! The service `stock`: changes go to everyone who watches.

use trestle_service::{Builder, Context, Nack, Service, Target};

use crate::shop::v1::InventoryUpdated;

/// The channel that watchers subscribe to.
const CHANNEL: &str = "live:stock";

pub(crate) fn service() -> Builder {
    Service::builder("stock").on("shop.v1.InventoryUpdated", publish)
}

async fn publish(context: Context, update: InventoryUpdated) -> Result<(), Nack> {
    context.push(Target::Channel(CHANNEL.into()), "shop.v1.InventoryUpdated", &update).await?;
    Ok(())
}
