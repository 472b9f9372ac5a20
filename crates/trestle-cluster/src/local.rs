//! Who is on a channel by this node, and what the others are told of it. No I/O, no clock of its own.
//!
//! In: comings and goings, moments. Out: messages for the channel's presence subject, in their order. Always: every message
//! but a digest counts one more than the one before, so that whoever missed one knows it; somebody who comes back before
//! the linger is over was never away.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use trestle_wire::{NodeId, SessionId, UserId, v1};

use crate::table::member;

/// How often a node says where its count of a channel is, so that a lost last message is noticed.
pub(crate) const DIGEST_EVERY: Duration = Duration::from_secs(10);
/// The whole of a crowd of 50,000 is 4 MB, and every replica hears it: it is told at most this often, and well before
/// those who asked ask again.
const WHOLE_EVERY: Duration = Duration::from_millis(500);
/// How long a channel that nobody is on any more is kept: longer than until the next digest, which tells that all left.
const KEPT_EMPTY: Duration = Duration::from_secs(12);

struct Here {
    user: Option<UserId>,
    /// How many seats the session has. With none, it is gone at `gone_at`.
    seats: usize,
    gone_at: Option<Instant>,
}

/// One node's part of a channel.
pub(crate) struct Local {
    node: NodeId,
    started: u64,
    sequence: u64,
    here: HashMap<SessionId, Here>,
    /// Those without a seat, in the order in which they go.
    lingering: VecDeque<(Instant, SessionId)>,
    /// What the others were told last of those who came or went since: whether they are here.
    untold: HashMap<SessionId, bool>,
    told_at: Option<Instant>,
    /// When the whole is to be told.
    whole_at: Option<Instant>,
    /// When it may be told again.
    whole_after: Instant,
    digest_at: Instant,
    empty_since: Instant,
}

impl Local {
    pub(crate) fn new(node: NodeId, started: u64, now: Instant) -> Self {
        Self {
            node,
            started,
            sequence: 0,
            here: HashMap::new(),
            lingering: VecDeque::new(),
            untold: HashMap::new(),
            told_at: None,
            whole_at: None,
            whole_after: now,
            digest_at: now + DIGEST_EVERY,
            empty_since: now,
        }
    }

    /// A session takes a seat. True if it was not here.
    pub(crate) fn enter(&mut self, session: &SessionId, user: Option<&UserId>) -> bool {
        if let Some(here) = self.here.get_mut(session) {
            here.seats += 1;
            here.gone_at = None;
            return false;
        }
        self.here.insert(session.clone(), Here { user: user.cloned(), seats: 1, gone_at: None });
        self.untold.entry(session.clone()).or_insert(false);
        true
    }

    /// A session gives a seat back; it is gone at `gone_at` unless it takes another before.
    pub(crate) fn leave(&mut self, session: &SessionId, gone_at: Instant) {
        let Some(here) = self.here.get_mut(session) else { return };
        here.seats = here.seats.saturating_sub(1);
        if here.seats == 0 {
            here.gone_at = Some(gone_at);
            self.lingering.push_back((gone_at, session.clone()));
        }
    }

    /// Those who are gone at `now`.
    pub(crate) fn gone(&mut self, now: Instant) -> Vec<SessionId> {
        let mut gone = Vec::new();
        while self.lingering.front().is_some_and(|(at, _)| *at <= now) {
            let Some((at, session)) = self.lingering.pop_front() else { break };
            if self.here.get(&session).is_some_and(|here| here.gone_at == Some(at)) {
                self.here.remove(&session);
                self.untold.entry(session.clone()).or_insert(true);
                gone.push(session);
            }
        }
        if !gone.is_empty() && self.here.is_empty() {
            self.empty_since = now;
        }
        gone
    }

    /// The whole is to be told at `at`, or soon after: the others may have missed something.
    pub(crate) fn tell_whole_at(&mut self, at: Instant) {
        let at = at.max(self.whole_after);
        self.whole_at = Some(self.whole_at.map_or(at, |other| other.min(at)));
    }

