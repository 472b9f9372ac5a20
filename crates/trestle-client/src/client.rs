//! The client: what a program can say to the gateway in protobuf, and what it gets for it.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

use crate::{
    Closed, Deliveries, Error, Event, Inbox, Listen, Options, Outgoing, Page, Since, State, Subscription,
    asks::Repeat,
    backlog::Backlog,
    channels::INBOX,
    dial::Dialer,
    driver::{Command, Driver, Seen, first},
    session::Session,
};

/// How much longer than the gateway a request waits here: the answer that its time is over is better than none.
const REQUEST_GRACE: Duration = Duration::from_secs(5);
/// Frames that wait for their answers; a caller beyond that waits. As many as a resume can name: 256 x 64 KiB, the
/// largest frame by default, = 16 MiB at worst.
const IN_FLIGHT_MAX: usize = 256;
/// What the program wants of the task and the task has not seen: never more than is in flight, and some goodbyes.
const COMMANDS_MAX: usize = 2 * IN_FLIGHT_MAX;

/// A stay with the gateway, over as many connections as it takes. Cheap to clone; it ends when the last clone and
/// subscription are gone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What clones and subscriptions share.
pub(crate) struct Shared {
    commands: mpsc::Sender<Command>,
    in_flight: Semaphore,
    seen: Arc<Seen>,
    deliveries: Mutex<Option<Deliveries>>,
    answer_timeout: Duration,
    queue_messages_max: usize,
    runtime: Handle,
}

