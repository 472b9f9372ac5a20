//! The subjects of the bus, which are public contract: services that speak NATS may use them without the bridge.
//!
//! ```text
//! <p>.up.<service>.<type>    client to service, RECEIVED, and requests       (queue group: the service)
//! <p>.work.<service>.<type>  client to service, DURABLE and HANDLED          (log)
//! <p>.log.<channel>          append to a channel with history                (log, republished to ch)
//! <p>.ch.<channel>           live channel traffic
//! <p>.session.<s>  <p>.group.<g>  <p>.user.<u>  <p>.all                      pushes
//! <p>.select                 pushes by a selector over tags                  (SelectedPush)
//! <p>.session.<s>.control    <p>.control                                     groups, tags, kicks (Control)
//! <p>.node.<n>.handled       acknowledgements for HANDLED                    <p>.cancel   requests given up
//! <p>.node.<n>.ask  <p>.nodes.ask                                            operators' questions (NodeAsk)
//! <p>.node.<n>.here          whether the name is taken                       (answered with NodeInfo)
//! <p>.node.<n>.claim         a session of the node goes on elsewhere         <p>.node.<n>.frames   its late answers
//! <p>.presence.<channel>     who comes and goes                              <p>.presence-ask.<channel>
//! <p>.event.session          what happens to sessions                        (SessionEvent)
//! ```
//! A user's inbox is the channel [`ChannelName::inbox`], with a history of its own.
//!
//! `<channel>` is the namespace and, after a dot, the rest; what users name goes through [`token`], so that no
//! wildcard, dot or control byte of theirs gets through. `<type>` is the full name, whose dots separate tokens.

use std::{fmt, sync::Arc};

use crate::name::{ChannelName, GroupName, NodeId, ServiceName, SessionId, UserId};

/// Room that most subjects fit into while they are put together, in bytes.
const SUBJECT_BYTES: usize = 96;

