//! The replica against a model, and its rules one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::local::Local;

const PATIENCE: Duration = Duration::from_secs(12);
/// Few enough that a crowd takes several messages.
const CHUNK: usize = 3;

fn node(n: usize) -> NodeId {
    NodeId::parse(&format!("n{n}")).unwrap()
}

fn session(n: usize) -> SessionId {
    SessionId::new(&node(0), n as u128)
}

/// Every third is anonymous; the others share users by two.
fn user(n: usize) -> Option<UserId> {
    (!n.is_multiple_of(3)).then(|| UserId::parse(&format!("u{}", n / 2)).unwrap())
}

fn channel() -> ChannelName {
    ChannelName::parse("room:1").unwrap()
}

/// Its clock says nothing of a life before.
fn birth(number: u64) -> Birth {
    Birth { number, started: 0 }
}

fn lives(nodes: impl IntoIterator<Item = (usize, u64)>) -> Lives {
    nodes.into_iter().map(|(n, number)| (node(n), birth(number))).collect()
}

fn names(members: &[v1::PresenceMember]) -> BTreeSet<String> {
    members.iter().map(|member| member.session_id.clone()).collect()
}

/// What a watcher that follows events believes.
#[derive(Default)]
struct Watcher {
    there: BTreeSet<String>,
}

