//! Which sessions without a node this one looks after, until when, and what was wanted of sessions lately. No I/O, no clock
//! of its own.
//!
//! What always holds: what is wanted of sessions reaches one that is looked after once, whether it was found before or
//! after.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::Instant;
use trestle_wire::{
    Selector, SessionId,
    v1::{self, control::Action, target::Target},
};

/// Most sessions that are looked after: 256 Ki x about 500 B = 128 MiB. A node has at most 200,000.
const SESSIONS_MAX: usize = 256 << 10;
/// Most controls that are remembered: 1 Ki x at most a few KiB.
const CONTROLS_MAX: usize = 1 << 10;

/// A session that is looked after.
struct Ward {
    record: Bytes,
    ends_at: Instant,
}

/// What was wanted of sessions, and when.
struct Wanted {
    heard: Instant,
    time: SystemTime,
    target: Target,
    action: Action,
}

/// The sessions and the controls of one node.
#[derive(Default)]
pub(crate) struct Table {
    wards: HashMap<SessionId, Ward>,
    /// When each ends.
    ends: BTreeSet<(Instant, SessionId)>,
    wanted: VecDeque<Wanted>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.wards.len()
    }

    /// Looks after a session from now on; gives what was wanted of it lately. One that is known keeps its end.
    pub(crate) fn take(&mut self, session: &SessionId, record: &v1::SessionRecord, ends_at: Instant) -> Vec<Action> {
        let known = self.wards.get(session).map(|ward| ward.ends_at);
        if known.is_none() && self.wards.len() >= SESSIONS_MAX {
            return Vec::new();
        }
        let ends_at = known.unwrap_or(ends_at);
        self.ends.insert((ends_at, session.clone()));
        self.wards.insert(session.clone(), Ward { record: record.encode_to_vec().into(), ends_at });
        if known.is_some() {
            return Vec::new();
        }
        let began = record.connected.and_then(|began| SystemTime::try_from(began).ok());
        let since = |wanted: &&Wanted| began.is_none_or(|began| began <= wanted.time);
        let wanted = self.wanted.iter().filter(since).filter(|wanted| Aim::of(&wanted.target).meets(session, record));
        wanted.map(|wanted| wanted.action.clone()).collect()
    }

    /// Notes what is wanted of `target`, until it is older than `kept`; gives the sessions here that are meant.
    pub(crate) fn want(
        &mut self,
        target: &Target,
        action: &Action,
        now: (Instant, SystemTime),
        kept: Duration,
    ) -> Vec<SessionId> {
        while self.wanted.front().is_some_and(|oldest| oldest.heard + kept <= now.0)
            || self.wanted.len() >= CONTROLS_MAX
        {
            self.wanted.pop_front();
        }
        let (target_too, action) = (target.clone(), action.clone());
        self.wanted.push_back(Wanted { heard: now.0, time: now.1, target: target_too, action });
        let aim = Aim::of(target);
        if let Target::Session(id) = target {
            let one = SessionId::parse(id).ok().filter(|session| self.wards.contains_key(session));
            return one.into_iter().collect();
        }
        let meant = self.wards.iter().filter(|(session, ward)| {
            v1::SessionRecord::decode(ward.record.clone()).is_ok_and(|record| aim.meets(session, &record))
        });
        meant.map(|(session, _)| session.clone()).collect()
    }

    /// The record of a session is another now.
    pub(crate) fn renew(&mut self, session: &SessionId, record: &v1::SessionRecord) {
        if let Some(ward) = self.wards.get_mut(session) {
            ward.record = record.encode_to_vec().into();
        }
    }

    /// Looks after a session no more.
    pub(crate) fn drop(&mut self, session: &SessionId) {
        if let Some(ward) = self.wards.remove(session) {
            self.ends.remove(&(ward.ends_at, session.clone()));
        }
    }

    /// Looks after those only of whose record `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl Fn(&SessionId, &v1::SessionRecord) -> bool) {
        let Self { wards, ends, .. } = self;
        wards.retain(|session, ward| {
            let kept = v1::SessionRecord::decode(ward.record.clone()).is_ok_and(|record| keep(session, &record));
            if !kept {
                ends.remove(&(ward.ends_at, session.clone()));
            }
            kept
        });
    }

    /// When the next one ends.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// At most `most` of those that end at `now`.
    pub(crate) fn over(&self, most: usize, now: Instant) -> Vec<SessionId> {
        let over = self.ends.iter().take_while(|(at, _)| *at <= now).take(most);
        over.map(|(_, session)| session.clone()).collect()
    }

    /// Tries the end of a session again at `at`.
    pub(crate) fn put_off(&mut self, session: &SessionId, at: Instant) {
        if let Some(ward) = self.wards.get_mut(session) {
            self.ends.remove(&(ward.ends_at, session.clone()));
            ward.ends_at = at;
            self.ends.insert((at, session.clone()));
        }
    }
}

