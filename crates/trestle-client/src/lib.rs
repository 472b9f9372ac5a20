//! Rust SDK for programs on the WebSocket side.
