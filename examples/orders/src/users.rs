//! The service `users`.

use trestle_service::{Builder, Context, Nack, Service};

use crate::shop::v1::UserCreated;

pub(crate) fn service() -> Builder {
    Service::builder("users").on("shop.v1.UserCreated", welcome)
}

async fn welcome(context: Context, user: UserCreated) -> Result<(), Nack> {
    tracing::info!(user = user.user_id, session = context.sender().session, "user created");
    Ok(())
}
