//! What comes out of the decoder: frames whose every name is parsed and every rule kept.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use trestle_schema::MessageType;
use trestle_wire::{ChannelName, Refusal, SessionId, v1};

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
    /// To begin its session, or to go on with an earlier one.
    Connect {
        /// `None`: the token of the upgrade request, if there was one.
        token: Option<String>,
        /// That earlier session.
        resume: Option<Box<Resume>>,
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
        /// Where to begin.
        since: Since,
        /// Whether it wants to know who comes and goes.
        presence: bool,
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
    /// To say what it has taken for good.
    Ack {
        /// Server frames of the session that have come; 0 says nothing new.
        received: u64,
        /// Offset in the user's inbox up to which the user is done; 0 says nothing new.
        inbox_offset: u64,
    },
    /// To read a page of a channel's history.
    History {
        /// That channel.
        channel: ChannelName,
        /// Where the page lies.
        page: Page,
        /// Most messages of the page, from 1 to [`HISTORY_LIMIT_MAX`](crate::HISTORY_LIMIT_MAX).
        limit: u32,
    },
    /// To know who is on a channel.
    Presence {
        /// That channel.
        channel: ChannelName,
    },
    /// To be answered with a pong.
    Ping,
}

/// The session that a client goes on with, and how much of it the client has.
///
/// The token is not verified yet. Channels and outstanding ids are each named once.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume {
    /// That session.
    pub session: SessionId,
    /// The resume token of the last `connected`.
    pub token: String,
    /// Server frames of the session that have come; `None`: the client does not count.
    pub received: Option<u64>,
    /// The last offset that came on each channel; 0 where the channel keeps no history, or none has come.
    pub channels: Vec<(ChannelName, u64)>,
    /// Ids, none of them 0, of the client's frames that wait for their answers.
    pub outstanding: Vec<u32>,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token: what is printed ends up in logs.
        f.debug_struct("Resume")
            .field("session", &self.session)
            .field("received", &self.received)
            .field("channels", &self.channels)
            .field("outstanding", &self.outstanding)
            .finish_non_exhaustive()
    }
}

/// Where a subscription begins, on a channel that keeps a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With what comes from now on; in the inbox, after what the user has acked.
    Now,
    /// After this offset; 0 is everything that is kept.
    Offset(u64),
    /// With the last so many messages, at least 1.
    Last(u32),
    /// With what was accepted at this time or later.
    Time(SystemTime),
}

/// Where a page of a history lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The first messages after this offset; 0 begins with the oldest that is kept.
    After(u64),
    /// The last messages before this offset; 0 begins with the latest.
    Before(u64),
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
