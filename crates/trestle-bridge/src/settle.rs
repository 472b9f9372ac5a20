//! What becomes of a delivery: done, declined, answered, given up or lost. The one place where promises are kept.
//!
//! In: the [`Task`] of a delivery that has left its instance's hand. Out: an ack or nak to the bus, an answer to who
//! asked. What always holds: each task is settled once; a promise to a client is kept only after the bus's own ack.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use trestle_bus::{Subject, Work};
use trestle_wire::{Reason, Refusal, ServiceName, v1};

use crate::{
    Shared,
    metrics::Outcome,
    parcel::{Job, Task},
    service::Service,
};

/// Longest delay a nack can ask for: a day, so that a slip in the unit does not park work for a year.
const NACK_DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Shared {
    /// The service has done it. A request is not done by that: its sender is told so.
    pub(crate) async fn acked(&self, service: &Service, mut task: Task) {
        let outcome = match &task.job {
            Job::Live => Outcome::Ack,
            Job::Stored { work, handled } => self.acked_stored(&service.name, work, handled.as_ref()).await,
            Job::Request { reply_to, .. } => {
                let sentence = "the service acknowledged the request instead of answering it";
                self.refuse_request(reply_to, &Refusal::new(Reason::ReplyInvalid, sentence)).await;
                Outcome::ReplyInvalid
            }
        };
        if outcome != Outcome::Ack {
            task.fail(outcome.word());
        }
        service.metrics.settled(outcome, task.taken.elapsed());
    }

    async fn acked_stored(&self, service: &ServiceName, work: &Work, handled: Option<&(Subject, Bytes)>) -> Outcome {
        if let Err(error) = work.ack().await {
            tracing::warn!(%service, %error, "could not ack on the bus; the message comes again");
            return Outcome::AckFailed;
        }
        if let Some((subject, handled)) = handled
            && let Err(error) = self.fabric.bus.publish(subject, handled.clone()).await
        {
            // The work is done, but its sender is not told: it waits until its time is over, and a repeated message is
            // found in the log, which says only that it is DURABLE.
            tracing::warn!(%service, %error, "could not tell that a message was handled");
        }
        Outcome::Ack
    }

    /// The service has not done it.
    pub(crate) async fn nacked(&self, service: &Service, mut task: Task, nack: v1::Nack) {
        match &task.job {
            Job::Live => {}
            Job::Stored { work, .. } => nak(&service.name, work, nack_delay(nack.delay)).await,
            Job::Request { reply_to, .. } => {
                let outcome = v1::bus_reply::Outcome::Error(declined(nack.error));
                self.answer(reply_to, outcome).await;
            }
        }
        task.fail("nack");
        service.metrics.settled(Outcome::Nack, task.taken.elapsed());
    }

    /// The service has answered a request with `reply`.
    ///
    /// # Errors
    /// [`Reason::ReplyInvalid`] if the reply is no message of a known type; the sender of the request has been told.
    pub(crate) async fn replied(
        &self,
        service: &Service,
        mut task: Task,
        reply: Option<v1::Envelope>,
    ) -> Result<(), Refusal> {
        // The caller has looked: only requests come here.
        let Job::Request { reply_to, correlation_id, .. } = &task.job else { return Ok(()) };
        let parent = task.span.as_ref().map(trestle_telemetry::Span::context);
        let (outcome, result) = match self.reply_envelope(&service.name, correlation_id, reply) {
            Ok(mut envelope) => {
                if let Some(context) = parent {
                    context.carry(&mut envelope.headers);
                }
                (v1::bus_reply::Outcome::Reply(envelope), Ok(()))
            }
            Err(refusal) => (v1::bus_reply::Outcome::Error(refusal.clone().into()), Err(refusal)),
        };
        self.answer(reply_to, outcome).await;
        if let Err(refusal) = &result {
            task.fail(refusal.reason.row().word);
        }
        let outcome = if result.is_ok() { Outcome::Reply } else { Outcome::ReplyInvalid };
        service.metrics.settled(outcome, task.taken.elapsed());
        result
    }

    fn reply_envelope(
        &self,
        service: &ServiceName,
        correlation_id: &str,
        reply: Option<v1::Envelope>,
    ) -> Result<v1::Envelope, Refusal> {
        let invalid = |refusal: Refusal| Refusal {
            reason: Reason::ReplyInvalid,
            message: format!("the service's reply is refused: {refusal}"),
            ..refusal
        };
        let reply = reply.ok_or_else(|| {
            Refusal::new(Reason::ReplyInvalid, "the service's reply has no message").field("reply.message")
        })?;
        let mut envelope = self.stamp(Some(service), reply, "reply.message").map_err(invalid)?;
        envelope.id = v1::Envelope::new_id();
        envelope.correlation_id = correlation_id.to_owned();
        Ok(envelope)
    }

    /// Nobody waits for it any more, or its time is over; the service was told.
    pub(crate) fn cancelled(&self, service: &Service, mut task: Task) {
        task.fail("cancelled");
        service.metrics.settled(Outcome::Cancelled, task.taken.elapsed());
    }

    /// Its instance is gone.
    pub(crate) async fn lost(&self, service: &Service, mut task: Task) {
        match &task.job {
            Job::Live => {}
            Job::Stored { work, .. } => nak(&service.name, work, Duration::ZERO).await,
            Job::Request { reply_to, .. } => {
                let name = &service.name;
                let sentence = format!("the instance of {name} that had the request has gone; it may have been done");
                self.refuse_request(reply_to, &Refusal::new(Reason::InstanceLost, sentence)).await;
            }
        }
        task.fail("instance_lost");
        service.metrics.settled(Outcome::Lost, task.taken.elapsed());
    }

    /// Tells whoever made a request that it is refused.
    pub(crate) async fn refuse_request(&self, reply_to: &Subject, refusal: &Refusal) {
        self.answer(reply_to, v1::bus_reply::Outcome::Error(refusal.clone().into())).await;
    }

    async fn answer(&self, reply_to: &Subject, outcome: v1::bus_reply::Outcome) {
        let reply = v1::BusReply { outcome: Some(outcome) };
        if let Err(error) = self.fabric.bus.publish(reply_to, reply.encode_to_vec().into()).await {
            // Its sender's own deadline tells it.
            tracing::warn!(%error, "an answer could not be sent");
        }
    }
}

