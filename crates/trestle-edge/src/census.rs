//! Who is here: the sessions of this node as operators ask for them.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use trestle_hub::Member;
use trestle_wire::{
    ChannelName, GroupName, Reason, Refusal, Selector, SessionId, UserId,
    v1::{self, target::Target},
};

use crate::Edge;

/// Sessions of a page, if the asker does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most sessions of a page: at 1 KiB each, what one message of the bus takes.
const LIMIT_MAX: usize = 1000;

impl Edge {
    /// The sessions of this node that `request` asks for, in the order of their ids, as many as one message takes.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn list(&self, request: &v1::ListSessionsRequest) -> Result<v1::ListSessionsResponse, Refusal> {
        let picked = Picked::parse(request)?;
        let limit = match request.limit as usize {
            0 => LIMIT_DEFAULT,
            limit => limit.min(LIMIT_MAX),
        };
        let mut members = self.hub.members();
        members.retain(|member| member.session.as_str() > request.after.as_str() && picked.has(member));
        members.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        let (mut sessions, mut room) = (Vec::new(), self.fabric.bus.payload_bytes_max() / 2);
        for member in members.iter().take(limit) {
            let info = self.session_info(member);
            let bytes = info.encoded_len();
            if bytes > room {
                break;
            }
            room -= bytes;
            sessions.push(info);
        }
        let more = members.len() > sessions.len();
        Ok(v1::ListSessionsResponse { sessions, more, silent_nodes: Vec::new() })
    }

    fn session_info(&self, member: &Member) -> v1::SessionInfo {
        let facts = member.facts.lock();
        let span = |span: Duration| prost_types::Duration::try_from(span).ok();
        v1::SessionInfo {
            session_id: member.session.to_string(),
            state: v1::SessionState::from(facts.state).into(),
            user: facts.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            address: facts.address.map(|address| address.to_string()).unwrap_or_default(),
            node: self.node.to_string(),
            connected: Some(facts.connected.into()),
            heartbeat_age: span(unix_now().saturating_sub(Duration::from_millis(member.seen.load(Ordering::Relaxed)))),
            subscriptions: facts.subscriptions.iter().map(ToString::to_string).collect(),
            groups: facts.groups.iter().map(ToString::to_string).collect(),
            tags: facts.tags.clone().into_iter().collect(),
            queue_frames: u32::try_from(member.outbox.len()).unwrap_or(u32::MAX),
            queue_bytes: member.outbox.bytes() as u64,
        }
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Which sessions are asked for.
struct Picked {
    whose: Whose,
    channel: Option<ChannelName>,
}

enum Whose {
    Everyone,
    Session(SessionId),
    User(UserId),
    Group(GroupName),
    Tags(Selector),
}

impl Picked {
    fn parse(request: &v1::ListSessionsRequest) -> Result<Self, Refusal> {
        let invalid = |error: String, field: &str| Refusal::new(Reason::InvalidTarget, error).field(field);
        let target = request.target.as_ref().and_then(|target| target.target.as_ref());
        let whose = match target {
            None | Some(Target::Everyone(_)) => Whose::Everyone,
            Some(Target::Session(id)) => {
                Whose::Session(SessionId::parse(id).map_err(|error| invalid(error.to_string(), "target.session"))?)
            }
            Some(Target::User(id)) => {
                Whose::User(UserId::parse(id).map_err(|error| invalid(error.to_string(), "target.user"))?)
            }
            Some(Target::Group(name)) => {
                Whose::Group(GroupName::parse(name).map_err(|error| invalid(error.to_string(), "target.group"))?)
            }
            Some(Target::Tags(selector)) => {
                let selector = Selector::parse(selector);
                let refuse = |error: trestle_wire::selector::InvalidSelector| {
                    Refusal::new(Reason::InvalidSelector, error.to_string()).field("target.tags")
                };
                Whose::Tags(selector.map_err(refuse)?)
            }
            Some(Target::Channel(_) | Target::Inbox(_)) => {
                return Err(invalid("sessions are listed by session, user, group or tags".into(), "target"));
            }
        };
        let channel = match request.channel.as_str() {
            "" => None,
            name => Some(
                ChannelName::parse(name)
                    .map_err(|error| Refusal::new(Reason::InvalidChannel, error.to_string()).field("channel"))?,
            ),
        };
        Ok(Self { whose, channel })
    }

    fn has(&self, member: &Member) -> bool {
        let facts = member.facts.lock();
        let whose = match &self.whose {
            Whose::Everyone => true,
            Whose::Session(id) => member.session == *id,
            Whose::User(user) => facts.user.as_ref() == Some(user),
            Whose::Group(group) => facts.groups.contains(group),
            Whose::Tags(selector) => selector.matches(&facts.tags),
        };
        whose && self.channel.as_ref().is_none_or(|channel| facts.subscriptions.contains(channel))
    }
}
