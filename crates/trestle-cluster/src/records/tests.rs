//! What is written when, and a store of two nodes as a model.

use std::collections::HashMap as Map;

use proptest::prelude::*;

use super::*;

const LIFETIMES: Lifetimes = Lifetimes { active: Duration::from_secs(600), pending: Duration::from_secs(70) };

fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

fn session(n: u128) -> SessionId {
    SessionId::new(&node("a"), n)
}

fn record(n: u128, state: v1::SessionState, address: &str) -> v1::SessionRecord {
    v1::SessionRecord {
        session_id: session(n).as_str().into(),
        state: state.into(),
        address: address.into(),
        ..v1::SessionRecord::default()
    }
}

fn active(n: u128, address: &str) -> v1::SessionRecord {
    record(n, v1::SessionState::Active, address)
}

fn decode(write: &Write) -> v1::SessionRecord {
    v1::SessionRecord::decode(write.value.clone()).unwrap()
}

struct Bench {
    records: Records,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { records: Records::new(node("a"), LIFETIMES), now: Instant::now() }
    }

    fn note(&mut self, record: v1::SessionRecord) {
        let session = SessionId::parse(&record.session_id).unwrap();
        self.records.note(session, record, self.now);
    }

    fn next(&mut self) -> Option<Write> {
        self.records.next(self.now, SystemTime::UNIX_EPOCH + Duration::from_secs(1))
    }

    fn after(&mut self, wait: Duration) -> &mut Self {
        self.now += wait;
        self
    }

    fn end(&mut self, n: u128) -> oneshot::Receiver<Result<bool, BusError>> {
        let (told, heard) = oneshot::channel();
        self.records.end(&session(n), told, self.now);
        heard
    }
}

#[test]
fn many_changes_at_once_are_one_write() {
    let mut bench = Bench::new();
    for at in ["1", "2", "3"] {
        bench.note(active(1, at));
    }
    assert!(bench.next().is_none(), "more may come");
    assert_eq!(bench.records.next_at(bench.now), Some(bench.now + GATHER));
    let write = bench.after(GATHER).next().unwrap();
    let record = decode(&write);
    assert_eq!((record.address.as_str(), record.node.as_str(), record.epoch), ("3", "a", FIRST_EPOCH));
    assert!(record.written.is_some());
    assert_eq!((write.expected, write.ttl), (0, LIFETIMES.active));
    assert!(bench.next().is_none());
    assert_eq!(bench.records.dirty(), 1, "until it is stored");
    bench.records.wrote(&write, 5, bench.now);
    assert_eq!(bench.records.dirty(), 0);
}

#[test]
fn whoever_flushes_does_not_wait_for_more_changes() {
    let mut bench = Bench::new();
    bench.note(active(1, "1"));
    bench.records.flushing += 1;
    assert!(bench.next().is_some());
}

#[test]
fn what_changes_while_it_is_written_is_written_again_on_top() {
    let mut bench = Bench::new();
    bench.note(active(1, "1"));
    let write = bench.after(GATHER).next().unwrap();
    bench.note(active(1, "2"));
    assert!(bench.after(GATHER).next().is_none(), "one at a time");
    bench.records.wrote(&write, 5, bench.now);
    let write = bench.next().unwrap();
    assert_eq!((write.expected, decode(&write).address.as_str()), (5, "2"));
}

#[test]
fn a_record_is_written_again_before_half_its_life_is_over() {
    let mut bench = Bench::new();
    bench.note(active(1, "1"));
    let write = bench.after(GATHER).next().unwrap();
    bench.records.wrote(&write, 5, bench.now);
    let at = bench.records.next_at(bench.now).unwrap();
    assert!(at > bench.now + LIFETIMES.active / 3 && at <= bench.now + LIFETIMES.active / 2);
    bench.now = at;
    let write = bench.next().unwrap();
    assert_eq!(write.expected, 5);
    bench.records.wrote(&write, 6, bench.now);
    assert!(bench.next().is_none());
    assert!(bench.records.next_at(bench.now).is_some());
}

#[test]
fn a_session_that_waits_for_its_client_is_written_once_and_kept_for_its_window() {
    let mut bench = Bench::new();
    bench.note(record(1, v1::SessionState::Pending, "1"));
    let write = bench.after(GATHER).next().unwrap();
    assert_eq!(write.ttl, LIFETIMES.pending);
    bench.records.wrote(&write, 5, bench.now);
    assert_eq!(bench.records.next_at(bench.now), None);
}

#[test]
fn what_another_node_has_claimed_is_forgotten() {
    let mut bench = Bench::new();
    bench.note(active(1, "1"));
    let write = bench.after(GATHER).next().unwrap();
    assert!(bench.records.found(&write, Found::Theirs, bench.now));
    assert_eq!((bench.records.len(), bench.records.dirty()), (0, 0));
}

#[test]
fn what_has_expired_is_written_anew() {
    let mut bench = Bench::new();
    bench.note(active(1, "1"));
    let write = bench.after(GATHER).next().unwrap();
    bench.records.wrote(&write, 5, bench.now);
    bench.note(active(1, "2"));
    let write = bench.after(GATHER).next().unwrap();
    assert_eq!(write.expected, 5);
    assert!(!bench.records.found(&write, Found::Nothing, bench.now));
    assert_eq!(bench.next().unwrap().expected, 0);
}

