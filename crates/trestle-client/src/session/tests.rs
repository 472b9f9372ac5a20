use std::{sync::Arc, task::Waker, time::Duration};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::*;
use crate::Since;

const RETRY_FOR: Duration = Duration::from_secs(30);

pub(super) fn new() -> (Session, Arc<Backlog<Event>>) {
    let pushes = Arc::new(Backlog::new(10_000));
    (Session::new(pushes.clone(), RETRY_FOR), pushes)
}

pub(super) fn connected(resumed: bool, received: u64) -> v1::Connected {
    v1::Connected {
        session_id: "n.1".into(),
        resume_token: "token".into(),
        resumed,
        received,
        frame_bytes_max: 65_536,
        ..Default::default()
    }
}

/// What a message that the session wants to write holds.
pub(super) fn unpacked(message: &Message) -> v1::ClientFrame {
    let Message::Binary(bytes) = message else { panic!("not binary") };
    v1::ClientFrames::decode(bytes.clone()).expect("ClientFrames").frames.remove(0)
}

fn written(session: &mut Session, now: Instant) -> Vec<v1::ClientFrame> {
    std::iter::from_fn(|| session.next_message(now)).map(|message| unpacked(&message)).collect()
}

pub(super) fn frame(reply_to: u32, frame: Frame) -> v1::ServerFrame {
    v1::ServerFrame { reply_to, frame: Some(frame) }
}

pub(super) fn read(backlog: &Backlog<Event>) -> Vec<Event> {
    let mut context = std::task::Context::from_waker(Waker::noop());
    std::iter::from_fn(|| match backlog.poll_next(&mut context) {
        std::task::Poll::Ready(event) => event,
        std::task::Poll::Pending => None,
    })
    .collect()
}

fn begun(now: Instant) -> (Session, Arc<Backlog<Event>>) {
    let (mut session, pushes) = new();
    session.connect(String::new());
    session.connected(&connected(false, 0), now);
    (session, pushes)
}

fn publish(session: &mut Session, now: Instant) -> oneshot::Receiver<Result<Frame, Error>> {
    let (answer, receiver) = oneshot::channel();
    session.ask(Ask::Publish(v1::Publish::default()), Repeat::Always, answer, now);
    receiver
}

fn request(session: &mut Session, repeat: Repeat, now: Instant) -> oneshot::Receiver<Result<Frame, Error>> {
    let (answer, receiver) = oneshot::channel();
    let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    session.ask(Ask::Request(v1::Request { timeout, message: None }), repeat, answer, now);
    receiver
}

type Joined = oneshot::Receiver<Result<v1::Subscribed, Error>>;

fn subscribe(session: &mut Session, channel: &str, since: Since, now: Instant) -> (Arc<Backlog<Event>>, Joined) {
    let backlog = Arc::new(Backlog::new(100));
    let (waiter, answer) = oneshot::channel();
    session.subscribe(channel, Listen::since(since), backlog.clone(), waiter, now);
    (backlog, answer)
}

fn subscribed(channel: &str, offset: u64, recovered: bool) -> Frame {
    Frame::Subscribed(v1::Subscribed { channel: channel.into(), offset, recovered })
}

fn delivery(channel: &str, offset: u64) -> v1::ServerFrame {
    let prev_offset = offset.saturating_sub(1);
    frame(0, Frame::Delivery(v1::Envelope { channel: channel.into(), offset, prev_offset, ..Default::default() }))
}

fn error(reason: &str, retry_after: Option<i64>) -> Frame {
    let retry_after = retry_after.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    Frame::Error(v1::Error { reason: reason.into(), retryable: true, retry_after, ..Default::default() })
}

fn resume_of(message: &Message) -> v1::Resume {
    match unpacked(message).frame {
        Some(Ask::Connect(v1::Connect { resume: Some(resume), .. })) => resume,
        other => panic!("no resume: {other:?}"),
    }
}

fn lost(session: &mut Session) {
    session.disconnected(Closed::broken("cut"));
}

