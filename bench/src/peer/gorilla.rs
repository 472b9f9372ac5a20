//! Go, gin and gorilla/websocket: the classic hub of its chat example, with rooms.

use super::{Heard, Message, Peer, Turn, at_once, refused};

pub(super) struct Gorilla;

impl Peer for Gorilla {
    fn name(&self) -> &'static str {
        "gorilla"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("bench/peers/gorilla/go.mod", "github.com/gorilla/websocket v")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/ws", None)
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let say = channels.iter().map(|channel| Message::text(format!("s c{channel}"))).collect();
        at_once(number, say, channels.len())
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        Message::text(format!("p c{channel} {}", String::from_utf8_lossy(payload)))
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        // What waited stands in one message, a line each.
        for line in message.split(|byte| *byte == b'\n') {
            match line.first() {
                Some(b'p') => each(Heard::Delivery(line)),
                Some(b's') => each(Heard::Answer(line)),
                _ => return Err(refused(line)),
            }
        }
        Ok(())
    }
}
