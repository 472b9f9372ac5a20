//! A frame for a client in, its bytes in one encoding out; several of them joined into one WebSocket message.
//!
//! Nothing here can fail: what is delivered was checked when it came in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{Message as _, encoding};
use trestle_schema::Catalogue;
use trestle_wire::v1::{self, server_frame::Frame};

use crate::{Encoding, writer::Object};

/// One server frame, finished for one encoding: a JSON object, or a `ServerFrames` with one frame.
///
/// Cheap to clone: the fan-out makes one and gives it to every session of the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Takes bytes that are one finished frame of the encoding they will be written in.
    #[must_use]
    pub fn from_finished(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// What goes into the WebSocket message if the frame goes alone.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many bytes that is; what the outbox counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a frame has at least its braces or its tag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Encodes one frame.
///
/// A payload whose type is not in `catalogue`, or that does not fit it, goes to JSON clients as `payloadBase64`, the bytes of
/// protobuf: schemas may have been reloaded since it was stored, and a delivery with a hole would be worse.
#[must_use]
pub fn encode(encoding: Encoding, frame: &v1::ServerFrame, catalogue: &Catalogue) -> Encoded {
    match encoding {
        Encoding::Protobuf => {
            // The encoding of ServerFrames { frames: vec![frame] }, without the clone.
            let mut bytes = BytesMut::with_capacity(frame.encoded_len() + 8);
            encoding::message::encode(1, frame, &mut bytes);
            Encoded(bytes.freeze())
        }
        Encoding::Json => {
            let mut out = Vec::with_capacity(256); // an ordinary delivery has 150-250 bytes without its payload
            write_frame(&mut out, frame, catalogue);
            Encoded(out.into())
        }
    }
}

/// One WebSocket message out of frames of the same encoding: the frame itself, or an array of them in JSON; in protobuf
/// the concatenation, which is how protobuf joins repeated fields.
#[must_use]
pub fn join(encoding: Encoding, frames: &[Encoded]) -> Bytes {
    if let [frame] = frames {
        return frame.0.clone();
    }
    let bytes: usize = frames.iter().map(Encoded::len).sum();
    let mut out = BytesMut::with_capacity(bytes + frames.len() + 1);
    match encoding {
        Encoding::Protobuf => frames.iter().for_each(|frame| out.put_slice(&frame.0)),
        Encoding::Json => {
            let mut before = b'[';
            for frame in frames {
                out.put_u8(before);
                out.put_slice(&frame.0);
                before = b',';
            }
            out.put_slice(if frames.is_empty() { b"[]" } else { b"]" });
        }
    }
    out.freeze()
}

fn write_frame(out: &mut Vec<u8>, frame: &v1::ServerFrame, catalogue: &Catalogue) {
    let mut json = Object::begin(out);
    if frame.reply_to != 0 {
        json.number("replyTo", frame.reply_to.into());
    }
    match &frame.frame {
        Some(Frame::Connected(connected)) => write_connected(json.object("connected"), connected),
        Some(Frame::Accepted(accepted)) => {
            let mut json = json.object("accepted");
            write_enum(
                &mut json,
                "level",
                accepted.level,
                v1::AckLevel::try_from(accepted.level).map(|l| l.as_str_name()),
            );
            json.quoted_if("offset", accepted.offset);
            json.end();
        }
        Some(Frame::Reply(envelope)) => write_envelope(json.object("reply"), envelope, catalogue),
        Some(Frame::Delivery(envelope)) => write_envelope(json.object("delivery"), envelope, catalogue),
        Some(Frame::Subscribed(subscribed)) => {
            let mut json = json.object("subscribed");
            json.text("channel", &subscribed.channel);
            json.boolean("recovered", subscribed.recovered);
            json.quoted_if("offset", subscribed.offset);
            json.end();
        }
        Some(Frame::Unsubscribed(unsubscribed)) => {
            let mut json = json.object("unsubscribed");
            json.text("channel", &unsubscribed.channel);
            json.end();
        }
        Some(Frame::Gap(gap)) => {
            let mut json = json.object("gap");
            json.text("channel", &gap.channel);
            json.quoted_if("from", gap.from);
            json.quoted_if("to", gap.to);
            json.quoted_if("count", gap.count);
            write_enum(&mut json, "reason", gap.reason, v1::GapReason::try_from(gap.reason).map(|r| r.as_str_name()));
            json.end();
        }
        Some(Frame::Error(error)) => write_error(json.object("error"), error),
        Some(Frame::Pong(v1::Pong {})) => json.object("pong").end(),
        None => {}
    }
    json.end();
}

fn write_connected(mut json: Object<'_>, connected: &v1::Connected) {
    json.text("sessionId", &connected.session_id);
    json.boolean("resumed", connected.resumed);
    if let Some(interval) = &connected.ping_interval {
        json.quoted("pingInterval", interval);
    }
    json.text_if("user", &connected.user);
    json.text_if("node", &connected.node);
    if connected.frame_bytes_max != 0 {
        json.number("frameBytesMax", connected.frame_bytes_max.into());
    }
    json.end();
}

fn write_error(mut json: Object<'_>, error: &v1::Error) {
    write_enum(&mut json, "code", error.code, v1::Code::try_from(error.code).map(|c| c.as_str_name()));
    json.text("reason", &error.reason);
    json.text("message", &error.message);
    json.text_if("field", &error.field);
    json.boolean("retryable", error.retryable);
    if let Some(wait) = &error.retry_after {
        json.quoted("retryAfter", wait);
    }
    json.end();
}

fn write_envelope(mut json: Object<'_>, envelope: &v1::Envelope, catalogue: &Catalogue) {
    json.text_if("id", &envelope.id);
    json.text("messageType", &envelope.message_type);
    json.text_if("version", &envelope.version);
    json.text_if("channel", &envelope.channel);
    if envelope.offset != 0 {
        json.quoted("offset", envelope.offset);
        json.quoted("prevOffset", envelope.prev_offset); // also 0: the first of a channel follows nothing
    }
    write_payload(&mut json, envelope, catalogue);
    if let Some(time) = &envelope.time {
        json.quoted("time", time);
    }
    json.text_if("correlationId", &envelope.correlation_id);
    if let Some(source) = &envelope.source {
        let mut json = json.object("source");
        json.text_if("session", &source.session);
        json.text_if("user", &source.user);
        json.text_if("node", &source.node);
        json.text_if("service", &source.service);
        json.end();
    }
    if !envelope.headers.is_empty() {
        let mut json = json.object("headers");
        for (key, value) in &envelope.headers {
            json.entry(key, value);
        }
        json.end();
    }
    if let Some(deadline) = &envelope.deadline {
        json.quoted("deadline", deadline);
    }
    json.end();
}

fn write_payload(json: &mut Object<'_>, envelope: &v1::Envelope, catalogue: &Catalogue) {
    let written = catalogue
        .get(&envelope.message_type)
        .is_some_and(|kind| json.attempt("payload", |out| kind.protobuf_to_json(&envelope.payload, out)).is_ok());
    if !written {
        json.quoted("payloadBase64", STANDARD.encode(&envelope.payload));
    }
}

/// An enum's value by name; by number where this build has no name for it, as proto3 JSON asks.
fn write_enum<E>(json: &mut Object<'_>, field: &'static str, number: i32, name: Result<&'static str, E>) {
    match name {
        Ok(name) => json.text(field, name),
        Err(_) => json.number(field, number.into()),
    }
}
