//! Decide: what comes of a client -> actions. What an action gives back is used again, so that nothing else is counted.

use std::{sync::Arc, time::Instant};

use trestle_auth::Identity;
use trestle_codec::{Encoding, Frame, Inbound, Since};
use trestle_session::{Action, Admitted, Event, Rules, Session, SessionConfig};
use trestle_wire::{ChannelName, NodeId, SessionId};

use crate::sample;

/// A session, and what it wants done.
struct Talk {
    session: Session,
    now: Instant,
    actions: Vec<Action>,
}

impl Talk {
    /// With an anonymous client that was admitted.
    fn admitted() -> Self {
        let config = SessionConfig::default();
        let rules = Arc::new(Rules::parse(&config).expect("there are none"));
        let (node, now) = (NodeId::parse("n").expect("a name"), Instant::now());
        let id = SessionId::new(&node, 1);
        let session = Session::new(id, node, 65_536, Arc::new(config), rules, Arc::new(sample::channels()), now);
        let mut talk = Self { session, now, actions: Vec::new() };
        talk.frame(Frame::Connect { token: None, resume: None });
        let (identity, resume_token) = (Identity::default(), "token".to_owned());
        talk.on(Event::Admitted(Ok(Admitted::New { identity, resume_token })));
        talk
    }

    fn on(&mut self, event: Event) {
        self.actions.clear();
        self.session.on(event, self.now, &mut self.actions);
    }

    fn frame(&mut self, frame: Frame) {
        self.on(Event::Inbound(Inbound { id: 7, frame }));
    }
}

/// A publish -> what to do about it.
pub(crate) fn publish(times: u64) -> anyhow::Result<()> {
    let catalogue = sample::schemas().current();
    let message = sample::publish(Encoding::Json, &catalogue);
    let mut frame = sample::published(Encoding::Json, &message, &catalogue).frame;
    let mut talk = Talk::admitted();
    for _ in 0..times {
        talk.frame(frame);
        frame = match talk.actions.pop() {
            Some(Action::Publish { channel, message, .. }) => Frame::Publish { channel, message },
            other => unreachable!("the publish is permitted: {other:?}"),
        };
    }
    Ok(())
}

/// A subscribe and its answer, an unsubscribe and its answer.
pub(crate) fn subscribe(times: u64) -> anyhow::Result<()> {
    let mut talk = Talk::admitted();
    let mut channel = ChannelName::parse(sample::CHANNEL).expect("a channel");
    for _ in 0..times {
        talk.frame(Frame::Subscribe { channel, since: Since::Now, presence: false });
        let Some(Action::Subscribe { id, channel: wanted, .. }) = talk.actions.pop() else {
            unreachable!("the channel is open to all");
        };
        talk.on(Event::Subscribed { id, channel: wanted.clone(), result: Ok(()) });
        talk.frame(Frame::Unsubscribe { channel: wanted });
        let Some(Action::Unsubscribe { id, channel: left }) = talk.actions.pop() else {
            unreachable!("it is listened to");
        };
        channel = left.clone();
        talk.on(Event::Unsubscribed { id, channel: left });
    }
    Ok(())
}
