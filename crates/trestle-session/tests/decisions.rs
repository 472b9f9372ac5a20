//! What a session decides, under a clock of our own.

#![allow(clippy::unwrap_used)] // a test

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use trestle_auth::{Channels, ChannelsConfig, Identity, Namespace, Who};
use trestle_codec::{Frame, Inbound, Rejected, Typed};
use trestle_schema::{Catalogue, SchemaSource};
use trestle_session::{Action, Event, Session, SessionConfig, State};
use trestle_wire::{
    ChannelName, CloseCode, NodeId, Reason, Refusal, SessionId,
    v1::{self, server_frame::Frame as Answer},
};

static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::load(&SchemaSource::examples()).expect("the examples are valid"));

/// A session and its clock.
struct Talk {
    session: Session,
    now: Instant,
}

impl Talk {
    fn with(config: SessionConfig) -> Self {
        let mut channels = ChannelsConfig::default();
        let staff = Namespace { subscribe: Who::Users, publish: Who::Nobody, history: None };
        channels.namespaces.insert("staff".into(), staff);
        let channels = Arc::new(Channels::new(&channels).unwrap());
        let (node, now) = (NodeId::parse("n").unwrap(), Instant::now());
        let id = SessionId::new(&node, 1);
        Self { session: Session::new(id, node, 65_536, Arc::new(config), channels, now), now }
    }

    fn new() -> Self {
        Self::with(SessionConfig::default())
    }

    /// Already admitted, as an anonymous client.
    fn admitted(config: SessionConfig) -> Self {
        let mut talk = Self::with(config);
        talk.frame(1, Frame::Connect { token: None });
        talk.on(Event::Admitted(Ok(Identity::default())));
        talk
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.session.on(event, self.now, &mut actions);
        actions
    }

    fn frame(&mut self, id: u32, frame: Frame) -> Vec<Action> {
        self.on(Event::Inbound(Inbound { id, frame }))
    }

    fn after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.on(Event::Tick)
    }
}

fn typed(name: &str) -> Typed {
    let kind = Arc::clone(CATALOGUE.resolve(name, "").expect("an example"));
    let envelope = v1::Envelope { message_type: kind.full_name().into(), ..v1::Envelope::default() };
    Typed { envelope, kind }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

/// The answers among `actions`, with the frame they answer.
fn answers(actions: &[Action]) -> Vec<(u32, &Answer)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(frame) => Some((frame.reply_to, frame.frame.as_ref()?)),
            _ => None,
        })
        .collect()
}

/// The word of the only error among `actions`, with the frame it answers.
fn error(actions: &[Action]) -> (u32, String) {
    match answers(actions)[..] {
        [(id, Answer::Error(error))] => (id, error.reason.clone()),
        ref other => panic!("not one error: {other:?}"),
    }
}

fn closes(actions: &[Action]) -> Option<CloseCode> {
    actions.iter().find_map(|action| match action {
        Action::Close(code) => Some(*code),
        _ => None,
    })
}

#[test]
fn connect_is_answered_with_the_session() {
    let mut talk = Talk::new();
    let asked = talk.frame(7, Frame::Connect { token: Some("t".into()) });
    assert!(matches!(&asked[..], [Action::Admit { token: Some(token) }] if token == "t"), "{asked:?}");
    let told = talk.on(Event::Admitted(Ok(Identity::default())));
    assert!(matches!(answers(&told)[..], [(7, Answer::Connected(_))]), "{told:?}");
    assert_eq!(talk.session.state(), State::Active);
}

#[test]
fn another_first_frame_connects_by_itself_and_is_then_done() {
    let mut talk = Talk::new();
    assert!(matches!(talk.frame(7, Frame::Ping)[..], [Action::Admit { token: None }]));
    let told = talk.on(Event::Admitted(Ok(Identity::default())));
    assert!(matches!(answers(&told)[..], [(0, Answer::Connected(_)), (7, Answer::Pong(_))]), "{told:?}");
}

