//! What is on its way to the kernel: finished messages and control frames in, as few writes as it takes.
//!
//! What always holds: they go in their order, each byte once; an idle socket holds no buffer.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use trestle_codec::Encoded;
use trestle_session::Finished;

/// Messages that share one system call.
const SLICES_MAX: usize = 64;

/// A finished WebSocket message, or a control frame.
pub(crate) enum Piece {
    /// As it goes to others too.
    Shared(Finished),
    /// Made for this socket.
    Own(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(frame) => frame.message(),
            Self::Own(bytes) => bytes,
        }
    }
}

impl From<Finished> for Piece {
    fn from(frame: Finished) -> Self {
        Self::Shared(frame)
    }
}

impl From<Encoded> for Piece {
    fn from(frame: Encoded) -> Self {
        Self::Own(frame.into())
    }
}

/// The queue before the kernel.
#[derive(Default)]
pub(super) struct Outgoing {
    /// What goes next. Most of the time it is all there is, and needs no queue.
    first: Option<Piece>,
    /// Bytes of it that have gone.
    gone: usize,
    more: VecDeque<Piece>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, piece: Piece) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else {
            self.more.push_back(piece);
        }
    }

    /// Ready when the kernel has everything.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = &self.first {
            let rest = &first.bytes()[self.gone..];
            let written = if self.more.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(context, rest))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let waiting = std::iter::once(rest).chain(self.more.iter().map(Piece::bytes));
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(waiting) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                ready!(Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
        }
        self.more = VecDeque::new();
        Pin::new(stream).poll_flush(context)
    }

    fn wrote(&mut self, written: usize) {
        self.gone += written;
        while let Some(first) = &self.first
            && self.gone >= first.bytes().len()
        {
            self.gone -= first.bytes().len();
            self.first = self.more.pop_front();
        }
    }
}