/// A subject or a subscription pattern. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Takes text that is known to be a valid subject or pattern.
    #[must_use]
    pub fn from_trusted(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Makes subjects under one prefix.
#[derive(Clone, Debug)]
pub struct Subjects {
    prefix: Arc<str>,
}

impl Subjects {
    /// Subjects under `prefix`, which is one or more dot-separated words.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where messages of `message_type` go to `service` with no promise, and requests.
    #[must_use]
    pub fn up(&self, service: &ServiceName, message_type: &str) -> Subject {
        self.join(&["up", service.as_str(), message_type])
    }

    /// Where messages of `message_type` are stored for `service`.
    #[must_use]
    pub fn work(&self, service: &ServiceName, message_type: &str) -> Subject {
        self.join(&["work", service.as_str(), message_type])
    }

    /// Pattern of everything that is stored for services.
    #[must_use]
    pub fn work_all(&self) -> Subject {
        self.make(format_args!("work.>"))
    }

    /// Where a message is appended to the history of `channel`.
    #[must_use]
    pub fn log(&self, channel: &ChannelName) -> Subject {
        self.of_channel("log", channel)
    }

    /// Patterns of the histories of all channels of `namespace`.
    #[must_use]
    pub fn log_namespace(&self, namespace: &str) -> [Subject; 2] {
        let namespace = token(namespace);
        [self.make(format_args!("log.{namespace}")), self.make(format_args!("log.{namespace}.*"))]
    }

    /// Where live messages of `channel` are heard.
    #[must_use]
    pub fn channel(&self, channel: &ChannelName) -> Subject {
        self.of_channel("ch", channel)
    }

    /// Where pushes to `session` go.
    #[must_use]
    pub fn session(&self, session: &SessionId) -> Subject {
        // <node>.<random>: two tokens, so that a node hears all its sessions with one subscription.
        self.join(&["session", session.as_str()])
    }

    /// Where what is to be done with `session` goes.
    #[must_use]
    pub fn session_control(&self, session: &SessionId) -> Subject {
        self.join(&["session", session.as_str(), "control"])
    }

    /// Pattern of the pushes to all sessions that `node` opened, and of what is to be done with them.
    #[must_use]
    pub fn sessions_of(&self, node: &NodeId) -> Subject {
        self.make(format_args!("session.{node}.>"))
    }

    /// Where pushes to the sessions in `group` go.
    #[must_use]
    pub fn group(&self, group: &GroupName) -> Subject {
        self.named("group", [group.as_str()])
    }

    /// Where pushes by a selector go.
    #[must_use]
    pub fn select(&self) -> Subject {
        self.make(format_args!("select"))
    }

    /// Where what is to be done with several sessions goes.
    #[must_use]
    pub fn control(&self) -> Subject {
        self.make(format_args!("control"))
    }

    /// Where `node` is asked by operators.
    #[must_use]
    pub fn ask(&self, node: &NodeId) -> Subject {
        self.make(format_args!("node.{node}.ask"))
    }

    /// Where all nodes are.
    #[must_use]
    pub fn ask_all(&self) -> Subject {
        self.make(format_args!("nodes.ask"))
    }

    /// Where `node` is told that one of its sessions goes on elsewhere.
    #[must_use]
    pub fn claim(&self, node: &NodeId) -> Subject {
        self.make(format_args!("node.{node}.claim"))
    }

    /// Where `node` gets late answers for sessions that came to it.
    #[must_use]
    pub fn late_frames(&self, node: &NodeId) -> Subject {
        self.make(format_args!("node.{node}.frames"))
    }

    /// Where nodes say who comes to `channel` and who leaves it.
    #[must_use]
    pub fn presence(&self, channel: &ChannelName) -> Subject {
        self.of_channel("presence", channel)
    }

    /// Where nodes are asked who is on `channel`.
    #[must_use]
    pub fn presence_ask(&self, channel: &ChannelName) -> Subject {
        self.of_channel("presence-ask", channel)
    }

    /// Where it is said what happens to sessions.
    #[must_use]
    pub fn session_events(&self) -> Subject {
        self.make(format_args!("event.session"))
    }

    /// Where pushes to all sessions of `user` go.
    #[must_use]
    pub fn user(&self, user: &UserId) -> Subject {
        self.named("user", [user.as_str()])
    }

    /// Where pushes to everyone go.
    #[must_use]
    pub fn all(&self) -> Subject {
        self.make(format_args!("all"))
    }

    /// Where `node` hears of services' acknowledgements.
    #[must_use]
    pub fn handled(&self, node: &NodeId) -> Subject {
        self.join(&["node", node.as_str(), "handled"])
    }

    /// Where bridges hear of requests that were given up.
    #[must_use]
    pub fn cancel(&self) -> Subject {
        self.make(format_args!("cancel"))
    }

    fn make(&self, rest: fmt::Arguments<'_>) -> Subject {
        Subject(format!("{}.{rest}", self.prefix).into())
    }

    /// As [`Subjects::make`], for those that messages go to: formatting costs more than what is formatted.
    fn join(&self, parts: &[&str]) -> Subject {
        let mut subject = self.begin();
        for part in parts {
            subject.push('.');
            subject.push_str(part);
        }
        Subject(subject.into())
    }

    fn of_channel(&self, kind: &str, channel: &ChannelName) -> Subject {
        self.named(kind, [channel.namespace()].into_iter().chain(channel.rest()))
    }

    /// What users have named, as tokens.
    fn named<'a>(&self, kind: &str, names: impl IntoIterator<Item = &'a str>) -> Subject {
        let mut subject = self.begin();
        subject.push('.');
        subject.push_str(kind);
        for name in names {
            subject.push('.');
            push_token(&mut subject, name);
        }
        Subject(subject.into())
    }

    fn begin(&self) -> String {
        let mut subject = String::with_capacity(SUBJECT_BYTES);
        subject.push_str(&self.prefix);
        subject
    }
}

/// One subject token for any text: letters, digits, `-`, `_` and `:` stand for themselves, every other byte is `%XX`,
/// and the empty text is `%`. Different texts have different tokens.
#[must_use]
pub fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len().max(1));
    push_token(&mut token, text);
    token
}

fn push_token(into: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let stands_for_itself = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':');
    if text.is_empty() {
        into.push('%');
    } else if text.as_bytes().iter().all(stands_for_itself) {
        into.push_str(text);
    } else {
        for byte in text.bytes() {
            if stands_for_itself(&byte) {
                into.push(char::from(byte));
            } else {
                into.extend(['%', HEX[usize::from(byte >> 4)].into(), HEX[usize::from(byte & 15)].into()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_channel_is_its_namespace_and_its_rest() {
        let subjects = Subjects::new("trestle");
        let channel = |name| ChannelName::parse(name).expect("valid");
        assert_eq!(subjects.channel(&channel("room:42")).as_str(), "trestle.ch.room.42");
        assert_eq!(subjects.log(&channel("room:a.b")).as_str(), "trestle.log.room.a%2Eb");
        assert_eq!(subjects.channel(&channel("lobby")).as_str(), "trestle.ch.lobby");
        assert_ne!(subjects.channel(&channel("lobby:")), subjects.channel(&channel("lobby")));
    }

    proptest! {
        #[test]
        fn a_token_never_carries_a_dot_a_wildcard_or_a_control_byte(text in ".*") {
            let token = token(&text);
            prop_assert!(!token.is_empty());
            prop_assert!(token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'.' | b'*' | b'>')));
        }

        #[test]
        fn different_texts_have_different_tokens(a in ".{0,8}", b in ".{0,8}") {
            prop_assert_eq!(a == b, token(&a) == token(&b));
        }
    }
}
