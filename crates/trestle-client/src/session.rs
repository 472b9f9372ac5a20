//! What a program has going with the gateway, whatever connection carries it: the count of frames, what waits for an
//! answer, and the channels. No I/O, and no clock of its own.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{sync::oneshot, time::Instant};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

use crate::{
    Closed, Error, Event, Listen,
    asks::{Answered, Asker, Asks, Question, Rank, Repeat},
    backlog::Backlog,
    channels::{Channels, Waiter, failover, key},
    error::retry_after,
    wire::pack,
};

/// The reason by which the gateway refuses to join a channel twice.
const ALREADY_SUBSCRIBED: &str = "already_subscribed";
/// The reason by which it refuses to leave one that is not joined.
const NOT_SUBSCRIBED: &str = "not_subscribed";
/// Frames after which the gateway is told that they have come, so that it need not keep them.
const ACK_FRAMES: u64 = 256;
/// Longest time after which it is told of any.
const ACK_INTERVAL: Duration = Duration::from_secs(5);
/// Most channels and most ids that a resume names; the gateway takes no more.
const RESUME_NAMES_MAX: usize = 256;
/// What stands around a connect in its message: three tags, an id and two lengths of at most five bytes each.
const CONNECT_FRAME_BYTES: usize = 3 + 3 * 5;
/// Asks that nobody waits for any more are looked for beyond so many; callers' own are bounded by [`crate::client`].
const SWEEP_ASKS: usize = 1024;

/// What a frame means for the connection that it came on.
#[derive(Debug, PartialEq)]
pub(crate) enum Notice {
    /// The connection is about to be closed.
    Draining(v1::DrainNotice),
    /// If it closes now: when to come again.
    ComeAfter(Duration),
}

/// A client's stay with the gateway.
pub(crate) struct Session {
    asks: Asks,
    channels: Channels,
    pushes: Arc<Backlog<Event>>,
    /// Server frames of the session that have come.
    received: u64,
    acked: u64,
    ack_due: Option<Instant>,
    /// Whether there was a session before.
    begun: bool,
    /// Session id and resume token of the last `connected`.
    resume: Option<(String, String)>,
    /// Ids that the last connect has named.
    named: Vec<u32>,
    /// Channels that it has named.
    named_channels: Vec<String>,
    frame_bytes_max: usize,
    /// How the last connection ended, while there is no other.
    without: Option<Closed>,
    /// Nothing is written, as the session is on its way to another connection.
    held: bool,
    retry_for: Duration,
}

impl Session {
    pub(crate) fn new(pushes: Arc<Backlog<Event>>, retry_for: Duration) -> Self {
        Self {
            asks: Asks::default(),
            channels: Channels::default(),
            pushes,
            received: 0,
            acked: 0,
            ack_due: None,
            begun: false,
            resume: None,
            named: Vec::new(),
            named_channels: Vec::new(),
            frame_bytes_max: usize::MAX,
            without: None,
            held: false,
            retry_for,
        }
    }

    /// The frame that begins a connection, and its id. What comes after it on an earlier one is not of this session.
    pub(crate) fn connect(&mut self, token: String) -> (u32, Message) {
        self.asks.take(|asker| matches!(asker, Asker::Barrier));
        let id = self.asks.id();
        self.named.clear();
        let resume = self.resume.as_ref().map(|(session_id, token)| {
            self.named = self.asks.outstanding();
            self.named.truncate(RESUME_NAMES_MAX);
            v1::Resume {
                session_id: session_id.clone(),
                token: token.clone(),
                received: Some(self.received),
                channels: self.channels.positions(RESUME_NAMES_MAX),
                outstanding: self.named.clone(),
            }
        });
        let mut connect = v1::Connect { token, resume };
        while connect.encoded_len() + CONNECT_FRAME_BYTES > self.frame_bytes_max {
            let shorter = connect.resume.as_mut().and_then(|resume| resume.channels.pop());
            if shorter.is_none() {
                break;
            }
        }
        let channels = connect.resume.iter().flat_map(|resume| &resume.channels);
        self.named_channels = channels.map(|position| position.channel.clone()).collect();
        (id, pack(v1::ClientFrame { id, frame: Some(Ask::Connect(connect)) }).0)
    }

