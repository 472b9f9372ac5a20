//! One client's connection: the task that owns its socket, its session and everything held for it.
//!
//! It waits for whatever comes first: something on the socket, something in the outbox, something done on the bus, the
//! session's next deadline, the node's drain. What always holds: a client that does not read still is heard, and one that
//! is not heard still is written to; nothing is taken from the outbox before what was taken is with the kernel.

use std::{collections::HashMap, future::poll_fn, pin::Pin, sync::Arc, time::SystemTime};

use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use trestle_codec::{Encoded, Frame, Inbound, decode, encode, join};
use trestle_hub::{Member, Presence, Seat};
use trestle_session::{Action, Event, Outbox, OutboxLimits, Session, State};
use trestle_telemetry::trace::Kind;
use trestle_wire::{
    ChannelName, CloseCode, Reason, Refusal, SessionId,
    v1::{self, server_frame},
};

use crate::{
    Edge,
    act::Actor,
    lane::{Done, Lane},
    upgrade::Hello,
    websocket::{Step, WebSocket},
};

/// Frames that share one WebSocket message under load. JSON arrays and their parsers cope well with that many; more would
/// only delay the first of them.
const BATCH_FRAMES_MAX: usize = 64;
/// Bytes after which a batch ends: what one write can hand to the kernel's default send buffer.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Serves one client until it goes or is parted from; `place` is free again after that.
pub(crate) async fn run(edge: Arc<Edge>, socket: WebSocket, hello: Hello, place: OwnedSemaphorePermit) {
    edge.metrics.connections.inc();
    let mut connection = Connection::new(Arc::clone(&edge), hello);
    let end = connection.serve(socket).await;
    // Seats, presence, requests and waits go here, before the client is given time to take the close frame.
    drop(connection);
    match end {
        End::Close(socket, code) => {
            edge.metrics.closed(code);
            socket.close(code, edge.config.close_timeout).await;
        }
        End::Gone(socket) => socket.leave(edge.config.close_timeout).await,
    }
    drop(place);
    edge.metrics.connections.dec();
}

/// How a connection ends.
enum End {
    /// The gateway parts from the client.
    Close(WebSocket, CloseCode),
    /// The client is gone.
    Gone(WebSocket),
}

type Signal = Pin<Box<WaitForCancellationFutureOwned>>;

struct Connection {
    edge: Arc<Edge>,
    hello: Hello,
    session: Session,
    member: Arc<Member>,
    lane: Lane,
    seats: HashMap<ChannelName, Seat>,
    presence: Option<Presence>,
    /// Reused between rounds.
    actions: Vec<Action>,
    frames: Vec<Encoded>,
    /// Rings at the next deadline or before it: it is moved only when a deadline comes nearer, not for every sign of
    /// life, since moving a timer takes a lock that all connections share.
    timer: Pin<Box<Sleep>>,
    /// The node's signals, listened to once and not anew in every round, for the same reason.
    drain: Signal,
    stop: Signal,
    /// Whether the client was read from in the last round.
    reading: bool,
    draining: bool,
}

/// What came first.
#[allow(clippy::large_enum_variant)] // one at a time, on the stack, and gone before the next
enum Came {
    Socket(Step),
    Frames,
    Overflow,
    Done(Done),
    Deadline,
    Drain,
    Stop,
}

impl Connection {
    fn new(edge: Arc<Edge>, hello: Hello) -> Self {
        let id = SessionId::new(&edge.node, fastrand::u128(..));
        let limits =
            OutboxLimits { bytes_max: edge.session.outbox_bytes_max, frames_max: edge.session.outbox_frames_max };
        let member = Member { session: id.clone(), encoding: hello.encoding, outbox: Outbox::new(limits) };
        let frame_bytes_max = u32::try_from(edge.config.frame_bytes_max).unwrap_or(u32::MAX);
        let session = Session::new(
            id,
            edge.node.clone(),
            frame_bytes_max,
            Arc::clone(&edge.session),
            Arc::clone(&edge.channels),
            std::time::Instant::now(),
        );
        Self {
            timer: Box::pin(sleep_until(Instant::from_std(session.wakes_at()))),
            drain: Box::pin(edge.drain.clone().cancelled_owned()),
            stop: Box::pin(edge.stop.clone().cancelled_owned()),
            edge,
            hello,
            session,
            member: Arc::new(member),
            lane: Lane::default(),
            seats: HashMap::new(),
            presence: None,
            actions: Vec::new(),
            frames: Vec::new(),
            reading: true,
            draining: false,
        }
    }

