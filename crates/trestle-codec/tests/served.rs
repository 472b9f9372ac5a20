//! What holds for everything that clients receive, whatever it is: canonical JSON, and protobuf that comes back the same.

mod common;

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    catalogue,
    random::{headers, text},
};
use proptest::{collection, option, prelude::*, sample};
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use prost_types::{Duration, Timestamp};
use serde_json::Value;
use trestle_codec::{Encoding, encode, join};
use trestle_wire::{
    DESCRIPTORS,
    v1::{self, server_frame::Frame},
};

/// Descriptor of `ServerFrame`, for prost-reflect.
static SERVER_FRAME: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("a valid set");
    pool.get_message_by_name("trestle.v1.ServerFrame").expect("one of the gateway's types")
});

/// Times of the years 1 to 9999, which have a text.
fn time() -> impl Strategy<Value = Option<Timestamp>> {
    let time = (-62_135_596_800..=253_402_300_799_i64, prop_oneof![Just(0), 0..1_000_000_000_i32]);
    option::of(time.prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }))
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    let duration = (0..315_576_000_000_i64, prop_oneof![Just(0), 0..1_000_000_000_i32]);
    option::of(duration.prop_map(|(seconds, nanos)| Duration { seconds, nanos }))
}

fn envelope() -> impl Strategy<Value = v1::Envelope> {
    let name = sample::select(vec!["chat.v1.Comment", "test.v1.Thing", "shop.v2.OrderPaid", "gone.v1.Type", "\"\\"]);
    // Of a message without an offset there is no one before it.
    let offsets = prop_oneof![Just((0, 0)), (1..=u64::MAX, any::<u64>())];
    let source = option::of([text(), text(), text(), text()]);
    (name, collection::vec(any::<u8>(), 0..24), headers(), offsets, (time(), time()), [text(), text(), text()], source)
        .prop_map(
            |(
                name,
                payload,
                headers,
                (offset, prev_offset),
                (time, deadline),
                [id, channel, correlation_id],
                source,
            )| {
                v1::Envelope {
                    id,
                    message_type: name.to_owned(),
                    payload: payload.into(),
                    channel,
                    correlation_id,
                    headers,
                    offset,
                    prev_offset,
                    time,
                    deadline,
                    source: source.map(|[session, user, node, service]| v1::Source { session, user, node, service }),
                    ..Default::default()
                }
            },
        )
}

fn subscribed() -> impl Strategy<Value = v1::Subscribed> {
    (text(), any::<bool>(), any::<u64>()).prop_map(|(channel, recovered, offset)| v1::Subscribed {
        channel,
        recovered,
        offset,
    })
}

fn connected() -> impl Strategy<Value = v1::Connected> {
    let numbers = (any::<bool>(), any::<u32>(), any::<u64>());
    ([text(), text(), text(), text()], numbers, [duration(), duration()], collection::vec(subscribed(), 0..3)).prop_map(
        |(
            [session_id, resume_token, user, node],
            (resumed, frame_bytes_max, received),
            [ping_interval, resume_window],
            subscriptions,
        )| {
            v1::Connected {
                session_id,
                resume_token,
                resumed,
                ping_interval,
                user,
                node,
                frame_bytes_max,
                received,
                subscriptions,
                resume_window,
            }
        },
    )
}

fn members() -> impl Strategy<Value = Vec<v1::PresenceMember>> {
    collection::vec((text(), text()).prop_map(|(session_id, user)| v1::PresenceMember { session_id, user }), 0..4)
}

fn presence() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (text(), any::<(u32, u32, bool)>(), members()).prop_map(|(channel, (sessions, users, complete), members)| {
            Frame::Presence(v1::PresenceState { channel, sessions, users, members, complete })
        }),
        (text(), any::<(u32, u32)>(), members(), members()).prop_map(|(channel, (sessions, users), joined, left)| {
            Frame::PresenceEvent(v1::PresenceEvent { channel, joined, left, sessions, users })
        }),
    ]
}

