//! Who listens to what in this process.
//!
//! In: a message. Out: the same message in the queue of every subscription it is for. Always: messages that one thread
//! delivers to one subject reach each queue in that order, and delivering never waits for a listener.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::FixedState;
use parking_lot::RwLock;
use trestle_wire::Subject;

use crate::{Feed, Message, pattern};

/// Subscribing locks one of these; 16 keep a storm of subscriptions from stopping the publishers.
const SHARDS: usize = 16;

type Map<K, V> = std::collections::HashMap<K, V, FixedState>;

/// All subscriptions of an embedded bus.
pub(super) struct Index {
    exact: [RwLock<Map<Subject, Listeners>>; SHARDS],
    patterns: RwLock<Node>,
    /// Subscriptions with wildcards; while there are none, a delivery is one look-up.
    wild: AtomicUsize,
    hasher: FixedState,
}

#[derive(Default)]
struct Listeners {
    each: Vec<Listener>,
    groups: Vec<Group>,
}

struct Listener {
    id: u64,
    feed: Feed,
}

struct Group {
    name: Arc<str>,
    members: Vec<Listener>,
    turn: AtomicUsize,
}

/// One token of the patterns.
#[derive(Default)]
struct Node {
    next: Map<Box<str>, Node>,
    here: Listeners,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            exact: std::array::from_fn(|_| RwLock::default()),
            patterns: RwLock::default(),
            wild: AtomicUsize::new(0),
            hasher: FixedState::default(),
        }
    }

    fn shard(&self, subject: &Subject) -> &RwLock<Map<Subject, Listeners>> {
        &self.exact[self.hasher.hash_one(subject) as usize % SHARDS]
    }

    pub(super) fn add(&self, at: &Subject, group: Option<&str>, id: u64, feed: Feed) {
        if pattern::is_wild(at.as_str()) {
            let mut node = &mut *self.patterns.write();
            for token in at.as_str().split('.') {
                node = node.next.entry(token.into()).or_default();
            }
            node.here.add(group, Listener { id, feed });
            self.wild.fetch_add(1, Ordering::SeqCst);
        } else {
            self.shard(at).write().entry(at.clone()).or_default().add(group, Listener { id, feed });
        }
    }

    pub(super) fn remove(&self, at: &Subject, id: u64) {
        if pattern::is_wild(at.as_str()) {
            let tokens: Vec<&str> = at.as_str().split('.').collect();
            if self.patterns.write().remove(&tokens, id) {
                self.wild.fetch_sub(1, Ordering::SeqCst);
            }
        } else {
            let mut shard = self.shard(at).write();
            if let Some(listeners) = shard.get_mut(at) {
                listeners.remove(id);
                if listeners.is_empty() {
                    shard.remove(at);
                }
            }
        }
    }

    /// Hands `message` out and says to how many subscriptions.
    pub(super) fn deliver(&self, message: &Message) -> usize {
        let shard = self.shard(&message.subject).read();
        let exact = shard.get(&message.subject);
        if self.wild.load(Ordering::SeqCst) == 0 {
            return exact.map_or(0, |listeners| listeners.tell(message));
        }
        let patterns = self.patterns.read();
        let mut found = Vec::new();
        patterns.find(message.subject.as_str(), &mut found);
        if found.is_empty() {
            return exact.map_or(0, |listeners| listeners.tell(message));
        }
        found.extend(exact);
        let each: usize = found.iter().map(|listeners| listeners.tell_each(message)).sum();
        found.retain(|listeners| !listeners.groups.is_empty());
        each + match &found[..] {
            [] => 0,
            [one] => one.tell_groups(message),
            several => tell_merged(several, message),
        }
    }

    /// Ends every subscription.
    pub(super) fn close(&self) {
        for shard in &self.exact {
            shard.write().drain().for_each(|(_, listeners)| listeners.close());
        }
        std::mem::take(&mut *self.patterns.write()).close();
        self.wild.store(0, Ordering::SeqCst);
    }
}

impl Listeners {
    fn add(&mut self, group: Option<&str>, listener: Listener) {
        let Some(name) = group else { return self.each.push(listener) };
        match self.groups.iter_mut().find(|group| &*group.name == name) {
            Some(group) => group.members.push(listener),
            None => self.groups.push(Group { name: name.into(), members: vec![listener], turn: AtomicUsize::new(0) }),
        }
    }