fn ack(received: u64) -> Option<Ask> {
    Some(Ask::Ack(v1::ClientAck { received, inbox_offset: 0 }))
}

#[test]
fn what_has_come_is_acked_every_256_frames_or_five_seconds() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    assert_eq!(session.wakes_at(), None, "nothing has come");
    for _ in 0..255 {
        session.hear(frame(0, Frame::Pong(v1::Pong {})), now);
    }
    assert_eq!(written(&mut session, now), []);
    assert_eq!(session.wakes_at(), Some(now + ACK_INTERVAL));
    session.hear(v1::ServerFrame::default(), now); // a frame that this version does not know counts too
    assert_eq!(written(&mut session, now), [v1::ClientFrame { id: 0, frame: ack(256) }]);
    assert_eq!(session.wakes_at(), None);

    session.hear(frame(0, Frame::Pong(v1::Pong {})), now);
    session.hear(frame(0, Frame::Connected(v1::Connected::default())), now); // does not
    let later = now + ACK_INTERVAL;
    assert_eq!(written(&mut session, later), [v1::ClientFrame { id: 0, frame: ack(257) }]);
}

#[test]
fn a_resume_names_the_count_the_places_and_what_waits() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let (room, mut joined) = subscribe(&mut session, "room:1", Since::Now, now);
    let (_live, _joined) = subscribe(&mut session, "live:1", Since::Now, now);
    let frames = written(&mut session, now);
    session.hear(frame(frames[0].id, subscribed("room:1", 6, false)), now);
    session.hear(frame(frames[1].id, subscribed("live:1", 0, false)), now);
    session.hear(delivery("room:1", 7), now);
    let (_answer, waits) = (publish(&mut session, now), written(&mut session, now)[0].id);
    let _unwritten = publish(&mut session, now);
    lost(&mut session);
    assert_eq!(joined.try_recv().expect("answered").expect("agreed").offset, 6);

    let resume = resume_of(&session.connect("jwt".into()).1);
    let position = |channel: &str, offset| v1::Position { channel: channel.into(), offset };
    assert_eq!((resume.session_id.as_str(), resume.token.as_str(), resume.received), ("n.1", "token", Some(3)));
    assert_eq!(resume.channels, [position("room:1", 7), position("live:1", 0)]);
    assert_eq!(resume.outstanding, [waits], "and not what was never written");

    let subscriptions =
        ["room:1", "live:1"].map(|channel| v1::Subscribed { channel: channel.into(), ..Default::default() });
    session.connected(&v1::Connected { subscriptions: subscriptions.into(), ..connected(true, 3) }, now);
    assert_eq!(written(&mut session, now).len(), 1, "only what was never written");
    session.hear(delivery("room:1", 8), now);
    assert_eq!(read(&room).len(), 2, "and no gap");
}

#[test]
fn a_lost_answer_repeats_what_does_no_harm_and_fails_the_rest() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let mut publish = publish(&mut session, now);
    let mut request_once = request(&mut session, Repeat::Never, now);
    let mut request_idempotent = request(&mut session, Repeat::WhenLost, now);
    let frames = written(&mut session, now);
    lost(&mut session);
    session.connect(String::new());
    session.connected(&connected(true, 0), now);
    assert_eq!(written(&mut session, now), [], "their answers may still come");

    let later = now + Duration::from_secs(3);
    frames.iter().for_each(|asked| _ = session.hear(frame(asked.id, error("answer_lost", None)), later));
    session.tick(later);
    let again = written(&mut session, later);
    assert_eq!(again[0].frame, frames[0].frame, "the same");
    assert!(frames.iter().all(|earlier| earlier.id != again[0].id), "under a new id");
    let Some(Ask::Request(request)) = &again[1].frame else { panic!("{again:?}") };
    assert_eq!(request.timeout, Some(prost_types::Duration { seconds: 7, nanos: 0 }), "what is left of its time");
    assert_eq!(again.len(), 2);
    assert_eq!(
        request_once.try_recv().expect("told").expect_err("lost").refused().expect("said").reason,
        "answer_lost"
    );
    assert_eq!(publish.try_recv().expect_err("waits"), TryRecvError::Empty);
    session.hear(frame(again[0].id, Frame::Accepted(v1::Accepted::default())), later);
    session.hear(frame(again[1].id, Frame::Reply(v1::Envelope::default())), later);
    assert!(publish.try_recv().expect("told").is_ok() && request_idempotent.try_recv().expect("told").is_ok());
}

