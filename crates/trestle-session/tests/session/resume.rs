//! Sessions that outlive their sockets.

use std::time::Duration;

use trestle_codec::{Frame, Rejected};
use trestle_session::{Action, Admitted, Event, Reattached, Resumed, SessionConfig, State, survives};
use trestle_wire::{
    CloseCode, Reason, Refusal,
    v1::{self, server_frame::Frame as Answer},
};

use crate::talk::{
    Talk, answers, channel, closes, connect, error, errors, expires, reattached, resumed, subscribe, typed, welcome,
};

const TICK: Duration = Duration::from_millis(1);

fn lost() -> Talk {
    let mut talk = Talk::admitted(SessionConfig::default());
    assert!(matches!(talk.on(Event::Lost)[..], [Action::Changed]), "the registry learns of it");
    assert_eq!(talk.session.state(), State::Pending);
    talk
}

fn request() -> Frame {
    Frame::Request { message: typed("GET_QUOTE"), timeout: None }
}

fn reply(id: u32) -> Event {
    Event::Settled { id, outstanding: true, result: Ok(Answer::Reply(v1::Envelope::default())) }
}

#[test]
fn a_session_without_a_socket_ends_exactly_at_its_window() {
    let (mut talk, window) = (lost(), SessionConfig::default().resume_window);
    assert_eq!(talk.session.wakes_at(), talk.now + window);
    assert!(talk.after(window - TICK).is_empty());
    let told = talk.after(TICK);
    assert!(matches!(told[..], [Action::Expired]), "{told:?}");
    assert_eq!(talk.session.state(), State::Expired);
    assert!(talk.after(window).is_empty(), "it ends once");
}

#[test]
fn a_client_that_comes_after_the_window_finds_the_session_ended() {
    let mut talk = lost();
    talk.now += SessionConfig::default().resume_window;
    let told = talk.on(Event::Reattached(Box::new(reattached(9, 3))));
    assert!(matches!(told[..], [Action::Expired]), "{told:?}");
}

#[test]
fn a_client_that_comes_back_is_welcomed_and_heard_anew() {
    let (mut talk, config) = (lost(), SessionConfig::default());
    talk.now += config.resume_window - TICK;
    let room = v1::Subscribed { channel: "room:1".into(), recovered: true, offset: 4 };
    let again = Reattached { subscriptions: vec![room.clone()], ..reattached(9, 3) };
    let told = talk.on(Event::Reattached(Box::new(again)));
    let (id, connected) = welcome(&told);
    assert_eq!((id, connected.resumed, connected.received, connected.subscriptions), (9, true, 3, vec![room]));
    assert_eq!((connected.resume_token.as_str(), talk.session.state()), ("once more", State::Active));
    assert!(talk.after(config.ping_interval - TICK).is_empty(), "the heartbeat begins anew");
    assert!(matches!(talk.after(TICK)[..], [Action::Ping]));
}

#[test]
fn a_session_whose_socket_still_lives_takes_another() {
    let mut talk = Talk::admitted(SessionConfig { faults_max: 2, ..SessionConfig::default() });
    let fault = || Event::Rejected(Rejected { id: 0, refusal: Refusal::new(Reason::MalformedFrame, "no") });
    talk.on(fault());
    let told = talk.on(Event::Reattached(Box::new(reattached(9, 0))));
    assert_eq!(welcome(&told).0, 9);
    assert_eq!(closes(&talk.on(fault())), None, "faults of the old socket are not held against the new one");
}

#[test]
fn a_silent_client_is_parted_from_and_may_come_back() {
    let config = SessionConfig::default();
    let mut talk = Talk::admitted(config.clone());
    talk.after(config.ping_interval);
    assert!(matches!(talk.after(config.pong_timeout)[..], [Action::Close(CloseCode::Heartbeat)]));
    assert!(talk.after(config.pong_timeout).is_empty() && talk.frame(2, Frame::Ping).is_empty(), "it is asked once");
    talk.on(Event::Lost);
    assert_eq!(talk.session.state(), State::Pending);
    let told = talk.on(Event::Reattached(Box::new(reattached(9, 0))));
    assert!(welcome(&told).1.resumed);
    assert!(matches!(answers(&talk.frame(3, Frame::Ping))[..], [(3, Answer::Pong(_))]), "it is heard again");
}

#[test]
fn a_node_that_stops_leaves_the_session_resumable() {
    let mut talk = Talk::admitted(SessionConfig::default());
    assert!(matches!(talk.on(Event::Drain)[..], [Action::Close(CloseCode::Restart)]));
    talk.on(Event::Lost);
    assert_eq!(talk.session.state(), State::Pending);
    assert!(talk.on(Event::Drain).is_empty());
}

#[test]
fn without_a_window_a_lost_socket_is_the_end() {
    let mut talk = Talk::admitted(SessionConfig { resume_window: Duration::ZERO, ..SessionConfig::default() });
    let told = talk.on(Event::Lost);
    assert!(expires(&told), "{told:?}");
}

