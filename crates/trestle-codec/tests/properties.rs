//! What holds for every input: no panic, no lost frame, and the two encodings mean the same.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::catalogue;
use proptest::{collection, option, prelude::*, sample};
use prost::Message;
use prost_types::{Duration, Timestamp};
use serde_json::{Value, json};
use trestle_codec::{Encoding, Inbound, Limits, Rejected, decode, encode, join};
use trestle_wire::v1::{self, client_frame::Frame as Wire, server_frame::Frame as Served};

fn decoded(encoding: Encoding, message: impl Into<Bytes>) -> Vec<Result<Inbound, Rejected>> {
    decode(encoding, &message.into(), catalogue(), &Limits::default())
}

/// Text with all that is hard about text: quotes, escapes, control characters, other planes.
fn text() -> impl Strategy<Value = String> {
    collection::vec(prop_oneof![4 => any::<char>(), 4 => proptest::char::range(' ', '~'), 1 => Just('"')], 0..12)
        .prop_map(String::from_iter)
}

fn channel() -> impl Strategy<Value = String> {
    prop_oneof![4 => "(room|live):[a-z0-9]{0,5}", 1 => text()]
}

fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop_oneof![
        4 => collection::btree_map("[a-z-]{1,8}", "[ -~]{0,8}", 0..4),
        1 => collection::btree_map(text(), text(), 0..3),
    ]
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

/// A frame of a client in both encodings.
fn client_frame() -> impl Strategy<Value = (v1::ClientFrame, Value)> {
    let kind = prop_oneof![
        text().prop_map(|token| (
            Wire::Connect(v1::Connect { token: token.clone() }),
            json!({"connect": {"token": token}})
        )),
        said().prop_map(|said| (Wire::Message(said.protobuf()), json!({"message": said.json()}))),
        (said(), option::of((-2_i64..100, 0_i32..1_000_000_000))).prop_map(|(said, timeout)| {
            // Seconds below 0 need nanos below 0; in JSON they are one number.
            let timeout =
                timeout.map(|(seconds, nanos)| Duration { seconds, nanos: if seconds < 0 { -nanos } else { nanos } });
            let text = timeout.as_ref().map(|timeout| timeout.to_string());
            let request = v1::Request { message: Some(said.protobuf()), timeout };
            (Wire::Request(request), json!({"request": {"message": said.json(), "timeout": text}}))
        }),
        channel().prop_map(|channel| {
            (Wire::Subscribe(v1::Subscribe { channel: channel.clone() }), json!({"subscribe": {"channel": channel}}))
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

fn server_envelope() -> impl Strategy<Value = v1::Envelope> {
    let name = sample::select(vec!["chat.v1.Comment", "test.v1.Thing", "shop.v2.OrderPaid", "gone.v1.Type", "\"\\"]);
    let time = option::of((any::<i64>(), any::<i32>()));
    (name, collection::vec(any::<u8>(), 0..24), headers(), any::<(u64, u64)>(), time, (text(), text())).prop_map(
        |(name, payload, headers, (offset, prev_offset), time, (id, user))| v1::Envelope {
            id,
            message_type: name.to_owned(),
            payload: payload.into(),
            headers,
            offset,
            prev_offset,
            time: time.map(|(seconds, nanos)| Timestamp { seconds, nanos }),
            source: Some(v1::Source { user, ..Default::default() }),
            ..Default::default()
        },
    )
}

fn server_frame() -> impl Strategy<Value = v1::ServerFrame> {
    let kind = prop_oneof![
        server_envelope().prop_map(Served::Delivery),
        server_envelope().prop_map(Served::Reply),
        (text(), any::<bool>(), any::<u64>())
            .prop_map(|(channel, recovered, offset)| Served::Subscribed(v1::Subscribed { channel, recovered, offset })),
        (any::<i32>(), any::<u64>()).prop_map(|(level, offset)| Served::Accepted(v1::Accepted { level, offset })),
        (any::<i32>(), text(), text(), option::of(any::<(i64, i32)>())).prop_map(|(code, message, field, wait)| {
            let retry_after = wait.map(|(seconds, nanos)| Duration { seconds, nanos });
            Served::Error(v1::Error { code, message, field, retry_after, ..Default::default() })
        }),
        (text(), any::<[u64; 3]>(), any::<i32>())
            .prop_map(|(channel, [from, to, count], reason)| Served::Gap(v1::Gap { channel, from, to, count, reason })),
        Just(Served::Pong(v1::Pong {})),
    ];
    (any::<u32>(), option::weighted(0.95, kind)).prop_map(|(reply_to, frame)| v1::ServerFrame { reply_to, frame })
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

    #[test]
    fn every_server_frame_is_json_and_comes_back_from_protobuf(frames in collection::vec(server_frame(), 0..4)) {
        let all = |encoding| frames.iter().map(|frame| encode(encoding, frame, catalogue())).collect::<Vec<_>>();

        let alone: Vec<Value> = all(Encoding::Json).iter()
            .map(|frame| serde_json::from_slice(frame.as_bytes()).expect("JSON")).collect();
        for (frame, json) in frames.iter().zip(&alone) {
            prop_assert_eq!(u64::from(frame.reply_to), json["replyTo"].as_u64().unwrap_or(0));
        }
        let joined: Value = serde_json::from_slice(&join(Encoding::Json, &all(Encoding::Json))).expect("JSON");
        let expected = if alone.len() == 1 { alone[0].clone() } else { Value::Array(alone) };
        prop_assert_eq!(joined, expected);

        let joined = join(Encoding::Protobuf, &all(Encoding::Protobuf));
        prop_assert_eq!(v1::ServerFrames::decode(joined).expect("ServerFrames").frames, frames);
    }
}
