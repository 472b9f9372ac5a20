//! A client's WebSocket that costs next to nothing: no buffer while idle, frames counted where they were read.

use std::{
    cell::RefCell,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, BytesMut};
use tokio::net::{TcpSocket, TcpStream};

use crate::peer::{Heard, Message, Peer, Turn};

/// One read takes at most this much; all sockets of the thread share the buffer.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The close code of who is done.
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// Connections that share one source address. Linux takes the port of a bound socket from half of its 28,000 first, and
/// searches ever longer the fewer are free: 14,000 of one address take minutes.
const CONNECTIONS_PER_ADDRESS: usize = 5_000;
/// Source addresses taken in turn, 127.0.0.1 and those after it.
const ADDRESSES: usize = 250;

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// A connected WebSocket that speaks a peer's protocol.
pub(crate) struct Socket {
    peer: &'static dyn Peer,
    writer: Writer,
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
    /// The beginning of a line, where frames carry lines.
    line: Vec<u8>,
}

/// The half that sends.
#[derive(Clone)]
pub(crate) struct Writer(Arc<TcpStream>);

impl Writer {
    /// Sends messages, all in one write.
    pub(crate) async fn send(&self, messages: &[Message]) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        for message in messages {
            put_frame(&mut bytes, if message.text { TEXT } else { BINARY }, &message.bytes);
        }
        self.write(&bytes).await
    }

    /// Says goodbye: the server closes.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, CLOSE, &NORMAL);
        self.write(&bytes).await
    }

    async fn write(&self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.0.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Socket {
    /// Connects to `peer` at `address` and subscribes to `channels`; all is answered when this returns.
    ///
    /// # Errors
    /// If the server refuses or closes.
    pub(crate) async fn open(peer: &'static dyn Peer, address: &str, channels: &[usize]) -> anyhow::Result<Self> {
        let mut socket = Self::upgrade(peer, address).await?;
        let (mut number, mut answer) = (0, Vec::new());
        while let Some(Turn { say, answers }) = peer.turn(number, channels, &answer)? {
            socket.writer.send(&say).await?;
            let mut heard = 0;
            while heard < answers {
                let each = &mut |what: Heard<'_>| {
                    if let Heard::Answer(said) = what {
                        heard += 1;
                        answer = said.to_vec();
                    }
                };
                socket.read(each).await?;
            }
            number += 1;
        }
        Ok(socket)
    }

    async fn upgrade(peer: &'static dyn Peer, address: &str) -> anyhow::Result<Self> {
        let stream = connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        let (path, subprotocol) = peer.endpoint();
        let protocol = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
        );
        let mut socket = Self { peer, writer: Writer(Arc::new(stream)), rest: Vec::new(), line: Vec::new() };
        socket.writer.write(request.as_bytes()).await?;
        let end = loop {
            if let Some(end) = socket.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(socket.rest.len() < READ_BYTES, "the answer to the handshake does not end");
            socket.read_more().await?;
        };
        let answer = String::from_utf8_lossy(&socket.rest[..end]).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 101"), "the handshake was refused: {answer}");
        socket.rest.drain(..end);
        Ok(socket)
    }

    /// Its half that sends, for who reads in a task of its own.
    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Waits until something has come, and hands everything that is whole to `each`. Pings are answered.
    pub(crate) async fn read(&mut self, each: &mut (dyn FnMut(Heard<'_>) + Send)) -> anyhow::Result<()> {
        let mut answers = BytesMut::new();
        // What came behind the handshake's answer stands there already.
        while !self.take_rest(each, &mut answers)? && !self.take(each, &mut answers)? {
            self.writer.0.readable().await?;
        }
        if !answers.is_empty() {
            self.writer.write(&answers).await?;
        }
        Ok(())
    }

    fn take_rest(&mut self, each: &mut dyn FnMut(Heard<'_>), answers: &mut BytesMut) -> anyhow::Result<bool> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.rest);
        let used = self.hear(&bytes, each, answers)?;
        self.rest.extend_from_slice(&bytes[used..]);
        Ok(used > 0)
    }

    /// Reads once. False if nothing whole has come.
    fn take(&mut self, each: &mut dyn FnMut(Heard<'_>), answers: &mut BytesMut) -> anyhow::Result<bool> {
        SCRATCH.with_borrow_mut(|scratch| match self.writer.0.try_read(scratch) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) if self.rest.is_empty() => {
                let used = self.hear(&scratch[..count], each, answers)?;
                self.rest.extend_from_slice(&scratch[used..count]);
                Ok(used > 0)
            }
            Ok(count) => {
                self.rest.extend_from_slice(&scratch[..count]);
                self.take_rest(each, answers)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    /// Walks the whole frames in `bytes` and says how many bytes they are.
    fn hear(&mut self, bytes: &[u8], each: &mut dyn FnMut(Heard<'_>), answers: &mut BytesMut) -> anyhow::Result<usize> {
        let (peer, line) = (self.peer, &mut self.line);
        let mut pings = 0;
        let used = frames(bytes, answers, &mut |message| {
            let mut each = |heard: Heard<'_>| match heard {
                Heard::Ping => pings += 1,
                heard => each(heard),
            };
            if !peer.is_stream() {
                return peer.hear(message, &mut each);
            }
            line.extend_from_slice(message);
            let whole = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            peer.hear(&line[..whole], &mut each)?;
            line.drain(..whole);
            Ok(())
        })?;
        for pong in std::iter::repeat_with(|| peer.pong()).take(pings).flatten() {
            put_frame(answers, if pong.text { TEXT } else { BINARY }, &pong.bytes);
        }
        Ok(used)
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        loop {
            self.writer.0.readable().await?;
            match self.writer.0.try_read_buf(&mut self.rest) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects from the next source address that has ports left.
async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let number = CONNECTIONS.fetch_add(1, Relaxed) / CONNECTIONS_PER_ADDRESS % ADDRESSES;
    let source = Ipv4Addr::new(127, 0, 0, u8::try_from(1 + number)?);
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream = socket.connect(address.parse()?).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Walks the whole frames in `bytes` and says how many bytes they are. Pings are answered into `pongs`.
fn frames(
    bytes: &[u8],
    pongs: &mut BytesMut,
    take: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut used = 0;
    while let Some((opcode, payload, length)) = frame(&bytes[used..])? {
        match opcode {
            TEXT | BINARY => take(payload)?,
            PING => put_frame(pongs, PONG, payload),
            PONG => {}
            CLOSE => bail!("the server closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default())),
            other => bail!("a frame with opcode {other} was not expected"),
        }
        used += length;
    }
    Ok(used)
}

/// The first frame of `bytes`: opcode, payload, length with its header. `None` if its end has not come yet.
fn frame(bytes: &[u8]) -> anyhow::Result<Option<(u8, &[u8], usize)>> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    ensure!(first & 0x80 != 0 && second & 0x80 == 0, "a fragment or a masked frame was not expected");
    let (header, length) = match second {
        126 => match bytes.get(2..4) {
            Some(length) => (4, usize::from(u16::from_be_bytes(length.try_into()?))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length.try_into()?))?),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    Ok(bytes.get(header..header + length).map(|payload| (first & 0x0f, payload, header + length)))
}

/// A client's frame. Its mask is zero, which leaves the payload as it is.
fn put_frame(into: &mut BytesMut, opcode: u8, payload: &[u8]) {
    into.put_u8(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => into.put_u8(0x80 | u8::try_from(length).expect("at most 125")),
        length @ 126..=0xffff => {
            into.put_u8(0x80 | 126);
            into.put_u16(u16::try_from(length).expect("at most 65,535"));
        }
        length => {
            into.put_u8(0x80 | 127);
            into.put_u64(length as u64);
        }
    }
    into.put_u32(0);
    into.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_taken_and_the_rest_is_left() {
        let mut bytes = vec![0x82, 3, b'o', b'n', b'e', 0x82, 126, 0, 200];
        bytes.extend_from_slice(&[7; 200]);
        bytes.extend_from_slice(&[0x82, 5, b'h', b'a']);
        let (mut taken, mut pongs) = (Vec::new(), BytesMut::new());
        let mut take = |payload: &[u8]| {
            taken.push(payload.len());
            Ok(())
        };
        let used = frames(&bytes, &mut pongs, &mut take).expect("well-formed");
        assert_eq!((used, taken), (bytes.len() - 4, vec![3, 200]));
        assert!(pongs.is_empty());
    }

    #[test]
    fn a_ping_is_answered_with_its_payload() {
        let mut pongs = BytesMut::new();
        frames(&[0x89, 2, 4, 2], &mut pongs, &mut |_| Ok(())).expect("well-formed");
        assert_eq!(&pongs[..], [0x8a, 0x82, 0, 0, 0, 0, 4, 2]);
    }
}
