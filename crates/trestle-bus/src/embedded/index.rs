//! Who listens to what in this process.
//!
//! In: a message. Out: the same message in the queue of every subscription it is for. Always: messages that one thread
//! delivers to one subject reach each queue in that order, and delivering never waits for a listener.
//!
//! Patterns are few (each node has some) and every message is looked up among them, so they are a tree that is never
//! changed but replaced: a message for which there is no pattern costs two look-ups, no lock and no memory.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use trestle_wire::Subject;

use crate::{Feed, Message, pattern};

/// Subscribing locks one of these; 16 keep a storm of subscriptions from stopping the publishers.
const SHARDS: usize = 16;

/// With a seed of its own, because clients name what stands in it.
type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// All subscriptions of an embedded bus.
pub(super) struct Index {
    exact: [RwLock<Map<Subject, Listeners>>; SHARDS],
    patterns: ArcSwap<Node>,
    /// Held while the patterns are replaced.
    changing: Mutex<()>,
    hasher: RandomState,
}

#[derive(Clone, Default)]
struct Listeners {
    each: Vec<Listener>,
    groups: Vec<Group>,
}

#[derive(Clone)]
struct Listener {
    id: u64,
    feed: Feed,
}

#[derive(Clone)]
struct Group {
    name: Arc<str>,
    members: Vec<Listener>,
    turn: Arc<AtomicUsize>,
}

/// One token of the patterns, and what may come after it.
#[derive(Clone, Default)]
struct Node {
    next: Map<Box<str>, Arc<Node>>,
    /// After a `*`.
    any: Option<Arc<Node>>,
    /// Those whose pattern goes on with `>`.
    rest: Listeners,
    /// Those whose pattern ends here.
    here: Listeners,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            exact: std::array::from_fn(|_| RwLock::default()),
            patterns: ArcSwap::default(),
            changing: Mutex::default(),
            hasher: RandomState::default(),
        }
    }

    fn shard(&self, subject: &Subject) -> &RwLock<Map<Subject, Listeners>> {
        // The map inside takes the lowest and the highest bits of its own hash; these are others.
        &self.exact[(self.hasher.hash_one(subject) >> 32) as usize % SHARDS]
    }

    fn change_patterns(&self, change: impl FnOnce(&mut Node)) {
        let _one_at_a_time = self.changing.lock();
        let mut patterns = Node::clone(&self.patterns.load());
        change(&mut patterns);
        self.patterns.store(Arc::new(patterns));
    }

    pub(super) fn add(&self, at: &Subject, group: Option<&str>, id: u64, feed: Feed) {
        if pattern::is_wild(at.as_str()) {
            self.change_patterns(|patterns| patterns.at(at.as_str()).add(group, Listener { id, feed }));
        } else {
            self.shard(at).write().entry(at.clone()).or_default().add(group, Listener { id, feed });
        }
    }

    pub(super) fn remove(&self, at: &Subject, id: u64) {
        if pattern::is_wild(at.as_str()) {
            self.change_patterns(|patterns| patterns.remove(at.as_str(), id));
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
        let patterns = self.patterns.load();
        let mut found = Vec::new(); // takes no memory while it is empty
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
        self.change_patterns(|patterns| std::mem::take(patterns).close());
    }
}

impl Listeners {
    fn add(&mut self, group: Option<&str>, listener: Listener) {
        let Some(name) = group else { return self.each.push(listener) };
        match self.groups.iter_mut().find(|group| &*group.name == name) {
            Some(group) => group.members.push(listener),
            None => self.groups.push(Group { name: name.into(), members: vec![listener], turn: Arc::default() }),
        }
    }

    fn remove(&mut self, id: u64) {
        self.each.retain(|listener| listener.id != id);
        for group in &mut self.groups {
            group.members.retain(|listener| listener.id != id);
        }
        self.groups.retain(|group| !group.members.is_empty());
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

    fn close(&self) {
        let members = self.groups.iter().flat_map(|group| &group.members);
        self.each.iter().chain(members).for_each(|listener| listener.feed.close());
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
    /// The listeners of `pattern`, made if there are none. What is shared with older trees on the way is copied.
    fn at(&mut self, pattern: &str) -> &mut Listeners {
        let mut node = self;
        for token in pattern.split('.') {
            let next = match token {
                ">" => return &mut node.rest,
                "*" => node.any.get_or_insert_default(),
                token => node.next.entry(token.into()).or_default(),
            };
            node = Arc::make_mut(next);
        }
        &mut node.here
    }

    fn find<'a>(&'a self, subject: &str, found: &mut Vec<&'a Listeners>) {
        if !self.rest.is_empty() {
            found.push(&self.rest);
        }
        if self.next.is_empty() && self.any.is_none() {
            return;
        }
        let (token, after) = subject.split_once('.').map_or((subject, None), |(token, after)| (token, Some(after)));
        for node in [self.next.get(token), self.any.as_ref()].into_iter().flatten() {
            match after {
                Some(after) => node.find(after, found),
                None if node.here.is_empty() => {}
                None => found.push(&node.here),
            }
        }
    }

    fn remove(&mut self, pattern: &str, id: u64) {
        let (token, after) = pattern.split_once('.').map_or((pattern, None), |(token, after)| (token, Some(after)));
        let next = match token {
            ">" => return self.rest.remove(id),
            "*" => self.any.as_mut(),
            token => self.next.get_mut(token),
        };
        let Some(next) = next.map(Arc::make_mut) else { return };
        match after {
            Some(after) => next.remove(after, id),
            None => next.here.remove(id),
        }
        if next.is_empty() {
            match token {
                "*" => self.any = None,
                token => drop(self.next.remove(token)),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.next.is_empty() && self.any.is_none() && self.rest.is_empty() && self.here.is_empty()
    }

    fn close(&self) {
        self.here.close();
        self.rest.close();
        self.next.values().chain(&self.any).for_each(|next| next.close());
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
    fn a_message_for_no_pattern_waits_for_nobody_who_subscribes_to_one() {
        let mut house = House { index: Index::new(), ids: 0 };
        let (_session, _) = house.listen("t.session.n1.*", None);
        let (mut room, _) = house.listen("t.ch.room", None);
        let _somebody_subscribes = house.index.changing.lock();
        let patterns = house.index.patterns.load();
        let mut found = Vec::new();
        patterns.find("t.ch.room", &mut found);
        assert_eq!(found.capacity(), 0, "nor does it take memory");
        assert_eq!(house.say("t.ch.room"), 1);
        assert_eq!(heard(&mut room), 1);
    }

    #[test]
    fn a_group_keeps_its_turn_while_others_come_and_go() {
        let mut house = House { index: Index::new(), ids: 0 };
        let (mut one, _) = house.listen("a.*", Some("g"));
        let (mut two, _) = house.listen("a.*", Some("g"));
        for _ in 0..10 {
            let (_other, id) = house.listen("b.*", None);
            assert_eq!(house.say("a.b"), 1);
            house.index.remove(&Subject::from_trusted("b.*"), id);
        }
        assert_eq!((heard(&mut one), heard(&mut two)), (5, 5));
    }

    #[test]
    fn nobody_outside_can_tell_which_names_collide() {
        let (one, other) = (Index::new(), Index::new());
        let differs = |name: &str| one.hasher.hash_one(name) != other.hasher.hash_one(name);
        assert!(["a", "b", "c", "d"].into_iter().any(differs));
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
        assert!(house.index.patterns.load().is_empty());
        assert!(house.index.exact.iter().all(|shard| shard.read().is_empty()));
    }
}
