//! Keeps that promise on NATS and JetStream.
