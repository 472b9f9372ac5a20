//! One client's connection: the task that owns its socket and, while it lasts, the stay that goes with it.
//!
//! It waits for whatever comes first: something on the socket, something in the outbox, something done on the bus, what
//! others want, the session's next deadline, the node's drain. What always holds: a client that does not read still is
//! heard, and one that is not heard still is written to; nothing is taken from the outbox before what was taken is with
//! the kernel; when the socket ends, the stay goes on without it, if it may.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::SystemTime, vec};

use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};
use trestle_codec::{Frame, Inbound, Rejected, decode, encode};
use trestle_hub::Mail;
use trestle_session::{Event, Finished, State, Taken, survives};
use trestle_telemetry::trace::Kind;
use trestle_wire::{
    CloseCode, Reason, Refusal,
    v1::{self, server_frame},
};

use crate::{
    Edge,
    lane::Done,
    part::{End, part},
    resume::{self, Arrival},
    signal::Waiting,
    stay::{Admit, Asked, Stay},
    upgrade::Hello,
    websocket::{Step, Stream, WebSocket},
    wish::Told,
    write::BATCH_FRAMES_MAX,
};

/// What may come first; each is looked at first in its turn, so that none starves another.
const SOURCES: usize = 4;
/// The second of them.
const OUTBOX: usize = 1;

/// Serves one client until it goes or is parted from; `place` is free again after that.
pub(crate) async fn run<S: Stream>(
    edge: Arc<Edge>,
    mut socket: Box<WebSocket<S>>,
    hello: Hello,
    place: OwnedSemaphorePermit,
) {
    edge.metrics.connections.inc();
    let (end, mut stay) = Connection::new(&edge, hello).serve(&mut socket).await;
    let why = stay.as_mut().and_then(|stay| stay.kicked.take());
    if let Some(stay) = stay {
        Box::pin(part(&edge, stay, end)).await;
    }
    // On the heap, as all that is done once: a connection is as large as its longest wait.
    match end {
        End::Close(code) => {
            edge.metrics.closed(code);
            Box::pin(socket.close(code, why, edge.config.close_timeout)).await;
        }
        End::Gone | End::Goodbye => Box::pin(socket.leave(edge.config.close_timeout)).await,
    }
    drop(place);
    edge.metrics.connections.dec();
}

/// Returns after the tasks that are ready on this thread, without a look at the sockets between.
async fn after_others() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What comes next.
enum Next {
    Go,
    /// A client is to be let in first.
    Admit(Admit),
    End(End),
}

impl Next {
    fn part(code: Option<CloseCode>) -> Self {
        code.map_or(Self::Go, |code| Self::End(End::Close(code)))
    }
}

pub(crate) struct Connection {
    pub(crate) edge: Arc<Edge>,
    pub(crate) hello: Hello,
    pub(crate) stay: Box<Stay>,
    /// Reused between rounds.
    pub(crate) taken: Vec<Taken>,
    /// Frames of the last message that are not done yet, and when it came.
    frames: vec::IntoIter<Result<Inbound, Rejected>>,
    came: SystemTime,
    /// Rings at the next deadline or before it: it is moved only when a deadline comes nearer, not for every sign of
    /// life, since moving a timer takes a lock that all connections share.
    timer: Pin<Box<Sleep>>,
    /// Waits for the node's drain, then for its stop.
    signal: Option<Waiting>,
    /// Whether the client was read from in the last round.
    reading: bool,
    draining: bool,
    /// Whether a message of the client was just done: what it comes to for the client itself may be about to follow.
    pauses: bool,
    /// Which source is looked at first.
    turn: usize,
    /// When the client is asked to connect again for the age of its connection.
    leave_at: Option<Instant>,
    /// When a client that was asked to connect again is parted from.
    part_at: Option<Instant>,
}

/// What came first.
#[allow(clippy::large_enum_variant)] // one at a time, on the stack, and gone before the next
enum Came {
    Socket(Step),
    Taken,
    Overflow,
    Done(Done),
    Mail(Mail),
    Deadline,
    Drain,
    Stop,
}