impl Watcher {
    fn hear(&mut self, table: &mut Table) {
        let Some(event) = table.event(&channel(), usize::MAX) else { return };
        for name in names(&event.joined) {
            assert!(self.there.insert(name.clone()), "{name} joined twice");
        }
        for name in names(&event.left) {
            assert!(self.there.remove(&name), "{name} left and was not there");
        }
        assert_eq!(event.sessions as usize, self.there.len());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter {
        node: usize,
        session: usize,
    },
    Leave {
        node: usize,
        session: usize,
    },
    Tell {
        node: usize,
    },
    Digest {
        node: usize,
    },
    /// The node counts anew with nobody.
    Restart {
        node: usize,
    },
    Die {
        node: usize,
    },
    /// Some messages may be lost.
    Doubt,
    Ask,
    Event,
}

fn step() -> impl Strategy<Value = Step> {
    let (nodes, sessions) = (0..3_usize, 0..12_usize);
    prop_oneof![
        6 => (nodes.clone(), sessions.clone()).prop_map(|(node, session)| Step::Enter { node, session }),
        5 => (nodes.clone(), sessions).prop_map(|(node, session)| Step::Leave { node, session }),
        6 => nodes.clone().prop_map(|node| Step::Tell { node }),
        1 => nodes.clone().prop_map(|node| Step::Digest { node }),
        1 => nodes.clone().prop_map(|node| Step::Restart { node }),
        1 => nodes.prop_map(|node| Step::Die { node }),
        1 => Just(Step::Doubt),
        3 => Just(Step::Ask),
        3 => Just(Step::Event),
    ]
}

/// Nodes with their members, a lossy way, and a replica at its end.
struct World {
    now: Instant,
    nodes: BTreeMap<usize, (Local, BTreeSet<usize>, u64)>,
    starts: u64,
    table: Table,
    watcher: Watcher,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            nodes: BTreeMap::new(),
            starts: 0,
            table: Table::default(),
            watcher: Watcher::default(),
        };
        for n in 0..3 {
            world.start(n);
        }
        world
    }

    fn start(&mut self, n: usize) {
        self.starts += 1;
        let local = Local::new(node(n), self.starts, self.now);
        self.nodes.insert(n, (local, BTreeSet::new(), self.starts));
        self.see_lives();
    }

    fn see_lives(&mut self) {
        let lives = lives(self.nodes.iter().map(|(n, (.., number))| (*n, *number)));
        self.table.lives(&lives, self.now);
    }

    fn carry(&mut self, n: usize, messages: Vec<v1::PresenceChange>, lost: &mut impl FnMut() -> bool) {
        let birth = self.nodes.get(&n).map(|(.., number)| birth(*number));
        for message in messages {
            if !lost() {
                self.table.apply(&node(n), &message, birth, self.now);
            }
        }
    }

    fn take(&mut self, step: &Step, lost: &mut impl FnMut() -> bool) {
        let now = self.now;
        match *step {
            Step::Enter { node, session: n } => {
                if let Some((local, here, _)) = self.nodes.get_mut(&node)
                    && here.insert(n)
                {
                    local.enter(&session(n), user(n).as_ref());
                }
            }
            Step::Leave { node, session: n } => {
                if let Some((local, here, _)) = self.nodes.get_mut(&node)
                    && here.remove(&n)
                {
                    local.leave(&session(n), now);
                    local.gone(now);
                }
            }
            Step::Tell { node } => {
                let messages = self.nodes.get_mut(&node).map(|(local, ..)| local.tell(CHUNK, now));
                self.carry(node, messages.unwrap_or_default(), lost);
            }
            Step::Digest { node } => {
                self.now += crate::local::DIGEST_EVERY;
                let now = self.now;
                let digest = self.nodes.get_mut(&node).and_then(|(local, ..)| local.take_digest(now));
                self.carry(node, digest.into_iter().collect(), lost);
            }
            Step::Restart { node } => self.start(node),
            Step::Die { node } => {
                self.nodes.remove(&node);
                self.see_lives();
            }
            Step::Doubt => self.table.doubt_all(now),
            Step::Ask => self.ask(lost),
            Step::Event => self.watcher.hear(&mut self.table),
        }
    }

    /// The replica asks; those who hear it tell everything.
    fn ask(&mut self, lost: &mut impl FnMut() -> bool) {
        self.now += ANSWER_WITHIN;
        for asked in self.table.unanswered(PATIENCE, self.now) {
            let n = (0..3).find(|n| node(*n) == asked).expect("a node of this world");
            if lost() {
                continue;
            }
            let now = self.now;
            let Some((local, ..)) = self.nodes.get_mut(&n) else { continue };
            local.tell_whole_at(now);
            let messages = local.tell(CHUNK, now);
            self.carry(n, messages, lost);
        }
    }

    /// The truth.
    fn there(&self) -> BTreeSet<String> {
        let all = self.nodes.values().flat_map(|(_, here, _)| here.iter());
        all.map(|n| session(*n).as_str().to_owned()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_the_replica_becomes_exact_and_its_events_add_up(
        steps in proptest::collection::vec(step(), 0..120),
        losses in proptest::collection::vec(prop::bool::weighted(0.25), 400),
    ) {
        let mut world = World::new();
        let mut losses = losses.into_iter().cycle();
        let mut lost = || losses.next().unwrap_or(false);
        for step in &steps {
            world.take(step, &mut lost);
        }
        // From here on nothing is lost: everybody tells what is new, a digest, and answers when asked.
        let mut never = || false;
        for node in 0..3 {
            world.take(&Step::Tell { node }, &mut never);
            world.take(&Step::Digest { node }, &mut never);
        }
        for _ in 0..=ASKS_MAX {
            world.take(&Step::Ask, &mut never);
        }
        prop_assert!(world.table.in_sync());
        let state = world.table.state(&channel(), 1000);
        prop_assert_eq!(names(&state.members), world.there());
        prop_assert_eq!(state.sessions as usize, world.there().len());
        let users: BTreeSet<_> = state.members.iter().map(|m| m.user.clone()).filter(|user| !user.is_empty()).collect();
        prop_assert_eq!(state.users as usize, users.len());
        world.watcher.hear(&mut world.table);
        prop_assert_eq!(&world.watcher.there, &world.there());
    }

    #[test]
    fn without_losses_nobody_is_ever_asked(steps in proptest::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            // A node that starts anew or dies is asked for good reasons.
            if !matches!(step, Step::Restart { .. } | Step::Die { .. } | Step::Doubt) {
                world.take(step, &mut || false);
                prop_assert!(world.table.in_sync(), "{:?}", step);
            }
        }
    }
}

#[test]
fn a_session_that_moves_makes_no_event() {
    let (mut table, mut watcher, now) = (Table::default(), Watcher::default(), Instant::now());
    let (mut a, mut b) = (Local::new(node(1), 1, now), Local::new(node(2), 1, now));
    a.enter(&session(1), None);
    a.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(1)), now));
    watcher.hear(&mut table);
    assert_eq!(watcher.there.len(), 1);
    b.enter(&session(1), None);
    b.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(2), change, Some(birth(2)), now));
    a.leave(&session(1), now);
    a.gone(now);
    a.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(1)), now));
    assert_eq!(table.event(&channel(), 1000), None);
    table.lives(&lives([(2, 2)]), now);
    assert_eq!(table.event(&channel(), 1000), None, "the node that it left may die");
    table.lives(&lives([]), now);
    assert_eq!(table.event(&channel(), 1000).unwrap().left.len(), 1);
}

