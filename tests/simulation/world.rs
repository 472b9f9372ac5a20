//! The truth that all nodes of a simulated cluster share, and what happens on the way to it.
//!
//! One queue of events in virtual time: what a node asks arrives a little later, what it is told comes a little later
//! still, both in their order, as on one connection of a real bus. A link can be cut: then what is under way is lost, and
//! whether it was done is not known; after it is mended, subscriptions are told that they lost something.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use trestle_bus::{BusError, BusState, Entry, Feed, KvEvent, Message, Place, Subject};

use crate::{judge::Judge, stream::Stream};

/// What happens at a moment.
type Event = Box<dyn FnOnce(&mut State) + Send>;

/// How long a call waits for an answer that was lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// The truth.
pub(crate) struct World {
    state: Mutex<State>,
    wake: Notify,
}

/// Everything that there is.
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) judge: Arc<Mutex<Judge>>,
    /// How nasty it is at the moment.
    pub(crate) weather: Weather,
    events: BTreeMap<(Instant, u64), Event>,
    counted: u64,
    pub(crate) links: BTreeMap<u64, Wire>,
    pub(crate) listening: BTreeMap<u64, Listening>,
    pub(crate) inboxes: HashMap<Subject, (u64, mpsc::Sender<Bytes>)>,
    pub(crate) streams: BTreeMap<String, Stream>,
    pub(crate) facts: BTreeMap<String, Fact>,
    revision: u64,
    pub(crate) watches: BTreeMap<u64, Watching>,
}

/// What goes wrong without a link being cut.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// Most milliseconds that a message takes, most of the time.
    pub(crate) delay_ms: u64,
    /// Of a thousand messages, how many take up to a second.
    pub(crate) late: u64,
    /// Of a thousand calls, how many are done without an answer.
    pub(crate) unanswered: u64,
    /// Of a thousand reads of a log, how many are answered by a replica that is behind.
    pub(crate) behind: u64,
    /// Of a thousand stored messages, how many a node is never told of: the bus carries them at most once.
    pub(crate) untold: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FAIR: Self = Self { delay_ms: 1, late: 0, unanswered: 0, behind: 0, untold: 0 };
}

/// A node's connection to the bus.
pub(crate) struct Wire {
    pub(crate) name: String,
    up: bool,
    /// Counts connections.
    generation: u64,
    state: BusState,
    /// A channel for each who asked, so that they are told in the same order each time.
    told: Vec<watch::Sender<BusState>>,
    /// What was said last arrives then.
    asks_until: Instant,
    /// What was told last arrives then.
    told_until: Instant,
}

/// A subscription.
pub(crate) struct Listening {
    pub(crate) link: u64,
    pub(crate) pattern: Subject,
    pub(crate) group: Option<String>,
    pub(crate) feed: Feed,
}

/// A key's value.
pub(crate) struct Fact {
    pub(crate) entry: Entry,
    pub(crate) expires: Option<Instant>,
}

/// Who watches keys.
pub(crate) struct Watching {
    pub(crate) link: u64,
    pub(crate) prefix: String,
    pub(crate) tell: mpsc::Sender<KvEvent>,
    /// What happened while the link was cut.
    pub(crate) missed: Vec<KvEvent>,
}

impl Wire {
    fn tell(&mut self, state: BusState) {
        self.state = state;
        self.told.retain(|one| !one.is_closed());
        self.told.iter().for_each(|one| _ = one.send_replace(state));
    }
}

impl World {
    /// A world in which nothing has happened.
    pub(crate) fn new(seed: u64, judge: Arc<Mutex<Judge>>) -> Arc<Self> {
        let state = State {
            rng: Rng::with_seed(seed),
            judge,
            weather: Weather::FAIR,
            events: BTreeMap::new(),
            counted: 0,
            links: BTreeMap::new(),
            listening: BTreeMap::new(),
            inboxes: HashMap::new(),
            streams: BTreeMap::new(),
            facts: BTreeMap::new(),
            revision: 0,
            watches: BTreeMap::new(),
        };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new() })
    }

    /// Lets things happen, for ever.
    pub(crate) async fn turn(self: Arc<Self>) {
        loop {
            let next = self.state.lock().happen();
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Holds it still while `look` looks at it or changes it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.state.lock());
        self.wake.notify_one();
        result
    }

    /// Does `what` where the truth is, for the node at `link`, and gives what came of it.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        link: u64,
        what: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, BusError> {
        let (tell, told) = oneshot::channel();
        self.with(|state| state.ask(link, what, tell))?;
        told.await.unwrap_or(Err(BusError::Away))
    }

    /// Hands `message` to the bus for the node at `link`.
    pub(crate) fn say(&self, link: u64, message: Message) -> Result<(), BusError> {
        self.with(|state| {
            let (generation, due) = state.departs(link)?;
            state.at(due, move |state| {
                if state.is(link, generation) {
                    state.route(message);
                }
            });
            Ok(())
        })
    }
}

