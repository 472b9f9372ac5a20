//! Channel namespaces and their policy.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use trestle_wire::{ChannelName, Reason, Refusal, name::INBOX, v1};

use crate::{Identity, InboxConfig};

/// The namespaces of channels. A channel whose namespace is not here does not exist.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelsConfig {
    /// One table per namespace, the part of a channel's name before `:`; `[channels.namespaces.room]` is for `room:42`. The name
    /// `inbox` is taken by users' inboxes.
    pub namespaces: BTreeMap<String, Namespace>,
}

impl Default for ChannelsConfig {
    fn default() -> Self {
        let room = Namespace { history: Some(History::default()), presence: true, ..Namespace::default() };
        let namespaces = [("live".to_owned(), Namespace::default()), ("room".to_owned(), room)];
        Self { namespaces: namespaces.into() }
    }
}

/// What holds for the channels of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Namespace {
    /// Which clients may subscribe: `anyone`, `users` (with a token), `nobody`.
    pub subscribe: Who,
    /// Which clients may publish: `anyone`, `users`, `nobody`. Services push whatever stands here.
    pub publish: Who,
    /// Whether clients may ask who is on a channel, and be told who comes and goes.
    pub presence: bool,
    /// What happens to a message for which a slow client's outbox has no room: `disconnect` (the client recovers from the
    /// history), `drop_oldest`, `drop_newest`, `conflate` (the one with the same key goes, see `trestle.v1.queueing`), `sample`
    /// (a fair random share is taken), `spill` (it waits on disk). A type with its own `overflow` goes by that. What is dropped
    /// is told in a `gap`.
    pub overflow: OverflowPolicy,
    /// What is kept of each channel; nothing without it. With it, messages carry offsets, clients read pages and resume where
    /// they were, and what a node missed while the bus was away is read from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// How much of each channel is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Messages per channel, the latest, at least 1.
    pub size: u64,
    /// For how long, at least 1 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ttl: Duration,
}

impl History {
    /// What is wrong with the table `key`, a sentence for each.
    fn faults(&self, key: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if self.size == 0 {
            faults.push(format!("{key}.size: 0 keeps nothing; it must be at least 1"));
        }
        if self.ttl < Duration::from_secs(1) {
            faults.push(format!("{key}.ttl: {:?} is less than 1s", self.ttl));
        }
        faults
    }
}

impl Default for History {
    fn default() -> Self {
        Self { size: 100, ttl: Duration::from_secs(300) }
    }
}

/// What happens to a message for which a client's outbox has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverflowPolicy {
    /// The connection is closed with 4000; what has offsets can be recovered.
    #[default]
    Disconnect,
    /// The oldest of its kind goes.
    DropOldest,
    /// The new one goes.
    DropNewest,
    /// The one with the same key goes; else the oldest.
    Conflate,
    /// From a half-full outbox on a fair random share is taken.
    Sample,
    /// It waits on the node's disk, up to a bound.
    Spill,
}

impl From<OverflowPolicy> for v1::Overflow {
    fn from(policy: OverflowPolicy) -> Self {
        match policy {
            OverflowPolicy::Disconnect => Self::Disconnect,
            OverflowPolicy::DropOldest => Self::DropOldest,
            OverflowPolicy::DropNewest => Self::DropNewest,
            OverflowPolicy::Conflate => Self::Conflate,
            OverflowPolicy::Sample => Self::Sample,
            OverflowPolicy::Spill => Self::Spill,
        }
    }
}

/// A set of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Every client.
    #[default]
    Anyone,
    /// Clients with a token.
    Users,
    /// No client.
    Nobody,
}

impl Who {
    fn includes(self, identity: &Identity) -> bool {
        match self {
            Self::Anyone => true,
            Self::Users => identity.user.is_some(),
            Self::Nobody => false,
        }
    }
}

/// The namespaces in use: those of the config, and the built-in one of users' inboxes.
#[derive(Clone, Debug)]
pub struct Channels {
    namespaces: BTreeMap<String, Namespace>,
}

