//! The intake of live messages and requests of one type: from the queue group of the service to its instances.
//!
//! It always listens, so that the bus never has to drop for it. What finds no room waits here, in order and bounded: a
//! request until shortly before its deadline, a message as long as it takes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use trestle_bus::{BusError, Heard, Subscription};
use trestle_wire::{Reason, Refusal};

use crate::{
    Config, Shared,
    metrics::Drop,
    parcel::{Job, Parcel},
    serve::{ANSWER_AHEAD, Backoff},
    service::Service,
};

/// How long what was taken before the node began to drain may still wait for room. 1 s: many handlers' time, and a
/// request that is refused then has time left to be tried on another node.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// Runs until `stop`. `ready` is true while the subscription is in force.
pub(crate) async fn run(
    shared: Arc<Shared>,
    service: Arc<Service>,
    message_type: Arc<str>,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
) {
    let mut backoff = Backoff::default();
    let mut intake = Live { waiting: Waiting::new(&shared.config), shared, service, message_type };
    while !stop.is_cancelled() {
        match intake.subscribe().await {
            Ok(subscription) => {
                backoff = Backoff::default();
                ready.send_replace(true);
                intake.pump(subscription, &stop).await;
            }
            Err(error) => {
                let service = &intake.service.name;
                tracing::warn!(%service, message_type = %intake.message_type, %error, "cannot listen; trying again");
            }
        }
        ready.send_replace(false);
        backoff.pause(&stop).await;
    }
    if intake.shared.draining.is_cancelled() {
        intake.serve_rest().await;
    }
    intake.part().await;
}

struct Live {
    shared: Arc<Shared>,
    service: Arc<Service>,
    message_type: Arc<str>,
    waiting: Waiting,
}

impl Live {
    async fn subscribe(&self) -> Result<Subscription, BusError> {
        let subject = self.shared.subjects.up(&self.service.name, &self.message_type);
        self.shared.fabric.bus.subscribe(&subject, Some(self.service.name.as_str())).await
    }

    /// Takes and offers until `stop`, or until the bus is closed.
    async fn pump(&mut self, mut subscription: Subscription, stop: &CancellationToken) {
        let mut freed = self.service.freed();
        loop {
            let patience = self.waiting.patience();
            tokio::select! {
                () = stop.cancelled() => break,
                _ = freed.changed(), if !self.waiting.is_empty() => self.offer_waiting(),
                () = sleep_until(patience), if patience.is_some() => self.give_up().await,
                heard = subscription.next() => match heard {
                    Some(heard) => self.hear(heard).await,
                    None => return,
                },
            }
        }
        // What the bus has handed over already is still ours to answer.
        while let Some(heard) = subscription.try_next() {
            self.hear(heard).await;
        }
    }

    /// The node drains: what was taken still goes to an instance, if one has room soon.
    async fn serve_rest(&mut self) {
        let until = Instant::now() + DRAIN_WAIT;
        let mut freed = self.service.freed();
        loop {
            freed.borrow_and_update();
            self.offer_waiting();
            if self.waiting.is_empty() {
                return;
            }
            let patience = self.waiting.patience();
            tokio::select! {
                () = self.shared.closing.cancelled() => return,
                () = tokio::time::sleep_until(until) => return,
                _ = freed.changed() => {}
                () = sleep_until(patience), if patience.is_some() => self.give_up().await,
            }
        }
    }

    async fn hear(&mut self, heard: Heard) {
        let service = &self.service.name;
        let message = match heard {
            Heard::Message(message) => message,
            Heard::Lost(count) => {
                tracing::warn!(%service, message_type = %self.message_type, count, "the bus lost messages");
                return self.service.metrics.dropped(Drop::BusLost);
            }
        };
        let parcel = self.shared.parcel_of_message(&self.service, &self.message_type, message).await;
        let Some(parcel) = parcel else { return };
        if parcel.deadline.is_some_and(|at| at <= Instant::now()) {
            return self.refuse(*parcel, Reason::Timeout, Drop::Late).await;
        }
        // Those that wait are first.
        let parcel = if self.waiting.is_empty() { self.service.offer(parcel).err() } else { Some(parcel) };
        if let Some(parcel) = parcel
            && let Err(parcel) = self.waiting.push(parcel)
        {
            self.refuse(*parcel, Reason::NoCredit, Drop::NoRoom).await;
        }
    }

