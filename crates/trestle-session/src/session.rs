//! Decide: an event of one client in, what to do about it out.
//!
//! What always holds: nothing is done on hub or bus for a client that was not admitted; every frame with an id is answered exactly
//! once; a frame that was refused leaves the session as it was; after [`Action::Close`] nothing more is asked for.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use trestle_auth::{Channels, Identity};
use trestle_codec::{Frame, Inbound, Rejected, Typed};
use trestle_wire::{
    ChannelName, CloseCode, NodeId, Reason, Refusal, SessionId,
    v1::{self, server_frame::Frame as Answer},
};

use crate::SessionConfig;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The socket is open, nobody was admitted yet.
    Connecting,
    /// The client was admitted and is heard.
    Active,
    /// Over.
    Closed,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// A frame came, and it is well-formed.
    Inbound(Inbound),
    /// A frame came that is not.
    Rejected(Rejected),
    /// [`Action::Admit`] has an answer.
    Admitted(Result<Identity, Refusal>),
    /// [`Action::Subscribe`] has an answer. On success the hub has put `subscribed` into the outbox itself, so that it
    /// stands before the channel's first message.
    Subscribed {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
        /// Whether it is listened to now.
        result: Result<(), Refusal>,
    },
    /// [`Action::Unsubscribe`] is done.
    Unsubscribed {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// [`Action::Publish`], [`Action::Deliver`] or [`Action::Request`] has an answer.
    Settled {
        /// The client's frame.
        id: u32,
        /// Whether it took one of the session's `outstanding_max` places.
        outstanding: bool,
        /// What the client is told.
        result: Result<Answer, Refusal>,
    },
    /// Any sign of life: bytes, a frame, a pong.
    Heard,
    /// [`Session::wakes_at`] has come.
    Tick,
    /// The node is about to stop.
    Drain,
}

/// What to do about it.
#[derive(Debug)]
pub enum Action {
    /// Put this into the outbox.
    Send(v1::ServerFrame),
    /// Ask the gate who comes with this token (`None`: what the upgrade carried), and answer with [`Event::Admitted`]
    /// before the next frame.
    Admit {
        /// The token of the `connect` frame.
        token: Option<String>,
    },
    /// Listen to a channel; answered with [`Event::Subscribed`].
    Subscribe {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// Listen no more; answered with [`Event::Unsubscribed`]. Done in order with [`Action::Subscribe`].
    Unsubscribe {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
    },
    /// Publish on a channel; answered with [`Event::Settled`].
    Publish {
        /// The client's frame.
        id: u32,
        /// The channel.
        channel: ChannelName,
        /// Whether the channel keeps a history.
        history: bool,
        /// What to publish.
        message: Typed,
    },
    /// Send to a service; answered with [`Event::Settled`].
    Deliver {
        /// The client's frame.
        id: u32,
        /// What to send.
        message: Typed,
        /// Whether to wait for the service's own acknowledgement; then it took a place.
        handled: bool,
    },
    /// Ask a service; answered with [`Event::Settled`].
    Request {
        /// The client's frame.
        id: u32,
        /// What to ask.
        message: Typed,
        /// How long the answer may take.
        timeout: Duration,
    },
    /// Send a WebSocket ping.
    Ping,
    /// Send what waits in the outbox, then close.
    Close(CloseCode),
}

/// Where a subscription stands. Joining and leaving are done in the order in which they were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hearing {
    /// Whether it is wanted, once all that was asked for is done.
    wanted: bool,
    /// How often the hub is asked to end it and has not yet answered.
    endings: u32,
}

/// One client's conversation.
pub struct Session {
    id: SessionId,
    node: NodeId,
    frame_bytes_max: u32,
    config: Arc<SessionConfig>,
    channels: Arc<Channels>,
    state: State,
    identity: Identity,
    /// The first frame, while the gate is asked.
    held: Option<Inbound>,
    /// What the session listens to, and where that stands.
    subscriptions: HashMap<ChannelName, Hearing>,
    outstanding: usize,
    faults: u32,
    heard: Instant,
    pinged: Option<Instant>,
}

