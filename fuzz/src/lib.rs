//! What the fuzz targets share: schemas, and the checks that hold whatever comes in.

use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message as _;
use trestle_codec::{
    Encoding, Frame, HISTORY_LIMIT_MAX, Inbound, Limits, Page, Rejected, Resume, Since, Typed, decode, encode,
};
use trestle_schema::{Catalogue, SchemaSource};
use trestle_wire::v1::{
    self, client_frame::Frame as Wire, read_history::Page as WirePage, server_frame::Frame as Served, subscribe::From,
};

/// A type with a field of every kind, so that the transcoders' every branch can be reached.
const EVERYTHING: &str = r#"
    syntax = "proto3";
    package fuzz.v1;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "trestle/v1/options.proto";
    message E {
      option (trestle.v1.queueing) = { overflow: CONFLATE key: "q.y2.n" };
      enum Color { RED = 0; GREEN = 1; CRIMSON = -1; }
      int32 a = 1; int64 b = 2; uint32 c = 3; uint64 d = 4; sint32 e = 5; sint64 f = 6;
      fixed32 g = 7; fixed64 h = 8; sfixed32 i = 9; sfixed64 j = 10; float k = 11; double l = 12;
      bool m = 13; string n = 14; bytes o = 15; Color p = 16; E q = 17;
      repeated int32 r = 18; repeated string s = 19; repeated E t = 20; repeated Color u = 21;
      map<string, E> v = 22; map<int64, string> w = 23; map<bool, double> x = 24;
      oneof y { string y1 = 25; E y2 = 26; google.protobuf.NullValue y3 = 27; }
      optional string z = 28;
      google.protobuf.Any aa = 29; google.protobuf.Duration ab = 30; google.protobuf.FieldMask ac = 31;
      google.protobuf.Struct ad = 32; google.protobuf.Value ae = 33; google.protobuf.Timestamp af = 34;
      google.protobuf.Int64Value ag = 35; google.protobuf.StringValue ah = 36; google.protobuf.ListValue ai = 37;
    }
"#;

/// The example schemas of the project, and `fuzz.v1.E`.
pub fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let SchemaSource::Files(mut files) = SchemaSource::examples() else { panic!("the examples are in memory") };
        files.push(("fuzz/v1/e.proto".to_owned(), EVERYTHING.to_owned()));
        Catalogue::load(&SchemaSource::Files(files)).expect("the schemas are right")
    })
}

/// Decodes a client's message and checks all that must hold of what came out.
pub fn client_message(encoding: Encoding, message: &[u8]) {
    let decoded = decode(encoding, &Bytes::copy_from_slice(message), catalogue(), &Limits::default());
    assert!(!decoded.is_empty(), "a message went without a word");
    for frame in decoded {
        match frame {
            Ok(inbound) => taken(&inbound),
            Err(rejected) => refused(&rejected),
        }
    }
}

/// What was taken would be taken in protobuf too, and comes out of it the same; and its payload can be delivered in JSON.
fn taken(inbound: &Inbound) {
    let frames = vec![v1::ClientFrame { id: inbound.id, frame: Some(wire(&inbound.frame)) }];
    let message = Bytes::from(v1::ClientFrames { frames }.encode_to_vec());
    let again = decode(Encoding::Protobuf, &message, catalogue(), &Limits::default());
    assert_eq!(again, [Ok(inbound.clone())], "not the same in protobuf");
    if let Frame::Message(Typed { envelope, .. })
    | Frame::Request { message: Typed { envelope, .. }, .. }
    | Frame::Publish { message: Typed { envelope, .. }, .. } = &inbound.frame
    {
        let kind = catalogue().get(&envelope.message_type).expect("it was resolved");
        let keyed = kind.queueing().is_some_and(|queueing| queueing.key.is_some());
        assert_eq!(kind.conflation_key(&envelope.payload).is_some(), keyed, "a valid message has the key of its type");
        assert!(envelope.source.is_none() && envelope.offset == 0 && envelope.time.is_none(), "believed: {envelope:?}");
        delivered(envelope);
    }
}

fn wire(frame: &Frame) -> Wire {
    let message = |message: &Typed| Some(message.envelope.clone());
    match frame {
        Frame::Connect { token, resume } => Wire::Connect(v1::Connect {
            token: token.clone().unwrap_or_default(),
            resume: resume.as_deref().map(wire_resume),
        }),
        Frame::Message(typed) => Wire::Message(typed.envelope.clone()),
        Frame::Request { message: typed, timeout } => {
            let timeout = timeout.map(|span| span.try_into().expect("it came from one"));
            Wire::Request(v1::Request { message: message(typed), timeout })
        }
        Frame::Subscribe { channel, since, presence } => {
            let from = wire_from(*since);
            Wire::Subscribe(v1::Subscribe { channel: channel.to_string(), from, presence: *presence })
        }
        Frame::Unsubscribe { channel } => Wire::Unsubscribe(v1::Unsubscribe { channel: channel.to_string() }),
        Frame::Publish { channel, message: typed } => {
            Wire::Publish(v1::Publish { channel: channel.to_string(), message: message(typed) })
        }
        Frame::Ack { received, inbox_offset } => {
            Wire::Ack(v1::ClientAck { received: *received, inbox_offset: *inbox_offset })
        }
        Frame::History { channel, page, limit } => {
            assert!((1..=HISTORY_LIMIT_MAX).contains(limit), "{limit}");
            let page = match *page {
                Page::After(offset) => WirePage::After(offset),
                Page::Before(offset) => WirePage::Before(offset),
            };
            Wire::History(v1::ReadHistory { channel: channel.to_string(), limit: *limit, page: Some(page) })
        }
        Frame::Presence { channel } => Wire::Presence(v1::ReadPresence { channel: channel.to_string() }),
        Frame::Ping => Wire::Ping(v1::Ping {}),
    }
}

fn wire_resume(resume: &Resume) -> v1::Resume {
    let Resume { session, token, received, channels, outstanding } = resume.clone();
    let position = |(channel, offset): (trestle_wire::ChannelName, u64)| {
        let channel = channel.to_string();
        v1::Position { channel, offset }
    };
    let (session_id, channels) = (session.to_string(), channels.into_iter().map(position).collect());
    v1::Resume { session_id, token, received, channels, outstanding }
}

fn wire_from(since: Since) -> Option<From> {
    Some(match since {
        Since::Now => return None,
        Since::Offset(offset) => From::Offset(offset),
        Since::Last(count) => From::Last(count),
        Since::Time(time) => From::Since(time.into()),
    })
}

/// A delivery of it is JSON, with the payload as an object.
fn delivered(envelope: &v1::Envelope) {
    let frame = v1::ServerFrame { reply_to: 0, frame: Some(Served::Delivery(envelope.clone())) };
    let json = encode(Encoding::Json, &frame, catalogue());
    let json: serde_json::Value = serde_json::from_slice(json.as_bytes()).expect("a server frame is JSON");
    assert!(json["delivery"]["payload"].is_object() || json["delivery"]["payloadBase64"].is_string(), "{json}");
}

/// A refusal has a sentence of bearable length, whatever was sent.
fn refused(rejected: &Rejected) {
    let refusal = &rejected.refusal;
    assert!(!refusal.message.is_empty());
    assert!(refusal.message.len() < 4096, "{} bytes of message", refusal.message.len());
    assert!(refusal.field.as_ref().is_none_or(|field| field.len() < 8192));
}
