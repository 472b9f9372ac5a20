//! What holds whatever happens, in whatever order: random lives of a session, with an owner that answers when it likes.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use proptest::prelude::*;
use trestle_auth::Identity;
use trestle_codec::{Frame, Inbound, Page, Rejected};
use trestle_session::{Action, Admitted, Event, Reattached, Resumed, SessionConfig, State};
use trestle_wire::{
    ChannelName, Reason, Refusal,
    v1::{self, UpdateSessionsRequest, server_frame::Frame as Answer},
};

use crate::talk::{Talk, channel, connect, group, reattached, resumed, subscribe, tags, typed, user};

/// Ids of frames that the session never saw.
const NEVER_SEEN: u32 = 1_000_000;
const WINDOW: Duration = Duration::from_secs(20);

/// A life of a session: what its owner has under way for it, and what must hold.
struct Life {
    talk: Talk,
    /// What the owner was asked for and has not answered.
    asked: Vec<Event>,
    /// Answers by the frame they are for.
    answers: HashMap<u32, usize>,
    /// Answers that must have come in the end, by the frame they are for.
    owed: HashMap<u32, usize>,
    joined: BTreeSet<String>,
    /// Groups that services put the session into.
    given: BTreeSet<String>,
    /// Whether its plan is `pro`, as a service says.
    pro: bool,
    admitted: bool,
    closing: bool,
    claimed: bool,
    expired: usize,
    next: u32,
}

fn identity() -> Identity {
    Identity { groups: vec![group("staff")], tags: tags([("plan", "free")]), ..user("ann") }
}

impl Life {
    fn new() -> Self {
        let rules = [("pros".to_owned(), "plan=pro".to_owned())];
        let config = SessionConfig {
            groups: rules.into(),
            resume_window: WINDOW,
            outstanding_max: 3,
            subscriptions_max: 2,
            faults_max: 3,
            ..SessionConfig::default()
        };
        Self {
            talk: Talk::with(config),
            asked: Vec::new(),
            answers: HashMap::new(),
            owed: HashMap::new(),
            joined: BTreeSet::new(),
            given: BTreeSet::new(),
            pro: false,
            admitted: false,
            closing: false,
            claimed: false,
            expired: 0,
            next: 0,
        }
    }

    fn state(&self) -> State {
        self.talk.session.state()
    }

    /// Whether a frame that comes now must be answered.
    fn hears(&self) -> bool {
        matches!(self.state(), State::Connecting | State::Active) && !self.closing
    }

    fn frame(&mut self, frame: impl FnOnce(ChannelName) -> Frame, room: u8) {
        self.next += 1;
        let id = self.next;
        if self.hears() {
            self.owed.insert(id, 1);
        }
        self.on(Event::Inbound(Inbound { id, frame: frame(channel(&format!("room:{room}"))) }));
    }

    fn on(&mut self, event: Event) {
        let (before, now) = (self.state(), self.talk.now);
        let (lost, claimed) = (matches!(event, Event::Lost), matches!(event, Event::Claimed));
        let reattached = matches!(event, Event::Reattached(_)) && self.admitted;
        let wakes = self.talk.session.wakes_at();
        let actions = self.talk.on(event);
        self.claimed |= claimed && matches!(before, State::Active | State::Pending) && self.expired == 0;
        if before == State::Expired {
            assert!(actions.is_empty(), "something is asked for after the end: {actions:?}");
        }
        if before == State::Pending && now >= wakes {
            assert!(matches!(actions[..], [Action::Expired]), "the window is over: {actions:?}");
        }
        if before == State::Active && lost {
            assert_eq!((self.state(), self.talk.session.wakes_at()), (State::Pending, now + WINDOW));
            self.closing = false;
        }
        if reattached && self.state() == State::Active {
            assert!(matches!(actions[0], Action::Welcome(_)), "a new socket is welcomed first: {actions:?}");
            self.closing = false;
        }
        for action in actions {
            self.act(action);
        }
        self.check_groups();
    }