#[test]
fn a_refused_client_is_told_and_parted_from() {
    for (reason, code) in [(Reason::TokenExpired, CloseCode::Unauthenticated), (Reason::BusAway, CloseCode::Restart)] {
        let mut talk = Talk::new();
        talk.frame(7, Frame::Connect { token: None });
        let told = talk.on(Event::Admitted(Err(Refusal::new(reason, "no"))));
        assert_eq!(error(&told), (7, reason.row().word.into()));
        assert_eq!(closes(&told), Some(code));
        assert!(talk.frame(8, Frame::Ping).is_empty(), "nothing is done after the close");
    }
}

#[test]
fn what_may_not_be_is_refused_by_its_reason() {
    let staff = || channel("staff:1");
    let rows = [
        (Frame::Connect { token: None }, "already_connected"),
        (Frame::Subscribe { channel: staff() }, "channel_subscribe"),
        (Frame::Publish { channel: staff(), message: typed("chat.v1.Comment") }, "channel_publish"),
        (Frame::Subscribe { channel: channel("nowhere:1") }, "unknown_namespace"),
        (Frame::Unsubscribe { channel: channel("room:1") }, "not_subscribed"),
        (Frame::Message(typed("chat.v1.Comment")), "no_route"),
        (Frame::Request { message: typed("chat.v1.Comment"), timeout: None }, "no_route"),
    ];
    for (frame, word) in rows {
        // With an id and without: an error always comes.
        for id in [0, 9] {
            let told = Talk::admitted(SessionConfig::default()).frame(id, frame.clone());
            assert_eq!(error(&told), (id, word.into()));
        }
    }
}

#[test]
fn a_channel_is_listened_to_once_and_left_once() {
    let mut talk = Talk::admitted(SessionConfig { subscriptions_max: 1, ..SessionConfig::default() });
    let room = || channel("room:1");
    assert!(matches!(talk.frame(2, Frame::Subscribe { channel: room() })[..], [Action::Subscribe { id: 2, .. }]));
    assert_eq!(error(&talk.frame(3, Frame::Subscribe { channel: room() })).1, "already_subscribed");
    assert!(talk.on(Event::Subscribed { id: 2, channel: room(), result: Ok(()) }).is_empty());
    assert_eq!(error(&talk.frame(4, Frame::Subscribe { channel: channel("room:2") })).1, "too_many_subscriptions");
    let left = talk.frame(5, Frame::Unsubscribe { channel: room() });
    assert!(matches!(left[..], [Action::Unsubscribe { id: 5, .. }]), "{left:?}");
    assert_eq!(error(&talk.frame(6, Frame::Unsubscribe { channel: room() })).1, "not_subscribed");
    let told = talk.on(Event::Unsubscribed { id: 5, channel: room() });
    assert!(matches!(answers(&told)[..], [(5, Answer::Unsubscribed(_))]), "{told:?}");
    assert_eq!(error(&talk.frame(8, Frame::Unsubscribe { channel: room() })).1, "not_subscribed");
    assert!(matches!(talk.frame(9, Frame::Subscribe { channel: room() })[..], [Action::Subscribe { id: 9, .. }]));
}

#[test]
fn a_channel_can_be_left_and_joined_anew_without_waiting() {
    let mut talk = Talk::admitted(SessionConfig { subscriptions_max: 1, ..SessionConfig::default() });
    let room = || channel("room:1");
    let (join, leave) = (|| Frame::Subscribe { channel: room() }, || Frame::Unsubscribe { channel: room() });
    for (id, frame) in [(2, join()), (3, leave()), (4, join()), (5, leave()), (6, join())] {
        let asked = talk.frame(id, frame);
        assert!(matches!(asked[..], [Action::Subscribe { .. } | Action::Unsubscribe { .. }]), "{id}: {asked:?}");
    }
    assert_eq!(error(&talk.frame(7, join())).1, "already_subscribed");
    // The first join fails; what was asked for after it goes on.
    let refusal = Refusal::new(Reason::BusAway, "away");
    assert_eq!(error(&talk.on(Event::Subscribed { id: 2, channel: room(), result: Err(refusal) })).1, "bus_away");
    talk.on(Event::Unsubscribed { id: 3, channel: room() });
    talk.on(Event::Subscribed { id: 4, channel: room(), result: Ok(()) });
    talk.on(Event::Unsubscribed { id: 5, channel: room() });
    talk.on(Event::Subscribed { id: 6, channel: room(), result: Ok(()) });
    assert_eq!(error(&talk.frame(8, join())).1, "already_subscribed", "it is listened to in the end");
    assert!(matches!(talk.frame(9, leave())[..], [Action::Unsubscribe { id: 9, .. }]));
}

