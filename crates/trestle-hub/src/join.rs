//! Joining a channel, from now on or from a place in its history.
//!
//! In: a member and where it wants to begin. Out: its seat. What always holds: the welcome comes first, then what is
//! lost, then what was missed, in its order and each once, then what is heard live; a member enters the room in the very
//! moment in which it has got all that the room has heard; if the log loses that meanwhile, it is told as the others are.
//! However many join at once, one of them reads the log.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;
use trestle_auth::Namespace;
use trestle_bus::{BusError, Stored};
use trestle_codec::{Encoded, Since};
use trestle_session::Pushed;
use trestle_wire::{
    ChannelName, Refusal,
    v1::{self, GapReason, server_frame::Frame},
};

use crate::{
    Audience, Hub, Member, Seat,
    fanout::Parcel,
    listen::Core,
    read::{PAGE, PAUSE, TRIES_MAX},
    recall::{Asked, Begin, Found, Lost, READ_BYTES_MAX, READ_MESSAGES_MAX, Recalled, Stint, Stretch},
    room::{Inside, Past, Room},
};

/// How long a client waits for the place where it begins: twice the store's time limit of 3 s, and a log that is behind.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Read at once while the node remembers as much as it may.
const FRUGAL: (usize, usize) = (PAGE, 256 << 10);

/// What a member wants to listen to.
#[derive(Clone, Debug)]
pub struct Join {
    /// The channel.
    pub channel: ChannelName,
    /// Where to begin, if it keeps a history.
    pub since: Since,
}

/// What a member is told when it has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Offset of the channel's last message: what was missed follows up to it. 0 without history.
    pub offset: u64,
    /// Whether everything since the place that was asked for follows.
    pub recovered: bool,
}

impl Hub {
    /// Takes a seat in a channel. The frame that `welcome` makes goes into the outbox first; then a gap, if the history no
    /// longer has what was asked for; then what was missed; then what is heard from now on.
    ///
    /// Returns when all that was missed has gone into the outbox, which may have to drain for it: how long that may take
    /// is for the owner of the outbox to say. A member whose outbox was closed is seated at once.
    ///
    /// # Errors
    /// `unknown_namespace`; `bus_away` or `timeout` if the channel cannot be listened to, or its history not be read.
    pub async fn join(
        self: &Arc<Self>,
        member: &Arc<Member>,
        join: Join,
        welcome: impl FnOnce(Joined) -> Option<Encoded> + Send,
    ) -> Result<Seat, Refusal> {
        self.come(member, join, None, welcome).await
    }

    /// As [`Hub::join`], for a session that was there `absent` ago at most, in the place it gives. If that is less than the
    /// history's `ttl`, nothing that it missed is too old to be kept, so only a full history has lost something; else what
    /// may have expired is told in a gap. An offset of 0 says that nothing had come. On a channel without history, what was
    /// missed is told in a gap.
    ///
    /// # Errors
    /// As [`Hub::join`].
    pub async fn rejoin(
        self: &Arc<Self>,
        member: &Arc<Member>,
        join: Join,
        absent: Duration,
        welcome: impl FnOnce(Joined) -> Option<Encoded> + Send,
    ) -> Result<Seat, Refusal> {
        self.come(member, join, Some(absent), welcome).await
    }

    async fn come(
        self: &Arc<Self>,
        member: &Arc<Member>,
        join: Join,
        absent: Option<Duration>,
        welcome: impl FnOnce(Joined) -> Option<Encoded> + Send,
    ) -> Result<Seat, Refusal> {
        let Join { channel, since } = join;
        let core = &self.core;
        let namespace = core.channels.of(&channel)?;
        let make = |audience| Room::new(audience, namespace.overflow.into(), core.past(&channel, namespace));
        let reserved = self.reserve(Audience::Channel(channel.clone()), make).await?;
        let room = Arc::clone(&reserved.room);
        let newcomer = Newcomer { core, member, channel: &channel };
        let Some(past) = room.past.as_deref().filter(|_| since != Since::Now) else {
            let reason = if absent.is_some() { GapReason::Failover } else { GapReason::Retention };
            let lost = (since != Since::Now).then(|| Lost::unknown(reason));
            let (seat, ()) = reserved.seat(member, |inside| newcomer.welcome(welcome, inside.offset, false, lost));
            return Ok(seat);
        };
        let asked = Asked { since, absent, ttl: past.ttl };
        let taken = Joining { newcomer, room: &room, past, asked }.run(welcome).await?;
        Ok(reserved.taken(member, taken))
    }
}

