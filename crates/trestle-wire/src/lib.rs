//! The contract: generated types, identifiers as newtypes, error and close codes. No I/O.
//!
//! Everything that crosses a border of the process is named here: the frames and envelopes of `proto/trestle/v1`
//! ([`v1`]), the names inside them ([`name`]), the subjects they travel on ([`subject`]), what is said when something
//! is refused ([`refusal`]), how a WebSocket is closed ([`close`]) and how sessions are picked by their tags ([`selector`]).

pub mod close;
pub mod name;
pub mod refusal;
pub mod selector;
pub mod subject;

pub use close::CloseCode;
pub use name::{ChannelName, GroupName, InvalidName, NodeId, ServiceName, SessionId, UserId};
pub use refusal::{Reason, Refusal};
pub use selector::{Selector, Tags};
pub use subject::{Subject, Subjects};

/// Types generated from `proto/trestle/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/trestle.v1.rs"));
}

impl v1::Envelope {
    /// An id for a message whose sender gave it none: UUIDv7 (RFC 9562), so that ids sort by time.
    #[must_use]
    pub fn new_id() -> String {
        uuid::Uuid::now_v7().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned()
    }
}

impl v1::NodeInfo {
    /// The role of nodes that hold sessions.
    pub const EDGE: &'static str = "edge";

    /// Whether the node may hold sessions.
    #[must_use]
    pub fn is_edge(&self) -> bool {
        self.roles.iter().any(|role| role == Self::EDGE)
    }
}

/// The descriptor set of `proto/trestle/v1`, encoded: for gRPC reflection and for compiling schemas that import it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trestle.v1.binpb"));
