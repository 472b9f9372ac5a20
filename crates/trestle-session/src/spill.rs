//! Where messages wait for which the memory of an outbox has no room: what a disk must promise.

use std::{
    collections::HashMap,
    task::{Context, Poll},
};

use trestle_wire::ChannelName;

use crate::{Finished, Full, Label, Taken};

/// A node's room for spilled messages, shared by all its outboxes.
pub trait Spills: Send + Sync {
    /// A place for one client, empty. Called by the fan-out when the first message of a client finds no room in memory:
    /// it must not block, so a file is made later, by whoever writes it.
    ///
    /// # Errors
    /// [`Full`] if the node has none left; the client is parted from.
    fn open(&self) -> Result<Box<dyn Spill>, Full>;
}

/// What waits for one client outside of its outbox's memory: first in, first out.
///
/// It is called under the outbox's lock, so none of its functions may block or wait: the caller of [`put`](Self::put) is
/// the fan-out with all other clients behind it. A disk writes and reads in a task or thread of its own, and holds in
/// memory, within a bound, what is on its way to the disk and back. Dropping it gives its place back, with all that is in
/// it.
pub trait Spill: Send {
    /// Takes `frame`, which has a label, at the end. It is read back with the same one.
    ///
    /// # Errors
    /// [`Full`] if that is more than the client or the node may have here, or it was lost: nothing was taken, the outbox closes and
    /// the client is parted from.
    fn put(&mut self, frame: &Finished) -> Result<(), Full>;

    /// Moves up to `most` of the oldest to the end of `into`, as [`Taken::Frame`] with their labels, or waits until one
    /// has been read from the disk: then `context` is woken. Not called when nothing is there.
    ///
    /// # Errors
    /// [`Full`] if what was put cannot be read back: the outbox closes, as for one that was not taken.
    fn poll_read(&mut self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>>;

    /// Messages that were put and not yet read.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of frames that were put and not yet read.
    fn bytes(&self) -> usize;
}

/// An outbox's spill while something is in it, and the channels that it is from: what comes later on those waits behind.
pub(crate) struct Spilled {
    pub(crate) spill: Box<dyn Spill>,
    channels: HashMap<Option<ChannelName>, usize>,
    /// Marks in memory before which all is older: it is the turn of what is spilled when there is none.
    pub(crate) marks: usize,
}

impl Spilled {
    /// A spill into which nothing was put yet.
    pub(crate) fn new(spill: Box<dyn Spill>) -> Self {
        Self { spill, channels: HashMap::new(), marks: 0 }
    }

    /// Takes a frame at the end.
    pub(crate) fn put(&mut self, frame: &Finished, label: &Label) -> Result<(), Full> {
        self.spill.put(frame)?;
        *self.channels.entry(label.channel.clone()).or_default() += 1;
        Ok(())
    }

    /// Whether something of `channel` is in it.
    pub(crate) fn holds(&self, channel: &Option<ChannelName>) -> bool {
        self.channels.contains_key(channel)
    }

    /// Moves up to `most` frames to the end of `into`, as many as were read from the disk.
    pub(crate) fn read(&mut self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Result<(), Full> {
        if most == 0 || self.spill.is_empty() {
            return Ok(());
        }
        let before = into.len();
        match self.spill.poll_read(context, most, into) {
            Poll::Ready(read) => read?,
            Poll::Pending => {}
        }
        for taken in &into[before..] {
            let Taken::Frame(frame) = taken else { continue };
            let Some(label) = frame.label() else { continue };
            let Some(count) = self.channels.get_mut(&label.channel) else { continue };
            *count -= 1;
            if *count == 0 {
                self.channels.remove(&label.channel);
            }
        }
        Ok(())
    }
}
