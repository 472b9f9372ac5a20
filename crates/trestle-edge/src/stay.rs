//! A client's stay on this node: all that is held for it, with or without a socket.
//!
//! What always holds: one task owns a stay. It gives it up whole, to the task that has the client's next socket
//! ([`Wish::Yield`](crate::wish::Wish::Yield)); when it drops it, seats, groups, presence and requests go with it.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use trestle_cluster::FIRST_EPOCH;
use trestle_codec::{Encoding, Resume, encode};
use trestle_hub::{Facts, Member, Presence, Seat};
use trestle_session::{Action, Event, Finished, Outbox, OutboxLimits, Replay, ReplayLimits, Session, Taken};
use trestle_wire::{
    ChannelName, GroupName, Reason, Refusal, SessionId,
    v1::{self, server_frame},
};

use crate::{
    Edge,
    act::{Actor, Wanted},
    had::Had,
    lane::{Done, Lane},
    seats::{Joining, Listening},
    upgrade::Hello,
};

/// Longest reason of a kick, in bytes: a close frame has room for 123 (RFC 6455, 5.5).
const KICK_REASON_BYTES_MAX: usize = 100;
/// How long whoever changes a session is kept waiting for its record: as any write to the store.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);
/// Before the end of a session that could not be written is asked about again: as the registry tries it.
const END_PAUSE: Duration = Duration::from_secs(1);

/// Seats by name, of one client's choice; in the same order each time a seed is played.
pub(crate) type Seats<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

thread_local! {
    /// What a session wants done, of one event; empty between two. Each would keep room for four, of 400 bytes.
    static ACTIONS: Cell<Vec<Action>> = const { Cell::new(Vec::new()) };
}

/// All that is held for a client.
pub(crate) struct Stay {
    pub(crate) edge: Arc<Edge>,
    pub(crate) encoding: Encoding,
    pub(crate) session: Session,
    pub(crate) member: Arc<Member>,
    pub(crate) lane: Lane,
    pub(crate) seats: Seats<ChannelName, Box<Listening>>,
    /// Channels that are on their way to a seat.
    pub(crate) joining: Seats<ChannelName, Vec<Joining>>,
    pub(crate) groups: Seats<GroupName, Seat>,
    pub(crate) presence: Option<Presence>,
    pub(crate) replay: Replay,
    /// Which resume this is: what the next token must say.
    pub(crate) epoch: u64,
    /// The epoch of the token that the client came with.
    pub(crate) shown: u64,
    /// The epoch in which the count of its stream began.
    pub(crate) begun: u64,
    /// Frames whose answers another node is to send.
    pub(crate) late: Vec<u32>,
    /// Whether something that the client should get cannot be given to it any more: only the channels' logs can.
    pub(crate) broken: bool,
    /// Why an operator or a service has ended it.
    pub(crate) kicked: Option<String>,
    /// Ids of live messages, since [`Stay::remember`].
    pub(crate) remembered: Option<VecDeque<u64>>,
    /// What the node that had the session before has delivered live, while it may still come here.
    pub(crate) had: Option<Box<Had>>,
}

/// A client that wants to be let in.
pub(crate) struct Admit {
    /// Its `connect` frame; 0 if it sent none.
    pub(crate) id: u32,
    pub(crate) token: Option<String>,
    pub(crate) resume: Option<Box<Resume>>,
}

/// What an event asks of whoever has the socket.
#[derive(Default)]
pub(crate) struct Asked {
    /// Ask the gate.
    pub(crate) admit: Option<Admit>,
    /// To be written before all else, and not counted.
    pub(crate) welcome: Option<v1::ServerFrame>,
    pub(crate) ping: bool,
    pub(crate) close: Option<trestle_wire::CloseCode>,
}

impl Stay {
    /// The stay of a client whose socket was just opened.
    pub(crate) fn new(edge: &Arc<Edge>, encoding: Encoding, address: SocketAddr) -> Box<Self> {
        Self::of(edge, SessionId::new(&edge.node, fastrand::u128(..)), encoding, address)
    }