#[test]
fn an_ended_session_stays_ended() {
    let mut bench = Bench::new();
    let mut heard = bench.end(1);
    bench.note(active(1, "late"));
    let write = bench.next().expect("at once");
    assert_eq!(decode(&write).state(), v1::SessionState::Expired);
    assert!(write.ttl > GRACE, "longer than a young token lives without a record");
    bench.note(active(1, "later"));
    bench.records.wrote(&write, 5, bench.now);
    assert!(heard.try_recv().unwrap().unwrap(), "it was this node's");
    assert_eq!((bench.records.len(), bench.records.dirty()), (0, 0));
}

#[test]
fn the_end_of_a_session_that_went_elsewhere_is_no_end() {
    let mut bench = Bench::new();
    let mut heard = bench.end(1);
    let write = bench.next().unwrap();
    assert!(bench.records.found(&write, Found::Theirs, bench.now));
    assert!(!heard.try_recv().unwrap().unwrap());
}

#[test]
fn an_end_that_cannot_be_written_is_told_and_tried_again() {
    let mut bench = Bench::new();
    let mut heard = bench.end(1);
    let write = bench.next().unwrap();
    bench.records.failed(&write, &BusError::Away, bench.now);
    assert!(heard.try_recv().unwrap().is_err());
    bench.records.flushing += 1;
    assert!(bench.next().is_none(), "not at once, however much somebody waits");
    let write = bench.after(RETRY).next().unwrap();
    assert_eq!(decode(&write).state(), v1::SessionState::Expired);
}

#[test]
fn a_claim_does_not_undo_an_end() {
    let mut bench = Bench::new();
    let _heard = bench.end(1);
    let write = bench.next().unwrap();
    let claimed = v1::SessionRecord { epoch: 2, ..active(1, "1") };
    assert!(!bench.records.claimed(&session(1), claimed, 9, true, bench.now));
    bench.records.found(&write, Found::Ours { revision: 9, epoch: 2, expired: false }, bench.now);
    let write = bench.next().unwrap();
    assert_eq!((write.expected, decode(&write).state(), decode(&write).epoch), (9, v1::SessionState::Expired, 2));
}

#[test]
fn a_claim_of_a_session_that_is_here_keeps_what_is_known_here() {
    let mut bench = Bench::new();
    bench.note(active(1, "newer"));
    assert!(bench.records.claimed(
        &session(1),
        v1::SessionRecord { epoch: 2, ..active(1, "older") },
        9,
        true,
        bench.now
    ));
    let write = bench.after(GATHER).next().unwrap();
    assert_eq!((write.expected, decode(&write).address.as_str(), decode(&write).epoch), (9, "newer", 2));
}

#[test]
fn a_session_that_comes_back_is_not_what_it_was_when_it_left() {
    let mut bench = Bench::new();
    bench.note(record(1, v1::SessionState::Pending, "before"));
    let write = bench.after(GATHER).next().unwrap();
    bench.records.wrote(&write, 5, bench.now);
    assert!(bench.records.claimed(
        &session(1),
        v1::SessionRecord { epoch: 3, ..active(1, "now") },
        9,
        false,
        bench.now
    ));
    let write = bench.after(GATHER).next().unwrap();
    assert_eq!((write.expected, write.ttl, &*decode(&write).address), (9, LIFETIMES.active, "now"));
}

#[test]
fn what_was_found_before_a_session_came_back_means_nothing() {
    let mut bench = Bench::new();
    bench.note(active(1, "before"));
    let write = bench.after(GATHER).next().unwrap();
    let back = v1::SessionRecord { epoch: 3, ..active(1, "now") };
    assert!(bench.records.claimed(&session(1), back, 9, false, bench.now));
    assert!(!bench.records.found(&write, Found::Theirs, bench.now), "it is here");
    let write = bench.next().unwrap();
    assert_eq!((write.expected, &*decode(&write).address), (9, "now"));
}

