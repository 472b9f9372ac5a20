//! What JSON clients send: the shapes that are contract, and what each wrong one is told.

mod common;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{catalogue, comment, json, json_one};
use trestle_codec::{Encoding, Frame, Inbound, Limits, Page, Resume, Since, Typed, decode};
use trestle_wire::{ChannelName, Reason, SessionId};

const SESSION: &str = "edge-1.000102030405060708090a0b0c0d0e0f";

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("valid")
}

fn subscribe(to: &str, since: Since) -> Frame {
    Frame::Subscribe { channel: channel(to), since, presence: false }
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
        (r#"{"id":1,"connect":{"token":"abc"}}"#, 1, Frame::Connect { token: Some("abc".to_owned()), resume: None }),
        (r#"{"id":1,"connect":{}}"#, 1, Frame::Connect { token: None, resume: None }),
        (r#"{"id":1,"connect":{"token":"","resume":null}}"#, 1, Frame::Connect { token: None, resume: None }),
        (r#"{"id":2,"subscribe":{"channel":"room:42"}}"#, 2, subscribe("room:42", Since::Now)),
        (r#"{"unsubscribe":{"channel":"room:42"},"id":"3"}"#, 3, Frame::Unsubscribe { channel: channel("room:42") }),
        (" \n{ \"ping\" : { } }\n", 0, Frame::Ping),
        (r#"{"id":4294967295,"ping":{},"publish":null}"#, 4_294_967_295, Frame::Ping),
        (r#"{"id":null,"p\u0069ng":{}}"#, 0, Frame::Ping),
        (
            r#"{"id":4,"ack":{"received":"18446744073709551615"}}"#,
            4,
            Frame::Ack { received: u64::MAX, inbox_offset: 0 },
        ),
        (r#"{"ack":{"inboxOffset":7,"received":null}}"#, 0, Frame::Ack { received: 0, inbox_offset: 7 }),
        (r#"{"ack":{"inbox_offset":"7"}}"#, 0, Frame::Ack { received: 0, inbox_offset: 7 }),
        (r#"{"id":5,"presence":{"channel":"room:1"}}"#, 5, Frame::Presence { channel: channel("room:1") }),
    ];
    for (text, id, expected) in rows {
        assert_eq!(frame(text), Inbound { id, frame: expected }, "{text}");
    }
}

#[test]
fn a_subscribe_says_where_it_begins_or_takes_what_comes() {
    let half = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    for (from, since) in [
        ("", Since::Now),
        (r#","offset":null,"last":null,"since":null"#, Since::Now),
        (r#","offset":0"#, Since::Offset(0)),
        (r#","offset":"18446744073709551615""#, Since::Offset(u64::MAX)),
        (r#","offset":"5","last":null"#, Since::Offset(5)),
        (r#","last":1"#, Since::Last(1)),
        (r#","last":"4294967295""#, Since::Last(u32::MAX)),
        (r#","since":"2023-11-14T22:13:20.5Z""#, Since::Time(half)),
        (r#","since":"2023-11-14T23:13:20.500+01:00""#, Since::Time(half)),
        (r#","since":"1969-12-31T23:59:59Z""#, Since::Time(before)),
    ] {
        let text = format!(r#"{{"subscribe":{{"channel":"room:42"{from}}}}}"#);
        assert_eq!(frame(&text).frame, subscribe("room:42", since), "{text}");
    }
    for (text, wanted) in [("true", true), ("false", false), ("null", false)] {
        let text = format!(r#"{{"subscribe":{{"presence":{text},"channel":"inbox"}}}}"#);
        let expected = Frame::Subscribe { channel: channel("inbox"), since: Since::Now, presence: wanted };
        assert_eq!(frame(&text).frame, expected, "{text}");
    }
}

#[test]
fn a_resume_names_the_session_and_what_has_come_of_it() {
    let resumed = |resume: &str| match frame(&format!(r#"{{"id":1,"connect":{{"resume":{resume}}}}}"#)).frame {
        Frame::Connect { token: None, resume: Some(resume) } => *resume,
        other => panic!("{resume}: {other:?}"),
    };
    let session = SessionId::parse(SESSION).expect("valid");
    let bare = Resume { session, token: String::new(), received: None, channels: vec![], outstanding: vec![] };
    assert_eq!(resumed(&format!(r#"{{"sessionId":"{SESSION}"}}"#)), bare);
    let nulls = r#""token":null,"received":null,"channels":null,"outstanding":null"#;
    assert_eq!(resumed(&format!(r#"{{"session_id":"{SESSION}",{nulls}}}"#)), bare);
    assert_eq!(resumed(&format!(r#"{{"sessionId":"{SESSION}","channels":[],"outstanding":[]}}"#)), bare);

    let all = format!(
        r#"{{"sessionId":"{SESSION}","token":"t","received":"0","channels":[{{"channel":"room:1","offset":"7"}},
            {{"offset":8,"channel":"room:2"}},{{"channel":"live:1"}}],"outstanding":[3,"4294967295"]}}"#
    );
    let channels = vec![(channel("room:1"), 7), (channel("room:2"), 8), (channel("live:1"), 0)];
    let expected =
        Resume { token: "t".to_owned(), received: Some(0), channels, outstanding: vec![3, u32::MAX], ..bare };
    assert_eq!(resumed(&all), expected);
    assert!(!format!("{:?}", Resume { token: "secret".to_owned(), ..expected }).contains("secret"));
}

#[test]
fn a_page_of_history_lies_after_or_before_an_offset() {
    for (page, expected, limit) in [
        ("", Page::Before(0), 50),
        (r#","limit":null,"after":null"#, Page::Before(0), 50),
        (r#","before":"9","limit":0"#, Page::Before(9), 50),
        (r#","after":0,"limit":1"#, Page::After(0), 1),
        (r#","limit":"256","after":"18446744073709551615""#, Page::After(u64::MAX), 256),
    ] {
        let text = format!(r#"{{"id":2,"history":{{"channel":"room:42"{page}}}}}"#);
        let expected = Frame::History { channel: channel("room:42"), page: expected, limit };
        assert_eq!(frame(&text), Inbound { id: 2, frame: expected }, "{text}");
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
    let subscribe = |part: &str| format!(r#"{{"id":8,"subscribe":{{"channel":"room:1",{part}}}}}"#);
    let history = |part: &str| format!(r#"{{"id":8,"history":{{"channel":"room:1",{part}}}}}"#);
    let resume = |part: &str| format!(r#"{{"id":8,"connect":{{"resume":{{"sessionId":"{SESSION}",{part}}}}}}}"#);
    let list = |n: usize, of: fn(usize) -> String| (0..n).map(of).collect::<Vec<_>>().join(",");
    let position = |n| format!(r#"{{"channel":"room:{n}"}}"#);
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
        // places
        (subscribe(r#""offset":1,"last":2"#),              8, MalformedFrame, "subscribe.last", "only one of `offset`, `last` and `since`"),
        (subscribe(r#""since":"2023-11-14T22:13:20Z","offset":0"#), 8, MalformedFrame, "subscribe.offset", "only one"),
        (subscribe(r#""offset":1,"offset":1"#),            8, MalformedFrame, "subscribe.offset", "twice"),
        (subscribe(r#""last":0"#),                         8, MalformedFrame, "subscribe.last", "1 or more"),
        (subscribe(r#""last":4294967296"#),                8, MalformedFrame, "subscribe.last", "4294967296"),
        (subscribe(r#""offset":-1"#),                      8, MalformedFrame, "subscribe.offset", "whole number"),
        (subscribe(r#""offset":"18446744073709551616""#),  8, MalformedFrame, "subscribe.offset", "whole number"),
        (subscribe(r#""since":"yesterday""#),              8, MalformedFrame, "subscribe.since", "2026-11-24T12:00:00.5Z"),
        (subscribe(r#""since":1700000000"#),               8, MalformedFrame, "subscribe.since", "a string"),
        (subscribe(r#""since":"0000-01-01T00:00:00Z""#),   8, MalformedFrame, "subscribe.since", "years 1 to 9999"),
        (subscribe(r#""presence":"true""#),                8, MalformedFrame, "subscribe.presence", "true or false"),
        (r#"{"id":8,"unsubscribe":{"channel":"room:1","last":1}}"#.into(), 8, MalformedFrame, "unsubscribe.last", "`channel`"),
        (history(r#""after":1,"before":null,"before":2"#), 8, MalformedFrame, "history.before", "twice"),
        (history(r#""after":1,"before":2"#),               8, MalformedFrame, "history.before", "only one of `after` and `before`"),
        (history(r#""limit":257"#),                        8, MalformedFrame, "history.limit", "more than 256"),
        (history(r#""limit":-1"#),                         8, MalformedFrame, "history.limit", "whole number"),
        (r#"{"id":8,"history":{}}"#.into(),                8, InvalidChannel, "history.channel", "empty"),
        (r#"{"id":8,"presence":{"channel":"*"}}"#.into(),  8, InvalidChannel, "presence.channel", ""),
        (r#"{"id":8,"presence":true}"#.into(),             8, MalformedFrame, "presence", "as an object"),
        (r#"{"id":8,"ack":{"received":"x"}}"#.into(),      8, MalformedFrame, "ack.received", "whole number"),
        (r#"{"id":8,"ack":{"offset":1}}"#.into(),          8, MalformedFrame, "ack.offset", "`inboxOffset`"),
        (r#"{"id":8,"ack":{},"history":{"channel":"room:1"}}"#.into(), 8, MalformedFrame, "history", "`ack` already"),
        // resumes
        (r#"{"id":8,"connect":{"resume":{}}}"#.into(),     8, MalformedFrame, "connect.resume.sessionId", "is not <node>."),
        (r#"{"id":8,"connect":{"resume":{"session_id":"a.b"}}}"#.into(), 8, MalformedFrame, "connect.resume.sessionId", "a.b"),
        (r#"{"id":8,"connect":{"resume":[]}}"#.into(),     8, MalformedFrame, "connect.resume", "a resume as an object"),
        (resume(r#""id":1"#),                              8, MalformedFrame, "connect.resume.id", "`outstanding`"),
        (resume(r#""received":-1"#),                       8, MalformedFrame, "connect.resume.received", ""),
        (resume(r#""channels":{}"#),                       8, MalformedFrame, "connect.resume.channels", "an array of objects"),
        (resume(r#""channels":["room:1"]"#),               8, MalformedFrame, "connect.resume.channels[0]", "a position as an object"),
        (resume(r#""channels":[null]"#),                   8, MalformedFrame, "connect.resume.channels[0]", "an object"),
        (resume(r#""channels":[{"channel":"room:1"},{"chanel":"room:1"}]"#), 8, MalformedFrame, "connect.resume.channels[1].chanel", "`offset`"),
        (resume(r#""channels":[{"channel":"room:1"},{"channel":"room:2","offset":"x"}]"#), 8, MalformedFrame, "connect.resume.channels[1].offset", ""),
        (resume(r#""channels":[{"channel":"room:1"},{"channel":"*"}]"#), 8, InvalidChannel, "connect.resume.channels[1].channel", "namespace"),
        (resume(r#""channels":[{"offset":1}]"#),           8, InvalidChannel, "connect.resume.channels[0].channel", "empty"),
        (resume(r#""channels":[{"channel":"room:1"},{"channel":"room:1"}]"#), 8, MalformedFrame, "connect.resume.channels[1].channel", "twice"),
        (resume(&format!(r#""channels":[{}]"#, list(257, position))), 8, MalformedFrame, "connect.resume.channels", "257, more than 256"),
        (resume(r#""outstanding":5"#),                     8, MalformedFrame, "connect.resume.outstanding", "an array of whole numbers"),
        (resume(r#""outstanding":[5,null]"#),              8, MalformedFrame, "connect.resume.outstanding[1]", "a whole number"),
        (resume(r#""outstanding":[5,4294967296]"#),        8, MalformedFrame, "connect.resume.outstanding[1]", "4294967296"),
        (resume(r#""outstanding":[5,0]"#),                 8, MalformedFrame, "connect.resume.outstanding[1]", "no id"),
        (resume(r#""outstanding":[5,6,5]"#),               8, MalformedFrame, "connect.resume.outstanding[2]", "twice"),
        (resume(&format!(r#""outstanding":[{}]"#, list(257, |n| (n + 1).to_string()))), 8, MalformedFrame, "connect.resume.outstanding", "257, more than 256"),
        (resume(r#""outstanding":[5"#),                    8, MalformedFrame, "connect.resume.outstanding[1]", ""),
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
fn a_resume_holds_as_much_as_it_may() {
    let channels =
        (0..256).map(|n| format!(r#"{{"channel":"room:{n}","offset":"{n}"}}"#)).collect::<Vec<_>>().join(",");
    let outstanding = (1..=256).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let text = format!(
        r#"{{"connect":{{"resume":{{"sessionId":"{SESSION}","channels":[{channels}],"outstanding":[{outstanding}]}}}}}}"#
    );
    let Frame::Connect { resume: Some(resume), .. } = frame(&text).frame else { panic!("a resume") };
    assert_eq!((resume.channels.len(), resume.outstanding.len()), (256, 256));
    assert_eq!(resume.channels[255], (channel("room:255"), 255));
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
