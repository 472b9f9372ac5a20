//! Decode and encode, and several frames in one message.

use std::hint::black_box;

use trestle_codec::{Encoded, Encoding, Limits, decode, encode, join};

use crate::sample;

/// Frames that share a message.
const JOINED: usize = 16;

/// A WebSocket message with one publish -> its frames.
pub(crate) fn decode_publish(encoding: Encoding, times: u64) -> anyhow::Result<()> {
    let (catalogue, limits) = (sample::schemas().current(), Limits::default());
    let message = sample::publish(encoding, &catalogue);
    for _ in 0..times {
        black_box(decode(encoding, black_box(&message), &catalogue, &limits));
    }
    Ok(())
}

/// A delivery -> a finished WebSocket message.
pub(crate) fn encode_delivery(encoding: Encoding, times: u64) -> anyhow::Result<()> {
    let catalogue = sample::schemas().current();
    let frame = sample::delivery(&catalogue);
    for _ in 0..times {
        black_box(encode(encoding, black_box(&frame), &catalogue));
    }
    Ok(())
}

/// Finished frames -> one WebSocket message.
pub(crate) fn join_deliveries(encoding: Encoding, times: u64) -> anyhow::Result<()> {
    let catalogue = sample::schemas().current();
    let frames: [Encoded; JOINED] =
        std::array::from_fn(|_| encode(encoding, &sample::delivery(&catalogue), &catalogue));
    for _ in 0..times {
        black_box(join(encoding, black_box(&frames)));
    }
    Ok(())
}
