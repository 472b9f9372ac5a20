//! The channels that a program listens to: who listens, from where, and how far they have come.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::oneshot;
use trestle_wire::v1::{self, client_frame::Frame as Ask, subscribe::From};

use crate::{
    Error, Event, Listen, Since,
    asks::Asker,
    backlog::Backlog,
    place::{Place, Verdict},
};

/// What a user's inbox is called by programs; the gateway puts the user's name behind it.
pub(crate) const INBOX: &str = "inbox";
/// What the gateway's name of an inbox begins with.
const INBOX_PREFIX: &str = "inbox:";

/// Channels by the names that programs use.
#[derive(Default)]
pub(crate) struct Channels {
    channels: HashMap<String, Channel>,
    lives: u64,
}

/// Who wants to know how a join went.
pub(crate) type Waiter = oneshot::Sender<Result<v1::Subscribed, Error>>;

/// One channel.
pub(crate) struct Channel {
    /// Tells a channel that is joined again after it was left from the one before.
    life: u64,
    listen: Listen,
    listeners: Vec<Arc<Backlog<Event>>>,
    waiters: Vec<Waiter>,
    place: Place,
    /// What the gateway said when it agreed; `None` while it has not.
    joined: Option<v1::Subscribed>,
    /// Whether it was asked for, and the gateway has not agreed.
    joining: bool,
    /// Whether the gateway has not yet said, of itself, that it listens again after a resume.
    awaited: bool,
    /// Whether it was asked in the meantime.
    checked: bool,
    /// Whether anything came.
    heard: bool,
}

impl Channels {
    /// Adds a listener. What the gateway must be asked for it, if anything.
    pub(crate) fn add(
        &mut self,
        name: &str,
        listen: Listen,
        listener: Arc<Backlog<Event>>,
        waiter: Waiter,
    ) -> Option<(Ask, Asker)> {
        let Some(channel) = self.channels.get_mut(name) else {
            self.lives += 1;
            let channel = Channel {
                life: self.lives,
                listen,
                listeners: vec![listener],
                waiters: vec![waiter],
                place: Place::default(),
                joined: None,
                joining: true,
                awaited: false,
                checked: false,
                heard: false,
            };
            let question = channel.join(name);
            self.channels.insert(name.to_owned(), channel);
            return Some(question);
        };
        if listen.since != Since::Now || (listen.presence && !channel.listen.presence) {
            let _ = waiter.send(Err(Error::AlreadySubscribed { channel: name.to_owned() }));
            return None;
        }
        channel.listeners.push(listener);
        match &channel.joined {
            Some(subscribed) => {
                let offset = channel.place.upto().unwrap_or(subscribed.offset);
                _ = waiter.send(Ok(v1::Subscribed { offset, recovered: false, ..subscribed.clone() }));
            }
            None => channel.waiters.push(waiter),
        }
        None
    }

    /// Takes a listener out; whether the channel is to be left.
    pub(crate) fn remove(&mut self, name: &str, listener: &Arc<Backlog<Event>>) -> bool {
        let Some(channel) = self.channels.get_mut(name) else { return false };
        channel.listeners.retain(|other| !Arc::ptr_eq(other, listener));
        let last = channel.listeners.is_empty();
        if last {
            self.channels.remove(name);
        }
        last
    }

    /// The gateway says that it listens already, so the answer to an earlier try was lost, and what came behind that answer
    /// may have been lost with it. If the program wants all from a certain place on, the question that begins there anew.
    pub(crate) fn doubted(&mut self, name: &str, life: u64) -> Option<(Ask, Asker)> {
        let channel = self.channels.get(name).filter(|channel| channel.life == life)?;
        (channel.place.upto().is_some() || channel.listen.since != Since::Now).then(|| channel.join(name))
    }

