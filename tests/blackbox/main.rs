//! The real binary over real sockets: one file per promise.

#![allow(clippy::unwrap_used)] // tests

mod admission;
mod aging;
mod bad_input;
mod channels;
mod chaos;
mod command_line;
mod drain;
mod groups;
mod heartbeat;
mod history;
mod nats;
mod overflow;
mod page;
mod presence;
mod reload;
mod requests;
mod resume;
mod service;
mod sessions;
mod stopping;
mod stubs;
mod support;
mod tracing;
mod two;
mod typescript;
mod upgrade;
mod work;
