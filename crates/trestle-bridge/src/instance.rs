//! One attached stream: what it has in hand, and the queue of what it is to be sent.
//!
//! Owned by its conversation ([`crate::attach`]), which ends it; the intakes only hand deliveries to it. Nothing here
//! waits: credits bound the deliveries, and the queue holds more than all credits, so a stream that is not read only
//! fills its own queue and then gets nothing more.

use std::{sync::Arc, time::SystemTime};

use parking_lot::Mutex;
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::Instant,
};
use trestle_wire::{ServiceName, v1};

use crate::{
    inflight::{Answered, DeliveryId, Inflight},
    parcel::{Parcel, Task},
    pool::InstanceId,
};

/// One attached stream.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its place in the pool.
    pub(crate) id: InstanceId,
    /// Its name, for people.
    pub(crate) name: String,
    /// The service it is one of.
    pub(crate) service: ServiceName,
    /// `None` once the stream has ended.
    hand: Mutex<Option<Inflight<Task>>>,
    queue: mpsc::Sender<Outgoing>,
    /// Beside the queue, whose room is counted in credits.
    events: mpsc::Sender<v1::SessionEvent>,
    /// The first deadline has come nearer.
    nearer: Notify,
}

/// What waits to be written to a stream, beside the answers to its own frames.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are deliveries
pub(crate) enum Outgoing {
    /// A delivery.
    Deliver(v1::Delivery),
    /// A delivery that nobody waits for; its credit comes back when this is written.
    Cancel(DeliveryId),
    /// The node is about to stop.
    Draining(v1::Draining),
    /// Something happened to a session; it has a queue of its own.
    Event(v1::SessionEvent),
}

/// Session events that may wait for one stream. 256 of some 200 bytes are 50 KiB.
const EVENTS_MAX: usize = 256;

/// What a stream is written from.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Deliveries, and what belongs to them.
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    /// What happened to sessions.
    pub(crate) events: mpsc::Receiver<v1::SessionEvent>,
}

/// What became of a parcel that was handed to an instance.
#[derive(Debug)]
pub(crate) enum Handed {
    /// It is in the queue.
    Over,
    /// It is a request that nobody waits for any more.
    NotWanted,
    /// The stream has ended, or is not read at all.
    Ended(Box<Parcel>),
}

impl Instance {
    /// A stream that may have up to `in_flight_max` deliveries in hand, and the queue to write from.
    pub(crate) fn new(id: InstanceId, name: String, service: ServiceName, in_flight_max: u32) -> (Arc<Self>, Queue) {
        // Each credit is at most one delivery and one cancel in the queue; one more for `draining`.
        let (queue, outgoing) = mpsc::channel(2 * in_flight_max as usize + 1);
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let hand = Mutex::new(Some(Inflight::default()));
        let instance = Self { id, name, service, hand, queue, events: tell, nearer: Notify::new() };
        (Arc::new(instance), Queue { outgoing, events })
    }

    /// Puts a session event in its queue; gives it back if there is no room.
    pub(crate) fn tell(&self, event: v1::SessionEvent) -> Result<(), v1::SessionEvent> {
        self.events.try_send(event).map_err(|full| match full {
            TrySendError::Full(event) | TrySendError::Closed(event) => event,
        })
    }

    /// Puts a delivery in the queue. The caller has taken the credit for it.
    pub(crate) fn deliver(self: &Arc<Self>, parcel: Parcel) -> Handed {
        let mut hand = self.hand.lock();
        let Some(table) = hand.as_mut() else { return Handed::Ended(Box::new(parcel)) };
        let Ok(room) = self.queue.try_reserve() else { return Handed::Ended(Box::new(parcel)) };
        let Parcel { envelope, attempt, deadline, task } = parcel;
        let request = task.is_request();
        let first = table.next_deadline();
        let id = table.add(task, deadline);
        let wanted = table.get(id).and_then(Task::ticket).is_none_or(|ticket| ticket.hand_over(self, id));
        if !wanted {
            table.cancel(id);
            return Handed::NotWanted;
        }
        if deadline.is_some_and(|at| first.is_none_or(|first| at < first)) {
            self.nearer.notify_one();
        }
        let deadline = deadline.map(|at| (SystemTime::now() + (at - Instant::now())).into());
        let delivery = v1::Delivery { delivery_id: id.0, envelope: Some(envelope), attempt, request, deadline };
        // Under the lock, so that ids grow in the order of the stream.
        room.send(Outgoing::Deliver(delivery));
        Handed::Over
    }

    /// The service has answered a delivery.
    pub(crate) fn answer(&self, id: DeliveryId) -> Answered<Task> {
        self.hand.lock().as_mut().map_or(Answered::Unknown, |table| table.answer(id))
    }

    /// Whether a delivery in hand is a request; `None` if it is not in hand.
    pub(crate) fn is_request(&self, id: DeliveryId) -> Option<bool> {
        self.hand.lock().as_ref()?.get(id).map(Task::is_request)
    }

    /// Takes a delivery back that nobody waits for, and tells the service. `None` if it is not in hand any more.
    pub(crate) fn cancel(&self, id: DeliveryId) -> Option<Task> {
        let mut hand = self.hand.lock();
        let task = hand.as_mut()?.cancel(id)?;
        // There is room: see `new`. Were there none, the service would only learn of it by its deadline.
        if self.queue.try_send(Outgoing::Cancel(id)).is_err() {
            tracing::debug!(service = %self.service, instance = %self.name, "a cancel found no room");
        }
        Some(task)
    }

    /// Says that the node is about to stop.
    pub(crate) fn drain(&self, draining: v1::Draining) {
        if self.queue.try_send(Outgoing::Draining(draining)).is_err() {
            tracing::debug!(service = %self.service, instance = %self.name, "draining found no room");
        }
    }

    /// Waits until some delivery is late; returns requests taken back and the number of others that are late.
    pub(crate) async fn late(&self) -> (Vec<Task>, usize) {
        loop {
            let next = self.hand.lock().as_ref().and_then(Inflight::next_deadline);
            let Some(at) = next else {
                self.nearer.notified().await;
                continue;
            };
            tokio::select! {
                () = self.nearer.notified() => {}
                () = tokio::time::sleep_until(at) => return self.expire(),
            }
        }
    }

    fn expire(&self) -> (Vec<Task>, usize) {
        let late = self.hand.lock().as_mut().map(|table| table.expire(Instant::now())).unwrap_or_default();
        let (requests, others): (Vec<_>, Vec<_>) =
            late.into_iter().partition(|id| self.is_request(*id).unwrap_or(false));
        (requests.into_iter().filter_map(|id| self.cancel(id)).collect(), others.len())
    }

    /// How many deliveries are in hand.
    pub(crate) fn in_hand(&self) -> usize {
        self.hand.lock().as_ref().map_or(0, Inflight::len)
    }

    /// The stream is over: nothing more is taken. Returns what was in hand, and what of it was late.
    pub(crate) fn end(&self) -> (Vec<Task>, Vec<Task>) {
        self.hand.lock().take().map(|mut table| table.end()).unwrap_or_default()
    }
}
