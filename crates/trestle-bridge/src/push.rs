//! Station 11, push: a service's message for a target, stamped and put on the bus.
//!
//! In: a target and a message. Out: an envelope on the target's subject, and a report of what became of it. What always
//! holds: nothing goes out whose payload is not a valid message of a known type, or whose source is not this node's
//! word.

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use prost::Message as _;
use trestle_bus::{BusError, Subject};
use trestle_telemetry::{Kind, Span};
use trestle_wire::{ChannelName, Reason, Refusal, ServiceName, SessionId, subject::token, v1};

use crate::{Shared, target, target::Target};

/// Whom a push can be for.
pub(crate) const TARGETS: &str = "channel, session, group, user, tags, everyone, inbox";
/// Most headers of a message.
const HEADERS_MAX: usize = 32;
/// Most bytes of a message's headers, keys and values together.
const HEADER_BYTES_MAX: usize = 4096;
/// Longest id of a message, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Where a push comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin<'a> {
    /// The attached service, if it came on its stream.
    pub(crate) service: Option<&'a ServiceName>,
    /// The caller's `traceparent`, for a message that has none of its own.
    pub(crate) traceparent: Option<&'a str>,
}

/// A push that can go out.
#[derive(Debug)]
pub(crate) struct Prepared {
    target: Target,
    subject: Subject,
    /// Into a channel's history or a user's inbox, rather than to whoever listens now.
    stored: bool,
    dedup: Option<String>,
    body: Bytes,
    span: Option<Span>,
}

/// Where a push to a target goes.
struct Way {
    subject: Subject,
    /// The channel that it is on; none for what is pushed to sessions.
    channel: Option<ChannelName>,
    /// Whether a log keeps it.
    stored: bool,
    /// The push to the sessions that match, around the envelope.
    selected: Option<v1::SelectedPush>,
}

impl Shared {
    /// Pushes one message; with `count`, the report says how many sessions took it.
    ///
    /// # Errors
    /// Those of the input, and of the bus.
    pub(crate) async fn push(
        &self,
        origin: Origin<'_>,
        request: v1::PushRequest,
        count: bool,
    ) -> Result<v1::PushReport, Refusal> {
        let prepared = self.prepare(origin, request)?;
        self.send(prepared, count).await
    }

    /// Everything that can be wrong with a push is found here, before anything goes out.
    ///
    /// # Errors
    /// Those of the input.
    pub(crate) fn prepare(&self, origin: Origin<'_>, request: v1::PushRequest) -> Result<Prepared, Refusal> {
        let target = target::word(request.target.as_ref());
        let result = self.check(origin, request);
        if let Err(refusal) = &result {
            self.metrics.not_pushed(target, refusal.reason);
        }
        result
    }

    fn check(&self, origin: Origin<'_>, request: v1::PushRequest) -> Result<Prepared, Refusal> {
        let target = Target::parse(request.target, TARGETS)?;
        let Way { subject, channel, stored, selected } = self.way(&target)?;

        let message = request
            .message
            .ok_or_else(|| Refusal::new(Reason::MalformedFrame, "the push has no message").field("message"))?;
        if message.source.is_some() {
            let sentence = "the gateway says who sent a message; leave it out";
            return Err(Refusal::new(Reason::ReservedField, sentence).field("message.source"));
        }
        check_id(&message.id, "message.id")?;
        check_id(&message.correlation_id, "message.correlation_id")?;

        let mut envelope = self.stamp(origin.service, message, "message")?;
        envelope.channel = channel.map(|channel| channel.as_str().to_owned()).unwrap_or_default();
        let dedup = if envelope.id.is_empty() {
            envelope.id = v1::Envelope::new_id();
            None
        } else {
            Some(dedup(origin.service, &subject, &envelope.id))
        };
        let span = self.push_span(origin, &subject, &mut envelope);
        let body = match selected {
            Some(selected) => v1::SelectedPush { envelope: Some(envelope), ..selected }.encode_to_vec(),
            None => envelope.encode_to_vec(),
        };
        Ok(Prepared { target, subject, stored, dedup, body: body.into(), span })
    }

