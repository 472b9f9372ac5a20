//! The task that owns a client: its session, the connection that carries it, and the way from one connection to the next.

use std::{pin::pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

use crate::{
    Closed, Error, Event, Listen, State, Token,
    asks::Repeat,
    backlog::Backlog,
    channels::Waiter,
    dial::{Dialed, Dialer, Greeted},
    error::{REPLACED, Remedy, UNAUTHENTICATED},
    link::{Incoming, Link},
    session::Session,
    up::{Ended, Up},
};

/// After so long a connection is one that works: the next wait is a first one again.
const STABLE: Duration = Duration::from_secs(10);
/// Longest wait that a gateway can ask for; it is a gateway's word, but not a way to send a client away for ever.
const COME_AFTER_MAX: Duration = Duration::from_secs(10 * 60);

/// What the program wants of the task.
#[allow(clippy::large_enum_variant)] // nearly all are asks
pub(crate) enum Command {
    Ask { ask: Ask, repeat: Repeat, answer: oneshot::Sender<Result<Frame, Error>> },
    Subscribe { channel: String, listen: Listen, listener: Arc<Backlog<Event>>, waiter: Waiter },
    Leave { channel: String, listener: Arc<Backlog<Event>>, done: Option<oneshot::Sender<Result<(), Error>>> },
    Close,
}

/// What the program sees of the task.
pub(crate) struct Seen {
    pub(crate) state: watch::Sender<State>,
    pub(crate) connected: Mutex<Arc<v1::Connected>>,
}

/// The task's own.
pub(crate) struct Driver {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) session: Session,
    pub(crate) dialer: Dialer,
    pub(crate) seen: Arc<Seen>,
    /// Connections in a row that failed, or did not last.
    pub(crate) failures: u32,
    /// The token that the current connection was made with.
    pub(crate) token: String,
    /// A token that the gateway has refused, until it takes another.
    pub(crate) refused: Option<String>,
    /// A resume was sent whose answer never came: the gateway may take an earlier connection for replaced.
    pub(crate) resume_lost: bool,
    /// When the gateway wants the client to come, if it has said so.
    pub(crate) come_at: Option<Instant>,
}

/// Over, and how.
pub(crate) struct Over(pub(crate) Closed);

impl Driver {
    /// Carries the session over one connection after the other, until it ends.
    pub(crate) async fn run(mut self, mut greeted: Greeted) {
        let over = loop {
            let began = Instant::now();
            let link = self.welcome(greeted);
            let ended = Up::new(link).run(&mut self).await;
            if began.elapsed() >= STABLE {
                self.failures = 0;
            }
            greeted = match ended {
                Ended::Over(closed) => break closed,
                Ended::Lost(closed) => match self.again(closed).await {
                    Ok(greeted) => greeted,
                    Err(Over(closed)) => break closed,
                },
            };
        };
        tracing::debug!(closed = %over, "client ended");
        // First what can be read, so that whoever sees the end has everything.
        self.session.end(&over, Instant::now());
        self.seen.state.send_replace(State::Closed(over));
    }

    /// Takes over what the gateway said when it agreed to a connect, and what came behind that.
    pub(crate) fn welcome(&mut self, greeted: Greeted) -> Link {
        let Greeted { link, connected, rest } = greeted;
        let now = Instant::now();
        tracing::debug!(session = connected.session_id, connected.resumed, node = connected.node, "connected");
        (self.refused, self.resume_lost, self.come_at) = (None, false, None);
        self.session.connected(&connected, now);
        let resumed = connected.resumed;
        *self.seen.connected.lock() = Arc::new(connected);
        self.seen.state.send_replace(State::Connected { resumed });
        for frame in rest {
            self.session.hear(frame, now);
        }
        link
    }

    /// Makes another connection.
    async fn again(&mut self, mut closed: Closed) -> Result<Greeted, Over> {
        let lost = Instant::now();
        loop {
            tracing::debug!(%closed, "no connection");
            let at = self.next_try(&closed, lost)?;
            self.session.disconnected(closed.clone());
            self.seen.state.send_replace(State::Waiting { until: at.into_std() });
            self.meanwhile(sleep_until(at)).await?;
            self.seen.state.send_replace(State::Connecting);
            self.failures = self.failures.saturating_add(1);
            match self.attempt().await? {
                Ok(greeted) => return Ok(greeted),
                Err(error) => closed = self.failed(error)?,
            }
        }
    }

