//! A client that keeps the rules of the SDKs over sockets that do not keep still.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fastrand::Rng;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use trestle_wire::v1::{self, client_frame::Frame, server_frame::Frame as Answer, subscribe::From};

use crate::{
    account::{Account, Ask},
    cluster::Cluster,
};

/// How long a client waits until the gateway has taken what it writes, or has answered its connect.
const PATIENCE: Duration = Duration::from_secs(6);

/// After which a client asks again for what was refused.
const AGAIN: Duration = Duration::from_millis(300);

/// What a client is told to do.
pub(crate) enum Command {
    Subscribe(String),
    Unsubscribe(String),
    Publish(String),
    Presence(String),
    History(String),
    Ack,
    AckInbox,
    Ping,
    /// Reads nothing for a while.
    Stall(Duration),
    /// Its socket is cut.
    Cut,
    /// Its network goes away without a word: it reconnects, and the gateway does not know that.
    Vanish,
    /// A close frame without a code: the page is left, and may be loaded again.
    Away,
    /// The node it is on has died.
    Reset(String),
    /// Ends its session and begins another.
    Begin,
    /// Is to be connected and to have heard everything.
    Settle,
    /// Is to end its session, and tell when.
    End(oneshot::Sender<Account>),
    /// Shows its account.
    Look(Box<dyn FnOnce(&mut Account) + Send>),
}

type Socket = WebSocketStream<DuplexStream>;

/// A client.
pub(crate) struct Client {
    account: Account,
    cluster: Arc<Cluster>,
    rng: Rng,
    token: String,
    resume: Option<String>,
    socket: Option<(Socket, String)>,
    /// Sockets that are still open, and that nobody looks at any more.
    abandoned: Vec<Socket>,
    /// What is asked again, and when.
    again: Vec<(Instant, Ask)>,
    wanted: BTreeSet<String>,
    connected: bool,
    stalled_until: Option<Instant>,
    connect_at: Option<Instant>,
    move_at: Option<Instant>,
    connect_by: Option<Instant>,
    ids: u32,
    published: u64,
    inbox: u64,
}

/// What woke it.
enum Came {
    Command(Option<Command>),
    Message(Option<Message>),
    Awake,
    Connect,
    Move,
    Late,
    Again,
}

impl Client {
    pub(crate) fn new(account: Account, cluster: Arc<Cluster>, seed: u64, token: String) -> Self {
        Self {
            account,
            cluster,
            rng: Rng::with_seed(seed),
            token,
            resume: None,
            socket: None,
            abandoned: Vec::new(),
            again: Vec::new(),
            wanted: BTreeSet::new(),
            connected: false,
            stalled_until: None,
            connect_at: Some(Instant::now()),
            move_at: None,
            connect_by: None,
            ids: 0,
            published: 0,
            inbox: 0,
        }
    }

