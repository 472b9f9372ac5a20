//! What a room remembers while sessions come back to it: the messages that they missed, read once for all of them.
//!
//! A [`Stretch`] is a piece of a channel's history without a hole. The *tail* is the stretch that ends with the last
//! message the room has heard: it grows with what is heard live, so that whoever is given all of it may enter the room. A
//! *segment* is a stretch that ends before, in a history that is too large to be held whole.
//!
//! What always holds: a stretch has every message of the log between its ends; what the log had lost before it was read
//! is known as such; all that is remembered on a node is bounded by [`BYTES_MAX`], and in one room by
//! [`ROOM_BYTES_MAX`] and [`ROOM_MESSAGES_MAX`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use trestle_codec::Since;
use trestle_wire::v1::{self, GapReason};

use crate::fanout::Parcel;

/// How long a tail is kept after somebody was last given something of it.
pub(crate) const KEPT: Duration = Duration::from_secs(5);
/// Most messages that are read at once for those who join; smaller histories are read whole.
pub(crate) const READ_MESSAGES_MAX: usize = 1024;
/// Most bytes of them: 1,024 messages of 4 KiB.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;
/// Most messages in a tail: a history that was read whole, and as many live ones.
const ROOM_MESSAGES_MAX: usize = 2 * READ_MESSAGES_MAX;
/// Most bytes in a tail, encoded messages included.
const ROOM_BYTES_MAX: usize = 4 * READ_BYTES_MAX;
/// Most bytes that all rooms of a node remember: 800 channels with 100 messages of 200 bytes each, at 800 bytes a message.
const BYTES_MAX: usize = 64 << 20;
/// Messages given to one member at a time: that many are looked up with the room held still, in a few microseconds.
const STINT_MESSAGES_MAX: usize = 256;
/// Bytes given at a time, as a member that waits for room in its outbox holds them: as many as a default outbox.
const STINT_BYTES_MAX: usize = 256 << 10;
/// What a message takes beside its bytes, about.
const MESSAGE_BYTES: usize = 400;

/// Bytes that all rooms of a node remember.
#[derive(Default)]
pub(crate) struct Budget(AtomicUsize);

/// A message of a channel that somebody may have missed.
pub(crate) struct Recalled {
    pub(crate) offset: u64,
    pub(crate) parcel: Arc<Parcel>,
    bytes: usize,
}

/// A piece of a channel's history without a hole.
pub(crate) struct Stretch {
    /// It has all that the log has after this offset; 0: all that is kept.
    from: u64,
    /// Before this one, messages may have been removed from the log; all after it are here.
    after: u64,
    /// It ends here.
    until: u64,
    /// When it was read.
    read: SystemTime,
    /// Whether the log had as many messages as it keeps, so that older ones may have been removed however young.
    full: bool,
    messages: VecDeque<Arc<Recalled>>,
    bytes: usize,
    budget: Arc<Budget>,
}

/// What was found in a log.
pub(crate) struct Found {
    /// What was asked for: everything after this offset.
    pub(crate) from: u64,
    /// The first message that was there, whether it can be read or not; `None` if there was none up to `until`.
    pub(crate) first: Option<u64>,
    /// How far it was read.
    pub(crate) until: u64,
    /// Whether the log had as many messages as it keeps.
    pub(crate) full: bool,
    pub(crate) messages: Vec<Arc<Recalled>>,
}

/// Where a member wants to begin.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) since: Since,
    /// How long ago at most it was here, if it was.
    pub(crate) absent: Option<Duration>,
    /// For how long messages are kept.
    pub(crate) ttl: Duration,
}

/// Where a member begins, and what it does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    /// The first message is the one after this offset.
    pub(crate) after: u64,
    pub(crate) lost: Option<Lost>,
}

/// Offsets of a channel that a member does not get; 0 where not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) reason: GapReason,
}

/// The next that a member gets.
pub(crate) struct Stint {
    pub(crate) lost: Option<Lost>,
    pub(crate) messages: Vec<Arc<Recalled>>,
    /// How far it goes, also if the last message there cannot be read.
    pub(crate) until: u64,
}

/// What a room remembers.
#[derive(Default)]
pub(crate) struct Recall {
    tail: Option<Box<Stretch>>,
    segment: Option<Arc<Stretch>>,
    used: Option<Instant>,
}

impl Asked {
    /// Whether it was here less than messages are kept ago: only a full history has lost what it missed.
    pub(crate) fn is_recent(&self) -> bool {
        self.absent.is_some_and(|absent| absent < self.ttl)
    }