    /// The next connect begins another session.
    pub(crate) fn forget(&mut self) {
        self.resume = None;
    }

    /// Whether the next connect asks for the session to go on.
    pub(crate) fn resumes(&self) -> bool {
        self.resume.is_some()
    }

    /// The gateway has agreed to a connect.
    pub(crate) fn connected(&mut self, connected: &v1::Connected, now: Instant) {
        let first = !std::mem::replace(&mut self.begun, true);
        let v1::Connected { session_id, resume_token, .. } = connected;
        self.resume = (!resume_token.is_empty()).then(|| (session_id.clone(), resume_token.clone()));
        (self.received, self.acked, self.ack_due) = (connected.received, connected.received, None);
        self.frame_bytes_max = match usize::try_from(connected.frame_bytes_max) {
            Ok(max @ 1..) => max,
            _ => usize::MAX,
        };
        let how = self.lost();
        self.without = None;
        self.held = false;
        if connected.resumed {
            self.resumed(connected, &how, now);
        } else if !first {
            self.began(&how, now);
        }
    }

    /// The connection has ended; there may be another.
    pub(crate) fn disconnected(&mut self, closed: Closed) {
        self.without = Some(closed);
        self.held = false;
    }

    /// Whether nothing more is written before the session is on another connection.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// A question whose answer says that the gateway has read all that was written before, and its id.
    pub(crate) fn barrier(&mut self, now: Instant) -> Option<(u32, Message)> {
        let ask = Ask::Ping(v1::Ping {});
        let question = Question { ask, repeat: Repeat::Never, asker: Asker::Barrier, repeat_for: None };
        let id = self.asks.begin(question, Rank::First, false, now);
        match self.asks.next(self.frame_bytes_max, self.received, |_| true, now)? {
            Ok(message) => Some((id, message)),
            Err(_) => None,
        }
    }

    /// Whether that frame still waits for its answer.
    pub(crate) fn waits(&self, id: u32) -> bool {
        self.asks.waits(id)
    }

    /// Takes a frame of the gateway.
    pub(crate) fn hear(&mut self, frame: v1::ServerFrame, now: Instant) -> Option<Notice> {
        if matches!(frame.frame, Some(Frame::Connected(_))) {
            return None;
        }
        self.received += 1;
        self.ack_due.get_or_insert(now + ACK_INTERVAL);
        if frame.reply_to != 0 {
            let Self { asks, channels, .. } = self;
            let answered = asks.answered(frame.reply_to, frame.frame, |asker| wanted(channels, asker), now);
            answered.into_iter().for_each(|answered| self.finish(answered, now));
            return None;
        }
        match frame.frame? {
            Frame::Delivery(envelope) if envelope.channel.is_empty() => self.pushes.offer(Event::Message(envelope)),
            Frame::Delivery(envelope) => self.channels.message(envelope),
            Frame::Gap(gap) if gap.channel.is_empty() => self.pushes.offer(Event::Gap(gap)),
            Frame::Gap(gap) => self.channels.gap(gap),
            Frame::PresenceEvent(event) => self.channels.presence(event),
            Frame::Subscribed(subscribed) => self.channels.listens(&subscribed),
            Frame::Draining(notice) => return Some(Notice::Draining(notice)),
            Frame::Error(error) => {
                let notice = retry_after(&error).map(Notice::ComeAfter);
                let checks = self.channels.check();
                self.join_again(checks, now);
                self.pushes.offer(Event::Error(error));
                return notice;
            }
            _ => {}
        }
        None
    }

    /// What is written next.
    pub(crate) fn next_message(&mut self, now: Instant) -> Option<Message> {
        let due = self.ack_due.is_some_and(|due| due <= now) || self.received - self.acked >= ACK_FRAMES;
        if due && !self.held {
            (self.acked, self.ack_due) = (self.received, None);
            let frame = Some(Ask::Ack(v1::ClientAck { received: self.received, inbox_offset: 0 }));
            return Some(pack(v1::ClientFrame { id: 0, frame }).0);
        }
        while !self.held {
            let Self { asks, channels, .. } = self;
            match asks.next(self.frame_bytes_max, self.received, |asker| wanted(channels, asker), now)? {
                Ok(message) => return Some(message),
                Err(answered) => self.finish(answered, now),
            }
        }
        None
    }

