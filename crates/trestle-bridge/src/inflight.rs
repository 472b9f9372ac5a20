//! What one stream was given and has not answered: delivery ids, and what is late. No I/O, no clock of its own.
//!
//! The life of a delivery:
//! ```text
//! add ─> open ──── answer ──> gone          (ack, nack, reply)
//!         ├─ expire ─> late ── answer ──> gone    a late one keeps its credit: the service still has it in hand
//!         └─ cancel ─> cancelled ─ answer ─> gone, and nobody minds
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

/// How many cancelled deliveries are remembered, so that an answer that crossed the cancel is not called unknown.
const CANCELLED_MAX: usize = 1024;

/// Names a delivery on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeliveryId(pub(crate) u64);

/// The deliveries of one stream, each with what is to be settled.
#[derive(Debug)]
pub(crate) struct Inflight<T> {
    last: u64,
    entries: HashMap<DeliveryId, Entry<T>>,
    /// Of the open entries that have one.
    deadlines: BTreeSet<(Instant, DeliveryId)>,
    cancelled: VecDeque<DeliveryId>,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    deadline: Option<Instant>,
    late: bool,
}

/// What an answer is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered<T> {
    /// In time.
    Open(T),
    /// After its deadline; it may be with somebody else by now.
    Late(T),
    /// It was cancelled; the answer needs no answer.
    Cancelled,
    /// Never sent on this stream, or answered before.
    Unknown,
}

impl<T> Default for Inflight<T> {
    fn default() -> Self {
        Self { last: 0, entries: HashMap::new(), deadlines: BTreeSet::new(), cancelled: VecDeque::new() }
    }
}

impl<T> Inflight<T> {
    /// Takes a delivery in, and names it.
    pub(crate) fn add(&mut self, item: T, deadline: Option<Instant>) -> DeliveryId {
        self.last += 1;
        let id = DeliveryId(self.last);
        self.entries.insert(id, Entry { item, deadline, late: false });
        self.deadlines.extend(deadline.map(|at| (at, id)));
        id
    }

    /// The item of an open or late delivery.
    pub(crate) fn get(&self, id: DeliveryId) -> Option<&T> {
        self.entries.get(&id).map(|entry| &entry.item)
    }

    /// The service has answered.
    pub(crate) fn answer(&mut self, id: DeliveryId) -> Answered<T> {
        match self.take(id) {
            Some(Entry { item, late: true, .. }) => Answered::Late(item),
            Some(Entry { item, .. }) => Answered::Open(item),
            None => match self.cancelled.iter().position(|cancelled| *cancelled == id) {
                Some(place) => {
                    self.cancelled.remove(place);
                    Answered::Cancelled
                }
                None => Answered::Unknown,
            },
        }
    }

    /// Nobody waits for it any more; `None` if it is not there.
    pub(crate) fn cancel(&mut self, id: DeliveryId) -> Option<T> {
        let entry = self.take(id)?;
        if self.cancelled.len() == CANCELLED_MAX {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(id);
        Some(entry.item)
    }

    /// When the next delivery is late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Marks what is late at `now` and names it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<DeliveryId> {
        let mut late = Vec::new();
        while let Some((at, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.late = true;
                late.push(id);
            }
        }
        late
    }

    /// The stream is over: what was open, and what was late.
    pub(crate) fn end(&mut self) -> (Vec<T>, Vec<T>) {
        self.deadlines.clear();
        let mut entries: Vec<_> = self.entries.drain().collect();
        // Given back in the order it came, so that the next one gets it in that order.
        entries.sort_unstable_by_key(|(id, _)| *id);
        let (late, open): (Vec<_>, Vec<_>) = entries.into_iter().map(|(_, entry)| entry).partition(|entry| entry.late);
        let items = |entries: Vec<Entry<T>>| entries.into_iter().map(|entry| entry.item).collect();
        (items(open), items(late))
    }

    /// How many are open or late.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn take(&mut self, id: DeliveryId) -> Option<Entry<T>> {
        let entry = self.entries.remove(&id)?;
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_delivery_is_answered_once() {
        let mut table = Inflight::default();
        let id = table.add("a", None);
        assert_eq!(table.answer(id), Answered::Open("a"));
        assert_eq!(table.answer(id), Answered::Unknown);
        assert_eq!(table.answer(DeliveryId(99)), Answered::Unknown);
    }

    #[test]
    fn a_late_delivery_stays_until_it_is_answered() {
        let mut table = Inflight::default();
        let late = table.add("late", Some(at(30)));
        let open = table.add("open", Some(at(60)));
        assert_eq!(table.next_deadline(), Some(at(30)));
        assert_eq!(table.expire(at(30)), [late]);
        assert_eq!((table.expire(at(31)), table.next_deadline()), (vec![], Some(at(60))));
        assert_eq!(table.len(), 2);
        assert_eq!(table.answer(late), Answered::Late("late"));
        assert_eq!(table.answer(open), Answered::Open("open"));
        assert_eq!((table.next_deadline(), table.len()), (None, 0));
    }

    #[test]
    fn an_answer_that_crossed_the_cancel_is_known_once() {
        let mut table = Inflight::default();
        let id = table.add("a", Some(at(1)));
        assert_eq!((table.cancel(id), table.cancel(id)), (Some("a"), None));
        assert_eq!(table.expire(at(2)), []);
        assert_eq!((table.answer(id), table.answer(id)), (Answered::Cancelled, Answered::Unknown));
    }

    #[test]
    fn cancelled_deliveries_are_not_remembered_for_ever() {
        let mut table = Inflight::default();
        let first = table.add(0, None);
        table.cancel(first);
        for n in 0..CANCELLED_MAX {
            let id = table.add(n, None);
            table.cancel(id);
        }
        assert_eq!(table.answer(first), Answered::Unknown);
        assert_eq!(table.cancelled.len(), CANCELLED_MAX);
    }

    #[test]
    fn when_the_stream_ends_what_is_left_comes_back_in_order() {
        let mut table = Inflight::default();
        for n in 0..50 {
            table.add(n, Some(at(10 + n % 2 * 10)));
        }
        table.expire(at(10));
        let (open, late) = table.end();
        assert_eq!(open, (0..50).filter(|n| n % 2 == 1).collect::<Vec<_>>());
        assert_eq!(late, (0..50).filter(|n| n % 2 == 0).collect::<Vec<_>>());
        assert_eq!((table.len(), table.next_deadline()), (0, None));
    }
}
