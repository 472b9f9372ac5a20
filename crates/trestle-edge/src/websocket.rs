//! Read and write: a socket on one side, WebSocket messages on the other.
//!
//! Reading and writing go on side by side in one task: a client that does not read is still heard. While nothing comes and
//! nothing goes, no buffer is held: all connections of a thread read into one.

mod inbound;
mod outgoing;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, timeout},
};
use trestle_codec::Encoding;
use trestle_wire::{CloseCode, Reason, Refusal};

use inbound::{Inbound, Received};
use outgoing::Outgoing;
pub(crate) use outgoing::Piece;

/// Bytes read at a time: what one system call is worth, and small enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * 1024;
/// Pings answered while nothing leaves; then no more is read. 64 x 127 bytes are 8 KiB for a client that only asks.
const PONGS_MAX: u32 = 64;
/// Bytes thrown away at a time while a closing client still sends.
const DISCARD_BYTES: usize = 4 * 1024;
/// The first bytes of whole control frames (RFC 6455, 5.5).
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

thread_local! {
    /// What a connection of this thread is reading into.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What a WebSocket is spoken on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A client's WebSocket.
pub(crate) struct WebSocket<S> {
    stream: S,
    encoding: Encoding,
    inbound: Inbound,
    /// What was read behind the last message.
    rest: Bytes,
    outgoing: Outgoing,
    /// Since when the kernel takes nothing more.
    unflushed: Option<Instant>,
    /// Pings that were answered since the kernel had everything.
    pongs: u32,
}

/// What happened on the socket.
#[derive(Debug)]
pub(crate) enum Step {
    /// A message of the subprotocol's kind.
    Message(Bytes),
    /// A ping: the client lives.
    Alive,
    /// A pong, to a ping that carried this count of frames.
    Pong(Option<u64>),
    /// All that was written is with the kernel.
    Flushed,
    /// The client broke a rule, and must be told and parted from.
    Broken(Refusal),
    /// The client has closed its session, and what it sent before is still to be done.
    Goodbye,
    /// The client is gone, or closes this connection and may come back.
    Gone,
}

impl<S: Stream> WebSocket<S> {
    /// Takes a socket after the upgrade, with the bytes that were read too far. On the heap, as futures have room for what they
    /// are given and again for what they keep of it.
    pub(crate) fn new(stream: S, read: Bytes, encoding: Encoding, frame_bytes_max: usize) -> Box<Self> {
        Box::new(Self {
            stream,
            encoding,
            inbound: Inbound::new(frame_bytes_max),
            rest: read,
            outgoing: Outgoing::default(),
            unflushed: None,
            pongs: 0,
        })
    }

    /// Whether a batch can be written: the one before is with the kernel.
    pub(crate) fn writable(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Since when the kernel takes nothing more, if so.
    pub(crate) fn unflushed_since(&self) -> Option<Instant> {
        self.unflushed
    }

    /// The next thing to happen, reading only if `read`.
    pub(crate) fn poll_step(&mut self, read: bool, context: &mut Context<'_>) -> Poll<Step> {
        if !self.outgoing.is_empty()
            && let Poll::Ready(flushed) = self.poll_flush(context)
        {
            return Poll::Ready(if flushed { Step::Flushed } else { Step::Gone });
        }
        if !read || self.pongs >= PONGS_MAX {
            return Poll::Pending;
        }
        let step = match ready!(self.poll_received(context)) {
            Ok(Some(received)) => self.step(received),
            Ok(None) => Step::Gone,
            Err(refusal) => Step::Broken(refusal),
        };
        Poll::Ready(step)
    }

    /// What the client sends next; `None` if it is gone.
    fn poll_received(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Received>, Refusal>> {
        loop {
            let rest = std::mem::take(&mut self.rest);
            let mut input = &rest[..];
            let mut received = self.inbound.next(&mut input)?;
            self.rest = rest.slice_ref(input);
            if received.is_some() {
                return Poll::Ready(Ok(received));
            }
            let more = SCRATCH.with_borrow_mut(|scratch| -> Poll<Result<bool, Refusal>> {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
                let mut input = buffer.filled();
                if read.is_err() || input.is_empty() {
                    return Poll::Ready(Ok(false));
                }
                received = self.inbound.next(&mut input)?;
                self.rest = Bytes::copy_from_slice(input);
                Poll::Ready(Ok(received.is_none()))
            });
            if !ready!(more)? {
                return Poll::Ready(Ok(received));
            }
        }
    }

    /// Whether all that was written is with the kernel now; `false` if it never will be.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        match self.outgoing.poll_flush(&mut self.stream, context) {
            Poll::Ready(flushed) => {
                (self.unflushed, self.pongs) = (None, 0);
                Poll::Ready(flushed.is_ok())
            }
            Poll::Pending => {
                self.unflushed.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    /// Hands to the kernel what it takes at once; the rest, and any fault, is [`WebSocket::poll_step`]'s.
    pub(crate) async fn flush_now(&mut self) {
        if !self.outgoing.is_empty() {
            poll_fn(|context| {
                let _flushed = self.poll_flush(context);
                Poll::Ready(())
            })
            .await;
        }
    }

    fn step(&mut self, received: Received) -> Step {
        match (received, self.encoding) {
            (Received::Text(message), Encoding::Json) | (Received::Binary(message), Encoding::Protobuf) => {
                Step::Message(message)
            }
            (Received::Text(_) | Received::Binary(_), encoding) => {
                let wanted = match encoding {
                    Encoding::Json => "text",
                    Encoding::Protobuf => "binary",
                };
                let message = format!("{} carries {wanted} messages", encoding.subprotocol());
                Step::Broken(Refusal::new(Reason::WrongOpcode, message))
            }
            (Received::Ping(payload), _) => {
                self.pongs += 1;
                self.control(PONG, &payload);
                Step::Alive
            }
            (Received::Pong(echo), _) => Step::Pong(echo[..].try_into().ok().map(u64::from_be_bytes)),
            (Received::Close(code), _) => {
                self.control(CLOSE, code.map(u16::to_be_bytes).as_ref().map_or(&[], |code| &code[..]));
                // RFC 6455, 7.4.1: 1000 means that the purpose is fulfilled; 1001 is a page that is left, and may be a reload.
                match code {
                    None => Step::Goodbye,
                    Some(code) if code == CloseCode::Normal.number() => Step::Goodbye,
                    Some(_) => Step::Gone,
                }
            }
        }
    }

    /// Queues a finished WebSocket message of the subprotocol's kind; [`WebSocket::flush_now`] and
    /// [`WebSocket::poll_step`] carry it to the kernel.
    pub(crate) fn write(&mut self, message: Piece) {
        self.outgoing.push(message);
    }

    /// Queues a ping that says how many frames were written: its pong acks them.
    pub(crate) fn ping(&mut self, written: u64) {
        self.control(PING, &written.to_be_bytes());
    }

    /// Queues a control frame; `payload` has at most 125 bytes.
    fn control(&mut self, first: u8, payload: &[u8]) {
        let mut frame = BytesMut::with_capacity(2 + payload.len());
        frame.put_slice(&[first, payload.len() as u8]);
        frame.put_slice(payload);
        self.outgoing.push(Piece::Own(frame.freeze()));
    }

    /// Says why (`why` instead of the code's own words) and closes, and gives the client `patience` to take it: the close
    /// frame must not be lost to a reset because the client was still sending.
    pub(crate) async fn close(mut self: Box<Self>, code: CloseCode, why: Option<String>, patience: Duration) {
        let mut payload = code.number().to_be_bytes().to_vec();
        payload.extend_from_slice(why.as_deref().unwrap_or_else(|| code.reason()).as_bytes());
        self.control(CLOSE, &payload);
        let part = async {
            if !poll_fn(|context| self.poll_flush(context)).await {
                return;
            }
            // A FIN after the close frame, then whatever still comes until the client's own FIN.
            if self.stream.shutdown().await.is_ok() {
                let mut discarded = [0; DISCARD_BYTES];
                while matches!(self.stream.read(&mut discarded).await, Ok(read) if read > 0) {}
            }
        };
        // After that it is closed without ceremony.
        let _in_time = timeout(patience, part).await;
    }

    /// Answers the client's close frame.
    pub(crate) async fn leave(mut self: Box<Self>, patience: Duration) {
        let part = async {
            if poll_fn(|context| self.poll_flush(context)).await {
                let _closed = self.stream.shutdown().await;
            }
        };
        let _in_time = timeout(patience, part).await;
    }
}