async fn nak(service: &ServiceName, work: &Work, delay: Duration) {
    if let Err(error) = work.nak(delay).await {
        tracing::debug!(%service, %error, "could not nak on the bus; the message comes again after ack_wait");
    }
}

/// A nack's delay: none if it is absent or negative, at most [`NACK_DELAY_MAX`].
fn nack_delay(delay: Option<prost_types::Duration>) -> Duration {
    delay.and_then(|delay| Duration::try_from(delay).ok()).unwrap_or_default().min(NACK_DELAY_MAX)
}

/// What the sender of a request is told by a nack: the service's own error, or that it declined.
fn declined(error: Option<v1::Error>) -> v1::Error {
    let default = v1::Error::from(Refusal::new(Reason::Declined, "the service did not do it"));
    match error {
        None => default,
        Some(mut error) => {
            if error.code == v1::Code::Unspecified as i32 || v1::Code::try_from(error.code).is_err() {
                error.code = default.code;
                error.retryable = default.retryable;
            }
            if error.reason.is_empty() {
                error.reason = default.reason;
            }
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nack_may_ask_for_a_day_and_not_for_the_past() {
        let delay = |seconds| nack_delay(Some(prost_types::Duration { seconds, nanos: 0 }));
        assert_eq!(nack_delay(None), Duration::ZERO);
        assert_eq!(delay(5), Duration::from_secs(5));
        assert_eq!(delay(-5), Duration::ZERO);
        assert_eq!(delay(i64::MAX), NACK_DELAY_MAX);
    }

    #[test]
    fn a_services_own_error_is_told_and_completed() {
        assert_eq!(declined(None).reason, "declined");
        assert_eq!(declined(None).code(), v1::Code::Unavailable);
        let own = v1::Error { code: v1::Code::NotFound as i32, reason: "no_such_sku".into(), ..v1::Error::default() };
        assert_eq!(declined(Some(own.clone())), own);
        let bare = declined(Some(v1::Error { message: "out of stock".into(), code: 99, ..v1::Error::default() }));
        assert_eq!((bare.code(), &*bare.reason, bare.retryable), (v1::Code::Unavailable, "declined", true));
        assert_eq!(bare.message, "out of stock");
    }
}
