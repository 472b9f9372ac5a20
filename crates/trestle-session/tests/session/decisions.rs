//! What a session decides about what a client asks for.

use std::time::Duration;

use trestle_auth::Identity;
use trestle_codec::{Frame, Page, Rejected, Since};
use trestle_session::{Action, Event, SessionConfig, State};
use trestle_wire::{
    ChannelName, CloseCode, Reason, Refusal,
    v1::{self, server_frame::Frame as Answer},
};

use crate::talk::{Talk, admitted, answers, channel, closes, connect, error, subscribe, typed, user, welcome};

#[test]
fn connect_is_answered_with_the_session() {
    let mut talk = Talk::new();
    let asked = talk.frame(7, Frame::Connect { token: Some("t".into()), resume: None });
    let admit =
        |action: &Action| matches!(action, Action::Admit { id: 7, token: Some(token), resume: None } if token == "t");
    assert!(asked.len() == 1 && admit(&asked[0]), "{asked:?}");
    let told = talk.on(admitted(Identity::default()));
    let (id, connected) = welcome(&told);
    assert_eq!((id, connected.resumed, connected.received), (7, false, 0));
    assert_eq!((connected.resume_token.as_str(), connected.resume_window.unwrap().seconds), ("again", 60));
    assert!(matches!(told.last(), Some(Action::Changed)), "the registry learns of it: {told:?}");
    assert_eq!(talk.session.state(), State::Active);
}

#[test]
fn another_first_frame_connects_by_itself_and_is_then_done() {
    let mut talk = Talk::new();
    assert!(matches!(talk.frame(7, Frame::Ping)[..], [Action::Admit { id: 0, token: None, resume: None }]));
    let told = talk.on(admitted(Identity::default()));
    assert_eq!(welcome(&told).0, 0);
    assert!(matches!(answers(&told)[..], [(7, Answer::Pong(_))]), "{told:?}");
}

