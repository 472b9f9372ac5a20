//! The session on a connection that works: frames in, asks out, and the way to another connection before this one ends.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1;

use crate::{
    Closed, Error,
    connection::{CLOSE_TIMEOUT, no_frame, unanswered},
    dial::{Dialed, Greeted},
    driver::{Command, Driver, at, part},
    link::{Incoming, Link, goodbye},
    session::Notice,
    wire::unpack,
};

/// Longest wait for the gateway to have read all that was written to the connection that is left: some round trips.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(1);
/// Commands that are taken in before they are written: all that wait, in practice.
const COMMANDS_AT_ONCE: usize = 64;

/// How a connection ended.
pub(crate) enum Ended {
    /// By the program's wish.
    Over(Closed),
    /// There may be another.
    Lost(Closed),
}

/// A connection that works.
pub(crate) struct Up {
    link: Link,
    /// Written before all else.
    urgent: Option<Message>,
    moving: Option<Move>,
    closing: Closing,
}

/// Whether the program has had enough.
enum Closing {
    No,
    /// After what was asked before, if that is written so soon.
    Soon(Instant),
    /// Goodbye is said; the gateway has so long to answer.
    Said(Instant),
}

impl Closing {
    fn until(&self) -> Option<Instant> {
        match self {
            Self::No => None,
            Self::Soon(until) | Self::Said(until) => Some(*until),
        }
    }
}

/// On the way to another connection.
enum Move {
    /// One is being made.
    Dialing(BoxFuture<'static, Result<Dialed, Error>>),
    /// It is there; the gateway reads what was written to the old one. The id is that of the question that says so.
    Settling(Dialed, u32, Pin<Box<Sleep>>),
    /// The session is asked to go on there. Nothing is read from the old one any more, not even a ping: what it still
    /// holds the gateway writes again to the new one, as long as no pong says that it has come.
    Greeting(BoxFuture<'static, Result<Greeted, Error>>),
}

/// What a [`Move`] has come to.
enum Moved {
    Dialed(Result<Dialed, Error>),
    Settled,
    Greeted(Result<Greeted, Error>),
}

/// What happened.
enum Step {
    Incoming(Incoming),
    Command(Option<Command>),
    Moved(Moved),
    Due,
}

impl Up {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, urgent: None, moving: None, closing: Closing::No }
    }