    fn offer_waiting(&mut self) {
        while let Some(parcel) = self.waiting.pop() {
            if let Err(parcel) = self.service.offer(parcel) {
                return self.waiting.put_back(parcel);
            }
        }
    }

    /// Answers the requests whose time is over.
    async fn give_up(&mut self) {
        for parcel in self.waiting.take_late(Instant::now()) {
            self.refuse(*parcel, Reason::NoCredit, Drop::NoCredit).await;
        }
    }

    /// Nobody here takes this type any more, or the node drains.
    async fn part(&mut self) {
        let reason = if self.shared.draining.is_cancelled() { Reason::Draining } else { Reason::NoInstance };
        while let Some(parcel) = self.waiting.pop() {
            self.refuse(*parcel, reason, Drop::NoInstance).await;
        }
    }

    /// Tells whoever waits for it, if somebody does; counts it in any case.
    async fn refuse(&self, mut parcel: Parcel, reason: Reason, counted: Drop) {
        let service = &self.service.name;
        if parcel.task.is_over() {
            return;
        }
        self.service.metrics.dropped(counted);
        parcel.task.fail(reason.row().word);
        match &parcel.task.job {
            Job::Request { reply_to, .. } => {
                self.shared.refuse_request(reply_to, &Refusal::new(reason, sentence(reason, service))).await;
            }
            Job::Live | Job::Stored { .. } => {
                tracing::warn!(%service, message_type = %self.message_type, reason = counted.word(), "live message dropped");
            }
        }
    }
}

fn sentence(reason: Reason, service: &trestle_wire::ServiceName) -> String {
    match reason {
        Reason::NoCredit => format!("every instance of {service} is busy"),
        Reason::Timeout => "its deadline passed before it reached the service".into(),
        Reason::Draining => "the gateway is about to stop".into(),
        _ => format!("the last instance of {service} that takes this type has gone"),
    }
}

/// Waits for ever if there is nothing to wait for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What waits for room, in order, bounded in number and bytes.
#[derive(Debug)]
struct Waiting {
    queue: VecDeque<Box<Parcel>>,
    bytes: usize,
    /// No request of the queue has an earlier deadline; those that had one may have left.
    soonest: Option<Instant>,
    max: usize,
    bytes_max: usize,
}