    fn act(&mut self, action: Action) {
        assert_eq!(self.expired, 0, "something is asked for after the end: {action:?}");
        let asks = !matches!(
            action,
            Action::Welcome(_)
                | Action::Send(_)
                | Action::Close(_)
                | Action::Expired
                | Action::Changed
                | Action::Tags(_)
                | Action::JoinGroup(_)
                | Action::LeaveGroup(_)
                | Action::NotUpdated(_)
        );
        assert!(!(asks && self.closing), "something is asked for after the close: {action:?}");
        let admits = matches!(action, Action::Admit { .. } | Action::Welcome(_) | Action::Send(_) | Action::Close(_));
        assert!(self.admitted || admits, "something is done for a client that was not admitted: {action:?}");
        match action {
            Action::Send(frame) => *self.answers.entry(frame.reply_to).or_default() += 1,
            Action::Welcome(frame) => {
                self.admitted = true;
                *self.answers.entry(frame.reply_to).or_default() += 1;
            }
            Action::Admit { .. } => self.asked.push(Event::Admitted(Ok(new()))),
            Action::Subscribe { id, channel, .. } => {
                self.asked.push(Event::Subscribed { id, channel, result: Ok(()) });
            }
            Action::Unsubscribe { id, channel } => self.asked.push(Event::Unsubscribed { id, channel }),
            Action::Publish { id, .. }
            | Action::History { id, .. }
            | Action::Presence { id, .. }
            | Action::AckInbox { id, .. } => self.asked.push(settled(id, false)),
            Action::Deliver { id, handled, .. } => self.asked.push(settled(id, handled)),
            Action::Request { id, .. } => self.asked.push(settled(id, true)),
            Action::JoinGroup(group) => assert!(self.joined.insert(group.to_string()), "{group} is joined twice"),
            Action::LeaveGroup(group) => assert!(self.joined.remove(group.as_str()), "{group} was not joined"),
            Action::Close(_) => self.closing = true,
            Action::Expired => self.expired += 1,
            Action::NotUpdated(refusal) => panic!("no change here is beyond a limit: {refusal}"),
            Action::Acked { .. } | Action::Tags(_) | Action::Changed | Action::Ping => {}
        }
    }

    /// The owner answers something that it was asked for, in the order of its lane or beside it.
    fn answer(&mut self, which: u8, well: bool) {
        if self.asked.is_empty() {
            return;
        }
        // What is done in order is answered in order.
        let at = usize::from(which) % self.asked.len();
        let at = if matches!(self.asked[at], Event::Settled { outstanding: true, .. }) {
            at
        } else {
            let beside = |event: &Event| matches!(event, Event::Settled { outstanding: true, .. });
            self.asked.iter().position(|event| !beside(event)).unwrap_or(at)
        };
        let mut event = self.asked.remove(at);
        let away = || Refusal::new(Reason::BusAway, "away");
        match &mut event {
            Event::Subscribed { id, result, .. } if well => {
                // The hub's own answer.
                *self.answers.entry(*id).or_default() += usize::from(self.state() != State::Expired);
                *result = Ok(());
            }
            Event::Subscribed { result, .. } => *result = Err(away()),
            Event::Settled { result, .. } if !well => *result = Err(away()),
            _ => {}
        }
        self.on(event);
    }

    fn update(&mut self, which: u8) {
        let mut change = UpdateSessionsRequest::default();
        let known = matches!(self.state(), State::Active | State::Pending) && !self.window_is_over();
        match which {
            0 => change.join_groups.push("vip".into()),
            1 => change.leave_groups.push("vip".into()),
            2 => change.join_groups.push("staff".into()),
            3 => change.leave_groups.push("staff".into()),
            4 => _ = change.set_tags.insert("plan".into(), "pro".into()),
            _ => change.remove_tags.push("plan".into()),
        }
        if known {
            for group in &change.leave_groups {
                self.given.remove(group);
            }
            self.given.extend(change.join_groups.iter().cloned());
            self.pro = (self.pro || !change.set_tags.is_empty()) && change.remove_tags.is_empty();
        }
        self.on(Event::Update(change));
    }

    fn window_is_over(&self) -> bool {
        self.state() == State::Pending && self.talk.now >= self.talk.session.wakes_at()
    }

    fn reattach(&mut self, which: u8) {
        self.next += 1;
        let (id, known) = (self.next, matches!(self.state(), State::Active | State::Pending));
        let never = NEVER_SEEN + id;
        if known && !self.window_is_over() {
            self.owed.extend([(id, 1), (never, 1)]);
        }
        let mut lost = self.talk.session.open_frames().to_vec();
        lost.push(never);
        if which == 0 {
            lost.insert(0, 0);
        }
        let again = Reattached { identity: identity(), lost, ..reattached(id, 0) };
        self.on(Event::Reattached(Box::new(again)));
    }

