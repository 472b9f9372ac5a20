//! What happens to sessions, for the services that want to know: from the bus to one instance of each.
//!
//! One subscription for each service that has an instance here which asked for it, shared with other nodes by the
//! service's queue group. Events are told as they come, outside of credit; an instance that does not read its stream
//! loses them, which is counted.

use std::sync::Arc;

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trestle_bus::{Heard, Subscription};
use trestle_wire::v1;

use crate::{
    Shared,
    metrics::Telling,
    serve::Backoff,
    service::{Intake, Service},
};

/// Starts what takes session events off the bus for `service`; it stops with the intake, or when the node drains.
pub(crate) fn start(shared: &Arc<Shared>, service: &Arc<Service>) -> Intake {
    let stop = shared.draining.child_token();
    let (ready, heard) = watch::channel(false);
    let intake = run(shared.clone(), service.clone(), stop.clone(), ready);
    shared.tasks.spawn(service.running.track_future(intake));
    Intake::new(stop, vec![heard])
}

/// Runs until `stop`. `ready` is true while the subscription is in force.
async fn run(shared: Arc<Shared>, service: Arc<Service>, stop: CancellationToken, ready: watch::Sender<bool>) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let subject = shared.subjects.session_events();
        match shared.fabric.bus.subscribe(&subject, Some(service.name.as_str())).await {
            Ok(subscription) => {
                backoff = Backoff::default();
                ready.send_replace(true);
                pump(&service, subscription, &stop).await;
            }
            Err(error) => tracing::warn!(service = %service.name, %error, "cannot hear of sessions; trying again"),
        }
        ready.send_replace(false);
        backoff.pause(&stop).await;
    }
}

/// Tells what comes until `stop`, or until the bus is closed.
async fn pump(service: &Service, mut subscription: Subscription, stop: &CancellationToken) {
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => break,
            heard = subscription.next() => heard,
        };
        let Some(heard) = heard else { return };
        hear(service, heard);
    }
    // What the bus has handed over already goes to no other node.
    while let Some(heard) = subscription.try_next() {
        hear(service, heard);
    }
}

fn hear(service: &Service, heard: Heard) {
    match heard {
        Heard::Message(message) => match v1::SessionEvent::decode(message.payload) {
            Ok(event) => service.tell(event),
            Err(error) => {
                tracing::warn!(service = %service.name, %error, "what was said of a session is no SessionEvent")
            }
        },
        Heard::Lost(count) => {
            tracing::warn!(service = %service.name, count, "the bus lost session events");
            service.metrics.told(Telling::BusLost);
        }
    }
}
