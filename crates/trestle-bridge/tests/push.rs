//! Pushes: to every kind of target, with an honest report, in order, and refused with a reason.

mod support;

use std::time::Duration;

use prost::Message as _;
use support::{House, TRACEPARENT, reason, shop, soon};
use tokio_stream::StreamExt as _;
use trestle_bus::{Heard, Subscription, logs};
use trestle_wire::{
    ChannelName, NodeId, SessionId, UserId,
    v1::{
        self, bridge_client::BridgeClient, gateway_frame::Frame, push_stream_response::Outcome,
        service_frame::Frame as Say, target::Target,
    },
};

const COMMENT: &str = "chat.v1.Comment";

fn push(target: Target, text: &str) -> v1::PushRequest {
    v1::PushRequest { target: Some(v1::Target { target: Some(target) }), message: Some(comment(text)) }
}

fn comment(text: &str) -> v1::Envelope {
    v1::Envelope {
        message_type: COMMENT.into(),
        payload: shop::comment(text).encode_to_vec().into(),
        ..v1::Envelope::default()
    }
}

fn channel(name: &str) -> Target {
    Target::Channel(name.into())
}

fn session() -> SessionId {
    SessionId::new(&NodeId::parse("node-2").expect("valid"), 7)
}

async fn envelope(heard: &mut Subscription) -> v1::Envelope {
    match soon("a message", heard.next()).await {
        Some(Heard::Message(message)) => v1::Envelope::decode(message.payload).expect("an envelope"),
        other => panic!("not a message but {other:?}"),
    }
}

fn text(envelope: &v1::Envelope) -> String {
    shop::Comment::decode(envelope.payload.clone()).expect("a comment").text
}

#[tokio::test]
async fn the_report_counts_what_the_nodes_say() {
    let house = House::start().await;
    let user = UserId::parse("ann").expect("valid");
    let rows = [
        (channel("live:1"), house.subjects.channel(&ChannelName::parse("live:1").expect("valid")), (3, 1, 0)),
        (Target::Session(session().to_string()), house.subjects.session(&session()), (1, 0, 0)),
        (Target::User("ann".into()), house.subjects.user(&user), (2, 0, 0)),
        (Target::Everyone(v1::Everyone::default()), house.subjects.all(), (5, 2, 0)),
    ];
    let mut client = BridgeClient::new(house.connect().await);
    for (target, subject, (delivered, dropped, offline)) in rows {
        let _node = house.node_with_sessions(&subject, delivered, dropped).await;
        let answer = client.push(push(target.clone(), "hi")).await.expect("pushed").into_inner();
        let report = answer.report.expect("a report");
        let expected = v1::PushReport { delivered, dropped, offline, counted: true, ..v1::PushReport::default() };
        assert_eq!(report, expected, "{target:?}");
    }
}

#[tokio::test]
async fn a_session_or_user_that_is_nowhere_is_offline() {
    let house = House::start().await;
    let mut client = BridgeClient::new(house.connect().await);
    for (target, offline) in [
        (Target::Session(session().to_string()), 1),
        (Target::User("nobody".into()), 1),
        (channel("live:empty"), 0),
        (Target::Everyone(v1::Everyone::default()), 0),
    ] {
        let answer = client.push(push(target.clone(), "hi")).await.expect("pushed").into_inner();
        let report = answer.report.expect("a report");
        assert_eq!((report.offline, report.delivered, report.counted), (offline, 0, true), "{target:?}");
    }
}

#[tokio::test]
async fn a_push_to_a_channel_with_history_reports_its_offset_and_an_id_pushes_once() {
    let house = House::start().await;
    let room = ChannelName::parse("room:42").expect("valid");
    let mut heard = house.hear(&house.subjects.channel(&room)).await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut offsets = Vec::new();
    for id in ["a", "a", "b", "", ""] {
        let mut request = push(channel("room:42"), "hi");
        request.message.as_mut().expect("a message").id = id.into();
        offsets.push(client.push(request).await.expect("pushed").into_inner().report.expect("a report").offset);
    }
    assert_eq!(offsets[0], offsets[1]);
    assert!(offsets[1] < offsets[2] && offsets[2] < offsets[3] && offsets[3] < offsets[4], "{offsets:?}");
    let log = logs::history(&house.subjects, "room", 100, Duration::from_secs(60)).name;
    let stored = house.fabric.log.read(&log, &house.subjects.log(&room), 1, 10).await.expect("read");
    assert_eq!(stored.len(), 4);
    assert_eq!(envelope(&mut heard).await.channel, "room:42");
}

#[tokio::test]
async fn the_same_id_on_another_channel_is_another_push() {
    let house = House::start().await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut offsets = Vec::new();
    for name in ["room:1", "room:2", "room:1"] {
        let mut request = push(channel(name), "hi");
        request.message.as_mut().expect("a message").id = "a".into();
        offsets.push(client.push(request).await.expect("pushed").into_inner().report.expect("a report").offset);
    }
    assert!(offsets[0] != offsets[1] && offsets[0] == offsets[2], "{offsets:?}");
}