#[test]
fn after_a_break_all_are_written_again_but_not_at_once() {
    let mut bench = Bench::new();
    let many = 3 * u128::from(REWRITES_PER_SECOND);
    for n in 0..many {
        bench.records.claimed(&session(n), active(n, "1"), 1, false, bench.now);
    }
    bench.records.rewrite_all(bench.now);
    for (second, least) in [(0, 0), (1, many / 3 - 1), (2, 2 * many / 3 - 1), (3, many)] {
        let now = bench.now + Duration::from_secs(second);
        while bench.records.next(now, SystemTime::UNIX_EPOCH).is_some() {}
        let written = bench.records.dirty() as u128;
        assert!(written >= least && written <= least + 2, "{second} {written}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Note(u128, u8),
    End(u128),
    /// The node itself claims, as for a client that resumes where it was.
    ClaimHere(u128),
    /// Another node claims.
    ClaimThere(u128),
    Forget(u128),
    Expire(u128),
    Wait,
    /// A write that was begun is stored, or its answer is lost, or the bus is away.
    Finish(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..3_u128;
    prop_oneof![
        6 => (n.clone(), any::<u8>()).prop_map(|(n, value)| Step::Note(n, value)),
        1 => n.clone().prop_map(Step::End),
        2 => n.clone().prop_map(Step::ClaimHere),
        1 => n.clone().prop_map(Step::ClaimThere),
        1 => n.clone().prop_map(Step::Forget),
        1 => n.prop_map(Step::Expire),
        3 => Just(Step::Wait),
        8 => any::<u8>().prop_map(Step::Finish),
    ]
}

/// The Kv, one node's records, and the writes that it has begun.
struct World {
    bench: Bench,
    kv: Map<SessionId, (v1::SessionRecord, u64)>,
    revision: u64,
    begun: Vec<Write>,
}

impl World {
    fn set(&mut self, session: SessionId, record: v1::SessionRecord) -> u64 {
        self.revision += 1;
        self.kv.insert(session, (record, self.revision));
        self.revision
    }

    fn begin(&mut self) {
        while let Some(write) = self.bench.next() {
            self.begun.push(write);
            let alone = |kept: &Kept, write: &Write| kept.serial == write.serial && kept.stage != Stage::Queued;
            for (session, kept) in &self.bench.records.kept {
                let now = self.begun.iter().filter(|write| write.session == *session && alone(kept, write)).count();
                assert!(now <= 1, "two writes of {session} at a time");
            }
        }
    }

    fn finish(&mut self, write: &Write, fate: u8) {
        let (session, now) = (&write.session, self.bench.now);
        let there = self.kv.get(session).cloned();
        let fits = there.as_ref().map_or(0, |(_, revision)| *revision) == write.expected;
        if fits {
            if let Some((before, _)) = &there {
                assert_eq!(before.node, "a", "another node's record was overwritten");
                let (before, after) = (before.epoch, decode(write).epoch);
                assert!(before <= after, "an epoch went back from {before} to {after}");
            }
            if fate.is_multiple_of(3) {
                return self.bench.records.failed(write, &BusError::Away, now);
            }
            let revision = self.set(session.clone(), decode(write));
            if fate % 3 == 1 {
                let lost_answer = BusError::Timeout(Duration::from_secs(3));
                return self.bench.records.failed(write, &lost_answer, now);
            }
            return self.bench.records.wrote(write, revision, now);
        }
        let found = match there {
            None => Found::Nothing,
            Some((record, revision)) if record.node == "a" => {
                let expired = record.state() == v1::SessionState::Expired;
                Found::Ours { revision, epoch: record.epoch, expired }
            }
            Some(_) => Found::Theirs,
        };
        self.bench.records.found(write, found, now);
    }

    fn claim(&mut self, n: u128, by: &str) {
        let Some((record, _)) = self.kv.get(&session(n)).cloned() else { return };
        if record.state() == v1::SessionState::Expired {
            return;
        }
        let was_ours = record.node == "a";
        let record = v1::SessionRecord { epoch: record.epoch + 1, node: by.into(), ..record };
        let revision = self.set(session(n), record.clone());
        if by == "a" {
            self.bench.records.claimed(&session(n), record, revision, was_ours, self.bench.now);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Note(n, value) => self.bench.note(active(n, &value.to_string())),
            Step::End(n) => drop(self.bench.end(n)),
            Step::ClaimHere(n) => self.claim(n, "a"),
            Step::ClaimThere(n) => self.claim(n, "b"),
            Step::Forget(n) => self.bench.records.forget(&session(n)),
            Step::Expire(n) => drop(self.kv.remove(&session(n))),
            Step::Wait => {
                self.bench.after(RETRY);
                self.begin();
            }
            Step::Finish(fate) if !self.begun.is_empty() => {
                let write = self.begun.remove(usize::from(fate) % self.begun.len());
                self.finish(&write, fate);
            }
            Step::Finish(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_claim_is_overwritten_no_epoch_goes_back_and_in_the_end_all_is_written(
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let mut world = World { bench: Bench::new(), kv: Map::new(), revision: 0, begun: Vec::new() };
        for step in &steps {
            world.take(step);
        }
        for n in 0..3 {
            world.take(&Step::Note(n, 255));
        }
        for _ in 0..20 {
            world.take(&Step::Wait);
            while let Some(write) = world.begun.pop() {
                world.finish(&write, 2);
            }
        }
        prop_assert_eq!(world.bench.records.dirty(), 0);
        for n in 0..3 {
            let there = world.kv.get(&session(n)).map(|(record, _)| record.clone());
            match (world.bench.records.kept.get(&session(n)), there) {
                (Some(_), Some(record)) => prop_assert_eq!((&*record.node, &*record.address), ("a", "255")),
                (Some(_), None) => prop_assert!(false, "a kept record is not there"),
                (None, Some(record)) => {
                    let expired = record.state() == v1::SessionState::Expired;
                    prop_assert!(expired || record.node == "b", "forgotten, and nobody else has it");
                }
                (None, None) => {}
            }
        }
    }
}
