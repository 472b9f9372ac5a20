//! Station 10, serve: from the bus to an instance, under credit and deadline.
//!
//! In: the body of a bus message. Out: a [`Parcel`] offered to the service's instances. For each type that a local
//! instance takes, two intakes run: [`crate::stored`] for what is kept in the work log, [`crate::live`] for what is not,
//! and for requests. What always holds: whatever is taken off the bus is given to an instance, given back, or answered.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use trestle_bus::{Message, Work};
use trestle_telemetry::{Kind, Span, TraceContext};
use trestle_wire::{NodeId, Reason, Refusal, ServiceName, v1};

use crate::{
    Shared, live,
    metrics::Drop,
    parcel::{Job, Parcel, Task},
    service::{Intake, Service},
    stored,
};

/// How long before its deadline a waiting request is answered, so that the answer is there before its sender gives up.
pub(crate) const ANSWER_AHEAD: Duration = Duration::from_millis(20);
/// How long to wait before a bus that said no is asked again; doubled each time, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a bus that said no is asked again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Starts what takes `message_type` off the bus for `service`; it stops with the intake, or when the node drains.
pub(crate) fn start(shared: &Arc<Shared>, service: &Arc<Service>, message_type: &Arc<str>) -> Intake {
    let stop = shared.draining.child_token();
    let (live_ready, live) = watch::channel(false);
    let (stored_ready, stored) = watch::channel(false);
    let intake = live::run(shared.clone(), service.clone(), message_type.clone(), stop.clone(), live_ready);
    shared.tasks.spawn(service.running.track_future(intake));
    let intake = stored::run(shared.clone(), service.clone(), message_type.clone(), stop.clone(), stored_ready);
    shared.tasks.spawn(service.running.track_future(intake));
    Intake::new(stop, vec![live, stored])
}

impl Shared {
    /// A stored message, as it goes to an instance. `None` if it is not an envelope; it is then out of the log.
    pub(crate) async fn parcel_of_work(
        &self,
        service: &Service,
        message_type: &Arc<str>,
        work: Work,
        taken: Instant,
    ) -> Option<Box<Parcel>> {
        let mut envelope = match v1::Envelope::decode(work.payload.clone()) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(service = %service.name, message_type = &**message_type, %error, "stored message is not an envelope; removed");
                service.metrics.dropped(Drop::Malformed);
                if let Err(error) = work.term().await {
                    tracing::warn!(service = %service.name, %error, "it could not be removed and comes again");
                }
                return None;
            }
        };
        let attempt = work.attempt;
        let handled = self.handled(message_type, &envelope);
        let span = self.serve_span(&service.name, &work.subject, attempt, &mut envelope);
        let task = Task { job: Job::Stored { work, handled }, message_type: message_type.clone(), taken, span };
        Some(Box::new(Parcel { envelope, attempt, deadline: Some(taken + self.config.ack_wait), task }))
    }

    /// A live message or a request, as it goes to an instance. `None` if it is not an envelope.
    pub(crate) async fn parcel_of_message(
        &self,
        service: &Service,
        message_type: &Arc<str>,
        message: Message,
    ) -> Option<Box<Parcel>> {
        let mut envelope = match v1::Envelope::decode(message.payload) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(service = %service.name, message_type = &**message_type, %error, "message is not an envelope; dropped");
                service.metrics.dropped(Drop::Malformed);
                if let Some(reply_to) = message.reply_to {
                    let sentence = format!("the body of the request is not a trestle.v1.Envelope: {error}");
                    self.refuse_request(&reply_to, &Refusal::new(Reason::MalformedFrame, sentence)).await;
                }
                return None;
            }
        };
        let span = self.serve_span(&service.name, &message.subject, 1, &mut envelope);
        let taken = Instant::now();
        let (job, deadline) = match message.reply_to {
            None => (Job::Live, None),
            Some(reply_to) => {
                let correlation_id = envelope.correlation_id.clone();
                let ticket = (!correlation_id.is_empty()).then(|| self.tickets.open(&correlation_id));
                let allowed = time_left(envelope.deadline).unwrap_or(self.config.request_timeout_max);
                let deadline = taken + allowed.min(self.config.request_timeout_max);
                (Job::Request { reply_to, correlation_id, ticket }, Some(deadline))
            }
        };
        let task = Task { job, message_type: message_type.clone(), taken, span };
        Some(Box::new(Parcel { envelope, attempt: 1, deadline, task }))
    }

    /// For a type with ack level HANDLED: which node is told of the ack, and what.
    fn handled(&self, message_type: &str, envelope: &v1::Envelope) -> Option<(trestle_bus::Subject, Bytes)> {
        let catalogue = self.schemas.current();
        let ack = catalogue.get(message_type)?.route()?.ack;
        if ack != v1::AckLevel::Handled {
            return None;
        }
        let source = envelope.source.as_ref()?;
        let node = NodeId::parse(&source.node).ok()?;
        let handled = v1::Handled { envelope_id: envelope.id.clone(), session: source.session.clone() };
        Some((self.subjects.handled(&node), handled.encode_to_vec().into()))
    }

    /// The span from taking a message to settling it, below its sender's; the service's own goes below this one.
    fn serve_span(
        &self,
        service: &ServiceName,
        subject: &trestle_bus::Subject,
        attempt: u32,
        envelope: &mut v1::Envelope,
    ) -> Option<Span> {
        let parent = TraceContext::of(&envelope.headers)?;
        let mut span = self.tracer.span("serve", Kind::Consumer, &parent)?;
        span.set("messaging.system", "trestle");
        span.set("messaging.operation.name", "serve");
        span.set("messaging.operation.type", "process");
        span.set("messaging.destination.name", subject.as_str().to_owned());
        span.set("messaging.consumer.group.name", service.as_str().to_owned());
        span.set("messaging.message.id", envelope.id.clone());
        if !envelope.correlation_id.is_empty() {
            span.set("messaging.message.conversation_id", envelope.correlation_id.clone());
        }
        span.set("trestle.message_type", envelope.message_type.clone());
        span.set("trestle.attempt", i64::from(attempt));
        span.context().carry(&mut envelope.headers);
        Some(span)
    }
}

/// How long until a wall clock's time; zero if it has passed. `None` if there is none.
fn time_left(deadline: Option<prost_types::Timestamp>) -> Option<Duration> {
    let deadline = SystemTime::try_from(deadline?).ok()?;
    Some(deadline.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Waits that grow, for asking a bus again that said no.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RETRY_MIN)
    }
}

impl Backoff {
    /// Lets the next wait pass, unless `stop` comes before.
    pub(crate) async fn pause(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(self.next()) => {}
        }
    }

    /// The next wait: between half of it and all of it, so that nodes do not ask in step.
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(RETRY_MAX);
        wait / 2 + (wait / 2).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next()).collect();
        assert!(waits[0] >= RETRY_MIN / 2 && waits[0] <= RETRY_MIN);
        assert!(waits[11] >= RETRY_MAX / 2 && waits[11] <= RETRY_MAX);
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_no_time() {
        let past = SystemTime::now() - Duration::from_secs(5);
        assert_eq!(time_left(Some(past.into())), Some(Duration::ZERO));
        assert_eq!(time_left(None), None);
        let left = time_left(Some((SystemTime::now() + Duration::from_secs(60)).into())).expect("some");
        assert!(left > Duration::from_secs(58) && left <= Duration::from_secs(60), "{left:?}");
    }
}
