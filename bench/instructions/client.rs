//! A client on a stream in memory: masked WebSocket messages to the gateway, its frames back, read no further than to
//! count them.

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use trestle_codec::Encoding;
use trestle_wire::v1::{self, client_frame};

use crate::{node::Node, sample};

/// Bytes on their way in one direction: all that is outstanding in any of the works.
const STREAM_BYTES: usize = 256 * 1024;
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A client.
pub(crate) struct Client {
    stream: DuplexStream,
    encoding: Encoding,
    read: BytesMut,
}

impl Client {
    /// Connects, listens to the channel, and has the answers to both.
    pub(crate) async fn subscribed(node: &Node, encoding: Encoding) -> anyhow::Result<Self> {
        let (mine, theirs) = duplex(STREAM_BYTES);
        node.serve(theirs, encoding);
        let mut client = Self { stream: mine, encoding, read: BytesMut::new() };
        let subscribe = match encoding {
            Encoding::Json => format!(r#"{{"id":1,"subscribe":{{"channel":"{}"}}}}"#, sample::CHANNEL).into(),
            Encoding::Protobuf => {
                let subscribe = v1::Subscribe { channel: sample::CHANNEL.to_owned(), ..v1::Subscribe::default() };
                sample::frames(1, client_frame::Frame::Subscribe(subscribe))
            }
        };
        client.send(&client.message(&subscribe)).await?;
        client.frames(2).await?; // `connected` and `subscribed`
        Ok(client)
    }

    /// The WebSocket message that carries `payload`, as a client sends it (RFC 6455, 5.2).
    pub(crate) fn message(&self, payload: &[u8]) -> Bytes {
        let opcode = match self.encoding {
            Encoding::Json => 1,
            Encoding::Protobuf => 2,
        };
        let length = u16::try_from(payload.len()).expect("the works send short messages");
        let mut message = vec![0x80 | opcode, 0x80 | 126];
        message.extend(length.to_be_bytes());
        message.extend(MASK);
        message.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        message.into()
    }

    /// Sends a finished message.
    pub(crate) async fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(message).await.context("the gateway has gone")
    }

    /// Waits until `count` frames have come, and no more than that.
    pub(crate) async fn frames(&mut self, count: usize) -> anyhow::Result<()> {
        let mut come = 0;
        while come < count {
            match self.take() {
                Some(message) => come += self.count(&message)?,
                None if self.stream.read_buf(&mut self.read).await? == 0 => bail!("the gateway has closed"),
                None => {}
            }
        }
        anyhow::ensure!(come == count && self.read.is_empty(), "{come} frames came instead of {count}");
        Ok(())
    }

    /// The next whole message.
    fn take(&mut self) -> Option<BytesMut> {
        let (header, length) = match *self.read.get(..4)? {
            [_, 127, ..] => (10, u64::from_be_bytes(self.read.get(2..10)?.try_into().ok()?) as usize),
            [_, 126, high, low] => (4, usize::from(u16::from_be_bytes([high, low]))),
            [_, short, ..] => (2, usize::from(short)),
            _ => return None,
        };
        (self.read.len() >= header + length).then(|| self.read.split_to(header + length).split_off(header))
    }

    /// The frames in a message.
    fn count(&self, message: &[u8]) -> anyhow::Result<usize> {
        Ok(match self.encoding {
            Encoding::Protobuf => {
                let (mut rest, mut count) = (message, 0);
                while rest.has_remaining() {
                    rest.advance(1); // the tag of `ServerFrames.frames`
                    let length = prost::encoding::decode_varint(&mut rest)?;
                    rest.advance(usize::try_from(length)?);
                    count += 1;
                }
                count
            }
            // Two at most are on their way to a JSON client.
            Encoding::Json => 1 + usize::from(message.starts_with(b"[")),
        })
    }
}