impl State {
    /// Does what is due; when the next is.
    fn happen(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(next) = self.events.first_entry() {
            if next.key().0 > now {
                return Some(next.key().0);
            }
            next.remove()(self);
        }
        None
    }

    /// Something that will happen.
    pub(crate) fn at(&mut self, due: Instant, event: impl FnOnce(&mut Self) + Send + 'static) {
        self.counted += 1;
        self.events.insert((due, self.counted), Box::new(event));
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.counted += 1;
        self.counted
    }

    pub(crate) fn revise(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Whether it happens, of a thousand times so often.
    pub(crate) fn chance(&mut self, of_a_thousand: u64) -> bool {
        of_a_thousand > 0 && self.rng.u64(0..1000) < of_a_thousand
    }

    fn delay(&mut self) -> Duration {
        let late = self.chance(self.weather.late);
        Duration::from_millis(if late { self.rng.u64(0..1000) } else { self.rng.u64(0..=self.weather.delay_ms) })
    }

    /// When what the node says now arrives, on which of its connections.
    fn departs(&mut self, link: u64) -> Result<(u64, Instant), BusError> {
        let delay = self.delay();
        let wire = self.links.get_mut(&link).filter(|wire| wire.up).ok_or(BusError::Away)?;
        wire.asks_until = wire.asks_until.max(Instant::now() + delay);
        Ok((wire.generation, wire.asks_until))
    }

    /// When what the node is told now arrives, on which of its connections; `None` if that is cut.
    pub(crate) fn arrives(&mut self, link: u64) -> Option<(u64, Instant)> {
        let delay = self.delay();
        let wire = self.links.get_mut(&link).filter(|wire| wire.up)?;
        wire.told_until = wire.told_until.max(Instant::now() + delay);
        Some((wire.generation, wire.told_until))
    }

    /// Whether the link is still that connection.
    pub(crate) fn is(&self, link: u64, generation: u64) -> bool {
        self.links.get(&link).is_some_and(|wire| wire.up && wire.generation == generation)
    }

    pub(crate) fn is_up(&self, link: u64) -> bool {
        self.links.get(&link).is_some_and(|wire| wire.up)
    }

    fn ask<T: Send + 'static>(
        &mut self,
        link: u64,
        what: impl FnOnce(&mut Self) -> T + Send + 'static,
        tell: oneshot::Sender<Result<T, BusError>>,
    ) -> Result<(), BusError> {
        let (generation, due) = self.departs(link)?;
        self.at(due, move |state| {
            if !state.is(link, generation) {
                let _gone = tell.send(Err(if state.rng.bool() { BusError::Away } else { BusError::Timeout(PATIENCE) }));
                return;
            }
            let result = what(state);
            let answer = state.arrives(link).filter(|_| !state.chance(state.weather.unanswered));
            let Some((generation, due)) = answer else {
                return state.at(Instant::now() + PATIENCE, move |_| {
                    let _gone = tell.send(Err(BusError::Timeout(PATIENCE)));
                });
            };
            state.at(due, move |state| {
                let whole = state.is(link, generation);
                let _gone = tell.send(if whole { Ok(result) } else { Err(BusError::Timeout(PATIENCE)) });
            });
        });
        Ok(())
    }