impl Connection {
    /// On the heap: what a future is given and what it keeps of it would both have room in the task.
    fn new(edge: &Arc<Edge>, hello: Hello) -> Box<Self> {
        let stay = Stay::new(edge, hello.encoding, hello.address);
        let age = edge.config.connection_age_max.map(|age| Instant::now() + age.mul_f64(fastrand::f64() * 0.2 + 0.9));
        Box::new(Self {
            timer: Box::pin(sleep_until(Instant::from_std(stay.session.wakes_at()))),
            signal: None,
            edge: Arc::clone(edge),
            hello,
            stay,
            taken: Vec::new(),
            frames: Vec::new().into_iter(),
            came: SystemTime::UNIX_EPOCH,
            reading: true,
            draining: false,
            pauses: false,
            turn: 0,
            leave_at: age,
            part_at: None,
        })
    }

    /// The stay is `None` when it was given to whoever has the client's next socket.
    async fn serve<S: Stream>(mut self: Box<Self>, socket: &mut WebSocket<S>) -> (End, Option<Box<Stay>>) {
        loop {
            let next = match self.wait(socket).await {
                Came::Socket(step) => self.step(socket, step),
                Came::Taken => {
                    self.write_taken(socket);
                    Next::Go
                }
                Came::Overflow => {
                    self.stay.give_up_stream();
                    Next::End(End::Close(CloseCode::Slow))
                }
                Came::Done(done) => {
                    let told = matches!(done, Done::Tell(_));
                    let asked = self.stay.done(done);
                    // After the last: what came together goes to a channel together.
                    self.pauses = told && self.stay.lane.is_idle();
                    self.obey(socket, asked)
                }
                Came::Mail(mail) => match self.stay.told(mail) {
                    Told::Asked(asked) => self.obey(socket, asked),
                    Told::Leave(notice) => self.ask_to_leave(socket, notice),
                    Told::Yield(give) => match give.send(self.stay) {
                        Ok(()) => return (End::Close(CloseCode::Replaced), None),
                        // Whoever asked has given up.
                        Err(stay) => {
                            self.stay = stay;
                            Next::Go
                        }
                    },
                },
                Came::Deadline => self.deadline(socket),
                Came::Drain => {
                    (self.draining, self.signal) = (true, None);
                    Next::Go
                }
                Came::Stop => Next::End(End::Close(CloseCode::Restart)),
            };
            let end = match self.go_on(socket, next).await {
                None if self.draining && self.stay.lane.is_idle() => {
                    let next = self.event(socket, Event::Drain);
                    self.go_on(socket, next).await
                }
                end => end,
            };
            if let Some(end) = end {
                self.last_words(socket, end);
                return (end, Some(self.stay));
            }
        }
    }

    /// Lets in whoever asks, and goes on with what came after that; how it ends, if it does.
    async fn go_on<S: Stream>(&mut self, socket: &mut WebSocket<S>, mut next: Next) -> Option<End> {
        loop {
            match next {
                Next::Go => return None,
                Next::End(end) => return Some(end),
                // On the heap while it lasts: every connection would have room for it for as long as it lives.
                Next::Admit(admit) => match Box::pin(self.admit(socket, admit)).await {
                    Next::Go => next = self.frames(socket),
                    other => next = other,
                },
            }
        }
    }

    fn step<S: Stream>(&mut self, socket: &mut WebSocket<S>, step: Step) -> Next {
        match step {
            Step::Message(message) => self.message(socket, &message),
            Step::Alive => self.event(socket, Event::Heard),
            Step::Pong(count) => {
                if let Some(count) = count {
                    self.stay.replay.acked(count);
                }
                self.stay.member.heard();
                self.event(socket, if count.is_some() { Event::Pong } else { Event::Heard })
            }
            Step::Flushed => Next::Go,
            Step::Broken(refusal) => Next::End(End::Close(self.broken(refusal))),
            Step::Goodbye => Next::End(End::Goodbye),
            Step::Gone => Next::End(End::Gone),
        }
    }

    /// Writes what waits before a close frame, unless the client does not read or the stay goes on without it.
    fn last_words<S: Stream>(&mut self, socket: &mut WebSocket<S>, end: End) {
        let End::Close(code) = end else { return };
        if code != CloseCode::Slow && !self.stay.broken {
            self.stay.member.outbox.take(usize::MAX, &mut self.taken);
            self.write_taken(socket);
        }
        if !survives(code) {
            // From here on nothing is counted as delivered that is not written.
            self.stay.member.outbox.close();
        }
    }

