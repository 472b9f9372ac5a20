//! The gateway, in `trestle.v1.proto`. A session opens and subscribes in one message of several frames.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use trestle_wire::v1::{
    ClientFrame, ClientFrames, Connect, Envelope, Publish, ServerFrame, Subscribe, client_frame::Frame, server_frame,
};

use super::{Heard, Message, Peer, Turn, at_once};
use crate::v1::Tick;

pub(super) struct Trestle;

/// Frames that the gateway takes in one message.
const FRAMES_MAX: usize = 64;
/// `ServerFrame.delivery`: field 5, length-delimited.
const DELIVERY_TAG: u8 = 5 << 3 | 2;
/// `ServerFrames.frames`: field 1, length-delimited.
const FRAMES_TAG: u8 = 1 << 3 | 2;
/// Bytes of a `Tick`'s own header: one of tag, and one of length, or two from 128 bytes on.
const HEADERS: [usize; 2] = [2, 3];

impl Peer for Trestle {
    fn name(&self) -> &'static str {
        "trestle"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("Cargo.toml", "[workspace.package]\nversion = \"")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/ws", Some("trestle.v1.proto"))
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let subscribe =
            |channel: &usize| Frame::Subscribe(Subscribe { channel: name(*channel), ..Subscribe::default() });
        let frames = std::iter::once(Frame::Connect(Connect::default())).chain(channels.iter().map(subscribe));
        let frames: Vec<_> = (1..).zip(frames).map(|(id, frame)| ClientFrame { id, frame: Some(frame) }).collect();
        let message = |frames: &[ClientFrame]| ClientFrames { frames: frames.to_vec() }.encode_to_vec();
        let say = frames.chunks(FRAMES_MAX).map(|frames| Message::binary(message(frames))).collect();
        at_once(number, say, frames.len())
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        // The message as a whole is as large as other servers' payload.
        let header = HEADERS[usize::from(payload.len() >= 128 + HEADERS[0])];
        let filling = Bytes::copy_from_slice(&payload[..payload.len() - header]);
        let payload = Tick { filling }.encode_to_vec().into();
        let message = Envelope { message_type: "bench.v1.Tick".into(), payload, ..Envelope::default() };
        let frame = Frame::Publish(Publish { channel: name(channel), message: Some(message) });
        let frames = vec![ClientFrame { id: 0, frame: Some(frame) }];
        Message::binary(ClientFrames { frames }.encode_to_vec())
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        let mut rest = message;
        while !rest.is_empty() {
            let frame = next_frame(&mut rest).context("a server frame that is no protobuf")?;
            // reply_to, which would come first, is 0 in what comes unasked.
            if frame.first() == Some(&DELIVERY_TAG) {
                each(Heard::Delivery(frame));
                continue;
            }
            match ServerFrame::decode(frame)? {
                ServerFrame { frame: Some(server_frame::Frame::Error(error)), .. } => bail!("refused: {error:?}"),
                ServerFrame { reply_to: 1.., .. } => each(Heard::Answer(frame)),
                other => bail!("not expected: {other:?}"),
            }
        }
        Ok(())
    }
}

/// In a namespace without history.
fn name(channel: usize) -> String {
    format!("live:{channel}")
}

/// Takes one frame off a `ServerFrames`, without decoding it.
fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&FRAMES_TAG, mut bytes) = rest.split_first()? else { return None };
    let length = usize::try_from(prost::encoding::decode_varint(&mut bytes).ok()?).ok()?;
    let (frame, after) = bytes.split_at_checked(length)?;
    *rest = after;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use trestle_wire::v1::ServerFrames;

    use super::*;
    use crate::stamp;

    #[test]
    fn a_published_message_is_as_large_as_its_payload() {
        for bytes in [127, 128, 129, 130, 131, 1024] {
            let Message { bytes: message, .. } = Trestle.publish(7, &stamp::payload(bytes));
            let frames = ClientFrames::decode(message).expect("frames").frames;
            let Some(Frame::Publish(publish)) = &frames[0].frame else { panic!("{frames:?}") };
            let size = publish.message.as_ref().expect("a message").payload.len();
            assert!(size == bytes || (size == 129 && bytes == 130), "{size} of {bytes}");
        }
    }

    #[test]
    fn answers_and_deliveries_are_told_apart_in_a_batch() {
        let delivery =
            server_frame::Frame::Delivery(Envelope { payload: stamp::payload(128).into(), ..Envelope::default() });
        let answer = server_frame::Frame::Connected(trestle_wire::v1::Connected::default());
        let frames =
            vec![ServerFrame { reply_to: 1, frame: Some(answer) }, ServerFrame { reply_to: 0, frame: Some(delivery) }];
        let (mut answers, mut ages) = (0, Vec::new());
        let each = &mut |heard: Heard<'_>| match heard {
            Heard::Delivery(delivery) => ages.push(stamp::age(delivery).expect("its time")),
            Heard::Answer(_) => answers += 1,
            Heard::Ping => {}
        };
        Trestle.hear(&ServerFrames { frames }.encode_to_vec(), each).expect("expected");
        assert_eq!((answers, ages.len()), (1, 1));
    }
}