    /// Whether it was here so long ago that what it missed may have expired.
    pub(crate) fn was_long_ago(&self) -> bool {
        self.absent.is_some() && !self.is_recent()
    }
}

impl Budget {
    fn take(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether that is too much.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) > BYTES_MAX
    }
}

impl Recalled {
    pub(crate) fn new(offset: u64, parcel: Arc<Parcel>) -> Self {
        // Once as it came, and once more for each encoding, of which there mostly is one.
        let bytes = 2 * parcel.envelope().map_or(0, prost::Message::encoded_len) + MESSAGE_BYTES;
        Self { offset, parcel, bytes }
    }

    fn time(&self) -> Option<SystemTime> {
        SystemTime::try_from(self.parcel.envelope()?.time?).ok()
    }
}

impl Stretch {
    pub(crate) fn new(found: Found, budget: &Arc<Budget>) -> Self {
        let mut stretch = Self::empty(found.from, found.until, budget);
        stretch.after = found.first.map_or(found.until, |first| first - 1).max(found.from);
        stretch.full = found.full;
        found.messages.into_iter().for_each(|message| stretch.push(message));
        stretch
    }

    fn empty(from: u64, until: u64, budget: &Arc<Budget>) -> Self {
        let (messages, budget) = (VecDeque::new(), Arc::clone(budget));
        Self { from, after: from, until, read: SystemTime::now(), full: true, messages, bytes: 0, budget }
    }

    fn push(&mut self, message: Arc<Recalled>) {
        self.bytes += message.bytes;
        self.budget.take(message.bytes);
        self.messages.push_back(message);
    }

    fn covers(&self, offset: u64) -> bool {
        (self.from..=self.until).contains(&offset)
    }

    /// Lets the oldest go while it is too large.
    fn trim(&mut self) {
        while self.messages.len() > ROOM_MESSAGES_MAX || self.bytes > ROOM_BYTES_MAX || self.budget.is_over() {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= oldest.bytes;
            self.budget.give_back(oldest.bytes);
            (self.from, self.after) = (oldest.offset, oldest.offset);
        }
    }

    /// Where a member begins; `None` if that is not in here.
    pub(crate) fn begin(&self, asked: Asked) -> Option<Begin> {
        match asked.since {
            Since::Now => None,
            Since::Offset(offset) => self.covers(offset).then(|| self.begin_after(offset, asked)),
            Since::Last(count) => self.begin_with_last(count),
            Since::Time(time) => self.begin_at(time, asked.ttl),
        }
    }

    fn begin_after(&self, offset: u64, asked: Asked) -> Begin {
        // Offset 0 asks for what is kept, and that is here; but who was here before it all began has missed the rest.
        let kept = offset == 0 && asked.absent.is_none();
        let young = asked.is_recent() && self.from == 0 && !self.full;
        let lost = (offset < self.after && !kept && !young).then(|| Lost::removed(offset + 1, self.after));
        Begin { after: offset.max(self.after), lost }
    }

    fn begin_with_last(&self, count: u32) -> Option<Begin> {
        let before = self.messages.len().checked_sub(usize::try_from(count).unwrap_or(usize::MAX));
        let after = match before {
            Some(0) => self.messages.front().map_or(self.until, |first| first.offset - 1),
            Some(before) => self.messages[before - 1].offset,
            None if self.from == 0 => self.after,
            None => return None,
        };
        Some(Begin { after, lost: None })
    }

    fn begin_at(&self, time: SystemTime, ttl: Duration) -> Option<Begin> {
        let older = self.messages.iter().take_while(|message| message.time().is_none_or(|sent| sent < time)).count();
        if older > 0 {
            return Some(Begin { after: self.messages[older - 1].offset, lost: None });
        }
        if self.from > 0 {
            return None;
        }
        // Nothing older is kept: was there something younger than `time` that is gone?
        let young = !self.full && self.read.checked_sub(ttl).is_some_and(|oldest| oldest < time);
        let lost = (self.after > 0 && !young).then(|| Lost::removed(0, self.after));
        Some(Begin { after: self.after, lost })
    }

