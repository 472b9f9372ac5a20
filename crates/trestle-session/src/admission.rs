//! Admit: how a session begins, and how it goes on with a new socket, here or after a time elsewhere.
//!
//! What always holds: `connected` is the first that a client hears on a socket; a channel or an answer that did not come over
//! is told.

use std::time::Instant;

use trestle_codec::{Frame, Inbound};
use trestle_wire::{
    ChannelName, CloseCode, Reason, Refusal,
    v1::{self, server_frame::Frame as Answer},
};

use crate::{Action, Admitted, Reattached, Resumed, Session, State, belonging::Belonging};

impl Session {
    /// The frame that begins it all.
    pub(crate) fn first_frame(&mut self, inbound: Inbound, now: Instant, actions: &mut Vec<Action>) {
        if self.held.is_some() {
            let refusal = Refusal::new(Reason::TooManyRequests, "wait for connected before the next frame");
            return self.refuse(inbound.id, refusal, actions);
        }
        let (id, token, resume) = match &inbound.frame {
            Frame::Connect { token, resume } => (inbound.id, token.clone(), resume.clone()),
            _ => (0, None, None),
        };
        self.heard = now;
        self.held = Some(Box::new(inbound));
        actions.push(Action::Admit { id, token, resume });
    }

    /// The gate has answered.
    pub(crate) fn admitted(&mut self, result: Result<Admitted, Refusal>, now: Instant, actions: &mut Vec<Action>) {
        let Some(held) = self.held.take() else { return };
        let admitted = match result {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // What may succeed later is no fault of the token.
                let otherwise =
                    if refusal.reason.row().retryable { CloseCode::Restart } else { CloseCode::Unauthenticated };
                let close = refusal.reason.row().close.unwrap_or(otherwise);
                self.refuse(held.id, refusal, actions);
                return self.close(close, actions);
            }
        };
        (self.state, self.heard, self.changed) = (State::Active, now, true);
        let explicit = matches!(held.frame, Frame::Connect { .. });
        // An implicit connect is answered too: the client learns its session, and no frame of its own is meant.
        let id = if explicit { held.id } else { 0 };
        match admitted {
            Admitted::New { identity, resume_token } => {
                self.identity = identity;
                self.welcome(id, resume_token, None, actions);
                self.belonging.settle(&self.identity, &self.rules, actions);
            }
            Admitted::Resumed(resumed) => self.resumed(id, *resumed, actions),
        }
        if !explicit {
            self.frame(*held, actions);
        }
    }

    /// Goes on with the session that this client had before.
    fn resumed(&mut self, id: u32, resumed: Resumed, actions: &mut Vec<Action>) {
        let Resumed { session, identity, resume_token, received, subscriptions, joining, .. } = resumed;
        (self.id, self.identity) = (session, identity);
        let mut told = Vec::with_capacity(subscriptions.len());
        for (channel, subscribed) in subscriptions {
            self.subscriptions.resumed(channel, true);
            told.push(subscribed);
        }
        joining.into_iter().for_each(|channel| self.subscriptions.resumed(channel, false));
        self.belonging = Belonging::given(resumed.groups, resumed.tags);
        for id in resumed.outstanding.into_iter().chain(resumed.answered.iter().copied()) {
            self.ledger.came(id);
        }
        resumed.answered.into_iter().for_each(|id| self.ledger.answered(id));
        self.welcome(id, resume_token, Some((received, told)), actions);
        self.goes_on(resumed.refused, resumed.lost, actions);
    }

    /// Goes on with a new socket.
    pub(crate) fn reattached(&mut self, reattached: Reattached, now: Instant, actions: &mut Vec<Action>) {
        let Reattached { id, identity, resume_token, received, subscriptions, refused, lost } = reattached;
        (self.state, self.closing, self.identity, self.changed) = (State::Active, false, identity, true);
        (self.faults, self.heard, self.pinged) = (0, now, None);
        self.welcome(id, resume_token, Some((received, subscriptions)), actions);
        self.goes_on(refused, lost, actions);
    }

    /// Says what did not come over, and asks the client for a word: until it has given one, its last token serves again, and a
    /// client that has nothing to say should not leave that open for long.
    fn goes_on(&mut self, refused: Vec<(ChannelName, Refusal)>, lost: Vec<u32>, actions: &mut Vec<Action>) {
        self.unheard = true;
        actions.push(Action::Ping);
        self.belonging.settle(&self.identity, &self.rules, actions);
        for (channel, refusal) in refused {
            self.subscriptions.failed(&channel);
            self.refuse(0, refusal, actions);
        }
        for id in lost {
            if id != 0 && !self.ledger.is_open(id) {
                let message = "the answer to this frame was lost; repeat it with the same envelope id";
                // Remembered as answered: a client that never reads this names the frame again.
                self.ledger.came(id);
                self.refuse(id, Refusal::new(Reason::AnswerLost, message), actions);
            }
        }
    }

    fn welcome(
        &mut self,
        id: u32,
        resume_token: String,
        resumed: Option<(u64, Vec<v1::Subscribed>)>,
        actions: &mut Vec<Action>,
    ) {
        let duration = |time| prost_types::Duration::try_from(time).ok();
        let window = Some(self.config.resume_window).filter(|window| !window.is_zero() && !resume_token.is_empty());
        let is_resumed = resumed.is_some();
        let (received, subscriptions) = resumed.unwrap_or_default();
        let connected = v1::Connected {
            session_id: self.id.to_string(),
            resume_token,
            resumed: is_resumed,
            ping_interval: duration(self.config.ping_interval),
            user: self.identity.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: self.node.to_string(),
            frame_bytes_max: self.frame_bytes_max,
            received,
            subscriptions,
            resume_window: window.and_then(duration),
        };
        actions.push(Action::Welcome(v1::ServerFrame { reply_to: id, frame: Some(Answer::Connected(connected)) }));
    }
}