impl Waiting {
    fn new(config: &Config) -> Self {
        let (max, bytes_max) = (config.waiting_max, config.waiting_bytes_max);
        Self { queue: VecDeque::new(), bytes: 0, soonest: None, max, bytes_max }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a place at the end; gives the parcel back if there is none, even without those that nobody waits for.
    fn push(&mut self, parcel: Box<Parcel>) -> Result<(), Box<Parcel>> {
        let bytes = size(&parcel);
        if !self.has_room(bytes) {
            self.queue.retain(|parcel| !parcel.task.is_over());
            self.bytes = self.queue.iter().map(|parcel| size(parcel)).sum();
        }
        if !self.has_room(bytes) {
            return Err(parcel);
        }
        self.bytes += bytes;
        self.expect(&parcel);
        self.queue.push_back(parcel);
        Ok(())
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.queue.len() < self.max && self.bytes + bytes <= self.bytes_max
    }

    fn pop(&mut self) -> Option<Box<Parcel>> {
        let parcel = self.queue.pop_front()?;
        self.bytes -= size(&parcel);
        if self.queue.is_empty() {
            self.soonest = None;
        }
        Some(parcel)
    }

    fn put_back(&mut self, parcel: Box<Parcel>) {
        self.bytes += size(&parcel);
        self.expect(&parcel);
        self.queue.push_front(parcel);
    }

    fn expect(&mut self, parcel: &Parcel) {
        self.soonest = self.soonest.into_iter().chain(parcel.deadline).min();
    }

    /// When to look for requests that are to be answered: with the first of them, or before, if one has left since.
    fn patience(&self) -> Option<Instant> {
        self.soonest.map(|at| at - ANSWER_AHEAD)
    }

    /// Takes the requests out that are to be answered by `now`.
    fn take_late(&mut self, now: Instant) -> VecDeque<Box<Parcel>> {
        let is_late = |parcel: &Parcel| parcel.deadline.is_some_and(|at| at - ANSWER_AHEAD <= now);
        let (late, kept) = std::mem::take(&mut self.queue).into_iter().partition(|parcel| is_late(parcel));
        self.queue = kept;
        self.bytes = self.queue.iter().map(|parcel| size(parcel)).sum();
        self.soonest = self.queue.iter().filter_map(|parcel| parcel.deadline).min();
        late
    }
}

fn size(parcel: &Parcel) -> usize {
    parcel.envelope.payload.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use trestle_wire::{Subject, v1};

    use super::*;
    use crate::{parcel::Task, ticket::Tickets};

    fn parcel(job: Job, bytes: usize, deadline: Option<Instant>) -> Box<Parcel> {
        let envelope = v1::Envelope { payload: Bytes::from(vec![0; bytes]), ..v1::Envelope::default() };
        let task = Task { job, message_type: "t".into(), taken: Instant::now(), span: None };
        Box::new(Parcel { envelope, attempt: 1, deadline, task })
    }

    fn request(tickets: &Tickets, id: &str, deadline: Instant) -> Box<Parcel> {
        let job = Job::Request {
            reply_to: Subject::from_trusted("inbox"),
            correlation_id: id.into(),
            ticket: Some(tickets.open(id)),
        };
        parcel(job, 0, Some(deadline))
    }

    fn room_for(max: usize, bytes_max: usize) -> Waiting {
        Waiting::new(&Config { waiting_max: max, waiting_bytes_max: bytes_max, ..Config::default() })
    }

    #[test]
    fn the_waiting_are_bounded_in_number_and_bytes() {
        let mut waiting = room_for(2, 100);
        assert!(waiting.push(parcel(Job::Live, 60, None)).is_ok());
        assert!(waiting.push(parcel(Job::Live, 41, None)).is_err());
        assert!(waiting.push(parcel(Job::Live, 40, None)).is_ok());
        assert!(waiting.push(parcel(Job::Live, 0, None)).is_err());
        let first = waiting.pop().expect("two wait");
        assert_eq!((size(&first), waiting.bytes), (60, 40));
        waiting.put_back(first);
        assert_eq!(waiting.pop().map(|parcel| size(&parcel)), Some(60));
    }

    #[test]
    fn cancelled_requests_make_room() {
        let tickets = Tickets::default();
        let soon = Instant::now() + Duration::from_secs(1);
        let mut waiting = room_for(1, 100);
        assert!(waiting.push(request(&tickets, "r1", soon)).is_ok());
        assert!(waiting.push(request(&tickets, "r2", soon)).is_err());
        tickets.cancel("r1");
        assert!(waiting.push(request(&tickets, "r3", soon)).is_ok());
        assert!(waiting.pop().is_some_and(|parcel| !parcel.task.is_over()));
    }

    #[test]
    fn requests_are_given_up_shortly_before_their_deadline() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let mut waiting = room_for(10, 100);
        for parcel in [request(&tickets, "later", later), parcel(Job::Live, 7, None), request(&tickets, "soon", soon)] {
            assert!(waiting.push(parcel).is_ok());
        }
        assert_eq!(waiting.patience(), Some(soon - ANSWER_AHEAD));
        let late = waiting.take_late(soon - ANSWER_AHEAD);
        assert_eq!(late.iter().map(|parcel| parcel.deadline).collect::<Vec<_>>(), [Some(soon)]);
        assert_eq!((waiting.queue.len(), waiting.bytes, waiting.patience()), (2, 7, Some(later - ANSWER_AHEAD)));
        // One that has left costs a look, and no more.
        assert!(waiting.pop().is_some() && waiting.patience() == Some(later - ANSWER_AHEAD));
        assert!(waiting.take_late(later - ANSWER_AHEAD).is_empty());
        assert_eq!(waiting.patience(), None);
    }
}
