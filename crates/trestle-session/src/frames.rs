//! Decide: what an admitted client asks for, permitted or refused.

use std::time::Duration;

use trestle_codec::{Frame, Inbound, Page, Since, Typed};
use trestle_wire::{
    ChannelName, Reason, Refusal,
    name::INBOX,
    v1::{self, server_frame::Frame as Answer},
};

use crate::{Action, Session};

impl Session {
    /// One frame of an admitted client.
    pub(crate) fn frame(&mut self, Inbound { id, frame }: Inbound, actions: &mut Vec<Action>) {
        self.ledger.came(id);
        let decided = match frame {
            Frame::Connect { .. } => {
                Err(Refusal::new(Reason::AlreadyConnected, "this session is connected already; leave connect out"))
            }
            Frame::Ping => {
                self.answer(id, Answer::Pong(v1::Pong {}), actions);
                Ok(())
            }
            Frame::Subscribe { channel, since, presence } => self.subscribe(id, channel, since, presence, actions),
            Frame::Unsubscribe { channel } => self.unsubscribe(id, channel, actions),
            Frame::Publish { channel, message } => self.publish(id, channel, message, actions),
            Frame::Message(message) => self.deliver(id, message, actions),
            Frame::Request { message, timeout } => self.request(id, message, timeout, actions),
            Frame::Ack { received, inbox_offset } => self.acked(id, received, inbox_offset, actions),
            Frame::History { channel, page, limit } => self.history(id, channel, page, limit, actions),
            Frame::Presence { channel } => self.presence(id, channel, actions),
        };
        if let Err(refusal) = decided {
            self.refuse(id, refusal, actions);
        }
    }

    fn subscribe(
        &mut self,
        id: u32,
        channel: ChannelName,
        since: Since,
        presence: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let channel = self.full_name(channel)?;
        let namespace = self.channels.may_subscribe(&self.identity, &channel)?;
        if namespace.history.is_none()
            && let Some(field) = place(since)
        {
            return Err(no_history(&channel).field(field));
        }
        if presence && !namespace.presence {
            return Err(no_presence(&channel).field("subscribe.presence"));
        }
        self.subscriptions.want(&channel, self.config.subscriptions_max)?;
        let inbox = channel.namespace() == INBOX;
        actions.push(Action::Subscribe { id, channel, since, presence, inbox });
        Ok(())
    }

    fn unsubscribe(&mut self, id: u32, channel: ChannelName, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let channel = self.full_name(channel)?;
        self.subscriptions.end(&channel)?;
        actions.push(Action::Unsubscribe { id, channel });
        Ok(())
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

    fn acked(&mut self, id: u32, received: u64, inbox_offset: u64, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        if received > 0 {
            actions.push(Action::Acked { received });
        }
        if inbox_offset == 0 {
            let level = v1::AckLevel::Received.into();
            self.answer(id, Answer::Accepted(v1::Accepted { level, offset: 0 }), actions);
            return Ok(());
        }
        if self.identity.user.is_none() {
            return Err(no_inbox().field("ack.inbox_offset"));
        }
        actions.push(Action::AckInbox { id, offset: inbox_offset });
        Ok(())
    }

    fn history(
        &mut self,
        id: u32,
        channel: ChannelName,
        page: Page,
        limit: u32,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let channel = self.full_name(channel)?;
        if self.channels.may_subscribe(&self.identity, &channel)?.history.is_none() {
            return Err(no_history(&channel).field("history.channel"));
        }
        actions.push(Action::History { id, channel, page, limit });
        Ok(())
    }

    fn presence(&mut self, id: u32, channel: ChannelName, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let channel = self.full_name(channel)?;
        if !self.channels.may_subscribe(&self.identity, &channel)?.presence {
            return Err(no_presence(&channel).field("presence.channel"));
        }
        actions.push(Action::Presence { id, channel });
        Ok(())
    }

    /// The channel itself; for the bare `inbox` the user's own.
    fn full_name(&self, channel: ChannelName) -> Result<ChannelName, Refusal> {
        if channel.as_str() != INBOX {
            return Ok(channel);
        }
        match &self.identity.user {
            Some(user) => Ok(ChannelName::inbox(user)),
            None => Err(no_inbox().field("channel")),
        }
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
}

/// The field that names a place in a history; `None` if none is named.
fn place(since: Since) -> Option<&'static str> {
    match since {
        Since::Now => None,
        Since::Offset(_) => Some("subscribe.offset"),
        Since::Last(_) => Some("subscribe.last"),
        Since::Time(_) => Some("subscribe.since"),
    }
}

fn no_history(channel: &ChannelName) -> Refusal {
    let namespace = channel.namespace();
    let message = format!("{channel} keeps no history; leave the place out, or have {namespace:?} keep one");
    Refusal::new(Reason::NoHistory, message)
}

fn no_presence(channel: &ChannelName) -> Refusal {
    let message = format!("the namespace {:?} of {channel} has no presence", channel.namespace());
    Refusal::new(Reason::NoPresence, message)
}

fn no_inbox() -> Refusal {
    Refusal::new(Reason::NoInbox, "an anonymous client has no inbox; connect with a token")
}