#[test]
fn a_refusal_for_the_moment_is_repeated_when_the_gateway_says_and_until_the_time_is_over() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let mut answer = publish(&mut session, now);
    let id = written(&mut session, now)[0].id;
    session.hear(frame(id, error("bus_away", Some(12))), now);
    let second = now + Duration::from_secs(12);
    assert_eq!(session.wakes_at().map(|at| at.min(second)), Some(now + ACK_INTERVAL));
    session.tick(second - Duration::from_millis(1));
    assert!(written(&mut session, now).is_empty());
    session.tick(second);
    let id = written(&mut session, now)[0].id;
    session.hear(frame(id, error("bus_away", Some(12))), second);
    let third = second + Duration::from_secs(12);
    session.tick(third);
    let id = written(&mut session, now)[0].id;
    session.hear(frame(id, error("bus_away", Some(12))), third); // 36 s are more than 30
    assert_eq!(answer.try_recv().expect("told").expect_err("refused").refused().expect("said").reason, "bus_away");
}

#[test]
fn without_a_connection_everything_waits_as_long_as_it_is_repeated() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let mut sent = publish(&mut session, now);
    written(&mut session, now);
    lost(&mut session);
    let later = now + Duration::from_secs(10);
    let mut unsent = publish(&mut session, later);
    let mut requested = request(&mut session, Repeat::Never, later);
    assert_eq!(session.wakes_at(), Some(now + RETRY_FOR));
    session.tick(now + RETRY_FOR);
    assert!(matches!(sent.try_recv(), Ok(Err(Error::Closed(closed))) if closed.reason == "cut"));
    session.tick(later + RETRY_FOR);
    assert!(matches!(unsent.try_recv(), Ok(Err(Error::Closed(_)))));
    session.connect(String::new());
    session.connected(&connected(false, 0), later + RETRY_FOR);
    assert_eq!(written(&mut session, later + RETRY_FOR).len(), 1, "was never written, and its caller still waits");
    assert_eq!(requested.try_recv().expect_err("waits"), TryRecvError::Empty);
}

#[test]
fn what_nobody_waits_for_any_more_is_not_written() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    drop(publish(&mut session, now));
    let _kept = publish(&mut session, now);
    assert_eq!(written(&mut session, now).len(), 1);
}