    /// The stay of a session that was elsewhere.
    pub(crate) fn of(edge: &Arc<Edge>, id: SessionId, encoding: Encoding, address: SocketAddr) -> Box<Self> {
        let config = &edge.session;
        let limits = OutboxLimits { bytes_max: config.outbox_bytes_max, frames_max: config.outbox_frames_max };
        let replay = ReplayLimits { bytes_max: config.replay_bytes_max, frames_max: config.replay_frames_max };
        let outbox = Outbox::with_spills(limits, Arc::clone(&edge.spills));
        let member = Member::new(id.clone(), encoding, outbox);
        *member.facts.lock() = Facts { address: Some(address), connected: SystemTime::now(), ..Facts::default() };
        let session = Session::new(
            id,
            edge.node.clone(),
            u32::try_from(edge.config.frame_bytes_max).unwrap_or(u32::MAX),
            Arc::clone(config),
            Arc::clone(&edge.rules),
            Arc::clone(&edge.channels),
            now(),
        );
        Box::new(Self {
            edge: Arc::clone(edge),
            encoding,
            session,
            member: Arc::new(member),
            lane: Lane::default(),
            seats: Seats::default(),
            joining: Seats::default(),
            groups: Seats::default(),
            presence: None,
            replay: Replay::new(replay),
            epoch: FIRST_EPOCH,
            shown: FIRST_EPOCH,
            begun: FIRST_EPOCH,
            late: Vec::new(),
            broken: false,
            kicked: None,
            remembered: None,
            had: None,
        })
    }
}

/// What happens to it.
impl Stay {
    /// Gives `event` to the session and does what it says, but for what needs the socket.
    pub(crate) fn on(&mut self, event: Event) -> Asked {
        self.decide(event, None)
    }

    /// What others want of the session; `done` is told when it is done.
    pub(crate) fn update(&mut self, change: v1::UpdateSessionsRequest, done: oneshot::Sender<()>) -> Asked {
        self.decide(Event::Update(change), Some(done))
    }

    /// Ends it for good; the client reads `reason` in the close frame, if there is one.
    pub(crate) fn kick(&mut self, mut reason: String) -> Asked {
        tracing::info!(session = %self.member.session, reason, "ended by an operator or a service");
        reason.truncate(reason.floor_char_boundary(KICK_REASON_BYTES_MAX));
        self.kicked = Some(reason).filter(|reason| !reason.is_empty());
        self.on(Event::Kick)
    }

