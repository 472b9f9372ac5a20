//! The channels that a session listens to. Joining and leaving are done in the order in which they were asked for.

use std::collections::HashMap;

use trestle_wire::{ChannelName, Reason, Refusal};

/// Where one subscription stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hearing {
    /// Whether it is wanted, once all that was asked for is done.
    wanted: bool,
    /// How often the hub is asked to end it and has not yet answered.
    endings: u32,
    /// Whether the channel is listened to now.
    heard: bool,
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(HashMap<ChannelName, Hearing>);

impl Subscriptions {
    /// The client wants to listen to `channel`.
    pub(crate) fn want(&mut self, channel: &ChannelName, most: usize) -> Result<(), Refusal> {
        if self.0.get(channel).is_some_and(|hearing| hearing.wanted) {
            let message = format!("this session listens to {channel} already");
            return Err(Refusal::new(Reason::AlreadySubscribed, message).field("subscribe.channel"));
        }
        if self.0.len() >= most && !self.0.contains_key(channel) {
            let message = format!("a session may listen to {most} channels");
            return Err(Refusal::new(Reason::TooManySubscriptions, message).field("subscribe.channel"));
        }
        self.0.entry(channel.clone()).or_default().wanted = true;
        Ok(())
    }

    /// The channel is listened to again after a resume, or will be.
    pub(crate) fn resumed(&mut self, channel: ChannelName, heard: bool) {
        self.0.insert(channel, Hearing { wanted: true, endings: 0, heard });
    }

    /// The channel is listened to.
    pub(crate) fn joined(&mut self, channel: &ChannelName) {
        if let Some(hearing) = self.0.get_mut(channel) {
            hearing.heard = true;
        }
    }

    /// The channel cannot be listened to. One that is about to end, or was asked for again after that, stays until its own
    /// answer.
    pub(crate) fn failed(&mut self, channel: &ChannelName) {
        if self.0.get(channel).is_some_and(|hearing| hearing.endings == 0) {
            self.0.remove(channel);
        }
    }

    /// The client wants to listen no more.
    pub(crate) fn end(&mut self, channel: &ChannelName) -> Result<(), Refusal> {
        match self.0.get_mut(channel) {
            Some(hearing) if hearing.wanted => {
                hearing.wanted = false;
                hearing.endings += 1;
                Ok(())
            }
            Some(_) | None => {
                let message = format!("this session does not listen to {channel}");
                Err(Refusal::new(Reason::NotSubscribed, message).field("unsubscribe.channel"))
            }
        }
    }

    /// The channel is left.
    pub(crate) fn left(&mut self, channel: &ChannelName) {
        let Some(hearing) = self.0.get_mut(channel) else { return };
        hearing.endings = hearing.endings.saturating_sub(1);
        hearing.heard = false;
        if hearing.endings == 0 && !hearing.wanted {
            self.0.remove(channel);
        }
    }

    /// Whether the channel is wanted, and no ending of it is under way.
    pub(crate) fn keeps(&self, channel: &ChannelName) -> bool {
        self.0.get(channel).is_some_and(|hearing| hearing.wanted && hearing.endings == 0)
    }

    /// The channels that are listened to now.
    pub(crate) fn heard(&self) -> impl Iterator<Item = &ChannelName> {
        self.0.iter().filter(|(_, hearing)| hearing.heard).map(|(channel, _)| channel)
    }
}
