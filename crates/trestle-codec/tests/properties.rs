//! What holds for everything that clients send: no panic, no lost frame, and the two encodings mean the same.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{
    catalogue,
    random::{headers, text},
};
use proptest::{collection, option, prelude::*, sample};
use prost::Message;
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use trestle_codec::{Encoding, Inbound, Limits, Rejected, decode};
use trestle_wire::v1::{self, client_frame::Frame as Wire, read_history::Page, subscribe::From};

fn decoded(encoding: Encoding, message: impl Into<Bytes>) -> Vec<Result<Inbound, Rejected>> {
    decode(encoding, &message.into(), catalogue(), &Limits::default())
}

fn channel() -> impl Strategy<Value = String> {
    prop_oneof![4 => "(room|live):[a-z0-9]{0,5}", 1 => text()]
}

/// What both encodings can say of an envelope; the payload is `chat.v1.Comment`'s text.
#[derive(Clone, Debug)]
struct Said {
    id: String,
    message_type: String,
    version: String,
    correlation_id: String,
    channel: String,
    headers: BTreeMap<String, String>,
    offset: u64,
    text: String,
}

prop_compose! {
    fn said()(
        id in prop_oneof![4 => "[a-z0-9]{0,6}".boxed(), 1 => text().boxed()],
        message_type in prop_oneof![6 => Just("chat.v1.Comment".to_owned()).boxed(), 1 => text().boxed()],
        version in prop_oneof![3 => Just(String::new()), 2 => Just("1".to_owned()), 1 => Just("2".to_owned())],
        correlation_id in prop_oneof![3 => Just(String::new()).boxed(), 1 => text().boxed()],
        channel in prop_oneof![6 => Just(String::new()).boxed(), 1 => channel().boxed()],
        headers in headers(),
        offset in prop_oneof![6 => Just(0), 1 => any::<u64>()],
        text in text(),
    ) -> Said {
        Said { id, message_type, version, correlation_id, channel, headers, offset, text }
    }
}

impl Said {
    fn protobuf(&self) -> v1::Envelope {
        let payload = if self.text.is_empty() { Bytes::new() } else { common::comment(&self.text) };
        let Self { id, message_type, version, correlation_id, channel, headers, offset, .. } = self.clone();
        v1::Envelope {
            id,
            message_type,
            version,
            correlation_id,
            channel,
            headers,
            offset,
            payload,
            ..Default::default()
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "messageType": self.message_type, "version": self.version, "channel": self.channel,
            "correlationId": self.correlation_id, "headers": self.headers, "offset": self.offset.to_string(),
            "payload": {"text": self.text},
        })
    }
}

/// Ids of sessions, most of them valid.
fn session_id() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-z][a-z0-9-]{0,8}\\.[0-9a-f]{32}", 1 => text()]
}

/// A resume in both encodings; few channels and ids, so that some are there twice, and sometimes too many.
fn resume() -> impl Strategy<Value = (v1::Resume, Value)> {
    let count = prop_oneof![8 => 0..4_usize, 1 => 255..258_usize];
    let names = prop_oneof![8 => "(room|live):[a-z]{3,5}", 1 => text()];
    let channels = count.clone().prop_flat_map(move |n| collection::vec((names.clone(), any::<u64>()), n));
    let outstanding = count.prop_flat_map(|n| collection::vec(prop_oneof![20 => any::<u32>(), 1 => 0..3_u32], n));
    (session_id(), text(), option::of(any::<u64>()), channels, outstanding).prop_map(
        |(session_id, token, received, channels, outstanding)| {
            let json = json!({
                "sessionId": session_id, "token": token, "received": received.map(|count| count.to_string()),
                "channels": channels.iter().map(|(channel, offset)| json!({"channel": channel, "offset": offset})).collect::<Vec<_>>(),
                "outstanding": outstanding,
            });
            let position = |(channel, offset)| v1::Position { channel, offset };
            let channels = channels.into_iter().map(position).collect();
            (v1::Resume { session_id, token, received, channels, outstanding }, json)
        },
    )
}

/// Where a subscribe begins, in both encodings.
fn from() -> impl Strategy<Value = (Option<From>, Value)> {
    // What has a text in JSON: the years 1 to 9999. Other times are looked at in `protobuf_in`.
    let time = (-62_135_596_800..=253_402_300_799_i64, 0..1_000_000_000_i32);
    prop_oneof![
        Just((None, json!({}))),
        any::<u64>().prop_map(|offset| (Some(From::Offset(offset)), json!({"offset": offset.to_string()}))),
        prop_oneof![0..3_u32, any::<u32>()].prop_map(|last| (Some(From::Last(last)), json!({"last": last}))),
        time.prop_map(|(seconds, nanos)| {
            let time = Timestamp { seconds, nanos };
            (Some(From::Since(time)), json!({"since": time.to_string()}))
        }),
    ]
}

