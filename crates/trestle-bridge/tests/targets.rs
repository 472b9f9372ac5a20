//! Pushes to groups, tags, everyone but some, and inboxes.

mod support;

use prost::Message as _;
use support::{House, reason, shop, soon};
use trestle_bus::{Heard, Subscription, logs};
use trestle_wire::{
    ChannelName, GroupName, Subject, UserId,
    name::INBOX,
    v1::{self, bridge_client::BridgeClient, push_stream_response::Outcome, target::Target},
};

const ONE: &str = "node-2.00000000000000000000000000000001";

fn push(target: Target, text: &str) -> v1::PushRequest {
    let message = v1::Envelope {
        message_type: "chat.v1.Comment".into(),
        payload: shop::comment(text).encode_to_vec().into(),
        ..v1::Envelope::default()
    };
    v1::PushRequest { target: Some(v1::Target { target: Some(target) }), message: Some(message) }
}

fn but(ids: &[&str]) -> Target {
    Target::Everyone(v1::Everyone { except_sessions: ids.iter().map(ToString::to_string).collect() })
}

async fn body(heard: &mut Subscription) -> bytes::Bytes {
    match soon("a message", heard.next()).await {
        Some(Heard::Message(message)) => message.payload,
        other => panic!("not a message but {other:?}"),
    }
}

async fn report(client: &mut BridgeClient<tonic::transport::Channel>, request: v1::PushRequest) -> v1::PushReport {
    client.push(request).await.expect("pushed").into_inner().report.expect("a report")
}

#[tokio::test]
async fn a_group_has_a_subject_of_its_own() {
    let house = House::start().await;
    let subject = house.subjects.group(&GroupName::parse("vips.eu").expect("valid"));
    let _node = house.node_with_sessions(&subject, 4, 1).await;
    let mut heard = house.hear(&subject).await;
    let mut client = BridgeClient::new(house.connect().await);
    let got = report(&mut client, push(Target::Group("vips.eu".into()), "hi")).await;
    assert_eq!(got, v1::PushReport { delivered: 4, dropped: 1, counted: true, ..v1::PushReport::default() });
    let sent = v1::Envelope::decode(body(&mut heard).await).expect("an envelope");
    assert_eq!((sent.message_type.as_str(), sent.channel.as_str()), ("chat.v1.Comment", ""));
}

#[tokio::test]
async fn a_selector_and_the_sessions_left_out_go_with_the_envelope() {
    let house = House::start().await;
    let subject = house.subjects.select();
    let _node = house.node_with_sessions(&subject, 2, 0).await;
    let mut heard = house.hear(&subject).await;
    let mut client = BridgeClient::new(house.connect().await);
    let selector = "plan = pro AND region IN (eu, us)";
    for (target, selector, except) in
        [(Target::Tags(selector.into()), selector, vec![]), (but(&[ONE]), "", vec![ONE.to_owned()])]
    {
        let got = report(&mut client, push(target, "hi")).await;
        assert_eq!((got.delivered, got.offline, got.counted), (2, 0, true));
        let sent = v1::SelectedPush::decode(body(&mut heard).await).expect("a SelectedPush");
        assert_eq!((sent.selector.as_str(), sent.except_sessions), (selector, except));
        let envelope = sent.envelope.expect("an envelope");
        assert!(!envelope.id.is_empty() && envelope.source.is_some_and(|source| source.node == "node-1"));
    }
}

#[tokio::test]
async fn nobody_in_a_group_is_no_offline_user() {
    let house = House::start().await;
    let mut client = BridgeClient::new(house.connect().await);
    for target in [Target::Group("empty".into()), Target::Tags("plan=pro".into()), but(&[ONE])] {
        let got = report(&mut client, push(target.clone(), "hi")).await;
        assert_eq!(got, v1::PushReport { counted: true, ..v1::PushReport::default() }, "{target:?}");
    }
}

