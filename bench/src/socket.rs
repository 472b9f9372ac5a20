//! A client's WebSocket that costs next to nothing: no buffer while idle, frames counted where they were read.

use std::{cell::RefCell, io};

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, BytesMut};
use tokio::net::TcpStream;

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

/// A connected WebSocket.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
}

impl Socket {
    /// Connects and shakes hands.
    pub(crate) async fn connect(address: &str, path: &str, subprotocol: Option<&str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let protocol = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
        );
        let mut socket = Self { stream, rest: Vec::new() };
        socket.write(request.as_bytes()).await?;
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

    /// Sends binary messages, all in one write.
    pub(crate) async fn send(&self, messages: &[&[u8]]) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        for message in messages {
            put_frame(&mut bytes, BINARY, message);
        }
        self.write(&bytes).await
    }

    /// Waits until something has come, and hands every whole message of it to `take`.
    pub(crate) async fn read(&mut self, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut pongs = BytesMut::new();
        loop {
            self.stream.readable().await?;
            let done = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) if self.rest.is_empty() => {
                    let used = frames(&scratch[..count], &mut take, &mut pongs)?;
                    self.rest.extend_from_slice(&scratch[used..count]);
                    Ok(true)
                }
                Ok(count) => {
                    self.rest.extend_from_slice(&scratch[..count]);
                    let used = frames(&self.rest, &mut take, &mut pongs)?;
                    self.rest.drain(..used);
                    if self.rest.is_empty() {
                        self.rest = Vec::new();
                    }
                    Ok(true)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error.into()),
            })?;
            if !pongs.is_empty() {
                self.write(&pongs).await?;
            }
            if done {
                return Ok(());
            }
        }
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read_buf(&mut self.rest) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Walks the whole frames in `bytes` and says how many bytes they are. Pings are answered into `pongs`.
fn frames(
    bytes: &[u8],
    take: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    pongs: &mut BytesMut,
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
        let used = frames(&bytes, &mut take, &mut pongs).expect("well-formed");
        assert_eq!((used, taken), (bytes.len() - 4, vec![3, 200]));
        assert!(pongs.is_empty());
    }

    #[test]
    fn a_ping_is_answered_with_its_payload() {
        let mut pongs = BytesMut::new();
        frames(&[0x89, 2, 4, 2], &mut |_| Ok(()), &mut pongs).expect("well-formed");
        assert_eq!(&pongs[..], [0x8a, 0x82, 0, 0, 0, 0, 4, 2]);
    }
}
