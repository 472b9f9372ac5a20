//! Socket.IO on Node, over WebSocket only; one packet of text a message.

use super::{Heard, Message, Peer, Turn, refused};

pub(super) struct SocketIo;

impl Peer for SocketIo {
    fn name(&self) -> &'static str {
        "socketio"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("bench/peers/socketio/package.json", "\"socket.io\": \"")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/socket.io/?EIO=4&transport=websocket", None)
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let subscribe = || channels.iter().map(|channel| Message::text(format!(r#"420["s","c{channel}"]"#))).collect();
        Ok(match number {
            0 => Some(Turn { say: Vec::new(), answers: 1 }),
            1 => Some(Turn { say: vec![Message::text("40")], answers: 1 }),
            2 => Some(Turn { say: subscribe(), answers: channels.len() }),
            _ => None,
        })
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        Message::text(format!(r#"42["p","c{channel}","{}"]"#, String::from_utf8_lossy(payload)))
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        match message {
            [b'4', b'2', ..] => each(Heard::Delivery(message)),
            [b'0', ..] | [b'4', b'0' | b'3', ..] => each(Heard::Answer(message)),
            b"2" => each(Heard::Ping),
            other => return Err(refused(other)),
        }
        Ok(())
    }

    fn pong(&self) -> Option<Message> {
        Some(Message::text("3"))
    }
}