impl Core {
    /// Where the history of `channel` is; `None` if it keeps none.
    pub(crate) fn past(&self, channel: &ChannelName, namespace: &Namespace) -> Option<Past> {
        let history = namespace.history.as_ref()?;
        let log = trestle_bus::logs::history_name(&self.subjects, channel.namespace());
        Some(Past::new(channel.clone(), log, self.subjects.log(channel), history.size, history.ttl))
    }
}

/// A member that is not in the room yet.
struct Newcomer<'a> {
    core: &'a Core,
    member: &'a Arc<Member>,
    channel: &'a ChannelName,
}

impl Newcomer<'_> {
    fn welcome(
        &self,
        welcome: impl FnOnce(Joined) -> Option<Encoded>,
        offset: u64,
        recovered: bool,
        lost: Option<Lost>,
    ) {
        if let Some(frame) = welcome(Joined { offset, recovered }) {
            // A full outbox closes itself; the connection sees that.
            let _closed = self.member.outbox.push(frame.into());
        }
        if let Some(lost) = lost {
            self.tell(lost);
        }
    }

    fn tell(&self, lost: Lost) {
        self.core.metrics.missing.inc();
        let parcel = Parcel::word(Frame::Gap(lost.gap(self.channel.as_str())));
        let _closed = parcel.push(self.member, &self.core.schemas.current());
    }

    /// Puts missed messages into the outbox, each when there is room; `false` if it is closed.
    async fn give(&self, messages: &[Arc<Recalled>]) -> bool {
        let (catalogue, metrics) = (self.core.schemas.current(), &self.core.metrics);
        for message in messages {
            poll_fn(|context| self.member.outbox.poll_room(context)).await;
            match message.parcel.push(self.member, &catalogue) {
                Ok(Pushed::Queued) => {
                    metrics.recalled.inc();
                    metrics.delivered.inc();
                }
                Ok(Pushed::Dropped) => metrics.dropped(message.parcel.overflow(), 1),
                Err(_) => return false,
            }
        }
        true
    }
}

/// A member on its way into the room of a channel with history.
struct Joining<'a> {
    newcomer: Newcomer<'a>,
    room: &'a Arc<Room>,
    past: &'a Past,
    asked: Asked,
}

/// What comes next for a member that is on its way.
enum Step {
    /// It is in the room; whether it was not before.
    Entered(bool),
    /// It gets this.
    Stint(Stint),
    /// The log is to be read.
    Read,
}