#[test]
fn a_new_session_joins_again_from_where_the_program_is() {
    let now = Instant::now();
    let (mut session, pushes) = begun(now);
    let (history, _h) = subscribe(&mut session, "room:1", Since::Now, now);
    let (live, _l) = subscribe(&mut session, "live:1", Since::Now, now);
    let (unheard, _u) = subscribe(&mut session, "room:2", Since::Last(5), now);
    let (inbox, _i) = subscribe(&mut session, "inbox", Since::Now, now);
    let ids: Vec<u32> = written(&mut session, now).iter().map(|frame| frame.id).collect();
    session.hear(frame(ids[0], subscribed("room:1", 6, false)), now);
    session.hear(frame(ids[1], subscribed("live:1", 0, false)), now);
    session.hear(frame(ids[2], subscribed("room:2", 0, true)), now);
    session.hear(frame(ids[3], subscribed("inbox:ann", 40, true)), now);
    session.hear(delivery("inbox:ann", 31), now);
    lost(&mut session);
    let _waiting = publish(&mut session, now);
    session.connect(String::new());
    session.connected(&connected(false, 0), now);

    let frames = written(&mut session, now);
    let from: std::collections::HashMap<_, _> = frames[..4]
        .iter()
        .map(|frame| match &frame.frame {
            Some(Ask::Subscribe(subscribe)) => (subscribe.channel.as_str(), subscribe.from),
            other => panic!("not before what the program wants: {other:?}"),
        })
        .collect();
    use v1::subscribe::From;
    assert_eq!(from["room:1"], Some(From::Offset(6)));
    assert_eq!(from["live:1"], None);
    assert_eq!(from["room:2"], Some(From::Last(5)));
    assert_eq!(from["inbox"], Some(From::Offset(31)));
    assert_eq!(read(&pushes), [Event::Gap(failover(""))]);
    assert_eq!(read(&live), [Event::Gap(failover("live:1"))]);
    assert_eq!((read(&history), read(&unheard), read(&inbox).len()), (vec![], vec![], 1));

    // One is no longer allowed, another only for the moment.
    let id = |channel: &str| {
        let of = |frame: &&v1::ClientFrame| matches!(&frame.frame, Some(Ask::Subscribe(s)) if s.channel == channel);
        frames.iter().find(of).expect("asked").id
    };
    let refusal = v1::Error { reason: "channel_subscribe".into(), ..Default::default() };
    session.hear(frame(id("room:1"), Frame::Error(refusal.clone())), now);
    session.hear(frame(id("live:1"), error("bus_away", Some(60))), now);
    assert_eq!(read(&history), [Event::Error(refusal)]);
    session.tick(now + Duration::from_secs(60));
    let again = written(&mut session, now).pop().expect("asked again").frame;
    assert!(matches!(again, Some(Ask::Subscribe(s)) if s.channel == "live:1"), "for as long as it takes");
}

#[test]
fn a_channel_that_a_resumed_session_no_longer_has_is_joined_again() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let (_room, _joined) = subscribe(&mut session, "room:1", Since::Now, now);
    let id = written(&mut session, now)[0].id;
    session.hear(frame(id, subscribed("room:1", 6, false)), now);
    lost(&mut session);
    session.connect(String::new());
    let other = v1::Subscribed { channel: "room:2".into(), ..Default::default() };
    session.connected(&v1::Connected { subscriptions: vec![other], ..connected(true, 1) }, now);
    let frames: Vec<_> = written(&mut session, now).into_iter().map(|frame| frame.frame).collect();
    let from = Some(v1::subscribe::From::Offset(6));
    let leave = Ask::Unsubscribe(v1::Unsubscribe { channel: "room:2".into() });
    let join = Ask::Subscribe(v1::Subscribe { channel: "room:1".into(), presence: false, from });
    assert_eq!(frames, [Some(join), Some(leave)], "and one that nobody listens to is left");
}