    fn way(&self, target: &Target) -> Result<Way, Refusal> {
        let live = |subject| Way { subject, channel: None, stored: false, selected: None };
        Ok(match target {
            Target::Channel(channel) => {
                let view = self.namespace_view(channel, "target.channel")?;
                let subject = if view.history { self.subjects.log(channel) } else { self.subjects.channel(channel) };
                Way { subject, channel: Some(channel.clone()), stored: view.history, selected: None }
            }
            Target::Session(session) => live(self.subjects.session(session)),
            Target::Group(group) => live(self.subjects.group(group)),
            Target::User(user) => live(self.subjects.user(user)),
            Target::Tags(selector) => {
                let selector = selector.as_str().to_owned();
                Way {
                    selected: Some(v1::SelectedPush { selector, ..Default::default() }),
                    ..live(self.subjects.select())
                }
            }
            Target::Everyone(except) if except.is_empty() => live(self.subjects.all()),
            Target::Everyone(except) => {
                let except_sessions = except.iter().map(SessionId::to_string).collect();
                let selected = v1::SelectedPush { except_sessions, ..Default::default() };
                Way { selected: Some(selected), ..live(self.subjects.select()) }
            }
            Target::Inbox(user) => {
                let channel = ChannelName::inbox(user);
                Way { subject: self.subjects.log(&channel), channel: Some(channel), stored: true, selected: None }
            }
        })
    }

    /// What a service says, as an envelope of this node: its type by full name and version, its payload checked, its
    /// source and time set. Of the message, id, correlation id and headers are kept; `path` names it in refusals.
    ///
    /// # Errors
    /// Unknown type or version, a payload that does not fit, headers that break the rules.
    pub(crate) fn stamp(
        &self,
        service: Option<&ServiceName>,
        message: v1::Envelope,
        path: &str,
    ) -> Result<v1::Envelope, Refusal> {
        let catalogue = self.schemas.current();
        let kind = catalogue.resolve(&message.message_type, &message.version).map_err(|refusal| {
            let name = if refusal.reason == Reason::UnknownVersion { "version" } else { "message_type" };
            Refusal { field: None, ..refusal }.field(format!("{path}.{name}"))
        })?;
        kind.validate(&message.payload).map_err(|refusal| in_message(path, refusal))?;
        check_headers(&message, path)?;
        Ok(v1::Envelope {
            id: message.id,
            message_type: replaced(message.message_type, kind.full_name()),
            version: replaced(message.version, kind.version()),
            payload: message.payload,
            time: Some(SystemTime::now().into()),
            correlation_id: message.correlation_id,
            source: Some(v1::Source {
                node: self.node.as_str().to_owned(),
                service: service.map(|service| service.as_str().to_owned()).unwrap_or_default(),
                ..v1::Source::default()
            }),
            headers: message.headers,
            ..v1::Envelope::default()
        })
    }

    fn push_span(&self, origin: Origin<'_>, subject: &Subject, envelope: &mut v1::Envelope) -> Option<Span> {
        let own = envelope.headers.get("traceparent").map(String::as_str);
        let context = self.tracer.enter(own.or(origin.traceparent))?;
        let Some(mut span) = self.tracer.span("push", Kind::Producer, &context) else {
            context.carry(&mut envelope.headers);
            return None;
        };
        span.set("messaging.system", "trestle");
        span.set("messaging.operation.name", "push");
        span.set("messaging.operation.type", "send");
        span.set("messaging.destination.name", subject.as_str().to_owned());
        span.set("messaging.message.id", envelope.id.clone());
        span.set("trestle.message_type", envelope.message_type.clone());
        span.context().carry(&mut envelope.headers);
        Some(span)
    }

    /// Puts it on the bus; with `count`, the report says how many sessions took it.
    ///
    /// # Errors
    /// Those of the bus.
    pub(crate) async fn send(&self, push: Prepared, count: bool) -> Result<v1::PushReport, Refusal> {
        let Prepared { target, subject, stored, dedup, body, span } = push;
        let result = if stored {
            let appended = self.fabric.log.append(&subject, dedup.as_deref(), body).await;
            let queued = u32::from(matches!(target, Target::Inbox(_)));
            appended.map(|appended| v1::PushReport { offset: appended.offset, queued, ..v1::PushReport::default() })
        } else if count {
            self.counted(&target, &subject, body).await
        } else {
            self.fabric.bus.publish(&subject, body).await.map(|()| v1::PushReport::default())
        };
        self.sent(&target, span, result)
    }

