//! Rust SDK for services on the gRPC side.