#[tokio::test]
async fn what_goes_out_is_stamped_by_the_gateway() {
    let house = House::start().await;
    let mut heard = house.hear(&house.subjects.all()).await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut request = push(Target::Everyone(v1::Everyone::default()), "hi");
    let message = request.message.as_mut().expect("a message");
    message.correlation_id = "c1".into();
    message.headers.insert("tenant".into(), "acme".into());
    message.offset = 77;
    client.push(request).await.expect("pushed");

    let sent = envelope(&mut heard).await;
    assert_eq!((sent.message_type.as_str(), sent.version.as_str(), text(&sent).as_str()), (COMMENT, "1", "hi"));
    assert!(!sent.id.is_empty() && sent.time.is_some());
    assert_eq!((sent.correlation_id.as_str(), sent.headers["tenant"].as_str(), sent.offset), ("c1", "acme", 0));
    assert_eq!(sent.source, Some(v1::Source { node: "node-1".into(), ..v1::Source::default() }));
}

#[tokio::test]
async fn a_push_goes_on_with_its_callers_trace() {
    let house = House::start().await;
    let mut heard = house.hear(&house.subjects.all()).await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut request = tonic::Request::new(push(Target::Everyone(v1::Everyone::default()), "hi"));
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().expect("ASCII"));
    client.push(request).await.expect("pushed");
    assert_eq!(envelope(&mut heard).await.headers["traceparent"], TRACEPARENT);
}

#[tokio::test]
async fn a_push_that_does_not_fit_is_refused_and_says_why() {
    let house = House::start().await;
    let everyone = || Target::Everyone(v1::Everyone::default());
    let with = |change: &dyn Fn(&mut v1::Envelope)| {
        let mut request = push(everyone(), "hi");
        change(request.message.as_mut().expect("a message"));
        request
    };
    let many = |count: usize, size: usize| (0..count).map(move |n| (format!("k{n}"), "v".repeat(size))).collect();
    let rows: Vec<(v1::PushRequest, &str, &str)> = vec![
        (v1::PushRequest::default(), "invalid_target", "target"),
        (v1::PushRequest { target: Some(v1::Target::default()), ..push(everyone(), "") }, "invalid_target", "target"),
        (v1::PushRequest { message: None, ..push(everyone(), "") }, "malformed_frame", "message"),
        (push(channel(""), "hi"), "invalid_channel", "target.channel"),
        (push(channel("room:*"), "hi"), "invalid_channel", "target.channel"),
        (push(channel("room:a b"), "hi"), "invalid_channel", "target.channel"),
        (push(channel("nowhere:1"), "hi"), "unknown_namespace", "target.channel"),
        (push(Target::Session("ann".into()), "hi"), "invalid_target", "target.session"),
        (push(Target::Session("node-1.*".into()), "hi"), "invalid_target", "target.session"),
        (push(Target::User(String::new()), "hi"), "invalid_target", "target.user"),
        (push(Target::User(" ann".into()), "hi"), "invalid_target", "target.user"),
        (with(&|m| m.message_type.clear()), "unknown_type", "message.message_type"),
        (with(&|m| m.message_type = "chat.v1.Commend".into()), "unknown_type", "message.message_type"),
        (with(&|m| m.version = "9.9".into()), "unknown_version", "message.version"),
        (with(&|m| m.payload = vec![0xff].into()), "malformed_payload", "message.payload"),
        (push(everyone(), ""), "rule_violated", "message.payload.text"),
        (with(&|m| m.source = Some(v1::Source::default())), "reserved_field", "message.source"),
        (with(&|m| m.id = "x".repeat(129)), "invalid_id", "message.id"),
        (with(&|m| m.id = "a\nb".into()), "invalid_id", "message.id"),
        (with(&|m| m.headers = many(33, 1)), "invalid_header", "message.headers"),
        (with(&|m| m.headers = many(2, 2100)), "invalid_header", "message.headers"),
        (with(&|m| drop(m.headers.insert("Upper".into(), "v".into()))), "invalid_header", "message.headers"),
        (with(&|m| drop(m.headers.insert(String::new(), "v".into()))), "invalid_header", "message.headers"),
        (with(&|m| drop(m.headers.insert("k".into(), "a\r\nb".into()))), "invalid_header", "message.headers"),
    ];
    let mut client = BridgeClient::new(house.connect().await);
    for (request, word, field) in rows {
        let status = client.push(request.clone()).await.expect_err("refused");
        assert_eq!(reason(&status), word, "{request:?}: {status}");
        let named = status.metadata().get("trestle-field").and_then(|field| field.to_str().ok());
        assert_eq!(named, Some(field), "{request:?}: {status}");
    }
    // And the bridge lives.
    client.push(push(everyone(), "hi")).await.expect("pushed");
}

