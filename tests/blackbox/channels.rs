//! Clients talk on channels; services push to them.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use trestle_client::{Client, Event, Options, Outgoing};
use trestle_wire::v1;

use crate::support::{Ws, comment, gateway, push};

/// chat.v1.Comment { text: "hi" }, and a field 99 that no schema has.
const UNKNOWN_FIELD: &[u8] = &[0x0a, 2, b'h', b'i', 0x98, 0x06, 7];

fn payload(event: Option<Event>) -> Vec<u8> {
    match event {
        Some(Event::Message(envelope)) => envelope.payload.to_vec(),
        other => panic!("no message: {other:?}"),
    }
}

#[tokio::test]
async fn a_comment_reaches_everyone_on_the_channel_with_its_offset() {
    let gateway = gateway(&[]).await;
    let (mut a, mut b) = (Ws::on(&gateway, "room:7").await, Ws::on(&gateway, "room:7").await);
    for offset in ["1", "2"] {
        let accepted = a.ask(json!({"id": 9, "publish": {"channel": "room:7", "message": comment("hi")}})).await;
        assert_eq!(accepted, json!({"replyTo": 9, "accepted": {"level": "RECEIVED", "offset": offset}}));
        for ws in [&mut a, &mut b] {
            let delivery = ws.delivery().await;
            assert_eq!(delivery["messageType"], "chat.v1.Comment");
            assert_eq!(delivery["payload"], json!({"text": "hi"}));
            assert_eq!((&delivery["channel"], &delivery["offset"]), (&json!("room:7"), &json!(offset)));
            assert!(delivery["source"]["session"].is_string(), "{delivery}");
        }
    }
    // A later listener is told where it stands.
    let mut late = Ws::connect(&gateway).await;
    let subscribed = late.ask(json!({"id": 2, "subscribe": {"channel": "room:7"}})).await;
    assert_eq!(
        subscribed,
        json!({"replyTo": 2, "subscribed": {"channel": "room:7", "recovered": false, "offset": "2"}})
    );
}

#[tokio::test]
async fn json_and_protobuf_clients_share_a_channel_and_unknown_fields_survive() {
    let gateway = gateway(&[]).await;
    let mut json = Ws::on(&gateway, "live:1").await;
    let protobuf = Client::connect(&format!("ws://{}/ws", gateway.listen()), Options::default()).await.unwrap();
    let mut comments = protobuf.subscribe("live:1").await.unwrap();
    protobuf.publish("live:1", Outgoing::new("chat.v1.Comment", UNKNOWN_FIELD)).await.unwrap();
    assert_eq!(payload(comments.next().await), UNKNOWN_FIELD);
    assert_eq!(json.delivery().await["payload"], json!({"text": "hi"}));
    json.send(json!({"publish": {"channel": "live:1", "message": comment("from json")}})).await;
    assert_eq!(payload(comments.next().await), [&[0x0a, 9], &b"from json"[..]].concat());
    assert_eq!(json.delivery().await["payload"]["text"], "from json");
}

#[tokio::test]
async fn batches_go_both_ways_and_keep_their_order() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::on(&gateway, "live:1").await;
    let publish = |text: String| json!({"publish": {"channel": "live:1", "message": comment(&text)}});
    let batch: Vec<_> = (0..50).map(|number| publish(number.to_string())).collect();
    for _ in 0..4 {
        ws.send(json!(batch)).await;
    }
    for _ in 0..4 {
        for number in 0..50 {
            assert_eq!(ws.delivery().await["payload"]["text"], number.to_string());
        }
    }
}

