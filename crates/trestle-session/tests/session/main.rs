//! What a session decides, under a clock of our own.

#![allow(clippy::unwrap_used)] // a test

mod decisions;
mod groups;
mod properties;
mod resume;
mod talk;
