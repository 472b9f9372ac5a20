//! Read and write: a socket on one side, WebSocket messages on the other.
//!
//! tungstenite keeps RFC 6455; what is ours are its limits, and that reading and writing go on side by side in one task:
//! a client that does not read is still heard.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode as Code},
    },
};
use trestle_codec::Encoding;
use trestle_wire::{CloseCode, Reason, Refusal};

/// Bytes gathered before a write: a batch of small frames is one system call.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Pings answered while nothing leaves; then no more is read. 64 x 127 bytes are 8 KiB for a client that only asks.
const PONGS_MAX: u32 = 64;
/// Bytes thrown away at a time while a closing client still sends.
const DISCARD_BYTES: usize = 4 * 1024;

/// What a WebSocket is spoken on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A client's WebSocket.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    encoding: Encoding,
    /// Since when something written is not yet with the kernel.
    unflushed: Option<Instant>,
    /// Pings that were answered since then.
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
    /// Takes a socket after the upgrade, with the bytes that were read too far.
    pub(crate) async fn new(
        stream: S,
        read: Bytes,
        encoding: Encoding,
        read_buffer_bytes: usize,
        frame_bytes_max: usize,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer_bytes)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            // Bounded by what is handed to it: a batch from the outbox only when the one before is with the kernel, and
            // `PONGS_MAX` answers to pings.
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(frame_bytes_max))
            .max_frame_size(Some(frame_bytes_max));
        let inner = WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config)).await;
        Self { inner, encoding, unflushed: None, pongs: 0 }
    }

    /// Whether a batch can be written: the one before is with the kernel.
    pub(crate) fn writable(&self) -> bool {
        self.unflushed.is_none()
    }

    /// Since when the kernel takes nothing more, if so.
    pub(crate) fn unflushed_since(&self) -> Option<Instant> {
        self.unflushed
    }

    /// The next thing to happen, reading only if `read`.
    pub(crate) fn poll_step(&mut self, read: bool, context: &mut Context<'_>) -> Poll<Step> {
        if self.unflushed.is_some()
            && let Poll::Ready(flushed) = self.poll_flush(context)
        {
            return Poll::Ready(if flushed { Step::Flushed } else { Step::Gone });
        }
        if !read || self.pongs >= PONGS_MAX {
            return Poll::Pending;
        }
        match Pin::new(&mut self.inner).poll_next(context) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(self.read(message)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(broken(&error)),
            Poll::Ready(None) => Poll::Ready(Step::Gone),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether all that was written is with the kernel now; `false` if it never will be.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        flushed.map(|flushed| {
            if flushed.is_ok() {
                (self.unflushed, self.pongs) = (None, 0);
            }
            flushed.is_ok()
        })
    }

    /// Hands to the kernel what it takes at once; the rest, and any fault, is [`WebSocket::step`]'s.
    pub(crate) async fn flush_now(&mut self) {
        poll_fn(|context| {
            let _flushed = self.poll_flush(context);
            Poll::Ready(())
        })
        .await;
    }

    fn read(&mut self, message: Message) -> Step {
        match (message, self.encoding) {
            (Message::Text(text), Encoding::Json) => Step::Message(text.into()),
            (Message::Binary(bytes), Encoding::Protobuf) => Step::Message(bytes),
            (Message::Text(_) | Message::Binary(_), encoding) => {
                let wanted = match encoding {
                    Encoding::Json => "text",
                    Encoding::Protobuf => "binary",
                };
                let message = format!("{} carries {wanted} messages", encoding.subprotocol());
                Step::Broken(Refusal::new(Reason::WrongOpcode, message))
            }
            (Message::Ping(_), _) => {
                // tungstenite has queued the pong.
                self.pongs += 1;
                self.unflushed.get_or_insert_with(Instant::now);
                Step::Alive
            }
            (Message::Pong(echo), _) => Step::Pong(echo[..].try_into().ok().map(u64::from_be_bytes)),
            (Message::Frame(_), _) => Step::Alive,
            // RFC 6455, 7.4.1: 1000 means that the purpose is fulfilled; 1001 is a page that is left, and may be a reload.
            (Message::Close(Some(frame)), _) if frame.code != Code::Normal => Step::Gone,
            (Message::Close(_), _) => Step::Goodbye,
        }
    }

    /// Queues one message of the subprotocol's kind; [`WebSocket::step`] carries it to the kernel.
    pub(crate) fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let message = match self.encoding {
            Encoding::Json => Message::Text(Utf8Bytes::try_from(bytes).map_err(io::Error::other)?),
            Encoding::Protobuf => Message::Binary(bytes),
        };
        self.queue(message)
    }

    /// Queues a ping that says how many frames were written: its pong acks them.
    pub(crate) fn ping(&mut self, written: u64) -> io::Result<()> {
        self.queue(Message::Ping(Bytes::copy_from_slice(&written.to_be_bytes())))
    }

    fn queue(&mut self, message: Message) -> io::Result<()> {
        self.unflushed.get_or_insert_with(Instant::now);
        match Pin::new(&mut self.inner).start_send(message) {
            Ok(()) => Ok(()),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Says why (`why` instead of the code's own words) and closes, and gives the client `patience` to take it: the close frame must not be lost to a reset
    /// because the client was still sending.
    pub(crate) async fn close(mut self, code: CloseCode, why: Option<String>, patience: Duration) {
        let reason = why.map_or_else(|| Utf8Bytes::from_static(code.reason()), Utf8Bytes::from);
        let frame = CloseFrame { code: code.number().into(), reason };
        let part = async {
            let sent = self.queue(Message::Close(Some(frame))).is_ok();
            if !sent || poll_fn(|context| Pin::new(&mut self.inner).poll_flush(context)).await.is_err() {
                return;
            }
            let stream = self.inner.get_mut();
            // A FIN after the close frame, then whatever still comes until the client's own FIN.
            if stream.shutdown().await.is_ok() {
                let mut discarded = [0; DISCARD_BYTES];
                while matches!(stream.read(&mut discarded).await, Ok(read) if read > 0) {}
            }
        };
        // After that it is closed without ceremony.
        let _in_time = timeout(patience, part).await;
    }

    /// Answers the client's close frame.
    pub(crate) async fn leave(mut self, patience: Duration) {
        let part = async {
            if poll_fn(|context| Pin::new(&mut self.inner).poll_flush(context)).await.is_ok() {
                let _closed = self.inner.get_mut().shutdown().await;
            }
        };
        let _in_time = timeout(patience, part).await;
    }
}

/// What an error of tungstenite means.
fn broken(error: &Error) -> Step {
    let refusal = match error {
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            Refusal::new(Reason::FrameTooLarge, format!("a message of {size} bytes; at most {max_size} are taken"))
        }
        Error::Utf8(_) => Refusal::new(Reason::InvalidUtf8, "the text message is not UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Step::Gone,
        Error::Protocol(error) => Refusal::new(Reason::ProtocolError, error.to_string()),
        _ => return Step::Gone,
    };
    Step::Broken(refusal)
}
