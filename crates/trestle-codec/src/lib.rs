//! Client frames to envelopes and back. No I/O.
//!
//! Station 5 of the way of a message. In comes one WebSocket message of a client; out come its [frames](Inbound), each
//! with names parsed, headers checked and the payload in protobuf, or [why not](Rejected). On the way back a
//! [`ServerFrame`](trestle_wire::v1::ServerFrame) is [encoded](encode()) once for each [`Encoding`] and [joined](join) with others into one message.
//!
//! What always holds: a faulty frame takes no other frame of its message with it; the payload of a protobuf client is
//! forwarded as the very bytes that came, so that fields unknown here survive; both encodings of one frame give the same
//! [`Inbound`], because both go through the same checks.

mod admit;
mod depth;
mod encode;
mod envelope;
mod frame;
mod json;
mod limits;
mod message;
mod protobuf;
mod writer;

use bytes::Bytes;
use trestle_schema::Catalogue;

pub use encode::encode;
pub use frame::{Frame, Inbound, Page, Rejected, Resume, Since, Typed};
pub use limits::{HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, Limits, RESUME_CHANNELS_MAX, RESUME_OUTSTANDING_MAX};
pub use message::{Encoded, join};

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
