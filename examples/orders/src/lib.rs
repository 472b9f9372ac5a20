//! The example services of the demo, attached over real gRPC.
