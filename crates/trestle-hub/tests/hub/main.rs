//! The hub on the embedded bus, with switches that make bus and log fail as real ones do.

#![allow(clippy::unwrap_used)] // a test

mod control;
mod fills;
mod house;
mod pages;
mod places;
mod pushes;
mod recall;
mod rooms;
mod unreliable;