#[tokio::test]
async fn a_push_larger_than_the_bus_takes_is_refused() {
    let house = House::start().await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut request = push(Target::Everyone(v1::Everyone::default()), "hi");
    // Fields that no schema knows are carried through, and count.
    let message = request.message.as_mut().expect("a message");
    let unknown = shop::comment(&"x".repeat(2 << 20)).encode_to_vec();
    let mut payload = message.payload.to_vec();
    payload.push(0x7a); // field 15, as bytes
    payload.extend(&unknown[1..]);
    message.payload = payload.into();
    let status = client.push(request).await.expect_err("refused");
    assert_eq!((reason(&status), status.code()), ("payload_too_large", tonic::Code::ResourceExhausted));
}

#[tokio::test]
async fn a_stream_of_pushes_keeps_its_order_and_answers_each_by_its_seq() {
    let house = House::start().await;
    // Two channels in turn, one of them with history.
    let names = ["live:1", "room:1"];
    let mut rooms = Vec::new();
    for name in names {
        let name = ChannelName::parse(name).expect("valid");
        rooms.push(house.hear(&house.subjects.channel(&name)).await);
    }
    let pushes = (0..1000_u64).map(move |seq| v1::PushStreamRequest {
        seq,
        push: Some(push(channel(names[usize::from(seq % 2 == 1)]), &format!("m{seq}"))),
        count: false,
    });
    let mut client = BridgeClient::new(house.connect().await);
    let mut answers = client.push_stream(tokio_stream::iter(pushes)).await.expect("begins").into_inner();
    let mut seqs = Vec::new();
    while let Some(answer) = soon("an answer", answers.next()).await {
        let answer = answer.expect("the stream lives");
        assert!(matches!(answer.outcome, Some(Outcome::Report(_))), "{answer:?}");
        seqs.push(answer.seq);
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (0..1000).collect::<Vec<_>>());
    for n in 0..1000 {
        assert_eq!(text(&envelope(&mut rooms[n % 2]).await), format!("m{n}"));
    }
}

#[tokio::test]
async fn a_wrong_push_in_a_stream_is_answered_and_the_others_go_out() {
    let house = House::start().await;
    let mut heard = house.hear(&house.subjects.log(&ChannelName::parse("room:1").expect("valid"))).await;
    drop(heard.try_next());
    let pushes = [
        v1::PushStreamRequest { seq: 1, push: Some(push(channel("room:1"), "one")), count: false },
        v1::PushStreamRequest { seq: 2, push: Some(push(channel("nowhere:1"), "two")), count: false },
        v1::PushStreamRequest { seq: 3, push: None, count: true },
        v1::PushStreamRequest { seq: 4, push: Some(push(channel("room:1"), "four")), count: true },
    ];
    let mut client = BridgeClient::new(house.connect().await);
    let answers = client.push_stream(tokio_stream::iter(pushes)).await.expect("begins").into_inner();
    let answers: Vec<_> = soon("the answers", answers.collect::<Vec<_>>()).await;
    let mut said: Vec<_> = answers
        .into_iter()
        .map(|answer| {
            let answer = answer.expect("the stream lives");
            match answer.outcome.expect("an outcome") {
                Outcome::Report(report) => (answer.seq, report.offset > 0, String::new()),
                Outcome::Error(error) => (answer.seq, false, error.reason),
            }
        })
        .collect();
    said.sort();
    let expected = [
        (1, true, String::new()),
        (2, false, "unknown_namespace".into()),
        (3, false, "invalid_target".into()),
        (4, true, String::new()),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn an_instance_pushes_on_its_own_stream_under_its_services_name() {
    let house = House::start().await;
    let mut heard = house.hear(&house.subjects.session(&session())).await;
    let mut billing = house.attach("billing", 8).await;
    let target = Target::Session(session().to_string());
    billing.say(Say::Push(v1::PushStreamRequest { seq: 9, push: Some(push(target, "hi")), count: false })).await;
    match billing.frame().await {
        Frame::Pushed(pushed) => {
            assert_eq!((pushed.seq, pushed.outcome), (9, Some(Outcome::Report(v1::PushReport::default()))));
        }
        other => panic!("not pushed but {other:?}"),
    }
    assert_eq!(envelope(&mut heard).await.source.expect("a source").service, "billing");
}

#[tokio::test]
async fn more_pushes_than_the_window_are_all_answered() {
    let config = trestle_bridge::Config { push_window: 4, ..trestle_bridge::Config::default() };
    let house = House::with(config).await;
    let mut billing = house.attach("billing", 8).await;
    for seq in 0..100 {
        // Counted: each takes as long as the slowest node's answer.
        let push = Some(push(Target::User("nobody".into()), "hi"));
        billing.say(Say::Push(v1::PushStreamRequest { seq, push, count: true })).await;
    }
    let mut seqs = Vec::new();
    for _ in 0..100 {
        match billing.frame().await {
            Frame::Pushed(pushed) => seqs.push(pushed.seq),
            other => panic!("not pushed but {other:?}"),
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (0..100).collect::<Vec<_>>());
}