    /// Gives `message` to whoever listens; how many do.
    pub(crate) fn route(&mut self, message: Message) -> usize {
        if let Some((link, answers)) = self.inboxes.get(&message.subject).cloned() {
            if let Some((generation, due)) = self.arrives(link) {
                self.at(due, move |state| {
                    if state.is(link, generation) {
                        let _enough = answers.try_send(message.payload);
                    }
                });
            }
            return 1;
        }
        if message.place.is_none() {
            self.judge.lock().said(&message);
        }
        let hears = |one: &Listening| trestle_bus::pattern::matches(one.pattern.as_str(), message.subject.as_str());
        let mut hearing: Vec<(u64, u64)> = Vec::new();
        let mut groups: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for (id, one) in self.listening.iter().filter(|(_, one)| hears(one)) {
            match &one.group {
                None => hearing.push((*id, one.link)),
                Some(group) => groups.entry(group.clone()).or_default().push((*id, one.link)),
            }
        }
        for members in groups.into_values() {
            hearing.push(members[self.rng.usize(0..members.len())]);
        }
        let count = hearing.len();
        for (id, link) in hearing {
            let message = message.clone();
            if message.place.is_some() && self.chance(self.weather.untold) {
                continue;
            }
            let Some((generation, due)) = self.arrives(link) else { continue };
            self.at(due, move |state| {
                let whole = state.is(link, generation);
                if let Some(one) = state.listening.get(&id).filter(|_| whole) {
                    one.feed.push(message);
                }
            });
        }
        count
    }

    /// Publishes what a log has stored.
    pub(crate) fn republish(&mut self, subject: Subject, place: Place, payload: Bytes) {
        self.route(Message { subject, reply_to: None, payload, place: Some(place) });
    }
}

/// Links.
impl State {
    /// A node connects.
    pub(crate) fn connect(&mut self, name: &str) -> u64 {
        let (link, now) = (self.number(), Instant::now());
        let (name, state, told) = (name.to_owned(), BusState::Connected(1), Vec::new());
        self.links.insert(link, Wire { name, up: true, generation: 1, state, told, asks_until: now, told_until: now });
        link
    }

    pub(crate) fn bus_state(&mut self, link: u64) -> watch::Receiver<BusState> {
        let wire = self.links.get_mut(&link).expect("a link is kept for ever");
        let (tell, told) = watch::channel(wire.state);
        wire.told.push(tell);
        told
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, link: u64) {
        let Some(wire) = self.links.get_mut(&link).filter(|wire| wire.up) else { return };
        wire.up = false;
        wire.tell(BusState::Away);
        let (judge, name) = (Arc::clone(&self.judge), wire.name.clone());
        judge.lock().note(format!("{name}: cut off from the bus"));
        // A bus may go on telling where it stopped, or not.
        let watching: Vec<u64> = self.watches.iter().filter(|(_, one)| one.link == link).map(|(id, _)| *id).collect();
        for id in watching {
            if self.rng.u8(0..3) == 0 {
                self.watches.remove(&id);
            }
        }
    }

    /// It is there again.
    pub(crate) fn mend(&mut self, link: u64) {
        let Some(wire) = self.links.get_mut(&link).filter(|wire| !wire.up) else { return };
        if wire.state == BusState::Closed {
            return;
        }
        wire.up = true;
        wire.generation += 1;
        let generation = wire.generation;
        (wire.asks_until, wire.told_until) = (Instant::now(), Instant::now());
        wire.tell(BusState::Connected(generation));
        let name = wire.name.clone();
        self.judge.lock().note(format!("{name}: back on the bus"));
        for one in self.listening.values().filter(|one| one.link == link) {
            one.feed.lost(0);
        }
        let missed: Vec<_> = self.watches.values_mut().filter(|one| one.link == link).collect();
        for one in missed {
            for event in std::mem::take(&mut one.missed) {
                let _full = one.tell.try_send(event);
            }
        }
    }

    /// The node is gone for good: nothing of it is heard any more, nothing is told to it.
    pub(crate) fn close(&mut self, link: u64) {
        let Some(wire) = self.links.get_mut(&link) else { return };
        wire.up = false;
        wire.tell(BusState::Closed);
        self.watches.retain(|_, one| one.link != link);
        self.listening.retain(|_, one| {
            let stays = one.link != link;
            if !stays {
                one.feed.close();
            }
            stays
        });
    }

    /// Nothing is cut, and nothing goes wrong any more.
    pub(crate) fn clear_up(&mut self) {
        self.weather = Weather::FAIR;
        let links: Vec<u64> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.mend(link));
    }
}
