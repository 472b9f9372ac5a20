//! Frames of clients, in JSON and in protobuf. After each, the same connection still answers a ping.

use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1::{self, client_frame::Frame, server_frame::Frame as Answer};

use crate::support::{Ws, gateway};

/// What is sent, the reason that comes back, and the field it names (`""`: none is asked for).
fn json_rows() -> Vec<(String, &'static str, &'static str)> {
    let comment = |more: &str| format!(r#"{{"messageType":"chat.v1.Comment","payload":{{"text":"hi"}}{more}}}"#);
    let publish = |message: &str| format!(r#"{{"id":7,"publish":{{"channel":"live:1","message":{message}}}}}"#);
    let channel = |name: Value| json!({"id": 7, "subscribe": {"channel": name}}).to_string();
    let payload = |payload: &str| format!(r#"{{"messageType":"ORDER_PAID","version":"1.0","payload":{payload}}}"#);
    let headers: String = (0..40).map(|n| format!(r#""k{n}":"v","#)).collect();
    let mut rows: Vec<(String, &'static str, &'static str)> = vec![
        // Not JSON, or not a frame.
        (String::new(), "malformed_frame", ""),
        ("{".into(), "malformed_frame", ""),
        ("hello".into(), "malformed_frame", ""),
        ("17".into(), "malformed_frame", ""),
        ("null".into(), "empty_frame", ""),
        ("[1]".into(), "malformed_frame", ""),
        ("[]".into(), "empty_frame", ""),
        ("{}".into(), "empty_frame", ""),
        (r#"{"id":7}"#.into(), "empty_frame", ""),
        (r#"{"id":7,"ping":{}} trailing"#.into(), "malformed_frame", ""),
        (r#"{"id":-1,"ping":{}}"#.into(), "malformed_frame", "id"),
        (r#"{"id":1.5,"ping":{}}"#.into(), "malformed_frame", "id"),
        (r#"{"id":4294967296,"ping":{}}"#.into(), "malformed_frame", "id"),
        (r#"{"id":"x","ping":{}}"#.into(), "malformed_frame", "id"),
        (r#"{"id":7,"dance":{}}"#.into(), "malformed_frame", "dance"),
        (r#"{"id":7,"ping":{},"ping":{}}"#.into(), "malformed_frame", ""),
        (r#"{"id":7,"ping":{},"subscribe":{"channel":"live:1"}}"#.into(), "malformed_frame", ""),
        (r#"{"id":7,"ping":{"speed":9}}"#.into(), "malformed_frame", "ping.speed"),
        (r#"{"id":7,"subscribe":{"channel":7}}"#.into(), "malformed_frame", "subscribe.channel"),
        (r#"{"id":7,"subscribe":"live:1"}"#.into(), "malformed_frame", "subscribe"),
        (format!("[{}]", vec![r#"{"ping":{}}"#; 65].join(",")), "too_many_frames", ""),
        ("[".repeat(5000), "malformed_frame", ""),
        ("[".repeat(5000) + &"]".repeat(5000), "too_deep", ""),
        (payload(&format!("{}{}", r#"{"a":"#.repeat(100), "1".to_owned() + &"}".repeat(100))), "too_deep", ""),
        // State.
        (r#"{"id":7,"connect":{}}"#.into(), "already_connected", ""),
        (r#"{"id":7,"unsubscribe":{"channel":"live:1"}}"#.into(), "not_subscribed", ""),
        // Channels.
        (channel(json!("")), "invalid_channel", "subscribe.channel"),
        (channel(json!("room:*")), "invalid_channel", "subscribe.channel"),
        (channel(json!("room:>")), "invalid_channel", "subscribe.channel"),
        (channel(json!("*")), "invalid_channel", ""),
        (channel(json!("room:a b")), "invalid_channel", ""),
        (channel(json!("room:a\u{0}b")), "invalid_channel", ""),
        (channel(json!("room:a\r\nPUB trestle.all 1")), "invalid_channel", ""),
        (channel(json!("ROOM:1")), "invalid_channel", ""),
        (channel(json!("room:".to_owned() + &"x".repeat(300))), "invalid_channel", ""),
        (channel(json!("nowhere:1")), "unknown_namespace", ""),
        (r#"{"id":7,"publish":{"channel":"nowhere:1","message":{"messageType":"chat.v1.Comment","payload":{"text":"a"}}}}"#
            .into(), "unknown_namespace", ""),
        // Types and versions.
        (publish(r#"{"payload":{}}"#), "unknown_type", ""),
        (publish(r#"{"messageType":"chat.v1.Coment"}"#), "unknown_type", ""),
        (publish(r#"{"messageType":"chat.v1.Comment","version":"9.0"}"#), "unknown_version", ""),
        (r#"{"messageType":"ORDER_PAID","version":"7.0"}"#.into(), "unknown_version", ""),
        (r#"{"messageType":"trestle.v1.Envelope"}"#.into(), "unknown_type", ""),
        (r#"{"messageType":"google.protobuf.Empty"}"#.into(), "unknown_type", ""),
        (r#"{"messageType":"chat.v1.Comment","payload":{"text":"a"}}"#.into(), "no_route", ""),
        // Payloads.
        (payload("[]"), "malformed_payload", ""),
        (payload(r#""text""#), "malformed_payload", ""),
        (payload(r#"{"orderId":7}"#), "malformed_payload", "payload.orderId"),
        (payload(r#"{"orderId":"o","cents":"9223372036854775808"}"#), "malformed_payload", "payload.cents"),
        (payload(r#"{"orderId":"o","cents":"1.5"}"#), "malformed_payload", "payload.cents"),
        (payload(r#"{"orderId":"o","bogus":1}"#), "malformed_payload", "payload.bogus"),
        (payload(r#"{"orderId":"o","orderId":"p"}"#), "malformed_payload", ""),
        (payload(r#"{"orderId":"\ud800"}"#), "malformed_", ""),
        (payload(r#"{"orderId":"","cents":"1"}"#), "rule_violated", "orderId"),
        (payload(r#"{"orderId":"o","cents":"0"}"#), "rule_violated", "cents"),
        (payload(r#"{"orderId":"o","cents":"-5"}"#), "rule_violated", "cents"),
        (r#"{"messageType":"ORDER_PAID","version":"2.0","payload":{"orderId":"o"}}"#.into(), "rule_violated", "total"),
        (r#"{"messageType":"ORDER_PAID","version":"2.0","payload":{"orderId":"o","total":{"currency":"EURO","cents":"1"}}}"#
            .into(), "rule_violated", "total.currency"),
        (publish(r#"{"messageType":"chat.v1.Comment","payload":{"text":""}}"#), "rule_violated", "text"),
        // What only the gateway may say.
        (publish(&comment(r#","source":{"user":"root"}"#)), "reserved_field", "source"),
        (publish(&comment(r#","offset":"9""#)), "reserved_field", "offset"),
        (publish(&comment(r#","prevOffset":"9""#)), "reserved_field", ""),
        (publish(&comment(r#","deadline":"2030-01-01T00:00:00Z""#)), "reserved_field", "deadline"),
        // Headers and ids.
        (publish(&comment(r#","headers":{"A B":"x"}"#)), "invalid_header", ""),
        (publish(&comment(r#","headers":{"UPPER":"x"}"#)), "invalid_header", ""),
        (publish(&comment(r#","headers":{"a":"x\r\nEvil: 1"}"#)), "invalid_header", ""),
        (publish(&comment(&format!(r#","headers":{{"a":"{}"}}"#, "x".repeat(5000)))), "invalid_header", ""),
        (publish(&comment(&format!(r#","headers":{{{}"z":"v"}}"#, headers))), "invalid_header", ""),
        (publish(&comment(&format!(r#","id":"{}""#, "i".repeat(200)))), "invalid_id", ""),
        (publish(&comment(r#","id":"a\u0001b""#)), "invalid_id", ""),
        // Requests.
        (r#"{"id":7,"request":{}}"#.into(), "", ""),
        (r#"{"id":7,"request":{"message":{"messageType":"GET_QUOTE","payload":{"sku":"a"}},"timeout":"-1s"}}"#.into(),
            "invalid_timeout", "request.timeout"),
        (r#"{"id":7,"request":{"message":{"messageType":"GET_QUOTE","payload":{"sku":"a"}},"timeout":"0s"}}"#.into(),
            "invalid_timeout", ""),
        (r#"{"id":7,"request":{"message":{"messageType":"GET_QUOTE","payload":{"sku":"a"}},"timeout":"soon"}}"#.into(),
            "", "request.timeout"),
        (r#"{"id":7,"request":{"message":{"messageType":"chat.v1.Comment","payload":{"text":"a"}}}}"#.into(),
            "no_route", ""),
    ];
    // The worst that UTF-8 and escapes can do in a name.
    for name in ["room:\u{feff}\u{7f}", "room:\u{2028}", "room:\t"] {
        rows.push((channel(json!(name)), "invalid_channel", ""));
    }
    rows
}

#[tokio::test]
async fn a_bad_json_frame_is_refused_and_the_connection_lives() {
    // More faults in a row than a client may make, were there no ping between them.
    let gateway = gateway(&[]).await;
    let mut ws = Ws::connect(&gateway).await;
    let rows = json_rows();
    assert!(rows.len() >= 70, "{}", rows.len());
    let mut faults = Vec::new();
    for (text, reason, field) in rows {
        let shown: String = text.chars().take(120).collect();
        ws.raw(Message::text(text)).await;
        let frame = ws.next().await;
        let error = &frame["error"];
        let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let (said, named, message) = (word("reason"), word("field"), word("message"));
        let told = !said.is_empty() && said.starts_with(reason) && named.ends_with(field);
        if !told || !(10..1000).contains(&message.len()) {
            faults.push(format!("{shown}\n    wanted {reason} {field}, got {frame}"));
        }
        assert!(ws.ask(json!({"id": 99, "ping": {}})).await["pong"].is_object(), "{shown}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn one_bad_frame_of_a_batch_takes_no_other_with_it() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(json!([{"id": 2, "ping": {}}, {"id": 3, "dance": {}}, {"id": 4, "ping": {}}])).await;
    let answers = [ws.next().await, ws.next().await, ws.next().await];
    let kinds: Vec<_> = answers.iter().map(|frame| (&frame["replyTo"], frame["error"]["reason"].as_str())).collect();
    assert_eq!(kinds, [(&json!(2), None), (&json!(3), Some("malformed_frame")), (&json!(4), None)]);
}

#[tokio::test]
async fn nothing_but_faults_ends_the_connection_with_4501() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::connect(&gateway).await;
    for _ in 0..64 {
        ws.raw(Message::text("{")).await;
    }
    let (frames, end) = ws.end().await;
    assert_eq!(frames.last().map(|frame| frame["error"]["reason"].clone()), Some(json!("too_many_faults")));
    assert_eq!(end.map(|(code, _)| code), Some(4501));
}

/// Bytes of a message on the protobuf subprotocol, and the reason that comes back.
fn protobuf_rows() -> Vec<(Vec<u8>, &'static str)> {
    let one = |frame| v1::ClientFrames { frames: vec![v1::ClientFrame { id: 7, frame: Some(frame) }] }.encode_to_vec();
    let publish =
        |message: v1::Envelope| one(Frame::Publish(v1::Publish { channel: "live:1".into(), message: Some(message) }));
    let comment = |payload: &[u8]| v1::Envelope {
        message_type: "chat.v1.Comment".into(),
        payload: payload.to_vec().into(),
        ..v1::Envelope::default()
    };
    let good = || comment(&[0x0a, 2, b'h', b'i']);
    vec![
        (vec![0xff; 10], "malformed_frame"),
        (vec![0x0a, 0x7f, 1], "malformed_frame"),
        (vec![0x0a, 2, 0x08, 7], "empty_frame"),
        (vec![0x0a, 0], "empty_frame"),
        (v1::ClientFrames { frames: vec![v1::ClientFrame::default(); 65] }.encode_to_vec(), "too_many_frames"),
        (
            one(Frame::Subscribe(v1::Subscribe { channel: "room:*".into(), ..v1::Subscribe::default() })),
            "invalid_channel",
        ),
        (one(Frame::Subscribe(v1::Subscribe::default())), "invalid_channel"),
        (one(Frame::Publish(v1::Publish { channel: "live:1".into(), message: None })), "malformed_frame"),
        (publish(comment(&[0x0a, 9, b'h'])), "malformed_payload"),
        (publish(comment(&[0x0a, 1, 0xff])), "malformed_payload"),
        (publish(comment(&[0x08, 1])), "malformed_payload"),
        (publish(comment(&[])), "rule_violated"),
        (publish(v1::Envelope { source: Some(v1::Source::default()), ..good() }), "reserved_field"),
        (publish(v1::Envelope { offset: 5, ..good() }), "reserved_field"),
        (publish(v1::Envelope { version: "3".into(), ..good() }), "unknown_version"),
        (publish(v1::Envelope { message_type: "chat.v1.Nothing".into(), ..good() }), "unknown_type"),
        (publish(v1::Envelope { id: "\n".into(), ..good() }), "invalid_id"),
        (publish(v1::Envelope { headers: [("A".into(), "b".into())].into(), ..good() }), "invalid_header"),
        (
            one(Frame::Request(v1::Request {
                message: Some(good()),
                timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            })),
            "invalid_timeout",
        ),
    ]
}

#[tokio::test]
async fn a_bad_protobuf_frame_is_refused_and_the_connection_lives() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::open_with(&gateway, &[("sec-websocket-protocol", "trestle.v1.proto")]).await;
    let socket = ws.socket();
    let ping = v1::ClientFrames { frames: vec![v1::ClientFrame { id: 9, frame: Some(Frame::Ping(v1::Ping {})) }] };
    socket.send(Message::binary(ping.encode_to_vec())).await.unwrap();
    let mut answers = std::collections::VecDeque::new();
    let mut answer = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| loop {
        if let Some(frame) = answers.pop_front() {
            break frame;
        }
        let message: Message = socket.next().await.expect("open").expect("healthy");
        let frames = v1::ServerFrames::decode(message.into_data()).expect("frames").frames;
        answers.extend(frames.into_iter().filter_map(|frame| frame.frame));
    };
    assert!(matches!(answer(socket).await, Answer::Connected(_)));
    assert!(matches!(answer(socket).await, Answer::Pong(_)));
    for (bytes, reason) in protobuf_rows() {
        socket.send(Message::binary(bytes.clone())).await.unwrap();
        match answer(socket).await {
            Answer::Error(error) => assert_eq!(error.reason, reason, "{bytes:x?}: {error:?}"),
            other => panic!("{bytes:x?}: {other:?}"),
        }
        socket.send(Message::binary(ping.encode_to_vec())).await.unwrap();
        assert!(matches!(answer(socket).await, Answer::Pong(_)));
    }
}
