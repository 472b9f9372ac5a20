//! What happens to a session, told by whoever owns it.

use trestle_auth::Identity;
use trestle_codec::{Inbound, Rejected};
use trestle_wire::{
    ChannelName, GroupName, Refusal, SessionId, Tags,
    v1::{self, server_frame::Frame as Answer},
};

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// A frame came, and it is well-formed.
    Inbound(Inbound),
    /// A frame came that is not.
    Rejected(Rejected),
    /// [`Action::Admit`](crate::Action::Admit) has an answer.
    Admitted(Result<Admitted, Refusal>),
    /// The client has a new socket, on this node, and goes on here where its count was.
    Reattached(Box<Reattached>),
    /// [`Action::Subscribe`](crate::Action::Subscribe), or a channel of [`Resumed::joining`], has an answer. On success
    /// the hub has put `subscribed` into the outbox itself, so that it stands before the channel's first message.
    Subscribed {
        /// The client's frame; 0 after a resume.
        id: u32,
        /// The channel.
        channel: ChannelName,
        /// Whether it is listened to now.
        result: Result<(), Refusal>,
    },
    /// [`Action::Unsubscribe`](crate::Action::Unsubscribe) is done.
    Unsubscribed {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// An action that says so has an answer. Also heard while the client has no socket.
    Settled {
        /// The client's frame.
        id: u32,
        /// Whether it took one of the session's `outstanding_max` places: requests, and messages with `handled`.
        outstanding: bool,
        /// What the client is told.
        result: Result<Answer, Refusal>,
    },
    /// A sign of life that says no more: a ping, bytes that wait to be read.
    Heard,
    /// The answer to one of the gateway's pings: the client has all that was written before that.
    Pong,
    /// [`Session::wakes_at`](crate::Session::wakes_at) has come.
    Tick,
    /// The client has no socket any more: it broke, or was closed with a code that a session
    /// [`survives`](crate::survives).
    Lost,
    /// The client has ended its session, with close code 1000.
    Goodbye,
    /// The session goes on on another node.
    Claimed,
    /// A service changes groups and tags. The target is the bridge's affair.
    Update(v1::UpdateSessionsRequest),
    /// A service or an operator ends the session.
    Kick,
    /// The client is asked to go on elsewhere.
    Notice(v1::DrainNotice),
    /// The node is about to stop.
    Drain,
}

/// Who was admitted.
#[derive(Debug)]
pub enum Admitted {
    /// A client whose session begins.
    New {
        /// Who it is.
        identity: Identity,
        /// What it can resume with; empty if it cannot.
        resume_token: String,
    },
    /// A client whose session began earlier, on this node or another.
    Resumed(Box<Resumed>),
}

/// An earlier session that goes on in this one.
#[derive(Debug)]
pub struct Resumed {
    /// Its id, which this session has from now on.
    pub session: SessionId,
    /// Who it is.
    pub identity: Identity,
    /// What it can resume with next time.
    pub resume_token: String,
    /// What the client's count of frames is now; 0 if it begins anew.
    pub received: u64,
    /// Channels it listens to, as `connected` says.
    pub subscriptions: Vec<(ChannelName, v1::Subscribed)>,
    /// Channels that are being joined again, each to be answered with [`Event::Subscribed`] and id 0.
    pub joining: Vec<ChannelName>,
    /// Groups that services put it into.
    pub groups: Vec<GroupName>,
    /// Tags that services gave it.
    pub tags: Tags,
    /// Channels that it listens to no longer, and why.
    pub refused: Vec<(ChannelName, Refusal)>,
    /// Ids of the client's frames whose answers are lost.
    pub lost: Vec<u32>,
    /// Ids of the client's frames whose answers still come, by the owner.
    pub outstanding: Vec<u32>,
    /// Ids of the client's frames whose answers are among the frames that the owner writes first.
    pub answered: Vec<u32>,
}

/// A new socket for a session of this node.
#[derive(Debug)]
pub struct Reattached {
    /// The client's `connect` frame.
    pub id: u32,
    /// Who it is, by the token it came with.
    pub identity: Identity,
    /// What it can resume with next time.
    pub resume_token: String,
    /// What the client's count of frames is now.
    pub received: u64,
    /// The channels it listens to, as `connected` says.
    pub subscriptions: Vec<v1::Subscribed>,
    /// Channels that it listens to no longer, and why.
    pub refused: Vec<(ChannelName, Refusal)>,
    /// Ids of the client's frames whose answers are lost, or that never came: those that
    /// [`Session::saw`](crate::Session::saw) does not know. One that still waits is not answered twice.
    pub lost: Vec<u32>,
}
