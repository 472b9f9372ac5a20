//! Attach, and attach again.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use trestle_wire::v1::bridge_client::BridgeClient;

use crate::{Builder, ServiceError, attached, attached::Shared};

/// First wait before attaching again; doubled each time, up to [`RETRY_MAX`], less a random part.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait before attaching again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take to come up.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How often a quiet connection is asked whether it lives: a gateway that vanished is left within 15 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long that question may stay unanswered.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The endpoint with the time limits that every connection of the SDK has.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, ServiceError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| ServiceError::Endpoint { endpoint: address.to_owned(), source })?;
    Ok(endpoint
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

pub(crate) async fn run(builder: Builder, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
    let endpoint = endpoint(&builder.endpoint)?;
    let tracer = builder.tracer.unwrap_or_else(|| Arc::new(opentelemetry::global::tracer("trestle-service")));
    let shared = Shared {
        name: builder.name,
        instance: builder.instance,
        max_in_flight: builder.max_in_flight,
        stop_within: builder.stop_within,
        handlers: builder.handlers,
        listener: builder.listener,
        tracer,
        // Over all streams: a handler that outlives its stream still counts.
        running: Arc::new(Semaphore::new(builder.max_in_flight as usize)),
    };
    let stop = CancellationToken::new();
    let until_stopped = keep_attached(&shared, &endpoint, &stop);
    tokio::pin!(until_stopped);
    tokio::select! {
        result = &mut until_stopped => return result,
        () = shutdown => stop.cancel(),
    }
    until_stopped.await
}

async fn keep_attached(shared: &Shared, endpoint: &Endpoint, stop: &CancellationToken) -> Result<(), ServiceError> {
    let mut wait = RETRY_MIN;
    let mut attached_before = false;
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = endpoint.connect() => connected,
        };
        let ended = match connected {
            Ok(channel) => attach(shared, channel, stop, &mut attached_before, &mut wait).await?,
            Err(error) => format!("cannot connect: {}", with_causes(&error)),
        };
        if stop.is_cancelled() {
            return Ok(());
        }
        let pause = wait / 2 + (wait / 2).mul_f64(fastrand::f64());
        tracing::warn!(service = shared.name, endpoint = %endpoint.uri(), ?pause, ended, "not attached; trying again");
        wait = (wait * 2).min(RETRY_MAX);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One stream, from hello to its end; says how it ended.
async fn attach(
    shared: &Shared,
    channel: Channel,
    stop: &CancellationToken,
    attached_before: &mut bool,
    wait: &mut Duration,
) -> Result<String, ServiceError> {
    let was_attached = || {
        *attached_before = true;
        *wait = RETRY_MIN;
    };
    match attached::serve(shared, BridgeClient::new(channel), stop, was_attached).await {
        Ok(()) => Ok("the gateway ended the stream".into()),
        Err(status) if !*attached_before && is_final(&status) => Err(ServiceError::Refused {
            reason: text(&status, "trestle-reason").unwrap_or_default().to_owned(),
            message: status.message().to_owned(),
        }),
        Err(status) => Ok(format!("{}: {}", status.code(), status.message())),
    }
}

/// Whether the gateway itself says that trying again is no use.
fn is_final(status: &Status) -> bool {
    text(status, "trestle-retryable") == Some("false")
}

fn text<'a>(status: &'a Status, key: &str) -> Option<&'a str> {
    status.metadata().get(key)?.to_str().ok()
}

/// An error and what it comes from: tonic's own sentence says only that there was one.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}
