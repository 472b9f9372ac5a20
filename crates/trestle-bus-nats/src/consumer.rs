//! A durable pull consumer of JetStream: [`Consumer`].
//!
//! Always: at most what was asked for is on its way to us, so that a fetch that is dropped holds up nothing for longer
//! than `ack_wait`; while nothing is there, one message is waited for, not a batch.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, StatusCode, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use trestle_bus::{BusError, Consumer, ConsumerSpec, Outcome, Settle, Subject, Work};

use crate::{
    jetstream::Fault,
    link::{Link, jittered},
};

/// Messages of one consumer that may be with services at once, on all nodes together: 100 instances x 200 in flight.
const TAKEN_MAX: u64 = 20_000;

/// Fetches of one consumer that may wait at once, on all nodes together.
const WAITING_MAX: u64 = 2_048;

/// Before asking again when the consumer has no leader, or has its hands full.
const PAUSE: Duration = Duration::from_millis(200);

/// A durable consumer.
pub(crate) struct PullConsumer {
    link: Arc<Link>,
    spec: ConsumerSpec,
    next: String,
}

/// What a pull has brought.
enum Pulled {
    Work(Vec<Work>),
    /// Nothing is there, or nothing came in time.
    Nothing,
    /// It cannot be had at the moment.
    NotNow,
    /// Nobody listens there: the consumer is gone, or has no leader.
    Nobody,
}

impl PullConsumer {
    pub(crate) fn new(link: Arc<Link>, spec: ConsumerSpec) -> Self {
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", spec.log, spec.name);
        Self { link, spec, next }
    }

    /// Makes the consumer, or changes it.
    pub(crate) async fn make(&self) -> Result<(), BusError> {
        let ConsumerSpec { log, name, filter, ack_wait } = &self.spec;
        let request = json!({
            "stream_name": log,
            "config": {
                "durable_name": name,
                "name": name,
                "filter_subject": filter.as_str(),
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "replay_policy": "instant",
                "ack_wait": u64::try_from(ack_wait.as_nanos()).unwrap_or(u64::MAX),
                "max_deliver": -1,
                "max_ack_pending": TAKEN_MAX,
                "max_waiting": WAITING_MAX,
            },
        });
        let made = self.link.api(&format!("CONSUMER.CREATE.{log}.{name}"), &request).await;
        made.map(|_| ()).map_err(|fault| fault.about(log))
    }

    /// Takes up to `most` messages: what is there now, or, with `until`, what comes until then.
    async fn pull(&self, most: usize, until: Option<Instant>) -> Result<Pulled, BusError> {
        let link = &self.link;
        link.check()?;
        let mut breaks = link.breaks();
        let inbox = link.client.new_inbox();
        let subscribed = link.client.subscribe(inbox.clone()).await;
        let mut heard: Subscriber = subscribed.map_err(|error| BusError::Refused(error.to_string()))?;
        let request = match until {
            None => json!({ "batch": most, "no_wait": true }),
            Some(until) => {
                let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                json!({ "batch": most, "expires": u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX) })
            }
        };
        let asked = link.client.publish_with_reply(self.next.clone(), inbox, request.to_string().into()).await;
        asked.map_err(|_| BusError::Away)?;
        // The server says when the wait is over; we only help ourselves if it does not.
        let over = until.unwrap_or_else(Instant::now) + link.config.request_timeout;
        let mut work = Vec::new();
        while work.len() < most {
            let next = tokio::select! {
                next = timeout_at(over, heard.next()) => next,
                _ = breaks.changed() => break,
            };
            let Ok(Some(message)) = next else { break };
            match message.status {
                None => work.extend(self.work(message)),
                Some(_) if !work.is_empty() => break,
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => return Ok(Pulled::Nothing),
                Some(StatusCode::NO_RESPONDERS) => return Ok(Pulled::Nobody),
                Some(status) => {
                    tracing::debug!(consumer = self.spec.name, %status, said = ?message.description, "no work");
                    return Ok(Pulled::NotNow);
                }
            }
        }
        if work.is_empty() {
            link.check()?;
            return Ok(Pulled::Nothing);
        }
        Ok(Pulled::Work(work))
    }

    fn work(&self, message: async_nats::Message) -> Option<Work> {
        let ack = message.reply?.to_string();
        let attempt = attempt(&ack)?;
        let subject = Subject::from_trusted(message.subject.as_str());
        Some(Work::new(subject, message.payload, attempt, Arc::new(Taken { link: self.link.clone(), ack })))
    }
}

#[async_trait]
impl Consumer for PullConsumer {
    async fn fetch(&self, most: usize, wait: Duration) -> Result<Vec<Work>, BusError> {
        let until = Instant::now() + wait;
        if most == 0 {
            return Ok(Vec::new());
        }
        loop {
            let pulled = match self.pull(most, None).await? {
                Pulled::Nothing => self.pull(1, Some(until)).await?,
                pulled => pulled,
            };
            match pulled {
                Pulled::Work(work) => return Ok(work),
                Pulled::Nothing if Instant::now() >= until => return Ok(Vec::new()),
                Pulled::Nothing => {}
                Pulled::Nobody => match self.make().await {
                    Ok(()) | Err(BusError::Timeout(_)) => {}
                    Err(error) => return Err(error),
                },
                Pulled::NotNow => {}
            }
            let pause = jittered(PAUSE);
            if Instant::now() + pause >= until {
                return Ok(Vec::new());
            }
            sleep(pause).await;
        }
    }
}

/// How often a message was delivered: a token of its ack subject, which has two forms.
fn attempt(ack: &str) -> Option<u32> {
    // $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>
    // $JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>. ... .<pending>[.<random>]
    let at = if ack.split('.').count() == 9 { 4 } else { 6 };
    ack.split('.').nth(at)?.parse().ok()
}

/// One message in our hands.
struct Taken {
    link: Arc<Link>,
    ack: String,
}

#[async_trait]
impl Settle for Taken {
    async fn settle(&self, outcome: Outcome) -> Result<(), BusError> {
        let word = match outcome {
            Outcome::Ack => Bytes::from_static(b"+ACK"),
            Outcome::Term => Bytes::from_static(b"+TERM"),
            Outcome::InProgress => Bytes::from_static(b"+WPI"),
            Outcome::Nak(delay) if delay.is_zero() => Bytes::from_static(b"-NAK"),
            Outcome::Nak(delay) => {
                let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
                format!("-NAK {}", json!({ "delay": delay })).into()
            }
        };
        self.link.check()?;
        // Asked, not told: the answer comes after the server has noted it.
        match self.link.ask(self.ack.clone(), HeaderMap::new(), word).await {
            Ok(_) => Ok(()),
            Err(Fault::Bus(error)) => Err(error),
            Err(Fault::Nobody) => Err(BusError::Away),
            Err(fault @ Fault::Refused { .. }) => Err(fault.about(&self.ack)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_ack_subject_say_the_attempt() {
        assert_eq!(attempt("$JS.ACK.WORK.a.3.100.7.1700000000000000000.0"), Some(3));
        assert_eq!(attempt("$JS.ACK._.hash.WORK.a.4.100.7.1700000000000000000.0"), Some(4));
        assert_eq!(attempt("$JS.ACK.hub.hash.WORK.a.5.100.7.1700000000000000000.0.rnd"), Some(5));
        assert_eq!(attempt("reply"), None);
    }
}
