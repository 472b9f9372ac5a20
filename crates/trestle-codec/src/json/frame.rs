//! A client's JSON, one level down: which kinds of frame there are, and the fields of those that carry a message.

use prost_types::{Duration, Timestamp};
use serde::de::{Error as _, MapAccess};
use serde_json::value::RawValue;
use trestle_wire::{
    Reason, Refusal,
    v1::{self, client_frame::Frame as WireFrame},
};

use super::object::{Fields, Value};
use crate::admit::{Draft, Payload, invalid_timeout};

/// A frame while it is read. An envelope's payload stays beside it, as text.
#[derive(Default)]
pub(super) struct FrameDraft<'de> {
    id: u32,
    kind: Option<(&'static str, WireFrame)>,
    payload: Option<&'de RawValue>,
    /// The short form: fields of an envelope in the frame itself.
    short: MessageDraft<'de>,
    /// The first such field.
    short_by: Option<&'static str>,
}

impl<'de> FrameDraft<'de> {
    /// The frame, if its fields go together.
    pub(super) fn finish(self) -> Result<Draft<'de>, Refusal> {
        let Self { id, kind, payload, short, short_by } = self;
        match (kind, short_by) {
            (kind, None) => {
                let frame = kind.map(|(_, frame)| frame);
                Ok(Draft { id, frame, payload: Payload::Json(payload), shorthand: false })
            }
            (Some((kind, _)), Some(by)) => {
                let said = format!("it is part of a message in short form, but the frame is a `{kind}` already");
                Err(Refusal::new(Reason::MalformedFrame, said).field(by))
            }
            (None, Some(by)) if short.envelope.message_type.is_empty() => {
                let said = "it is part of a message in short form, which needs `messageType` beside it";
                Err(Refusal::new(Reason::MalformedFrame, said).field(by))
            }
            (None, Some(_)) => {
                let frame = Some(WireFrame::Message(short.envelope));
                Ok(Draft { id, frame, payload: Payload::Json(short.payload), shorthand: true })
            }
        }
    }

    fn message(&mut self, message: MessageDraft<'de>) -> v1::Envelope {
        self.payload = message.payload;
        message.envelope
    }
}

impl<'de> Fields<'de> for FrameDraft<'de> {
    const WHAT: &'static str = "a frame";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "id"),
        ("connect", "connect"),
        ("message", "message"),
        ("request", "request"),
        ("subscribe", "subscribe"),
        ("unsubscribe", "unsubscribe"),
        ("publish", "publish"),
        ("ack", "ack"),
        ("history", "history"),
        ("presence", "presence"),
        ("ping", "ping"),
        ("messageType", "message_type"),
        ("version", "version"),
        ("payload", "payload"),
        ("channel", "channel"),
        ("offset", "offset"),
        ("prevOffset", "prev_offset"),
        ("time", "time"),
        ("correlationId", "correlation_id"),
        ("source", "source"),
        ("headers", "headers"),
        ("deadline", "deadline"),
    ];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let frame = match name {
            "id" => {
                self.id = value.unsigned_32()?.unwrap_or_default();
                return Ok(());
            }
            "connect" => value.object()?.map(WireFrame::Connect),
            "message" => value.object()?.map(|message| WireFrame::Message(self.message(message))),
            "request" => value.object()?.map(|RequestDraft { message, timeout }| {
                let message = message.map(|message| self.message(message));
                WireFrame::Request(v1::Request { message, timeout })
            }),
            "subscribe" => value.object()?.map(WireFrame::Subscribe),
            "unsubscribe" => value.object()?.map(WireFrame::Unsubscribe),
            "publish" => value.object()?.map(|PublishDraft { channel, message }| {
                let message = message.map(|message| self.message(message));
                WireFrame::Publish(v1::Publish { channel, message })
            }),
            "ack" => value.object()?.map(WireFrame::Ack),
            "history" => value.object()?.map(WireFrame::History),
            "presence" => value.object()?.map(WireFrame::Presence),
            "ping" => value.object()?.map(WireFrame::Ping),
            _ => {
                self.short_by.get_or_insert(name);
                return self.short.take(name, value);
            }
        };
        if let Some(frame) = frame {
            if let Some((first, _)) = self.kind {
                return Err(A::Error::custom(format_args!(
                    "the frame is a `{first}` already; send another frame for it"
                )));
            }
            self.kind = Some((name, frame));
        }
        Ok(())
    }
}

/// An envelope, and its payload as text.
#[derive(Default)]
struct MessageDraft<'de> {
    envelope: v1::Envelope,
    payload: Option<&'de RawValue>,
}

impl<'de> Fields<'de> for MessageDraft<'de> {
    const WHAT: &'static str = "a message";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "id"),
        ("messageType", "message_type"),
        ("version", "version"),
        ("payload", "payload"),
        ("channel", "channel"),
        ("offset", "offset"),
        ("prevOffset", "prev_offset"),
        ("time", "time"),
        ("correlationId", "correlation_id"),
        ("source", "source"),
        ("headers", "headers"),
        ("deadline", "deadline"),
    ];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        let to = &mut self.envelope;
        match name {
            "id" => to.id = value.text()?.unwrap_or_default(),
            "messageType" => to.message_type = value.text()?.unwrap_or_default(),
            "version" => to.version = value.text()?.unwrap_or_default(),
            "payload" => self.payload = value.raw()?,
            "channel" => to.channel = value.text()?.unwrap_or_default(),
            "correlationId" => to.correlation_id = value.text()?.unwrap_or_default(),
            "headers" => to.headers = value.texts()?,
            // Set by the gateway: it is enough to know that they are there. `time` is overwritten, so not even that.
            "offset" => to.offset = value.unsigned_64()?.unwrap_or_default(),
            "prevOffset" => to.prev_offset = value.unsigned_64()?.unwrap_or_default(),
            "source" => to.source = value.raw()?.map(|_| v1::Source::default()),
            "deadline" => to.deadline = value.raw()?.map(|_| Timestamp::default()),
            _ => _ = value.raw()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct RequestDraft<'de> {
    message: Option<MessageDraft<'de>>,
    timeout: Option<Duration>,
}

impl<'de> Fields<'de> for RequestDraft<'de> {
    const WHAT: &'static str = "a request";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("message", "message"), ("timeout", "timeout")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        if name == "message" {
            self.message = value.object()?;
            return Ok(());
        }
        let trail = value.trail;
        let timeout = value.text()?.map(|text| text.parse());
        self.timeout = timeout.transpose().map_err(|_| {
            trail.found(invalid_timeout("it must be a number of seconds with an `s` behind it, such as `2s` or `0.5s`"))
        })?;
        Ok(())
    }
}

#[derive(Default)]
struct PublishDraft<'de> {
    channel: String,
    message: Option<MessageDraft<'de>>,
}

impl<'de> Fields<'de> for PublishDraft<'de> {
    const WHAT: &'static str = "a publish";
    const FIELDS: &'static [(&'static str, &'static str)] = &[("channel", "channel"), ("message", "message")];

    fn take<A: MapAccess<'de>>(&mut self, name: &'static str, value: Value<'_, A>) -> Result<(), A::Error> {
        match name {
            "channel" => self.channel = value.text()?.unwrap_or_default(),
            _ => self.message = value.object()?,
        }
        Ok(())
    }
}