    /// When there is something to tell, at most once in `interval`.
    pub(crate) fn tells_at(&self, interval: Duration, now: Instant) -> Option<Instant> {
        let change = (!self.untold.is_empty()).then_some(now);
        let due = change.into_iter().chain(self.whole_at).min()?;
        Some(due.max(self.told_at.map_or(due, |told| told + interval)))
    }

    /// When somebody is gone, or a digest is due where it can be told.
    pub(crate) fn wakes_at(&self, connected: bool) -> Option<Instant> {
        let digest = (self.sequence > 0 && connected).then_some(self.digest_at);
        self.lingering.front().map(|(at, _)| *at).into_iter().chain(digest).min()
    }

    /// What the others are told at `now`: those who came and went, at most `most` in a message, and then the whole if that
    /// is due.
    pub(crate) fn tell(&mut self, most: usize, now: Instant) -> Vec<v1::PresenceChange> {
        self.told_at = Some(now);
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (session, was_here) in std::mem::take(&mut self.untold) {
            match (was_here, self.here.get(&session)) {
                (false, Some(here)) => joined.push(member(&session, here.user.as_ref())),
                (true, None) => left.push(session.as_str().to_owned()),
                _ => {}
            }
        }
        let mut messages = Vec::new();
        while !joined.is_empty() || !left.is_empty() {
            let some = joined.split_off(joined.len().saturating_sub(most));
            let gone = left.split_off(left.len().saturating_sub(most - some.len()));
            messages.push(self.change(some, gone, false));
        }
        if self.whole_at.is_some_and(|at| at <= now) {
            self.whole_at = None;
            self.whole_after = now + WHOLE_EVERY;
            messages.extend(self.whole(most));
        }
        messages
    }

    /// Everybody who is here, told to all: whoever is behind begins anew with the first message, whoever is not learns
    /// nothing from it.
    fn whole(&mut self, most: usize) -> Vec<v1::PresenceChange> {
        if self.sequence == 0 && self.here.is_empty() {
            return Vec::new();
        }
        let chunks = self.chunks(most);
        chunks.into_iter().enumerate().map(|(at, chunk)| self.change(chunk, Vec::new(), at == 0)).collect()
    }

    fn change(&mut self, joined: Vec<v1::PresenceMember>, left: Vec<String>, whole: bool) -> v1::PresenceChange {
        self.sequence += 1;
        v1::PresenceChange { joined, left, whole, ..self.digest() }
    }

    /// Everybody who is here, for one who asks once: in as many messages as it takes, the first `whole`.
    pub(crate) fn answer(&self, most: usize) -> Vec<v1::PresenceChange> {
        let chunks = self.chunks(most).into_iter().enumerate();
        chunks.map(|(at, joined)| v1::PresenceChange { joined, whole: at == 0, ..self.digest() }).collect()
    }

    /// At least one chunk, which may be empty.
    fn chunks(&self, most: usize) -> Vec<Vec<v1::PresenceMember>> {
        let members: Vec<_> = self.here.iter().map(|(session, here)| member(session, here.user.as_ref())).collect();
        if members.is_empty() { vec![members] } else { members.chunks(most).map(<[_]>::to_vec).collect() }
    }

    fn digest(&self) -> v1::PresenceChange {
        v1::PresenceChange {
            node: self.node.as_str().into(),
            sequence: self.sequence,
            started: self.started,
            ..v1::PresenceChange::default()
        }
    }

    /// The digest, if it is due.
    pub(crate) fn take_digest(&mut self, now: Instant) -> Option<v1::PresenceChange> {
        if self.sequence == 0 || self.digest_at > now {
            return None;
        }
        self.digest_at = now + DIGEST_EVERY;
        Some(self.digest())
    }

