//! Whom a push or an update is for.

use trestle_wire::v1::{self, target};

/// Whom a push or an update is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everyone who listens to the channel: `namespace:rest`.
    Channel(String),
    /// One session, as an envelope's source names it.
    Session(String),
    /// The sessions in a group.
    Group(String),
    /// All sessions of a user.
    User(String),
    /// The sessions whose tags match a selector, such as `plan=pro AND region IN (eu, us)`.
    Tags(String),
    /// Every session of every node.
    Everyone,
    /// Every session but these, at most 64.
    EveryoneExcept(Vec<String>),
    /// A user's inbox: kept until a device of the user acks it, for users who are offline too.
    Inbox(String),
}

impl From<Target> for v1::Target {
    fn from(target: Target) -> Self {
        let target = match target {
            Target::Channel(name) => target::Target::Channel(name),
            Target::Session(id) => target::Target::Session(id),
            Target::Group(name) => target::Target::Group(name),
            Target::User(id) => target::Target::User(id),
            Target::Tags(selector) => target::Target::Tags(selector),
            Target::Everyone => target::Target::Everyone(v1::Everyone::default()),
            Target::EveryoneExcept(except_sessions) => target::Target::Everyone(v1::Everyone { except_sessions }),
            Target::Inbox(user) => target::Target::Inbox(user),
        };
        Self { target: Some(target) }
    }
}

/// The push of `message` to `target`.
pub(crate) fn push(target: Target, message_type: &str, message: &impl prost::Message) -> v1::PushRequest {
    let envelope = v1::Envelope {
        message_type: message_type.to_owned(),
        payload: message.encode_to_vec().into(),
        ..v1::Envelope::default()
    };
    v1::PushRequest { target: Some(target.into()), message: Some(envelope) }
}