#[test]
fn a_node_that_is_never_seen_to_live_is_no_ghost() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut late = Local::new(node(1), 1, now);
    late.enter(&session(1), None);
    late.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, None, now));
    assert_eq!(table.len(), 1);
    assert_eq!(table.asks_at(PATIENCE), Some(now + PATIENCE));
    assert_eq!(table.unanswered(PATIENCE, now + PATIENCE), []);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_node_that_was_thought_dead_is_asked_when_it_is_back() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut local = Local::new(node(1), 1, now);
    local.enter(&session(1), None);
    local.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(1)), now));
    table.lives(&lives([]), now);
    assert_eq!(table.len(), 0);
    table.lives(&lives([(1, 2)]), now);
    assert_eq!(table.unanswered(PATIENCE, now), [node(1)]);
    local.tell_whole_at(now);
    local.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(2)), now));
    assert_eq!((table.len(), table.in_sync()), (1, true));
}

#[test]
fn the_last_word_of_a_node_that_left_is_not_that_of_the_next_of_its_name() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut old = Local::new(node(1), 1, now);
    old.enter(&session(1), None);
    // Heard after it was known to have left, and before another one came.
    old.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, None, now));
    table.lives(&lives([(1, 2)]), now);
    for asked in 0..ASKS_MAX {
        assert_eq!(table.unanswered(PATIENCE, now + asked * ANSWER_WITHIN), [node(1)]);
    }
    table.unanswered(PATIENCE, now + ASKS_MAX * ANSWER_WITHIN);
    assert_eq!((table.len(), table.in_sync()), (0, true));
}

#[test]
fn what_a_node_said_in_a_life_before_is_not_heard_late() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut old = Local::new(node(1), 10, now);
    old.enter(&session(1), None);
    let mut new = Local::new(node(1), 21, now);
    new.enter(&session(2), None);
    for (local, there) in [(&mut old, 0), (&mut new, 1)] {
        for change in local.tell(CHUNK, now) {
            table.apply(&node(1), &change, Some(Birth { number: 2, started: 20 }), now);
        }
        assert_eq!((table.len(), table.in_sync()), (there, true));
    }
}

#[test]
fn a_node_that_began_anew_under_a_clock_set_back_is_believed() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut old = Local::new(node(1), 1000, now);
    old.enter(&session(1), None);
    old.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(1)), now));
    table.lives(&lives([(1, 2)]), now);
    let mut new = Local::new(node(1), 10, now);
    new.enter(&session(2), None);
    new.tell(CHUNK, now).iter().for_each(|change| table.apply(&node(1), change, Some(birth(2)), now));
    assert_eq!(names(&table.state(&channel(), 10).members), BTreeSet::from([session(2).as_str().to_owned()]));
    assert!(table.in_sync());
}

#[test]
fn a_crowd_is_told_by_its_counts_alone() {
    let mut table = Table::default();
    for n in 0..5 {
        table.add(&session(n), user(n).as_ref());
    }
    let state = table.state(&channel(), 4);
    assert_eq!((state.sessions, state.users, state.complete, state.members.len()), (5, 3, false, 0));
    let event = table.event(&channel(), 4).unwrap();
    assert_eq!((event.sessions, event.users, event.joined.len()), (5, 3, 0));
    table.remove(&session(0));
    let event = table.event(&channel(), 4).unwrap();
    assert_eq!((event.sessions, event.left.len()), (4, 0), "whoever was not told of 5 cannot know which 4 are left");
    let state = table.state(&channel(), 4);
    assert_eq!((state.complete, state.members.len()), (true, 4));
    assert_eq!(table.event(&channel(), 4), None);
    table.remove(&session(1));
    assert_eq!(table.event(&channel(), 4).unwrap().left.len(), 1);
}

#[test]
fn answers_of_several_nodes_are_one_state() {
    let now = Instant::now();
    let (mut a, mut b) = (Local::new(node(1), 1, now), Local::new(node(2), 1, now));
    for n in 0..8 {
        a.enter(&session(n), user(n).as_ref());
        b.enter(&session(n + 4), user(n + 4).as_ref());
    }
    let answers: Vec<_> = a.answer(CHUNK).into_iter().chain(b.answer(CHUNK)).collect();
    assert_eq!(answers.len(), 6, "three messages of each");
    let state = merged(&channel(), &answers, 100);
    assert_eq!((state.sessions, state.complete, state.members.len()), (12, true, 12));
}
