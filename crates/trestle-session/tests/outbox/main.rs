//! What waits for a client, what is dropped when there is no room, and what the client is told of it.

#![allow(clippy::unwrap_used)] // a test

mod boxes;
mod model;
mod policies;
mod spills;
mod wakers;