impl Client {
    /// Connects, and begins a session.
    ///
    /// `url` is the gateway's, such as `wss://gateway.example/ws`; [`Options::endpoints`] may name more. Each is tried once.
    /// From then on the client comes back by itself, see [`Options::reconnect`].
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Upgrade`], [`Error::Token`] and [`Error::Timeout`] before there is a session,
    /// [`Error::Refused`] if the gateway refuses the token, [`Error::Closed`] if it closes.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let pushes = Arc::new(Backlog::new(options.queue_messages_max));
        let (answer_timeout, queue_messages_max) = (options.answer_timeout, options.queue_messages_max);
        let mut session = Session::new(pushes.clone(), options.retry_for);
        let mut dialer = Dialer::new(url, options);
        let (greeted, token) = first(&mut dialer, &mut session).await?;
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let seen = Arc::new(Seen {
            state: watch::Sender::new(State::Connected { resumed: false }),
            connected: Mutex::new(Arc::new(greeted.connected.clone())),
        });
        let driver = Driver {
            commands,
            session,
            dialer,
            seen: seen.clone(),
            failures: 0,
            token,
            refused: None,
            resume_lost: false,
            come_at: None,
        };
        tokio::spawn(driver.run(greeted));
        let shared = Shared {
            commands: sender,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            seen,
            deliveries: Mutex::new(Some(Deliveries::new(pushes))),
            answer_timeout,
            queue_messages_max,
            runtime: Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the gateway said when the current connection began.
    #[must_use]
    pub fn session(&self) -> Arc<v1::Connected> {
        self.shared.seen.connected.lock().clone()
    }

    /// Where the client stands with the gateway, now and whenever that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.seen.state.subscribe()
    }

    /// Sends a message to the service that its type is routed to, and waits until it is accepted as far as its route asks.
    ///
    /// It is repeated for [`Options::retry_for`] if its answer was lost or it was refused for the moment; its id keeps it
    /// from being done twice. The gateway knows ids by their user: those of an anonymous client only within its session.
    ///
    /// # Errors
    /// [`Error::Refused`] says why it was not accepted. After [`Error::Timeout`] or [`Error::Closed`] it may have been:
    /// send the same [`Outgoing`] again within two minutes.
    pub async fn send(&self, message: Outgoing) -> Result<v1::Accepted, Error> {
        self.accepted(Ask::Message(message.into_envelope())).await
    }

    /// Publishes a message on a channel.
    ///
    /// # Errors
    /// As [`send`](Self::send), which also says what is repeated.
    pub async fn publish(&self, channel: &str, message: Outgoing) -> Result<v1::Accepted, Error> {
        let message = Some(message.into_envelope());
        self.accepted(Ask::Publish(v1::Publish { channel: channel.to_owned(), message })).await
    }

    /// Sends a message to its service and waits for what the service answers, at most `patience`, also over a lost
    /// connection. Once written it is not repeated, unless it is [idempotent](Outgoing::idempotent).
    ///
    /// # Errors
    /// [`Error::Refused`] with `no_instance`, `timeout` and what the service declines among its reasons; with
    /// `answer_lost` and [`Error::Closed`] it may have been done.
    pub async fn request(&self, message: Outgoing, patience: Duration) -> Result<v1::Envelope, Error> {
        let timeout = prost_types::Duration::try_from(patience).ok();
        let repeat = if message.is_idempotent() { Repeat::WhenLost } else { Repeat::Never };
        let request = v1::Request { message: Some(message.into_envelope()), timeout };
        let patience = patience.saturating_add(REQUEST_GRACE);
        match self.shared.ask_for(Ask::Request(request), repeat, patience).await? {
            Frame::Reply(envelope) => Ok(envelope),
            _ => Err(Error::Unexpected { expected: "reply" }),
        }
    }

    /// [`request`](Self::request) for a reply of type `R`.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`Error::Reply`] if the reply is none of that type.
    pub async fn request_as<R>(&self, message: Outgoing, patience: Duration) -> Result<R, Error>
    where
        R: prost::Message + prost::Name + Default,
    {
        let reply = self.request(message, patience).await?;
        let none = |fault: String| Error::Reply { expected: R::full_name(), fault };
        if reply.message_type != R::full_name() {
            return Err(none(format!("it is a {}", reply.message_type)));
        }
        R::decode(reply.payload).map_err(|fault| none(fault.to_string()))
    }

    /// Listens to a channel from now on, until the subscription is dropped or [left](Subscription::unsubscribe).
    ///
    /// # Errors
    /// [`Error::Refused`] if the channel does not exist or its policy does not allow it.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, Error> {
        self.listen(channel, Listen::default()).await
    }

    /// Listens to a channel from a place in its history, or with who comes and goes.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe), and [`Error::AlreadySubscribed`] if the client listens to the channel already and
    /// this asks for more than from now on.
    pub async fn listen(&self, channel: &str, listen: Listen) -> Result<Subscription, Error> {
        let listener = Arc::new(Backlog::new(self.shared.queue_messages_max));
        // From here on its drop takes the listener out again, whatever happens.
        let mut subscription = Subscription::new(channel, listener.clone(), self.shared.clone());
        let (waiter, answer) = oneshot::channel();
        let channel = channel.to_owned();
        let joining = async {
            self.shared.command(Command::Subscribe { channel, listen, listener, waiter }).await?;
            answer.await.map_err(|_| self.shared.closed_error())?
        };
        let patience = self.shared.answer_timeout;
        match timeout(patience, joining).await.map_err(|_| Error::Timeout(patience))? {
            Ok(subscribed) => subscription.joined(subscribed),
            Err(refused) => {
                subscription.forget();
                return Err(refused);
            }
        }
        Ok(subscription)
    }

    /// The user's inbox: what was pushed to it and not yet [acked](Inbox::ack) by any device of the user, and what comes.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe); an anonymous client has no inbox.
    pub async fn inbox(&self) -> Result<Inbox, Error> {
        self.inbox_since(Since::Now).await
    }

    /// The user's inbox from another place, whatever was acked.
    ///
    /// # Errors
    /// As [`inbox`](Self::inbox).
    pub async fn inbox_since(&self, since: Since) -> Result<Inbox, Error> {
        let subscription = self.listen(INBOX, Listen::since(since)).await?;
        Ok(Inbox::new(subscription, self.shared.clone()))
    }

    /// A page of a channel's history, oldest first; 0 for `limit` leaves it to the gateway.
    ///
    /// # Errors
    /// [`Error::Refused`] if the client may not listen to the channel, or it keeps no history.
    pub async fn history(&self, channel: &str, page: Page, limit: u32) -> Result<v1::HistoryPage, Error> {
        match self.shared.ask(Ask::History(page.of(channel, limit))).await? {
            Frame::History(page) => Ok(page),
            _ => Err(Error::Unexpected { expected: "history" }),
        }
    }

    /// Who listens to a channel now.
    ///
    /// # Errors
    /// [`Error::Refused`] if the client may not listen to the channel, or its namespace has no presence.
    pub async fn presence(&self, channel: &str) -> Result<v1::PresenceState, Error> {
        let ask = Ask::Presence(v1::ReadPresence { channel: channel.to_owned() });
        match self.shared.ask(ask).await? {
            Frame::Presence(presence) => Ok(presence),
            _ => Err(Error::Unexpected { expected: "presence" }),
        }
    }

    /// What comes to this session, its user, its groups or everyone. Collected since the session began; `None` when it
    /// was taken before.
    #[must_use]
    pub fn deliveries(&self) -> Option<Deliveries> {
        self.shared.deliveries.lock().take()
    }

    /// Asks the gateway whether it is there.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Closed`].
    pub async fn ping(&self) -> Result<(), Error> {
        match self.shared.ask(Ask::Ping(v1::Ping {})).await? {
            Frame::Pong(v1::Pong {}) => Ok(()),
            _ => Err(Error::Unexpected { expected: "pong" }),
        }
    }

    /// Ends the session for all clones, after what was asked before.
    pub async fn close(&self) -> Closed {
        // If nobody takes it, the client has ended already.
        let _ = self.shared.commands.send(Command::Close).await;
        self.closed().await
    }

    /// Waits until the client has ended, however that happens: a lost connection alone does not end it.
    pub async fn closed(&self) -> Closed {
        let mut state = self.state();
        let ended = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        match ended.as_deref() {
            Ok(State::Closed(closed)) => closed.clone(),
            _ => Closed::broken("the client's task is gone"),
        }
    }

    async fn accepted(&self, ask: Ask) -> Result<v1::Accepted, Error> {
        match self.shared.ask(ask).await? {
            Frame::Accepted(accepted) => Ok(accepted),
            _ => Err(Error::Unexpected { expected: "accepted" }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.session().session_id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Asks something that does no harm when it is repeated, and waits for its answer as long as usual.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Frame, Error> {
        self.ask_for(ask, Repeat::Always, self.answer_timeout).await
    }

    async fn ask_for(&self, ask: Ask, repeat: Repeat, patience: Duration) -> Result<Frame, Error> {
        let answered = async {
            let _place = self.in_flight.acquire().await.map_err(|_| self.closed_error())?;
            let (answer, receiver) = oneshot::channel();
            self.command(Command::Ask { ask, repeat, answer }).await?;
            receiver.await.map_err(|_| self.closed_error())?
        };
        timeout(patience, answered).await.map_err(|_| Error::Timeout(patience))?
    }

    /// Takes a listener out, and waits until the gateway says that the channel is left if it was the last.
    pub(crate) async fn leave(&self, channel: String, listener: Arc<Backlog<Event>>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let leaving = async {
            self.command(Command::Leave { channel, listener, done: Some(done) }).await?;
            answer.await.map_err(|_| self.closed_error())?
        };
        timeout(self.answer_timeout, leaving).await.map_err(|_| Error::Timeout(self.answer_timeout))?
    }

    /// The same without waiting.
    pub(crate) fn let_go(self: Arc<Self>, channel: String, listener: Arc<Backlog<Event>>) {
        self.runtime.clone().spawn(async move {
            // Nobody is there to be told.
            let _ = self.command(Command::Leave { channel, listener, done: None }).await;
        });
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| self.closed_error())
    }

    fn closed_error(&self) -> Error {
        match &*self.seen.state.borrow() {
            State::Closed(closed) => Error::Closed(closed.clone()),
            _ => Error::Closed(Closed::broken("the client is closing")),
        }
    }
}
