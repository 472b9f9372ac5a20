//! What protobuf clients send, and what each wrong frame is told.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{catalogue, comment, envelope, protobuf, protobuf_one};
use prost::Message;
use prost_types::{Duration, Timestamp};
use trestle_codec::{Encoding, Frame, Inbound, Limits, Rejected, Since, decode};
use trestle_wire::{
    Reason,
    v1::{self, client_frame::Frame as Wire, subscribe::From},
};

fn bytes(message: impl Into<Bytes>) -> Vec<Result<Inbound, Rejected>> {
    decode(Encoding::Protobuf, &message.into(), catalogue(), &Limits::default())
}

fn publish(channel: &str, message: v1::Envelope) -> Wire {
    Wire::Publish(v1::Publish { channel: channel.to_owned(), message: Some(message) })
}

/// The payload of what a publish of these bytes became.
fn published(frame: Result<Inbound, Rejected>) -> Bytes {
    match frame {
        Ok(Inbound { frame: Frame::Publish { message, .. }, .. }) => message.envelope.payload,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_unknown_here_survive_in_the_very_bytes_that_came() {
    let mut payload = comment("hi").to_vec();
    prost::encoding::string::encode(77, &"from a newer client".to_owned(), &mut payload);
    prost::encoding::uint64::encode(78, &5, &mut payload);
    let message = v1::ClientFrames {
        frames: vec![v1::ClientFrame {
            id: 1,
            frame: Some(publish("room:1", envelope("chat.v1.Comment", payload.clone().into()))),
        }],
    };
    let message = Bytes::from(message.encode_to_vec());
    let mut frames = decode(Encoding::Protobuf, &message, catalogue(), &Limits::default());
    let forwarded = published(frames.remove(0));
    assert_eq!(forwarded, payload);
    let within = message.as_ptr_range();
    assert!(within.contains(&forwarded.as_ptr()), "the payload was copied");
}

#[test]
fn each_frame_of_a_batch_stands_for_itself() {
    let good = v1::ClientFrame { id: 1, frame: Some(Wire::Ping(v1::Ping {})) }.encode_to_vec();
    let cut = [0x08, 0x02, 0x2a, 0x7f, 0x0a]; // id 2, then a subscribe that claims 127 bytes
    let unknown = [0x08, 0x03, 0xaa, 0x06, 0x00]; // id 3, then field 101 of a later version
    let mut message = Vec::new();
    for frame in [&good[..], &cut, &unknown, &[], &good] {
        prost::encoding::bytes::encode(1, &frame.to_vec(), &mut message);
    }
    prost::encoding::uint32::encode(9, &1, &mut message); // a field of ClientFrames of a later version
    let frames = bytes(message);
    let told: Vec<_> = frames
        .iter()
        .map(|frame| match frame {
            Ok(inbound) => (inbound.id, None),
            Err(rejected) => (rejected.id, Some(rejected.refusal.reason)),
        })
        .collect();
    let expected = [
        (1, None),
        (2, Some(Reason::MalformedFrame)),
        (3, Some(Reason::EmptyFrame)),
        (0, Some(Reason::EmptyFrame)),
        (1, None),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_no_message_at_all_is_refused_whole() {
    let rows: [(&str, Vec<u8>, Reason); 6] = [
        ("nothing", vec![], Reason::EmptyFrame),
        ("text", b"{\"ping\":{}}".to_vec(), Reason::MalformedFrame),
        ("a cut frame", vec![0x0a, 0x05, 0x08], Reason::MalformedFrame),
        ("a frame that claims 2^63 bytes", [&[0x0a][..], &[0xff; 9], &[0x01]].concat(), Reason::MalformedFrame),
        ("a number where frames belong", vec![0x08, 0x01], Reason::MalformedFrame),
        ("65 frames of two bytes", [0x0a, 0x00].repeat(65), Reason::TooManyFrames),
    ];
    for (what, message, reason) in rows {
        match &bytes(message)[..] {
            [Err(Rejected { id: 0, refusal })] => assert_eq!(refusal.reason, reason, "{what}: {refusal}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(bytes([0x0a, 0x00].repeat(64)).len(), 64);
}

#[test]
fn a_name_that_is_not_utf8_is_refused_with_the_frames_id() {
    let subscribe = [0x08, 0x07, 0x2a, 0x04, 0x0a, 0x02, 0xff, 0xfe];
    let mut message = Vec::new();
    prost::encoding::bytes::encode(1, &subscribe.to_vec(), &mut message);
    let frames = bytes(message);
    let [Err(Rejected { id: 7, refusal })] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(refusal.reason, Reason::MalformedFrame);
    assert!(refusal.message.contains("channel") && refusal.message.contains("UTF-8"), "{refusal}");
}

#[test]
fn what_is_wrong_is_said_with_its_reason_and_field() {
    use Reason::*;
    let thing = || envelope("test.v1.Thing", Bytes::new());
    let with = |change: fn(&mut v1::Envelope)| {
        let mut envelope = thing();
        change(&mut envelope);
        Wire::Message(envelope)
    };
    let request = |seconds, nanos| {
        Wire::Request(v1::Request { message: Some(thing()), timeout: Some(Duration { seconds, nanos }) })
    };
    let subscribe =
        |channel: &str, from| Wire::Subscribe(v1::Subscribe { channel: channel.to_owned(), presence: false, from });
    let since = |seconds, nanos| Some(From::Since(Timestamp { seconds, nanos }));
    let resume = |change: fn(&mut v1::Resume)| {
        let mut resume = v1::Resume { session_id: format!("n.{:032x}", 1), ..Default::default() };
        change(&mut resume);
        Wire::Connect(v1::Connect { token: String::new(), resume: Some(resume) })
    };
    fn position(channel: &str) -> v1::Position {
        v1::Position { channel: channel.to_owned(), offset: 1 }
    }
    #[rustfmt::skip]
    let rows: Vec<(Wire, Reason, &str)> = vec![
        (with(|e| e.source = Some(v1::Source { user: "root".into(), ..Default::default() })), ReservedField, "message.source"),
        (with(|e| e.source = Some(v1::Source::default())), ReservedField, "message.source"),
        (with(|e| e.offset = 1), ReservedField, "message.offset"),
        (with(|e| e.prev_offset = 1), ReservedField, "message.prev_offset"),
        (with(|e| e.deadline = Some(Timestamp::default())), ReservedField, "message.deadline"),
        (with(|e| e.id = "a".repeat(129)), InvalidId, "message.id"),
        (with(|e| e.id = "a\0".into()), InvalidId, "message.id"),
        (with(|e| e.correlation_id = "\u{9b}".into()), InvalidId, "message.correlation_id"),
        (with(|e| e.headers = BTreeMap::from([("A".into(), String::new())])), InvalidHeader, "message.headers.A"),
        (with(|e| e.headers = BTreeMap::from([("a".into(), "\u{7f}".into())])), InvalidHeader, "message.headers.a"),
        (with(|e| e.channel = "room:1".into()), InvalidChannel, "message.channel"),
        (with(|e| e.message_type = String::new()), UnknownType, "message.message_type"),
        (with(|e| e.message_type = "trestle.v1.Envelope".into()), UnknownType, "message.message_type"),
        (with(|e| e.message_type = "google.protobuf.Any".into()), UnknownType, "message.message_type"),
        (with(|e| e.version = "7".into()), UnknownVersion, "message.version"),
        (with(|e| e.payload = Bytes::from_static(b"\x08")), MalformedPayload, "message.payload"),
        (publish("room:1", v1::Envelope { channel: "room:2".into(), ..thing() }), InvalidChannel, "publish.message.channel"),
        (publish("room:>", thing()), InvalidChannel, "publish.channel"),
        (publish("room:1", envelope("chat.v1.Comment", comment(""))), RuleViolated, "publish.message.payload.text"),
        (Wire::Publish(v1::Publish { channel: "room:1".into(), message: None }), MalformedFrame, "publish.message"),
        (Wire::Request(v1::Request { message: None, timeout: None }), MalformedFrame, "request.message"),
        (request(0, 0), InvalidTimeout, "request.timeout"),
        (request(-1, 0), InvalidTimeout, "request.timeout"),
        (request(1, -1), InvalidTimeout, "request.timeout"),
        (request(0, 1_000_000_000), InvalidTimeout, "request.timeout"),
        (subscribe("", None), InvalidChannel, "subscribe.channel"),
        (subscribe("room:a\tb", None), InvalidChannel, "subscribe.channel"),
        (subscribe("room:1", Some(From::Last(0))), MalformedFrame, "subscribe.last"),
        (subscribe("room:1", since(253_402_300_800, 0)), MalformedFrame, "subscribe.since"),
        (subscribe("room:1", since(i64::MIN, 0)), MalformedFrame, "subscribe.since"),
        (subscribe("room:1", since(0, -1)), MalformedFrame, "subscribe.since"),
        (subscribe("room:1", since(0, 1_000_000_000)), MalformedFrame, "subscribe.since"),
        (Wire::History(v1::ReadHistory { channel: "room:1".into(), limit: 257, page: None }), MalformedFrame, "history.limit"),
        (Wire::History(v1::ReadHistory::default()), InvalidChannel, "history.channel"),
        (Wire::Presence(v1::ReadPresence { channel: "room:*".into() }), InvalidChannel, "presence.channel"),
        (resume(|r| r.session_id = String::new()), MalformedFrame, "connect.resume.session_id"),
        (resume(|r| r.session_id = "n.1".into()), MalformedFrame, "connect.resume.session_id"),
        (resume(|r| r.channels = vec![position("a"), position("")]), InvalidChannel, "connect.resume.channels[1].channel"),
        (resume(|r| r.channels = vec![position("a"), position("a")]), MalformedFrame, "connect.resume.channels[1].channel"),
        (resume(|r| r.channels = (0..257).map(|n| position(&format!("a:{n}"))).collect()), MalformedFrame, "connect.resume.channels"),
        (resume(|r| r.outstanding = vec![1, 0]), MalformedFrame, "connect.resume.outstanding[1]"),
        (resume(|r| r.outstanding = vec![1, 2, 1]), MalformedFrame, "connect.resume.outstanding[2]"),
        (resume(|r| r.outstanding = (1..=257).collect()), MalformedFrame, "connect.resume.outstanding"),
        (Wire::Unsubscribe(v1::Unsubscribe { channel: "*".into() }), InvalidChannel, "unsubscribe.channel"),
    ];
    let mut wrong = Vec::new();
    for (frame, reason, field) in rows {
        match protobuf_one(8, frame.clone()) {
            Err(Rejected { id: 8, refusal }) if refusal.reason == reason && refusal.field.as_deref() == Some(field) => {
            }
            other => wrong.push(format!("{frame:?}: {other:?}, not {reason} at {field}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_publish_may_name_its_own_channel_again() {
    let message = v1::Envelope { channel: "room:1".into(), ..envelope("chat.v1.Comment", comment("hi")) };
    assert_eq!(published(protobuf_one(1, publish("room:1", message))), comment("hi"));
}

#[test]
fn of_a_place_that_is_given_twice_the_last_counts() {
    // As protobuf has it: offset = 5, then last = 3.
    let subscribe = [&b"\x0a\x06room:1"[..], &[0x10, 5, 0x18, 3]].concat();
    let mut frame = Vec::new();
    prost::encoding::bytes::encode(5, &subscribe, &mut frame);
    let mut message = Vec::new();
    prost::encoding::bytes::encode(1, &frame, &mut message);
    let frames = bytes(message);
    let [Ok(Inbound { frame: Frame::Subscribe { since, .. }, .. })] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(*since, Since::Last(3));
}

#[test]
fn a_client_that_counts_no_frames_is_told_from_one_that_has_had_none() {
    let received = |received| {
        let resume = v1::Resume { session_id: format!("n.{:032x}", 1), received, ..Default::default() };
        match protobuf_one(1, Wire::Connect(v1::Connect { resume: Some(resume), ..Default::default() })) {
            Ok(Inbound { frame: Frame::Connect { resume: Some(resume), .. }, .. }) => resume.received,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((received(None), received(Some(0))), (None, Some(0)));
}

#[test]
fn frames_keep_their_order() {
    let frames = (1..=64).map(|id| v1::ClientFrame { id, frame: Some(Wire::Ping(v1::Ping {})) }).collect();
    let ids: Vec<u32> = protobuf(frames).into_iter().map(|frame| frame.expect("a ping").id).collect();
    assert_eq!(ids, (1..=64).collect::<Vec<_>>());
}