/// Whom something is for, as far as records tell: groups and tags of a token and of rules are not in them.
enum Aim<'a> {
    Session(&'a str),
    User(&'a str),
    Group(&'a str),
    Tags(Selector),
    AllBut(HashSet<&'a str>),
    Nobody,
}

impl<'a> Aim<'a> {
    fn of(target: &'a Target) -> Self {
        match target {
            Target::Session(id) => Self::Session(id),
            Target::User(user) => Self::User(user),
            Target::Group(group) => Self::Group(group),
            Target::Tags(text) => Selector::parse(text).map_or(Self::Nobody, Self::Tags),
            Target::Everyone(v1::Everyone { except_sessions }) => {
                Self::AllBut(except_sessions.iter().map(String::as_str).collect())
            }
            Target::Channel(_) | Target::Inbox(_) => Self::Nobody,
        }
    }

    fn meets(&self, session: &SessionId, record: &v1::SessionRecord) -> bool {
        match self {
            Self::Session(id) => session.as_str() == *id,
            Self::User(user) => record.user == *user,
            Self::Group(group) => record.groups.iter().any(|one| one == group),
            Self::Tags(selector) => selector.matches(&record.tags),
            Self::AllBut(except) => !except.contains(session.as_str()),
            Self::Nobody => false,
        }
    }
}

/// Of the living `edges`, in the order of their names, the one that looks after the sessions of `gone`: the next one, as on a
/// ring. If that goes too, the one after it is the next of both.
pub(crate) fn heir<'a>(gone: &str, edges: &'a [String]) -> Option<&'a str> {
    edges.iter().find(|edge| edge.as_str() > gone).or_else(|| edges.first()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use trestle_wire::NodeId;

    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    fn session(n: u128) -> SessionId {
        SessionId::new(&NodeId::parse("a").unwrap(), n)
    }

    fn of(user: &str, began: Option<SystemTime>) -> v1::SessionRecord {
        v1::SessionRecord { user: user.into(), connected: began.map(Into::into), ..v1::SessionRecord::default() }
    }

    fn kick() -> Action {
        Action::Kick(v1::KickRequest::default())
    }

    #[test]
    fn the_next_name_looks_after_one_that_is_gone_and_after_all_that_it_looked_after() {
        let edges = ["b", "d", "f"].map(str::to_owned);
        assert_eq!((heir("a", &edges), heir("d", &edges), heir("z", &edges)), (Some("b"), Some("f"), Some("b")));
        assert_eq!((heir("c", &edges), heir("c", &[])), (Some("d"), None));
        let without = ["b", "f"].map(str::to_owned);
        assert_eq!((heir("c", &without), heir("d", &without)), (Some("f"), Some("f")));
    }

    #[test]
    fn what_is_wanted_reaches_who_is_found_before_and_after_and_none_who_began_later() {
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut table = Table::default();
        let (before, after, later, too_late) = (session(1), session(2), session(3), session(4));
        let ann = Target::User("ann".into());
        assert!(table.take(&before, &of("ann", Some(time)), now).is_empty());
        assert!(table.take(&session(9), &of("bob", Some(time)), now).is_empty());
        assert_eq!(table.want(&ann, &kick(), (now, time), KEPT), [before]);
        assert_eq!(table.take(&after, &of("ann", Some(time)), now), [kick()]);
        assert!(table.take(&after, &of("ann", Some(time)), now).is_empty(), "once");
        assert!(table.take(&later, &of("ann", Some(time + KEPT)), now).is_empty());
        table.want(&Target::User("eve".into()), &kick(), (now + KEPT, time), KEPT);
        assert!(table.take(&too_late, &of("ann", Some(time)), now).is_empty(), "it is forgotten");
    }

    #[test]
    fn sessions_end_in_the_order_of_their_ends() {
        let now = Instant::now();
        let mut table = Table::default();
        for n in [3, 1, 2] {
            table.take(&session(n), &of("ann", None), now + KEPT * u32::try_from(n).unwrap());
        }
        assert_eq!((table.ends_at(), table.over(9, now + KEPT * 2)), (Some(now + KEPT), vec![session(1), session(2)]));
        table.put_off(&session(1), now + KEPT * 9);
        table.drop(&session(2));
        table.retain(|one, _| *one != session(3));
        assert_eq!((table.len(), table.over(9, now + KEPT * 9)), (1, vec![session(1)]));
    }
}