    async fn serve(&mut self, mut socket: WebSocket) -> End {
        loop {
            let close = match self.wait(&mut socket).await {
                Came::Socket(Step::Message(message)) => self.message(&mut socket, &message).await,
                Came::Socket(Step::Alive) => self.event(&mut socket, Event::Heard).await,
                Came::Socket(Step::Flushed) => None,
                Came::Socket(Step::Broken(refusal)) => Some(self.broken(refusal)),
                Came::Socket(Step::Closed | Step::Gone) => {
                    // What the client sent before it went is done; whoever waits longer than that waits for nobody.
                    let _in_time = timeout(self.edge.config.close_timeout, self.lane.finish()).await;
                    return End::Gone(socket);
                }
                Came::Frames => {
                    let close = self.write(&mut socket);
                    // Most of the time the kernel takes it at once.
                    socket.flush_now().await;
                    close
                }
                Came::Overflow => Some(CloseCode::Slow),
                Came::Done(done) => self.done(&mut socket, done).await,
                Came::Deadline => self.deadline(&mut socket).await,
                Came::Drain => {
                    self.draining = true;
                    None
                }
                Came::Stop => Some(CloseCode::Restart),
            };
            let close = match close {
                None if self.draining && self.lane.is_idle() => self.event(&mut socket, Event::Drain).await,
                close => close,
            };
            if let Some(code) = close {
                // From here on nothing is counted as delivered that is not written.
                self.member.outbox.close();
                if code != CloseCode::Slow {
                    self.write_rest(&mut socket);
                }
                return End::Close(socket, code);
            }
        }
    }

    async fn wait(&mut self, socket: &mut WebSocket) -> Came {
        let read = self.reads();
        let wakes = read.then(|| Instant::from_std(self.session.wakes_at()));
        let stalls = socket.unflushed_since().map(|since| since + self.edge.config.write_timeout);
        let deadline = [wakes, stalls].into_iter().flatten().min();
        self.arm(deadline);
        let (draining, writable) = (self.draining, socket.writable());
        let Self { member, frames, lane, timer, drain, stop, .. } = self;
        let outbox = &member.outbox;
        tokio::select! {
            step = socket.step(read) => Came::Socket(step),
            taken = poll_fn(|context| outbox.poll_take(context, BATCH_FRAMES_MAX, frames)), if writable => {
                if taken.is_ok() { Came::Frames } else { Came::Overflow }
            }
            () = poll_fn(|context| outbox.poll_overflow(context)), if !writable => Came::Overflow,
            done = lane.next() => Came::Done(done),
            () = timer.as_mut(), if deadline.is_some() => Came::Deadline,
            () = drain.as_mut(), if !draining => Came::Drain,
            // It never comes before the drain, and each signal that is looked at takes a lock of its own.
            () = stop.as_mut(), if draining => Came::Stop,
        }
    }

    /// Sees to it that the timer rings at `deadline` at the latest.
    fn arm(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.timer.is_elapsed() || deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Whether the client is read from. One that is not cannot be heard either, so its heartbeat rests meanwhile.
    fn reads(&mut self) -> bool {
        let reads = self.lane.has_room() && !self.draining;
        if reads && !self.reading {
            self.session.on(Event::Heard, std::time::Instant::now(), &mut self.actions);
        }
        self.reading = reads;
        reads
    }

    /// Decode: one WebSocket message of the client in, one event per frame out.
    async fn message(&mut self, socket: &mut WebSocket, message: &Bytes) -> Option<CloseCode> {
        let metrics = &self.edge.metrics;
        metrics.messages_in.inc();
        metrics.bytes_in.inc_by(message.len() as u64);
        let came = SystemTime::now();
        let catalogue = self.edge.schemas.current();
        for frame in decode(self.hello.encoding, message, &catalogue, &self.edge.limits) {
            let event = match frame {
                Ok(mut inbound) => {
                    self.trace(&mut inbound, came);
                    Event::Inbound(inbound)
                }
                Err(rejected) => Event::Rejected(rejected),
            };
            let close = self.event(socket, event).await;
            if close.is_some() {
                return close;
            }
        }
        None
    }

    /// The edge's decision to trace a message, and the spans of its first two stations.
    fn trace(&self, inbound: &mut Inbound, came: SystemTime) {
        let typed = match &mut inbound.frame {
            Frame::Message(typed) | Frame::Request { message: typed, .. } | Frame::Publish { message: typed, .. } => {
                typed
            }
            _ => return,
        };
        let headers = &mut typed.envelope.headers;
        let tracer = &self.edge.tracer;
        let Some(mut context) = tracer.begin(headers.get("traceparent").map(String::as_str)) else { return };
        if let Some(mut span) = tracer.span_since("decode", Kind::Server, &context, Some(came)) {
            span.set("network.protocol.name", "websocket");
            span.set("trestle.message_type", typed.kind.full_name().to_owned());
            context = span.context();
        }
        if let Some(mut span) = tracer.span("route", Kind::Internal, &context) {
            let service = typed.kind.route().map_or("", |route| route.service.as_str());
            span.set("trestle.service", service.to_owned());
            context = span.context();
        }
        context.carry(headers);
    }

    /// Gives `event` to the session and does what it says, until nothing is left to do.
    async fn event(&mut self, socket: &mut WebSocket, event: Event) -> Option<CloseCode> {
        let mut next = Some(event);
        let mut close = None;
        while let Some(event) = next.take() {
            let mut actions = std::mem::take(&mut self.actions);
            self.session.on(event, std::time::Instant::now(), &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Send(frame) => self.send(&frame),
                    Action::Admit { token } => next = Some(Event::Admitted(self.admit(token).await)),
                    Action::Ping => {
                        if socket.ping().is_err() {
                            close = Some(CloseCode::Internal);
                        }
                    }
                    Action::Close(code) => close = Some(code),
                    action => self.act(action),
                }
            }
            self.actions = actions;
        }
        close
    }

