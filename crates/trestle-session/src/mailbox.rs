//! What others want of the task that owns a client: a small bounded queue with one reader.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

/// Most mails that wait. A client's task reads them between any two of its steps, so more than a few wait only for one
/// that is stuck; 64 x 100,000 sessions are never all there.
const MAILS_MAX: usize = 64;

/// The mailbox of one client's task.
pub struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    mails: VecDeque<T>,
    closed: bool,
    /// The reader, when it waits.
    reader: Option<Waker>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Self {
        Self { inner: Mutex::new(Inner { mails: VecDeque::new(), closed: false, reader: None }) }
    }

    /// Puts `mail` at the end. Never waits.
    ///
    /// # Errors
    /// The mail, if 64 wait already or the mailbox is closed.
    pub fn post(&self, mail: T) -> Result<(), T> {
        let reader = {
            let mut inner = self.inner.lock();
            if inner.closed || inner.mails.len() >= MAILS_MAX {
                return Err(mail);
            }
            inner.mails.push_back(mail);
            inner.reader.take()
        };
        // Outside the lock: the reader may run on this very thread.
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// The oldest mail, or waits for one; only one task may wait. Pending for ever once it is closed and empty.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<T> {
        let mut inner = self.inner.lock();
        let Some(mail) = inner.mails.pop_front() else {
            if !inner.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker())) {
                inner.reader = Some(context.waker().clone());
            }
            return Poll::Pending;
        };
        if inner.mails.is_empty() {
            inner.mails = VecDeque::new(); // an idle client holds no queue
        }
        Poll::Ready(mail)
    }

    /// Takes nothing more, and gives back what nobody will read: whoever waits for it is to be told by its drop.
    pub fn close(&self) -> impl Iterator<Item = T> + use<T> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        std::mem::take(&mut inner.mails).into_iter()
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn mails_are_read_in_order_and_wake_their_reader_once() {
        let (mailbox, count) = (Mailbox::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        assert!(mailbox.poll_next(&mut context).is_pending());
        assert_eq!((mailbox.post(1), mailbox.post(2)), (Ok(()), Ok(())));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(mailbox.poll_next(&mut context), Poll::Ready(1));
        assert_eq!(mailbox.poll_next(&mut context), Poll::Ready(2));
        assert!(mailbox.poll_next(&mut context).is_pending());
    }

    #[test]
    fn a_full_mailbox_gives_the_mail_back() {
        let mailbox = Mailbox::new();
        (0..MAILS_MAX).for_each(|mail| mailbox.post(mail).unwrap());
        assert_eq!(mailbox.post(7), Err(7));
    }

    #[test]
    fn a_closed_mailbox_gives_back_what_nobody_reads() {
        let mailbox = Mailbox::new();
        mailbox.post(1).unwrap();
        assert_eq!(mailbox.close().collect::<Vec<_>>(), [1]);
        assert_eq!(mailbox.post(2), Err(2));
    }
}