    /// When nobody was here for so long that all others know it.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let empty = self.here.is_empty() && self.untold.is_empty() && self.whole_at.is_none();
        let kept = if self.sequence == 0 { Duration::ZERO } else { KEPT_EMPTY };
        empty.then(|| self.empty_since + kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(3);

    fn session(n: u128) -> SessionId {
        SessionId::new(&NodeId::parse("a").unwrap(), n)
    }

    fn local(now: Instant) -> Local {
        Local::new(NodeId::parse("a").unwrap(), 7, now)
    }

    #[test]
    fn who_comes_and_goes_before_it_is_told_was_never_here() {
        let now = Instant::now();
        let mut local = local(now);
        assert!(local.enter(&session(1), None));
        local.leave(&session(1), now);
        assert_eq!(local.gone(now), [session(1)]);
        assert_eq!(local.tell(10, now), []);
    }

    #[test]
    fn who_comes_back_while_lingering_was_never_away() {
        let now = Instant::now();
        let mut local = local(now);
        local.enter(&session(1), None);
        assert_eq!(local.tell(10, now).len(), 1);
        local.leave(&session(1), now + LINGER);
        assert!(!local.enter(&session(1), None));
        assert_eq!(local.gone(now + LINGER), []);
        local.leave(&session(1), now + 2 * LINGER);
        assert_eq!(local.gone(now + LINGER), []);
        assert_eq!(local.gone(now + 2 * LINGER), [session(1)]);
        assert_eq!(local.tell(10, now)[0].left, [session(1).as_str()]);
    }

    #[test]
    fn a_crowd_is_told_in_messages_that_fit_and_all_are_counted() {
        let now = Instant::now();
        let mut local = local(now);
        for n in 0..25 {
            local.enter(&session(n), None);
        }
        let messages = local.tell(10, now);
        assert_eq!(messages.iter().map(|m| m.joined.len()).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        local.tell_whole_at(now);
        let whole = local.tell(10, now);
        assert_eq!(
            whole.iter().map(|m| (m.sequence, m.whole)).collect::<Vec<_>>(),
            [(4, true), (5, false), (6, false)]
        );
        assert_eq!(local.answer(10).iter().map(|m| m.sequence).collect::<Vec<_>>(), [6, 6, 6]);
    }

    #[test]
    fn the_whole_is_not_told_to_each_who_asks() {
        let now = Instant::now();
        let mut local = local(now);
        local.enter(&session(1), None);
        local.tell_whole_at(now);
        assert_eq!(local.tell(10, now).iter().filter(|message| message.whole).count(), 1);
        for _ in 0..20 {
            local.tell_whole_at(now);
        }
        assert_eq!(local.tell(10, now), []);
        assert_eq!(local.tells_at(Duration::ZERO, now), Some(now + WHOLE_EVERY));
        assert_eq!(local.tell(10, now + WHOLE_EVERY).len(), 1);
    }

    #[test]
    fn a_channel_that_was_told_of_is_kept_until_its_emptiness_is_known() {
        let now = Instant::now();
        let mut local = local(now);
        local.enter(&session(1), None);
        assert_eq!(local.ends_at(), None);
        local.tell(10, now);
        local.leave(&session(1), now);
        local.gone(now);
        assert_eq!(local.ends_at(), None, "nobody was told yet");
        local.tell(10, now);
        assert!(local.ends_at().unwrap() > now + DIGEST_EVERY);
        assert_eq!(local.take_digest(now + DIGEST_EVERY).unwrap().sequence, 2);
    }

    #[test]
    fn changes_are_told_at_most_once_in_an_interval() {
        let (now, interval) = (Instant::now(), Duration::from_millis(200));
        let mut local = local(now);
        assert_eq!(local.tells_at(interval, now), None);
        local.enter(&session(1), None);
        assert_eq!(local.tells_at(interval, now), Some(now));
        local.tell(10, now);
        local.enter(&session(2), None);
        assert_eq!(local.tells_at(interval, now), Some(now + interval));
    }
}
