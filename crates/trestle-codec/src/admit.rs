//! A frame as it was read in, a frame whose every name is parsed and every rule kept out: the same for both encodings.

use std::time::Duration;

use prost_types::Duration as WireDuration;
use serde_json::value::RawValue;
use trestle_schema::Catalogue;
use trestle_wire::{
    ChannelName, Reason, Refusal,
    v1::{self, client_frame::Frame as WireFrame},
};

use crate::{Encoding, Frame, Inbound, Limits, Rejected};

/// A frame as one of the decoders read it.
#[derive(Default)]
pub(crate) struct Draft<'a> {
    pub(crate) id: u32,
    pub(crate) frame: Option<WireFrame>,
    pub(crate) payload: Payload<'a>,
    /// Whether the envelope's fields stand in the frame itself, without a `message` around them.
    pub(crate) shorthand: bool,
}

/// Where the payload of a draft's envelope is.
#[derive(Clone, Copy, Default)]
pub(crate) enum Payload<'a> {
    /// In the envelope already, as bytes of protobuf.
    #[default]
    InEnvelope,
    /// Here, as JSON text; `None` where the client left it out.
    Json(Option<&'a RawValue>),
}

/// What frames are checked against.
pub(crate) struct Admission<'a> {
    pub(crate) encoding: Encoding,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) limits: &'a Limits,
}

impl Admission<'_> {
    /// Checks one frame; a refusal carries the frame's id.
    pub(crate) fn admit(&self, draft: Draft<'_>) -> Result<Inbound, Rejected> {
        let id = draft.id;
        match self.frame(draft) {
            Ok(frame) => Ok(Inbound { id, frame }),
            Err(refusal) => Err(Rejected { id, refusal }),
        }
    }

    fn frame(&self, draft: Draft<'_>) -> Result<Frame, Refusal> {
        let Draft { frame, payload, shorthand, .. } = draft;
        let Some(frame) = frame else {
            return Err(Refusal::new(Reason::EmptyFrame, "the frame holds none of the kinds that this gateway knows"));
        };
        Ok(match frame {
            WireFrame::Connect(v1::Connect { token }) => {
                Frame::Connect { token: Some(token).filter(|token| !token.is_empty()) }
            }
            WireFrame::Message(envelope) => {
                let base = if shorthand { "" } else { "message" };
                Frame::Message(self.envelope(base, envelope, payload, None)?)
            }
            WireFrame::Request(v1::Request { message, timeout }) => Frame::Request {
                message: self.envelope("request.message", given(message, "request.message")?, payload, None)?,
                timeout: timeout.map(span).transpose()?,
            },
            WireFrame::Subscribe(v1::Subscribe { channel }) => {
                Frame::Subscribe { channel: channel_name(&channel, "subscribe.channel")? }
            }
            WireFrame::Unsubscribe(v1::Unsubscribe { channel }) => {
                Frame::Unsubscribe { channel: channel_name(&channel, "unsubscribe.channel")? }
            }
            WireFrame::Publish(v1::Publish { channel, message }) => {
                let channel = channel_name(&channel, "publish.channel")?;
                let envelope = given(message, "publish.message")?;
                let message = self.envelope("publish.message", envelope, payload, Some(&channel))?;
                Frame::Publish { channel, message }
            }
            WireFrame::Ping(v1::Ping {}) => Frame::Ping,
        })
    }
}

fn given(message: Option<v1::Envelope>, path: &str) -> Result<v1::Envelope, Refusal> {
    message.ok_or_else(|| Refusal::new(Reason::MalformedFrame, "the message is missing").field(path))
}

fn channel_name(name: &str, path: &str) -> Result<ChannelName, Refusal> {
    ChannelName::parse(name).map_err(|fault| Refusal::new(Reason::InvalidChannel, fault.to_string()).field(path))
}

/// A client's timeout as a span of time; `Duration` of protobuf allows ones that are none.
fn span(timeout: WireDuration) -> Result<Duration, Refusal> {
    match (u64::try_from(timeout.seconds), u32::try_from(timeout.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 && (seconds, nanos) != (0, 0) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(invalid_timeout("it must be more than 0, with nanos from 0 to 999999999")),
    }
}

/// The refusal of a request's timeout, whichever decoder finds it.
pub(crate) fn invalid_timeout(fault: &str) -> Refusal {
    Refusal::new(Reason::InvalidTimeout, fault).field("request.timeout")
}
