//! What is on its way through a room, a slice of the members at a time: a large room stalls no other.
//!
//! What always holds: everyone who was in the room when it began gets all of it, once, and nobody who came after; who
//! leaves gets the rest as it leaves. For that the members lie in this order: those who were reached, those who will be,
//! those who came since. In a room has one task at a time something on its way.

use std::sync::Arc;

use trestle_bus::Subject;
use trestle_schema::Catalogue;
use trestle_telemetry::trace::Span;
use trestle_wire::v1::server_frame::Frame;

use crate::{
    Delivered, Member,
    fanout::{Parcel, Tally},
    metrics::Metrics,
    room::Inside,
};

/// Pushes that are done in one go: 1,024 of 0.2 to 0.4 us are 0.3 ms in which a thread does nothing else.
const AT_ONCE: usize = if cfg!(test) { 8 } else { 1024 };
/// Members that are reached in one go where that is not enough for all. Each wakes its writer, and a thread of tokio has 256
/// places for tasks that are ready: when they are full, half of them, whosever they are, go behind all that wait for any
/// thread. Between two slices a thread polls about 61, so it has to be fewer than that: a room of one beside one of 50,000 on
/// one thread has a p99 of 1.3 to 1.7 ms with 32, and of 167 to 179 ms with 64 (`examples/large_room.rs`).
pub(crate) const SLICE: usize = if cfg!(test) { 4 } else { 32 };
/// Messages that go together through a large room. The writers run between two slices, so that what goes one
/// by one is also written one by one; 64 to a write are as good as any more.
pub(crate) const TOGETHER_MAX: usize = 64;

/// One parcel for many.
pub(crate) struct Load {
    parcel: Arc<Parcel>,
    /// Its part of the trace, if that is sampled.
    span: Option<Span>,
    /// Who is told what became of it.
    reply_to: Option<Subject>,
    tally: Tally,
}

/// Whom a run is for.
pub(crate) type Pick = Box<dyn Fn(&Member) -> bool + Send + Sync>;

/// Loads on their way to the members of a room.
pub(crate) struct Run {
    loads: Vec<Load>,
    catalogue: Arc<Catalogue>,
    /// `None`: all.
    pick: Option<Pick>,
    /// The first place that was not reached.
    next: usize,
    /// The first place of those who came since.
    end: usize,
}

impl Load {
    pub(crate) fn new(parcel: Arc<Parcel>, span: Option<Span>, reply_to: Option<Subject>) -> Self {
        Self { parcel, span, reply_to, tally: Tally::default() }
    }

    /// A word of the gateway's own.
    pub(crate) fn word(frame: Frame) -> Self {
        Self::new(Arc::new(Parcel::word(frame)), None, None)
    }

    /// Notes what became of it, and says whom to tell.
    fn end(self, metrics: &Metrics) -> (Option<Subject>, Delivered) {
        let count = self.tally.end(&self.parcel, metrics);
        if let Some(mut span) = self.span {
            span.set("trestle.sessions.delivered", i64::from(count.delivered));
            span.set("trestle.sessions.dropped", i64::from(count.dropped));
        }
        (self.reply_to, count)
    }
}

impl Run {
    /// In a box, as all rooms' tasks keep a place for it.
    pub(crate) fn new(loads: Vec<Load>, catalogue: Arc<Catalogue>) -> Box<Self> {
        Box::new(Self { loads, catalogue, pick: None, next: 0, end: 0 })
    }

    /// Only for those whom `pick` picks.
    pub(crate) fn only(mut self: Box<Self>, pick: Pick) -> Box<Self> {
        self.pick = Some(pick);
        self
    }

    /// Puts it all into the outbox of `member`.
    pub(crate) fn reach(&mut self, member: &Member) {
        if self.pick.as_ref().is_none_or(|pick| pick(member)) {
            for load in &mut self.loads {
                load.tally.push(&load.parcel, member, &self.catalogue);
            }
        }
    }

    /// Notes what became of it, and says whom to tell.
    pub(crate) fn end(self, metrics: &Metrics) -> impl Iterator<Item = (Option<Subject>, Delivered)> {
        self.loads.into_iter().map(|load| load.end(metrics))
    }
}

impl Inside {
    /// Whether even one message cannot reach all in one go.
    pub(crate) fn is_large(&self) -> bool {
        self.members.len() > AT_ONCE
    }

    /// Sends `run` to the first slice of those who are here; it comes back when all were reached.
    pub(crate) fn begin(&mut self, mut run: Box<Run>) -> Option<Box<Run>> {
        run.end = self.members.len();
        self.slice(run)
    }

    /// Sends what is on its way to the next slice; it comes back when all were reached.
    pub(crate) fn go_on(&mut self) -> Option<Box<Run>> {
        let run = self.run.take().expect("what has begun is here until it has come back");
        self.slice(run)
    }

    fn slice(&mut self, mut run: Box<Run>) -> Option<Box<Run>> {
        let most = AT_ONCE / run.loads.len().max(1);
        let some = if run.end <= most { run.end } else { most.clamp(1, SLICE) };
        let upto = run.end.min(run.next + some);
        self.members[run.next..upto].iter().for_each(|member| run.reach(member));
        run.next = upto;
        if upto < run.end {
            self.run = Some(run);
            return None;
        }
        Some(run)
    }