fn limit() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..4_u32, 1 => 255..258_u32, 1 => any::<u32>()]
}

/// A frame of a client in both encodings.
fn client_frame() -> impl Strategy<Value = (v1::ClientFrame, Value)> {
    let kind = prop_oneof![
        (text(), option::of(resume())).prop_map(|(token, resume)| {
            let (resume, json) = resume.unzip();
            (
                Wire::Connect(v1::Connect { token: token.clone(), resume }),
                json!({"connect": {"token": token, "resume": json}}),
            )
        }),
        said().prop_map(|said| (Wire::Message(said.protobuf()), json!({"message": said.json()}))),
        (said(), option::of((-2_i64..100, 0_i32..1_000_000_000))).prop_map(|(said, timeout)| {
            // Seconds below 0 need nanos below 0; in JSON they are one number.
            let timeout =
                timeout.map(|(seconds, nanos)| Duration { seconds, nanos: if seconds < 0 { -nanos } else { nanos } });
            let text = timeout.as_ref().map(|timeout| timeout.to_string());
            let request = v1::Request { message: Some(said.protobuf()), timeout };
            (Wire::Request(request), json!({"request": {"message": said.json(), "timeout": text}}))
        }),
        (channel(), from(), any::<bool>()).prop_map(|(channel, (from, mut json), presence)| {
            json["channel"] = channel.clone().into();
            json["presence"] = presence.into();
            (Wire::Subscribe(v1::Subscribe { channel, presence, from }), json!({"subscribe": json}))
        }),
        any::<(u64, u64)>().prop_map(|(received, inbox_offset)| (
            Wire::Ack(v1::ClientAck { received, inbox_offset }),
            json!({"ack": {"received": received.to_string(), "inboxOffset": inbox_offset}})
        )),
        (channel(), option::of((any::<bool>(), any::<u64>())), limit()).prop_map(|(channel, page, limit)| {
            let mut json = json!({"channel": channel, "limit": limit});
            let page = page.map(|(after, offset)| {
                json[if after { "after" } else { "before" }] = offset.to_string().into();
                if after { Page::After(offset) } else { Page::Before(offset) }
            });
            (Wire::History(v1::ReadHistory { channel, limit, page }), json!({"history": json}))
        }),
        channel().prop_map(|channel| {
            (Wire::Presence(v1::ReadPresence { channel: channel.clone() }), json!({"presence": {"channel": channel}}))
        }),
        channel().prop_map(|channel| {
            (
                Wire::Unsubscribe(v1::Unsubscribe { channel: channel.clone() }),
                json!({"unsubscribe": {"channel": channel}}),
            )
        }),
        (channel(), option::weighted(0.9, said())).prop_map(|(channel, said)| {
            let publish = v1::Publish { channel: channel.clone(), message: said.as_ref().map(Said::protobuf) };
            let message = said.as_ref().map(Said::json);
            (Wire::Publish(publish), json!({"publish": {"channel": channel, "message": message}}))
        }),
        Just((Wire::Ping(v1::Ping {}), json!({"ping": {}}))),
    ];
    (any::<u32>(), kind).prop_map(|(id, (frame, mut json))| {
        json["id"] = id.into();
        (v1::ClientFrame { id, frame: Some(frame) }, json)
    })
}

/// What a frame became, without the words: sentences and paths name things as the encoding does.
fn meaning(frames: Vec<Result<Inbound, Rejected>>) -> Vec<Result<Inbound, (u32, &'static str)>> {
    let word = |rejected: Rejected| (rejected.id, rejected.refusal.reason.row().word);
    frames.into_iter().map(|frame| frame.map_err(word)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_bytes_at_all_make_a_decoder_panic_or_say_nothing(message in collection::vec(any::<u8>(), 0..200)) {
        for encoding in Encoding::ALL {
            prop_assert!(!decoded(encoding, message.clone()).is_empty());
        }
    }

    #[test]
    fn a_frame_with_one_byte_changed_makes_no_decoder_panic(
        (frame, json) in client_frame(), at in any::<sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let protobuf = v1::ClientFrames { frames: vec![frame] }.encode_to_vec();
        for (encoding, mut message) in [(Encoding::Protobuf, protobuf), (Encoding::Json, json.to_string().into_bytes())] {
            let at = at.index(message.len());
            message[at] = byte;
            if cut {
                message.truncate(at);
            }
            prop_assert!(!decoded(encoding, message).is_empty());
        }
    }

    #[test]
    fn both_encodings_of_a_frame_mean_the_same(frames in collection::vec(client_frame(), 1..4)) {
        let (frames, json): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
        let from_protobuf = decoded(Encoding::Protobuf, v1::ClientFrames { frames }.encode_to_vec());
        let from_json = decoded(Encoding::Json, Value::Array(json).to_string());
        prop_assert_eq!(meaning(from_protobuf), meaning(from_json));
    }
}