    /// Whether an answer that says that the gateway listens already changes nothing: it will say so of itself, or has.
    pub(crate) fn knows(&mut self, name: &str, life: u64) -> bool {
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.life == life) else { return true };
        channel.checked = false;
        channel.awaited || !channel.joining
    }

    /// The gateway's answer to a join.
    pub(crate) fn joined(&mut self, name: &str, life: u64, answer: Result<v1::Subscribed, Error>) {
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.life == life) else { return };
        (channel.joining, channel.awaited, channel.checked) = (false, false, false);
        match answer {
            Ok(subscribed) => channel.begin(subscribed, name == INBOX),
            Err(error) => {
                let Some(channel) = self.channels.remove(name) else { return };
                channel.end(&error);
            }
        }
    }

    /// Hands out a message.
    pub(crate) fn message(&mut self, envelope: v1::Envelope) {
        // Nobody: the last one has just left, and the gateway does not know yet.
        let Some(channel) = self.channels.get_mut(key(&envelope.channel)) else { return };
        channel.heard = true;
        match channel.place.take(&envelope) {
            Verdict::Old => return tracing::debug!(envelope.offset, "a message that was handed out before"),
            Verdict::After(gap) => channel.offer(Event::Gap(gap)),
            Verdict::New => {}
        }
        channel.offer(Event::Message(envelope));
    }

    /// Hands out the gateway's word that something is missing.
    pub(crate) fn gap(&mut self, gap: v1::Gap) {
        if let Some(channel) = self.channels.get_mut(key(&gap.channel)) {
            channel.place.gap(&gap);
            channel.offer(Event::Gap(gap));
        }
    }

    /// Hands out who came and who left.
    pub(crate) fn presence(&mut self, event: v1::PresenceEvent) {
        if let Some(channel) = self.channels.get(key(&event.channel)).filter(|channel| channel.listen.presence) {
            channel.offer(Event::Presence(event));
        }
    }

    /// The session goes on by its count, with these. What the gateway must be asked so that it listens to what the program
    /// does.
    pub(crate) fn resumed(&mut self, subscriptions: &[v1::Subscribed]) -> Vec<(Ask, Asker)> {
        subscriptions.iter().for_each(|subscribed| self.listens(subscribed));
        let there: Vec<&str> = subscriptions.iter().map(|subscribed| key(&subscribed.channel)).collect();
        self.rejoin(|name, channel| !channel.joining && !there.contains(&name))
    }

    /// The session goes on, and the gateway will say of each of the channels `named` that it listens again. What it must be
    /// asked of the others.
    pub(crate) fn recovers(&mut self, named: &[String]) -> Vec<(Ask, Asker)> {
        for channel in named {
            if let Some(channel) = self.channels.get_mut(key(channel)) {
                (channel.joining, channel.awaited, channel.checked) = (true, true, false);
            }
        }
        self.rejoin(|_, channel| !channel.joining)
    }

    /// Another session has begun. What the gateway must be asked so that it listens to what the program does.
    pub(crate) fn began(&mut self) -> Vec<(Ask, Asker)> {
        self.rejoin(|_, channel| !channel.joining || channel.awaited)
    }

    /// The gateway says that it listens, and what was missed follows, or a gap.
    pub(crate) fn listens(&mut self, subscribed: &v1::Subscribed) {
        let Some(channel) = self.channels.get_mut(key(&subscribed.channel)) else { return };
        // Without an offset it says nothing of the log.
        if subscribed.offset > 0 {
            channel.place.reset(subscribed);
        }
        if channel.awaited {
            (channel.joining, channel.awaited) = (false, false);
        }
    }

    /// Something was refused that was not asked for: what the gateway must be asked to know which of the channels, of which
    /// it has not yet said that it listens again, that was.
    pub(crate) fn check(&mut self) -> Vec<(Ask, Asker)> {
        let awaited = self.channels.iter_mut().filter(|(_, channel)| channel.awaited && !channel.checked);
        awaited
            .map(|(name, channel)| {
                channel.checked = true;
                channel.join(name)
            })
            .collect()
    }

    fn rejoin(&mut self, which: impl Fn(&str, &Channel) -> bool) -> Vec<(Ask, Asker)> {
        let lost = self.channels.iter_mut().filter(|(name, channel)| which(name, channel));
        lost.map(|(name, channel)| {
            (channel.joining, channel.awaited, channel.checked) = (true, false, false);
            if channel.misses(name == INBOX) {
                channel.offer(Event::Gap(failover(name)));
            }
            channel.join(name)
        })
        .collect()
    }

    /// Where a resume may go on, of at most so many channels.
    pub(crate) fn positions(&self, most: usize) -> Vec<v1::Position> {
        let joined = self.channels.iter().filter_map(|(name, channel)| {
            let there = !channel.joining || channel.awaited;
            // Without an offset a resume begins with all that is kept: nothing for those that wanted less.
            let placed = channel.place.upto().is_some() || (channel.listen.since == Since::Now && name != INBOX);
            let subscribed = channel.joined.as_ref().filter(|_| there && placed)?;
            let channel_name = if subscribed.channel.is_empty() { name } else { &subscribed.channel };
            Some(v1::Position { channel: channel_name.clone(), offset: channel.place.upto().unwrap_or_default() })
        });
        let mut positions: Vec<_> = joined.collect();
        // Those with a place first: the others have nothing to recover from.
        positions.sort_unstable_by(|one, other| other.offset.cmp(&one.offset).then(one.channel.cmp(&other.channel)));
        positions.truncate(most);
        positions
    }

    /// Whether somebody listens to that channel, in that life of it if one is named.
    pub(crate) fn has(&self, name: &str, life: Option<u64>) -> bool {
        self.channels.get(name).is_some_and(|channel| life.is_none_or(|life| channel.life == life))
    }

    /// Nothing comes any more.
    pub(crate) fn end(&mut self, how: &Error) {
        for (_, channel) in self.channels.drain() {
            channel.waiters.into_iter().for_each(|waiter| _ = waiter.send(Err(how.clone())));
            channel.listeners.iter().for_each(|listener| listener.end());
        }
    }
}

