//! Channel namespaces and their policy.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use trestle_wire::{ChannelName, Reason, Refusal};

use crate::Identity;

/// The namespaces of channels. A channel whose namespace is not here does not exist.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelsConfig {
    /// One table per namespace, the part of a channel's name before `:`; `[channels.namespaces.room]` is for `room:42`.
    pub namespaces: BTreeMap<String, Namespace>,
}

impl Default for ChannelsConfig {
    fn default() -> Self {
        let room = Namespace { history: Some(History::default()), ..Namespace::default() };
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
    /// What is kept of each channel; nothing without it. With it, messages carry offsets, and what a node missed while
    /// the bus was away is read from here.
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

impl Default for History {
    fn default() -> Self {
        Self { size: 100, ttl: Duration::from_secs(300) }
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

/// The namespaces in use.
#[derive(Clone, Debug)]
pub struct Channels {
    namespaces: BTreeMap<String, Namespace>,
}

impl Channels {
    /// Takes `config`, after a look at its names and numbers.
    ///
    /// # Errors
    /// A sentence per key that is wrong.
    pub fn new(config: &ChannelsConfig) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        for (name, namespace) in &config.namespaces {
            let key = format!("channels.namespaces.{name}");
            if name.contains(':') || ChannelName::parse(name).is_err() {
                faults.push(format!("{key}: a namespace is 1 to 64 lower-case letters, digits, '-' and '_'"));
            }
            if let Some(history) = &namespace.history {
                if history.size == 0 {
                    faults.push(format!("{key}.history.size: 0 keeps nothing; leave history out instead"));
                }
                if history.ttl < Duration::from_secs(1) {
                    faults.push(format!("{key}.history.ttl: {:?} is less than 1s", history.ttl));
                }
            }
        }
        if faults.is_empty() { Ok(Self { namespaces: config.namespaces.clone() }) } else { Err(faults) }
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

    /// Whether `identity` may listen to `channel`.
    ///
    /// # Errors
    /// [`Reason::UnknownNamespace`], [`Reason::ChannelSubscribe`].
    pub fn may_subscribe(&self, identity: &Identity, channel: &ChannelName) -> Result<&Namespace, Refusal> {
        let namespace = self.of(channel)?;
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

    /// The policy of the namespace called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// Every namespace with its policy.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Namespace)> {
        self.namespaces.iter().map(|(name, namespace)| (name.as_str(), namespace))
    }
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
        let staff = Namespace { subscribe: Who::Users, publish: Who::Nobody, history: None };
        config.namespaces.insert("staff".into(), staff);
        Channels::new(&config).unwrap()
    }

    #[test]
    fn a_namespace_decides_who_may_listen_and_speak() {
        let (anonymous, ann) =
            (Identity::default(), Identity { user: UserId::parse("ann").ok(), ..Identity::default() });
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
    fn every_fault_of_the_config_is_listed() {
        let history = Some(History { size: 0, ttl: Duration::ZERO });
        let namespaces = [("Room".to_owned(), Namespace { history, ..Namespace::default() })];
        let faults = Channels::new(&ChannelsConfig { namespaces: namespaces.into() }).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
