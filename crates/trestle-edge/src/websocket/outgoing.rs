//! What is on its way to the kernel: finished messages and control frames in, as few writes as it takes.
//!
//! What always holds: they go in their order, each byte once; an idle socket holds no buffer.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Messages that share one system call.
const SLICES_MAX: usize = 64;

/// The queue before the kernel.
#[derive(Default)]
pub(super) struct Outgoing {
    /// What goes next, but for what has gone of it; empty when there is nothing. Most of the time it is all there is, and
    /// needs no queue.
    first: Bytes,
    more: VecDeque<Bytes>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() {
            self.first = bytes;
        } else {
            self.more.push_back(bytes);
        }
    }

    /// Ready when the kernel has everything.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.first.is_empty() {
            let written = if self.more.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(context, &self.first))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let waiting = std::iter::once(&self.first).chain(&self.more);
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

    fn wrote(&mut self, mut written: usize) {
        while written >= self.first.len() {
            written -= self.first.len();
            self.first = self.more.pop_front().unwrap_or_default();
            if self.first.is_empty() {
                return;
            }
        }
        self.first.advance(written);
    }
}
