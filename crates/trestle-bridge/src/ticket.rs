//! Requests that can be cancelled, by their correlation id: where each one is, waiting or with an instance.
//!
//! Every bridge hears every cancel; the one that has the request does something about it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{inflight::DeliveryId, instance::Instance};

/// All requests on this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tickets(Arc<Mutex<HashMap<String, Arc<Mutex<Place>>>>>);

#[derive(Debug)]
enum Place {
    Waiting,
    With(Weak<Instance>, DeliveryId),
    Over,
}

/// One request's place; dropping it says that the request is settled.
#[derive(Debug)]
pub(crate) struct Ticket {
    tickets: Tickets,
    correlation_id: String,
    place: Arc<Mutex<Place>>,
}

impl Tickets {
    /// Opens the ticket of a request. The id is its sender's; of two with one id, the later can be cancelled.
    pub(crate) fn open(&self, correlation_id: &str) -> Ticket {
        let place = Arc::new(Mutex::new(Place::Waiting));
        self.0.lock().insert(correlation_id.to_owned(), place.clone());
        Ticket { tickets: self.clone(), correlation_id: correlation_id.to_owned(), place }
    }

    /// The sender of the request has gone. Returns the instance that has it, to be told.
    pub(crate) fn cancel(&self, correlation_id: &str) -> Option<(Arc<Instance>, DeliveryId)> {
        let place = self.0.lock().get(correlation_id)?.clone();
        match std::mem::replace(&mut *place.lock(), Place::Over) {
            Place::With(instance, id) => Some((instance.upgrade()?, id)),
            Place::Waiting | Place::Over => None,
        }
    }
}

impl Ticket {
    /// The request goes to an instance; false if nobody waits for it any more.
    pub(crate) fn hand_over(&self, instance: &Arc<Instance>, id: DeliveryId) -> bool {
        let mut place = self.place.lock();
        if matches!(*place, Place::Over) {
            return false;
        }
        *place = Place::With(Arc::downgrade(instance), id);
        true
    }

    /// Whether it was cancelled.
    pub(crate) fn is_over(&self) -> bool {
        matches!(*self.place.lock(), Place::Over)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut tickets = self.tickets.0.lock();
        if tickets.get(&self.correlation_id).is_some_and(|place| Arc::ptr_eq(place, &self.place)) {
            tickets.remove(&self.correlation_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_request_leaves_nothing_behind() {
        let tickets = Tickets::default();
        let ticket = tickets.open("r1");
        assert!(!ticket.is_over());
        drop(ticket);
        assert!(tickets.0.lock().is_empty());
        assert!(tickets.cancel("r1").is_none());
    }

    #[test]
    fn a_waiting_request_is_over_when_it_is_cancelled() {
        let tickets = Tickets::default();
        let ticket = tickets.open("r1");
        assert!(tickets.cancel("r1").is_none());
        assert!(ticket.is_over());
    }

    #[test]
    fn of_two_requests_with_one_id_the_first_does_not_take_the_second_along() {
        let tickets = Tickets::default();
        let first = tickets.open("r1");
        let second = tickets.open("r1");
        drop(first);
        tickets.cancel("r1");
        assert!(second.is_over());
    }
}
