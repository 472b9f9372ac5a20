//! A server on the centrifuge library for Go, in its protobuf client protocol.

use anyhow::Context as _;
use prost::encoding::{decode_varint, encode_varint};

use super::{Heard, Message, Peer, Turn, at_once, refused};

pub(super) struct Centrifuge;

/// Tags of length-delimited fields of a `Command`, and of a `Reply`.
const CONNECT: u8 = 4 << 3 | 2;
const SUBSCRIBE: u8 = 5 << 3 | 2;
const PUBLISH: u8 = 7 << 3 | 2;
const PUSH: u8 = 4 << 3 | 2;
/// `id`, field 1 of both, a varint.
const ID: u8 = 1 << 3;
/// Fields 1 and 2, length-delimited, of a request.
const CHANNEL: u8 = 1 << 3 | 2;
const DATA: u8 = 2 << 3 | 2;
/// `Reply.error`.
const ERROR: u8 = 2 << 3 | 2;

impl Peer for Centrifuge {
    fn name(&self) -> &'static str {
        "centrifuge"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("bench/peers/centrifuge/go.mod", "github.com/centrifugal/centrifuge v")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/connection/websocket", Some("centrifuge-protobuf"))
    }

    fn turn(&self, number: usize, channels: &[usize], _: &[u8]) -> anyhow::Result<Option<Turn>> {
        let mut say = command(1, CONNECT, &[]);
        for (id, channel) in (2..).zip(channels) {
            say.extend(command(id, SUBSCRIBE, &field(CHANNEL, name(*channel).as_bytes())));
        }
        at_once(number, vec![Message::binary(say)], 1 + channels.len())
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        let request = [field(CHANNEL, name(channel).as_bytes()), field(DATA, payload)].concat();
        Message::binary(command(1, PUBLISH, &request))
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        let mut rest = message;
        while !rest.is_empty() {
            let length = usize::try_from(decode_varint(&mut rest)?)?;
            let (reply, after) = rest.split_at_checked(length).context("a reply that does not end")?;
            match reply {
                [] => each(Heard::Ping),
                [PUSH, ..] => each(Heard::Delivery(reply)),
                // Its id is at most 127 here, unless many channels are subscribed: two bytes then.
                [ID, _, ERROR, ..] | [ID, _, _, ERROR, ..] | [ERROR, ..] => return Err(refused(reply)),
                _ => each(Heard::Answer(reply)),
            }
            rest = after;
        }
        Ok(())
    }

    fn pong(&self) -> Option<Message> {
        Some(Message::binary(&[0_u8][..]))
    }
}

fn name(channel: usize) -> String {
    format!("c{channel}")
}

fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    encode_varint(bytes.len() as u64, &mut field);
    field.extend(bytes);
    field
}

/// A command, with its length before it.
fn command(id: u64, request: u8, bytes: &[u8]) -> Vec<u8> {
    let mut command = vec![ID];
    encode_varint(id, &mut command);
    command.extend(field(request, bytes));
    let mut framed = Vec::new();
    encode_varint(command.len() as u64, &mut framed);
    framed.extend(command);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_framed_as_the_protocol_says() {
        assert_eq!(command(1, CONNECT, &[]), [4, 8, 1, 0x22, 0]);
        let Turn { say, answers } = Centrifuge.turn(0, &[0], b"").expect("asks nothing").expect("one turn");
        assert_eq!(answers, 2);
        assert_eq!(&say[0].bytes[..], [4, 8, 1, 0x22, 0, 8, 8, 2, 0x2a, 4, 0x0a, 2, b'c', b'0']);
    }

    #[test]
    fn a_ping_a_push_and_an_answer_are_told_apart_in_one_message() {
        let mut heard = String::new();
        let each = &mut |what: Heard<'_>| {
            heard.push(match what {
                Heard::Ping => 'p',
                Heard::Delivery(_) => 'd',
                Heard::Answer(_) => 'a',
            });
        };
        Centrifuge.hear(&[0, 2, PUSH, 0, 4, 8, 1, 0x2a, 0], each).expect("expected");
        assert_eq!(heard, "pda");
        assert!(Centrifuge.hear(&[4, 8, 1, ERROR, 0], &mut |_| {}).is_err());
    }
}