#[test]
fn a_subscription_that_failed_can_be_tried_again() {
    let mut talk = Talk::admitted(SessionConfig::default());
    let room = || channel("room:1");
    talk.frame(2, Frame::Subscribe { channel: room() });
    let refusal = Refusal::new(Reason::BusAway, "away");
    assert_eq!(error(&talk.on(Event::Subscribed { id: 2, channel: room(), result: Err(refusal) })).1, "bus_away");
    assert!(matches!(talk.frame(3, Frame::Subscribe { channel: room() })[..], [Action::Subscribe { id: 3, .. }]));
}

#[test]
fn requests_and_waits_have_places_and_give_them_back() {
    let mut talk = Talk::admitted(SessionConfig { outstanding_max: 2, ..SessionConfig::default() });
    let request = || Frame::Request { message: typed("GET_QUOTE"), timeout: None };
    assert!(matches!(talk.frame(2, request())[..], [Action::Request { .. }]));
    assert!(matches!(talk.frame(3, Frame::Message(typed("ORDER_PAID")))[..], [Action::Deliver { handled: true, .. }]));
    assert_eq!(error(&talk.frame(4, request())).1, "too_many_requests");
    // What waits for nobody takes no place.
    let update = talk.frame(5, Frame::Message(typed("INVENTORY_UPDATED")));
    assert!(matches!(update[..], [Action::Deliver { handled: false, .. }]), "{update:?}");
    let refusal = Refusal::new(Reason::Timeout, "late");
    assert_eq!(
        error(&talk.on(Event::Settled { id: 2, outstanding: true, result: Err(refusal) })),
        (2, "timeout".into())
    );
    assert!(matches!(talk.frame(6, request())[..], [Action::Request { .. }]));
}

#[test]
fn a_requests_timeout_is_the_clients_within_the_gateways() {
    let config = SessionConfig::default();
    for (asked, given) in [
        (None, config.request_timeout),
        (Some(Duration::from_secs(1)), Duration::from_secs(1)),
        (Some(Duration::from_secs(3600)), config.request_timeout_max),
    ] {
        let mut talk = Talk::admitted(config.clone());
        let told = talk.frame(2, Frame::Request { message: typed("GET_QUOTE"), timeout: asked });
        assert!(matches!(told[..], [Action::Request { timeout, .. }] if timeout == given), "{told:?}");
    }
}

#[test]
fn a_frame_without_an_id_is_not_answered_when_it_succeeds() {
    let mut talk = Talk::admitted(SessionConfig::default());
    let accepted = || Ok(Answer::Accepted(v1::Accepted::default()));
    assert!(talk.on(Event::Settled { id: 0, outstanding: false, result: accepted() }).is_empty());
    assert_eq!(talk.on(Event::Settled { id: 3, outstanding: false, result: accepted() }).len(), 1);
    let refused = Ok(Answer::Error(v1::Error { reason: "sold_out".into(), ..v1::Error::default() }));
    let told = talk.on(Event::Settled { id: 0, outstanding: true, result: refused });
    assert_eq!(error(&told), (0, "sold_out".into()), "a service's own refusal is told");
}

#[test]
fn a_silent_client_is_pinged_and_then_parted_from() {
    let config = SessionConfig::default();
    let mut talk = Talk::admitted(config.clone());
    assert!(talk.after(config.ping_interval - Duration::from_millis(1)).is_empty());
    assert!(matches!(talk.after(Duration::from_millis(1))[..], [Action::Ping]));
    talk.on(Event::Heard);
    assert!(matches!(talk.after(config.ping_interval)[..], [Action::Ping]));
    assert_eq!(closes(&talk.after(config.pong_timeout)), Some(CloseCode::Heartbeat));
}

