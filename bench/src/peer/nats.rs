//! nats-server's own WebSocket listener: its stream of bytes in binary frames that do not follow its messages.

use super::{Heard, Message, Peer, Turn, at_once, refused};

pub(super) struct Nats;

const CONNECT: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1,"#,
    r#""headers":true,"no_responders":true}"#,
    "\r\n"
);

impl Peer for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("crates/trestle-testkit/provide.sh", "nats_version=")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/", None)
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let subscribe = (1..).zip(channels).map(|(id, channel): (usize, _)| format!("SUB c{channel} {id}\r\n"));
        let say = [CONNECT.to_owned()].into_iter().chain(subscribe).chain(["PING\r\n".to_owned()]).collect::<String>();
        at_once(number, vec![Message::binary(say)], 1)
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        let mut said = format!("PUB c{channel} {}\r\n", payload.len()).into_bytes();
        said.extend(payload);
        said.extend(b"\r\n");
        Message::binary(said)
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        for line in message.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match line {
                [b'@', ..] => each(Heard::Delivery(line)),
                b"PONG\r" => each(Heard::Answer(line)),
                b"PING\r" => each(Heard::Ping),
                // The line before a payload, and what the server says of itself.
                [b'M', b'S', b'G', ..] | [b'I', b'N', b'F', b'O', ..] => {}
                other => return Err(refused(other)),
            }
        }
        Ok(())
    }

    fn pong(&self) -> Option<Message> {
        Some(Message::binary("PONG\r\n"))
    }

    fn is_stream(&self) -> bool {
        true
    }
}