    /// Puts one that nobody stores or counts on the bus, once; `None` if that has no room now.
    pub(crate) fn send_now(&self, push: &mut Prepared) -> Option<Result<v1::PushReport, Refusal>> {
        let result = self.fabric.bus.publish(&push.subject, push.body.clone()).now_or_never()?;
        Some(self.sent(&push.target, push.span.take(), result.map(|()| v1::PushReport::default())))
    }

    /// What became of a push, noted.
    fn sent(
        &self,
        target: &Target,
        mut span: Option<Span>,
        result: Result<v1::PushReport, BusError>,
    ) -> Result<v1::PushReport, Refusal> {
        let result = result.map_err(|error| {
            let refusal = Refusal::from(error);
            if let Some(span) = &mut span {
                span.fail(refusal.reason.row().word);
            }
            refusal
        });
        match &result {
            Ok(_) => self.metrics.pushed(target.word()),
            Err(refusal) => self.metrics.not_pushed(target.word(), refusal.reason),
        }
        result
    }

    async fn counted(&self, target: &Target, subject: &Subject, body: Bytes) -> Result<v1::PushReport, BusError> {
        let counts = self.counts(target, subject, body, self.config.count_quiet).await?;
        let v1::PushCount { node: _, delivered, dropped, queued } = counts;
        let one = matches!(target, Target::Session(_) | Target::User(_));
        let offline = u32::from(one && delivered + dropped + queued == 0);
        Ok(v1::PushReport { counted: true, delivered, dropped, queued, offline, ..v1::PushReport::default() })
    }
}

impl Prepared {
    /// Where it goes.
    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether a log keeps it.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }
}

/// `text`, which nearly always is `by` already.
fn replaced(text: String, by: &str) -> String {
    if text == by { text } else { by.to_owned() }
}

/// By what a stored push is known when it is repeated: an id is unique per source and channel. A log remembers the ids
/// of all its channels together, and those of clients, which begin with another letter.
fn dedup(service: Option<&ServiceName>, subject: &Subject, id: &str) -> String {
    format!("push:{}/{subject}/{id}", token(service.map_or("", ServiceName::as_str)))
}

/// A payload's refusal, its field named from where `path` is the message; schemas name fields from `payload` on.
pub(crate) fn in_message(path: &str, refusal: Refusal) -> Refusal {
    let field = refusal.field.as_deref().unwrap_or("payload");
    Refusal { field: Some(format!("{path}.{field}")), ..refusal }
}

fn check_id(id: &str, path: &str) -> Result<(), Refusal> {
    if id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
        let sentence = format!("an id is at most {ID_BYTES_MAX} bytes without control characters");
        return Err(Refusal::new(Reason::InvalidId, sentence).field(path));
    }
    Ok(())
}

fn check_headers(message: &v1::Envelope, path: &str) -> Result<(), Refusal> {
    let refuse = |sentence: String| Err(Refusal::new(Reason::InvalidHeader, sentence).field(format!("{path}.headers")));
    let headers = &message.headers;
    if headers.len() > HEADERS_MAX {
        return refuse(format!("{} headers; at most {HEADERS_MAX} are allowed", headers.len()));
    }
    let bytes: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX {
        return refuse(format!("headers of {bytes} bytes; at most {HEADER_BYTES_MAX} are allowed"));
    }
    for (key, value) in headers {
        let lower_case = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
        if key.is_empty() || !key.bytes().all(lower_case) {
            return refuse(format!("header key {key:?} is not lower-case printable ASCII"));
        }
        if value.chars().any(char::is_control) {
            return refuse(format!("the value of header {key:?} has control characters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_services_and_its_channels_own() {
        let service = |name| ServiceName::parse(name).expect("valid");
        let (one, two) = (Subject::from_trusted("t.log.room.1"), Subject::from_trusted("t.log.room.2"));
        assert_eq!(dedup(Some(&service("billing")), &one, "a/b"), "push:billing/t.log.room.1/a/b");
        assert_eq!(dedup(None, &one, "a"), "push:%/t.log.room.1/a");
        assert_ne!(dedup(None, &one, "a"), dedup(None, &two, "a"));
        assert_ne!(dedup(None, &one, "a"), dedup(Some(&service("billing")), &one, "a"));
    }
}
