//! A frame as it was read in, a frame whose every name is parsed and every rule kept out: the same for both encodings.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use prost_types::Duration as WireDuration;
use serde_json::value::RawValue;
use trestle_schema::{Catalogue, check_timestamp};
use trestle_wire::{
    ChannelName, Reason, Refusal, SessionId,
    v1::{self, client_frame::Frame as WireFrame, read_history::Page as WirePage, subscribe::From},
};

use crate::{
    Encoding, Frame, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, Inbound, Limits, Page, RESUME_CHANNELS_MAX,
    RESUME_OUTSTANDING_MAX, Rejected, Resume, Since,
};

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
            WireFrame::Connect(v1::Connect { token, resume }) => Frame::Connect {
                token: Some(token).filter(|token| !token.is_empty()),
                resume: resume.map(|resume| self.resume(resume)).transpose()?.map(Box::new),
            },
            WireFrame::Message(envelope) => {
                let base = if shorthand { "" } else { "message" };
                Frame::Message(self.envelope(base, envelope, payload, None)?)
            }
            WireFrame::Request(v1::Request { message, timeout }) => Frame::Request {
                message: self.envelope("request.message", given(message, "request.message")?, payload, None)?,
                timeout: timeout.map(span).transpose()?,
            },
            WireFrame::Subscribe(v1::Subscribe { channel, presence, from }) => Frame::Subscribe {
                channel: channel_name(&channel, "subscribe.channel")?,
                since: since(from)?,
                presence,
            },
            WireFrame::Unsubscribe(v1::Unsubscribe { channel }) => {
                Frame::Unsubscribe { channel: channel_name(&channel, "unsubscribe.channel")? }
            }
            WireFrame::Publish(v1::Publish { channel, message }) => {
                let channel = channel_name(&channel, "publish.channel")?;
                let envelope = given(message, "publish.message")?;
                let message = self.envelope("publish.message", envelope, payload, Some(&channel))?;
                Frame::Publish { channel, message }
            }
            WireFrame::Ack(v1::ClientAck { received, inbox_offset }) => Frame::Ack { received, inbox_offset },
            WireFrame::History(v1::ReadHistory { channel, page, limit }) => Frame::History {
                channel: channel_name(&channel, "history.channel")?,
                page: match page {
                    Some(WirePage::After(offset)) => Page::After(offset),
                    Some(WirePage::Before(offset)) => Page::Before(offset),
                    None => Page::Before(0),
                },
                limit: page_limit(limit)?,
            },
            WireFrame::Presence(v1::ReadPresence { channel }) => {
                Frame::Presence { channel: channel_name(&channel, "presence.channel")? }
            }
            WireFrame::Ping(v1::Ping {}) => Frame::Ping,
        })
    }

    /// A resume with its names parsed, and with each name and id there once.
    fn resume(&self, resume: v1::Resume) -> Result<Resume, Refusal> {
        let v1::Resume { session_id, token, received, channels, outstanding } = resume;
        let id_path = match self.encoding {
            Encoding::Json => "connect.resume.sessionId",
            Encoding::Protobuf => "connect.resume.session_id",
        };
        let session = SessionId::parse(&session_id).map_err(|fault| malformed(fault.to_string(), id_path))?;
        Ok(Resume { session, token, received, channels: positions(&channels)?, outstanding: waiting(outstanding)? })
    }
}

fn positions(channels: &[v1::Position]) -> Result<Vec<(ChannelName, u64)>, Refusal> {
    counted(channels.len(), RESUME_CHANNELS_MAX, "connect.resume.channels")?;
    let mut seen = HashSet::with_capacity(channels.len());
    let position = |(index, v1::Position { channel, offset }): (usize, &v1::Position)| {
        let path = format!("connect.resume.channels[{index}].channel");
        let channel = channel_name(channel, &path)?;
        if !seen.insert(channel.clone()) {
            return Err(malformed(format!("the channel {channel} is there twice"), path));
        }
        Ok((channel, *offset))
    };
    channels.iter().enumerate().map(position).collect()
}

fn waiting(outstanding: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    counted(outstanding.len(), RESUME_OUTSTANDING_MAX, "connect.resume.outstanding")?;
    let mut seen = HashSet::with_capacity(outstanding.len());
    for (index, &id) in outstanding.iter().enumerate() {
        let fault = match id {
            0 => "0 is no id of a frame that waits for its answer; leave it out".to_owned(),
            _ if !seen.insert(id) => format!("the id {id} is there twice"),
            _ => continue,
        };
        return Err(malformed(fault, format!("connect.resume.outstanding[{index}]")));
    }
    Ok(outstanding)
}

fn counted(count: usize, max: usize, path: &str) -> Result<(), Refusal> {
    if count > max {
        return Err(malformed(format!("there are {count}, more than {max}"), path));
    }
    Ok(())
}

fn since(from: Option<From>) -> Result<Since, Refusal> {
    Ok(match from {
        None => Since::Now,
        Some(From::Offset(offset)) => Since::Offset(offset),
        Some(From::Last(0)) => {
            let said = "0 messages are none; ask for 1 or more, or leave it out for what comes from now on";
            return Err(malformed(said, "subscribe.last"));
        }
        Some(From::Last(count)) => Since::Last(count),
        Some(From::Since(time)) => {
            let path = "subscribe.since";
            check_timestamp(&time).map_err(|fault| malformed(fault, path))?;
            let time = SystemTime::try_from(time);
            Since::Time(time.map_err(|_| malformed("the time is not one that this gateway can tell", path))?)
        }
    })
}

fn page_limit(limit: u32) -> Result<u32, Refusal> {
    match limit {
        0 => Ok(HISTORY_LIMIT_DEFAULT),
        1..=HISTORY_LIMIT_MAX => Ok(limit),
        _ => Err(malformed(
            format!("{limit} is more than {HISTORY_LIMIT_MAX}; ask for the next page when this one has come"),
            "history.limit",
        )),
    }
}

fn malformed(said: impl Into<String>, path: impl Into<String>) -> Refusal {
    Refusal::new(Reason::MalformedFrame, said).field(path)
}

fn given(message: Option<v1::Envelope>, path: &str) -> Result<v1::Envelope, Refusal> {
    message.ok_or_else(|| malformed("the message is missing", path))
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
