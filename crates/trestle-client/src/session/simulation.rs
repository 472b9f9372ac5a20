//! The session against a model of the gateway, cut at random: what the program sees in the end.
//!
//! The model keeps what DESIGN.md promises and no more: frames are counted, a bounded number is kept for a resume, what is
//! beyond that is recovered from the log or told as a gap, sessions are forgotten at times, and what a client wrote is read
//! up to some point only.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use fastrand::Rng;
use tokio::sync::oneshot;

use super::{
    tests::{connected, frame, new, read, unpacked},
    *,
};
use crate::Since;

/// Keeps a history.
const LOG: &str = "room:1";
/// Keeps none.
const LIVE: &str = "live:1";
const CHANNELS: [&str; 2] = [LOG, LIVE];
/// So few that cuts often lose some.
const KEPT_FRAMES: usize = 6;

/// One session of the model.
#[derive(Default)]
struct Held {
    id: u64,
    token: u64,
    /// The frames of the session from number `first` on.
    frames: VecDeque<v1::ServerFrame>,
    first: u64,
    /// How many of them were written to the connection.
    sent: u64,
    subscribed: HashSet<String>,
    /// Of the client's frames.
    ids: HashSet<u32>,
}

impl Held {
    fn count(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    fn push(&mut self, reply_to: u32, answer: Frame) {
        self.frames.push_back(frame(reply_to, answer));
    }
}

/// A message of the program: its id, its channel, and what becomes of it.
type Published = (String, String, oneshot::Receiver<Result<Frame, Error>>);

struct World {
    rng: Rng,
    now: Instant,
    session: Session,
    pushes: Arc<Backlog<Event>>,
    listeners: HashMap<&'static str, Arc<Backlog<Event>>>,
    seen: HashMap<&'static str, Vec<Event>>,
    held: Option<Held>,
    up: bool,
    sessions: u64,
    /// On the way from the client.
    pipe: VecDeque<v1::ClientFrame>,
    /// The channel with history: ids by offset.
    log: BTreeMap<u64, String>,
    /// Ids of what was accepted on the other channel, and what was pushed.
    live: Vec<String>,
    ids: HashSet<String>,
    published: Vec<Published>,
    pushed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let (session, pushes) = new();
        let mut world = Self {
            rng: Rng::with_seed(seed),
            now: Instant::now(),
            session,
            pushes,
            listeners: HashMap::new(),
            seen: HashMap::new(),
            held: None,
            up: false,
            sessions: 0,
            pipe: VecDeque::new(),
            log: BTreeMap::new(),
            live: Vec::new(),
            ids: HashSet::new(),
            published: Vec::new(),
            pushed: 0,
        };
        world.connect();
        for channel in CHANNELS {
            let backlog = Arc::new(Backlog::new(100_000));
            let (waiter, _) = oneshot::channel();
            let since = if channel == LOG { Since::Offset(0) } else { Since::Now };
            world.session.subscribe(channel, Listen::since(since), backlog.clone(), waiter, world.now);
            world.listeners.insert(channel, backlog);
        }
        world
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..100));
        self.session.tick(self.now);
        match self.rng.u8(0..20) {
            0..=4 => self.client_writes(),
            5..=9 => self.gateway_reads(),
            10..=14 => self.gateway_writes(),
            15 => self.publish(LOG),
            16 => self.publish(LIVE),
            17 => self.somebody_else_publishes(),
            18 => self.push(),
            _ if self.up => self.cut(),
            _ => self.connect(),
        }
    }

    fn publish(&mut self, channel: &str) {
        let (answer, receiver) = oneshot::channel();
        let id = format!("mine {}", self.published.len());
        let message = Some(v1::Envelope { id: id.clone(), ..Default::default() });
        let ask = Ask::Publish(v1::Publish { channel: channel.into(), message });
        self.session.ask(ask, Repeat::Always, answer, self.now);
        self.published.push((id, channel.to_owned(), receiver));
    }

    fn client_writes(&mut self) {
        if self.up {
            self.pipe.extend(self.session.next_message(self.now).map(|message| unpacked(&message)));
        }
    }

    fn gateway_reads(&mut self) {
        let Some(v1::ClientFrame { id, frame: Some(ask) }) = self.pipe.pop_front() else { return };
        let mut held = self.held.take().expect("connected");
        assert!(id == 0 || held.ids.insert(id), "an id twice in a session");
        match ask {
            Ask::Subscribe(subscribe) => self.subscribe(&mut held, id, &subscribe),
            Ask::Unsubscribe(unsubscribe) => {
                held.subscribed.remove(&unsubscribe.channel);
                held.push(id, Frame::Unsubscribed(v1::Unsubscribed { channel: unsubscribe.channel }));
            }
            // The bus is away at times.
            Ask::Publish(_) if self.rng.u8(0..4) == 0 => {
                let error = v1::Error { reason: "bus_away".into(), retryable: true, ..Default::default() };
                held.push(id, Frame::Error(error));
            }
            Ask::Publish(publish) => {
                let message = publish.message.unwrap_or_default();
                // The one that publishes may hear it before it is told that it is accepted, or after.
                let before = self.rng.bool();
                let accepted = Frame::Accepted(v1::Accepted::default());
                if before {
                    held.push(id, accepted.clone());
                }
                self.accept(&publish.channel, message.id, Some(&mut held));
                if !before {
                    held.push(id, accepted);
                }
            }
            Ask::Ack(ack) => assert!(ack.received <= held.sent, "acks what was never written"),
            other => panic!("the program did not ask for {other:?}"),
        }
        self.held = Some(held);
    }

    fn subscribe(&mut self, held: &mut Held, id: u32, subscribe: &v1::Subscribe) {
        if !held.subscribed.insert(subscribe.channel.clone()) {
            let error = v1::Error { reason: "already_subscribed".into(), ..Default::default() };
            return held.push(id, Frame::Error(error));
        }
        let (after, offset) = match (&*subscribe.channel, &subscribe.from) {
            (LOG, Some(v1::subscribe::From::Offset(after))) => (*after, self.last()),
            (LOG, other) => panic!("loses what came before: {other:?}"),
            _ => (0, 0),
        };
        let channel = subscribe.channel.clone();
        held.push(id, Frame::Subscribed(v1::Subscribed { recovered: channel == LOG, offset, channel }));
        if subscribe.channel == LOG {
            self.recover(held, after);
        }
    }

    /// Writes what came after an offset, and at times some of what came before it: that it was had is the client's to know.
    fn recover(&mut self, held: &mut Held, after: u64) {
        let after = after.saturating_sub(self.rng.u64(0..4));
        self.log.range(after + 1..).for_each(|(offset, id)| held.push(0, self.delivery(LOG, *offset, id)));
    }

    fn delivery(&self, channel: &str, offset: u64, id: &str) -> Frame {
        let prev_offset = self.log.range(..offset).next_back().map_or(0, |(before, _)| *before);
        Frame::Delivery(v1::Envelope {
            channel: channel.into(),
            offset,
            prev_offset,
            id: id.into(),
            ..Default::default()
        })
    }

    fn last(&self) -> u64 {
        self.log.keys().next_back().copied().unwrap_or_default()
    }

    /// Takes a message once, whatever becomes of its sender, and fans it out.
    fn accept(&mut self, channel: &str, id: String, held: Option<&mut Held>) {
        if !self.ids.insert(id.clone()) {
            return;
        }
        let offset = match channel {
            LOG => {
                let offset = self.last() + self.rng.u64(1..4);
                self.log.insert(offset, id.clone());
                offset
            }
            _ => {
                self.live.push(id.clone());
                0
            }
        };
        let delivery = self.delivery(channel, offset, &id);
        if let Some(held) = held.filter(|held| held.subscribed.contains(channel)) {
            held.push(0, delivery);
        }
    }

    fn somebody_else_publishes(&mut self) {
        let id = format!("theirs {}", self.ids.len());
        let channel = CHANNELS[self.rng.usize(0..2)];
        let mut held = self.held.take();
        self.accept(channel, id, held.as_mut());
        self.held = held;
    }

    fn push(&mut self) {
        if let Some(held) = &mut self.held {
            self.pushed += 1;
            let id = format!("push {}", self.pushed);
            held.push(0, Frame::Delivery(v1::Envelope { id, ..Default::default() }));
        }
    }

    /// Writes some of what is there; the client reads it.
    fn gateway_writes(&mut self) {
        let Some(held) = self.held.as_mut().filter(|_| self.up) else { return };
        for _ in 0..self.rng.u8(1..5) {
            let Some(next) = held.frames.get((held.sent - held.first) as usize) else { break };
            held.sent += 1;
            self.session.hear(next.clone(), self.now);
        }
    }

    fn cut(&mut self) {
        self.up = false;
        self.pipe.clear();
        self.session.disconnected(Closed::broken("cut"));
        // Some of what was written to the socket never arrives.
        if let Some(held) = &mut self.held {
            for _ in 0..self.rng.u8(0..4) {
                held.sent += u64::from(held.sent < held.count());
            }
            let kept = (held.sent.saturating_sub(held.first) as usize).saturating_sub(KEPT_FRAMES);
            held.frames.drain(..kept);
            held.first += kept as u64;
        }
        if self.rng.u8(0..5) == 0 {
            self.held = None;
        }
    }

    fn connect(&mut self) {
        let (_, message) = self.session.connect(String::new());
        let Some(Ask::Connect(connect)) = unpacked(&message).frame else { panic!("no connect") };
        self.up = true;
        let held = self.held.take();
        let resume = connect.resume.as_ref();
        let (answer, held) = match (held, resume) {
            (Some(held), Some(resume)) if resume.token == held.token.to_string() => self.resume(held, resume),
            _ => self.begin(),
        };
        self.held = Some(held);
        self.session.connected(&answer, self.now);
    }

    fn begin(&mut self) -> (v1::Connected, Held) {
        self.sessions += 1;
        // Counts need not begin with zero.
        let first = self.rng.u64(0..100);
        let held = Held { id: self.sessions, token: self.rng.u64(..), first, sent: first, ..Held::default() };
        (Self::answer(&held, false), held)
    }

    fn resume(&mut self, mut held: Held, resume: &v1::Resume) -> (v1::Connected, Held) {
        held.token = self.rng.u64(..);
        let received = resume.received.expect("counts");
        assert!(received <= held.sent, "has not had what was never written");
        let mut by_count = true;
        if received >= held.first {
            held.sent = received;
        } else {
            // Too much was let go: each channel that the client names is recovered by itself, all else is lost.
            (held.first, held.sent, by_count) = (0, 0, false);
            held.frames.clear();
            held.subscribed.clear();
            held.push(0, Frame::Gap(failover("")));
            for v1::Position { channel, offset } in resume.channels.iter().cloned() {
                let last = if channel == LOG { self.last() } else { 0 };
                let recovered = channel == LOG;
                held.push(0, Frame::Subscribed(v1::Subscribed { channel: channel.clone(), recovered, offset: last }));
                if channel == LOG {
                    self.recover(&mut held, offset);
                } else {
                    held.push(0, Frame::Gap(failover(&channel)));
                }
                held.subscribed.insert(channel);
            }
        }
        // Whatever was read was answered at once.
        let coming: HashSet<u32> = held.frames.range((held.sent - held.first) as usize..).map(|f| f.reply_to).collect();
        for id in resume.outstanding.iter().copied().filter(|id| !coming.contains(id)) {
            let error = v1::Error { reason: "answer_lost".into(), retryable: true, ..Default::default() };
            held.push(id, Frame::Error(error));
        }
        let answer = Self::answer(&held, true);
        (if by_count { answer } else { v1::Connected { subscriptions: Vec::new(), ..answer } }, held)
    }

    fn answer(held: &Held, resumed: bool) -> v1::Connected {
        let subscribed = |channel: &String| v1::Subscribed { channel: channel.clone(), ..Default::default() };
        v1::Connected {
            session_id: held.id.to_string(),
            resume_token: held.token.to_string(),
            subscriptions: held.subscribed.iter().filter(|_| resumed).map(subscribed).collect(),
            ..connected(resumed, held.sent)
        }
    }

    /// Everything that is under way arrives.
    fn settle(&mut self) {
        if !self.up {
            self.connect();
        }
        let mut quiet = 0;
        // Longer than any repeat rests.
        while quiet < 100 {
            self.now += Duration::from_millis(100);
            self.session.tick(self.now);
            self.client_writes();
            let sent = self.held.as_ref().map(|held| held.sent);
            let idle = self.pipe.is_empty();
            self.gateway_reads();
            self.gateway_writes();
            quiet = if idle && sent == self.held.as_ref().map(|held| held.sent) { quiet + 1 } else { 0 };
        }
        for (channel, backlog) in &self.listeners {
            self.seen.insert(channel, read(backlog));
        }
    }

    fn check(&mut self) {
        let log: Vec<&str> = self.log.values().map(String::as_str).collect();
        assert_eq!(ids(&self.seen[LOG]), log, "each once, in order, and none is missing");
        assert_eq!(gaps(&self.seen[LOG]), 0, "and nobody says that one is");

        let live = ids(&self.seen[LIVE]);
        let all: Vec<&str> = self.live.iter().map(String::as_str).collect();
        in_order(&live, &all);
        if gaps(&self.seen[LIVE]) == 0 {
            assert!(all.ends_with(&live), "lost without a word: {live:?} of {all:?}");
        }
        let pushes = read(&self.pushes);
        let all: Vec<String> = (1..=self.pushed).map(|number| format!("push {number}")).collect();
        in_order(&ids(&pushes), &all.iter().map(String::as_str).collect::<Vec<_>>());
        if gaps(&pushes) == 0 {
            assert_eq!(ids(&pushes).len() as u64, self.pushed, "lost without a word");
        }

        let accepted: HashSet<String> = self.log.values().chain(&self.live).cloned().collect();
        for (id, channel, answer) in &mut self.published {
            match answer.try_recv().unwrap_or_else(|_| panic!("{id} on {channel} was never answered")) {
                Ok(_) => assert!(accepted.contains(id), "{id} is accepted, and nowhere"),
                Err(error) => assert!(!matches!(error, Error::Closed(_)), "{id}: {error}"),
            }
        }
    }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().filter_map(id).collect()
}

fn id(event: &Event) -> Option<&str> {
    if let Event::Message(message) = event { Some(&message.id) } else { None }
}

fn gaps(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Gap(_))).count()
}

/// Each at most once, and in the order of `all`.
fn in_order(some: &[&str], all: &[&str]) {
    let mut rest = all.iter();
    for id in some {
        assert!(rest.any(|other| other == id), "{id} comes twice, or too early");
    }
}

#[test]
fn over_random_cuts_each_message_is_seen_once_and_in_order_and_each_question_is_answered() {
    for seed in 0..3_000 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..200 {
                world.step();
            }
            world.settle();
            world.check();
            (world.log.len(), world.sessions)
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
