//! What a program reads from a subscription, and what it reads of messages it left lying too long.

use trestle_wire::v1::{self, server_frame::Frame};

use crate::inbox::Item;

/// What comes unasked.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // nearly all are messages; a box would cost each of them an allocation
pub enum Event {
    /// A message.
    Message(v1::Envelope),
    /// Messages that are missing here: not kept by the gateway, or by this client because the program did not read.
    Gap(v1::Gap),
    /// A fault that belongs to no frame of the program; only among [`Deliveries`](crate::Deliveries).
    Error(v1::Error),
}

impl Event {
    /// The event of an unasked frame; `None` for what a program need not know.
    pub(crate) fn of(frame: v1::ServerFrame) -> Option<Self> {
        match frame.frame {
            Some(Frame::Delivery(envelope)) => Some(Self::Message(envelope)),
            Some(Frame::Gap(gap)) => Some(Self::Gap(gap)),
            Some(Frame::Error(error)) => Some(Self::Error(error)),
            _ => None,
        }
    }

    /// The channel it is of; empty for what came to this session, its user or everyone.
    pub(crate) fn channel(&self) -> &str {
        match self {
            Self::Message(envelope) => &envelope.channel,
            Self::Gap(gap) => &gap.channel,
            Self::Error(_) => "",
        }
    }
}

impl Item for Event {
    fn missing(&self) -> v1::Gap {
        match self {
            Self::Message(envelope) => v1::Gap {
                channel: envelope.channel.clone(),
                from: envelope.offset,
                to: envelope.offset,
                count: 1,
                reason: v1::GapReason::Slow.into(),
            },
            Self::Gap(gap) => gap.clone(),
            Self::Error(_) => v1::Gap { count: 1, reason: v1::GapReason::Slow.into(), ..Default::default() },
        }
    }

    fn gap(gap: v1::Gap) -> Self {
        Self::Gap(gap)
    }
}
