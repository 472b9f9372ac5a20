//! A client's envelope in, the same with its type out: who may say what in it, and how much.

use bytes::Bytes;
use std::collections::BTreeMap;

use trestle_schema::MessageType;
use trestle_wire::{ChannelName, Reason, Refusal, v1};

use crate::{
    Encoding, Limits, Typed,
    admit::{Admission, Payload},
};

impl Admission<'_> {
    /// Checks the envelope at `base` of its frame. It may name the `channel` that it is published on, and no other.
    ///
    /// What is cheap comes first: the payload is looked at only once all else is right.
    pub(crate) fn envelope(
        &self,
        base: &str,
        mut envelope: v1::Envelope,
        payload: Payload<'_>,
        channel: Option<&ChannelName>,
    ) -> Result<Typed, Refusal> {
        let names = Names::of(self.encoding);
        let at = |refusal: Refusal, name: &str| {
            let path = [Some(base), Some(name), refusal.field.as_deref()];
            let path: Vec<&str> = path.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            let path = path.join(".");
            refusal.field(path)
        };

        if let Some(name) = reserved(&envelope, &names) {
            return Err(at(Refusal::new(Reason::ReservedField, "only the gateway sets it; leave it out"), name));
        }
        identifier(&envelope.id, self.limits).map_err(|refusal| at(refusal, "id"))?;
        identifier(&envelope.correlation_id, self.limits).map_err(|refusal| at(refusal, names.correlation_id))?;
        headers(&envelope.headers, self.limits).map_err(|refusal| at(refusal, "headers"))?;
        agree(&mut envelope.channel, channel).map_err(|refusal| at(refusal, "channel"))?;

        if envelope.message_type.is_empty() {
            return Err(at(Refusal::new(Reason::UnknownType, "the message does not say its type"), names.message_type));
        }
        let kind = self.catalogue.resolve(&envelope.message_type, &envelope.version).map_err(|refusal| {
            let name = if refusal.reason == Reason::UnknownVersion { "version" } else { names.message_type };
            at(Refusal { field: None, ..refusal }, name)
        })?;
        envelope.payload = checked(kind, envelope.payload, payload).map_err(|refusal| at(refusal, ""))?;
        envelope.message_type = kind.full_name().to_owned();
        envelope.version = kind.version().to_owned();
        envelope.time = None; // the gateway's clock counts, and it stamps later
        Ok(Typed { envelope, kind: kind.clone() })
    }
}

/// The names of two words, as the client's encoding writes them.
struct Names {
    message_type: &'static str,
    correlation_id: &'static str,
    prev_offset: &'static str,
}

impl Names {
    const fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => {
                Self { message_type: "messageType", correlation_id: "correlationId", prev_offset: "prevOffset" }
            }
            Encoding::Protobuf => {
                Self { message_type: "message_type", correlation_id: "correlation_id", prev_offset: "prev_offset" }
            }
        }
    }
}

/// The first field that is set though only the gateway may. `time` is not among them: it is simply overwritten.
fn reserved(envelope: &v1::Envelope, names: &Names) -> Option<&'static str> {
    if envelope.source.is_some() {
        Some("source")
    } else if envelope.offset != 0 {
        Some("offset")
    } else if envelope.prev_offset != 0 {
        Some(names.prev_offset)
    } else if envelope.deadline.is_some() {
        Some("deadline")
    } else {
        None
    }
}

fn identifier(id: &str, limits: &Limits) -> Result<(), Refusal> {
    let max = limits.id_bytes_max;
    if id.len() > max {
        return Err(Refusal::new(Reason::InvalidId, format!("it has {} bytes, more than {max}", id.len())));
    }
    if let Some(bad) = id.chars().find(|c| c.is_control()) {
        return Err(Refusal::new(Reason::InvalidId, format!("it contains the control character {bad:?}")));
    }
    Ok(())
}

/// Keys are lower-case tokens (RFC 9110, 5.6.2) so that they fit every broker's headers; values have no control characters.
fn headers(headers: &BTreeMap<String, String>, limits: &Limits) -> Result<(), Refusal> {
    let refusal = |said: String| Refusal::new(Reason::InvalidHeader, said);
    if headers.len() > limits.headers_max {
        return Err(refusal(format!("there are {}, more than {}", headers.len(), limits.headers_max)));
    }
    let bytes: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > limits.header_bytes_max {
        return Err(refusal(format!("they have {bytes} bytes, more than {}", limits.header_bytes_max)));
    }
    for (key, value) in headers {
        if key.is_empty() {
            return Err(refusal("a key is empty".to_owned()));
        }
        if let Some(bad) = key.chars().find(|&c| !is_lower_token(c)) {
            let said = format!("the key contains {bad:?}; lower-case letters, digits and !#$%&'*+-.^_`|~ are allowed");
            return Err(refusal(said).field(key));
        }
        if let Some(bad) = value.chars().find(|c| c.is_control()) {
            return Err(refusal(format!("the value contains the control character {bad:?}")).field(key));
        }
    }
    Ok(())
}

fn is_lower_token(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Makes the envelope name the channel it is published on; what goes to a service has none.
fn agree(named: &mut String, channel: Option<&ChannelName>) -> Result<(), Refusal> {
    match channel {
        Some(channel) if named.is_empty() => channel.as_str().clone_into(named),
        Some(channel) if named != channel.as_str() => {
            let said = format!("it is not the channel {channel} of the publish; leave it out");
            return Err(Refusal::new(Reason::InvalidChannel, said));
        }
        None if !named.is_empty() => {
            let said = "a message to a service has no channel; leave it out, or use publish";
            return Err(Refusal::new(Reason::InvalidChannel, said));
        }
        _ => {}
    }
    Ok(())
}

/// The payload as valid protobuf: a protobuf client's own bytes, a JSON client's transcoded.
fn checked(kind: &MessageType, bytes: Bytes, payload: Payload<'_>) -> Result<Bytes, Refusal> {
    let bytes = match payload {
        Payload::InEnvelope | Payload::Json(None) => bytes,
        Payload::Json(Some(json)) => kind.json_to_protobuf(json.get().as_bytes())?,
    };
    kind.validate(&bytes)?;
    Ok(bytes)
}
