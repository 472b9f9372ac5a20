//! Identifiers as newtypes, parsed once at the border.

use std::{fmt, sync::Arc};

/// Longest channel name, in bytes: a subject must stay below what NATS handles well, and three bytes of a subject may
/// stand for one of the name.
pub const CHANNEL_BYTES_MAX: usize = 200;
/// Longest namespace, service or node name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The namespace of users' inboxes; no other channel has it.
pub const INBOX: &str = "inbox";
/// Longest user, group or session id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// A name that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} {fault}")]
pub struct InvalidName {
    what: &'static str,
    name: String,
    fault: String,
}

impl InvalidName {
    fn new(what: &'static str, name: &str, fault: impl Into<String>) -> Self {
        // A name may be a megabyte of garbage; what is said about it must not be.
        Self { what, name: name.chars().take(64).collect(), fault: fault.into() }
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_newtype! {
    /// A channel: `namespace:rest`, or a bare `namespace`. The namespace is lower-case letters, digits, `-` and `_`;
    /// the rest is anything printable but white space, `*` and `>`.
    ChannelName
}
text_newtype! {
    /// A service, as routes name it: lower-case letters, digits and `-`.
    ServiceName
}
text_newtype! {
    /// A node of the gateway: lower-case letters, digits and `-`.
    NodeId
}
text_newtype! {
    /// A client's session: `<node>.<random>`, so that a push finds the node that opened it.
    SessionId
}
text_newtype! {
    /// A group of sessions: any printable text without white space, `*` and `>`.
    GroupName
}
text_newtype! {
    /// The authenticated subject of a session: any printable text without white space at its ends.
    UserId
}

impl ChannelName {
    /// Parses a channel name from outside.
    ///
    /// # Errors
    /// [`InvalidName`] says what is wrong with it.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let fault = |fault: &str| Err(InvalidName::new("channel", name, fault));
        if name.is_empty() {
            return fault("is empty");
        }
        if name.len() > CHANNEL_BYTES_MAX {
            return fault(&format!("is longer than {CHANNEL_BYTES_MAX} bytes"));
        }
        let (namespace, rest) = name.split_once(':').unwrap_or((name, ""));
        if !is_word(namespace, b"-_") {
            return fault("has a namespace that is not 1 to 64 lower-case letters, digits, '-' and '_' before ':'");
        }
        if let Some(bad) = rest.chars().find(|c| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>')) {
            return fault(&format!("contains {bad:?}; control characters, white space, '*' and '>' are not allowed"));
        }
        Ok(Self(name.into()))
    }

    /// The channel that is the inbox of `user`: `inbox:<user>`, with what a channel's name may not hold as `%XX`.
    #[must_use]
    pub fn inbox(user: &UserId) -> Self {
        Self(format!("{INBOX}:{}", crate::subject::token(user.as_str())).into())
    }

    /// What stands before the first `:`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(namespace, _)| namespace)
    }

    /// What stands after the first `:`; `None` for a bare namespace.
    #[must_use]
    pub fn rest(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, rest)| rest)
    }
}

impl ServiceName {
    /// Parses a service name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is not 1 to 64 lower-case letters, digits and `-`.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        if !is_word(name, b"-") {
            return Err(InvalidName::new("service", name, "is not 1 to 64 lower-case letters, digits and '-'"));
        }
        Ok(Self(name.into()))
    }
}

impl NodeId {
    /// Parses a node name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is not 1 to 64 lower-case letters, digits and `-`.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        if !is_word(name, b"-") {
            return Err(InvalidName::new("node", name, "is not 1 to 64 lower-case letters, digits and '-'"));
        }
        Ok(Self(name.into()))
    }
}

impl SessionId {
    /// The id of a session that `node` opens; `random` is its 128 bits of randomness.
    #[must_use]
    pub fn new(node: &NodeId, random: u128) -> Self {
        Self(format!("{node}.{random:032x}").into())
    }

    /// Parses a session id from outside.
    ///
    /// # Errors
    /// [`InvalidName`] if it is not `<node>.<32 hexadecimal digits>`.
    pub fn parse(id: &str) -> Result<Self, InvalidName> {
        let hex = |text: &str| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match id.split_once('.') {
            Some((node, random)) if is_word(node, b"-") && hex(random) => Ok(Self(id.into())),
            _ => Err(InvalidName::new("session", id, "is not <node>.<32 hexadecimal digits>")),
        }
    }

    /// The node that opened the session.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.0.split_once('.').map_or("", |(node, _)| node).into())
    }
}

impl GroupName {
    /// Parses a group's name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, longer than 128 bytes, or has control characters, white space, `*` or `>`.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>');
        if name.is_empty() || name.len() > ID_BYTES_MAX || name.chars().any(bad) {
            let fault = "is not 1 to 128 bytes without control characters, white space, '*' and '>'";
            return Err(InvalidName::new("group", name, fault));
        }
        Ok(Self(name.into()))
    }
}

impl UserId {
    /// Parses a user id from a token or a push.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, longer than 128 bytes, or has control characters or white space at its ends.
    pub fn parse(id: &str) -> Result<Self, InvalidName> {
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.trim() != id || id.chars().any(char::is_control) {
            return Err(InvalidName::new("user", id, "is not 1 to 128 bytes of printable text"));
        }
        Ok(Self(id.into()))
    }
}

/// 1 to 64 lower-case letters and digits, and the bytes of `also` anywhere but at the start.
fn is_word(text: &str, also: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(&b))
        && !also.contains(&text.as_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_a_namespace_and_a_rest() {
        let room = ChannelName::parse("room:42:left").expect("valid");
        assert_eq!((room.namespace(), room.rest()), ("room", Some("42:left")));
        let lobby = ChannelName::parse("lobby").expect("valid");
        assert_eq!((lobby.namespace(), lobby.rest()), ("lobby", None));
    }

    #[test]
    fn wildcards_control_and_space_are_refused_and_named() {
        for (name, said) in [
            ("", "is empty"),
            ("room:*", "'*'"),
            ("room:>", "'>'"),
            ("room:a b", "' '"),
            ("room:a\r\nPUB x", r"'\r'"),
            ("Room:1", "namespace"),
            (":1", "namespace"),
            (&"a".repeat(201), "longer than 200"),
        ] {
            let error = ChannelName::parse(name).expect_err(name).to_string();
            assert!(error.contains(said), "{name:?}: {error}");
        }
    }

    #[test]
    fn a_session_id_names_its_node() {
        let node = NodeId::parse("edge-1").expect("valid");
        let session = SessionId::new(&node, 7);
        assert_eq!(SessionId::parse(session.as_str()), Ok(session.clone()));
        assert_eq!(session.node(), node);
        assert!(SessionId::parse("edge-1.zz").is_err());
    }
}