    fn decide(&mut self, event: Event, mut done: Option<oneshot::Sender<()>>) -> Asked {
        let mut asked = Asked::default();
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        let mut changed = false;
        let mut actions = ACTIONS.take();
        self.session.on(event, now(), &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Welcome(frame) => asked.welcome = Some(frame),
                Action::Send(frame) => self.send(&frame),
                Action::Admit { id, token, resume } => asked.admit = Some(Admit { id, token, resume }),
                Action::Ping => asked.ping = true,
                Action::Close(code) => asked.close = Some(code),
                Action::Acked { received } => self.replay.acked(received),
                Action::JoinGroup(group) if self.groups.contains_key(&group) => {}
                Action::JoinGroup(group) => joins.push(group),
                Action::LeaveGroup(group) => leaves.push(group),
                Action::Tags(tags) => self.member.facts.lock().tags = tags,
                Action::NotUpdated(refusal) => {
                    tracing::info!(%refusal, session = %self.member.session, "groups and tags are not changed");
                    // What is dropped unsent was not done.
                    done = None;
                }
                Action::Changed => changed = true,
                Action::Expired => self.expire(),
                action => self.act(action),
            }
        }
        ACTIONS.set(actions);
        if let Some(asks) = done.take_if(|_| changed) {
            done = Some(self.confirm(asks));
        } else if changed {
            self.edge.registry.note(self.record());
        }
        if !joins.is_empty() || !leaves.is_empty() {
            self.lane.in_order(self.actor().regroup(joins, leaves, false, done), 0);
        } else if let Some(done) = done {
            // Whoever asked may have gone.
            let _told = done.send(());
        }
        asked
    }

    fn act(&mut self, action: Action) {
        let actor = self.actor();
        match action {
            Action::Subscribe { id, channel, since, presence, inbox } => {
                let begun = self.joins(id, &channel, since, presence);
                let wanted = Wanted { channel, since, presence, inbox, answered: id != 0, begun };
                self.lane.in_order(actor.subscribe(id, wanted), 0);
            }
            Action::Unsubscribe { id, channel } => {
                let left = Event::Unsubscribed { id, channel: channel.clone() };
                self.lane.in_order(Box::pin(async { Done::Unseat(channel, left) }), 0);
            }
            Action::Publish { id, channel, history, message } => {
                let bytes = message.envelope.payload.len();
                self.lane.in_order(actor.publish(id, channel, history, message), bytes);
            }
            Action::Deliver { id, message, handled } => {
                let bytes = message.envelope.payload.len();
                self.lane.in_order(actor.deliver(id, handled, message), bytes);
            }
            Action::Request { id, message, timeout } => {
                self.lane.beside(actor.request(id, timeout, message));
            }
            Action::History { id, channel, page, limit } => {
                self.lane.in_order(actor.history(id, channel, page, limit), 0);
            }
            Action::Presence { id, channel } => {
                self.lane.in_order(actor.presence(id, channel), 0);
            }
            Action::AckInbox { id, offset } => {
                self.lane.in_order(actor.ack_inbox(id, offset), 0);
            }
            // Done by whoever reads them.
            _ => {}
        }
    }

    /// Takes what the lane has done.
    pub(crate) fn done(&mut self, done: Done) -> Asked {
        let event = match done {
            Done::Tell(event) => {
                self.settle_joining(&event);
                event
            }
            Done::Seated(channel, listening, event) => {
                self.settle_joining(&event);
                self.seat(channel, listening);
                event
            }
            Done::Resumed(channel, listening) => {
                self.joined(0, &channel);
                let result = listening.map(|listening| self.seat(channel.clone(), listening));
                Event::Subscribed { id: 0, channel, result }
            }
            Done::Unseat(channel, event) => {
                self.unseat(&channel);
                event
            }
            Done::Groups(regrouped) => {
                self.regrouped(regrouped);
                return Asked::default();
            }
            Done::Present(present, again) => {
                self.seen(present, again);
                return Asked::default();
            }
            Done::Beside(doing) => {
                self.lane.beside(doing);
                return Asked::default();
            }
        };
        self.on(event)
    }

    /// What the lane of a stay that was given away has come to, as frames.
    pub(crate) fn late(&mut self, done: Done) -> Vec<v1::ServerFrame> {
        let event = match done {
            Done::Tell(event) | Done::Unseat(_, event) => event,
            // It was begun for this node, and the client is elsewhere.
            Done::Seated(channel, _, Event::Subscribed { id, .. }) if self.joined(id, &channel) => {
                let lost = Refusal::new(Reason::AnswerLost, "the session has moved to another node; subscribe again");
                Event::Subscribed { id, channel, result: Err(lost) }
            }
            Done::Beside(doing) => {
                self.lane.beside(doing);
                return Vec::new();
            }
            // The answer went along, and so did the channel.
            Done::Seated(_, _, event) => event,
            Done::Resumed(..) | Done::Groups(_) | Done::Present(..) => return Vec::new(),
        };
        let mut actions = Vec::new();
        self.session.on(event, now(), &mut actions);
        let frames = actions.into_iter().filter_map(|action| match action {
            Action::Send(frame) => Some(frame),
            _ => None,
        });
        frames.collect()
    }
}

/// What is known of it.
impl Stay {
    /// Does what an identity is needed for before the session has it.
    pub(crate) fn actor(&self) -> Actor {
        Actor {
            edge: Arc::clone(&self.edge),
            member: Arc::clone(&self.member),
            user: self.session.identity().user.clone(),
        }
    }

    /// The client is at another address now.
    pub(crate) fn moved(&mut self, hello: &Hello) {
        self.member.facts.lock().address = Some(hello.address);
        self.remembered = None;
    }

    /// Takes answers that come from where the session was. One that was given up as lost is not given again.
    pub(crate) fn heard_late(&mut self, frames: Vec<v1::ServerFrame>) {
        for v1::ServerFrame { reply_to: id, frame } in frames {
            let Some(answer) = frame.filter(|_| id == 0 || self.session.is_open(id)) else { continue };
            self.late.retain(|late| *late != id);
            _ = self.on(Event::Settled { id, outstanding: false, result: Ok(answer) });
        }
    }

    /// The node that was to send them sends no more: their answers are lost.
    pub(crate) fn give_up_late(&mut self) {
        for id in std::mem::take(&mut self.late) {
            if self.session.is_open(id) {
                let message = "the node that had the answer is gone; repeat this frame with the same envelope id";
                let result = Err(Refusal::new(Reason::AnswerLost, message));
                _ = self.on(Event::Settled { id, outstanding: false, result });
            }
        }
    }