    async fn wait<S: Stream>(&mut self, socket: &mut WebSocket<S>) -> Came {
        if std::mem::take(&mut self.pauses) {
            // A client that hears its own message then gets it with the answer, in one write.
            after_others().await;
        }
        // Most of the time the kernel takes it at once.
        socket.flush_now().await;
        let read = self.reads();
        let wakes = read.then(|| Instant::from_std(self.stay.session.wakes_at()));
        let stalls = socket.unflushed_since().map(|since| since + self.edge.config.write_timeout);
        let deadline = [wakes, stalls, self.leave_at, self.part_at].into_iter().flatten().min();
        self.arm(deadline);
        self.turn = (self.turn + 1) % SOURCES;
        let (draining, writable, mut first) = (self.draining, socket.writable(), self.turn);
        let Self { edge, stay, taken, timer, signal, .. } = self;
        poll_fn(|context| {
            for source in 0..SOURCES {
                let came = match (first + source) % SOURCES {
                    0 => socket.poll_step(read, context).map(Came::Socket),
                    OUTBOX if writable => match stay.member.outbox.poll_take(context, BATCH_FRAMES_MAX, taken) {
                        Poll::Ready(Ok(())) => Poll::Ready(Came::Taken),
                        Poll::Ready(Err(_)) => Poll::Ready(Came::Overflow),
                        Poll::Pending => Poll::Pending,
                    },
                    OUTBOX => stay.member.outbox.poll_overflow(context).map(|()| Came::Overflow),
                    2 => stay.lane.poll_next(context).map(Came::Done),
                    _ => stay.member.mail.poll_next(context).map(Came::Mail),
                };
                if came.is_ready() {
                    return came;
                }
            }
            // None of them had anything: what wakes an idle client's task is most of the time something to be written.
            first = OUTBOX;
            if deadline.is_some() && timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Came::Deadline);
            }
            // A stop never comes before the drain.
            if draining {
                edge.stop.poll(signal, context).map(|()| Came::Stop)
            } else {
                edge.drain.poll(signal, context).map(|()| Came::Drain)
            }
        })
        .await
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
        let reads = self.stay.lane.has_room() && !self.draining;
        if reads && !self.reading {
            _ = self.stay.on(Event::Heard);
        }
        self.reading = reads;
        reads
    }

    /// Decode: one WebSocket message of the client in, one event per frame out.
    fn message<S: Stream>(&mut self, socket: &mut WebSocket<S>, message: &Bytes) -> Next {
        self.stay.member.heard();
        let metrics = &self.edge.metrics;
        metrics.messages_in.inc();
        metrics.bytes_in.inc_by(message.len() as u64);
        self.came = SystemTime::now();
        let catalogue = self.edge.schemas.current();
        self.frames = decode(self.hello.encoding, message, &catalogue, &self.edge.limits).into_iter();
        self.frames(socket)
    }

    /// The frames of the last message that are not done yet, up to one that has to be waited for.
    fn frames<S: Stream>(&mut self, socket: &mut WebSocket<S>) -> Next {
        while let Some(frame) = self.frames.next() {
            let event = match frame {
                Ok(mut inbound) => {
                    self.trace(&mut inbound);
                    Event::Inbound(inbound)
                }
                Err(rejected) => Event::Rejected(rejected),
            };
            match self.event(socket, event) {
                Next::Go => {}
                other => return other,
            }
        }
        // Its memory goes with it: an idle client holds no frames.
        self.frames = Vec::new().into_iter();
        Next::Go
    }

    /// The edge's decision to trace a message, and the spans of its first two stations.
    fn trace(&self, inbound: &mut Inbound) {
        let typed = match &mut inbound.frame {
            Frame::Message(typed) | Frame::Request { message: typed, .. } | Frame::Publish { message: typed, .. } => {
                typed
            }
            _ => return,
        };
        let headers = &mut typed.envelope.headers;
        let tracer = &self.edge.tracer;
        let Some(mut context) = tracer.begin(headers.get("traceparent").map(String::as_str)) else { return };
        if let Some(mut span) = tracer.span_since("decode", Kind::Server, &context, Some(self.came)) {
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

    fn event<S: Stream>(&mut self, socket: &mut WebSocket<S>, event: Event) -> Next {
        let asked = self.stay.on(event);
        self.obey(socket, asked)
    }

    /// Does what needs the socket.
    fn obey<S: Stream>(&mut self, socket: &mut WebSocket<S>, asked: Asked) -> Next {
        if asked.ping {
            socket.ping(self.stay.replay.count());
        }
        match asked.admit {
            Some(admit) => Next::Admit(admit),
            None => Next::part(asked.close),
        }
    }

    /// Asks the gate.
    async fn admit<S: Stream>(&mut self, socket: &mut WebSocket<S>, admit: Admit) -> Next {
        let admitted = tokio::select! {
            admitted = resume::admit(&mut self.stay, &mut self.hello, admit) => admitted,
            () = self.edge.stop.wait() => Err(Refusal::new(Reason::Draining, "this node stops; reconnect")),
        };
        match admitted {
            Ok(arrival) => Next::part(self.arrive(socket, arrival)),
            Err(refusal) => self.event(socket, Event::Admitted(Err(refusal))),
        }
    }

    /// The client is admitted: what it had before goes first, then what waits.
    fn arrive<S: Stream>(&mut self, socket: &mut WebSocket<S>, arrival: Arrival) -> Option<CloseCode> {
        let Arrival { stay, event, again, before, had, channels } = arrival;
        let resumed = stay.is_some();
        if let Some(stay) = stay {
            let visitor = std::mem::replace(&mut self.stay, stay);
            if matches!(event, Event::Admitted(_)) {
                // What came from elsewhere has no conversation of its own yet: it is this one, with the client's `connect`.
                self.stay.session = visitor.session;
            }
        }
        let asked = self.stay.on(event);
        tracing::debug!(
            session = %self.stay.member.session, address = %self.hello.address, resumed,
            user = ?self.stay.session.identity().user, "admitted"
        );
        if let Some(frame) = asked.welcome {
            let mut frames: Vec<Finished> =
                vec![encode(self.hello.encoding, &frame, &self.edge.schemas.current()).into()];
            frames.extend(again);
            for frame in before {
                self.stay.replay.wrote(frame.clone());
                frames.push(frame);
            }
            self.write(socket, &frames);
            if asked.ping {
                socket.ping(self.stay.replay.count());
            }
        } else {
            // Its window has just ended: the client begins anew.
            return Some(CloseCode::Restart);
        }
        self.stay.had_elsewhere(had);
        channels.into_iter().for_each(|again| self.stay.join_again(again));
        if resumed {
            self.stay.reappear();
        }
        let change = if resumed { v1::SessionChange::SessionResumed } else { v1::SessionChange::SessionConnected };
        self.edge.tell(&self.stay, change);
        asked.close
    }

    /// Tells the client to connect again, and gives it time for that.
    fn ask_to_leave<S: Stream>(&mut self, socket: &mut WebSocket<S>, notice: v1::DrainNotice) -> Next {
        self.leave_at = None;
        self.part_at = Some(Instant::now() + self.edge.config.drain_grace);
        self.stay.remember();
        self.event(socket, Event::Notice(notice))
    }

    fn deadline<S: Stream>(&mut self, socket: &mut WebSocket<S>) -> Next {
        let now = Instant::now();
        if socket.unflushed_since().is_some_and(|since| since.elapsed() >= self.edge.config.write_timeout) {
            return Next::End(End::Close(CloseCode::Slow));
        }
        if self.part_at.is_some_and(|at| at <= now) {
            self.part_at = None;
            return self.event(socket, Event::Drain);
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            return self.ask_to_leave(socket, self.edge.notice(self.edge.elsewhere()));
        }
        self.event(socket, Event::Tick)
    }

    /// Tells the client which rule it broke; the close code is the rule's.
    fn broken(&self, refusal: Refusal) -> CloseCode {
        let code = refusal.reason.row().close.unwrap_or(CloseCode::Protocol);
        if self.stay.session.state() != State::Expired {
            let error = server_frame::Frame::Error(refusal.into());
            self.stay.send(&v1::ServerFrame { reply_to: 0, frame: Some(error) });
        }
        code
    }
}
