//! The minimal hub: `s` and a channel subscribes, `p`, a channel and a payload publishes, and the payload alone comes.

use super::{Heard, Message, Peer, Turn, at_once};

pub(super) struct Floor;

/// What the hub answers to a subscription.
pub(crate) const SUBSCRIBED: &[u8] = b"ok";

impl Peer for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("Cargo.toml", "[workspace.package]\nversion = \"")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/", None)
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let say = channels.iter().map(|channel| said(b's', *channel, b"")).collect();
        at_once(number, say, channels.len())
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        said(b'p', channel, payload)
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        each(if message == SUBSCRIBED { Heard::Answer(message) } else { Heard::Delivery(message) });
        Ok(())
    }
}

/// A letter, the channel in four bytes, the payload.
fn said(letter: u8, channel: usize, payload: &[u8]) -> Message {
    let channel = u32::try_from(channel).expect("fewer channels than that");
    let mut bytes = vec![letter];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(payload);
    Message::binary(bytes)
}
