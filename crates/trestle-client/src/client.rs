//! The client: what a program can say to the gateway in protobuf, and what it gets for it.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

use crate::{
    Closed, Deliveries, Error, Event, Options, Outgoing, Subscription,
    connection::{Answer, Connection},
    inbox::Inbox,
    routes::Routes,
    wire::Protobuf,
};

/// How much longer than the gateway a request waits here: the answer that its time is over is better than none.
const REQUEST_GRACE: Duration = Duration::from_secs(5);

/// A session with the gateway. Cheap to clone; the connection closes when the last clone and subscription are gone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The gateway's answer to an unsubscribe.
pub(crate) type Leaving = Answer<Protobuf>;

/// What clones and subscriptions share.
pub(crate) struct Shared {
    connection: Connection<Protobuf>,
    routes: Arc<Routes>,
    connected: v1::Connected,
    deliveries: Mutex<Option<Deliveries>>,
    /// Held while joining and leaving are put on their way, so that the gateway hears them in the order they had here.
    turn: tokio::sync::Mutex<()>,
    queue_messages_max: usize,
    runtime: Handle,
}

impl Client {
    /// Connects, and begins a session.
    ///
    /// `url` is the gateway's, such as `ws://127.0.0.1:8080/ws`; TLS is left to a proxy.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Upgrade`] and [`Error::Timeout`] before there is a session, [`Error::Refused`] if
    /// the gateway refuses the token, [`Error::Closed`] if it closes.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let pushes = Arc::new(Inbox::new(options.queue_messages_max));
        let routes = Arc::new(Routes::new(pushes.clone()));
        let connection = Connection::<Protobuf>::open(url, &options, routes.clone()).await?;
        let token = options.token.unwrap_or_default();
        let connect = connection.ask_for(Ask::Connect(v1::Connect { token }), options.connect_timeout);
        let connected = match answer(connect.await?)? {
            Frame::Connected(connected) => connected,
            _ => return Err(Error::Unexpected { expected: "connected" }),
        };
        let ping_interval = connected.ping_interval.and_then(|span| span.try_into().ok()).unwrap_or_default();
        connection.settle(ping_interval, connected.frame_bytes_max);
        let shared = Shared {
            connection,
            routes,
            connected,
            deliveries: Mutex::new(Some(Deliveries::new(pushes))),
            turn: tokio::sync::Mutex::default(),
            queue_messages_max: options.queue_messages_max,
            runtime: Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the gateway said when the session began.
    #[must_use]
    pub fn session(&self) -> &v1::Connected {
        &self.shared.connected
    }

    /// Sends a message to the service that its type is routed to, and waits until it is accepted as far as its route asks.
    ///
    /// # Errors
    /// [`Error::Refused`] says why it was not accepted. After [`Error::Timeout`] or [`Error::Closed`] it may have been:
    /// send the same [`Outgoing`] again, its id keeps it from being done twice.
    pub async fn send(&self, message: Outgoing) -> Result<v1::Accepted, Error> {
        self.accepted(Ask::Message(message.into_envelope())).await
    }

    /// Publishes a message on a channel.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn publish(&self, channel: &str, message: Outgoing) -> Result<v1::Accepted, Error> {
        let message = Some(message.into_envelope());
        self.accepted(Ask::Publish(v1::Publish { channel: channel.to_owned(), message })).await
    }

    /// Sends a message to its service and waits for what the service answers, at most `patience`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `no_instance`, `timeout` and what the service declines among its reasons.
    pub async fn request(&self, message: Outgoing, patience: Duration) -> Result<v1::Envelope, Error> {
        let timeout = prost_types::Duration::try_from(patience).ok();
        let request = v1::Request { message: Some(message.into_envelope()), timeout };
        let frame =
            self.shared.connection.ask_for(Ask::Request(request), patience.saturating_add(REQUEST_GRACE)).await?;
        match answer(frame)? {
            Frame::Reply(envelope) => Ok(envelope),
            _ => Err(Error::Unexpected { expected: "reply" }),
        }
    }

