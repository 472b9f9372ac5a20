//! What the two servers are spoken to in.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use trestle_wire::v1::{Envelope, Publish, ServerFrame, Subscribe, client_frame::Frame, server_frame};

use crate::{PAYLOAD_BYTES, client, socket::Socket, v1::Tick};

const CHANNEL: &str = "live:bench";

/// One of the two protocols.
#[derive(Clone, Copy)]
pub(super) enum Wire {
    /// `trestle.v1.proto` on `/ws`.
    Trestle,
    /// The payload alone: subscribe on `/`, publish on `/publish`.
    Bare,
}

impl Wire {
    /// A connection to publish on.
    pub(super) async fn publisher(self, address: &str) -> anyhow::Result<Socket> {
        match self {
            Self::Bare => Socket::connect(address, "/publish", None).await,
            Self::Trestle => client::connect(address).await,
        }
    }

    /// A connection that hears what is published from now on.
    pub(super) async fn subscriber(self, address: &str) -> anyhow::Result<Socket> {
        if matches!(self, Self::Bare) {
            return Socket::connect(address, "/", None).await;
        }
        let mut socket = client::connect(address).await?;
        client::ask(&mut socket, Frame::Subscribe(Subscribe { channel: CHANNEL.into(), ..Subscribe::default() }))
            .await?;
        Ok(socket)
    }

    /// A message to be published, sent at `now`.
    pub(super) fn message(self, now: u64) -> Bytes {
        let tick = tick(now);
        match self {
            Self::Bare => tick,
            Self::Trestle => {
                let message = Envelope { message_type: "bench.v1.Tick".into(), payload: tick, ..Envelope::default() };
                let publish = Publish { channel: CHANNEL.into(), message: Some(message) };
                client::message(0, Frame::Publish(publish))
            }
        }
    }

    /// Calls `delivery` for each delivery in a WebSocket message.
    pub(super) fn deliveries(self, message: &[u8], mut delivery: impl FnMut(&[u8])) -> anyhow::Result<()> {
        match self {
            Self::Bare => delivery(message),
            Self::Trestle => {
                let mut rest = message;
                while !rest.is_empty() {
                    let frame = next_frame(&mut rest).context("a server frame that is no protobuf")?;
                    // reply_to, which would come first, is 0 in what comes unasked.
                    if frame.first() != Some(&DELIVERY_TAG) {
                        bail!("not a delivery: {:?}", ServerFrame::decode(frame));
                    }
                    delivery(frame);
                }
            }
        }
        Ok(())
    }

    /// When the message of a delivery was sent.
    pub(super) fn sent_at(self, delivery: &[u8]) -> anyhow::Result<u64> {
        let payload = match self {
            Self::Bare => Bytes::copy_from_slice(delivery),
            Self::Trestle => match ServerFrame::decode(delivery)?.frame {
                Some(server_frame::Frame::Delivery(envelope)) => envelope.payload,
                other => bail!("not a delivery: {other:?}"),
            },
        };
        Ok(Tick::decode(payload)?.sent_at)
    }
}

/// `ServerFrame.delivery`: field 5, length-delimited.
const DELIVERY_TAG: u8 = 5 << 3 | 2;
/// `ServerFrames.frames`: field 1, length-delimited.
const FRAMES_TAG: u8 = 1 << 3 | 2;

/// Takes one frame off a `ServerFrames`, without decoding it.
fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&FRAMES_TAG, mut bytes) = rest.split_first()? else { return None };
    let length = usize::try_from(prost::encoding::decode_varint(&mut bytes).ok()?).ok()?;
    let (frame, after) = bytes.split_at_checked(length)?;
    *rest = after;
    Some(frame)
}

/// 128 bytes: 9 of time, 3 of header, the filling.
fn tick(sent_at: u64) -> Bytes {
    let filling = Bytes::from_static(&[b'x'; PAYLOAD_BYTES - 11]);
    Tick { sent_at, filling }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use trestle_wire::v1::ServerFrames;

    use super::*;

    #[test]
    fn a_tick_is_as_large_as_said_and_found_in_a_batch() {
        let payload = tick(u64::MAX);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        let delivery = |payload| ServerFrame {
            frame: Some(server_frame::Frame::Delivery(Envelope { payload, ..Envelope::default() })),
            ..ServerFrame::default()
        };
        let batch = ServerFrames { frames: vec![delivery(tick(7)), delivery(payload)] }.encode_to_vec();
        let mut times = Vec::new();
        Wire::Trestle
            .deliveries(&batch, |frame| times.push(Wire::Trestle.sent_at(frame).expect("a tick")))
            .expect("deliveries only");
        assert_eq!(times, [7, u64::MAX]);
    }
}