    /// What comes after `offset`; `None` if that is not in here, or it is the end.
    pub(crate) fn stint(&self, offset: u64) -> Option<Stint> {
        if !self.covers(offset) || offset == self.until {
            return None;
        }
        let lost = (offset < self.after).then(|| Lost::removed(offset + 1, self.after));
        let start = self.messages.partition_point(|message| message.offset <= offset);
        let mut bytes = 0;
        let fits = |message: &&Arc<Recalled>| {
            let first = bytes == 0;
            bytes += message.bytes;
            first || bytes <= STINT_BYTES_MAX
        };
        let some = self.messages.range(start..).take(STINT_MESSAGES_MAX).take_while(fits);
        let messages: Vec<_> = some.cloned().collect();
        let rest = start + messages.len() < self.messages.len();
        let until = messages.last().filter(|_| rest).map_or(self.until, |last| last.offset);
        Some(Stint { lost, messages, until })
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

impl Lost {
    /// The history no longer has them.
    pub(crate) fn removed(from: u64, to: u64) -> Self {
        Self { from, to, reason: GapReason::Retention }
    }

    /// Nobody knows which.
    pub(crate) fn unknown(reason: GapReason) -> Self {
        Self { from: 0, to: 0, reason }
    }

    /// As it is told to those who listen to `channel`.
    pub(crate) fn gap(self, channel: &str) -> v1::Gap {
        v1::Gap { channel: channel.to_owned(), from: self.from, to: self.to, count: 0, reason: self.reason.into() }
    }
}

impl Recall {
    /// Begins to remember what is heard after `offset`, unless it does, and says after which offset it does.
    pub(crate) fn collect(&mut self, offset: u64, budget: &Arc<Budget>) -> u64 {
        self.used = Some(Instant::now());
        self.tail.get_or_insert_with(|| Box::new(Stretch::empty(offset, offset, budget))).from
    }

    /// Whether what is heard is to be remembered.
    pub(crate) fn collects(&self) -> bool {
        self.tail.is_some()
    }

    /// Takes a message that was heard.
    pub(crate) fn heard(&mut self, message: Recalled) {
        let Some(tail) = &mut self.tail else { return };
        tail.until = message.offset;
        tail.push(Arc::new(message));
        tail.trim();
    }

    /// Notes that a message at `offset` was heard that cannot be read.
    pub(crate) fn passed(&mut self, offset: u64) {
        if let Some(tail) = &mut self.tail {
            tail.until = offset;
        }
    }

    /// Takes what was read: in front of the tail if it reaches that.
    pub(crate) fn install(&mut self, stretch: &Arc<Stretch>) {
        self.used = Some(Instant::now());
        match &mut self.tail {
            Some(tail) if stretch.from >= tail.from => {}
            Some(tail) if tail.covers(stretch.until) => {
                let read = stretch.messages.iter().filter(|message| message.offset <= tail.from);
                let mut whole = Stretch::empty(stretch.from, tail.until, &stretch.budget);
                (whole.after, whole.full, whole.read) = (stretch.after, stretch.full, stretch.read);
                read.chain(&tail.messages).for_each(|message| whole.push(Arc::clone(message)));
                **tail = whole;
                tail.trim();
            }
            // Whoever has read it has it; for others there is no room.
            _ if stretch.budget.is_over() => {}
            _ => self.segment = Some(Arc::clone(stretch)),
        }
    }

    /// Where a member begins; `None` if that is to be looked up in the log.
    pub(crate) fn begin(&mut self, asked: Asked) -> Option<Begin> {
        let segment = self.segment.as_ref().filter(|_| matches!(asked.since, Since::Offset(_)));
        let tail = self.tail.as_ref().and_then(|tail| tail.begin(asked));
        let begin = tail.or_else(|| segment.and_then(|segment| segment.begin(asked)));
        if begin.is_some() {
            self.used = Some(Instant::now());
        }
        begin
    }

    /// What a member that has got everything up to `offset` gets next; `None` if that is to be read.
    pub(crate) fn stint(&mut self, offset: u64) -> Option<Stint> {
        let tail = self.tail.as_ref().and_then(|tail| tail.stint(offset));
        let stint = tail.or_else(|| self.segment.as_ref().and_then(|segment| segment.stint(offset)));
        if stint.is_some() {
            self.used = Some(Instant::now());
        }
        stint
    }

    /// Forgets everything: what was heard next does not follow on what is here.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When it has been of no use for long enough; `None` if there is nothing.
    pub(crate) fn ends(&self) -> Option<Instant> {
        Some(self.used? + KEPT)
    }
}

#[cfg(test)]
mod tests {
    use trestle_schema::{SchemaSource, Schemas};
    use trestle_wire::v1::Overflow;

    use super::*;

    fn message(offset: u64) -> Recalled {
        let schemas = Schemas::open(SchemaSource::Files(Vec::new())).unwrap();
        let envelope = v1::Envelope { offset, ..v1::Envelope::default() };
        Recalled::new(offset, Arc::new(Parcel::delivery(envelope, None, Overflow::Disconnect, &schemas.current())))
    }

    fn found(from: u64, offsets: &[u64], until: u64) -> Found {
        let messages = offsets.iter().map(|offset| Arc::new(message(*offset))).collect();
        Found { from, first: offsets.first().copied(), until, full: true, messages }
    }

    fn after(offset: u64) -> Asked {
        Asked { since: Since::Offset(offset), absent: None, ttl: Duration::from_secs(60) }
    }

    /// All that a member which had `had` gets, and where that ends.
    fn all(recall: &mut Recall, mut had: u64) -> (Vec<u64>, u64) {
        let mut offsets = Vec::new();
        while let Some(stint) = recall.stint(had) {
            assert_eq!(stint.lost, None);
            offsets.extend(stint.messages.iter().map(|message| message.offset));
            assert!(stint.until > had, "it goes on");
            had = stint.until;
        }
        (offsets, had)
    }

    #[test]
    fn what_is_heard_while_the_log_is_read_follows_what_was_read() {
        let (mut recall, budget) = (Recall::default(), Arc::default());
        assert_eq!(recall.collect(5, &budget), 5);
        recall.heard(message(7));
        recall.heard(message(9));
        assert!(recall.begin(after(1)).is_none(), "it is not known yet");
        // One that was heard was read too.
        recall.install(&Arc::new(Stretch::new(found(0, &[1, 3, 5, 7], 7), &budget)));
        assert_eq!(recall.begin(after(1)), Some(Begin { after: 1, lost: None }));
        assert_eq!(all(&mut recall, 1), (vec![3, 5, 7, 9], 9));
        recall.install(&Arc::new(Stretch::new(found(4, &[5, 7], 7), &budget)));
        assert_eq!(recall.collect(9, &budget), 0, "all that is kept is there, whatever less is read after it");
    }

    #[test]
    fn what_does_not_reach_the_tail_is_a_piece_of_its_own() {
        let (mut recall, budget) = (Recall::default(), Arc::default());
        recall.collect(50, &budget);
        recall.install(&Arc::new(Stretch::new(found(9, &[10, 20, 30], 30), &budget)));
        assert_eq!(recall.begin(after(10)), Some(Begin { after: 10, lost: None }));
        assert_eq!(all(&mut recall, 10), (vec![20, 30], 30));
        let last = Asked { since: Since::Last(2), ..after(0) };
        assert_eq!(recall.begin(last), None, "the last ones are not in there");
        recall.install(&Arc::new(Stretch::new(found(29, &[30, 40, 50], 50), &budget)));
        assert_eq!(all(&mut recall, 10), (vec![20, 30, 40, 50], 50));
    }

    #[test]
    fn a_tail_that_grows_too_long_lets_its_beginning_go() {
        let (mut recall, budget) = (Recall::default(), Arc::default());
        recall.collect(0, &budget);
        let count = ROOM_MESSAGES_MAX as u64 + 10;
        (1..=count).for_each(|offset| recall.heard(message(offset)));
        assert_eq!(recall.begin(after(9)), None);
        assert_eq!(recall.begin(after(10)), Some(Begin { after: 10, lost: None }));
        assert_eq!(all(&mut recall, 10), ((11..=count).collect(), count));
        drop(recall);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0, "and all of it when it goes");
    }

    #[test]
    fn a_node_that_remembers_too_much_remembers_nothing_more() {
        let (mut recall, budget) = (Recall::default(), Arc::<Budget>::default());
        budget.take(BYTES_MAX + 1);
        recall.collect(5, &budget);
        recall.heard(message(6));
        let stretch = Arc::new(Stretch::new(found(0, &[1, 5], 5), &budget));
        recall.install(&stretch);
        assert_eq!(recall.begin(after(1)), None);
        assert_eq!(stretch.stint(1).map(|stint| stint.until), Some(5), "who has read it gets it all the same");
        recall.clear();
        drop(stretch);
        assert_eq!(budget.0.load(Ordering::Relaxed), BYTES_MAX + 1);
    }

    #[test]
    fn a_message_that_cannot_be_read_is_gone_past() {
        let (mut recall, budget) = (Recall::default(), Arc::default());
        recall.collect(1, &budget);
        recall.heard(message(2));
        recall.passed(3);
        assert_eq!(all(&mut recall, 1), (vec![2], 3));
    }
}
