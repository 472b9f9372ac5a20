//! Client frames to envelopes and back. No I/O.
//!
//! Station 5 of the way of a message. In comes one WebSocket message of a client; out come its [frames](Inbound), each
//! with names parsed, headers checked and the payload in protobuf, or [why not](Rejected). On the way back a
//! [`v1::ServerFrame`] is [encoded](encode()) once for each [`Encoding`] and [joined](join) with others into one message.
//!
//! What always holds: a faulty frame takes no other frame of its message with it; the payload of a protobuf client is
//! forwarded as the very bytes that came, so that fields unknown here survive; both encodings of one frame give the same
//! [`Inbound`], because both go through the same checks.

mod admit;
mod depth;
mod encode;
mod envelope;
mod json;
mod limits;
mod protobuf;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use trestle_schema::{Catalogue, MessageType};
use trestle_wire::{ChannelName, Refusal, v1};

pub use encode::{Encoded, encode, join};
pub use limits::Limits;

/// How frames are written on a WebSocket: chosen by the client, by subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text messages in canonical proto3 JSON, payloads as objects.
    Json,
    /// Binary messages: `ClientFrames` and `ServerFrames`.
    Protobuf,
}

impl Encoding {
    /// Every encoding, in the order of [`index`](Self::index).
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "trestle.v1.json",
            Self::Protobuf => "trestle.v1.proto",
        }
    }

    /// The encoding of that subprotocol, compared as RFC 6455 asks: exactly.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// Its place in an array that holds one thing for each encoding.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Json => 0,
            Self::Protobuf => 1,
        }
    }
}

/// One frame of a client, its names parsed, its payload checked and in protobuf.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// Chosen by the client, to be echoed in `reply_to`; 0 means that no answer is wanted.
    pub id: u32,
    /// What the client wants.
    pub frame: Frame,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// To begin its session.
    Connect {
        /// `None`: the token of the upgrade request, if there was one.
        token: Option<String>,
    },
    /// To send a message to the service that its type is routed to.
    Message(Typed),
    /// The same, and to have an answer.
    Request {
        /// The question.
        message: Typed,
        /// How long the client waits, more than 0; `None`: the gateway's default.
        timeout: Option<Duration>,
    },
    /// To receive what is published on a channel.
    Subscribe {
        /// That channel.
        channel: ChannelName,
    },
    /// To receive it no longer.
    Unsubscribe {
        /// That channel.
        channel: ChannelName,
    },
    /// To send a message to everyone on a channel.
    Publish {
        /// That channel; the envelope says the same.
        channel: ChannelName,
        /// What is published.
        message: Typed,
    },
    /// To be answered with a pong.
    Ping,
}

/// A client's message with its type.
///
/// Its `message_type` is the full name, its `version` the type's, its payload valid protobuf of the type that keeps all its
/// rules. What only the gateway may say (`source`, `offset`, `prev_offset`, `time`, `deadline`) is not set.
#[derive(Clone)]
pub struct Typed {
    /// The message.
    pub envelope: v1::Envelope,
    /// Its type.
    pub kind: Arc<MessageType>,
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The kind is said by the envelope.
        f.debug_tuple("Typed").field(&self.envelope).finish()
    }
}

impl PartialEq for Typed {
    fn eq(&self, other: &Self) -> bool {
        self.envelope == other.envelope && self.kind.full_name() == other.kind.full_name()
    }
}

/// A frame that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The frame's id; 0 where it has none or it could not be read.
    pub id: u32,
    /// Why. The field is a path within the frame, such as `publish.message.payload.text`.
    pub refusal: Refusal,
}

/// The frames of one WebSocket message, in their order; never empty.
///
/// `message` is what one text or binary message holds, at most the edge's `frame_bytes_max`.
///
/// # Errors
/// Each frame has its own. What leaves no frame to be told apart (broken JSON, too many frames) is one [`Rejected`] with
/// id 0 for the whole message. If the [row](trestle_wire::refusal::Row) of a refusal has a close code, the connection ends.
#[must_use]
pub fn decode(
    encoding: Encoding,
    message: &Bytes,
    catalogue: &Catalogue,
    limits: &Limits,
) -> Vec<Result<Inbound, Rejected>> {
    let admission = admit::Admission { encoding, catalogue, limits };
    match encoding {
        Encoding::Json => json::decode(message, &admission),
        Encoding::Protobuf => protobuf::decode(message, &admission),
    }
}
