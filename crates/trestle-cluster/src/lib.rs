//! What nodes know of each other: who lives, which sessions there are, who is on which channel.
//!
//! [`Nodes`] says which nodes live, by heartbeats in the Kv. [`Registry`] keeps a record of every session there, signs the
//! tokens by which a client comes back to its session, and lets exactly one node have it; [`look_after`] ends those that a
//! node has left and nobody comes back to. [`Presence`] knows who listens to a channel on all nodes together. What decides is
//! plain code without I/O (`roll`, `records`, `left/table`, `token`, `local`, `table`); what touches the bus is thin.
//!
//! # Keys
//! ```text
//! node.<node>        a heartbeat (NodeInfo)                 session.<session>   what outlives a node (SessionRecord)
//! parked.<session>   what a stopping node left (Handover)   inbox.<user>        how far a user has acked, in decimal;
//! key.resume         the key of resume tokens, 32 bytes                         the user in base64url
//! ```

mod config;
mod inbox;
mod left;
mod local;
mod metrics;
mod nodes;
mod presence;
mod records;
mod registry;
mod roll;
mod room;
mod stamp;
mod store;
mod table;
mod token;
mod writer;

pub use config::{Beside, ClusterConfig};
pub use left::{LeftParts, left_control, look_after};
pub use nodes::{Nodes, NodesError, NodesParts};
pub use presence::{EventSink, Presence, PresenceParts, Seat, ask_presence};
pub use records::FIRST_EPOCH;
pub use registry::{ClaimRefused, Claimed, Registry, RegistryError, RegistryParts};
pub use roll::NodeChange;
pub use store::GRACE;
pub use token::{Ticket, TokenRefused};
