//! What JSON clients send: the shapes that are contract, and what each wrong one is told.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{catalogue, comment, json, json_one};
use trestle_codec::{Encoding, Frame, Inbound, Limits, Typed, decode};
use trestle_wire::{ChannelName, Reason};

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("valid")
}

fn frame(text: &str) -> Inbound {
    json_one(text).unwrap_or_else(|rejected| panic!("{text}: {rejected:?}"))
}

fn message(text: &str) -> Typed {
    match frame(text).frame {
        Frame::Message(typed) => typed,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn the_plain_frames_are_read() {
    let rows = [
        (r#"{"id":1,"connect":{"token":"abc"}}"#, 1, Frame::Connect { token: Some("abc".to_owned()) }),
        (r#"{"id":1,"connect":{}}"#, 1, Frame::Connect { token: None }),
        (r#"{"id":1,"connect":{"token":""}}"#, 1, Frame::Connect { token: None }),
        (r#"{"id":2,"subscribe":{"channel":"room:42"}}"#, 2, Frame::Subscribe { channel: channel("room:42") }),
        (r#"{"unsubscribe":{"channel":"room:42"},"id":"3"}"#, 3, Frame::Unsubscribe { channel: channel("room:42") }),
        (" \n{ \"ping\" : { } }\n", 0, Frame::Ping),
        (r#"{"id":4294967295,"ping":{},"publish":null}"#, 4_294_967_295, Frame::Ping),
        (r#"{"id":null,"p\u0069ng":{}}"#, 0, Frame::Ping),
    ];
    for (text, id, expected) in rows {
        assert_eq!(frame(text), Inbound { id, frame: expected }, "{text}");
    }
}

#[test]
fn a_publish_names_its_channel_type_and_version_in_the_envelope() {
    let text = r#"{"id":3,"publish":{"channel":"room:42","message":{"messageType":"chat.v1.Comment","payload":{"text":"hi"}}}}"#;
    let Inbound { id: 3, frame: Frame::Publish { channel: to, message } } = frame(text) else { panic!("{text}") };
    assert_eq!(to, channel("room:42"));
    let envelope = message.envelope;
    assert_eq!((envelope.channel.as_str(), envelope.version.as_str()), ("room:42", "1"));
    assert_eq!((envelope.message_type.as_str(), envelope.payload), ("chat.v1.Comment", comment("hi")));
}

#[test]
fn an_alias_becomes_the_full_name_of_the_asked_or_highest_version() {
    let of = |version: &str, payload: &str| {
        message(&format!(r#"{{"id":4,"message":{{"messageType":"ORDER_PAID"{version},"payload":{payload}}}}}"#))
    };
    let (one, two) = (r#"{"orderId":"1","cents":"5"}"#, r#"{"orderId":"1","total":{"currency":"EUR","cents":"5"}}"#);
    assert_eq!(of(r#","version":"1.0""#, one).kind.full_name(), "shop.v1.OrderPaid");
    assert_eq!(of(r#","version":"2.0""#, two).envelope.message_type, "shop.v2.OrderPaid");
    assert_eq!(of("", two).envelope.version, "2.0");
}

#[test]
fn a_top_level_message_type_is_a_message_in_short_form() {
    let short =
        r#"{"messageType":"USER_CREATED","version":"1.0","payload":{"userId":"12345"},"headers":{"a":"b"},"id":9}"#;
    let long = r#"{"message":{"messageType":"USER_CREATED","version":"1.0","payload":{"userId":"12345"},"headers":{"a":"b"}},"id":9}"#;
    assert_eq!(frame(short), frame(long));
    assert_eq!(frame(short).id, 9, "the id is the frame's, not the envelope's");
    assert_eq!(message(short).envelope.id, "");
}

#[test]
fn a_request_has_a_timeout_or_leaves_it_to_the_gateway() {
    let of = |timeout: &str| {
        let text = format!(
            r#"{{"id":5,"request":{{"message":{{"messageType":"GET_QUOTE","payload":{{"sku":"a1"}}}}{timeout}}}}}"#
        );
        match frame(&text).frame {
            Frame::Request { message, timeout } => (message.envelope.message_type, timeout),
            other => panic!("{text}: {other:?}"),
        }
    };
    let name = "shop.v1.GetQuote".to_owned();
    assert_eq!(of(r#","timeout":"2s""#), (name.clone(), Some(Duration::from_secs(2))));
    assert_eq!(of(r#","timeout":"0.250s""#), (name.clone(), Some(Duration::from_millis(250))));
    assert_eq!(of(r#","timeout":null"#), (name.clone(), None));
    assert_eq!(of(""), (name, None));
}

#[test]
fn json_names_and_proto_names_are_the_same_field() {
    let camel = r#"{"message":{"messageType":"chat.v1.Comment","correlationId":"c","payload":{"text":"x"}}}"#;
    let snake = r#"{"message":{"message_type":"chat.v1.Comment","correlation_id":"c","payload":{"text":"x"}}}"#;
    assert_eq!(frame(camel), frame(snake));
    assert_eq!(message(snake).envelope.correlation_id, "c");
}

#[test]
fn a_missing_payload_is_an_empty_message() {
    for text in [
        r#"{"messageType":"test.v1.Thing"}"#,
        r#"{"messageType":"test.v1.Thing","payload":null}"#,
        r#"{"messageType":"test.v1.Thing","payload":{}}"#,
    ] {
        assert_eq!(message(text).envelope.payload, Bytes::new(), "{text}");
    }
}

#[test]
fn the_time_of_a_client_does_not_count() {
    let text = r#"{"messageType":"test.v1.Thing","time":"2001-01-01T00:00:00Z","source":null,"offset":"0"}"#;
    assert_eq!(message(text).envelope.time, None);
}

#[test]
fn each_frame_of_a_batch_stands_for_itself() {
    let text = r#"[{"id":1,"ping":{}}, {"id":2,"pong":{}}, 7, {"publish":{"channel":"*"},"id":"4"}, null, {"id":6,"ping":{}}]"#;
    let frames = json(text);
    let ids: Vec<_> = frames.iter().map(|frame| frame.as_ref().map_or_else(|bad| bad.id, |good| good.id)).collect();
    assert_eq!(ids, [1, 2, 0, 4, 0, 6]);
    assert_eq!(frames.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, false, false, true]);
}

#[test]
fn what_is_wrong_is_said_with_its_reason_and_field() {
    use Reason::*;
    let thing = |part: &str| format!(r#"{{"id":8,"message":{{"messageType":"test.v1.Thing",{part}}}}}"#);
    let headers = |part: &str| thing(&format!(r#""headers":{{{part}}}"#));
    let many = (0..33).map(|n| format!(r#""k{n}":"""#)).collect::<Vec<_>>().join(",");
    let deep = |n: usize| format!(r#"{}{}"#, r#"{"inner":"#.repeat(n), "1") + &"}".repeat(n);
    #[rustfmt::skip]
    let rows: Vec<(String, u32, Reason, &str, &str)> = vec![
        // not JSON
        ("".into(),                                        0, MalformedFrame, "", "at byte 0"),
        ("{".into(),                                       0, MalformedFrame, "", "at byte 1"),
        ("hello".into(),                                   0, MalformedFrame, "", "at byte 1"),
        (r#"{"id":7,"ping":{}} x"#.into(),                 7, MalformedFrame, "", "at byte 20"),
        (r#"{"id":7,"ping":{},}"#.into(),                  7, MalformedFrame, "", "at byte 19"),
        (r#"[{"ping":{}},"#.into(),                        0, MalformedFrame, "", "at byte 13"),
        (r#"{"id":8,"ping":{"#.into(),                     8, MalformedFrame, "ping", ""),
        ("{\"id\":8,\n\"ping\":\n5}".into(),               8, MalformedFrame, "ping", "at byte 18"),
        // not a frame
        ("5".into(),                                       0, MalformedFrame, "", "a frame as an object"),
        ("\"ping\"".into(),                                0, MalformedFrame, "", "a frame as an object"),
        ("null".into(),                                    0, EmptyFrame, "", ""),
        ("{}".into(),                                      0, EmptyFrame, "", ""),
        (r#"{"id":8}"#.into(),                             8, EmptyFrame, "", ""),
        (r#"{"id":8,"ping":null}"#.into(),                 8, EmptyFrame, "", ""),
        ("[]".into(),                                      0, EmptyFrame, "", "no frame"),
        (r#"[[{"ping":{}}]]"#.into(),                      0, MalformedFrame, "", "a frame as an object"),
        (r#"{"id":8,"pong":{}}"#.into(),                   8, MalformedFrame, "pong", "`subscribe`"),
        (r#"{"subscribe":{"chanel":"room:1"},"id":8}"#.into(), 8, MalformedFrame, "subscribe.chanel", "`channel`"),
        (r#"{"id":8,"ping":{"a":1}}"#.into(),              8, MalformedFrame, "ping.a", "no fields"),
        (r#"{"id":8,"ping":{},"connect":{}}"#.into(),      8, MalformedFrame, "connect", "`ping` already"),
        (r#"{"id":8,"ping":{},"ping":{}}"#.into(),         8, MalformedFrame, "ping", "twice"),
        (r#"{"id":8,"ping":{},"messageType":"a"}"#.into(), 8, MalformedFrame, "messageType", "`ping` already"),
        (r#"{"id":8,"payload":{}}"#.into(),                8, MalformedFrame, "payload", "`messageType`"),
        (r#"{"id":8,"messageType":"a","message_type":"b"}"#.into(), 8, MalformedFrame, "messageType", "twice"),
        // wrong values
        (r#"{"id":-1,"ping":{}}"#.into(),                  0, MalformedFrame, "id", "whole number from 0 to 4294967295"),
        (r#"{"id":4294967296,"ping":{}}"#.into(),          0, MalformedFrame, "id", "4294967296"),
        (r#"{"id":1.5,"ping":{}}"#.into(),                 0, MalformedFrame, "id", "1.5"),
        (r#"{"id":"+1","ping":{}}"#.into(),                0, MalformedFrame, "id", "+1"),
        (r#"{"id":"","ping":{}}"#.into(),                  0, MalformedFrame, "id", ""),
        (r#"{"id":8,"subscribe":{"channel":5}}"#.into(),   8, MalformedFrame, "subscribe.channel", "expected a string, at byte 32"),
        (r#"{"id":8,"subscribe":"room:1"}"#.into(),        8, MalformedFrame, "subscribe", "as an object"),
        (r#"{"id":8,"connect":{"token":["a"]}}"#.into(),   8, MalformedFrame, "connect.token", "a string"),
        (thing(r#""offset":-2"#),                          8, MalformedFrame, "message.offset", ""),
        (thing(r#""headers":[]"#),                         8, MalformedFrame, "message.headers", "an object of strings"),
        (headers(r#""a":1"#),                              8, MalformedFrame, "message.headers.a", "a string"),
        (headers(r#""a":null"#),                           8, MalformedFrame, "message.headers.a", "a string"),
        (headers(r#""a":"1","a":"2""#),                    8, MalformedFrame, "message.headers.a", "twice"),
        // names
        (r#"{"id":8,"subscribe":{}}"#.into(),              8, InvalidChannel, "subscribe.channel", "empty"),
        (r#"{"id":8,"subscribe":{"channel":"room:*"}}"#.into(), 8, InvalidChannel, "subscribe.channel", "'*'"),
        (r#"{"id":8,"unsubscribe":{"channel":"room:a\u0000"}}"#.into(), 8, InvalidChannel, "unsubscribe.channel", ""),
        (r#"{"id":8,"publish":{"channel":"Room:1","message":{}}}"#.into(), 8, InvalidChannel, "publish.channel", "namespace"),
        (r#"{"id":8,"publish":{"channel":"room:1"}}"#.into(), 8, MalformedFrame, "publish.message", "missing"),
        (r#"{"id":8,"request":{}}"#.into(),                8, MalformedFrame, "request.message", "missing"),
        (r#"{"id":8,"message":{}}"#.into(),                8, UnknownType, "message.messageType", ""),
        (r#"{"id":8,"messageType":"chat.v1.Coment"}"#.into(), 8, UnknownType, "messageType", "chat.v1.Comment"),
        (r#"{"id":8,"messageType":"ORDER_PAID","version":"3.0"}"#.into(), 8, UnknownVersion, "version", "2.0"),
        // what only the gateway says
        (thing(r#""source":{"user":"root"}"#),             8, ReservedField, "message.source", ""),
        (thing(r#""source":{}"#),                          8, ReservedField, "message.source", ""),
        (thing(r#""offset":"1""#),                         8, ReservedField, "message.offset", ""),
        (thing(r#""prev_offset":1"#),                      8, ReservedField, "message.prevOffset", ""),
        (thing(r#""deadline":"2030-01-01T00:00:00Z""#),    8, ReservedField, "message.deadline", ""),
        (r#"{"id":8,"messageType":"test.v1.Thing","source":{}}"#.into(), 8, ReservedField, "source", ""),
        // ids, channels and headers
        (thing(&format!(r#""id":"{}""#, "a".repeat(129))), 8, InvalidId, "message.id", "129 bytes"),
        (thing(r#""id":"a\nb""#),                          8, InvalidId, "message.id", r"'\n'"),
        (thing(r#""correlationId":"\u007f""#),             8, InvalidId, "message.correlationId", ""),
        (thing(r#""channel":"room:1""#),                   8, InvalidChannel, "message.channel", "publish"),
        (r#"{"id":8,"publish":{"channel":"room:1","message":{"messageType":"test.v1.Thing","channel":"room:2"}}}"#.into(),
                                                           8, InvalidChannel, "publish.message.channel", "room:1"),
        (headers(r#""Upper":"1""#),                        8, InvalidHeader, "message.headers.Upper", "'U'"),
        (headers(r#""":"1""#),                             8, InvalidHeader, "message.headers", "empty"),
        (headers(r#""a b":"1""#),                          8, InvalidHeader, "message.headers.a b", "' '"),
        (headers(r#""a":"x\r\ny""#),                       8, InvalidHeader, "message.headers.a", r"'\r'"),
        (headers(&many),                                   8, InvalidHeader, "message.headers", "33"),
        (headers(&format!(r#""a":"{}""#, "x".repeat(4096))), 8, InvalidHeader, "message.headers", "4097 bytes"),
        // timeouts
        (r#"{"id":8,"request":{"timeout":"2"}}"#.into(),   8, InvalidTimeout, "request.timeout", "`2s`"),
        (r#"{"id":8,"request":{"timeout":""}}"#.into(),    8, InvalidTimeout, "request.timeout", ""),
        (r#"{"id":8,"request":{"timeout":"1 s"}}"#.into(), 8, InvalidTimeout, "request.timeout", ""),
        (r#"{"id":8,"request":{"timeout":"99999999999999999999s"}}"#.into(), 8, InvalidTimeout, "request.timeout", ""),
        (r#"{"id":8,"request":{"timeout":2}}"#.into(),     8, MalformedFrame, "request.timeout", "a string"),
        (r#"{"id":8,"request":{"message":{"messageType":"test.v1.Thing"},"timeout":"-1s"}}"#.into(), 8, InvalidTimeout, "request.timeout", ""),
        (r#"{"id":8,"request":{"message":{"messageType":"test.v1.Thing"},"timeout":"0s"}}"#.into(), 8, InvalidTimeout, "request.timeout", ""),
        // payloads
        (thing(r#""payload":5"#),                          8, MalformedPayload, "message.payload", ""),
        (thing(r#""payload":{"big":"x"}"#),                8, MalformedPayload, "message.payload.big", ""),
        (thing(r#""payload":{"nope":1}"#),                 8, MalformedPayload, "message.payload.nope", ""),
        (thing(&format!(r#""payload":{}"#, deep(31))),     8, TooDeep, "", "32 deep at byte"),
        (r#"{"id":8,"messageType":"chat.v1.Comment","payload":{"text":""}}"#.into(), 8, RuleViolated, "payload.text", ""),
        (r#"{"id":8,"messageType":"chat.v1.Comment"}"#.into(), 8, RuleViolated, "payload.text", ""),
    ];
    let mut wrong = Vec::new();
    for (text, id, reason, field, said) in &rows {
        match json_one(text) {
            Ok(inbound) => wrong.push(format!("{text}: taken as {inbound:?}")),
            Err(rejected) => {
                let refusal = &rejected.refusal;
                let is = (rejected.id, refusal.reason, refusal.field.as_deref().unwrap_or_default());
                if is != (*id, *reason, *field) || !refusal.message.contains(said) {
                    wrong.push(format!("{text}: {rejected:?}, not {:?} with {said:?}", (id, reason, field)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn the_frames_of_one_message_are_counted() {
    let batch = |n: usize| format!("[{}]", vec![r#"{"id":1,"ping":{}}"#; n].join(","));
    assert!(json(&batch(64)).iter().all(Result::is_ok));
    let rejected = json_one(&batch(65)).expect_err("one too many");
    assert_eq!((rejected.id, rejected.refusal.reason), (0, Reason::TooManyFrames));
}

#[test]
fn one_too_deep_frame_spares_the_others() {
    let deep = format!(r#"{{"id":2,"x":{}{}}}"#, "[".repeat(60_000), "]".repeat(60_000));
    let frames = json(&format!(r#"[{{"id":1,"ping":{{}}}},{deep}]"#));
    assert!(frames[0].is_ok());
    let rejected = frames[1].as_ref().expect_err("too deep");
    assert_eq!((rejected.id, rejected.refusal.reason), (2, Reason::TooDeep));
    assert!(rejected.refusal.message.ends_with("at byte 64"), "{rejected:?}");
}

#[test]
fn text_that_is_not_utf8_is_its_own_fault() {
    let frames = decode(Encoding::Json, &Bytes::from_static(b"{\"ping\":{\xff}}"), catalogue(), &Limits::default());
    let rejected = frames[0].as_ref().expect_err("not UTF-8");
    assert_eq!(rejected.refusal.reason, Reason::InvalidUtf8);
    assert!(rejected.refusal.message.contains("byte 10"), "{rejected:?}");
}
