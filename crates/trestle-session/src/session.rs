//! Decide: an event of one client in, what to do about it out.
//!
//! What always holds: nothing is done on hub or bus for a client that was not admitted; every frame with an id is answered exactly
//! once, also across a lost socket; a frame that was refused leaves the session as it was; after [`Action::Close`]
//! nothing more is asked for until the client has another socket; [`Action::Expired`] comes once, and is the last.

use std::{sync::Arc, time::Instant};

use trestle_auth::{Channels, Identity};
use trestle_codec::{Inbound, Rejected};
use trestle_wire::{
    ChannelName, CloseCode, GroupName, NodeId, Reason, Refusal, SessionId, Tags,
    v1::{self, server_frame::Frame as Answer},
};

use crate::{Action, Event, Rules, SessionConfig, belonging::Belonging, ledger::Ledger, subscriptions::Subscriptions};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The socket is open, nobody was admitted yet.
    Connecting,
    /// The client was admitted and is heard.
    Active,
    /// The client has no socket, and may come back.
    Pending,
    /// Over.
    Expired,
}

impl From<State> for v1::SessionState {
    fn from(state: State) -> Self {
        match state {
            State::Connecting => Self::Connecting,
            State::Active => Self::Active,
            State::Pending => Self::Pending,
            State::Expired => Self::Expired,
        }
    }
}

/// Whether a client that was parted from with `code` may resume its session.
#[must_use]
pub const fn survives(code: CloseCode) -> bool {
    match code {
        CloseCode::Slow | CloseCode::Heartbeat | CloseCode::Restart | CloseCode::Internal => true,
        CloseCode::Normal
        | CloseCode::Protocol
        | CloseCode::Unsupported
        | CloseCode::InvalidText
        | CloseCode::TooBig
        | CloseCode::ConnectTimeout
        | CloseCode::Busy
        | CloseCode::Unauthenticated
        | CloseCode::TooManyFaults
        | CloseCode::Replaced
        | CloseCode::Kicked => false,
    }
}

/// One client's conversation.
pub struct Session {
    pub(crate) id: SessionId,
    pub(crate) node: NodeId,
    pub(crate) frame_bytes_max: u32,
    pub(crate) config: Arc<SessionConfig>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) state: State,
    /// Whether the owner was asked to close a socket after which the session goes on.
    pub(crate) closing: bool,
    pub(crate) identity: Identity,
    /// The first frame, while the gate is asked.
    pub(crate) held: Option<Box<Inbound>>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) belonging: Belonging,
    pub(crate) ledger: Ledger,
    pub(crate) outstanding: usize,
    pub(crate) faults: u32,
    /// The last sign of life; in [`State::Pending`], when the socket was lost.
    pub(crate) heard: Instant,
    pub(crate) pinged: Option<Instant>,
    /// Whether the client has said nothing since it came back, so that it may not have `connected`.
    pub(crate) unheard: bool,
    /// Whether the registry's record is old.
    pub(crate) changed: bool,
}

