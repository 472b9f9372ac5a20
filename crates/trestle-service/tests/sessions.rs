//! What services hear of sessions, and what they do with them.

mod support;

use support::{Gateway, NOTE, note, notes, run, soon};
use tokio::sync::mpsc;
use trestle_service::{Context, Pusher, Target, Update};
use trestle_wire::v1::{self, gateway_frame::Frame, push_stream_response::Outcome, service_frame::Frame as Said};

#[tokio::test]
async fn session_events_are_asked_for_and_handled_in_their_order() {
    let mut gateway = Gateway::start().await;
    let (done, mut seen) = mpsc::channel(4);
    let builder = notes().on_session_event(move |context: Context, event: v1::SessionEvent| {
        let done = done.clone();
        async move {
            let sender = context.sender().clone();
            let pushed = context.push(Target::Session(sender.session.clone()), NOTE, &note("welcome")).await;
            let updated = context.update(Target::User(sender.user), Update::new().join("seen")).await;
            let said = (event.session_id, pushed.expect("pushed").offset, updated.expect("updated"));
            done.send(said).await.expect("room");
        }
    });
    let running = run(&gateway, builder);
    let (mut stream, hello) = gateway.hello().await;
    assert!(hello.session_events);
    stream.say(Frame::Attached(v1::Attached::default())).await;
    let event = |session: &str| {
        let change = v1::SessionChange::SessionConnected.into();
        v1::SessionEvent { change, session_id: session.into(), user: "ann".into(), ..v1::SessionEvent::default() }
    };
    for session in ["s1", "s2"] {
        stream.say(Frame::SessionEvent(event(session))).await;
    }
    let answered = async {
        for (session, offset) in [("s1", 1), ("s2", 2)] {
            let Said::Push(push) = stream.said().await else { panic!("the handler pushes") };
            let report = v1::PushReport { offset, ..v1::PushReport::default() };
            stream
                .say(Frame::Pushed(v1::PushStreamResponse { seq: push.seq, outcome: Some(Outcome::Report(report)) }))
                .await;
            assert_eq!(soon("the event", seen.recv()).await, Some((session.to_owned(), offset, 1)));
        }
    };
    answered.await;
    drop(running.stop);
    // The handler holds the stream no longer than it runs.
    assert!(stream.rest().await.iter().all(|said| matches!(said, Said::Credit(_))));
    drop(stream);
    soon("the end", running.service).await.expect("did not panic").expect("ended well");
}

#[tokio::test]
async fn a_service_without_a_listener_asks_for_no_events() {
    let mut gateway = Gateway::start().await;
    let _running = run(&gateway, notes());
    assert!(!gateway.hello().await.1.session_events);
}

#[tokio::test]
async fn an_update_says_how_many_sessions_have_it() {
    let gateway = Gateway::start().await;
    let pusher = Pusher::new(&gateway.endpoint).expect("a URI");
    let update = Update::new().join("vips").leave("guests").set("plan", "pro").remove("trial");
    assert_eq!(pusher.update(Target::User("ann".into()), update.clone()).await.expect("updated"), 4);
    assert_eq!(pusher.update(Target::Group("none".into()), update).await.expect("updated"), 0);
}

#[test]
fn every_target_is_the_protos() {
    use v1::target::Target as T;
    let but = |ids: &[&str]| v1::Everyone { except_sessions: ids.iter().map(ToString::to_string).collect() };
    for (target, expected) in [
        (Target::Channel("room:1".into()), T::Channel("room:1".into())),
        (Target::Session("s".into()), T::Session("s".into())),
        (Target::Group("vips".into()), T::Group("vips".into())),
        (Target::User("ann".into()), T::User("ann".into())),
        (Target::Tags("plan=pro".into()), T::Tags("plan=pro".into())),
        (Target::Everyone, T::Everyone(but(&[]))),
        (Target::EveryoneExcept(vec!["s".into()]), T::Everyone(but(&["s"]))),
        (Target::Inbox("ann".into()), T::Inbox("ann".into())),
    ] {
        assert_eq!(v1::Target::from(target).target, Some(expected));
    }
}