    fn remove(&mut self, id: u64) -> bool {
        let before = self.len();
        self.each.retain(|listener| listener.id != id);
        for group in &mut self.groups {
            group.members.retain(|listener| listener.id != id);
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.len() < before
    }

    fn len(&self) -> usize {
        self.each.len() + self.groups.iter().map(|group| group.members.len()).sum::<usize>()
    }

    fn is_empty(&self) -> bool {
        self.each.is_empty() && self.groups.is_empty()
    }

    fn tell(&self, message: &Message) -> usize {
        self.tell_each(message) + self.tell_groups(message)
    }

    fn tell_each(&self, message: &Message) -> usize {
        for listener in &self.each {
            listener.feed.push(message.clone());
        }
        self.each.len()
    }

    fn tell_groups(&self, message: &Message) -> usize {
        for group in &self.groups {
            let turn = group.turn.fetch_add(1, Ordering::Relaxed) % group.members.len();
            group.members[turn].feed.push(message.clone());
        }
        self.groups.len()
    }

    fn close(self) {
        self.each
            .into_iter()
            .chain(self.groups.into_iter().flat_map(|group| group.members))
            .for_each(|l| l.feed.close());
    }
}

/// A group may listen by several patterns; it is one group all the same.
fn tell_merged(several: &[&Listeners], message: &Message) -> usize {
    let groups: Vec<&Group> = several.iter().flat_map(|listeners| &listeners.groups).collect();
    let mut told = 0;
    for (at, first) in groups.iter().enumerate() {
        if groups[..at].iter().any(|earlier| earlier.name == first.name) {
            continue;
        }
        let members = || groups[at..].iter().filter(|group| group.name == first.name).flat_map(|group| &group.members);
        let turn = first.turn.fetch_add(1, Ordering::Relaxed) % members().count();
        if let Some(listener) = members().nth(turn) {
            listener.feed.push(message.clone());
            told += 1;
        }
    }
    told
}

impl Node {
    fn find<'a>(&'a self, rest: &str, found: &mut Vec<&'a Listeners>) {
        if let Some(tail) = self.next.get(">") {
            found.push(&tail.here);
        }
        let (token, rest) = rest.split_once('.').map_or((rest, None), |(token, rest)| (token, Some(rest)));
        for node in [self.next.get(token), self.next.get("*")].into_iter().flatten() {
            match rest {
                Some(rest) => node.find(rest, found),
                None => found.push(&node.here),
            }
        }
    }

    fn remove(&mut self, tokens: &[&str], id: u64) -> bool {
        let Some((token, rest)) = tokens.split_first() else { return self.here.remove(id) };
        let Some(node) = self.next.get_mut(*token) else { return false };
        let removed = node.remove(rest, id);
        if node.here.is_empty() && node.next.is_empty() {
            self.next.remove(*token);
        }
        removed
    }

    fn close(self) {
        self.here.close();
        self.next.into_values().for_each(Node::close);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Ends, Subscription};

    struct House {
        index: Index,
        ids: u64,
    }

    impl House {
        fn listen(&mut self, at: &str, group: Option<&str>) -> (Subscription, u64) {
            let (feed, subscription) = Subscription::bounded(100, 1000, Ends::with(|| ()));
            self.ids += 1;
            self.index.add(&Subject::from_trusted(at), group, self.ids, feed);
            (subscription, self.ids)
        }

        fn say(&self, subject: &str) -> usize {
            let subject = Subject::from_trusted(subject);
            self.index.deliver(&Message { subject, reply_to: None, payload: Bytes::new(), place: None })
        }
    }

    fn heard(subscription: &mut Subscription) -> usize {
        std::iter::from_fn(|| subscription.try_next()).count()
    }

    #[test]
    fn exact_and_wild_listeners_hear_once_each() {
        let mut house = House { index: Index::new(), ids: 0 };
        let mut all: Vec<_> =
            ["a.b", "a.*", "a.>", ">", "*.b", "b"].map(|at| house.listen(at, None)).into_iter().collect();
        assert_eq!(house.say("a.b"), 5);
        assert_eq!(all.iter_mut().map(|(s, _)| heard(s)).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 0]);
        assert_eq!(house.say("a.b.c"), 2);
        assert_eq!(house.say("a"), 1);
    }

    #[test]
    fn a_group_takes_turns_and_is_one_over_all_its_patterns() {
        let mut house = House { index: Index::new(), ids: 0 };
        let (mut one, _) = house.listen("a.b", Some("g"));
        let (mut two, _) = house.listen("a.*", Some("g"));
        let (mut other, _) = house.listen("a.*", Some("h"));
        for _ in 0..10 {
            assert_eq!(house.say("a.b"), 2);
        }
        assert_eq!((heard(&mut one), heard(&mut two), heard(&mut other)), (5, 5, 10));
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let mut house = House { index: Index::new(), ids: 0 };
        let all: Vec<_> = ["a.b", "a.*.c", "a.>"].map(|at| (at, house.listen(at, None).1)).into_iter().collect();
        for (at, id) in all {
            house.index.remove(&Subject::from_trusted(at), id);
            house.index.remove(&Subject::from_trusted(at), id);
        }
        assert_eq!(house.say("a.b"), 0);
        assert!(house.index.patterns.read().next.is_empty());
        assert_eq!(house.index.wild.load(Ordering::SeqCst), 0);
        assert!(house.index.exact.iter().all(|shard| shard.read().is_empty()));
    }
}
