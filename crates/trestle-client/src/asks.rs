//! What was asked and has no answer yet: what is written when, and what is repeated how often.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

use crate::{Error, Reconnect, error::retry_after, wire::pack};

/// The reason by which the gateway says that it does not know what became of a frame.
const ANSWER_LOST: &str = "answer_lost";
/// The reason by which it says that the service's instance went away with a request.
const INSTANCE_LOST: &str = "instance_lost";
/// Waits before a repeat where the gateway names none.
const PAUSE: Reconnect = Reconnect { base: Duration::from_millis(200), cap: Duration::from_secs(5), give_up: None };
/// What becomes of something that nobody wants any more, before it was written.
const FORGOTTEN: Error = Error::Unexpected { expected: "an answer that somebody waits for" };
/// Shortest time that a repeated request is given.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// When something is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// When its answer was lost, or it was refused for the moment: it does no harm.
    Always,
    /// When its answer was lost.
    WhenLost,
    /// Not once it was written.
    Never,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Asker {
    /// Somebody in the program.
    Program(oneshot::Sender<Result<Frame, Error>>),
    /// A channel that is being joined, in the life of it that has this number.
    Join { channel: String, life: u64 },
    /// A channel that is being left, and who wants to know.
    Leave { channel: String, done: Option<oneshot::Sender<Result<(), Error>>> },
    /// The client itself, to know that all before has been read.
    Barrier,
}

/// Something to ask.
pub(crate) struct Question {
    pub(crate) ask: Ask,
    pub(crate) repeat: Repeat,
    pub(crate) asker: Asker,
    /// For how long it is repeated; `None`: for as long as the client lives.
    pub(crate) repeat_for: Option<Duration>,
}

/// An answer for whoever asked.
pub(crate) type Answered = (Asker, Result<Frame, Error>);

/// What is written before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// What the client asks for its own sake.
    First,
    /// Channels that are joined again: a program that publishes on one hears itself.
    Before,
    /// What the program asks.
    InTurn,
}

type Order = (Rank, u64);

struct Entry {
    ask: Option<Ask>,
    repeat: Repeat,
    asker: Asker,
    order: Order,
    begun: Instant,
    repeat_until: Option<Instant>,
    /// Whether it did not go out at the first opportunity, so that a request has less time than it began with.
    late: bool,
    /// Whether it was written before.
    written: bool,
    tries: u32,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unsent,
    Sent,
    Resting(Instant),
}

/// Everything that has no answer yet.
#[derive(Default)]
pub(crate) struct Asks {
    entries: HashMap<u32, Entry>,
    unsent: BTreeMap<Order, u32>,
    resting: BTreeSet<(Instant, u32)>,
    begun: u64,
    last_id: u32,
}

impl Asks {
    /// Takes a question in. `late`: there is no connection to write it to.
    pub(crate) fn begin(&mut self, question: Question, rank: Rank, late: bool, now: Instant) -> u32 {
        let Question { ask, repeat, asker, repeat_for } = question;
        let id = self.id();
        self.begun += 1;
        let order = (rank, self.begun);
        let repeat_until = repeat_for.map(|span| now + span);
        let (ask, phase) = (Some(ask), Phase::Unsent);
        self.unsent.insert(order, id);
        self.entries.insert(
            id,
            Entry { ask, repeat, asker, order, begun: now, repeat_until, late, written: false, tries: 0, phase },
        );
        id
    }

    /// An id that nothing has that waits; never 0, which asks for no answer.
    pub(crate) fn id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.entries.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The next message to write, in the order in which they were begun; or the end of one that is too large or that
    /// nobody wants any more. An ack says how much was `received`.
    pub(crate) fn next(
        &mut self,
        bytes_max: usize,
        received: u64,
        wanted: impl Fn(&Asker) -> bool,
        now: Instant,
    ) -> Option<Result<Message, Answered>> {
        loop {
            let (_, id) = self.unsent.pop_first()?;
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            // A leave that comes before the next join is written, so that they come in the order they had here.
            let in_order = matches!(entry.asker, Asker::Leave { .. }) && !entry.written;
            if !in_order && !wanted(&entry.asker) {
                return Some(Err((entry.asker, Err(FORGOTTEN))));
            }
            match &mut entry.ask {
                Some(Ask::Request(request)) if entry.late => shorten(request, now - entry.begun),
                Some(Ask::Ack(ack)) => ack.received = received,
                _ => {}
            }
            // Each time under a new id, so that an answer to an earlier try is never taken for one to this.
            let id = if entry.written { self.id() } else { id };
            let (message, back) = pack(v1::ClientFrame { id, frame: entry.ask.take() });
            let bytes = message.len();
            if bytes > bytes_max {
                return Some(Err((entry.asker, Err(Error::TooLarge { bytes, max: bytes_max }))));
            }
            (entry.ask, entry.phase, entry.late, entry.written) = (back.frame, Phase::Sent, false, true);
            self.entries.insert(id, entry);
            return Some(Ok(message));
        }
    }

    /// Takes the answer to a frame; `None` if it is asked again, or nobody waits for it.
    pub(crate) fn answered(
        &mut self,
        id: u32,
        frame: Option<Frame>,
        wanted: impl Fn(&Asker) -> bool,
        now: Instant,
    ) -> Option<Answered> {
        let Some(mut entry) = self.remove(id) else {
            tracing::debug!(id, "an answer that nobody waits for any more");
            return None;
        };
        let error = match frame {
            Some(Frame::Error(error)) => error,
            Some(frame) => return Some((entry.asker, Ok(frame))),
            None => return Some((entry.asker, Err(Error::Unexpected { expected: "a frame of this version" }))),
        };
        match entry.again_at(&error, now) {
            Some(at) if wanted(&entry.asker) => {
                entry.tries += 1;
                self.rest(id, entry, at);
                None
            }
            _ => Some((entry.asker, Err(Error::Refused(error)))),
        }
    }

