//! Admit: a token, and perhaps a session to go on with, in; whose stay it is out.
//!
//! A resume token is spent first (`spend`), so that of all who show it one wins. Then what the session had is got from
//! wherever it is: the task that has it here, the node that holds it, or the Kv where a stopping node left it.
//! What always holds: the client's stream goes on by its count, or every channel is recovered or told of, by itself.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use trestle_auth::Identity;
use trestle_bus::BusError;
use trestle_cluster::{Claimed, FIRST_EPOCH, GRACE};
use trestle_codec::{Encoded, Resume, Since};
use trestle_hub::planted::{Fault, is_planted};
use trestle_session::{Admitted, Event, Finished, Reattached, Resumed};
use trestle_wire::{
    ChannelName, GroupName, NodeId, Refusal, Tags,
    name::INBOX,
    v1::{self, GapReason, claim_answer::Answer},
};

use crate::{
    Edge,
    act::{Actor, Again},
    handover,
    neighbours::yielded,
    spend::{Spent, spend},
    stay::{Admit, Stay},
    upgrade::Hello,
    wish::Wish,
};

/// How long a session may take to be had from elsewhere: two claims, the rooms of a session and of a user at 4 s each, and
/// the store's 3 s. Each channel may wait 4 s more for a bus that hangs, and nobody waits for all of them.
const GO_ON_TIMEOUT: Duration = Duration::from_secs(15);

/// Whose stay it is, and what is to be done with it.
pub(crate) struct Arrival {
    /// The stay of the session that goes on; `None`: the one that the socket began with.
    pub(crate) stay: Option<Box<Stay>>,
    /// What its session is told.
    pub(crate) event: Event,
    /// Frames that were written before and are written again: they are counted already.
    pub(crate) again: Vec<Finished>,
    /// Frames that come from elsewhere, to be written and counted before what waits here.
    pub(crate) before: Vec<Finished>,
    /// Hashes of live messages that are among `before` or came before them, and are not to be written twice.
    pub(crate) had: HashSet<u64>,
    /// Channels to listen to again.
    pub(crate) channels: Vec<Again>,
}

impl Arrival {
    fn of(stay: Option<Box<Stay>>, event: Event) -> Self {
        Self { stay, event, again: Vec::new(), before: Vec::new(), had: HashSet::new(), channels: Vec::new() }
    }
}

/// Asks the gate, and goes on with the session that `resume` names if that is possible; else begins `stay`'s own.
///
/// # Errors
/// Why the client is not admitted.
pub(crate) async fn admit(stay: &mut Stay, hello: &mut Hello, admit: Admit) -> Result<Arrival, Refusal> {
    let Admit { id, token, resume } = admit;
    let edge = Arc::clone(&stay.edge);
    let token = token.or_else(|| hello.token.take());
    if let Some(resume) = resume
        && let Some(arrival) = go_on(&edge, hello, token.as_deref(), id, *resume).await?
    {
        return Ok(arrival);
    }
    let identity = edge.gate.admit(token.as_deref())?;
    let user = identity.user.clone();
    stay.presence = Some(edge.hub.arrive(&stay.member, user.as_ref()).await?);
    stay.join_now(&identity.groups).await;
    let resume_token = edge.token(stay, &identity, FIRST_EPOCH);
    Ok(Arrival::of(None, Event::Admitted(Ok(Admitted::New { identity, resume_token }))))
}