impl Session {
    /// A session whose socket was opened at `now`.
    #[must_use]
    pub fn new(
        id: SessionId,
        node: NodeId,
        frame_bytes_max: u32,
        config: Arc<SessionConfig>,
        channels: Arc<Channels>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            node,
            frame_bytes_max,
            config,
            channels,
            state: State::Connecting,
            identity: Identity::default(),
            held: None,
            subscriptions: HashMap::new(),
            outstanding: 0,
            faults: 0,
            heard: now,
            pinged: None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Who it is; anonymous until admitted.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When it wants a [`Event::Tick`]; none is due while its owner does not read from the client, whose pongs it would
    /// not hear. The owner says [`Event::Heard`] when it reads again.
    #[must_use]
    pub fn wakes_at(&self) -> Instant {
        match (self.state, self.pinged) {
            (State::Connecting, _) => self.heard + self.config.connect_timeout,
            (_, Some(pinged)) => pinged + self.config.pong_timeout,
            (_, None) => self.heard + self.config.ping_interval,
        }
    }

    /// Takes `event`, which happened at `now`, and adds what to do about it to `actions`.
    pub fn on(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        if self.state == State::Closed {
            return;
        }
        match event {
            Event::Inbound(inbound) => {
                self.sign_of_life(now);
                self.faults = 0;
                self.inbound(inbound, actions);
            }
            Event::Rejected(Rejected { id, refusal }) => {
                self.sign_of_life(now);
                let close = refusal.reason.row().close;
                self.refuse(id, refusal, actions);
                match close {
                    Some(code) => self.close(code, actions),
                    None => self.fault(actions),
                }
            }
            Event::Admitted(result) => self.admitted(result, actions),
            Event::Subscribed { id, channel, result } => self.subscribed(id, &channel, result, actions),
            Event::Unsubscribed { id, channel } => self.unsubscribed(id, channel, actions),
            Event::Settled { id, outstanding, result } => {
                self.outstanding = self.outstanding.saturating_sub(usize::from(outstanding));
                match result {
                    // A service's own refusal is told like one of the gateway's.
                    Ok(answer @ Answer::Error(_)) => send(id, answer, actions),
                    Ok(answer) => answer_to(id, answer, actions),
                    Err(refusal) => self.refuse(id, refusal, actions),
                }
            }
            Event::Heard => self.sign_of_life(now),
            Event::Tick => self.tick(now, actions),
            Event::Drain => self.close(CloseCode::Restart, actions),
        }
    }

    fn inbound(&mut self, inbound: Inbound, actions: &mut Vec<Action>) {
        if self.state == State::Active {
            return self.frame(inbound, actions);
        }
        let token = match &inbound.frame {
            Frame::Connect { token } => token.clone(),
            _ => None,
        };
        self.held = Some(inbound);
        actions.push(Action::Admit { token });
    }

    fn admitted(&mut self, result: Result<Identity, Refusal>, actions: &mut Vec<Action>) {
        let Some(held) = self.held.take() else { return };
        match result {
            Ok(identity) => {
                self.identity = identity;
                self.state = State::Active;
                let explicit = matches!(held.frame, Frame::Connect { .. });
                // An implicit connect is answered too: the client learns its session, and no frame of its own is meant.
                send(if explicit { held.id } else { 0 }, Answer::Connected(self.welcome()), actions);
                if !explicit {
                    self.frame(held, actions);
                }
            }
            Err(refusal) => {
                // What may succeed later is no fault of the token.
                let otherwise =
                    if refusal.reason.row().retryable { CloseCode::Restart } else { CloseCode::Unauthenticated };
                let close = refusal.reason.row().close.unwrap_or(otherwise);
                self.refuse(held.id, refusal, actions);
                self.close(close, actions);
            }
        }
    }

    fn welcome(&self) -> v1::Connected {
        v1::Connected {
            session_id: self.id.to_string(),
            resumed: false,
            ping_interval: prost_types::Duration::try_from(self.config.ping_interval).ok(),
            user: self.identity.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: self.node.to_string(),
            frame_bytes_max: self.frame_bytes_max,
        }
    }

    fn frame(&mut self, Inbound { id, frame }: Inbound, actions: &mut Vec<Action>) {
        let decided = match frame {
            Frame::Connect { .. } => {
                Err(Refusal::new(Reason::AlreadyConnected, "this session is connected already; leave connect out"))
            }
            Frame::Ping => {
                send(id, Answer::Pong(v1::Pong {}), actions);
                Ok(())
            }
            Frame::Subscribe { channel } => self.subscribe(id, channel, actions),
            Frame::Unsubscribe { channel } => self.unsubscribe(id, channel, actions),
            Frame::Publish { channel, message } => self.publish(id, channel, message, actions),
            Frame::Message(message) => self.deliver(id, message, actions),
            Frame::Request { message, timeout } => self.request(id, message, timeout, actions),
        };
        if let Err(refusal) = decided {
            self.refuse(id, refusal, actions);
        }
    }

    fn subscribe(&mut self, id: u32, channel: ChannelName, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.channels.may_subscribe(&self.identity, &channel)?;
        if self.subscriptions.get(&channel).is_some_and(|hearing| hearing.wanted) {
            let message = format!("this session listens to {channel} already");
            return Err(Refusal::new(Reason::AlreadySubscribed, message).field("subscribe.channel"));
        }
        if self.subscriptions.len() >= self.config.subscriptions_max && !self.subscriptions.contains_key(&channel) {
            let message = format!("a session may listen to {} channels", self.config.subscriptions_max);
            return Err(Refusal::new(Reason::TooManySubscriptions, message).field("subscribe.channel"));
        }
        self.subscriptions.entry(channel.clone()).or_default().wanted = true;
        actions.push(Action::Subscribe { id, channel });
        Ok(())
    }

    fn subscribed(&mut self, id: u32, channel: &ChannelName, result: Result<(), Refusal>, actions: &mut Vec<Action>) {
        let Err(refusal) = result else { return };
        // One that is about to end, or was asked for again after that, stays until its own answer.
        if self.subscriptions.get(channel).is_some_and(|hearing| hearing.endings == 0) {
            self.subscriptions.remove(channel);
        }
        self.refuse(id, refusal, actions);
    }

    fn unsubscribe(&mut self, id: u32, channel: ChannelName, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        match self.subscriptions.get_mut(&channel) {
            Some(hearing) if hearing.wanted => {
                hearing.wanted = false;
                hearing.endings += 1;
            }
            Some(_) | None => {
                let message = format!("this session does not listen to {channel}");
                return Err(Refusal::new(Reason::NotSubscribed, message).field("unsubscribe.channel"));
            }
        }
        actions.push(Action::Unsubscribe { id, channel });
        Ok(())
    }

    fn unsubscribed(&mut self, id: u32, channel: ChannelName, actions: &mut Vec<Action>) {
        if let Some(hearing) = self.subscriptions.get_mut(&channel) {
            hearing.endings -= 1;
            if hearing.endings == 0 && !hearing.wanted {
                self.subscriptions.remove(&channel);
            }
        }
        answer_to(id, Answer::Unsubscribed(v1::Unsubscribed { channel: channel.to_string() }), actions);
    }

    fn publish(
        &mut self,
        id: u32,
        channel: ChannelName,
        message: Typed,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let namespace = self.channels.may_publish(&self.identity, &channel)?;
        let history = namespace.history.is_some();
        self.permit_type(&message)?;
        actions.push(Action::Publish { id, channel, history, message });
        Ok(())
    }

    fn deliver(&mut self, id: u32, message: Typed, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let handled = self.permit_route(&message)? == v1::AckLevel::Handled;
        if handled {
            self.take_place()?;
        }
        actions.push(Action::Deliver { id, message, handled });
        Ok(())
    }

    fn request(
        &mut self,
        id: u32,
        message: Typed,
        timeout: Option<Duration>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.permit_route(&message)?;
        self.take_place()?;
        let timeout = timeout.unwrap_or(self.config.request_timeout).min(self.config.request_timeout_max);
        actions.push(Action::Request { id, message, timeout });
        Ok(())
    }

    /// A type with scopes needs them wherever it is sent.
    fn permit_type(&self, message: &Typed) -> Result<(), Refusal> {
        message.kind.route().map_or(Ok(()), |route| self.identity.has_scopes(&route.scopes))
    }

    /// The ack level of the message's route.
    fn permit_route(&self, message: &Typed) -> Result<v1::AckLevel, Refusal> {
        let Some(route) = message.kind.route() else {
            let message = format!("{} has no route to a service; publish it on a channel", message.kind.full_name());
            return Err(Refusal::new(Reason::NoRoute, message).field("messageType"));
        };
        self.identity.has_scopes(&route.scopes)?;
        Ok(route.ack)
    }

    fn take_place(&mut self) -> Result<(), Refusal> {
        if self.outstanding >= self.config.outstanding_max {
            let message = format!("{} frames of this session wait for their answers", self.outstanding);
            return Err(Refusal::new(Reason::TooManyRequests, message).retry_after(Duration::from_millis(100)));
        }
        self.outstanding += 1;
        Ok(())
    }

    fn sign_of_life(&mut self, now: Instant) {
        // Before the first frame only `connect_timeout` counts, from the upgrade on.
        if self.state == State::Active || self.held.is_some() {
            self.heard = now;
            self.pinged = None;
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.wakes_at() {
            return;
        }
        match (self.state, self.pinged) {
            (State::Connecting, _) => {
                let refusal = Refusal::new(Reason::ConnectTimeout, "no frame came in time after the upgrade");
                self.refuse(0, refusal, actions);
                self.close(CloseCode::ConnectTimeout, actions);
            }
            (_, Some(_)) => self.close(CloseCode::Heartbeat, actions),
            (_, None) => {
                self.pinged = Some(now);
                actions.push(Action::Ping);
            }
        }
    }

    fn fault(&mut self, actions: &mut Vec<Action>) {
        self.faults += 1;
        if self.faults >= self.config.faults_max {
            let message = format!("{} faulty frames in a row", self.faults);
            self.refuse(0, Refusal::new(Reason::TooManyFaults, message), actions);
            self.close(CloseCode::TooManyFaults, actions);
        }
    }

    fn refuse(&mut self, id: u32, refusal: Refusal, actions: &mut Vec<Action>) {
        send(id, Answer::Error(refusal.into()), actions);
    }

    fn close(&mut self, code: CloseCode, actions: &mut Vec<Action>) {
        self.state = State::Closed;
        actions.push(Action::Close(code));
    }
}

/// Answers a frame that asked for an answer.
fn answer_to(id: u32, frame: Answer, actions: &mut Vec<Action>) {
    if id != 0 {
        send(id, frame, actions);
    }
}

fn send(reply_to: u32, frame: Answer, actions: &mut Vec<Action>) {
    actions.push(Action::Send(v1::ServerFrame { reply_to, frame: Some(frame) }));
}
