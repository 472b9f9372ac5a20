//! Client sockets: accept, upgrade, admission, WebSocket.
//!
//! A socket comes in at [`Accept`], becomes a WebSocket in `upgrade`, and is then owned by one task, its
//! `connection`: it reads frames (`websocket`), lets the session decide, acts on what was decided (`act`) and writes what
//! the outbox holds. What it holds for the client is a `stay`: the session, its seats in the hub, its requests. When the
//! socket is lost the stay goes on without one (`pending`), until the client comes back on this node or another
//! (`resume`, `handover`) or its time is over; then everything that was held goes with it.
//!
//! | concern | file |
//! | --- | --- |
//! | how many come in at once | `admission.rs` |
//! | asking clients to go elsewhere | `leave.rs` |
//! | what other nodes and operators want | `neighbours.rs`, `census.rs` |

mod accept;
mod act;
mod admission;
mod census;
mod coming;
mod config;
mod connection;
mod edge;
mod had;
mod handled;
mod handover;
mod lane;
mod leave;
mod metrics;
mod neighbours;
mod part;
mod pending;
mod resume;
mod seats;
mod signal;
#[cfg(test)]
mod sizes;
mod spend;
mod stay;
mod upgrade;
mod websocket;
mod wish;
mod write;

pub use accept::Accept;
pub use config::EdgeConfig;
pub use edge::{Edge, Parts};
pub use upgrade::Hello;
pub use websocket::Stream;