#[tokio::test]
async fn an_inbox_keeps_what_is_pushed_and_an_id_only_once() {
    let house = House::start().await;
    let inbox = ChannelName::inbox(&UserId::parse("ann@example.com").expect("valid"));
    let mut live = house.hear(&house.subjects.channel(&inbox)).await;
    let mut client = BridgeClient::new(house.connect().await);
    let mut offsets = Vec::new();
    for id in ["a", "a", "b"] {
        let mut request = push(Target::Inbox("ann@example.com".into()), "hi");
        request.message.as_mut().expect("a message").id = id.into();
        let got = report(&mut client, request).await;
        assert_eq!(got, v1::PushReport { offset: got.offset, queued: 1, ..v1::PushReport::default() });
        offsets.push(got.offset);
    }
    assert!(offsets[0] > 0 && offsets[0] == offsets[1] && offsets[1] < offsets[2], "{offsets:?}");
    let log = logs::history(&house.subjects, INBOX, 1000, std::time::Duration::from_secs(60)).name;
    let stored = house.fabric.log.read(&log, &house.subjects.log(&inbox), 1, 10).await.expect("read");
    assert_eq!(stored.len(), 2);
    let sent = v1::Envelope::decode(body(&mut live).await).expect("an envelope");
    assert_eq!((sent.id.as_str(), sent.channel.as_str()), ("a", inbox.as_str()));
}

#[tokio::test]
async fn a_target_that_cannot_be_is_refused_before_anything_goes_out() {
    let house = House::start().await;
    let mut heard = house.hear(&Subject::from_trusted("trestle.>")).await;
    let mut client = BridgeClient::new(house.connect().await);
    for (target, word, field) in [
        (Target::Group("a b".into()), "invalid_target", "target.group"),
        (Target::Tags("plan=".into()), "invalid_selector", "target.tags"),
        (Target::Tags("plan=pro AND".into()), "invalid_selector", "target.tags"),
        (but(&["x"]), "invalid_target", "target.everyone.except_sessions[0]"),
        (but(&[ONE; 65]), "invalid_target", "target.everyone.except_sessions"),
        (Target::Inbox(String::new()), "invalid_target", "target.inbox"),
        (Target::Channel("inbox:ann".into()), "invalid_channel", "target.channel"),
    ] {
        let status = client.push(push(target.clone(), "hi")).await.expect_err("refused");
        let named = status.metadata().get("trestle-field").and_then(|field| field.to_str().ok());
        assert_eq!((reason(&status), named), (word, Some(field)), "{target:?}: {status}");
    }
    assert!(heard.try_next().is_none());
    for line in [
        r#"trestle_bridge_pushes_total{target="tags",outcome="invalid_selector"} 2"#,
        r#"trestle_bridge_pushes_total{target="inbox",outcome="invalid_target"} 1"#,
    ] {
        assert!(house.metrics().contains(line), "{line} is not in {}", house.metrics());
    }
}

#[tokio::test]
async fn a_stream_pushes_to_every_kind_of_target_in_order() {
    let house = House::start().await;
    let mut selected = house.hear(&house.subjects.select()).await;
    let targets =
        || [Target::Tags("plan=pro".into()), but(&[ONE]), Target::Inbox("ann".into()), Target::Group("g".into())];
    let pushes = (0..100_u64).map(move |seq| v1::PushStreamRequest {
        seq,
        push: Some(push(targets()[seq as usize % 4].clone(), &format!("m{seq}"))),
        count: false,
    });
    let mut client = BridgeClient::new(house.connect().await);
    let mut answers = client.push_stream(tokio_stream::iter(pushes)).await.expect("begins").into_inner();
    for _ in 0..100 {
        let answer = soon("an answer", answers.message()).await.expect("lives").expect("not its end");
        let Some(Outcome::Report(report)) = answer.outcome else { panic!("{answer:?}") };
        assert_eq!(report.queued, u32::from(answer.seq % 4 == 2), "{report:?}");
    }
    for seq in (0..100).filter(|seq| seq % 4 < 2) {
        let sent = v1::SelectedPush::decode(body(&mut selected).await).expect("a SelectedPush");
        let comment = shop::Comment::decode(sent.envelope.expect("an envelope").payload).expect("a comment");
        assert_eq!(comment.text, format!("m{seq}"));
    }
}