#[test]
fn pongs_do_not_prolong_the_time_to_connect() {
    let config = SessionConfig::default();
    let mut talk = Talk::with(config.clone());
    talk.now += config.connect_timeout / 2;
    talk.on(Event::Heard);
    let told = talk.after(config.connect_timeout / 2);
    assert_eq!(error(&told).1, "connect_timeout");
    assert_eq!(closes(&told), Some(CloseCode::ConnectTimeout));
}

#[test]
fn too_many_faults_in_a_row_end_the_connection() {
    let mut talk = Talk::admitted(SessionConfig { faults_max: 3, ..SessionConfig::default() });
    let fault = || Event::Rejected(Rejected { id: 0, refusal: Refusal::new(Reason::MalformedFrame, "no") });
    talk.on(fault());
    talk.on(fault());
    talk.frame(5, Frame::Ping);
    assert_eq!((closes(&talk.on(fault())), closes(&talk.on(fault()))), (None, None), "a good frame starts anew");
    assert_eq!(closes(&talk.on(fault())), Some(CloseCode::TooManyFaults));
}

/// What may happen to a session, by a number; `id` names the frame.
fn something(kind: u8, id: u32, room: u8) -> Event {
    let room = channel(&format!("room:{room}"));
    let inbound = |frame| Event::Inbound(Inbound { id, frame });
    match kind {
        0 => inbound(Frame::Connect { token: None }),
        1 => inbound(Frame::Ping),
        2 => inbound(Frame::Subscribe { channel: room }),
        3 => inbound(Frame::Unsubscribe { channel: room }),
        4 => inbound(Frame::Publish { channel: room, message: typed("chat.v1.Comment") }),
        5 => inbound(Frame::Message(typed("ORDER_PAID"))),
        6 => inbound(Frame::Request { message: typed("GET_QUOTE"), timeout: None }),
        7 => Event::Rejected(Rejected { id, refusal: Refusal::new(Reason::MalformedFrame, "no") }),
        8 => Event::Heard,
        9 => Event::Tick,
        _ => Event::Drain,
    }
}

proptest! {
    #[test]
    fn every_frame_with_an_id_is_answered_exactly_once(
        script in proptest::collection::vec((0..10_u8, 0..3_u8, 0..4_u64), 0..60)
    ) {
        let mut talk = Talk::new();
        let mut counts = std::collections::HashMap::<u32, usize>::new();
        for (number, (kind, room, seconds)) in script.into_iter().enumerate() {
            let id = u32::try_from(number).unwrap() + 1;
            talk.now += Duration::from_secs(seconds);
            let before = talk.session.state();
            let mut events = vec![something(kind, id, room)];
            let mut closed = false;
            // The owner's part: everything asked for succeeds at once.
            while let Some(event) = events.pop() {
                for action in talk.on(event) {
                    prop_assert!(!closed, "something is asked for after the close");
                    match action {
                        Action::Send(frame) => *counts.entry(frame.reply_to).or_default() += 1,
                        Action::Admit { .. } => events.push(Event::Admitted(Ok(Identity::default()))),
                        Action::Subscribe { id, channel } => {
                            *counts.entry(id).or_default() += 1;
                            events.push(Event::Subscribed { id, channel, result: Ok(()) });
                        }
                        Action::Publish { id, .. } => events.push(settled(id, false)),
                        Action::Deliver { id, handled, .. } => events.push(settled(id, handled)),
                        Action::Request { id, .. } => events.push(settled(id, true)),
                        Action::Close(_) => closed = true,
                        Action::Unsubscribe { id, channel } => events.push(Event::Unsubscribed { id, channel }),
                        Action::Ping => {}
                    }
                }
            }
            let expected = usize::from(before != State::Closed && kind < 8);
            prop_assert_eq!(counts.get(&id).copied().unwrap_or(0), expected, "kind {}", kind);
        }
    }
}

fn settled(id: u32, outstanding: bool) -> Event {
    Event::Settled { id, outstanding, result: Ok(Answer::Accepted(v1::Accepted::default())) }
}