fn server_frame() -> impl Strategy<Value = v1::ServerFrame> {
    let kind =
        prop_oneof![
            connected().prop_map(Frame::Connected),
            envelope().prop_map(Frame::Delivery),
            envelope().prop_map(Frame::Reply),
            subscribed().prop_map(Frame::Subscribed),
            text().prop_map(|channel| Frame::Unsubscribed(v1::Unsubscribed { channel })),
            (any::<i32>(), any::<u64>()).prop_map(|(level, offset)| Frame::Accepted(v1::Accepted { level, offset })),
            (text(), collection::vec(envelope(), 0..3), any::<(bool, u64)>()).prop_map(
                |(channel, messages, (more, offset))| {
                    Frame::History(v1::HistoryPage { channel, messages, more, offset })
                }
            ),
            presence(),
            (0..20_i32, [text(), text(), text()], any::<bool>(), duration()).prop_map(
                |(code, [reason, message, field], retryable, retry_after)| {
                    Frame::Error(v1::Error { code, reason, message, field, retryable, retry_after })
                }
            ),
            (text(), any::<[u64; 3]>(), 0..8_i32).prop_map(|(channel, [from, to, count], reason)| Frame::Gap(
                v1::Gap { channel, from, to, count, reason }
            )),
            (text(), duration(), duration()).prop_map(|(endpoint, reconnect_after, deadline)| {
                Frame::Draining(v1::DrainNotice { endpoint, reconnect_after, deadline })
            }),
            Just(Frame::Pong(v1::Pong {})),
        ];
    (any::<u32>(), option::weighted(0.95, kind)).prop_map(|(reply_to, frame)| v1::ServerFrame { reply_to, frame })
}

/// Puts the payload's bytes where canonical JSON has them; an object of a known type and `payloadBase64` are the two things
/// in which the gateway's JSON is not canonical.
fn with_bytes(json: &mut Value, envelope: &v1::Envelope) {
    let object = json.as_object_mut().expect("an envelope is an object");
    match (object.remove("payload"), object.remove("payloadBase64")) {
        (Some(payload), None) => {
            assert!(payload.is_object(), "{payload}");
            let kind = catalogue().get(&envelope.message_type).expect("known, if the payload is an object");
            kind.json_to_protobuf(payload.to_string().as_bytes()).expect("what is written can be read");
        }
        (None, Some(base64)) => assert_eq!(base64, STANDARD.encode(&envelope.payload)),
        other => panic!("one of the two: {other:?}"),
    }
    object.insert("payload".to_owned(), STANDARD.encode(&envelope.payload).into());
}

fn canonical(frame: &v1::ServerFrame, mut json: Value) -> Value {
    match &frame.frame {
        Some(Frame::Delivery(envelope)) => with_bytes(&mut json["delivery"], envelope),
        Some(Frame::Reply(envelope)) => with_bytes(&mut json["reply"], envelope),
        Some(Frame::History(page)) => {
            let messages = json["history"]["messages"].as_array_mut().expect("always there");
            assert_eq!(messages.len(), page.messages.len());
            messages.iter_mut().zip(&page.messages).for_each(|(json, envelope)| with_bytes(json, envelope));
        }
        _ => {}
    }
    json
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_reflection_reads_from_the_json_is_the_frame(frame in server_frame()) {
        let json = encode(Encoding::Json, &frame, catalogue());
        let json = canonical(&frame, serde_json::from_slice(json.payload()).expect("JSON"));
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let read = DynamicMessage::deserialize_with_options(SERVER_FRAME.clone(), &json, &options);
        let read = read.unwrap_or_else(|fault| panic!("{fault}: {json}"));
        prop_assert_eq!(read.transcode_to::<v1::ServerFrame>().expect("a ServerFrame"), frame);
    }

    #[test]
    fn frames_that_are_joined_are_the_same_frames(frames in collection::vec(server_frame(), 0..4)) {
        let all = |encoding| frames.iter().map(|frame| encode(encoding, frame, catalogue())).collect::<Vec<_>>();

        let alone: Vec<Value> = all(Encoding::Json).iter()
            .map(|frame| serde_json::from_slice(frame.payload()).expect("JSON")).collect();
        let joined: Value = serde_json::from_slice(join(Encoding::Json, &all(Encoding::Json)).payload()).expect("JSON");
        let expected = if alone.len() == 1 { alone[0].clone() } else { Value::Array(alone) };
        prop_assert_eq!(joined, expected);

        let joined = join(Encoding::Protobuf, &all(Encoding::Protobuf));
        prop_assert_eq!(v1::ServerFrames::decode(joined.payload()).expect("ServerFrames").frames, frames);
    }

    #[test]
    fn a_time_that_is_none_still_gives_json(
        (seconds, nanos) in any::<(i64, i32)>(), (wait, wait_nanos) in any::<(i64, i32)>(),
    ) {
        let time = Some(Timestamp { seconds, nanos });
        let span = Some(Duration { seconds: wait, nanos: wait_nanos });
        let frames = [
            Frame::Delivery(v1::Envelope { time, deadline: time, ..Default::default() }),
            Frame::Error(v1::Error { retry_after: span, ..Default::default() }),
            Frame::Draining(v1::DrainNotice { reconnect_after: span, ..Default::default() }),
        ];
        for frame in frames {
            let frame = v1::ServerFrame { reply_to: 1, frame: Some(frame) };
            let json = encode(Encoding::Json, &frame, catalogue());
            prop_assert!(serde_json::from_slice::<Value>(json.payload()).is_ok());
        }
    }
}
