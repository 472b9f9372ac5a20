//! Who is on a channel on all nodes: one node's replica. No I/O, no clock of its own.
//!
//! In: what nodes say ([`v1::PresenceChange`]), who lives, who came and went here. Out: states, events, nodes to be asked.
//! Always: a session is on the channel while any node has it there, in whatever order that is heard; what was missed from
//! a node is known by its count, and the node is asked until it says everything, or is taken to have nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use trestle_wire::{ChannelName, NodeId, SessionId, UserId, v1};

use crate::roll::{Birth, Lives};

/// How long a node that was asked has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked before it is taken to have nobody: it lives, so it has left the channel.
const ASKS_MAX: u32 = 3;
/// Nodes that are remembered to have died: 64 x 40 B for each channel. One that is not is heard again by its digest.
const DEAD_MAX: usize = 64;

/// What is known of one other node.
struct Part {
    started: u64,
    sequence: u64,
    members: HashSet<SessionId>,
    /// The node's number among those that live; `None` while it is not known to live.
    number: Option<u64>,
    heard: Instant,
    /// Set when something is missing: `members` is what was true before.
    missing: Option<Missing>,
}

#[derive(Clone, Copy)]
struct Missing {
    asked: u32,
    next: Instant,
}

struct Present {
    user: Option<UserId>,
    /// On how many nodes.
    nodes: usize,
}

impl Part {
    fn new(started: u64, number: Option<u64>, heard: Instant) -> Self {
        Self { started, sequence: 0, members: HashSet::new(), number, heard, missing: None }
    }
}

/// The replica.
#[derive(Default)]
pub(crate) struct Table {
    parts: BTreeMap<NodeId, Part>,
    present: HashMap<SessionId, Present>,
    /// Sessions of each user.
    users: HashMap<UserId, usize>,
    /// Who came or went since the last event: whether they were there then, and whose they are.
    news: HashMap<SessionId, (bool, Option<UserId>)>,
    /// Sessions and users as they were told last.
    told: (usize, usize),
    /// Nodes whose members were let go because they did not live: asked if they come back.
    dead: BTreeSet<NodeId>,
}

impl Table {
    /// A session is on the channel on one more node.
    pub(crate) fn add(&mut self, session: &SessionId, user: Option<&UserId>) {
        if let Some(present) = self.present.get_mut(session) {
            present.nodes += 1;
            return;
        }
        self.present.insert(session.clone(), Present { user: user.cloned(), nodes: 1 });
        if let Some(user) = user {
            *self.users.entry(user.clone()).or_default() += 1;
        }
        self.news.entry(session.clone()).or_insert_with(|| (false, user.cloned()));
    }

    /// A session is on the channel on one node less.
    pub(crate) fn remove(&mut self, session: &SessionId) {
        let Some(present) = self.present.get_mut(session) else { return };
        present.nodes -= 1;
        if present.nodes > 0 {
            return;
        }
        let user = self.present.remove(session).and_then(|present| present.user);
        if let Some(user) = &user
            && let Some(sessions) = self.users.get_mut(user)
        {
            *sessions -= 1;
            if *sessions == 0 {
                self.users.remove(user);
            }
        }
        self.news.entry(session.clone()).or_insert((true, user));
    }

    /// What another node says, and when it came if it is known to live.
    pub(crate) fn apply(&mut self, node: &NodeId, change: &v1::PresenceChange, birth: Option<Birth>, now: Instant) {
        if birth.is_some_and(|birth| change.started < birth.started) {
            return; // by one of its name that lives no more
        }
        let number = birth.map(|birth| birth.number);
        let digest = !change.whole && change.joined.is_empty() && change.left.is_empty();
        let part = self.parts.entry(node.clone()).or_insert_with(|| Part::new(change.started, number, now));
        part.heard = now;
        if change.started < part.started {
            return; // from before the node began to count anew
        }
        if change.started > part.started {
            // It counts anew; what it said before holds until it has said everything.
            (part.started, part.sequence) = (change.started, 0);
            part.missing = part.missing.or(Some(Missing { asked: 0, next: now }));
        }
        let next = part.sequence + 1;
        if change.whole && (change.sequence > next || part.missing.is_some()) {
            self.replace(node, change);
        } else if digest && change.sequence == part.sequence {
            part.missing = None;
        } else if !digest && change.sequence == next {
            (part.sequence, part.missing) = (next, None);
            // The first that it has ever said is all that there is; a whole that comes in its turn holds nothing new.
            if next == 1 { self.replace(node, change) } else { self.update(node, change) }
        } else if let Some(missing) = &mut part.missing {
            missing.asked = 0; // it speaks of the channel, so it has not left it: it is asked until it answers
        } else if change.sequence > part.sequence {
            part.missing = Some(Missing { asked: 0, next: now });
        }
    }

    /// Those who came and went on `node`.
    fn update(&mut self, node: &NodeId, change: &v1::PresenceChange) {
        for (session, user) in members(&change.joined) {
            if self.parts.get_mut(node).is_some_and(|part| part.members.insert(session.clone())) {
                self.add(&session, user.as_ref());
            }
        }
        for session in change.left.iter().filter_map(|session| SessionId::parse(session).ok()) {
            if self.parts.get_mut(node).is_some_and(|part| part.members.remove(&session)) {
                self.remove(&session);
            }
        }
    }

    fn replace(&mut self, node: &NodeId, change: &v1::PresenceChange) {
        let Some(part) = self.parts.get_mut(node) else { return };
        let before = std::mem::take(&mut part.members);
        part.sequence = change.sequence;
        part.missing = None;
        self.update(node, change);
        for session in before {
            self.remove(&session);
        }
    }

