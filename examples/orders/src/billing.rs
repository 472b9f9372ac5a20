//! The service `billing`: both versions of an order side by side, and quotes.

use trestle_service::{Builder, Context, Nack, PushError, Service, Target};

use crate::shop::{
    v1::{GetQuote, OrderPaid, Quote, Receipt},
    v2,
};

/// What a piece costs.
const CENTS_A_PIECE: i64 = 199;
/// The currency of orders of version 1.0, which does not say.
const CURRENCY: &str = "EUR";

pub(crate) fn service() -> Builder {
    Service::builder("billing").on("shop.v1.OrderPaid", book).on("shop.v2.OrderPaid", book_v2).on_request(
        "shop.v1.GetQuote",
        "shop.v1.Quote",
        quote,
    )
}

async fn book(context: Context, order: OrderPaid) -> Result<(), Nack> {
    let OrderPaid { order_id, cents } = order;
    receipt(&context, Receipt { order_id, cents, currency: CURRENCY.into(), order_version: "1.0".into() }).await
}

async fn book_v2(context: Context, order: v2::OrderPaid) -> Result<(), Nack> {
    let v2::Money { currency, cents } = order.total.unwrap_or_default();
    receipt(&context, Receipt { order_id: order.order_id, cents, currency, order_version: "2.0".into() }).await
}

/// Tells the session that sent the order. The order is booked whether or not somebody hears of it.
async fn receipt(context: &Context, receipt: Receipt) -> Result<(), Nack> {
    let Receipt { order_id, cents, currency, .. } = &receipt;
    tracing::info!(order = order_id, cents, currency, attempt = context.attempt(), "order booked");
    let session = context.sender().session.clone();
    if session.is_empty() {
        return Ok(());
    }
    match context.push(Target::Session(session), "shop.v1.Receipt", &receipt).await {
        Err(PushError::Refused(error)) if !error.retryable => {
            tracing::warn!(reason = error.reason, message = error.message, "the receipt was refused");
            Ok(())
        }
        // Not known to have gone out: the order comes again, and with it the receipt.
        pushed => pushed.map(drop).map_err(Nack::from),
    }
}

async fn quote(_: Context, asked: GetQuote) -> Result<Quote, Nack> {
    let cents = CENTS_A_PIECE * i64::from(asked.quantity.max(1));
    Ok(Quote { sku: asked.sku, cents })
}
