//! The body of `POST /v1/push`: `trestle.v1.PushRequest` in canonical proto3 JSON, with the payload as an object.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use trestle_schema::Catalogue;
use trestle_wire::{
    Reason, Refusal,
    v1::{self, target},
};

use crate::push::{TARGETS, in_message};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push<'a> {
    #[serde(borrow)]
    target: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    channel: Option<String>,
    session: Option<String>,
    group: Option<String>,
    user: Option<String>,
    tags: Option<String>,
    everyone: Option<Everyone>,
    inbox: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Everyone {
    #[serde(default, alias = "except_sessions")]
    except_sessions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Message<'a> {
    #[serde(alias = "message_type")]
    message_type: Option<String>,
    version: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    id: Option<String>,
    #[serde(alias = "correlation_id")]
    correlation_id: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    // The gateway's own: known, so that they are refused by name.
    channel: Option<IgnoredAny>,
    offset: Option<IgnoredAny>,
    #[serde(alias = "prev_offset")]
    prev_offset: Option<IgnoredAny>,
    time: Option<IgnoredAny>,
    source: Option<IgnoredAny>,
    deadline: Option<IgnoredAny>,
}

/// Reads a push.
///
/// # Errors
/// [`Reason::MalformedFrame`] where it is not that JSON, [`Reason::InvalidTarget`] for none or several targets,
/// [`Reason::ReservedField`], and those of the type and its payload; the field is named.
pub(crate) fn parse(body: &[u8], catalogue: &Catalogue) -> Result<v1::PushRequest, Refusal> {
    let push: Push<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error, ""))?;
    let target = parse_target(push.target)?;
    let message =
        push.message.ok_or_else(|| Refusal::new(Reason::MalformedFrame, "the push has no message").field("message"))?;
    let message = parse_message(message, catalogue)?;
    Ok(v1::PushRequest { target: Some(v1::Target { target: Some(target) }), message: Some(message) })
}

fn parse_target(target: Option<&RawValue>) -> Result<target::Target, Refusal> {
    let invalid = |sentence: &str| Refusal::new(Reason::InvalidTarget, sentence).field("target");
    let none = || invalid(&format!("no target is named: one of {TARGETS}"));
    let target = target.ok_or_else(none)?;
    let target: Target = serde_json::from_str(target.get()).map_err(|error| malformed(&error, "target"))?;
    let named = [
        target.channel.map(target::Target::Channel),
        target.session.map(target::Target::Session),
        target.group.map(target::Target::Group),
        target.user.map(target::Target::User),
        target.tags.map(target::Target::Tags),
        target.everyone.map(|Everyone { except_sessions }| target::Target::Everyone(v1::Everyone { except_sessions })),
        target.inbox.map(target::Target::Inbox),
    ];
    let mut named = named.into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(target), None) => Ok(target),
        (None, _) => Err(none()),
        (Some(_), Some(_)) => Err(invalid("the push names more than one target")),
    }
}

fn parse_message(message: &RawValue, catalogue: &Catalogue) -> Result<v1::Envelope, Refusal> {
    let message: Message<'_> = serde_json::from_str(message.get()).map_err(|error| malformed(&error, "message"))?;
    let reserved = [
        ("channel", message.channel.is_some()),
        ("offset", message.offset.is_some()),
        ("prevOffset", message.prev_offset.is_some()),
        ("time", message.time.is_some()),
        ("source", message.source.is_some()),
        ("deadline", message.deadline.is_some()),
    ];
    if let Some((name, _)) = reserved.iter().find(|(_, given)| *given) {
        let sentence = format!("the gateway sets {name}; leave it out");
        return Err(Refusal::new(Reason::ReservedField, sentence).field(format!("message.{name}")));
    }
    let message_type = message.message_type.filter(|name| !name.is_empty()).ok_or_else(|| {
        Refusal::new(Reason::UnknownType, "the message names no messageType").field("message.messageType")
    })?;
    let version = message.version.unwrap_or_default();
    let kind = catalogue.resolve(&message_type, &version).map_err(|refusal| {
        let name = if refusal.reason == Reason::UnknownVersion { "version" } else { "messageType" };
        Refusal { field: None, ..refusal }.field(format!("message.{name}"))
    })?;
    // Absent is empty, as everywhere in proto3.
    let payload = message.payload.map_or("{}", RawValue::get);
    let payload = kind.json_to_protobuf(payload.as_bytes()).map_err(|refusal| in_message("message", refusal))?;
    Ok(v1::Envelope {
        id: message.id.unwrap_or_default(),
        message_type: kind.full_name().to_owned(),
        version: kind.version().to_owned(),
        payload,
        correlation_id: message.correlation_id.unwrap_or_default(),
        headers: message.headers.unwrap_or_default(),
        ..v1::Envelope::default()
    })
}

fn malformed(error: &serde_json::Error, path: &str) -> Refusal {
    let refusal = Refusal::new(Reason::MalformedFrame, format!("the body is not a push in JSON: {error}"));
    if path.is_empty() { refusal } else { refusal.field(path) }
}