    /// Lets what is on its way reach the member at `place` before its turn; where it is now.
    pub(crate) fn reach(&mut self, place: usize) -> usize {
        let Some(run) = self.run.as_mut().filter(|run| (run.next..run.end).contains(&place)) else { return place };
        run.reach(&self.members[place]);
        let reached = run.next;
        run.next += 1;
        self.swap(place, reached);
        reached
    }

    /// Moves the member at `place`, which was reached or came since, behind all who were here; where it is now.
    pub(crate) fn move_out(&mut self, mut place: usize) -> usize {
        let Some(mut run) = self.run.take() else { return place };
        for bound in [&mut run.next, &mut run.end] {
            if place < *bound {
                *bound -= 1;
                self.swap(place, *bound);
                place = *bound;
            }
        }
        self.run = Some(run);
        place
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use proptest::prelude::*;
    use trestle_codec::Encoding;
    use trestle_schema::{SchemaSource, Schemas};
    use trestle_session::{Outbox, OutboxLimits, Taken};
    use trestle_wire::{
        NodeId, SessionId,
        v1::{Envelope, Overflow},
    };

    use super::*;

    /// Sessions that come and go: some slices of them.
    const SESSIONS: usize = 6 * SLICE;

    /// What may happen between two slices, to the session of that number.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many messages begin their way, if none is under way.
        Say(usize),
        GoOn,
        /// It joins, or another member takes its place.
        Come(usize),
        Leave(usize),
    }

    /// A room, who sits in it since when, and what was said there.
    struct House {
        inside: Inside,
        seated: Vec<Option<(Arc<Member>, u64)>>,
        catalogue: Arc<Catalogue>,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (1..=SLICE + 1).prop_map(Step::Say),
            2 => Just(Step::GoOn),
            3 => (0..SESSIONS).prop_map(Step::Come),
            2 => (0..SESSIONS).prop_map(Step::Leave),
        ]
    }

    fn member(number: usize) -> Arc<Member> {
        let session = SessionId::new(&NodeId::parse("n").unwrap(), number as u128);
        let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 1 << 20 });
        Arc::new(Member::new(session, Encoding::Protobuf, outbox))
    }

    /// The offsets in an outbox.
    fn heard(member: &Member) -> Vec<u64> {
        let mut taken = Vec::new();
        member.outbox.take(usize::MAX, &mut taken);
        let offset = |taken: &Taken| match taken {
            Taken::Frame(frame) => frame.label().map_or(0, |label| label.offset),
            Taken::Gap(gap) => panic!("nothing was dropped: {gap:?}"),
        };
        taken.iter().map(offset).collect()
    }

    impl House {
        fn new() -> Self {
            let catalogue = Schemas::open(SchemaSource::Files(Vec::new())).unwrap().current();
            Self { inside: Inside::default(), seated: vec![None; SESSIONS], catalogue }
        }

        fn load(&self, offset: u64) -> Load {
            let envelope = Envelope { offset, ..Envelope::default() };
            let parcel = Parcel::delivery(envelope, None, Overflow::Disconnect, &self.catalogue);
            Load::new(Arc::new(parcel), None, None)
        }

        /// Says `count` messages; whether all have got them at once.
        fn say(&mut self, count: usize) -> bool {
            let first = self.inside.offset + 1;
            self.inside.offset += count as u64;
            let loads = (first..=self.inside.offset).map(|offset| self.load(offset)).collect();
            self.inside.begin(Run::new(loads, Arc::clone(&self.catalogue))).is_some()
        }

        /// Everybody has got what was said while it was here, and nothing else.
        fn check(member: &Member, said: RangeInclusive<u64>) {
            assert_eq!(heard(member), said.collect::<Vec<_>>(), "{}", member.session);
        }

        fn play(&mut self, step: Step) {
            match step {
                Step::Say(count) if self.inside.run.is_none() => _ = self.say(count),
                Step::GoOn if self.inside.run.is_some() => _ = self.inside.go_on(),
                Step::Say(_) | Step::GoOn => {}
                Step::Come(number) => {
                    let new = member(number);
                    assert!(self.inside.enter(&new));
                    let before = self.seated[number].replace((new, self.inside.offset));
                    if let Some((old, since)) = before {
                        Self::check(&old, since + 1..=self.inside.offset);
                    }
                }
                Step::Leave(number) => {
                    let Some((gone, since)) = self.seated[number].take() else { return };
                    assert!(self.inside.leave(&gone));
                    Self::check(&gone, since + 1..=self.inside.offset);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn everyone_hears_what_is_said_while_it_is_there_in_order_and_once(steps in prop::collection::vec(step(), 1..200)) {
            let mut house = House::new();
            (0..SESSIONS).step_by(2).for_each(|number| house.play(Step::Come(number)));
            steps.into_iter().for_each(|step| house.play(step));
            while house.inside.run.is_some() {
                house.play(Step::GoOn);
            }
            for (member, since) in house.seated.iter().flatten() {
                House::check(member, since + 1..=house.inside.offset);
            }
        }
    }

    #[test]
    fn a_small_room_is_told_at_once_and_a_larger_one_in_slices() {
        let mut house = House::new();
        (0..AT_ONCE).for_each(|number| house.play(Step::Come(number)));
        assert!(!house.inside.is_large() && house.say(1));
        house.play(Step::Come(AT_ONCE));
        assert!(house.inside.is_large() && !house.say(1), "a slice");
        for _ in 1..AT_ONCE / SLICE {
            assert!(house.inside.go_on().is_none(), "another");
        }
        assert!(house.inside.go_on().is_some(), "and the one that is left");
    }
}
