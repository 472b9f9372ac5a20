//! The instances of one service on this node: who takes what, who has room, who is next. No I/O, no clock.
//!
//! What always holds: an instance never has more in flight than its limit at the time of [`Pool::take`], and gets only
//! what it takes. Among those with room, the one with the fewest in flight is next; among equals, the one that waited
//! longest, so that instances which keep up share evenly and a slow one gets what it manages.

use std::{collections::HashSet, sync::Arc};

/// An attached stream, unique within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InstanceId(pub(crate) u64);

/// The instances of one service.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    places: Vec<Place>,
    /// Grows with every take; the order of `served`.
    turn: u64,
}

#[derive(Debug)]
struct Place {
    id: InstanceId,
    takes: HashSet<Arc<str>>,
    max: u32,
    in_flight: u32,
    /// The turn of its last delivery.
    served: u64,
}

impl Place {
    fn free(&self) -> u32 {
        self.max.saturating_sub(self.in_flight)
    }
}

impl Pool {
    /// Adds an instance that takes these types (full names) and at most `max` deliveries at once.
    pub(crate) fn add(&mut self, id: InstanceId, takes: HashSet<Arc<str>>, max: u32) {
        self.places.push(Place { id, takes, max, in_flight: 0, served: 0 });
    }

    /// Takes an instance out; returns how much it has in flight. 0 if it is not there.
    pub(crate) fn remove(&mut self, id: InstanceId) -> u32 {
        let place = self.places.iter().position(|place| place.id == id);
        place.map_or(0, |place| self.places.swap_remove(place).in_flight)
    }

    /// Changes an instance's limit. What is in flight above a lower one stays in flight; 0 pauses it.
    pub(crate) fn resize(&mut self, id: InstanceId, max: u32) {
        if let Some(place) = self.places.iter_mut().find(|place| place.id == id) {
            place.max = max;
        }
    }

    /// The instance for the next delivery of `message_type`, its credit taken; `None` if none has room.
    pub(crate) fn take(&mut self, message_type: &str) -> Option<InstanceId> {
        let next = self.places.iter_mut().filter(|place| place.free() > 0 && place.takes.contains(message_type));
        let next = next.min_by_key(|place| (place.in_flight, place.served))?;
        self.turn += 1;
        next.in_flight += 1;
        next.served = self.turn;
        Some(next.id)
    }

    /// Gives up to `count` credits back; returns how many. An instance that is gone has none to give.
    pub(crate) fn release(&mut self, id: InstanceId, count: u32) -> u32 {
        let Some(place) = self.places.iter_mut().find(|place| place.id == id) else { return 0 };
        let count = count.min(place.in_flight);
        place.in_flight -= count;
        count
    }

    /// How many deliveries of `message_type` the instances have room for.
    pub(crate) fn free(&self, message_type: &str) -> u32 {
        let takers = self.places.iter().filter(|place| place.takes.contains(message_type));
        takers.fold(0, |free, place| free.saturating_add(place.free()))
    }

    /// Every type that some instance takes.
    pub(crate) fn types(&self) -> HashSet<Arc<str>> {
        self.places.iter().flat_map(|place| place.takes.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const A: InstanceId = InstanceId(1);
    const B: InstanceId = InstanceId(2);

    fn takes(types: &[&str]) -> HashSet<Arc<str>> {
        types.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn instances_take_turns() {
        let mut pool = Pool::default();
        pool.add(A, takes(&["t"]), 10);
        pool.add(B, takes(&["t"]), 10);
        let turns: Vec<_> = (0..4).filter_map(|_| pool.take("t")).collect();
        assert_eq!(turns, [A, B, A, B]);
    }

    #[test]
    fn a_slow_instance_gets_what_it_manages() {
        let mut pool = Pool::default();
        pool.add(A, takes(&["t"]), 2);
        pool.add(B, takes(&["t"]), 2);
        let mut got = HashMap::<_, u32>::new();
        for _ in 0..100 {
            let next = pool.take("t").expect("B always has room");
            *got.entry(next).or_default() += 1;
            if next == B {
                pool.release(B, 1);
            }
        }
        assert_eq!((got[&A], got[&B]), (1, 99));
    }

    #[test]
    fn each_gets_only_what_it_takes() {
        let mut pool = Pool::default();
        pool.add(A, takes(&["t", "u"]), 1);
        pool.add(B, takes(&["t"]), 5);
        assert_eq!((pool.free("t"), pool.free("u"), pool.free("v")), (6, 1, 0));
        assert_eq!((pool.take("u"), pool.take("u"), pool.take("v")), (Some(A), None, None));
        assert_eq!(pool.take("t"), Some(B));
        assert_eq!((pool.remove(A), pool.remove(A)), (1, 0));
        assert_eq!(pool.types(), takes(&["t"]));
    }

    #[test]
    fn a_limit_of_zero_pauses_and_a_larger_one_resumes() {
        let mut pool = Pool::default();
        pool.add(A, takes(&["t"]), 1);
        assert_eq!(pool.take("t"), Some(A));
        pool.resize(A, 0);
        pool.release(A, 1);
        assert_eq!((pool.free("t"), pool.take("t")), (0, None));
        pool.resize(A, 2);
        assert_eq!((pool.free("t"), pool.take("t")), (2, Some(A)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u64, u32),
        Remove(u64),
        Resize(u64, u32),
        Take,
        Release(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u64, 0..4_u32).prop_map(|(id, max)| Step::Add(id, max)),
            (0..4_u64).prop_map(Step::Remove),
            (0..4_u64, 0..4_u32).prop_map(|(id, max)| Step::Resize(id, max)),
            Just(Step::Take),
            Just(Step::Take),
            (0..4_u64).prop_map(Step::Release),
        ]
    }

    proptest! {
        /// Against a model that only counts.
        #[test]
        fn no_instance_is_given_more_than_its_credit(steps in prop::collection::vec(step(), 0..200)) {
            let mut pool = Pool::default();
            let mut model = HashMap::<u64, (u32, u32)>::new(); // id -> (max, in flight)
            for step in steps {
                match step {
                    Step::Add(id, max) => {
                        if let std::collections::hash_map::Entry::Vacant(place) = model.entry(id) {
                            place.insert((max, 0));
                            pool.add(InstanceId(id), takes(&["t"]), max);
                        }
                    }
                    Step::Remove(id) => {
                        model.remove(&id);
                        pool.remove(InstanceId(id));
                    }
                    Step::Resize(id, max) => {
                        if let Some(place) = model.get_mut(&id) {
                            place.0 = max;
                        }
                        pool.resize(InstanceId(id), max);
                    }
                    Step::Take => match pool.take("t") {
                        Some(InstanceId(id)) => {
                            let place = model.get_mut(&id).expect("an instance that is there");
                            prop_assert!(place.1 < place.0);
                            place.1 += 1;
                        }
                        None => prop_assert!(model.values().all(|(max, used)| used >= max)),
                    },
                    Step::Release(id) => {
                        if let Some(place) = model.get_mut(&id) {
                            place.1 = place.1.saturating_sub(1);
                        }
                        pool.release(InstanceId(id), 1);
                    }
                }
                let free: u32 = model.values().map(|(max, used)| max.saturating_sub(*used)).sum();
                prop_assert_eq!(pool.free("t"), free);
            }
        }
    }
}