#[test]
fn a_client_that_says_goodbye_is_gone_for_good() {
    for mut talk in [Talk::admitted(SessionConfig::default()), lost()] {
        let told = talk.on(Event::Goodbye);
        assert!(matches!(told[..], [Action::Expired]), "{told:?}");
    }
    let mut nobody = Talk::new();
    assert!(nobody.on(Event::Goodbye).is_empty(), "nobody was admitted");
    assert_eq!(nobody.session.state(), State::Expired);
}

#[test]
fn a_kicked_session_ends_with_and_without_a_socket() {
    let told = Talk::admitted(SessionConfig::default()).on(Event::Kick);
    assert!(matches!(told[..], [Action::Close(CloseCode::Kicked), Action::Expired]), "{told:?}");
    assert!(matches!(lost().on(Event::Kick)[..], [Action::Expired]));
}

#[test]
fn a_session_that_goes_on_elsewhere_ends_without_a_word() {
    let mut active = Talk::admitted(SessionConfig::default());
    assert!(matches!(active.on(Event::Claimed)[..], [Action::Close(CloseCode::Replaced)]));
    let mut pending = lost();
    assert!(pending.on(Event::Claimed).is_empty());
    for mut talk in [active, pending] {
        assert_eq!(talk.session.state(), State::Expired);
        assert!(talk.on(Event::Goodbye).is_empty());
    }
}

#[test]
fn a_close_code_after_which_clients_reconnect_by_themselves_is_survived_by_what_was_admitted() {
    for code in CloseCode::ALL {
        let before_admission = matches!(code, CloseCode::ConnectTimeout | CloseCode::Busy);
        assert_eq!(survives(code), code.reconnect() && !before_admission, "{code:?}");
    }
}

#[test]
fn answers_come_also_while_there_is_no_socket_and_only_once() {
    let mut talk = Talk::admitted(SessionConfig::default());
    talk.frame(2, request());
    talk.frame(3, request());
    talk.frame(4, subscribe(channel("room:1")));
    talk.on(Event::Lost);
    assert_eq!(talk.session.open_frames(), [2, 3, 4]);
    assert!(matches!(answers(&talk.on(reply(2)))[..], [(2, Answer::Reply(_))]));
    talk.on(Event::Subscribed { id: 4, channel: channel("room:1"), result: Ok(()) });
    let seen: Vec<bool> = [1, 2, 3, 4, 5].map(|id| talk.session.saw(id)).into();
    assert_eq!(seen, [false, true, true, true, false], "connect is not among them");
    // 3 still waits: saying that its answer is lost would be a second answer.
    let again = Reattached { lost: vec![3, 5], ..reattached(9, 0) };
    let told = talk.on(Event::Reattached(Box::new(again)));
    assert_eq!(errors(&told), [(5, "answer_lost".into())]);
    assert!(matches!(answers(&talk.on(reply(3)))[..], [(3, Answer::Reply(_))]));
    assert_eq!(talk.session.open_frames(), [0_u32; 0]);
}

#[test]
fn a_client_that_has_come_back_is_asked_for_a_word_and_unheard_until_it_gives_one() {
    let fault = || Event::Rejected(Rejected { id: 0, refusal: Refusal::new(Reason::MalformedFrame, "no") });
    let ping = || Event::Inbound(trestle_codec::Inbound { id: 0, frame: Frame::Ping });
    for word in [fault, ping, || Event::Pong] {
        let mut talk = Talk::admitted(SessionConfig::default());
        assert!(!talk.session.is_unheard(), "it has no earlier token");
        talk.on(Event::Lost);
        let told = talk.on(Event::Reattached(Box::new(reattached(9, 0))));
        assert!(told.iter().any(|action| matches!(action, Action::Ping)), "{told:?}");
        talk.on(Event::Heard);
        assert!(talk.session.is_unheard(), "a ping of its own may be older than what it was sent");
        assert!(matches!(talk.on(word()).last(), Some(Action::Changed)), "the registry learns of it");
        assert!(!talk.session.is_unheard());
        assert!(!matches!(talk.on(Event::Pong).last(), Some(Action::Changed)), "once");
    }
}

#[test]
fn an_answer_that_was_told_as_lost_is_not_told_again() {
    let mut talk = lost();
    let again = || Reattached { lost: vec![5], ..reattached(9, 0) };
    assert_eq!(errors(&talk.on(Event::Reattached(Box::new(again())))), [(5, "answer_lost".into())]);
    assert!(talk.session.saw(5) && !talk.session.is_open(5), "who asks for it again gets it from what was written");
}

#[test]
fn frames_that_were_answered_elsewhere_are_not_open_here() {
    let mut talk = Talk::new();
    talk.frame(5, connect());
    let from_elsewhere = Resumed { outstanding: vec![7], answered: vec![8], ..resumed() };
    talk.on(Event::Admitted(Ok(Admitted::Resumed(Box::new(from_elsewhere)))));
    assert_eq!(talk.session.open_frames(), [7]);
    assert!(talk.session.saw(8), "a resume that names it gets it from what was written");
}

