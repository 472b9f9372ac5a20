//! The real binary over real sockets: one file per promise.

#![allow(clippy::unwrap_used)] // tests

mod bad_input;
mod channels;
mod command_line;
mod heartbeat;
mod nats;
mod page;
mod reload;
mod requests;
mod service;
mod stopping;
mod stubs;
mod support;
mod tracing;
mod upgrade;
mod work;