    /// When the next connection is tried; the gateway's word comes first.
    fn next_try(&mut self, closed: &Closed, lost: Instant) -> Result<Instant, Over> {
        let over = || Over(closed.clone());
        let Some(reconnect) = self.dialer.options().reconnect.clone() else { return Err(over()) };
        let asked = self.dialer.options().token.as_ref().is_some_and(Token::is_asked);
        if closed.code == Some(UNAUTHENTICATED) && self.refused.is_none() && asked {
            // Another one, if there is one, is tried at once.
            self.refused = Some(self.token.clone());
            return Ok(Instant::now());
        }
        let ours = closed.code == Some(REPLACED) && self.resume_lost;
        if !closed.reconnect() && !ours {
            return Err(over());
        }
        let now = Instant::now();
        let wait = reconnect.wait(self.failures / self.dialer.endpoints());
        let at = self.come_at.take().filter(|at| *at > now).map_or(now + wait, |at| at.min(now + COME_AFTER_MAX));
        match reconnect.give_up {
            Some(give_up) if at > lost + give_up => Err(over()),
            _ => Ok(at),
        }
    }

    /// One try.
    async fn attempt(&mut self) -> Result<Result<Greeted, Error>, Over> {
        let url = self.dialer.next_url();
        let dialing = self.dialer.dial(url, Instant::now(), self.refused.clone());
        let Dialed { link, token } = match self.meanwhile(dialing).await? {
            Ok(dialed) => dialed,
            Err(error) => return Ok(Err(error)),
        };
        let (id, connect) = self.session.connect(token.clone());
        self.token = token;
        let resumes = self.session.resumes();
        let greeting = self.dialer.greet(link, id, connect);
        let greeted = self.meanwhile(greeting).await?;
        self.resume_lost |= resumes && matches!(&greeted, Err(Error::Closed(_) | Error::Timeout(_)));
        Ok(greeted)
    }

    /// What a failed try means for the next one.
    fn failed(&mut self, error: Error) -> Result<Closed, Over> {
        match error.remedy() {
            Remedy::Wait(wait) => self.come_at = wait.map(|wait| Instant::now() + wait),
            // Refused as a whole: without the resume it may be taken.
            Remedy::None if matches!(error, Error::Refused(_)) && self.session.resumes() => self.session.forget(),
            Remedy::Token if self.refused.is_none() => {}
            Remedy::Token | Remedy::None => return Err(Over(error.into_closed())),
        }
        Ok(error.into_closed())
    }

    /// Waits for `future` and does what the program wants meanwhile, as far as that goes without a connection.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Over> {
        let mut future = pin!(future);
        loop {
            let wakes_at = self.session.wakes_at();
            tokio::select! {
                done = &mut future => return Ok(done),
                command = self.commands.recv() => {
                    let closes = command.is_none_or(|command| self.obey(command));
                    if closes {
                        return Err(Over(Closed { code: Some(1000), reason: "closed without a connection".to_owned() }));
                    }
                }
                () = at(wakes_at) => self.session.tick(Instant::now()),
            }
        }
    }

    /// Does what the program wants; whether that is to close.
    pub(crate) fn obey(&mut self, command: Command) -> bool {
        let now = Instant::now();
        match command {
            Command::Ask { ask, repeat, answer } => self.session.ask(ask, repeat, answer, now),
            Command::Subscribe { channel, listen, listener, waiter } => {
                self.session.subscribe(&channel, listen, listener, waiter, now);
            }
            Command::Leave { channel, listener, done } => self.session.leave(&channel, &listener, done, now),
            Command::Close => return true,
        }
        false
    }
}

/// Waits until then, or for ever.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Makes the first connection: each address is tried once, or again if the gateway says when within the time to connect.
pub(crate) async fn first(dialer: &mut Dialer, session: &mut Session) -> Result<(Greeted, String), Error> {
    let until = Instant::now() + dialer.options().connect_timeout;
    let (mut left, mut at) = (dialer.endpoints(), Instant::now());
    loop {
        let opened = open(dialer, session, at).await;
        let Err(error) = opened else { return opened };
        left = left.saturating_sub(1);
        at = match error.remedy() {
            Remedy::Wait(Some(wait)) if Instant::now() + wait < until => Instant::now() + wait,
            Remedy::Wait(_) if left > 0 => Instant::now(),
            _ => return Err(error),
        };
    }
}

async fn open(dialer: &mut Dialer, session: &mut Session, at: Instant) -> Result<(Greeted, String), Error> {
    let url = dialer.next_url();
    let Dialed { link, token } = dialer.dial(url, at, None).await?;
    let (id, connect) = session.connect(token.clone());
    Ok((dialer.greet(link, id, connect).await?, token))
}

/// Reads what still comes on a connection that another has replaced, until the gateway closes it; `last` is written first.
pub(crate) async fn part(mut link: Link, mut last: Option<Message>, patience: Duration) {
    let ended = async { while let Incoming::Message(_) = link.next(&mut last).await {} };
    if timeout(patience, ended).await.is_err() {
        tracing::debug!("the gateway did not close a connection that was replaced");
    }
}