#[test]
fn a_channel_that_is_about_to_end_is_not_kept() {
    let (mut talk, room) = (Talk::admitted(SessionConfig::default()), channel("room:1"));
    let joined = |id| Event::Subscribed { id, channel: channel("room:1"), result: Ok(()) };
    talk.frame(2, subscribe(room.clone()));
    talk.on(joined(2));
    assert!(talk.session.keeps(&room));
    talk.frame(3, Frame::Unsubscribe { channel: room.clone() });
    talk.frame(4, subscribe(room.clone()));
    assert!(!talk.session.keeps(&room), "it is another seat that it will have");
    talk.on(Event::Unsubscribed { id: 3, channel: room.clone() });
    talk.on(joined(4));
    assert!(talk.session.keeps(&room));
}

#[test]
fn a_request_keeps_its_place_while_there_is_no_socket() {
    let mut talk = Talk::admitted(SessionConfig { outstanding_max: 1, ..SessionConfig::default() });
    talk.frame(2, request());
    talk.on(Event::Lost);
    talk.on(Event::Reattached(Box::new(reattached(9, 0))));
    assert_eq!(error(&talk.frame(3, request())).1, "too_many_requests");
    talk.on(reply(2));
    assert!(matches!(talk.frame(4, request())[..], [Action::Request { id: 4, .. }]));
}

#[test]
fn a_session_from_elsewhere_goes_on_under_its_own_name() {
    let mut talk = Talk::new();
    talk.frame(5, connect());
    let (kept, live) = (channel("room:1"), channel("room:2"));
    let told = v1::Subscribed { channel: "room:1".into(), recovered: true, offset: 4 };
    let from_elsewhere = Resumed {
        received: 41,
        subscriptions: vec![(kept.clone(), told.clone())],
        joining: vec![live.clone()],
        refused: vec![(channel("room:3"), Refusal::new(Reason::ChannelSubscribe, "no"))],
        lost: vec![7, 8],
        outstanding: vec![8],
        ..resumed()
    };
    let id = from_elsewhere.session.clone();
    let actions = talk.on(Event::Admitted(Ok(Admitted::Resumed(Box::new(from_elsewhere)))));
    let (reply_to, connected) = welcome(&actions);
    assert_eq!((reply_to, connected.session_id, connected.received), (5, id.to_string(), 41));
    assert_eq!((connected.resumed, connected.subscriptions), (true, vec![told]));
    assert_eq!(errors(&actions), [(0, "channel_subscribe".into()), (7, "answer_lost".into())], "8 is on its way");
    assert_eq!((talk.session.id(), talk.session.is_open(8)), (&id, true));
    assert_eq!(talk.session.subscriptions().collect::<Vec<_>>(), [&kept]);
    assert_eq!(error(&talk.frame(9, subscribe(live.clone()))).1, "already_subscribed");
    talk.on(Event::Subscribed { id: 0, channel: live.clone(), result: Ok(()) });
    assert_eq!(talk.session.subscriptions().count(), 2);
    assert!(matches!(talk.frame(10, Frame::Unsubscribe { channel: kept })[..], [Action::Unsubscribe { .. }]));
}

#[test]
fn a_channel_that_cannot_be_joined_again_is_told() {
    let mut talk = Talk::new();
    talk.frame(5, connect());
    let room = channel("room:1");
    let from_elsewhere = Resumed { joining: vec![room.clone()], ..resumed() };
    talk.on(Event::Admitted(Ok(Admitted::Resumed(Box::new(from_elsewhere)))));
    let refusal = Refusal::new(Reason::BusAway, "away");
    let told = talk.on(Event::Subscribed { id: 0, channel: room.clone(), result: Err(refusal) });
    assert_eq!(error(&told), (0, "bus_away".into()));
    assert!(matches!(talk.frame(6, subscribe(room))[..], [Action::Subscribe { .. }, ..]), "it can be tried again");
}

#[test]
fn what_the_registry_says_is_renewed_when_it_is_old() {
    let mut talk = Talk::admitted(SessionConfig::default());
    let changes = |actions: Vec<Action>| matches!(actions.last(), Some(Action::Changed));
    let room = channel("room:1");
    assert!(!changes(talk.frame(2, subscribe(room.clone()))), "it is not listened to yet");
    assert!(changes(talk.on(Event::Subscribed { id: 2, channel: room.clone(), result: Ok(()) })));
    talk.frame(3, Frame::Unsubscribe { channel: room.clone() });
    assert!(changes(talk.on(Event::Unsubscribed { id: 3, channel: room })));
    assert!(!changes(talk.on(Event::Heard)) && !changes(talk.frame(4, Frame::Ping)));
    assert!(changes(talk.on(Event::Lost)));
    assert!(changes(talk.on(Event::Reattached(Box::new(reattached(9, 0))))));
}

#[test]
fn a_client_is_asked_to_leave_only_where_it_hears_it() {
    let notice = || Event::Notice(v1::DrainNotice::default());
    let mut talk = Talk::admitted(SessionConfig::default());
    assert!(matches!(answers(&talk.on(notice()))[..], [(0, Answer::Draining(_))]));
    assert!(lost().on(notice()).is_empty());
    assert!(Talk::new().on(notice()).is_empty());
}
