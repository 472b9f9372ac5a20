//! A client's session as the hub sees it.

use std::{
    any::Any,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use trestle_codec::Encoding;
use trestle_session::{Mailbox, Outbox, State};
use trestle_wire::{ChannelName, GroupName, SessionId, Tags, UserId, v1};

/// A client's session, as the hub sees it. Owned by the client's task, shared with the rooms it sits in.
pub struct Member {
    /// The session.
    pub session: SessionId,
    /// How its frames are written.
    pub encoding: Encoding,
    /// Where its frames go.
    pub outbox: Outbox,
    /// What others want of the client's task.
    pub mail: Mailbox<Mail>,
    /// What is known of it. The client's task writes it, everyone reads it.
    pub facts: Mutex<Facts>,
    /// Whether it has no connection: what goes into its outbox waits until it has one again.
    pub(crate) away: AtomicBool,
    /// When the client was last heard, in milliseconds of Unix time.
    pub seen: AtomicU64,
}

/// What is known of a session.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Who it is; `None` for an anonymous client.
    pub user: Option<UserId>,
    /// What selectors look at.
    pub tags: Tags,
    /// The groups it is in.
    pub groups: Vec<GroupName>,
    /// The channels it listens to.
    pub subscriptions: Vec<ChannelName>,
    /// Where the client is; `None` where that is not known.
    pub address: Option<SocketAddr>,
    /// When it began.
    pub connected: SystemTime,
    /// What it is doing.
    pub state: State,
}

/// What is wanted of the task that owns a client.
pub enum Mail {
    /// A service changes groups and tags; what is dropped unsent was not done.
    Update {
        /// The change; its target has chosen this session already.
        change: v1::UpdateSessionsRequest,
        /// Told when it is in force.
        done: oneshot::Sender<()>,
    },
    /// An operator ends the session.
    Kick {
        /// For the close frame.
        reason: String,
    },
    /// Between tasks of the edge; nothing that the hub knows of.
    Edge(Box<dyn Any + Send>),
}

impl Member {
    /// A session of which nothing is known yet, heard just now.
    #[must_use]
    pub fn new(session: SessionId, encoding: Encoding, outbox: Outbox) -> Self {
        let member = Self {
            session,
            encoding,
            outbox,
            mail: Mailbox::new(),
            facts: Mutex::default(),
            seen: AtomicU64::new(0),
            away: AtomicBool::new(false),
        };
        member.heard();
        member
    }

    /// Notes that the client was heard just now.
    pub fn heard(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.seen.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            user: None,
            tags: Tags::new(),
            groups: Vec::new(),
            subscriptions: Vec::new(),
            address: None,
            connected: UNIX_EPOCH,
            state: State::Connecting,
        }
    }
}