    /// Carries the session until the connection ends.
    pub(crate) async fn run(mut self, driver: &mut Driver) -> Ended {
        loop {
            driver.session.tick(Instant::now());
            let ended = match self.step(driver).await {
                Step::Incoming(Incoming::Message(message)) => self.hear(message, driver),
                Step::Incoming(Incoming::Closed(closed)) => Some(self.ended(closed)),
                Step::Command(command) => self.obey(command, driver),
                Step::Moved(moved) => self.moved(moved, driver),
                Step::Due => self.due(),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    async fn step(&mut self, driver: &mut Driver) -> Step {
        let Self { link, urgent, moving, closing } = self;
        let Driver { session, commands, .. } = driver;
        let reads = !matches!(moving, Some(Move::Greeting(_)));
        let (takes, moves) = (matches!(closing, Closing::No), moving.is_some());
        let patience = closing.until();
        let wakes_at = [session.wakes_at(), patience].into_iter().flatten().min();
        let now = Instant::now();
        let mut source = |_: &mut Context<'_>| {
            let next = urgent.take().or_else(|| session.next_message(now));
            if next.is_none() && matches!(closing, Closing::Soon(_)) && session.is_written() {
                *closing = Closing::Said(now + CLOSE_TIMEOUT);
                return Some(goodbye());
            }
            next.filter(|_| !matches!(closing, Closing::Said(_)))
        };
        tokio::select! {
            incoming = poll_fn(|context| link.poll(context, &mut source)), if reads => Step::Incoming(incoming),
            command = commands.recv(), if takes => Step::Command(command),
            moved = poll_fn(|context| poll_move(moving, context)), if moves => Step::Moved(moved),
            () = at(wakes_at) => Step::Due,
        }
    }

    fn hear(&mut self, message: Message, driver: &mut Driver) -> Option<Ended> {
        let frames = match unpack(message) {
            Ok(frames) => frames,
            Err(fault) => return Some(Ended::Lost(no_frame(&fault))),
        };
        let now = Instant::now();
        for frame in frames {
            match driver.session.hear(frame, now) {
                Some(Notice::ComeAfter(wait)) => driver.come_at = Some(now + wait),
                Some(Notice::Draining(notice)) => self.draining(&notice, driver),
                None => {}
            }
        }
        if let Some(Move::Settling(_, id, patience)) = &mut self.moving
            && !driver.session.waits(*id)
        {
            patience.as_mut().reset(now);
        }
        None
    }

    fn ended(&self, closed: Closed) -> Ended {
        match self.closing {
            Closing::No => Ended::Lost(closed),
            Closing::Soon(_) | Closing::Said(_) => Ended::Over(closed),
        }
    }

    fn obey(&mut self, command: Option<Command>, driver: &mut Driver) -> Option<Ended> {
        let mut next = command;
        for _ in 0..COMMANDS_AT_ONCE {
            let closes = next.is_none_or(|command| driver.obey(command));
            if closes {
                self.closing = Closing::Soon(Instant::now() + CLOSE_TIMEOUT);
                return None;
            }
            match driver.commands.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => return None,
            }
        }
        None
    }

    fn due(&self) -> Option<Ended> {
        let over = self.closing.until().is_some_and(|until| until <= Instant::now());
        over.then(|| Ended::Over(unanswered()))
    }

    /// The gateway wants this connection to end: another one is made first.
    fn draining(&mut self, notice: &v1::DrainNotice, driver: &mut Driver) {
        let span = |span: Option<prost_types::Duration>| span.and_then(|span| span.try_into().ok()).unwrap_or_default();
        let at: Instant = Instant::now() + span(notice.reconnect_after);
        driver.come_at = Some(at);
        if self.moving.is_none() && matches!(self.closing, Closing::No) && driver.dialer.options().reconnect.is_some() {
            let named = Some(notice.endpoint.clone()).filter(|url| !url.is_empty() && driver.dialer.allows(url));
            let url = named.unwrap_or_else(|| driver.dialer.next_url());
            self.moving = Some(Move::Dialing(Box::pin(driver.dialer.dial(url, at, None))));
        }
    }

    fn moved(&mut self, moved: Moved, driver: &mut Driver) -> Option<Ended> {
        match moved {
            Moved::Dialed(Ok(dialed)) => {
                driver.session.hold(true);
                let barrier = driver.session.barrier(Instant::now());
                let (id, question) = barrier.unzip();
                self.urgent = question;
                let patience = if id.is_some() { BARRIER_TIMEOUT } else { Duration::ZERO };
                self.moving = Some(Move::Settling(dialed, id.unwrap_or_default(), Box::pin(sleep(patience))));
            }
            Moved::Settled => {
                if let Some(Move::Settling(dialed, ..)) = self.moving.take() {
                    let Dialed { link, token } = dialed;
                    let (id, connect) = driver.session.connect(token.clone());
                    driver.token = token;
                    self.urgent = None;
                    self.moving = Some(Move::Greeting(Box::pin(driver.dialer.greet(link, id, connect))));
                }
            }
            Moved::Greeted(Ok(greeted)) => self.arrive(greeted, driver),
            Moved::Dialed(Err(error)) => self.stay(error, driver),
            Moved::Greeted(Err(error)) => {
                driver.resume_lost |= matches!(error, Error::Closed(_) | Error::Timeout(_));
                self.stay(error, driver);
            }
        }
        None
    }

    /// The session is on the other connection; this one is read until the gateway closes it, or, if the session could not
    /// go on, ended with a goodbye.
    fn arrive(&mut self, greeted: Greeted, driver: &mut Driver) {
        self.moving = None;
        driver.failures = 0;
        let resumed = greeted.connected.resumed;
        let link = driver.welcome(greeted);
        let old = std::mem::replace(&mut self.link, link);
        tokio::spawn(part(old, if resumed { None } else { Some(goodbye()) }, CLOSE_TIMEOUT));
    }

    /// It cannot be made or does not take the session: this one goes on, and another is tried.
    fn stay(&mut self, error: Error, driver: &mut Driver) {
        tracing::debug!(%error, "the session stays on its connection for now");
        driver.session.hold(false);
        driver.failures = driver.failures.saturating_add(1);
        let wait = driver.dialer.options().reconnect.as_ref().map(|reconnect| reconnect.wait(driver.failures));
        let at = Instant::now() + wait.unwrap_or_default();
        let url = driver.dialer.next_url();
        self.moving = Some(Move::Dialing(Box::pin(driver.dialer.dial(url, at, None))));
    }
}

fn poll_move(moving: &mut Option<Move>, context: &mut Context<'_>) -> Poll<Moved> {
    match moving {
        None => Poll::Pending,
        Some(Move::Dialing(dialing)) => dialing.as_mut().poll(context).map(Moved::Dialed),
        Some(Move::Settling(_, _, patience)) => patience.as_mut().poll(context).map(|()| Moved::Settled),
        Some(Move::Greeting(greeting)) => greeting.as_mut().poll(context).map(Moved::Greeted),
    }
}
