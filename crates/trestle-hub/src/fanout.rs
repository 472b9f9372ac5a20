//! Fan out: one envelope in, n outboxes out, encoded once per encoding.
//!
//! What always holds: no outbox is waited for; a client whose outbox is full is parted from (its outbox closes itself and
//! wakes its connection), and counted; an encoding that nobody in the room speaks is never made.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use trestle_codec::{Encoded, Encoding, encode};
use trestle_schema::Catalogue;
use trestle_session::Full;
use trestle_wire::v1::{self, server_frame::Frame};

use crate::{Member, metrics::Metrics};

/// What became of one message on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Sessions whose outbox took it.
    pub delivered: u32,
    /// Sessions that were parted from because theirs was full.
    pub dropped: u32,
}

/// Puts `envelope` into the outbox of each of `members`.
pub(crate) fn deliver<'a>(
    envelope: v1::Envelope,
    members: impl IntoIterator<Item = &'a Arc<Member>>,
    catalogue: &Catalogue,
    metrics: &Metrics,
) -> Delivered {
    let latency = envelope.time.as_ref().and_then(since);
    let delivered = send(Frame::Delivery(envelope), members, catalogue, metrics);
    if let Some(latency) = latency {
        metrics.message_latency.observe(latency.as_secs_f64());
    }
    delivered
}

/// Puts `frame` into the outbox of each of `members`.
pub(crate) fn send<'a>(
    frame: Frame,
    members: impl IntoIterator<Item = &'a Arc<Member>>,
    catalogue: &Catalogue,
    metrics: &Metrics,
) -> Delivered {
    let frame = v1::ServerFrame { reply_to: 0, frame: Some(frame) };
    let mut finished: [Option<Encoded>; Encoding::ALL.len()] = [const { None }; Encoding::ALL.len()];
    let mut count = Delivered::default();
    for member in members {
        let encoded =
            finished[member.encoding.index()].get_or_insert_with(|| encode(member.encoding, &frame, catalogue));
        match member.outbox.push(encoded.clone()) {
            Ok(()) => count.delivered += 1,
            Err(Full::Overflow) => count.dropped += 1,
            // Parted from before this message; its connection is on its way out.
            Err(Full::Closed) => {}
        }
    }
    metrics.delivered.inc_by(u64::from(count.delivered));
    metrics.slow.inc_by(u64::from(count.dropped));
    count
}

/// How long ago `time` was; `None` if the clocks of two nodes disagree so much that it is to come.
fn since(time: &prost_types::Timestamp) -> Option<Duration> {
    let time = SystemTime::try_from(*time).ok()?;
    SystemTime::now().duration_since(time).ok()
}