/// Goes on with a session; `None` if it cannot be.
async fn go_on(
    edge: &Arc<Edge>,
    hello: &Hello,
    token: Option<&str>,
    id: u32,
    resume: Resume,
) -> Result<Option<Arrival>, Refusal> {
    let Some(Spent { identity, claimed, epoch, begun }) = spend(edge, hello, token, &resume).await? else {
        edge.metrics.resumed("refused");
        return Ok(None);
    };
    let (session, now) = (resume.session.clone(), claimed.epoch);
    let comes = edge.coming.begin(&session, now).filter(|_| edge.registry.holds(&session, now));
    let Some(comes) = comes else { return Ok(None) };
    let visit = Visit { edge, hello, id, resume: own_inbox(resume, &identity), identity, claimed, epoch, begun };
    let arrival = comes.run(async {
        let left = match visit.here().await {
            Ok(arrival) => return Ok(arrival),
            Err(left) => left,
        };
        let arrival = timeout(GO_ON_TIMEOUT, visit.elsewhere(left)).await;
        arrival.unwrap_or_else(|_| Err(BusError::Timeout(GO_ON_TIMEOUT).into()))
    });
    // Its client has come again since, with the same token.
    let Some(arrival) = arrival.await.filter(|_| edge.registry.holds(&session, now)) else { return Ok(None) };
    if arrival.is_err() {
        // It was taken for this client, who has nothing to come back with. That is written when the bus is there.
        let edge = Arc::clone(edge);
        edge.background.clone().spawn(async move {
            let over = edge.registry.end(&session).await;
            tracing::debug!(%session, ?over, "a session could not go on");
        });
    }
    arrival.map(Some)
}

/// The bare `inbox` is the user's own, as everywhere.
fn own_inbox(mut resume: Resume, identity: &Identity) -> Resume {
    let Some(user) = &identity.user else { return resume };
    for (channel, _) in &mut resume.channels {
        if channel.as_str() == INBOX {
            *channel = ChannelName::inbox(user);
        }
    }
    resume
}

/// A client that may go on with a session.
struct Visit<'a> {
    edge: &'a Arc<Edge>,
    hello: &'a Hello,
    /// The client's frame.
    id: u32,
    resume: Resume,
    identity: Identity,
    claimed: Claimed,
    /// The epoch of its token.
    epoch: u64,
    /// The epoch in which the stream began that it counts.
    begun: u64,
}

/// What is left of a session whose stream cannot go on here.
#[derive(Default)]
struct Left {
    /// What held it here, so that no other node does.
    held: Option<Box<Stay>>,
    groups: Vec<String>,
    tags: Tags,
    /// Ids of frames whose answers are on their way.
    outstanding: Vec<u32>,
}