#[tokio::test]
async fn a_protobuf_batch_is_several_frames_of_one_message() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use prost::Message as _;
    use v1::{client_frame::Frame, server_frame::Frame as Answer};

    let gateway = gateway(&[]).await;
    let mut ws = Ws::open_with(&gateway, &[("sec-websocket-protocol", "trestle.v1.proto")]).await;
    let frame = |id, frame| v1::ClientFrame { id, frame: Some(frame) };
    let frames = vec![
        frame(1, Frame::Connect(v1::Connect::default())),
        frame(2, Frame::Ping(v1::Ping {})),
        frame(3, Frame::Subscribe(v1::Subscribe { channel: "room:1".into(), ..v1::Subscribe::default() })),
    ];
    let socket = ws.socket();
    socket.send(Message::binary(v1::ClientFrames { frames }.encode_to_vec())).await.unwrap();
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let message = socket.next().await.unwrap().unwrap();
        answers.extend(v1::ServerFrames::decode(message.into_data()).unwrap().frames);
    }
    assert!(matches!(answers[0].frame, Some(Answer::Connected(_))), "{answers:?}");
    assert!(matches!(answers[1].frame, Some(Answer::Pong(_))), "{answers:?}");
    assert!(matches!(answers[2].frame, Some(Answer::Subscribed(_))), "{answers:?}");
}

#[tokio::test]
async fn who_has_left_hears_nothing_more() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::on(&gateway, "live:1").await;
    let left = ws.ask(json!({"id": 3, "unsubscribe": {"channel": "live:1"}})).await;
    assert_eq!(left, json!({"replyTo": 3, "unsubscribed": {"channel": "live:1"}}));
    ws.ask(json!({"id": 4, "publish": {"channel": "live:1", "message": comment("unheard")}})).await;
    ws.ask(json!({"id": 5, "subscribe": {"channel": "live:1"}})).await;
    ws.send(json!({"publish": {"channel": "live:1", "message": comment("heard")}})).await;
    assert_eq!(ws.delivery().await["payload"]["text"], "heard");
}

#[tokio::test]
async fn joins_and_leaves_are_answered_in_the_order_they_were_asked_for() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::connect(&gateway).await;
    let subscribe = |id| json!({"id": id, "subscribe": {"channel": "room:1"}});
    let unsubscribe = |id| json!({"id": id, "unsubscribe": {"channel": "room:1"}});
    ws.send(json!([subscribe(2), unsubscribe(3), subscribe(4), unsubscribe(5)])).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let frame = ws.next().await;
        let kind = ["subscribed", "unsubscribed", "error"].into_iter().find(|kind| frame[kind].is_object());
        told.push((frame["replyTo"].as_u64(), kind));
    }
    let [joined, left] = ["subscribed", "unsubscribed"].map(Some);
    assert_eq!(told, [(Some(2), joined), (Some(3), left), (Some(4), joined), (Some(5), left)]);
    assert!(ws.ask(subscribe(6)).await["subscribed"].is_object());
    assert!(ws.ask(unsubscribe(7)).await["unsubscribed"].is_object());
}

#[tokio::test]
async fn what_was_sent_before_a_close_is_done() {
    let gateway = gateway(&[]).await;
    let mut listener = Ws::on(&gateway, "room:1").await;
    for round in 0..5 {
        let mut talker = Ws::connect(&gateway).await;
        for number in 0..20 {
            talker
                .send(json!({"publish": {"channel": "room:1", "message": comment(&format!("{round}/{number}"))}}))
                .await;
        }
        talker.close().await;
        for number in 0..20 {
            assert_eq!(listener.delivery().await["payload"]["text"], format!("{round}/{number}"));
        }
    }
}

#[tokio::test]
async fn one_id_on_two_channels_is_two_messages_and_twice_on_one_is_one() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::on(&gateway, "room:1").await;
    ws.ask(json!({"id": 3, "subscribe": {"channel": "room:2"}})).await;
    let publish = |id, channel: &str, text: &str| {
        let message = json!({"id": "same", "messageType": "chat.v1.Comment", "payload": {"text": text}});
        json!({"id": id, "publish": {"channel": channel, "message": message}})
    };
    assert_eq!(ws.ask(publish(4, "room:1", "one")).await["accepted"]["offset"], "1");
    assert_eq!(ws.ask(publish(5, "room:2", "two")).await["accepted"]["offset"], "2");
    assert_eq!(ws.ask(publish(6, "room:1", "again")).await["accepted"]["offset"], "1", "it is where it was");
    assert_eq!(ws.ask(publish(7, "room:1", "again")).await["accepted"]["offset"], "1");
    // Order is kept on each channel, not between two.
    let mut heard = [ws.delivery().await, ws.delivery().await].map(|delivery| delivery["payload"]["text"].clone());
    heard.sort_by_key(ToString::to_string);
    assert_eq!(heard, ["one", "two"]);
    ws.send(json!({"publish": {"channel": "room:1", "message": comment("last")}})).await;
    assert_eq!(ws.delivery().await["payload"]["text"], "last");
}

