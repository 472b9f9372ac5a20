//! Whom a push is for.

use trestle_wire::v1::{self, target};

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everyone who listens to the channel: `namespace:rest`.
    Channel(String),
    /// One session, as an envelope's source names it.
    Session(String),
    /// All sessions of a user.
    User(String),
    /// Every session of every node.
    Everyone,
}

impl From<Target> for v1::Target {
    fn from(target: Target) -> Self {
        let target = match target {
            Target::Channel(name) => target::Target::Channel(name),
            Target::Session(id) => target::Target::Session(id),
            Target::User(id) => target::Target::User(id),
            Target::Everyone => target::Target::Everyone(v1::Everyone {}),
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
