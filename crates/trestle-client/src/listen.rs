//! From where a program listens to a channel, and which part of its history it reads.

use std::time::SystemTime;

use trestle_wire::v1::{self, read_history, subscribe::From};

/// Where listening begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// With what comes from now on.
    #[default]
    Now,
    /// After this offset; 0 is everything that the channel keeps.
    Offset(u64),
    /// With the last so many messages.
    Last(u32),
    /// With what was accepted at this time or later.
    Time(SystemTime),
}

/// How to listen to a channel. The default is from now on, without presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    pub(crate) since: Since,
    pub(crate) presence: bool,
}

impl Listen {
    /// From there on.
    #[must_use]
    pub fn since(since: Since) -> Self {
        Self { since, presence: false }
    }

    /// Also asks for [`Event::Presence`](crate::Event::Presence), where the channel's namespace has presence.
    #[must_use]
    pub fn presence(mut self) -> Self {
        self.presence = true;
        self
    }
}

impl Since {
    pub(crate) fn from(self) -> Option<From> {
        match self {
            Self::Now => None,
            Self::Offset(offset) => Some(From::Offset(offset)),
            Self::Last(last) => Some(From::Last(last)),
            Self::Time(time) => Some(From::Since(time.into())),
        }
    }
}

/// Which part of a channel's history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Forwards: the first messages after this offset; 0 begins with the oldest that is kept.
    After(u64),
    /// Backwards: the last messages before this offset; 0 begins with the latest.
    Before(u64),
}

impl Page {
    pub(crate) fn of(self, channel: &str, limit: u32) -> v1::ReadHistory {
        let page = match self {
            Self::After(offset) => read_history::Page::After(offset),
            Self::Before(offset) => read_history::Page::Before(offset),
        };
        v1::ReadHistory { channel: channel.to_owned(), page: Some(page), limit }
    }
}