    /// The session is in the groups of its token, of services and of the rule, and in no other.
    fn check_groups(&self) {
        if !self.admitted || self.expired > 0 || self.claimed {
            return;
        }
        let mut union = self.given.clone();
        union.insert("staff".into());
        if self.pro {
            union.insert("pros".into());
        }
        assert_eq!(self.joined, union);
    }

    /// The owner answers everything; then every frame has had its one answer.
    fn end(mut self) {
        while !self.asked.is_empty() {
            self.answer(0, true);
        }
        let over = self.state() == State::Expired;
        assert_eq!(self.expired, usize::from(over && self.admitted && !self.claimed));
        for (id, answers) in &self.answers {
            assert!(*id == 0 || Some(answers) <= self.owed.get(id), "frame {id} was answered {answers} times");
        }
        if !over {
            self.answers.remove(&0);
            assert_eq!(self.answers, self.owed);
            assert_eq!(self.talk.session.open_frames(), [0_u32; 0]);
        }
    }
}

fn new() -> Admitted {
    Admitted::New { identity: identity(), resume_token: "again".into() }
}

fn settled(id: u32, outstanding: bool) -> Event {
    Event::Settled { id, outstanding, result: Ok(Answer::Accepted(v1::Accepted::default())) }
}

/// One thing that happens, by two numbers.
fn step(life: &mut Life, kind: u8, which: u8) {
    match kind {
        0 => life.frame(|_| connect(), which),
        1 => life.frame(|_| Frame::Ping, which),
        2 => life.frame(subscribe, which),
        3 => life.frame(|channel| Frame::Unsubscribe { channel }, which),
        4 => life.frame(|channel| Frame::Publish { channel, message: typed("chat.v1.Comment") }, which),
        5 => life.frame(|_| Frame::Message(typed("ORDER_PAID")), which),
        6 => life.frame(|_| Frame::Request { message: typed("GET_QUOTE"), timeout: None }, which),
        7 => life.frame(|channel| Frame::History { channel, page: Page::Before(0), limit: 5 }, which),
        8 => life.frame(|channel| Frame::Presence { channel }, which),
        9 => life.frame(|_| Frame::Ack { received: 1, inbox_offset: u64::from(which) }, which),
        10 => {
            life.next += 1;
            let id = life.next;
            if life.hears() {
                life.owed.insert(id, 1);
            }
            let reason = if which == 0 { Reason::ProtocolError } else { Reason::MalformedFrame };
            life.on(Event::Rejected(Rejected { id, refusal: Refusal::new(reason, "no") }));
        }
        11 => life.on(if which == 0 { Event::Heard } else { Event::Pong }),
        12 | 13 => life.on(Event::Lost),
        14..=16 => life.reattach(which),
        17 | 18 => life.update(which),
        19..=24 => life.answer(which, true),
        25 => life.answer(which, false),
        26 => match which {
            0 => life.on(Event::Kick),
            1 => life.on(Event::Claimed),
            2 => life.on(Event::Goodbye),
            3 => life.on(Event::Drain),
            // Nobody has asked for these.
            4 => life.on(Event::Subscribed { id: 0, channel: channel("room:9"), result: Ok(()) }),
            _ if life.admitted => {
                life.on(Event::Admitted(Ok(Admitted::Resumed(Box::new(Resumed { identity: identity(), ..resumed() })))))
            }
            _ => life.on(Event::Unsubscribed { id: 0, channel: channel("room:0") }),
        },
        _ => life.on(Event::Notice(v1::DrainNotice::default())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_session_keeps_its_promises_whatever_happens(
        script in proptest::collection::vec((0..28_u8, 0..6_u8, 0..12_u64), 0..100)
    ) {
        let mut life = Life::new();
        for (kind, which, seconds) in script {
            life.talk.now += Duration::from_secs(seconds);
            // A deadline is never missed by its owner, but other things may come first.
            if which > 0 {
                life.on(Event::Tick);
            }
            step(&mut life, kind, which);
        }
        life.end();
    }
}
