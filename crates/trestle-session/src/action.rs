//! What a session asks its owner to do.

use std::time::Duration;

use trestle_codec::{Page, Resume, Since, Typed};
use trestle_wire::{ChannelName, CloseCode, GroupName, Refusal, Tags, v1};

/// What to do about an event.
#[derive(Debug)]
pub enum Action {
    /// Write `connected`, before everything that waits in the outbox. It is not counted. What the client is to get again
    /// follows it, then the outbox.
    Welcome(v1::ServerFrame),
    /// Put this into the outbox.
    Send(v1::ServerFrame),
    /// Ask who comes with this token (`None`: what the upgrade carried, else whoever the session belongs to), and answer with
    /// [`Event::Admitted`](crate::Event::Admitted) before the next frame. If the session that `resume` names is held by
    /// another task of this node, the socket goes there, and this session is dropped.
    Admit {
        /// The client's frame, for [`Reattached::id`](crate::Reattached::id); 0 if it was not `connect`.
        id: u32,
        /// The token of the `connect` frame.
        token: Option<String>,
        /// The session that the client goes on with.
        resume: Option<Box<Resume>>,
    },
    /// Listen to a channel; answered with [`Event::Subscribed`](crate::Event::Subscribed).
    Subscribe {
        /// The client's frame.
        id: u32,
        /// The channel; the user's inbox by its full name.
        channel: ChannelName,
        /// Where to begin.
        since: Since,
        /// Whether the client wants to know who comes and goes.
        presence: bool,
        /// Whether it is the user's inbox: then [`Since::Now`] is after what the user has acked.
        inbox: bool,
    },
    /// Listen no more; answered with [`Event::Unsubscribed`](crate::Event::Unsubscribed). Done in order with
    /// [`Action::Subscribe`].
    Unsubscribe {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// Publish on a channel; answered with [`Event::Settled`](crate::Event::Settled).
    Publish {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
        /// Whether the channel keeps a history.
        history: bool,
        /// What to publish.
        message: Typed,
    },
    /// Send to a service; answered with [`Event::Settled`](crate::Event::Settled).
    Deliver {
        /// The client's frame.
        id: u32,
        /// What to send.
        message: Typed,
        /// Whether to wait for the service's own acknowledgement; then it took a place.
        handled: bool,
    },
    /// Ask a service; answered with [`Event::Settled`](crate::Event::Settled). It took a place.
    Request {
        /// The client's frame.
        id: u32,
        /// What to ask.
        message: Typed,
        /// How long the answer may take.
        timeout: Duration,
    },
    /// Read a page of a channel's history, in order with what was asked for before; answered with
    /// [`Event::Settled`](crate::Event::Settled).
    History {
        /// The client's frame.
        id: u32,
        /// The channel; the user's inbox by its full name.
        channel: ChannelName,
        /// Where the page lies.
        page: Page,
        /// Most messages of the page.
        limit: u32,
    },
    /// Read who is on a channel; answered with [`Event::Settled`](crate::Event::Settled).
    Presence {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// The client has this many frames; an impossible number is for the replay not to believe.
    Acked {
        /// What the client's count is.
        received: u64,
    },
    /// The user is done with the inbox so far; answered with [`Event::Settled`](crate::Event::Settled).
    AckInbox {
        /// The client's frame.
        id: u32,
        /// The last message that no device of the user needs again.
        offset: u64,
    },
    /// Take a seat in a group. Not answered: what cannot be done now is tried again by the owner.
    JoinGroup(GroupName),
    /// Leave a group.
    LeaveGroup(GroupName),
    /// The session's tags from now on.
    Tags(Tags),
    /// The last [`Event::Update`](crate::Event::Update) goes beyond a limit, and nothing has changed.
    NotUpdated(Refusal),
    /// What the registry says of the session is old: its state, subscriptions, or what services gave it.
    Changed,
    /// Send a WebSocket ping, with the count of frames that were written.
    Ping,
    /// Send what waits in the outbox, then close. Where a session [`survives`](crate::survives) that, say
    /// [`Event::Lost`](crate::Event::Lost) then.
    Close(CloseCode),
    /// A session that was admitted is over for good: leave everything, and tell the cluster. The last action of all.
    Expired,
}