#[tokio::test]
async fn a_push_reaches_channel_session_and_everyone_and_reports() {
    let gateway = gateway(&[]).await;
    let mut a = Ws::open(&gateway).await;
    let connected = a.ask(json!({"id": 1, "connect": {}})).await;
    let session = connected["connected"]["sessionId"].as_str().expect("an id").to_owned();
    a.ask(json!({"id": 2, "subscribe": {"channel": "live:1"}})).await;
    let mut b = Ws::on(&gateway, "live:1").await;
    let body = |target| json!({"target": target, "message": comment("pushed")});

    let (status, report) = push(&gateway, &body(json!({"channel": "live:1"}))).await;
    assert_eq!((status, &report["report"]["delivered"]), (200, &json!(2)), "{report}");
    let (status, report) = push(&gateway, &body(json!({"session": session}))).await;
    assert_eq!((status, &report["report"]["delivered"]), (200, &json!(1)), "{report}");
    let (status, report) = push(&gateway, &body(json!({"everyone": {}}))).await;
    assert_eq!((status, &report["report"]["delivered"]), (200, &json!(2)), "{report}");
    let (status, report) = push(&gateway, &body(json!({"channel": "room:1"}))).await;
    assert_eq!((status, &report["report"]["offset"]), (200, &json!("1")), "{report}");

    assert_eq!(a.delivery().await["channel"], "live:1");
    assert_eq!(b.delivery().await["channel"], "live:1");
    assert!(a.delivery().await["channel"].is_null(), "the push to the session");
    for ws in [&mut a, &mut b] {
        assert!(ws.delivery().await["channel"].is_null(), "the push to everyone");
    }
    let gone = format!("{}{}", &session[..session.len() - 1], if session.ends_with('0') { '1' } else { '0' });
    let (status, report) = push(&gateway, &body(json!({"session": gone}))).await;
    assert_eq!((status, &report["report"]["offline"]), (200, &json!(1)), "{report}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_parted_from_and_slows_nobody() {
    use futures_util::StreamExt as _;

    let gateway = gateway(&[]).await;
    let mut slow = Ws::on(&gateway, "live:1").await;
    let mut quick = Ws::on(&gateway, "live:1").await;
    let text = "x".repeat(490);
    let batch: Vec<_> = (0..50).map(|_| json!({"publish": {"channel": "live:1", "message": comment(&text)}})).collect();
    // Until the slow client's outbox and kernel buffers are full: some 10 MB are far more than both hold.
    let mut heard = 0;
    for _ in 0..400 {
        quick.send(json!(batch)).await;
        for _ in 0..50 {
            quick.delivery().await;
            heard += 1;
        }
    }
    assert_eq!(heard, 20_000, "the quick one gets everything");
    let mut end = None;
    while let Some(Ok(message)) = slow.socket().next().await {
        if let Message::Close(frame) = message {
            end = frame.map(|frame| u16::from(frame.code));
        }
    }
    // The close frame arrives if the client reads in time; a cut is all there is to see otherwise.
    assert!(matches!(end, Some(4000) | None), "{end:?}");
    let (_, metrics) = crate::support::http(&gateway, "GET", "/metrics", "", "").await;
    assert!(metrics.contains("trestle_edge_closes_total{code=\"4000\"} 1"), "{metrics}");
}
