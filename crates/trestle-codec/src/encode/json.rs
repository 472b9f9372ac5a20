//! A frame for a JSON client: which fields are written, and in which order.
//!
//! The values are canonical proto3 JSON. Defaults are left out, but for those that say something to a person who reads along:
//! counts, and what is true or false.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use trestle_schema::Catalogue;
use trestle_wire::v1::{self, server_frame::Frame};

use crate::writer::Object;

pub(super) fn write_frame(out: &mut Vec<u8>, frame: &v1::ServerFrame, catalogue: &Catalogue) {
    let mut json = Object::begin(out);
    if frame.reply_to != 0 {
        json.number("replyTo", frame.reply_to.into());
    }
    match &frame.frame {
        Some(Frame::Connected(connected)) => write_connected(json.object("connected"), connected),
        Some(Frame::Accepted(accepted)) => write_accepted(json.object("accepted"), accepted),
        Some(Frame::Reply(envelope)) => write_envelope(json.object("reply"), envelope, catalogue),
        Some(Frame::Delivery(envelope)) => write_envelope(json.object("delivery"), envelope, catalogue),
        Some(Frame::Subscribed(subscribed)) => write_subscribed(json.object("subscribed"), subscribed),
        Some(Frame::Unsubscribed(unsubscribed)) => {
            let mut json = json.object("unsubscribed");
            json.text("channel", &unsubscribed.channel);
            json.end();
        }
        Some(Frame::History(page)) => write_history(json.object("history"), page, catalogue),
        Some(Frame::Presence(state)) => write_presence(json.object("presence"), state),
        Some(Frame::PresenceEvent(event)) => write_presence_event(json.object("presenceEvent"), event),
        Some(Frame::Gap(gap)) => write_gap(json.object("gap"), gap),
        Some(Frame::Draining(notice)) => write_draining(json.object("draining"), notice),
        Some(Frame::Error(error)) => write_error(json.object("error"), error),
        Some(Frame::Pong(v1::Pong {})) => json.object("pong").end(),
        None => {}
    }
    json.end();
}

fn write_connected(mut json: Object<'_>, connected: &v1::Connected) {
    json.text("sessionId", &connected.session_id);
    json.text_if("resumeToken", &connected.resume_token);
    json.boolean("resumed", connected.resumed);
    if let Some(interval) = &connected.ping_interval {
        json.quoted("pingInterval", interval);
    }
    json.text_if("user", &connected.user);
    json.text_if("node", &connected.node);
    if connected.frame_bytes_max != 0 {
        json.number("frameBytesMax", connected.frame_bytes_max.into());
    }
    json.quoted_if("received", connected.received);
    if !connected.subscriptions.is_empty() {
        json.objects("subscriptions", &connected.subscriptions, write_subscribed);
    }
    if let Some(window) = &connected.resume_window {
        json.quoted("resumeWindow", window);
    }
    json.end();
}

fn write_accepted(mut json: Object<'_>, accepted: &v1::Accepted) {
    write_enum(&mut json, "level", accepted.level, v1::AckLevel::try_from(accepted.level).map(|l| l.as_str_name()));
    json.quoted_if("offset", accepted.offset);
    json.end();
}

fn write_subscribed(mut json: Object<'_>, subscribed: &v1::Subscribed) {
    json.text("channel", &subscribed.channel);
    json.boolean("recovered", subscribed.recovered);
    json.quoted_if("offset", subscribed.offset);
    json.end();
}

fn write_history(mut json: Object<'_>, page: &v1::HistoryPage, catalogue: &Catalogue) {
    json.text("channel", &page.channel);
    json.objects("messages", &page.messages, |json, envelope| write_envelope(json, envelope, catalogue));
    json.boolean("more", page.more);
    json.quoted_if("offset", page.offset);
    json.end();
}

fn write_presence(mut json: Object<'_>, state: &v1::PresenceState) {
    json.text("channel", &state.channel);
    json.number("sessions", state.sessions.into());
    json.number("users", state.users.into());
    if !state.members.is_empty() {
        json.objects("members", &state.members, write_member);
    }
    json.boolean("complete", state.complete);
    json.end();
}

fn write_presence_event(mut json: Object<'_>, event: &v1::PresenceEvent) {
    json.text("channel", &event.channel);
    for (name, members) in [("joined", &event.joined), ("left", &event.left)] {
        if !members.is_empty() {
            json.objects(name, members, write_member);
        }
    }
    json.number("sessions", event.sessions.into());
    json.number("users", event.users.into());
    json.end();
}

fn write_member(mut json: Object<'_>, member: &v1::PresenceMember) {
    json.text("sessionId", &member.session_id);
    json.text_if("user", &member.user);
    json.end();
}

fn write_gap(mut json: Object<'_>, gap: &v1::Gap) {
    json.text("channel", &gap.channel); // also empty: that says what was missed
    json.quoted_if("from", gap.from);
    json.quoted_if("to", gap.to);
    json.quoted_if("count", gap.count);
    write_enum(&mut json, "reason", gap.reason, v1::GapReason::try_from(gap.reason).map(|r| r.as_str_name()));
    json.end();
}

fn write_draining(mut json: Object<'_>, notice: &v1::DrainNotice) {
    json.text_if("endpoint", &notice.endpoint);
    if let Some(wait) = &notice.reconnect_after {
        json.quoted("reconnectAfter", wait);
    }
    if let Some(deadline) = &notice.deadline {
        json.quoted("deadline", deadline);
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
