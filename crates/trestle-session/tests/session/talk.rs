//! A session and its clock, and what is said to it.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use trestle_auth::{Channels, ChannelsConfig, Identity, InboxConfig, Namespace, Who};
use trestle_codec::{Frame, Inbound, Since, Typed};
use trestle_schema::{Catalogue, SchemaSource};
use trestle_session::{Action, Admitted, Event, Reattached, Resumed, Rules, Session, SessionConfig};
use trestle_wire::{
    ChannelName, CloseCode, GroupName, NodeId, SessionId, Tags, UserId,
    v1::{self, server_frame::Frame as Answer},
};

static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::load(&SchemaSource::examples()).expect("the examples are valid"));

/// A session and its clock.
pub(crate) struct Talk {
    pub(crate) session: Session,
    pub(crate) now: Instant,
}

impl Talk {
    pub(crate) fn with(config: SessionConfig) -> Self {
        let mut channels = ChannelsConfig::default();
        let staff = Namespace { subscribe: Who::Users, publish: Who::Nobody, ..Namespace::default() };
        channels.namespaces.insert("staff".into(), staff);
        let channels = Arc::new(Channels::new(&channels, &InboxConfig::default()).unwrap());
        let rules = Arc::new(Rules::parse(&config).unwrap());
        let (node, now) = (NodeId::parse("n").unwrap(), Instant::now());
        let id = SessionId::new(&node, 1);
        Self { session: Session::new(id, node, 65_536, Arc::new(config), rules, channels, now), now }
    }

    pub(crate) fn new() -> Self {
        Self::with(SessionConfig::default())
    }

    /// Already admitted, as an anonymous client.
    pub(crate) fn admitted(config: SessionConfig) -> Self {
        Self::of(config, Identity::default())
    }

    /// Already admitted.
    pub(crate) fn of(config: SessionConfig, identity: Identity) -> Self {
        let mut talk = Self::with(config);
        talk.frame(1, connect());
        talk.on(admitted(identity));
        talk
    }

    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.session.on(event, self.now, &mut actions);
        actions
    }

    pub(crate) fn frame(&mut self, id: u32, frame: Frame) -> Vec<Action> {
        self.on(Event::Inbound(Inbound { id, frame }))
    }

    pub(crate) fn after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.on(Event::Tick)
    }
}

pub(crate) fn typed(name: &str) -> Typed {
    let kind = Arc::clone(CATALOGUE.resolve(name, "").expect("an example"));
    let envelope = v1::Envelope { message_type: kind.full_name().into(), ..v1::Envelope::default() };
    Typed { envelope, kind }
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

pub(crate) fn tags<const N: usize>(tags: [(&str, &str); N]) -> Tags {
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The identity of a user without groups and tags.
pub(crate) fn user(name: &str) -> Identity {
    Identity { user: Some(UserId::parse(name).unwrap()), ..Identity::default() }
}

pub(crate) fn connect() -> Frame {
    Frame::Connect { token: None, resume: None }
}

pub(crate) fn subscribe(channel: ChannelName) -> Frame {
    Frame::Subscribe { channel, since: Since::Now, presence: false }
}

/// The gate's yes to a client that is new.
pub(crate) fn admitted(identity: Identity) -> Event {
    Event::Admitted(Ok(Admitted::New { identity, resume_token: "again".into() }))
}

/// A new socket, by a `connect` frame with that id, for a client with that count.
pub(crate) fn reattached(id: u32, received: u64) -> Reattached {
    Reattached {
        id,
        identity: Identity::default(),
        resume_token: "once more".into(),
        received,
        subscriptions: Vec::new(),
        refused: Vec::new(),
        lost: Vec::new(),
    }
}

/// A session that was elsewhere.
pub(crate) fn resumed() -> Resumed {
    Resumed {
        session: SessionId::new(&NodeId::parse("other").unwrap(), 7),
        identity: Identity::default(),
        resume_token: "once more".into(),
        received: 0,
        subscriptions: Vec::new(),
        joining: Vec::new(),
        groups: Vec::new(),
        tags: Tags::new(),
        refused: Vec::new(),
        lost: Vec::new(),
        outstanding: Vec::new(),
        answered: Vec::new(),
    }
}

/// `connected`, which must be the first of `actions`, with the frame it answers.
pub(crate) fn welcome(actions: &[Action]) -> (u32, v1::Connected) {
    match actions.first() {
        Some(Action::Welcome(v1::ServerFrame { reply_to, frame: Some(Answer::Connected(connected)) })) => {
            (*reply_to, connected.clone())
        }
        other => panic!("not welcomed: {other:?}"),
    }
}

/// The answers among `actions`, with the frame they answer.
pub(crate) fn answers(actions: &[Action]) -> Vec<(u32, &Answer)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(frame) => Some((frame.reply_to, frame.frame.as_ref()?)),
            _ => None,
        })
        .collect()
}

/// The word of the only answer among `actions`, an error, with the frame it answers.
pub(crate) fn error(actions: &[Action]) -> (u32, String) {
    match errors(actions).pop() {
        Some(error) if answers(actions).len() == 1 => error,
        _ => panic!("not one error: {actions:?}"),
    }
}

/// The words of the errors among `actions`, with the frames they answer.
pub(crate) fn errors(actions: &[Action]) -> Vec<(u32, String)> {
    let error = |(id, answer): (u32, &Answer)| match answer {
        Answer::Error(error) => Some((id, error.reason.clone())),
        _ => None,
    };
    answers(actions).into_iter().filter_map(error).collect()
}

pub(crate) fn closes(actions: &[Action]) -> Option<CloseCode> {
    actions.iter().find_map(|action| match action {
        Action::Close(code) => Some(*code),
        _ => None,
    })
}

/// Whether `actions` end with the session's end.
pub(crate) fn expires(actions: &[Action]) -> bool {
    let count = actions.iter().filter(|action| matches!(action, Action::Expired)).count();
    assert!(count == 0 || (count == 1 && matches!(actions.last(), Some(Action::Expired))), "{actions:?}");
    count == 1
}