    /// Something may be missing from every node; all are asked at `at`.
    pub(crate) fn doubt_all(&mut self, at: Instant) {
        for part in self.parts.values_mut() {
            part.missing = Some(Missing { asked: 1, next: at + ANSWER_WITHIN });
        }
    }

    /// Who lives now. Those who do not have nobody; those that came, came back or began anew are asked.
    pub(crate) fn lives(&mut self, lives: &Lives, now: Instant) {
        let missing = Some(Missing { asked: 0, next: now });
        let mut dead = Vec::new();
        for (node, part) in &mut self.parts {
            match (part.number, lives.get(node).map(|birth| birth.number)) {
                (Some(_), None) => dead.push(node.clone()),
                (before, number) if before != number => {
                    // What it said may be of a life before. Whatever it says from now on is new, by whatever clock.
                    (part.number, part.started, part.missing) = (number, 0, missing);
                }
                _ => {}
            }
        }
        for node in dead {
            self.drop_node(&node);
            if self.dead.len() < DEAD_MAX {
                self.dead.insert(node);
            }
        }
        let back: Vec<_> = self.dead.iter().filter(|node| lives.contains_key(*node)).cloned().collect();
        for node in back {
            self.dead.remove(&node);
            let number = lives.get(&node).map(|birth| birth.number);
            self.parts.entry(node).or_insert(Part { missing, ..Part::new(0, number, now) });
        }
    }

    /// Nodes to be asked now. One that was asked in vain has nobody; nor has one that is unknown to live and silent for
    /// `patience`.
    pub(crate) fn unanswered(&mut self, patience: Duration, now: Instant) -> Vec<NodeId> {
        let (mut ask, mut without) = (Vec::new(), Vec::new());
        for (node, part) in &mut self.parts {
            if part.number.is_none() && part.heard + patience <= now {
                without.push(node.clone());
                continue;
            }
            let Some(missing) = part.missing.as_mut().filter(|missing| missing.next <= now) else { continue };
            if missing.asked == ASKS_MAX {
                without.push(node.clone());
            } else {
                *missing = Missing { asked: missing.asked + 1, next: now + ANSWER_WITHIN };
                ask.push(node.clone());
            }
        }
        for node in without {
            self.drop_node(&node);
        }
        ask
    }

    /// When [`Table::unanswered`] has something to do.
    pub(crate) fn asks_at(&self, patience: Duration) -> Option<Instant> {
        let parts = self.parts.values();
        let times = parts.filter_map(|part| {
            let unknown = part.number.is_none().then(|| part.heard + patience);
            part.missing.map(|missing| missing.next).into_iter().chain(unknown).min()
        });
        times.min()
    }

    fn drop_node(&mut self, node: &NodeId) {
        for session in self.parts.remove(node).into_iter().flat_map(|part| part.members) {
            self.remove(&session);
        }
    }

    /// Whether nothing is known to be missing.
    pub(crate) fn in_sync(&self) -> bool {
        self.parts.values().all(|part| part.missing.is_none())
    }

    /// Sessions on the channel.
    pub(crate) fn len(&self) -> usize {
        self.present.len()
    }

    /// Whether [`Table::event`] may have something to tell.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Who came and went since the last event; without names where there are more than `most`.
    pub(crate) fn event(&mut self, channel: &ChannelName, most: usize) -> Option<v1::PresenceEvent> {
        let before = std::mem::replace(&mut self.told, (self.present.len(), self.users.len()));
        let mut event = v1::PresenceEvent {
            channel: channel.as_str().into(),
            sessions: number(self.present.len()),
            users: number(self.users.len()),
            ..v1::PresenceEvent::default()
        };
        let news = std::mem::take(&mut self.news);
        if self.present.len().max(before.0) > most {
            return (before != self.told).then_some(event);
        }
        for (session, (was_there, user)) in news {
            match (was_there, self.present.contains_key(&session)) {
                (false, true) => event.joined.push(member(&session, user.as_ref())),
                (true, false) => event.left.push(member(&session, user.as_ref())),
                _ => {}
            }
        }
        (!event.joined.is_empty() || !event.left.is_empty()).then_some(event)
    }

    /// Who is on the channel; without names where there are more than `most`.
    pub(crate) fn state(&self, channel: &ChannelName, most: usize) -> v1::PresenceState {
        let complete = self.present.len() <= most;
        let names = self.present.iter().take(if complete { most } else { 0 });
        let mut members: Vec<_> = names.map(|(session, present)| member(session, present.user.as_ref())).collect();
        members.sort_by(|one, other| one.session_id.cmp(&other.session_id));
        v1::PresenceState {
            channel: channel.as_str().into(),
            sessions: number(self.present.len()),
            users: number(self.users.len()),
            members,
            complete,
        }
    }
}

/// Who is on `channel` by the answers of nodes that were asked; without names where there are more than `most`.
pub(crate) fn merged(channel: &ChannelName, answers: &[v1::PresenceChange], most: usize) -> v1::PresenceState {
    let mut table = Table::default();
    for (session, user) in answers.iter().flat_map(|answer| members(&answer.joined)) {
        table.add(&session, user.as_ref());
    }
    table.state(channel, most)
}

/// The members that are well-formed; a node sends no others.
fn members(members: &[v1::PresenceMember]) -> impl Iterator<Item = (SessionId, Option<UserId>)> {
    members
        .iter()
        .filter_map(|member| Some((SessionId::parse(&member.session_id).ok()?, UserId::parse(&member.user).ok())))
}

/// A member as it is told.
pub(crate) fn member(session: &SessionId, user: Option<&UserId>) -> v1::PresenceMember {
    let user = user.map(|user| user.as_str().into()).unwrap_or_default();
    v1::PresenceMember { session_id: session.as_str().into(), user }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
