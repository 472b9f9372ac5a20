//! What a program reads from a subscription, and what it reads of messages it left lying too long.

use trestle_wire::v1;

use crate::backlog::Item;

/// What comes unasked.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // nearly all are messages; a box would cost each of them an allocation
pub enum Event {
    /// A message.
    Message(v1::Envelope),
    /// Messages that are missing here: not kept by the gateway, lost with it, or not kept by this client because the
    /// program did not read.
    Gap(v1::Gap),
    /// Who came to the channel and who left it; for a subscription that [asked](crate::Listen::presence) for it.
    Presence(v1::PresenceEvent),
    /// A fault that belongs to no frame of the program; on a subscription: the gateway no longer lets the client listen
    /// there, and it ends.
    Error(v1::Error),
}

impl Event {
    /// The message as one of type `M`; what is not one comes back as it is.
    #[must_use]
    pub fn decode<M: prost::Message + prost::Name + Default>(self) -> Typed<M> {
        match self {
            Self::Message(envelope) if envelope.message_type == M::full_name() => {
                match M::decode(envelope.payload.clone()) {
                    Ok(message) => Typed::Message(message, envelope),
                    Err(fault) => Typed::Malformed(envelope, fault),
                }
            }
            other => Typed::Other(other),
        }
    }
}

/// An [`Event`] of a channel on which messages of type `M` are expected.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // as Event
pub enum Typed<M> {
    /// A message, and the envelope it came in.
    Message(M, v1::Envelope),
    /// A message whose payload does not fit its type.
    Malformed(v1::Envelope, prost::DecodeError),
    /// A message of another type, a gap, or what else there is.
    Other(Event),
}

impl Item for Event {
    fn missing(&self) -> v1::Gap {
        let slow = |channel: &str| v1::Gap {
            channel: channel.to_owned(),
            count: 1,
            reason: v1::GapReason::Slow.into(),
            ..Default::default()
        };
        match self {
            Self::Message(envelope) => {
                v1::Gap { from: envelope.offset, to: envelope.offset, ..slow(&envelope.channel) }
            }
            Self::Gap(gap) => gap.clone(),
            Self::Presence(event) => slow(&event.channel),
            Self::Error(_) => slow(""),
        }
    }

    fn gap(gap: v1::Gap) -> Self {
        Self::Gap(gap)
    }
}