    /// The session is another one: what was written is asked again or, where that may do harm, has failed with `how`.
    pub(crate) fn lost(
        &mut self,
        which: impl Fn(u32) -> bool,
        wanted: impl Fn(&Asker) -> bool,
        how: &Error,
    ) -> Vec<Answered> {
        let sent = |(id, entry): &(&u32, &Entry)| entry.phase == Phase::Sent && which(**id);
        let ids: Vec<u32> = self.entries.iter().filter(sent).map(|(id, _)| *id).collect();
        let mut failed = Vec::new();
        for id in ids {
            let Some(mut entry) = self.entries.remove(&id) else { continue };
            if entry.repeat == Repeat::Never || !wanted(&entry.asker) {
                failed.push((entry.asker, Err(how.clone())));
                continue;
            }
            (entry.phase, entry.late) = (Phase::Unsent, true);
            self.unsent.insert(entry.order, id);
            self.entries.insert(id, entry);
        }
        failed
    }

    /// Without a connection: what is no longer repeated fails.
    pub(crate) fn expire(&mut self, how: &Error, now: Instant) -> Vec<Answered> {
        let over =
            |entry: &Entry| entry.repeat != Repeat::Never && entry.repeat_until.is_some_and(|until| until <= now);
        let ids: Vec<u32> = self.entries.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).map(|entry| (entry.asker, Err(how.clone()))).collect()
    }

    /// When the first of [`expire`](Self::expire) is due.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let repeated = self.entries.values().filter(|entry| entry.repeat != Repeat::Never);
        repeated.filter_map(|entry| entry.repeat_until).min()
    }

    /// Takes out what `which` names, answered or not.
    pub(crate) fn take(&mut self, which: impl Fn(&Asker) -> bool) -> Vec<Asker> {
        let ids: Vec<u32> = self.entries.iter().filter(|(_, entry)| which(&entry.asker)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).map(|entry| entry.asker).collect()
    }

    /// What has rested long enough is written again.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((_, id)) = self.resting.first().copied().filter(|(at, _)| *at <= now) {
            self.resting.pop_first();
            if let Some(entry) = self.entries.get_mut(&id) {
                (entry.phase, entry.late) = (Phase::Unsent, true);
                self.unsent.insert(entry.order, id);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    /// Whether everything has been written that can be.
    pub(crate) fn is_written(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Whether this frame still waits for its answer.
    pub(crate) fn waits(&self, id: u32) -> bool {
        self.entries.contains_key(&id)
    }

    /// Frames that were written and wait for their answers, the oldest first.
    pub(crate) fn outstanding(&self) -> Vec<u32> {
        let mut sent: Vec<_> = self.entries.iter().filter(|(_, entry)| entry.phase == Phase::Sent).collect();
        sent.sort_unstable_by_key(|(_, entry)| entry.order);
        sent.into_iter().map(|(id, _)| *id).collect()
    }

    /// Whether a channel is being left.
    pub(crate) fn leaves(&self, channel: &str) -> bool {
        self.entries.values().any(|entry| matches!(&entry.asker, Asker::Leave { channel: left, .. } if left == channel))
    }

    /// Lets go of what nobody waits for any more, if there is more of it than `most`.
    pub(crate) fn sweep(&mut self, most: usize, wanted: impl Fn(&Asker) -> bool) {
        if self.entries.len() > most {
            self.entries.retain(|_, entry| wanted(&entry.asker));
            self.resting.retain(|(_, id)| self.entries.contains_key(id));
        }
    }

    fn remove(&mut self, id: u32) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        match entry.phase {
            Phase::Unsent => _ = self.unsent.remove(&entry.order),
            Phase::Resting(at) => _ = self.resting.remove(&(at, id)),
            Phase::Sent => {}
        }
        Some(entry)
    }

    fn rest(&mut self, id: u32, mut entry: Entry, at: Instant) {
        entry.phase = Phase::Resting(at);
        self.resting.insert((at, id));
        self.entries.insert(id, entry);
    }
}

impl Entry {
    /// When it is asked again after this refusal; `None`: not.
    fn again_at(&self, error: &v1::Error, now: Instant) -> Option<Instant> {
        let lost = error.reason == ANSWER_LOST;
        let again = match self.repeat {
            Repeat::Always => error.retryable || lost,
            Repeat::WhenLost => lost || error.reason == INSTANCE_LOST,
            Repeat::Never => false,
        };
        let pause = || if lost && self.tries == 0 { Duration::ZERO } else { PAUSE.wait(self.tries) };
        let at = now + retry_after(error).unwrap_or_else(pause);
        (again && self.repeat_until.is_none_or(|until| at <= until)).then_some(at)
    }
}

/// Takes off the time of a request that it has waited here.
fn shorten(request: &mut v1::Request, waited: Duration) {
    if let Some(Ok(whole)) = request.timeout.map(Duration::try_from) {
        request.timeout = whole.saturating_sub(waited).max(REQUEST_TIMEOUT_MIN).try_into().ok();
    }
}