#[test]
fn a_refused_client_is_told_and_parted_from() {
    for (reason, code) in [(Reason::TokenExpired, CloseCode::Unauthenticated), (Reason::BusAway, CloseCode::Restart)] {
        let mut talk = Talk::new();
        talk.frame(7, connect());
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
        (connect(), "already_connected"),
        (subscribe(staff()), "channel_subscribe"),
        (Frame::Publish { channel: staff(), message: typed("chat.v1.Comment") }, "channel_publish"),
        (subscribe(channel("nowhere:1")), "unknown_namespace"),
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
    assert!(matches!(talk.frame(2, subscribe(room()))[..], [Action::Subscribe { id: 2, .. }]));
    assert_eq!(error(&talk.frame(3, subscribe(room()))).1, "already_subscribed");
    assert!(answers(&talk.on(Event::Subscribed { id: 2, channel: room(), result: Ok(()) })).is_empty());
    assert_eq!(error(&talk.frame(4, subscribe(channel("room:2")))).1, "too_many_subscriptions");
    let left = talk.frame(5, Frame::Unsubscribe { channel: room() });
    assert!(matches!(left[..], [Action::Unsubscribe { id: 5, .. }]), "{left:?}");
    assert_eq!(error(&talk.frame(6, Frame::Unsubscribe { channel: room() })).1, "not_subscribed");
    let told = talk.on(Event::Unsubscribed { id: 5, channel: room() });
    assert!(matches!(answers(&told)[..], [(5, Answer::Unsubscribed(_))]), "{told:?}");
    assert_eq!(error(&talk.frame(8, Frame::Unsubscribe { channel: room() })).1, "not_subscribed");
    assert!(matches!(talk.frame(9, subscribe(room()))[..], [Action::Subscribe { id: 9, .. }]));
}

#[test]
fn a_channel_can_be_left_and_joined_anew_without_waiting() {
    let mut talk = Talk::admitted(SessionConfig { subscriptions_max: 1, ..SessionConfig::default() });
    let room = || channel("room:1");
    let (join, leave) = (|| subscribe(room()), || Frame::Unsubscribe { channel: room() });
    for (id, frame) in [(2, join()), (3, leave()), (4, join()), (5, leave()), (6, join())] {
        let asked = talk.frame(id, frame);
        assert!(matches!(asked[..], [Action::Subscribe { .. } | Action::Unsubscribe { .. }]), "{id}: {asked:?}");
    }
    assert_eq!(error(&talk.frame(7, join())).1, "already_subscribed");
    // The first join fails; what was asked for after it goes on.
    let refusal = Refusal::new(Reason::BusAway, "away");
    assert_eq!(error(&talk.on(Event::Subscribed { id: 2, channel: room(), result: Err(refusal) })).1, "bus_away");
    let heard = |talk: &Talk| talk.session.subscriptions().count();
    talk.on(Event::Unsubscribed { id: 3, channel: room() });
    talk.on(Event::Subscribed { id: 4, channel: room(), result: Ok(()) });
    assert_eq!(heard(&talk), 1);
    talk.on(Event::Unsubscribed { id: 5, channel: room() });
    assert_eq!(heard(&talk), 0, "it is asked for, and not yet listened to");
    talk.on(Event::Subscribed { id: 6, channel: room(), result: Ok(()) });
    assert_eq!(error(&talk.frame(8, join())).1, "already_subscribed", "it is listened to in the end");
    assert!(matches!(talk.frame(9, leave())[..], [Action::Unsubscribe { id: 9, .. }]));
}

#[test]
fn a_subscription_that_failed_can_be_tried_again() {
    let mut talk = Talk::admitted(SessionConfig::default());
    let room = || channel("room:1");
    talk.frame(2, subscribe(room()));
    let refusal = Refusal::new(Reason::BusAway, "away");
    assert_eq!(error(&talk.on(Event::Subscribed { id: 2, channel: room(), result: Err(refusal) })).1, "bus_away");
    assert!(matches!(talk.frame(3, subscribe(room()))[..], [Action::Subscribe { id: 3, .. }]));
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
    let stored = Ok(Answer::Accepted(v1::Accepted::default()));
    talk.on(Event::Settled { id: 5, outstanding: false, result: stored });
    assert_eq!(error(&talk.frame(6, request())).1, "too_many_requests", "nor does it give one back");
    let refusal = Refusal::new(Reason::Timeout, "late");
    assert_eq!(
        error(&talk.on(Event::Settled { id: 2, outstanding: true, result: Err(refusal) })),
        (2, "timeout".into())
    );
    assert!(matches!(talk.frame(7, request())[..], [Action::Request { .. }]));
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

#[test]
fn a_place_needs_a_history_and_watching_needs_presence() {
    let mut talk = Talk::of(SessionConfig::default(), user("ann"));
    let rows = [
        ("live:1", Since::Offset(3), false, "no_history", "subscribe.offset"),
        ("live:1", Since::Last(3), false, "no_history", "subscribe.last"),
        ("live:1", Since::Time(std::time::UNIX_EPOCH), false, "no_history", "subscribe.since"),
        ("live:1", Since::Now, true, "no_presence", "subscribe.presence"),
    ];
    for (name, since, presence, word, field) in rows {
        let told = talk.frame(4, Frame::Subscribe { channel: channel(name), since, presence });
        assert_eq!(error(&told), (4, word.into()));
        assert!(matches!(answers(&told)[..], [(_, Answer::Error(error))] if error.field == field), "{told:?}");
    }
    let asked = talk.frame(5, Frame::Subscribe { channel: channel("room:1"), since: Since::Last(3), presence: true });
    let [Action::Subscribe { since: Since::Last(3), presence: true, inbox: false, .. }] = asked[..] else {
        panic!("{asked:?}");
    };
}

#[test]
fn histories_and_presence_are_read_by_whoever_may_subscribe() {
    let mut talk = Talk::admitted(SessionConfig::default());
    let history = |name| Frame::History { channel: channel(name), page: Page::Before(0), limit: 50 };
    let presence = |name| Frame::Presence { channel: channel(name) };
    assert!(matches!(talk.frame(2, history("room:1"))[..], [Action::History { id: 2, limit: 50, .. }]));
    assert!(matches!(talk.frame(3, presence("room:1"))[..], [Action::Presence { id: 3, .. }]));
    for (frame, word) in [
        (history("live:1"), "no_history"),
        (presence("live:1"), "no_presence"),
        (history("staff:1"), "channel_subscribe"),
        (presence("staff:1"), "channel_subscribe"),
        (history("inbox"), "no_inbox"),
    ] {
        assert_eq!(error(&talk.frame(4, frame)), (4, word.into()));
    }
}

#[test]
fn the_inbox_is_the_users_own() {
    let ann = user("ann");
    let own = ChannelName::inbox(ann.user.as_ref().unwrap());
    let mut talk = Talk::of(SessionConfig::default(), ann);
    let asked = talk.frame(2, subscribe(channel("inbox")));
    assert!(matches!(&asked[..], [Action::Subscribe { channel, inbox: true, .. }] if *channel == own), "{asked:?}");
    assert_eq!(error(&talk.frame(3, subscribe(own.clone()))).1, "already_subscribed", "it has two names");
    assert_eq!(error(&talk.frame(4, subscribe(channel("inbox:bob")))).1, "no_inbox");
    let left = talk.frame(5, Frame::Unsubscribe { channel: channel("inbox") });
    assert!(matches!(&left[..], [Action::Unsubscribe { channel, .. }] if *channel == own), "{left:?}");
    let mut anonymous = Talk::admitted(SessionConfig::default());
    assert_eq!(error(&anonymous.frame(2, subscribe(channel("inbox")))).1, "no_inbox");
}

#[test]
fn acks_go_to_the_replay_and_to_the_inbox() {
    let ack = |received, inbox_offset| Frame::Ack { received, inbox_offset };
    let mut talk = Talk::of(SessionConfig::default(), user("ann"));
    assert!(matches!(talk.frame(0, ack(5, 0))[..], [Action::Acked { received: 5 }]));
    let told = talk.frame(2, ack(6, 0));
    assert!(matches!(answers(&told)[..], [(2, Answer::Accepted(_))]), "an ack with an id is answered: {told:?}");
    let asked = talk.frame(3, ack(7, 9));
    assert!(matches!(asked[..], [Action::Acked { received: 7 }, Action::AckInbox { id: 3, offset: 9 }]), "{asked:?}");
    assert_eq!(error(&Talk::admitted(SessionConfig::default()).frame(4, ack(0, 9))), (4, "no_inbox".into()));
}

#[test]
fn a_frame_that_does_not_wait_for_connected_is_told_to() {
    let mut talk = Talk::new();
    talk.frame(1, connect());
    assert_eq!(error(&talk.frame(2, Frame::Ping)), (2, "too_many_requests".into()));
    assert_eq!(welcome(&talk.on(admitted(Identity::default()))).0, 1, "the first frame is not forgotten");
}