#[test]
fn where_the_count_cannot_go_on_the_gateway_speaks_of_each_channel() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let channels = ["room:1", "room:2", "live:1", "inbox"];
    let joined: Vec<_> = channels.map(|channel| subscribe(&mut session, channel, Since::Now, now)).into();
    for (asked, offset) in written(&mut session, now).iter().zip([6, 0, 0, 9]) {
        let Some(Ask::Subscribe(subscribe)) = &asked.frame else { panic!("{asked:?}") };
        session.hear(frame(asked.id, subscribed(&subscribe.channel, offset, false)), now);
    }
    lost(&mut session);
    let position = |channel: &str, offset| v1::Position { channel: channel.into(), offset };
    let named = resume_of(&session.connect(String::new()).1).channels;
    assert_eq!(named, [position("room:1", 6), position("live:1", 0), position("room:2", 0)], "all that begin there");
    session.connected(&connected(true, 0), now);
    let asked = written(&mut session, now);
    assert!(matches!(&asked[..], [v1::ClientFrame { frame: Some(Ask::Subscribe(s)), .. }] if s.channel == "inbox"));

    // One was empty when the program came; what has come there since follows.
    session.hear(frame(0, subscribed("room:2", 2, true)), now);
    (1..=2).for_each(|offset| _ = session.hear(delivery("room:2", offset), now));
    assert_eq!(read(&joined[1].0).len(), 2);
    // Something is refused, and the gateway does not say what: of those that are left it is asked.
    let refusal = v1::Error { reason: "channel_subscribe".into(), ..Default::default() };
    session.hear(frame(0, Frame::Error(refusal.clone())), now);
    session.hear(frame(0, Frame::Error(refusal.clone())), now);
    let mut asked = written(&mut session, now);
    asked.sort_by_key(|asked| matches!(&asked.frame, Some(Ask::Subscribe(s)) if s.channel == "room:1"));
    assert_eq!(asked.len(), 2, "once each");
    session.hear(frame(asked[0].id, Frame::Error(refusal.clone())), now);
    let already = Frame::Error(v1::Error { reason: "already_subscribed".into(), ..Default::default() });
    session.hear(frame(asked[1].id, already), now);
    session.hear(frame(0, subscribed("room:1", 7, true)), now);
    session.hear(delivery("room:1", 7), now);
    assert_eq!(written(&mut session, now), []);
    assert_eq!((read(&joined[0].0).len(), read(&joined[2].0)), (1, vec![Event::Error(refusal)]));

    // What the gateway has not yet said is named again.
    lost(&mut session);
    session.connect(String::new());
    session.connected(&connected(true, 0), now);
    lost(&mut session);
    let named = resume_of(&session.connect(String::new()).1).channels;
    assert_eq!(named, [position("room:1", 7), position("room:2", 2)]);
    session.connected(&connected(false, 0), now);
    let mut from: Vec<_> = written(&mut session, now).into_iter().filter_map(|asked| asked.frame).collect();
    from.retain(|ask| matches!(ask, Ask::Subscribe(subscribe) if subscribe.from.is_some()));
    assert_eq!(from.len(), 2, "and joined by a new session");
}

#[test]
fn joining_and_leaving_in_quick_turns_over_a_cut_ends_as_the_program_wants_it() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let (room, _joined) = subscribe(&mut session, "room:1", Since::Now, now);
    let id = written(&mut session, now)[0].id;
    session.hear(frame(id, subscribed("room:1", 6, false)), now);
    let (done, mut left) = oneshot::channel();
    session.leave("room:1", &room, Some(done), now);
    let (_again, mut joined) = subscribe(&mut session, "room:1", Since::Now, now);
    let frames = written(&mut session, now);
    lost(&mut session);
    session.connect(String::new());
    session.connected(&connected(true, 1), now);
    frames.iter().for_each(|asked| _ = session.hear(frame(asked.id, error("answer_lost", None)), now));
    assert!(left.try_recv().expect("told").is_ok(), "nothing is left to be left");
    session.tick(now);
    let again = written(&mut session, now);
    assert_eq!((again.len(), &again[0].frame), (1, &frames[1].frame));
    let refusal = v1::Error { reason: "already_subscribed".into(), ..Default::default() };
    session.hear(frame(again[0].id, Frame::Error(refusal)), now);
    assert!(joined.try_recv().expect("told").is_ok(), "the earlier one had been done");
}

#[test]
fn a_channel_is_listened_to_once_from_one_place() {
    let now = Instant::now();
    let (mut session, _) = begun(now);
    let (_one, _joined) = subscribe(&mut session, "room:1", Since::Last(5), now);
    let (_two, mut second) = subscribe(&mut session, "room:1", Since::Now, now);
    let (_three, mut third) = subscribe(&mut session, "room:1", Since::Last(5), now);
    let frames = written(&mut session, now);
    assert_eq!(frames.len(), 1);
    assert!(matches!(third.try_recv(), Ok(Err(Error::AlreadySubscribed { channel })) if channel == "room:1"));
    session.hear(frame(frames[0].id, subscribed("room:1", 6, true)), now);
    assert_eq!(second.try_recv().expect("told").expect("joined").offset, 6);
}