    /// Listens to a channel, until the subscription is dropped or [left](Subscription::unsubscribe).
    ///
    /// # Errors
    /// [`Error::Refused`] if the channel does not exist or its policy does not allow it.
    pub async fn subscribe(&self, channel: &str) -> Result<Subscription, Error> {
        let inbox = Arc::new(Inbox::new(self.shared.queue_messages_max));
        // From here on its drop takes the inbox out again, whatever happens.
        let mut subscription = Subscription::new(channel, inbox.clone(), self.shared.clone());
        let patience = self.shared.connection.answer_timeout();
        let joined = async {
            let turn = self.shared.turn.lock().await;
            self.shared.routes.add(channel, inbox);
            let begun =
                self.shared.connection.begin(Ask::Subscribe(v1::Subscribe { channel: channel.to_owned() })).await;
            drop(turn);
            begun?.wait().await
        };
        let frame = timeout(patience, joined).await.map_err(|_| Error::Timeout(patience))??;
        match answer(frame) {
            Ok(Frame::Subscribed(subscribed)) => subscription.joined(subscribed),
            Ok(_) => return Err(Error::Unexpected { expected: "subscribed" }),
            Err(refused) => {
                subscription.forget();
                return Err(refused);
            }
        }
        Ok(subscription)
    }

    /// What comes to this session, its user or everyone. Collected since the session began; `None` when it was taken before.
    #[must_use]
    pub fn deliveries(&self) -> Option<Deliveries> {
        self.shared.deliveries.lock().take()
    }

    /// Asks the gateway whether it is there.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Closed`].
    pub async fn ping(&self) -> Result<(), Error> {
        match answer(self.shared.connection.ask(Ask::Ping(v1::Ping {})).await?)? {
            Frame::Pong(v1::Pong {}) => Ok(()),
            _ => Err(Error::Unexpected { expected: "pong" }),
        }
    }

    /// Closes the connection for all clones, after what was sent before.
    pub async fn close(&self) -> Closed {
        self.shared.connection.close().await
    }

    /// Waits until the connection has ended, however that happens.
    pub async fn closed(&self) -> Closed {
        self.shared.connection.closed().await
    }

    async fn accepted(&self, ask: Ask) -> Result<v1::Accepted, Error> {
        match answer(self.shared.connection.ask(ask).await?)? {
            Frame::Accepted(accepted) => Ok(accepted),
            _ => Err(Error::Unexpected { expected: "accepted" }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.shared.connected.session_id).finish_non_exhaustive()
    }
}

impl Shared {
    /// Takes an inbox out, and begins to leave the channel with its last; `None` if others still listen.
    pub(crate) async fn leave(&self, channel: &str, inbox: &Arc<Inbox<Event>>) -> Result<Option<Leaving>, Error> {
        let _turn = self.turn.lock().await;
        if !self.routes.remove(channel, inbox) {
            return Ok(None);
        }
        let leave = Ask::Unsubscribe(v1::Unsubscribe { channel: channel.to_owned() });
        self.connection.begin(leave).await.map(Some)
    }

    /// Waits until the gateway says that the channel is left.
    pub(crate) async fn left(&self, leaving: Leaving) -> Result<(), Error> {
        let patience = self.connection.answer_timeout();
        let frame = timeout(patience, leaving.wait()).await.map_err(|_| Error::Timeout(patience))??;
        match answer(frame)? {
            Frame::Unsubscribed(_) => Ok(()),
            _ => Err(Error::Unexpected { expected: "unsubscribed" }),
        }
    }

    /// Takes out the inbox of a subscription that was refused: there is nothing to leave.
    pub(crate) fn forget(&self, channel: &str, inbox: &Arc<Inbox<Event>>) {
        self.routes.remove(channel, inbox);
    }

    /// The runtime of the connection, for what must be done after a drop.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// The frame of an answer, or the error that it is.
fn answer(frame: v1::ServerFrame) -> Result<Frame, Error> {
    match frame.frame {
        Some(Frame::Error(error)) => Err(Error::Refused(error)),
        Some(frame) => Ok(frame),
        None => Err(Error::Unexpected { expected: "a frame that this version knows" }),
    }
}