    /// Lives until it is told to end.
    pub(crate) async fn live(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            match self.next(&mut commands).await {
                Came::Command(None) => return,
                Came::Command(Some(Command::End(tell))) => {
                    self.goodbye().await;
                    let _gone = tell.send(self.account);
                    return;
                }
                Came::Command(Some(command)) => self.obey(command).await,
                Came::Message(message) => self.message(message).await,
                Came::Awake => self.stalled_until = None,
                Came::Connect => self.connect().await,
                Came::Move => self.go_elsewhere().await,
                Came::Late => self.lost("was not answered"),
                Came::Again => self.ask_again().await,
            }
        }
    }

    async fn next(&mut self, commands: &mut mpsc::Receiver<Command>) -> Came {
        let reads = self.stalled_until.is_none();
        let timers = [
            (self.stalled_until, Came::Awake),
            (self.connect_at, Came::Connect),
            (self.move_at, Came::Move),
            (self.connect_by, Came::Late),
            (self.again.first().map(|(at, _)| *at), Came::Again),
        ];
        let timer = timers.into_iter().filter_map(|(at, came)| Some((at?, came))).min_by_key(|(at, _)| *at);
        let (at, came) = timer.map_or((None, Came::Awake), |(at, came)| (Some(at), came));
        tokio::select! {
            biased;
            command = commands.recv() => Came::Command(command),
            message = read(&mut self.socket), if reads && self.socket.is_some() => Came::Message(message),
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => came,
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Subscribe(channel) => {
                if self.wanted.insert(channel.clone()) {
                    self.subscribe(&channel).await;
                }
            }
            Command::Unsubscribe(channel) => {
                if self.wanted.remove(&channel) {
                    let full = self.full(&channel);
                    self.account.leave(&full);
                    self.unsubscribe(&channel).await;
                }
            }
            Command::Publish(channel) => self.publish(&channel).await,
            Command::Presence(channel) => {
                let ask = Ask::Presence(channel.clone());
                self.ask(ask, Frame::Presence(v1::ReadPresence { channel })).await;
            }
            Command::History(channel) => {
                let page = v1::ReadHistory { channel, limit: 10, page: None };
                self.ask(Ask::Other, Frame::History(page)).await;
            }
            Command::Ack if self.connected => {
                let ack = v1::ClientAck { received: self.account.received, inbox_offset: 0 };
                self.write(0, Frame::Ack(ack)).await;
            }
            Command::Ack => {}
            Command::AckInbox => self.ack_inbox().await,
            Command::Ping => self.ask(Ask::Other, Frame::Ping(v1::Ping {})).await,
            Command::Stall(time) => {
                self.account.note(format_args!("reads nothing for {time:?}"));
                self.stalled_until = Some(Instant::now() + time);
            }
            Command::Cut => self.lost("is cut"),
            Command::Vanish => {
                self.abandoned.extend(self.socket.take().map(|(socket, _)| socket));
                self.lost("vanishes");
            }
            Command::Away => {
                if let Some((mut socket, _)) = self.socket.take() {
                    let _written = timeout(PATIENCE, socket.close(None)).await;
                }
                self.lost("is reloaded");
            }
            Command::Reset(node) => {
                if self.socket.as_ref().is_some_and(|(_, at)| *at == node) {
                    self.lost("is reset");
                }
            }
            Command::Begin => {
                self.goodbye().await;
                self.resume = None;
                self.lost("has ended its session");
            }
            Command::Settle => {
                self.stalled_until = None;
            }
            Command::Look(look) => look(&mut self.account),
            Command::End(_) => {}
        }
    }

    async fn goodbye(&mut self) {
        self.abandoned.clear();
        if let Some((mut socket, _)) = self.socket.take() {
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _written = timeout(PATIENCE, socket.close(Some(frame))).await;
            // What the gateway still writes is read, as a browser does.
            let _closed = timeout(PATIENCE, async { while matches!(socket.next().await, Some(Ok(_))) {} }).await;
        }
        self.connected = false;
    }

    /// The socket is gone; another one will be opened.
    fn lost(&mut self, why: &str) {
        self.account.note(why);
        self.socket = None;
        self.connected = false;
        (self.move_at, self.connect_by) = (None, None);
        let wait = if self.rng.bool() { self.rng.u64(0..20) } else { self.rng.u64(0..4000) };
        self.connect_at = Some(Instant::now() + Duration::from_millis(wait));
    }

    async fn connect(&mut self) {
        self.connect_at = None;
        let Some((name, stream)) = self.cluster.dial(&mut self.rng, "") else {
            self.connect_at = Some(Instant::now() + Duration::from_millis(500));
            return;
        };
        self.open(name, stream).await;
    }

    /// Connects to another node while this one still serves it.
    async fn go_elsewhere(&mut self) {
        self.move_at = None;
        let Some((_, at)) = &self.socket else { return };
        let Some((name, stream)) = self.cluster.dial(&mut self.rng, at) else { return };
        self.account.note(format_args!("moves to {name}"));
        // Nothing more is read there, or the counts would differ.
        self.abandoned.extend(self.socket.take().map(|(socket, _)| socket));
        self.open(name, stream).await;
    }

    async fn open(&mut self, name: String, stream: DuplexStream) {
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        self.socket = Some((WebSocketStream::from_raw_socket(stream, role, None).await, name));
        self.connected = false;
        self.account.open.retain(|_, ask| *ask != Ask::Connect);
        let named = self.account.positions().into_iter().map(|position| position.channel);
        self.account.named.extend(named);
        let resume = self.resume.as_ref().map(|token| v1::Resume {
            session_id: self.account.session.clone(),
            token: token.clone(),
            received: Some(self.account.received),
            channels: self.account.positions(),
            outstanding: self.account.open.keys().copied().collect(),
        });
        self.ids += 1;
        self.account.open.insert(self.ids, Ask::Connect);
        self.connect_by = Some(Instant::now() + 2 * PATIENCE);
        let connect = v1::Connect { token: self.token.clone(), resume };
        self.write(self.ids, Frame::Connect(connect)).await;
    }

    async fn message(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Binary(bytes)) => {
                let frames = v1::ServerFrames::decode(bytes).expect("the gateway writes frames");
                for frame in frames.frames {
                    self.frame(frame).await;
                }
            }
            Some(Message::Close(frame)) => {
                let why = frame.map_or("without a word".to_owned(), |frame| format!("{} {}", frame.code, frame.reason));
                self.lost(&format!("is closed: {why}"));
            }
            Some(_) => {}
            None => self.lost("has lost its socket"),
        }
    }

    async fn frame(&mut self, frame: v1::ServerFrame) {
        if let Some(Answer::Connected(connected)) = &frame.frame {
            return self.welcome(frame.reply_to, connected).await;
        }
        if !self.connected {
            // A refusal of the connect.
            if let Some(Answer::Error(error)) = &frame.frame {
                self.account.note(format_args!("is refused: {} {}", error.reason, error.message));
            }
            return;
        }
        let channel = match &frame.frame {
            Some(Answer::Delivery(envelope)) if envelope.channel.starts_with("inbox:") => {
                self.inbox = self.inbox.max(envelope.offset);
                None
            }
            Some(Answer::Draining(notice)) => {
                let wait = notice.reconnect_after.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
                self.move_at = Some(Instant::now() + wait);
                None
            }
            // A channel that could not be recovered is asked for again.
            Some(Answer::Error(error)) if frame.reply_to == 0 && self.wanted.contains(short(&error.field)) => {
                Some(short(&error.field).to_owned())
            }
            _ => None,
        };
        let unwanted = match &frame.frame {
            Some(Answer::Subscribed(there)) if frame.reply_to == 0 && !self.wanted.contains(short(&there.channel)) => {
                Some(short(&there.channel).to_owned())
            }
            _ => None,
        };
        let ask = self.account.frame(&frame);
        if let Some(Answer::Subscribed(there)) = &frame.frame
            && !self.wanted.contains(short(&there.channel))
        {
            self.account.leave(&there.channel);
        }
        let error = match &frame.frame {
            Some(Answer::Error(error)) => Some(error.clone()),
            _ => None,
        };
        if let Some(channel) = channel {
            self.subscribe(&channel).await;
        }
        if let Some(channel) = unwanted {
            // It was left while there was no connection.
            self.unsubscribe(&channel).await;
        }
        if let (Some(ask), Some(error)) = (ask, error) {
            self.refused(ask, &error);
        }
    }

    /// What may succeed later, or may have been done, is tried again.
    fn refused(&mut self, ask: Ask, error: &v1::Error) {
        let unsure = matches!(error.reason.as_str(), "answer_lost" | "already_subscribed");
        // Without a history a message that may have been taken cannot be said again.
        let once = matches!(&ask, Ask::Publish { channel, .. } if channel.starts_with("live:"));
        if (unsure || error.retryable) && !once {
            self.again.push((Instant::now() + AGAIN, ask));
        }
    }

    async fn ask_again(&mut self) {
        let (_, ask) = self.again.remove(0);
        match ask {
            Ask::Subscribe { channel, .. } if self.wanted.contains(&channel) && !self.asks(&channel) => {
                // Whether it was done is not known.
                self.unsubscribe(&channel).await;
                self.subscribe(&channel).await;
            }
            Ask::Unsubscribe(channel) if !self.wanted.contains(&channel) => self.unsubscribe(&channel).await,
            Ask::Publish { channel, id } if self.account.user.is_some() => self.publish_as(&channel, id).await,
            _ => {}
        }
    }

    /// Whether it has asked to listen, and was not answered.
    fn asks(&self, channel: &str) -> bool {
        let asked = |ask: &Ask| matches!(ask, Ask::Subscribe { channel: other, .. } if other == channel);
        self.account.open.values().any(asked)
    }

    async fn welcome(&mut self, reply_to: u32, connected: &v1::Connected) {
        self.connected = true;
        self.connect_by = None;
        self.resume = Some(connected.resume_token.clone());
        self.account.connected(reply_to, connected);
        self.abandoned.clear();
        let goes_on = connected.resumed && !connected.subscriptions.is_empty();
        let recovers = connected.resumed && !goes_on && connected.received == 0;
        for channel in self.wanted.clone() {
            let full = self.full(&channel);
            let asked = self.asks(&channel);
            let kept = connected.subscriptions.iter().any(|there| there.channel == full);
            let recovered = recovers && self.account.named.contains(&full);
            if asked {
                continue;
            }
            if (kept || recovered) && !self.account.listens(&full) {
                // It was left and wanted again while there was no connection.
                self.unsubscribe(&channel).await;
                self.subscribe(&channel).await;
            } else if !(kept || recovered) {
                self.subscribe(&channel).await;
            }
        }
        for there in &connected.subscriptions {
            let channel = short(&there.channel).to_owned();
            let left = Ask::Unsubscribe(channel.clone());
            if !self.wanted.contains(&channel) && !self.account.open.values().any(|ask| *ask == left) {
                self.unsubscribe(&channel).await;
            }
        }
    }

    fn full(&self, channel: &str) -> String {
        match &self.account.user {
            Some(user) if channel == "inbox" => format!("inbox:{user}"),
            _ => channel.to_owned(),
        }
    }

    async fn subscribe(&mut self, channel: &str) {
        let full = self.full(channel);
        let from = self.account.place(&full);
        let acked = self.account.user.as_ref().map_or(0, |user| self.cluster.acked(user));
        let presence = channel.starts_with("room:") && self.rng.bool();
        let ask = Ask::Subscribe { channel: channel.to_owned(), from, acked };
        let from = from.map(From::Offset);
        self.ask(ask, Frame::Subscribe(v1::Subscribe { channel: channel.to_owned(), from, presence })).await;
    }

    async fn unsubscribe(&mut self, channel: &str) {
        let frame = Frame::Unsubscribe(v1::Unsubscribe { channel: channel.to_owned() });
        self.ask(Ask::Unsubscribe(channel.to_owned()), frame).await;
    }

    async fn publish(&mut self, channel: &str) {
        self.published += 1;
        let id = format!("{}/{}-{}", self.cluster.subject(channel), self.account.name, self.published);
        self.publish_as(channel, id).await;
    }

    async fn publish_as(&mut self, channel: &str, id: String) {
        let message = Some(self.cluster.comment(id.clone()));
        let ask = Ask::Publish { channel: channel.to_owned(), id };
        self.ask(ask, Frame::Publish(v1::Publish { channel: channel.to_owned(), message })).await;
    }

    async fn ack_inbox(&mut self) {
        let (offset, Some(user)) = (self.inbox, self.account.user.clone()) else { return };
        if offset > 0 && self.connected {
            self.cluster.acks(&user, offset);
            let ack = v1::ClientAck { received: 0, inbox_offset: offset };
            self.ask(Ask::AckInbox(offset), Frame::Ack(ack)).await;
        }
    }

    /// Asks something, if there is a session to ask in.
    async fn ask(&mut self, ask: Ask, frame: Frame) {
        if !self.connected {
            return;
        }
        self.ids += 1;
        self.account.note(format_args!("> {} {ask:?}", self.ids));
        self.account.open.insert(self.ids, ask);
        self.write(self.ids, frame).await;
    }

    async fn write(&mut self, id: u32, frame: Frame) {
        let Some((socket, _)) = &mut self.socket else { return };
        let frames = v1::ClientFrames { frames: vec![v1::ClientFrame { id, frame: Some(frame) }] };
        let written = timeout(PATIENCE, socket.send(Message::Binary(frames.encode_to_vec().into()))).await;
        if !matches!(written, Ok(Ok(()))) {
            // Reading says why.
            self.account.note("cannot write");
        }
    }
}

/// A channel as clients name it.
fn short(channel: &str) -> &str {
    if channel.starts_with("inbox:") { "inbox" } else { channel }
}

async fn read(socket: &mut Option<(Socket, String)>) -> Option<Message> {
    match socket {
        Some((socket, _)) => socket.next().await?.ok(),
        None => std::future::pending().await,
    }
}
