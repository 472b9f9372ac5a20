//! Client frames to envelopes and back. No I/O.