    /// Whether all was written that can be now.
    pub(crate) fn is_written(&self) -> bool {
        self.asks.is_written()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.asks.tick(now);
        if let Some(closed) = &self.without {
            let expired = self.asks.expire(&Error::Closed(closed.clone()), now);
            expired.into_iter().for_each(|answered| self.finish(answered, now));
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        let expires = self.without.as_ref().and_then(|_| self.asks.expires_at());
        let acks = self.ack_due.filter(|_| self.without.is_none() && !self.held);
        [self.asks.wakes_at(), expires, acks].into_iter().flatten().min()
    }

    /// Asks something for the program.
    pub(crate) fn ask(
        &mut self,
        ask: Ask,
        repeat: Repeat,
        answer: oneshot::Sender<Result<Frame, Error>>,
        now: Instant,
    ) {
        let Self { asks, channels, .. } = self;
        asks.sweep(SWEEP_ASKS, |asker| wanted(channels, asker));
        self.begin(ask, repeat, Asker::Program(answer), Some(self.retry_for), Rank::InTurn, now);
    }

    /// Adds a listener to a channel.
    pub(crate) fn subscribe(
        &mut self,
        channel: &str,
        listen: Listen,
        listener: Arc<Backlog<Event>>,
        waiter: Waiter,
        now: Instant,
    ) {
        if let Some((ask, asker)) = self.channels.add(channel, listen, listener, waiter) {
            self.begin(ask, Repeat::Always, asker, Some(self.retry_for), Rank::InTurn, now);
        }
    }

    /// Takes a listener out, and leaves the channel with the last.
    pub(crate) fn leave(
        &mut self,
        channel: &str,
        listener: &Arc<Backlog<Event>>,
        done: Option<oneshot::Sender<Result<(), Error>>>,
        now: Instant,
    ) {
        if self.channels.remove(channel, listener) {
            self.begin_leave(channel, done, now);
        } else if let Some(done) = done {
            let _ = done.send(Ok(()));
        }
    }

    /// Everything ends.
    pub(crate) fn end(&mut self, closed: &Closed, now: Instant) {
        let how = Error::Closed(closed.clone());
        for asker in self.asks.take(|_| true) {
            self.finish((asker, Err(how.clone())), now);
        }
        self.channels.end(&how);
        self.pushes.end();
    }

    fn resumed(&mut self, connected: &v1::Connected, how: &Error, now: Instant) {
        let Self { asks, channels, named, .. } = self;
        let unnamed = asks.lost(|id| !named.contains(&id), |asker| wanted(channels, asker), how);
        unnamed.into_iter().for_each(|answered| self.finish(answered, now));
        let subscriptions = &connected.subscriptions;
        // Without a count the gateway speaks of each channel by itself.
        let joins = if connected.received == 0 && subscriptions.is_empty() {
            self.channels.recovers(&self.named_channels)
        } else {
            self.channels.resumed(subscriptions)
        };
        self.join_again(joins, now);
        for subscribed in subscriptions {
            let channel = key(&subscribed.channel);
            if !self.channels.has(channel, None) && !self.asks.leaves(channel) {
                self.begin_leave(channel, None, now);
            }
        }
    }

    fn began(&mut self, how: &Error, now: Instant) {
        // A new session listens to nothing.
        for leave in self.asks.take(|asker| matches!(asker, Asker::Leave { .. })) {
            self.finish((leave, Ok(Frame::Unsubscribed(v1::Unsubscribed::default()))), now);
        }
        let Self { asks, channels, .. } = self;
        let failed = asks.lost(|_| true, |asker| wanted(channels, asker), how);
        failed.into_iter().for_each(|answered| self.finish(answered, now));
        self.pushes.offer(Event::Gap(failover("")));
        let joins = self.channels.began();
        self.join_again(joins, now);
    }

    /// Joins again for as long as it takes: the program listens already.
    fn join_again(&mut self, joins: Vec<(Ask, Asker)>, now: Instant) {
        for (ask, asker) in joins {
            self.begin(ask, Repeat::Always, asker, None, Rank::Before, now);
        }
    }

    fn begin_leave(&mut self, channel: &str, done: Option<oneshot::Sender<Result<(), Error>>>, now: Instant) {
        let ask = Ask::Unsubscribe(v1::Unsubscribe { channel: channel.to_owned() });
        let asker = Asker::Leave { channel: channel.to_owned(), done };
        self.begin(ask, Repeat::Always, asker, Some(self.retry_for), Rank::InTurn, now);
    }

    fn begin(
        &mut self,
        ask: Ask,
        repeat: Repeat,
        asker: Asker,
        repeat_for: Option<Duration>,
        rank: Rank,
        now: Instant,
    ) {
        let late = self.without.is_some() || self.held;
        self.asks.begin(Question { ask, repeat, asker, repeat_for }, rank, late, now);
    }

    /// Tells whoever asked.
    fn finish(&mut self, (asker, result): Answered, now: Instant) {
        match asker {
            Asker::Program(answer) => _ = answer.send(result),
            Asker::Join { channel, life } => {
                if is_doubtful(&result) && self.channels.knows(&channel, life) {
                    return;
                }
                if is_doubtful(&result)
                    && let Some(join) = self.channels.doubted(&channel, life)
                {
                    return self.begin_anew(channel, join, now);
                }
                let answer = joined(&channel, result);
                self.channels.joined(&channel, life, answer);
            }
            Asker::Leave { channel, done: Some(done) } => {
                // Somebody listens again: what became of the leaving is of no interest.
                let again = self.channels.has(&channel, None);
                let _ = done.send(if again { Ok(()) } else { left(result) });
            }
            Asker::Leave { done: None, .. } | Asker::Barrier => {}
        }
    }

    /// Leaves a channel and joins it again at once.
    fn begin_anew(&mut self, channel: String, (ask, asker): (Ask, Asker), now: Instant) {
        let leave = Ask::Unsubscribe(v1::Unsubscribe { channel });
        self.begin(leave, Repeat::Always, Asker::Barrier, None, Rank::Before, now);
        self.begin(ask, Repeat::Always, asker, None, Rank::Before, now);
    }

    fn lost(&self) -> Error {
        let moved = || Closed::broken("the session did not go on on another connection");
        Error::Closed(self.without.clone().unwrap_or_else(moved))
    }
}

/// Whether an answer still matters.
fn wanted(channels: &Channels, asker: &Asker) -> bool {
    match asker {
        Asker::Program(answer) => !answer.is_closed(),
        Asker::Join { channel, life } => channels.has(channel, Some(*life)),
        Asker::Leave { channel, .. } => !channels.has(channel, None),
        Asker::Barrier => true,
    }
}

/// What the gateway says to a join.
fn joined(channel: &str, answer: Result<Frame, Error>) -> Result<v1::Subscribed, Error> {
    match answer {
        Ok(Frame::Subscribed(subscribed)) => Ok(subscribed),
        Ok(_) => Err(Error::Unexpected { expected: "subscribed" }),
        Err(_) if is_doubtful(&answer) => {
            Ok(v1::Subscribed { channel: channel.to_owned(), recovered: true, offset: 0 })
        }
        Err(error) => Err(error),
    }
}

/// Whether the gateway listens already, so that the answer to an earlier try was lost.
fn is_doubtful(answer: &Result<Frame, Error>) -> bool {
    matches!(answer, Err(Error::Refused(error)) if error.reason == ALREADY_SUBSCRIBED)
}

/// What it says to a leave. That the client does not listen is what was wanted.
fn left(answer: Result<Frame, Error>) -> Result<(), Error> {
    match answer {
        Ok(Frame::Unsubscribed(_)) => Ok(()),
        Ok(_) => Err(Error::Unexpected { expected: "unsubscribed" }),
        Err(Error::Refused(error)) if error.reason == NOT_SUBSCRIBED => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
