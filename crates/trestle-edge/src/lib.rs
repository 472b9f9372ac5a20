//! Client sockets: accept, upgrade, admission, WebSocket.
//!
//! A socket comes in at [`Accept`], becomes a WebSocket in `upgrade`, and is then owned by one task, its
//! `connection`: it reads frames (`websocket`), lets the session decide, acts on what was decided (`act`) and writes what
//! the outbox holds. When that task ends, everything that it held for the client goes with it: its seats in the hub, its
//! requests (which are cancelled at their services), its place in the limits.

mod accept;
mod act;
mod config;
mod connection;
mod edge;
mod handled;
mod lane;
mod metrics;
mod upgrade;
mod websocket;

pub use accept::Accept;
pub use config::EdgeConfig;
pub use edge::{Edge, Parts};