    /// The epoch of the connection on which the client was heard last, or whose token it came with.
    pub(crate) fn heard(&self) -> u64 {
        if self.session.is_unheard() { self.shown } else { self.epoch }
    }

    /// Puts a frame of the gateway's own into the outbox.
    pub(crate) fn send(&self, frame: &v1::ServerFrame) {
        if let Some(server_frame::Frame::Error(error)) = &frame.frame {
            self.edge.metrics.refused(&error.reason);
        }
        // A full outbox has closed itself, and wakes this task.
        let _closed = self.member.outbox.push(encode(self.encoding, frame, &self.edge.schemas.current()).into());
    }

    /// Tells of a loss whose size is not known.
    pub(crate) fn tell_gap(&self, channel: &str, reason: v1::GapReason) {
        let gap = v1::Gap { channel: channel.into(), reason: reason.into(), ..v1::Gap::default() };
        self.send(&v1::ServerFrame { reply_to: 0, frame: Some(server_frame::Frame::Gap(gap)) });
    }

    /// What was taken from the outbox, as a frame to be written.
    pub(crate) fn finished(&mut self, taken: Taken) -> Finished {
        match taken {
            Taken::Frame(frame) => {
                if !self.joining.is_empty() {
                    self.joined_up_to(frame.label());
                }
                self.remember_one(frame.label());
                frame
            }
            Taken::Gap(gap) => {
                self.edge.metrics.dropped(&gap);
                let frame = v1::ServerFrame { reply_to: 0, frame: Some(server_frame::Frame::Gap(*gap)) };
                encode(self.encoding, &frame, &self.edge.schemas.current()).into()
            }
        }
    }

    /// Writes what the session is now where its next node reads it, and tells `asks` when that is done and what is told to the
    /// result is, too; never, if it is not known to be written.
    fn confirm(&self, asks: oneshot::Sender<()>) -> oneshot::Sender<()> {
        let (done, in_force) = oneshot::channel();
        let (written, session) = (self.edge.registry.note_now(self.record()), self.member.session.clone());
        self.edge.background.spawn(async move {
            let both = async { (written.await, in_force.await) };
            match timeout(RECORD_TIMEOUT, both).await {
                // Whoever asked may have gone.
                Ok((Ok(true), Ok(()))) => _ = asks.send(()),
                missed => tracing::info!(?missed, %session, "that groups and tags are changed is not written yet"),
            }
        });
        done
    }

    /// What is known of the session now, by whoever looks here and for the registry.
    fn record(&self) -> v1::SessionRecord {
        let mut facts = self.member.facts.lock();
        facts.state = self.session.state();
        facts.user.clone_from(&self.session.identity().user);
        let watched = self.seats.iter().filter(|(_, listening)| listening.watch.is_some());
        v1::SessionRecord {
            session_id: self.member.session.to_string(),
            epoch: self.epoch,
            state: v1::SessionState::from(self.session.state()).into(),
            user: self.session.identity().user.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: self.edge.node.to_string(),
            address: facts.address.map(|address| address.to_string()).unwrap_or_default(),
            connected: Some(facts.connected.into()),
            written: None,
            subscriptions: self.seats.keys().map(ToString::to_string).collect(),
            groups: self.session.service_groups().map(ToString::to_string).collect(),
            tags: self.session.service_tags().clone().into_iter().collect(),
            watched: watched.map(|(channel, _)| channel.to_string()).collect(),
            heard: self.heard(),
        }
    }

    /// Ends it for the cluster, and tells that only when it is known that it has not gone on elsewhere.
    fn expire(&mut self) {
        let over = self.edge.event(self, v1::SessionChange::SessionExpired);
        let (edge, session) = (Arc::clone(&self.edge), self.member.session.clone());
        self.edge.background.spawn(async move {
            loop {
                match edge.registry.end(&session).await {
                    Ok(true) => return edge.say(over),
                    Ok(false) => {
                        return tracing::debug!(%session, "a session that has ended here has gone on elsewhere");
                    }
                    // The registry goes on trying by itself.
                    Err(error) => tracing::debug!(%error, %session, "that a session is over is not written yet"),
                }
                sleep(END_PAUSE).await;
            }
        });
    }
}

/// The time by the runtime's clock, which a simulation can hold still.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