impl Channel {
    /// Asks to listen, after what was handed out if that is known.
    fn join(&self, name: &str) -> (Ask, Asker) {
        let from = self.place.upto().map_or(self.listen.since.from(), |upto| Some(From::Offset(upto)));
        let subscribe = v1::Subscribe { channel: name.to_owned(), presence: self.listen.presence, from };
        (Ask::Subscribe(subscribe), Asker::Join { channel: name.to_owned(), life: self.life })
    }

    fn begin(&mut self, subscribed: v1::Subscribed, inbox: bool) {
        // A place is there already if the answer to an earlier try was lost, but not what came behind it.
        if self.place.upto().is_some() {
            self.place.reset(&subscribed);
        } else if !inbox || self.listen.since != Since::Now {
            self.place.begin(self.listen.since, &subscribed);
        }
        self.waiters.drain(..).for_each(|waiter| _ = waiter.send(Ok(subscribed.clone())));
        self.joined = Some(subscribed);
    }

    /// Whether joining again loses what came in between.
    fn misses(&self, inbox: bool) -> bool {
        let again = self.listen.since != Since::Now && self.joined.as_ref().is_some_and(|joined| joined.recovered);
        self.joined.is_some() && self.place.upto().is_none() && !inbox && (self.heard || !again)
    }

    fn offer(&self, event: Event) {
        let Some((last, others)) = self.listeners.split_last() else { return };
        others.iter().for_each(|listener| listener.offer(event.clone()));
        last.offer(event);
    }

    /// The gateway does not let the client listen: those who wait for it are told, and those who listened before too.
    fn end(self, error: &Error) {
        if let (Some(_), Error::Refused(refused)) = (&self.joined, error) {
            self.offer(Event::Error(refused.clone()));
        }
        self.waiters.into_iter().for_each(|waiter| _ = waiter.send(Err(error.clone())));
        self.listeners.iter().for_each(|listener| listener.end());
    }
}

/// The name that programs use for a channel of the gateway.
pub(crate) fn key(channel: &str) -> &str {
    if channel.starts_with(INBOX_PREFIX) { INBOX } else { channel }
}

/// What a session that could not go on has lost, of a channel or, without a name, of pushes.
pub(crate) fn failover(channel: &str) -> v1::Gap {
    v1::Gap { channel: channel.to_owned(), reason: v1::GapReason::Failover.into(), ..Default::default() }
}