impl Session {
    /// A session whose socket was opened at `now`.
    #[must_use]
    pub fn new(
        id: SessionId,
        node: NodeId,
        frame_bytes_max: u32,
        config: Arc<SessionConfig>,
        rules: Arc<Rules>,
        channels: Arc<Channels>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            node,
            frame_bytes_max,
            config,
            rules,
            channels,
            state: State::Connecting,
            closing: false,
            identity: Identity::default(),
            held: None,
            subscriptions: Subscriptions::default(),
            belonging: Belonging::default(),
            ledger: Ledger::default(),
            outstanding: 0,
            faults: 0,
            heard: now,
            pinged: None,
            unheard: false,
            changed: false,
        }
    }

    /// Its name; another one after it was resumed.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
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

    /// Whether the client has said nothing since it came back: it may not have the `connected` that it was sent.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// Whether the client listens to `channel` and has not asked to end that, also if it is joined anew after that.
    #[must_use]
    pub fn keeps(&self, channel: &ChannelName) -> bool {
        self.subscriptions.keeps(channel)
    }

    /// The channels that are listened to now, in no order.
    pub fn subscriptions(&self) -> impl Iterator<Item = &ChannelName> {
        self.subscriptions.heard()
    }

    /// The groups it is in, whoever put it there.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.belonging.groups()
    }

    /// The groups that services put it into.
    pub fn service_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.belonging.service_groups()
    }

    /// The tags that services gave it.
    #[must_use]
    pub fn service_tags(&self) -> &Tags {
        self.belonging.service_tags()
    }

    /// Whether the client's frame `id` came here, as far as that is remembered: 256 answered ones.
    #[must_use]
    pub fn saw(&self, id: u32) -> bool {
        self.ledger.saw(id)
    }

    /// Whether the client's frame `id` still waits for its answer.
    #[must_use]
    pub fn is_open(&self, id: u32) -> bool {
        self.ledger.is_open(id)
    }

    /// The client's frames that were answered, as far as that is remembered: the last 256.
    pub fn answered_frames(&self) -> impl Iterator<Item = u32> + '_ {
        self.ledger.answered_frames()
    }

    /// The client's frames that wait for their answers.
    #[must_use]
    pub fn open_frames(&self) -> &[u32] {
        self.ledger.open()
    }

    /// When it wants a [`Event::Tick`]; none is due while its owner does not read from the client, whose pongs it would
    /// not hear. The owner says [`Event::Heard`] when it reads again.
    #[must_use]
    pub fn wakes_at(&self) -> Instant {
        match (self.state, self.pinged) {
            (State::Connecting, _) => self.heard + self.config.connect_timeout,
            (State::Pending, _) => self.heard + self.config.resume_window,
            (State::Active, Some(pinged)) => pinged + self.config.pong_timeout,
            (State::Active | State::Expired, _) => self.heard + self.config.ping_interval,
        }
    }

    /// Takes `event`, which happened at `now`, and adds what to do about it to `actions`.
    pub fn on(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        // The window ends when it ends, whoever comes first.
        if self.state == State::Pending && now >= self.wakes_at() {
            self.expire(actions);
        }
        match self.state {
            State::Connecting => self.while_connecting(event, now, actions),
            State::Active => self.while_active(event, now, actions),
            State::Pending => self.with_or_without_socket(event, now, actions),
            State::Expired => {}
        }
        if self.state != State::Expired && std::mem::take(&mut self.changed) {
            actions.push(Action::Changed);
        }
    }

    fn while_connecting(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Inbound(inbound) => self.first_frame(inbound, now, actions),
            Event::Rejected(rejected) => self.rejected(rejected, actions),
            Event::Admitted(result) => self.admitted(result, now, actions),
            // Before the first frame only `connect_timeout` counts, from the upgrade on.
            Event::Heard | Event::Pong if self.held.is_some() => self.heard = now,
            Event::Tick if now >= self.wakes_at() => {
                let refusal = Refusal::new(Reason::ConnectTimeout, "no frame came in time after the upgrade");
                self.refuse(0, refusal, actions);
                self.close(CloseCode::ConnectTimeout, actions);
            }
            Event::Lost | Event::Goodbye => self.state = State::Expired,
            Event::Claimed => self.close(CloseCode::Replaced, actions),
            Event::Kick => self.close(CloseCode::Kicked, actions),
            Event::Drain => self.close(CloseCode::Restart, actions),
            Event::Heard
            | Event::Pong
            | Event::Tick
            | Event::Reattached(_)
            | Event::Subscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::Settled { .. }
            | Event::Update(_)
            | Event::Notice(_) => {}
        }
    }

    fn while_active(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        if self.unheard && matches!(event, Event::Inbound(_) | Event::Rejected(_) | Event::Pong) {
            (self.unheard, self.changed) = (false, true);
        }
        match event {
            Event::Inbound(inbound) if !self.closing => {
                self.sign_of_life(now);
                self.faults = 0;
                self.frame(inbound, actions);
            }
            Event::Rejected(rejected) if !self.closing => {
                self.sign_of_life(now);
                self.rejected(rejected, actions);
            }
            Event::Heard | Event::Pong => self.sign_of_life(now),
            Event::Tick if !self.closing => self.heartbeat(now, actions),
            Event::Lost => self.lost(now, actions),
            Event::Notice(notice) if !self.closing => self.send(0, Answer::Draining(notice), actions),
            Event::Drain if !self.closing => self.close(CloseCode::Restart, actions),
            event => self.with_or_without_socket(event, now, actions),
        }
    }

    fn with_or_without_socket(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Reattached(reattached) => self.reattached(*reattached, now, actions),
            Event::Subscribed { id, channel, result } => self.subscribed(id, &channel, result, actions),
            Event::Unsubscribed { id, channel } => {
                self.subscriptions.left(&channel);
                self.changed = true;
                self.answer(id, Answer::Unsubscribed(v1::Unsubscribed { channel: channel.to_string() }), actions);
            }
            Event::Settled { id, outstanding, result } => {
                self.outstanding = self.outstanding.saturating_sub(usize::from(outstanding));
                match result {
                    // A service's own refusal is told like one of the gateway's.
                    Ok(answer @ Answer::Error(_)) => self.send(id, answer, actions),
                    Ok(answer) => self.answer(id, answer, actions),
                    Err(refusal) => self.refuse(id, refusal, actions),
                }
            }
            Event::Update(change) => self.update(&change, actions),
            Event::Goodbye => self.expire(actions),
            Event::Kick if self.state == State::Active => self.close(CloseCode::Kicked, actions),
            Event::Kick => self.expire(actions),
            Event::Claimed => {
                if self.state == State::Active {
                    actions.push(Action::Close(CloseCode::Replaced));
                }
                self.state = State::Expired;
            }
            // They are of a socket that is gone, or about to.
            Event::Inbound(_)
            | Event::Rejected(_)
            | Event::Admitted(_)
            | Event::Heard
            | Event::Pong
            | Event::Tick
            | Event::Lost
            | Event::Notice(_)
            | Event::Drain => {}
        }
    }

    fn subscribed(&mut self, id: u32, channel: &ChannelName, result: Result<(), Refusal>, actions: &mut Vec<Action>) {
        match result {
            Ok(()) => {
                self.ledger.answered(id);
                self.subscriptions.joined(channel);
                self.changed = true;
            }
            Err(refusal) => {
                self.subscriptions.failed(channel);
                self.refuse(id, refusal, actions);
            }
        }
    }

    fn update(&mut self, change: &v1::UpdateSessionsRequest, actions: &mut Vec<Action>) {
        match self.belonging.update(change, &self.identity, self.config.groups_max) {
            Ok(changed) => {
                self.changed |= changed;
                self.belonging.settle(&self.identity, &self.rules, actions);
            }
            Err(refusal) => actions.push(Action::NotUpdated(refusal)),
        }
    }

    fn lost(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.config.resume_window.is_zero() {
            return self.expire(actions);
        }
        (self.state, self.changed) = (State::Pending, true);
        (self.heard, self.pinged) = (now, None);
    }

    fn sign_of_life(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    fn heartbeat(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.wakes_at() {
            return;
        }
        if self.pinged.is_some() {
            return self.close(CloseCode::Heartbeat, actions);
        }
        self.pinged = Some(now);
        actions.push(Action::Ping);
    }

    fn rejected(&mut self, Rejected { id, refusal }: Rejected, actions: &mut Vec<Action>) {
        let close = refusal.reason.row().close;
        self.ledger.came(id);
        self.refuse(id, refusal, actions);
        if let Some(code) = close {
            return self.close(code, actions);
        }
        self.faults += 1;
        if self.faults >= self.config.faults_max {
            let message = format!("{} faulty frames in a row", self.faults);
            self.refuse(0, Refusal::new(Reason::TooManyFaults, message), actions);
            self.close(CloseCode::TooManyFaults, actions);
        }
    }

    pub(crate) fn refuse(&mut self, id: u32, refusal: Refusal, actions: &mut Vec<Action>) {
        self.send(id, Answer::Error(refusal.into()), actions);
    }

    /// Answers a frame that asked for an answer.
    pub(crate) fn answer(&mut self, id: u32, frame: Answer, actions: &mut Vec<Action>) {
        if id != 0 {
            self.send(id, frame, actions);
        }
    }

    pub(crate) fn send(&mut self, reply_to: u32, frame: Answer, actions: &mut Vec<Action>) {
        self.ledger.answered(reply_to);
        actions.push(Action::Send(v1::ServerFrame { reply_to, frame: Some(frame) }));
    }

    pub(crate) fn close(&mut self, code: CloseCode, actions: &mut Vec<Action>) {
        actions.push(Action::Close(code));
        if self.state == State::Active && survives(code) {
            self.closing = true;
        } else {
            self.expire(actions);
        }
    }

    /// Ends the session for good.
    fn expire(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Active | State::Pending) {
            actions.push(Action::Expired);
        }
        self.state = State::Expired;
    }
}
