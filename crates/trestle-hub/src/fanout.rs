//! Fan out: one message in, n outboxes out, encoded once per encoding.
//!
//! What always holds: no outbox is waited for; what finds no room in one is treated as the message's label says and
//! counted; an encoding that nobody in the room speaks is never made.

use std::{
    sync::{OnceLock, atomic::Ordering},
    time::{Duration, SystemTime},
};

use trestle_codec::{Encoding, encode};
use trestle_schema::Catalogue;
use trestle_session::{Finished, Full, Label, Pushed};
use trestle_wire::{
    ChannelName,
    v1::{self, Overflow, server_frame::Frame},
};

use crate::{Member, metrics::Metrics};

/// What became of one message on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Sessions with a connection whose outbox took it.
    pub delivered: u32,
    /// Sessions whose outbox had no room for it, or has been given up.
    pub dropped: u32,
    /// Sessions without a connection whose outbox took it.
    pub queued: u32,
}

/// A frame on its way to many, finished once for each encoding that one of them speaks.
pub(crate) struct Parcel {
    frame: v1::ServerFrame,
    label: Option<Label>,
    finished: [OnceLock<Finished>; Encoding::ALL.len()],
}

impl Parcel {
    /// A message, of `channel` or pushed. A type without a policy of its own goes by `overflow`.
    pub(crate) fn delivery(
        envelope: v1::Envelope,
        channel: Option<&ChannelName>,
        overflow: Overflow,
        catalogue: &Catalogue,
    ) -> Self {
        let label = label(&envelope, channel, overflow, catalogue);
        Self { label: Some(label), ..Self::word(Frame::Delivery(envelope)) }
    }

    /// A word of the gateway's own, which no policy drops.
    pub(crate) fn word(frame: Frame) -> Self {
        let frame = v1::ServerFrame { reply_to: 0, frame: Some(frame) };
        Self { frame, label: None, finished: [const { OnceLock::new() }; Encoding::ALL.len()] }
    }

    /// The message in it.
    pub(crate) fn envelope(&self) -> Option<&v1::Envelope> {
        match &self.frame.frame {
            Some(Frame::Delivery(envelope)) => Some(envelope),
            _ => None,
        }
    }

    /// What becomes of it where there is no room.
    pub(crate) fn overflow(&self) -> Overflow {
        self.label.as_ref().map_or(Overflow::Disconnect, |label| label.overflow)
    }

    fn finished(&self, encoding: Encoding, catalogue: &Catalogue) -> &Finished {
        self.finished[encoding.index()].get_or_init(|| {
            let frame = encode(encoding, &self.frame, catalogue);
            match &self.label {
                Some(label) => Finished::labelled(frame, label.clone()),
                None => frame.into(),
            }
        })
    }

    /// Puts it into one outbox.
    pub(crate) fn push(&self, member: &Member, catalogue: &Catalogue) -> Result<Pushed, Full> {
        member.outbox.push(self.finished(member.encoding, catalogue).clone())
    }
}

/// What has become of a parcel so far.
#[derive(Default)]
pub(crate) struct Tally {
    delivered: u32,
    dropped: u32,
    slow: u32,
    queued: u32,
    given_up: u32,
}

impl Tally {
    /// Puts `parcel` into the outbox of `member`, and counts what became of it.
    pub(crate) fn push(&mut self, parcel: &Parcel, member: &Member, catalogue: &Catalogue) {
        match parcel.push(member, catalogue) {
            Ok(Pushed::Queued) if member.away.load(Ordering::Relaxed) => self.queued += 1,
            Ok(Pushed::Queued) => self.delivered += 1,
            Ok(Pushed::Dropped) => self.dropped += 1,
            Err(Full::Overflow) => self.slow += 1,
            // What it waits for is given up: it is told so when it comes back.
            Err(Full::Closed) if member.away.load(Ordering::Relaxed) => self.given_up += 1,
            // Parted from before this message; its connection is on its way out.
            Err(Full::Closed) => {}
        }
    }

    /// Notes it in `metrics`, when all were reached.
    pub(crate) fn end(self, parcel: &Parcel, metrics: &Metrics) -> Delivered {
        let Self { delivered, dropped, slow, queued, given_up } = self;
        metrics.delivered.inc_by(u64::from(delivered + queued));
        if slow + dropped + given_up > 0 {
            metrics.slow.inc_by(u64::from(slow));
            metrics.dropped(Overflow::Disconnect, slow + given_up);
            metrics.dropped(parcel.overflow(), dropped);
        }
        if let Some(latency) = parcel.envelope().and_then(|envelope| since(envelope.time.as_ref()?)) {
            metrics.message_latency.observe(latency.as_secs_f64());
        }
        Delivered { delivered, dropped: slow + dropped + given_up, queued }
    }
}

/// What an outbox that has no room must know of the message.
fn label(envelope: &v1::Envelope, channel: Option<&ChannelName>, overflow: Overflow, catalogue: &Catalogue) -> Label {
    let mut label = Label {
        channel: channel.cloned(),
        offset: envelope.offset,
        id: hash(&envelope.id),
        publisher: if envelope.offset == 0 { publisher(envelope.source.as_ref()) } else { 0 },
        overflow,
        key: 0,
        priority: v1::Priority::Normal,
    };
    let Some(kind) = catalogue.get(&envelope.message_type) else { return label };
    let Some(queueing) = kind.queueing() else { return label };
    label.overflow = queueing.overflow.unwrap_or(overflow);
    label.priority = queueing.priority;
    if label.overflow == Overflow::Conflate {
        label.key = kind.conflation_key(&envelope.payload).unwrap_or(0);
    }
    label
}

/// A client, else a service, else the node that took it in from something without a name.
fn publisher(source: Option<&v1::Source>) -> u64 {
    let Some(v1::Source { session, service, node, .. }) = source else { return 0 };
    hash([session, service, node].into_iter().find(|name| !name.is_empty()).map_or("", String::as_str))
}

/// FNV-1a: the same on every node, whatever its version, since nodes compare what they have delivered by it.
fn hash(id: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    id.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// How long ago `time` was; `None` if the clocks of two nodes disagree so much that it is to come.
fn since(time: &prost_types::Timestamp) -> Option<Duration> {
    let time = SystemTime::try_from(*time).ok()?;
    SystemTime::now().duration_since(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_an_id_is_the_published_one() {
        // From the list of the algorithm's authors.
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
