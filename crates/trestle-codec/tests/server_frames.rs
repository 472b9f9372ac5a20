//! What clients receive: in JSON the exact text that is contract, in protobuf the same frames.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{catalogue, comment, envelope};
use prost::Message;
use prost_types::{Duration, Timestamp};
use trestle_codec::{Encoded, Encoding, encode, join};
use trestle_wire::{
    Reason, Refusal,
    v1::{self, server_frame::Frame},
};

fn frame(reply_to: u32, frame: Frame) -> v1::ServerFrame {
    v1::ServerFrame { reply_to, frame: Some(frame) }
}

fn json(frame: &v1::ServerFrame) -> String {
    String::from_utf8(encode(Encoding::Json, frame, catalogue()).payload().to_vec()).expect("JSON is UTF-8")
}

#[test]
fn every_frame_has_its_exact_json() {
    let delivery = v1::Envelope {
        id: "e1".into(),
        version: "1".into(),
        channel: "room:42".into(),
        offset: 7,
        prev_offset: 6,
        time: Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
        source: Some(v1::Source {
            session: "n.0".into(),
            user: "ann".into(),
            node: "n".into(),
            service: String::new(),
        }),
        headers: BTreeMap::from([("traceparent".into(), "00-1".into()), ("x-a".into(), "\"q\"\n".into())]),
        ..envelope("chat.v1.Comment", comment("hi"))
    };
    let first = v1::Envelope { offset: 1, ..envelope("test.v1.Thing", Bytes::new()) };
    let asked = v1::Envelope {
        correlation_id: "c".into(),
        deadline: Some(Timestamp { seconds: 0, nanos: 0 }),
        ..envelope("test.v1.Thing", Bytes::new())
    };
    let mut quote = Vec::new();
    prost::encoding::int64::encode(2, &199, &mut quote);
    let kept = v1::Envelope { channel: "room:42".into(), offset: 8, ..envelope("chat.v1.Comment", comment("hi")) };
    let gone = v1::Envelope { offset: 9, prev_offset: 8, ..envelope("gone.v1.Type", Bytes::from_static(b"\x08\x01")) };
    let member = |session_id: &str, user: &str| v1::PresenceMember { session_id: session_id.into(), user: user.into() };
    let members = vec![member("n.1", "ann"), member("n.2", "")];
    let refusal = |reason, message: &str| v1::Error::from(Refusal::new(reason, message));
    let away = Refusal::new(Reason::BusAway, "the bus is away")
        .field("a.b")
        .retry_after(std::time::Duration::from_millis(1500));
    #[rustfmt::skip]
    let rows: Vec<(v1::ServerFrame, &str)> = vec![
        (frame(1, Frame::Connected(v1::Connected {
            session_id: "n.00ff".into(), resumed: false, ping_interval: Some(Duration { seconds: 25, nanos: 0 }),
            user: "ann".into(), node: "n".into(), frame_bytes_max: 65_536, resume_token: "tok\"".into(), received: 41,
            resume_window: Some(Duration { seconds: 60, nanos: 0 }), subscriptions: vec![
                v1::Subscribed { channel: "room:42".into(), recovered: true, offset: 6 },
                v1::Subscribed { channel: "live:1".into(), recovered: false, offset: 0 },
            ],
        })), concat!(
            r#"{"replyTo":1,"connected":{"sessionId":"n.00ff","resumeToken":"tok\"","resumed":false,"pingInterval":"25s","user":"ann","#,
            r#""node":"n","frameBytesMax":65536,"received":"41","subscriptions":[{"channel":"room:42","recovered":true,"offset":"6"},"#,
            r#"{"channel":"live:1","recovered":false}],"resumeWindow":"60s"}}"#)),
        (frame(0, Frame::Connected(v1::Connected { session_id: "s".into(), ..Default::default() })),
            r#"{"connected":{"sessionId":"s","resumed":false}}"#),
        (frame(2, Frame::Subscribed(v1::Subscribed { channel: "room:42".into(), recovered: false, offset: 6 })),
            r#"{"replyTo":2,"subscribed":{"channel":"room:42","recovered":false,"offset":"6"}}"#),
        (frame(2, Frame::Subscribed(v1::Subscribed { channel: "live:1".into(), recovered: true, offset: 0 })),
            r#"{"replyTo":2,"subscribed":{"channel":"live:1","recovered":true}}"#),
        (frame(2, Frame::Unsubscribed(v1::Unsubscribed { channel: "live:1".into() })),
            r#"{"replyTo":2,"unsubscribed":{"channel":"live:1"}}"#),
        (frame(3, Frame::Accepted(v1::Accepted { level: v1::AckLevel::Received.into(), offset: 7 })),
            r#"{"replyTo":3,"accepted":{"level":"RECEIVED","offset":"7"}}"#),
        (frame(4, Frame::Accepted(v1::Accepted { level: v1::AckLevel::Durable.into(), offset: 0 })),
            r#"{"replyTo":4,"accepted":{"level":"DURABLE"}}"#),
        (frame(4, Frame::Accepted(v1::Accepted { level: 99, offset: 0 })), r#"{"replyTo":4,"accepted":{"level":99}}"#),
        (frame(0, Frame::Delivery(delivery)), concat!(
            r#"{"delivery":{"id":"e1","messageType":"chat.v1.Comment","version":"1","channel":"room:42","offset":"7","prevOffset":"6","#,
            r#""payload":{"text":"hi"},"time":"2023-11-14T22:13:20.005Z","source":{"session":"n.0","user":"ann","node":"n"},"#,
            r#""headers":{"traceparent":"00-1","x-a":"\"q\"\n"}}}"#)),
        (frame(0, Frame::Delivery(first)), r#"{"delivery":{"messageType":"test.v1.Thing","offset":"1","prevOffset":"0","payload":{}}}"#),
        (frame(0, Frame::Delivery(asked)),
            r#"{"delivery":{"messageType":"test.v1.Thing","payload":{},"correlationId":"c","deadline":"1970-01-01T00:00:00Z"}}"#),
        (frame(5, Frame::Reply(envelope("shop.v1.Quote", quote.into()))),
            r#"{"replyTo":5,"reply":{"messageType":"shop.v1.Quote","payload":{"cents":"199"}}}"#),
        (frame(6, Frame::Error(refusal(Reason::ChannelSubscribe, "no"))),
            r#"{"replyTo":6,"error":{"code":"PERMISSION_DENIED","reason":"channel_subscribe","message":"no","retryable":false}}"#),
        (frame(0, Frame::Error(away.into())),
            r#"{"error":{"code":"UNAVAILABLE","reason":"bus_away","message":"the bus is away","field":"a.b","retryable":true,"retryAfter":"1.500s"}}"#),
        (frame(0, Frame::Gap(v1::Gap { channel: "room:1".into(), from: 3, to: 5, count: 3, reason: v1::GapReason::Slow.into() })),
            r#"{"gap":{"channel":"room:1","from":"3","to":"5","count":"3","reason":"SLOW"}}"#),
        (frame(0, Frame::Gap(v1::Gap { channel: "live:1".into(), reason: v1::GapReason::Failover.into(), ..Default::default() })),
            r#"{"gap":{"channel":"live:1","reason":"FAILOVER"}}"#),
        (frame(0, Frame::Gap(v1::Gap { count: 2, reason: v1::GapReason::Slow.into(), ..Default::default() })),
            r#"{"gap":{"channel":"","count":"2","reason":"SLOW"}}"#),
        (frame(7, Frame::History(v1::HistoryPage { channel: "room:42".into(), messages: vec![kept, gone], more: true, offset: 9 })), concat!(
            r#"{"replyTo":7,"history":{"channel":"room:42","messages":[{"messageType":"chat.v1.Comment","channel":"room:42","offset":"8","#,
            r#""prevOffset":"0","payload":{"text":"hi"}},{"messageType":"gone.v1.Type","offset":"9","prevOffset":"8","payloadBase64":"CAE="}],"#,
            r#""more":true,"offset":"9"}}"#)),
        (frame(7, Frame::History(v1::HistoryPage { channel: "room:42".into(), ..Default::default() })),
            r#"{"replyTo":7,"history":{"channel":"room:42","messages":[],"more":false}}"#),
        (frame(8, Frame::Presence(v1::PresenceState { channel: "room:1".into(), sessions: 2, users: 1, members: members.clone(), complete: true })),
            r#"{"replyTo":8,"presence":{"channel":"room:1","sessions":2,"users":1,"members":[{"sessionId":"n.1","user":"ann"},{"sessionId":"n.2"}],"complete":true}}"#),
        (frame(8, Frame::Presence(v1::PresenceState { channel: "room:1".into(), sessions: 5000, users: 0, ..Default::default() })),
            r#"{"replyTo":8,"presence":{"channel":"room:1","sessions":5000,"users":0,"complete":false}}"#),
        (frame(0, Frame::PresenceEvent(v1::PresenceEvent { channel: "room:1".into(), joined: members.clone(), left: vec![], sessions: 2, users: 1 })),
            r#"{"presenceEvent":{"channel":"room:1","joined":[{"sessionId":"n.1","user":"ann"},{"sessionId":"n.2"}],"sessions":2,"users":1}}"#),
        (frame(0, Frame::PresenceEvent(v1::PresenceEvent { channel: "room:1".into(), joined: vec![], left: members, sessions: 0, users: 0 })),
            r#"{"presenceEvent":{"channel":"room:1","left":[{"sessionId":"n.1","user":"ann"},{"sessionId":"n.2"}],"sessions":0,"users":0}}"#),
        (frame(0, Frame::Draining(v1::DrainNotice {
            endpoint: "wss://b.example/ws".into(), reconnect_after: Some(Duration { seconds: 1, nanos: 250_000_000 }),
            deadline: Some(Duration { seconds: 30, nanos: 0 }),
        })), r#"{"draining":{"endpoint":"wss://b.example/ws","reconnectAfter":"1.250s","deadline":"30s"}}"#),
        (frame(0, Frame::Draining(v1::DrainNotice::default())), r#"{"draining":{}}"#),
        (frame(9, Frame::Pong(v1::Pong {})), r#"{"replyTo":9,"pong":{}}"#),
    ];
    for (frame, expected) in &rows {
        assert_eq!(&json(frame), expected);
    }
}

#[test]
fn a_payload_that_cannot_be_read_here_is_handed_on_in_base64() {
    let gone = frame(0, Frame::Delivery(envelope("gone.v1.Type", Bytes::from_static(b"\x08\x01"))));
    assert_eq!(json(&gone), r#"{"delivery":{"messageType":"gone.v1.Type","payloadBase64":"CAE="}}"#);
    let broken = frame(0, Frame::Delivery(envelope("test.v1.Thing", Bytes::from_static(b"\x08\x01\x2a\x7f"))));
    assert_eq!(json(&broken), r#"{"delivery":{"messageType":"test.v1.Thing","payloadBase64":"CAEqfw=="}}"#);
}

#[test]
fn protobuf_clients_get_the_payload_as_it_came() {
    let unknown = Bytes::from_static(b"\xaa\x06\x01x");
    let sent = frame(0, Frame::Delivery(envelope("test.v1.Thing", unknown.clone())));
    let bytes = encode(Encoding::Protobuf, &sent, catalogue());
    let got = v1::ServerFrames::decode(bytes.payload()).expect("ServerFrames");
    assert_eq!(got.frames, [sent]);
}

#[test]
fn frames_are_joined_into_one_message() {
    let frames: Vec<_> = (1..=3).map(|id| frame(id, Frame::Pong(v1::Pong {}))).collect();
    let encoded = |encoding| frames.iter().map(|frame| encode(encoding, frame, catalogue())).collect::<Vec<Encoded>>();

    let json = encoded(Encoding::Json);
    assert_eq!(join(Encoding::Json, &json[..1]).payload(), br#"{"replyTo":1,"pong":{}}"#);
    assert_eq!(
        join(Encoding::Json, &json).payload(),
        br#"[{"replyTo":1,"pong":{}},{"replyTo":2,"pong":{}},{"replyTo":3,"pong":{}}]"#
    );
    assert_eq!(join::<Encoded>(Encoding::Json, &[]).payload(), b"[]");

    let whole = v1::ServerFrames { frames: frames.clone() };
    assert_eq!(join(Encoding::Protobuf, &encoded(Encoding::Protobuf)).payload(), whole.encode_to_vec());
    assert_eq!(join::<Encoded>(Encoding::Protobuf, &[]).payload(), b"");
}