impl Channels {
    /// Takes both tables of the config, after a look at their names and numbers.
    ///
    /// # Errors
    /// A sentence per key that is wrong.
    pub fn new(config: &ChannelsConfig, inbox: &InboxConfig) -> Result<Self, Vec<String>> {
        let mut faults = inbox.history().faults(INBOX);
        for (name, namespace) in &config.namespaces {
            let key = format!("channels.namespaces.{name}");
            if name == INBOX {
                faults.push(format!("{key}: the name is taken by users' inboxes; choose another, or set `[inbox]`"));
            } else if name.contains(':') || ChannelName::parse(name).is_err() {
                faults.push(format!("{key}: a namespace is 1 to 64 lower-case letters, digits, '-' and '_'"));
            }
            if let Some(history) = &namespace.history {
                faults.extend(history.faults(&format!("{key}.history")));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut namespaces = config.namespaces.clone();
        namespaces.insert(INBOX.to_owned(), inbox.namespace());
        Ok(Self { namespaces })
    }

    /// The policy of `channel`.
    ///
    /// # Errors
    /// [`Reason::UnknownNamespace`].
    pub fn of(&self, channel: &ChannelName) -> Result<&Namespace, Refusal> {
        let name = channel.namespace();
        self.namespaces.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.namespaces.keys().map(String::as_str).collect();
            let message = format!("there is no namespace {name:?}; this gateway has {}", known.join(", "));
            Refusal::new(Reason::UnknownNamespace, message).field("channel")
        })
    }

    /// Whether `identity` may listen to `channel`, read its history and see who is on it. An inbox is named in full here, as
    /// [`ChannelName::inbox`] does, and is its user's alone.
    ///
    /// # Errors
    /// [`Reason::UnknownNamespace`], [`Reason::ChannelSubscribe`], [`Reason::NoInbox`].
    pub fn may_subscribe(&self, identity: &Identity, channel: &ChannelName) -> Result<&Namespace, Refusal> {
        let namespace = self.of(channel)?;
        if channel.namespace() == INBOX {
            return own_inbox(identity, channel).map(|()| namespace);
        }
        permit(namespace.subscribe, identity, channel, Reason::ChannelSubscribe, "subscribe to")?;
        Ok(namespace)
    }

    /// Whether `identity` may publish on `channel`.
    ///
    /// # Errors
    /// [`Reason::UnknownNamespace`], [`Reason::ChannelPublish`].
    pub fn may_publish(&self, identity: &Identity, channel: &ChannelName) -> Result<&Namespace, Refusal> {
        let namespace = self.of(channel)?;
        permit(namespace.publish, identity, channel, Reason::ChannelPublish, "publish on")?;
        Ok(namespace)
    }

    /// The policy of the namespace called `name`; `inbox` is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Every namespace with its policy, `inbox` among them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        self.namespaces.iter().map(|(name, namespace)| (name.as_str(), namespace))
    }
}

fn own_inbox(identity: &Identity, channel: &ChannelName) -> Result<(), Refusal> {
    let said = match &identity.user {
        Some(user) if *channel == ChannelName::inbox(user) => return Ok(()),
        Some(_) => "it is not this user's inbox; a client names its own `inbox`",
        None => "an anonymous client has no inbox; connect with a token",
    };
    Err(Refusal::new(Reason::NoInbox, said).field("channel"))
}

fn permit(who: Who, identity: &Identity, channel: &ChannelName, reason: Reason, verb: &str) -> Result<(), Refusal> {
    if who.includes(identity) {
        return Ok(());
    }
    let needed = match who {
        Who::Users => "only clients with a token may",
        Who::Anyone | Who::Nobody => "only services may",
    };
    Err(Refusal::new(reason, format!("{needed} {verb} {channel}")).field("channel"))
}

#[cfg(test)]
mod tests {
    use trestle_wire::UserId;

    use super::*;

    fn channels() -> Channels {
        let mut config = ChannelsConfig::default();
        let staff = Namespace { subscribe: Who::Users, publish: Who::Nobody, ..Namespace::default() };
        config.namespaces.insert("staff".into(), staff);
        Channels::new(&config, &InboxConfig::default()).unwrap()
    }

    fn user(name: &str) -> Identity {
        Identity { user: Some(UserId::parse(name).unwrap()), ..Identity::default() }
    }

    #[test]
    fn a_namespace_decides_who_may_listen_and_speak() {
        let (anonymous, ann) = (Identity::default(), user("ann"));
        let channel = |name| ChannelName::parse(name).unwrap();
        let channels = channels();
        let reason = |result: Result<&Namespace, Refusal>| result.err().map(|refusal| refusal.reason);
        assert_eq!(reason(channels.may_publish(&anonymous, &channel("room:1"))), None);
        assert_eq!(reason(channels.may_subscribe(&ann, &channel("staff:1"))), None);
        assert_eq!(reason(channels.may_subscribe(&anonymous, &channel("staff:1"))), Some(Reason::ChannelSubscribe));
        assert_eq!(reason(channels.may_publish(&ann, &channel("staff:1"))), Some(Reason::ChannelPublish));
        assert_eq!(reason(channels.may_publish(&ann, &channel("nowhere:1"))), Some(Reason::UnknownNamespace));
    }