    fn act(&mut self, action: Action) {
        let actor = Actor {
            edge: Arc::clone(&self.edge),
            member: Arc::clone(&self.member),
            user: self.session.identity().user.clone(),
        };
        match action {
            Action::Subscribe { id, channel } => self.lane.in_order(actor.subscribe(id, channel), 0),
            Action::Unsubscribe { id, channel } => {
                let left = Event::Unsubscribed { id, channel: channel.clone() };
                self.lane.in_order(Box::pin(async { Done::Unseat(channel, left) }), 0);
            }
            Action::Publish { id, channel, history, message } => {
                let bytes = message.envelope.payload.len();
                self.lane.in_order(actor.publish(id, channel, history, message), bytes);
            }
            Action::Deliver { id, message, handled } => {
                let bytes = message.envelope.payload.len();
                self.lane.in_order(actor.deliver(id, handled, message), bytes);
            }
            Action::Request { id, message, timeout } => self.lane.beside(actor.request(id, timeout, message)),
            Action::Send(_) | Action::Admit { .. } | Action::Ping | Action::Close(_) => {}
        }
    }

    /// Admit: a token in, an identity and a place among the node's sessions out.
    async fn admit(&mut self, token: Option<String>) -> Result<trestle_auth::Identity, Refusal> {
        let token = token.or_else(|| self.hello.token.take());
        let identity = self.edge.gate.admit(token.as_deref())?;
        let presence = tokio::select! {
            presence = self.edge.hub.arrive(&self.member, identity.user.as_ref()) => presence?,
            () = self.edge.stop.cancelled() => return Err(Refusal::new(Reason::Draining, "this node stops; reconnect")),
        };
        self.presence = Some(presence);
        tracing::debug!(session = %self.member.session, address = %self.hello.address, user = ?identity.user, "admitted");
        Ok(identity)
    }

    async fn done(&mut self, socket: &mut WebSocket, done: Done) -> Option<CloseCode> {
        let event = match done {
            Done::Tell(event) => event,
            Done::Seated(channel, seat, event) => {
                self.seats.insert(channel, seat);
                event
            }
            Done::Unseat(channel, event) => {
                self.seats.remove(&channel);
                event
            }
            Done::Beside(doing) => {
                self.lane.beside(doing);
                return None;
            }
        };
        self.event(socket, event).await
    }

    async fn deadline(&mut self, socket: &mut WebSocket) -> Option<CloseCode> {
        let stalled = socket.unflushed_since().is_some_and(|since| since.elapsed() >= self.edge.config.write_timeout);
        if stalled {
            return Some(CloseCode::Slow);
        }
        self.event(socket, Event::Tick).await
    }

    fn send(&self, frame: &v1::ServerFrame) {
        if let Some(server_frame::Frame::Error(error)) = &frame.frame {
            self.edge.metrics.refused(&error.reason);
        }
        // A full outbox has closed itself, and wakes this task.
        let _closed = self.member.outbox.push(encode(self.hello.encoding, frame, &self.edge.schemas.current()));
    }

    /// Tells the client which rule it broke; the close code is the rule's.
    fn broken(&self, refusal: Refusal) -> CloseCode {
        let code = refusal.reason.row().close.unwrap_or(CloseCode::Protocol);
        if self.session.state() != State::Closed {
            let error = server_frame::Frame::Error(refusal.into());
            self.send(&v1::ServerFrame { reply_to: 0, frame: Some(error) });
        }
        code
    }

    /// Hands the frames that were taken from the outbox to the socket, several to a message.
    fn write(&mut self, socket: &mut WebSocket) -> Option<CloseCode> {
        let metrics = &self.edge.metrics;
        let mut rest = &self.frames[..];
        let mut failed = None;
        while !rest.is_empty() && failed.is_none() {
            let (batch, after) = rest.split_at(batch(rest));
            let message = join(self.hello.encoding, batch);
            metrics.messages_out.inc();
            metrics.frames_out.inc_by(batch.len() as u64);
            metrics.bytes_out.inc_by(message.len() as u64);
            if let Err(error) = socket.write(message) {
                tracing::error!(%error, session = %self.member.session, "a frame could not be written");
                failed = Some(CloseCode::Internal);
            }
            rest = after;
        }
        self.frames.clear();
        failed
    }

    /// What is left in the outbox goes out before the close frame.
    fn write_rest(&mut self, socket: &mut WebSocket) {
        self.member.outbox.take(usize::MAX, &mut self.frames);
        let _failed = self.write(socket);
    }
}

/// How many of the frames share the next message.
fn batch(frames: &[Encoded]) -> usize {
    let mut bytes = 0;
    let fits = frames.iter().take(BATCH_FRAMES_MAX).take_while(|frame| {
        bytes += frame.len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}