impl Visit<'_> {
    /// The session is held by a task of this node, and its stream goes on.
    async fn here(&self) -> Result<Arrival, Left> {
        let Some(member) = self.edge.hub.member(&self.resume.session) else { return Err(Left::default()) };
        let Some(mut stay) = yielded(&member, self.claimed.epoch).await else {
            // A task that does not answer ends without a word when it looks.
            let _sent = Wish::Gone.send(&member);
            return Err(Left::default());
        };
        if stay.epoch < self.epoch {
            // Of an earlier time: the client has been elsewhere since, while this node was cut off, and counts anew.
            return Err(Left::default());
        }
        let same = !stay.broken && stay.encoding == self.hello.encoding && stay.begun == self.begun;
        let missed = self.resume.received.filter(|_| same);
        let missed =
            missed.and_then(|received| Some((received, stay.replay.since(received)?.cloned().collect::<Vec<_>>())));
        let Some((received, again)) = missed else { return Err(Left { held: Some(stay), ..Left::default() }) };
        let again = again.into_iter().skip(usize::from(is_planted(Fault::ShortReplay))).collect();
        stay.replay.acked(received);
        (stay.epoch, stay.shown) = (self.claimed.epoch, self.epoch);
        stay.moved(self.hello);
        let refused = stay.leave_forbidden(&self.identity);
        let subscriptions = stay.subscriptions();
        let lost = self.resume.outstanding.iter().copied().filter(|id| !stay.session.saw(*id)).collect();
        let reattached = Reattached {
            id: self.id,
            identity: self.identity.clone(),
            resume_token: self.edge.token(&stay, &self.identity, self.claimed.epoch),
            received,
            subscriptions,
            refused,
            lost,
        };
        let event = Event::Reattached(Box::new(reattached));
        self.edge.metrics.resumed("here");
        Ok(Arrival { again, ..Arrival::of(Some(stay), event) })
    }

    /// The session is held by another node, was left in the Kv, or is gone with its node.
    async fn elsewhere(self, mut left: Left) -> Result<Arrival, Refusal> {
        let session = self.resume.session.clone();
        let edge = Arc::clone(self.edge);
        let mut stay = Stay::of(&edge, session.clone(), self.hello.encoding, self.hello.address);
        (stay.epoch, stay.shown, stay.begun) = (self.claimed.epoch, self.epoch, self.claimed.epoch);
        stay.member.facts.lock().connected = self.claimed.connected;
        let here = left.held.is_some();
        let holder = if here { None } else { self.holder() };
        // Listen first, then take over what the other node has heard: what both hear is known by its id.
        let prepared = match &holder {
            Some(node) => matches!(self.ask(node, true).await, Some(Answer::Prepared(true))),
            None => false,
        };
        stay.presence = Some(edge.hub.arrive(&stay.member, self.identity.user.as_ref()).await?);
        if let Some(held) = left.held.take() {
            // Only now: answers that are still to come find the session where it is.
            let claim = v1::Claim { received: None, ..self.claim(false) };
            left = Left::of(handover::to_node(held, &claim).await);
        }
        let mut refused = Vec::new();
        self.listen_live(&mut stay, &mut refused).await;
        let handover = match &holder {
            Some(node) if prepared => match self.ask(node, false).await {
                Some(Answer::Handover(handover)) => Some(handover),
                _ => None,
            },
            _ => None,
        };
        // Of an earlier time: the client has been elsewhere since.
        let current = |handover: &v1::Handover| handover.epoch >= self.epoch;
        let handover = handover.filter(current);
        // What a node has left where it stopped goes no further than it listened.
        let handed_over = handover.is_some();
        let handover = match handover {
            Some(handover) => Some(handover),
            None if here => None,
            None => edge.registry.unpark(&session).await.map_err(Refusal::from)?.filter(current),
        };
        let same = |handover: &&v1::Handover| {
            handover.subprotocol == self.hello.encoding.subprotocol() && handover.begun == self.begun
        };
        let skip = handover.as_ref().filter(same).zip(self.resume.received);
        let skip = skip.and_then(|(handover, received)| handover::from(handover, received));
        match (handover, skip) {
            (Some(handover), Some(skip)) => Ok(self.goes_on(stay, handover, skip, handed_over, refused)),
            (handover, _) => {
                let held = here || handover.is_some();
                let absent = if held { self.absent_max() } else { self.absent() };
                if let Some(handover) = handover {
                    left = Left::of(handover);
                } else if !here {
                    left.read(&self.claimed);
                }
                Ok(self.recovers(stay, left, refused, absent))
            }
        }
    }

    /// The stream goes on by the client's count.
    fn goes_on(
        self,
        mut stay: Box<Stay>,
        handover: v1::Handover,
        skip: usize,
        handed_over: bool,
        mut refused: Vec<(ChannelName, Refusal)>,
    ) -> Arrival {
        let received = handover.first + skip as u64;
        stay.replay.restart(received);
        stay.begun = handover.begun;
        let mut subscriptions = Vec::new();
        let mut channels = Vec::new();
        for position in &handover.positions {
            let Ok(channel) = ChannelName::parse(&position.channel) else { continue };
            if refused.iter().any(|(name, _)| *name == channel) {
                continue;
            }
            // Also those that the client did not name.
            if let Some(refusal) = self.edge.forbids(&self.identity, &channel) {
                refused.push((channel, refusal));
                continue;
            }
            let history = self.edge.keeps(&channel);
            let live = stay.seats.contains_key(&channel);
            let presence = handover.watched.contains(&position.channel);
            stay.watch(&channel, presence);
            let recovered = history || (live && handed_over);
            let subscribed = v1::Subscribed { channel: channel.to_string(), recovered, offset: position.offset };
            subscriptions.push((channel.clone(), subscribed));
            if history || !live {
                let (since, absent) = (Since::Offset(position.offset), self.absent_max());
                channels.push(Again { channel, since, presence, told: false, absent });
            }
            if live && !recovered {
                stay.tell_gap(&position.channel, GapReason::Failover);
            }
        }
        // The client names what it has not heard the end of.
        stay.leave_all_but(&subscriptions);
        // Without the other node's help, what was pushed between the two is lost.
        if !handed_over {
            stay.tell_gap("", GapReason::Failover);
        }
        let before = handover.frames.iter().skip(skip).map(|frame| Encoded::from_payload(stay.encoding, frame).into());
        let (before, had) = (before.collect(), handover.live_ids.into_iter().collect());
        let (outstanding, settled): (Vec<_>, Vec<_>) =
            self.resume.outstanding.iter().partition(|id| handover.outstanding.contains(id));
        let (answered, lost) = settled.into_iter().partition(|id| handover.answered.contains(id));
        stay.waits_for(self.holder().unwrap_or_else(|| self.edge.node.clone()), &outstanding);
        let resume_token = self.edge.token(&stay, &self.identity, self.claimed.epoch);
        let resumed = Resumed {
            session: self.resume.session,
            identity: self.identity,
            resume_token,
            received,
            subscriptions,
            joining: channels.iter().map(|again| again.channel.clone()).collect(),
            groups: groups(&handover.groups),
            tags: handover.tags.into_iter().collect(),
            refused,
            lost,
            outstanding,
            answered,
        };
        self.edge.metrics.resumed(if handed_over { "handed_over" } else { "parked" });
        let event = Event::Admitted(Ok(Admitted::Resumed(Box::new(resumed))));
        Arrival { before, had, channels, ..Arrival::of(Some(stay), event) }
    }

    /// Each channel is recovered by itself, and what has no offset is told of.
    fn recovers(
        self,
        mut stay: Box<Stay>,
        left: Left,
        mut refused: Vec<(ChannelName, Refusal)>,
        absent: Duration,
    ) -> Arrival {
        stay.replay.restart(0);
        // Those that were joined to take over live messages are joined anew, and told of.
        stay.leave_channels();
        // What came meanwhile is missing as well: heard before the gap, it would stand where nothing seems to be missing.
        stay.member.outbox.take(usize::MAX, &mut Vec::new());
        stay.tell_gap("", GapReason::Failover);
        let mut channels = Vec::new();
        let mut known = Vec::new();
        for (channel, offset) in &self.resume.channels {
            if let Some(refusal) = self.edge.forbids(&self.identity, channel) {
                if !refused.iter().any(|(name, _)| name == channel) {
                    refused.push((channel.clone(), refusal));
                }
                continue;
            }
            // One that could not be listened to is tried again, and answered by that.
            refused.retain(|(name, _)| name != channel);
            let (since, presence) = (Since::Offset(*offset), self.watched(channel));
            channels.push(Again { channel: channel.clone(), since, presence, told: true, absent });
            known.push(channel.clone());
        }
        let lost = self.resume.outstanding.iter().copied().filter(|id| !left.outstanding.contains(id)).collect();
        stay.waits_for(self.holder().unwrap_or_else(|| self.edge.node.clone()), &left.outstanding);
        let resume_token = self.edge.token(&stay, &self.identity, self.claimed.epoch);
        let resumed = Resumed {
            session: self.resume.session,
            identity: self.identity,
            resume_token,
            received: 0,
            subscriptions: Vec::new(),
            joining: known,
            groups: groups(&left.groups),
            tags: left.tags,
            refused,
            lost,
            outstanding: left.outstanding,
            answered: Vec::new(),
        };
        self.edge.metrics.resumed("recovered");
        let event = Event::Admitted(Ok(Admitted::Resumed(Box::new(resumed))));
        Arrival { channels, ..Arrival::of(Some(stay), event) }
    }

    /// Listens to everything of the client that keeps no history, as the record says: what services gave it is there before they
    /// are told so. What else changed in the last second may not be: then the client is told of a gap, or asks anew.
    async fn listen_live(&self, stay: &mut Stay, refused: &mut Vec<(ChannelName, Refusal)>) {
        let given = self.claimed.previous.as_ref().map(|record| groups(&record.groups)).unwrap_or_default();
        stay.join_now(self.identity.groups.iter().chain(&given)).await;
        let actor = Actor { user: self.identity.user.clone(), ..stay.actor() };
        for (channel, _) in &self.resume.channels {
            if let Some(refusal) = self.edge.forbids(&self.identity, channel) {
                refused.push((channel.clone(), refusal));
            } else if !self.edge.keeps(channel) {
                match actor.listen_now(channel, self.watched(channel)).await {
                    Ok(listening) => stay.seat(channel.clone(), listening),
                    Err(refusal) => refused.push((channel.clone(), refusal.field(channel.as_str()))),
                }
            }
        }
    }

    /// How long a client may have heard nothing while a node held its session.
    fn absent_max(&self) -> Duration {
        self.edge.session.resume_window + self.noticed_after()
    }

    /// How long ago at most the client heard something, where nobody holds its session any more: a node that died has kept
    /// up the record until then, also for a connection whose loss was not noticed yet, or a session that waited.
    fn absent(&self) -> Duration {
        let record = self.claimed.previous.as_ref();
        let written = record.and_then(|record| SystemTime::try_from(record.written?).ok());
        let since = written.map_or(GRACE, |written| written.elapsed().unwrap_or_default());
        let waited = record.is_some_and(|record| record.state() == v1::SessionState::Pending);
        since + if waited { self.absent_max() } else { self.noticed_after() }
    }

    fn noticed_after(&self) -> Duration {
        self.edge.session.ping_interval + self.edge.session.pong_timeout
    }

    /// Whether the client wants to know who comes to `channel` and leaves it. One that asked for it in the last second before its
    /// node died is not told of it, until it subscribes again.
    fn watched(&self, channel: &ChannelName) -> bool {
        let record = self.claimed.previous.as_ref();
        record.is_some_and(|record| record.watched.iter().any(|name| name == channel.as_str()))
    }

    /// The node that may hold the session, if it is another one.
    fn holder(&self) -> Option<NodeId> {
        let named = self.claimed.previous.as_ref().and_then(|record| NodeId::parse(&record.node).ok());
        let node = named.unwrap_or_else(|| self.resume.session.node());
        (node != self.edge.node).then_some(node)
    }

    fn claim(&self, prepare: bool) -> v1::Claim {
        v1::Claim {
            session_id: self.resume.session.to_string(),
            node: self.edge.node.to_string(),
            received: self.resume.received,
            subprotocol: self.hello.encoding.subprotocol().into(),
            outstanding: self.resume.outstanding.clone(),
            prepare,
            epoch: self.begun,
            ask_heard: false,
            claimed: self.claimed.epoch,
        }
    }

    /// What `node` says to a claim; `None` if it is gone.
    async fn ask(&self, node: &NodeId, prepare: bool) -> Option<Answer> {
        self.edge.ask_holder(node, &self.claim(prepare)).await
    }
}

impl Left {
    fn of(handover: v1::Handover) -> Self {
        // Frames that were not gone on with take the answers among them along.
        let v1::Handover { groups, tags, outstanding, .. } = handover;
        Self { held: None, groups, tags: tags.into_iter().collect(), outstanding }
    }

    /// What the record says, where nobody knows better.
    fn read(&mut self, claimed: &Claimed) {
        if let Some(record) = &claimed.previous {
            self.groups.clone_from(&record.groups);
            self.tags = record.tags.clone().into_iter().collect();
        }
    }
}

fn groups(names: &[String]) -> Vec<GroupName> {
    names.iter().filter_map(|name| GroupName::parse(name).ok()).collect()
}