    #[test]
    fn a_namespace_is_found_by_its_name() {
        let channels = channels();
        assert_eq!(channels.get("staff").map(|namespace| namespace.subscribe), Some(Who::Users));
        assert_eq!(channels.get("nowhere"), None);
    }

    #[test]
    fn an_inbox_is_its_users_alone_and_no_client_publishes_on_it() {
        let channels = channels();
        let (ann, bob) = (user("ann"), user("b o/b"));
        let inbox = |of: &Identity| ChannelName::inbox(of.user.as_ref().unwrap());
        let reason = |result: Result<&Namespace, Refusal>| result.err().map(|refusal| refusal.reason);
        assert_eq!(reason(channels.may_subscribe(&ann, &inbox(&ann))), None);
        assert_eq!(reason(channels.may_subscribe(&bob, &inbox(&bob))), None);
        assert_eq!(reason(channels.may_subscribe(&bob, &inbox(&ann))), Some(Reason::NoInbox));
        assert_eq!(reason(channels.may_subscribe(&Identity::default(), &inbox(&ann))), Some(Reason::NoInbox));
        let bare = ChannelName::parse("inbox").unwrap();
        assert_eq!(reason(channels.may_subscribe(&ann, &bare)), Some(Reason::NoInbox), "the session names it in full");
        assert_eq!(reason(channels.may_publish(&ann, &inbox(&ann))), Some(Reason::ChannelPublish));
    }

    #[test]
    fn the_inbox_is_a_namespace_with_the_history_of_its_table() {
        let kept = InboxConfig { size: 7, ttl: Duration::from_secs(60) };
        let channels = Channels::new(&ChannelsConfig::default(), &kept).unwrap();
        let history = Some(History { size: 7, ttl: Duration::from_secs(60) });
        assert_eq!(channels.get("inbox").map(|namespace| &namespace.history), Some(&history));
        let names: Vec<&str> = channels.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["inbox", "live", "room"]);
        let of = channels.of(&ChannelName::inbox(&UserId::parse("ann").unwrap())).unwrap();
        assert_eq!(of, channels.get("inbox").unwrap());
    }

    #[test]
    fn the_room_of_the_default_config_has_presence_and_live_has_not() {
        let channels = channels();
        let presence = |name| channels.get(name).map(|namespace| namespace.presence);
        assert_eq!((presence("room"), presence("live"), presence("inbox")), (Some(true), Some(false), Some(false)));
    }

    #[test]
    fn a_policy_has_the_word_of_the_protocol_in_lower_case() {
        for (word, overflow) in [
            ("disconnect", v1::Overflow::Disconnect),
            ("drop_oldest", v1::Overflow::DropOldest),
            ("drop_newest", v1::Overflow::DropNewest),
            ("conflate", v1::Overflow::Conflate),
            ("sample", v1::Overflow::Sample),
            ("spill", v1::Overflow::Spill),
        ] {
            let namespace: Namespace = serde_json::from_str(&format!(r#"{{"overflow":"{word}"}}"#)).unwrap();
            assert_eq!(v1::Overflow::from(namespace.overflow), overflow);
            assert_eq!(overflow.as_str_name(), word.to_uppercase());
        }
        assert_eq!(v1::Overflow::from(Namespace::default().overflow), v1::Overflow::Disconnect);
        assert!(serde_json::from_str::<Namespace>(r#"{"overflow":"block"}"#).is_err());
    }

    #[test]
    fn every_fault_of_the_config_is_listed() {
        let history = Some(History { size: 0, ttl: Duration::ZERO });
        let namespaces = [
            ("Room".to_owned(), Namespace { history, ..Namespace::default() }),
            ("inbox".to_owned(), Namespace::default()),
        ];
        let inbox = InboxConfig { size: 0, ttl: Duration::from_millis(999) };
        let faults = Channels::new(&ChannelsConfig { namespaces: namespaces.into() }, &inbox).unwrap_err();
        let keys: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        let room = "channels.namespaces.Room";
        let expected = [
            "inbox.size",
            "inbox.ttl",
            room,
            &format!("{room}.history.size"),
            &format!("{room}.history.ttl"),
            "channels.namespaces.inbox",
        ];
        assert_eq!(keys, expected, "{faults:?}");
    }
}