impl Joining<'_> {
    /// Whether the member was not in the room before.
    async fn run(self, welcome: impl FnOnce(Joined) -> Option<Encoded> + Send) -> Result<bool, Refusal> {
        let mut begun = self.begun();
        let begin = timeout(BEGIN_TIMEOUT, self.begin());
        let (begin, mut read) = begin.await.unwrap_or(Err(BusError::Timeout(BEGIN_TIMEOUT)))?;
        let offset = self.room.inside(|inside| inside.offset);
        self.newcomer.welcome(welcome, offset, begin.lost.is_none(), begin.lost);
        let mut had = begin.after;
        loop {
            let stint = match self.step(had, &mut begun) {
                Step::Entered(taken) => return Ok(taken),
                Step::Stint(stint) => stint,
                Step::Read => match read.take().and_then(|read| read.stint(had)) {
                    Some(stint) => stint,
                    None => self.more(had, begun).await,
                },
            };
            read = None;
            if let Some(lost) = stint.lost {
                self.newcomer.tell(lost);
            }
            if !self.newcomer.give(&stint.messages).await {
                return Ok(self.room.inside(|inside| inside.enter(self.newcomer.member)));
            }
            had = stint.until;
        }
    }

    /// How often the log has lost what the room had heard.
    fn begun(&self) -> u32 {
        self.room.inside(|inside| inside.begun)
    }

    fn step(&self, had: u64, begun: &mut u32) -> Step {
        self.room.inside(|inside| {
            if std::mem::replace(begun, inside.begun) != inside.begun {
                let lost = Lost { from: had + 1, to: 0, reason: GapReason::Failover };
                return Step::Stint(Stint { lost: Some(lost), messages: Vec::new(), until: inside.offset });
            }
            if had >= inside.offset {
                return Step::Entered(inside.enter(self.newcomer.member));
            }
            inside.recall.stint(had).map_or(Step::Read, Step::Stint)
        })
    }

    /// Where the member begins, and what was read to find that out.
    async fn begin(&self) -> Result<(Begin, Option<Arc<Stretch>>), BusError> {
        if let Some(begin) = self.known() {
            return Ok((begin, None));
        }
        let _one = self.past.reading.lock().await;
        if let Some(begin) = self.known() {
            return Ok((begin, None));
        }
        let whole = self.past.size <= READ_MESSAGES_MAX as u64;
        match self.asked.since {
            Since::Offset(offset) if offset > self.room.inside(|inside| inside.offset) => {
                Ok((self.ahead(offset).await?, None))
            }
            Since::Offset(offset) => self.read_for(offset, whole).await,
            Since::Now | Since::Last(_) | Since::Time(_) => {
                let read = if whole { Some(self.read(1).await?) } else { None };
                match self.known() {
                    Some(begin) => Ok((begin, read)),
                    None => Ok((self.look_back().await?, None)),
                }
            }
        }
    }

    /// Where the member begins, if the room knows.
    fn known(&self) -> Option<Begin> {
        self.room.inside(|inside| match self.asked.since {
            Since::Now => Some(Begin { after: inside.offset, lost: None }),
            // Nothing is there, but something may have been.
            Since::Offset(0) if inside.offset == 0 && self.asked.was_long_ago() => {
                Some(Begin { after: 0, lost: Some(Lost::unknown(GapReason::Retention)) })
            }
            Since::Offset(offset) if offset == inside.offset => Some(Begin { after: offset, lost: None }),
            Since::Offset(offset) if offset > inside.offset => None,
            Since::Offset(_) | Since::Last(_) | Since::Time(_) => inside.recall.begin(self.asked),
        })
    }

    /// The member has had more than the room has heard.
    async fn ahead(&self, offset: u64) -> Result<Begin, BusError> {
        let last = self.newcomer.core.last(self.past).await?;
        let now = self.room.inside(|inside| inside.offset);
        let lost = self.newcomer.core.has_lost(self.past, offset, last).await?;
        if !lost && last == 0 && self.asked.is_recent() {
            // What it had has expired. What it missed would be younger, and be there.
            return Ok(Begin { after: now, lost: None });
        }
        if last < offset {
            // No such message: the log was lost, or is another one. What is in it now may be what the member had, or not.
            return Ok(Begin { after: now, lost: Some(Lost { from: 0, to: now, reason: GapReason::Failover }) });
        }
        let filled = self.past.filled.notified();
        tokio::pin!(filled);
        filled.as_mut().enable();
        self.past.want_more();
        filled.await;
        let heard = self.room.inside(|inside| inside.offset);
        if heard < offset {
            return Err(BusError::Away);
        }
        self.known().map_or_else(|| Ok(Begin { after: offset, lost: None }), Ok)
    }

    /// Reads the whole log, or what it has from `offset` on.
    async fn read_for(&self, offset: u64, whole: bool) -> Result<(Begin, Option<Arc<Stretch>>), BusError> {
        for from in [if whole { 1 } else { offset.max(1) }, offset.max(1)] {
            let read = self.read(from).await?;
            if let Some(begin) = self.known().or_else(|| read.begin(self.asked)) {
                return Ok((begin, Some(read)));
            }
        }
        // The log did not get as far as `offset`.
        Err(BusError::Away)
    }

    /// Finds the place in the log, without reading the rest of it yet.
    async fn look_back(&self) -> Result<Begin, BusError> {
        let (core, heard) = (self.newcomer.core, self.room.inside(|inside| inside.offset));
        let (after, lost) = match self.asked.since {
            Since::Now => (heard, None),
            Since::Offset(offset) => (offset, None),
            Since::Last(count) => (core.before_last(self.past, heard, count).await?, None),
            Since::Time(time) => {
                let (after, older) = core.before_time(self.past, heard, time).await?;
                (after, (!older && after > 0).then(|| Lost::removed(0, after)))
            }
        };
        Ok(Begin { after, lost })
    }

    /// What comes after `had`, out of the log; nothing if that has lost it since it had `begun`.
    async fn more(&self, had: u64, begun: u32) -> Stint {
        let _one = self.past.reading.lock().await;
        for tries in 0..=TRIES_MAX {
            if self.begun() != begun {
                return Stint { lost: None, messages: Vec::new(), until: had };
            }
            let again = match self.room.inside(|inside| inside.recall.stint(had)) {
                Some(stint) => return stint,
                None => self.read(had.max(1)).await,
            };
            match again.map(|read| read.stint(had)) {
                Ok(Some(stint)) => return stint,
                Ok(None) => tracing::warn!(channel = %self.past.channel, had, tries, "the log is behind"),
                Err(error) => {
                    tracing::warn!(channel = %self.past.channel, %error, tries, "a history could not be read on");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let heard = self.room.inside(|inside| inside.offset);
        let lost = Lost { from: had + 1, to: heard, reason: GapReason::Failover };
        Stint { lost: Some(lost), messages: Vec::new(), until: heard }
    }

    /// Reads the log from the message at `from` on, for all who may want it, while the room remembers what it hears.
    async fn read(&self, from: u64) -> Result<Arc<Stretch>, BusError> {
        let core = self.newcomer.core;
        let until = self.remember(|inside| inside.recall.collect(inside.offset, &core.budget));
        let most = if core.budget.is_over() { FRUGAL } else { (READ_MESSAGES_MAX, READ_BYTES_MAX) };
        let read = core.read(self.past, from, until, most).await?;
        let first = read.stored.first().map(|first| first.offset);
        let end = match read.stored.last() {
            _ if read.complete => until,
            Some(last) => last.offset,
            None => return Err(BusError::Away),
        };
        let found = Found {
            from: from - 1,
            first,
            until: end,
            full: read.more || read.seen as u64 >= self.past.size,
            messages: self.recalled(read.stored),
        };
        let stretch = Arc::new(Stretch::new(found, &core.budget));
        self.remember(|inside| inside.recall.install(&stretch));
        Ok(stretch)
    }

    /// Adds to what the room remembers; its pump sees to it that it is forgotten again.
    fn remember<T>(&self, add: impl FnOnce(&mut Inside) -> T) -> T {
        let added = self.room.inside(add);
        if !self.past.recalling.swap(true, Ordering::AcqRel) {
            self.past.nudge.notify_one();
        }
        added
    }

    fn recalled(&self, stored: Vec<Stored>) -> Vec<Arc<Recalled>> {
        let core = self.newcomer.core;
        let catalogue = core.schemas.current();
        let parcel = |envelope: v1::Envelope| {
            let offset = envelope.offset;
            let parcel = Parcel::delivery(envelope, Some(&self.past.channel), self.room.overflow, &catalogue);
            Arc::new(Recalled::new(offset, Arc::new(parcel)))
        };
        core.envelopes(stored, 0).map(parcel).collect()
    }
}
