//! What a stay sits in: channels, groups, and what others see of it there.
//!
//! What always holds: a channel or a group is sat in once; whoever has no connection is not seen by others.

use std::{
    collections::hash_map::Entry,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{sleep, timeout},
};
use trestle_auth::Identity;
use trestle_cluster::{NodeChange, Seat as PresenceSeat};
use trestle_codec::Since;
use trestle_hub::Seat;
use trestle_session::{Event, Label, State};
use trestle_wire::{ChannelName, GroupName, NodeId, Refusal, v1};

use crate::{
    act::Again,
    handover::LATE_MAX,
    lane::Regrouped,
    stay::{Seats, Stay},
    wish::Wish,
};

/// Before a group that could not be joined is tried again: as a room's log.
const JOIN_PAUSE: Duration = Duration::from_secs(3);
/// Before a session that others cannot see is shown to them again; each time twice as long, up to the most.
const REAPPEAR_PAUSE: Duration = Duration::from_secs(1);
const REAPPEAR_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How much longer than it is sent on a late answer is waited for: the bus's own way.
const LATE_SLACK: Duration = Duration::from_secs(5);

/// A channel that is listened to.
pub(crate) struct Listening {
    pub(crate) seat: Seat,
    /// Whether others see the session there, where the namespace has presence.
    pub(crate) present: Option<PresenceSeat>,
    /// Whether the client wants to know who comes and goes.
    pub(crate) watch: Option<Seat>,
}

/// A channel on its way to a seat: what was missed goes into the outbox meanwhile.
pub(crate) struct Joining {
    /// The client's frame; 0 after a resume.
    id: u32,
    /// Set when the client's answer waits in the outbox, or when none is owed.
    begun: Arc<AtomicBool>,
    /// How far what was missed has gone out, or where it begins; `None` if that is not known yet.
    at: Option<u64>,
    presence: bool,
}

/// Channels on their way.
impl Stay {
    /// The client wants to listen to `channel`; what is given back is to be set when it is answered.
    pub(crate) fn joins(&mut self, id: u32, channel: &ChannelName, since: Since, presence: bool) -> Arc<AtomicBool> {
        let begun = Arc::new(AtomicBool::new(false));
        let at = if let Since::Offset(offset) = since { Some(offset) } else { None };
        let joining = Joining { id, begun: Arc::clone(&begun), at, presence };
        self.joining.entry(channel.clone()).or_default().push(joining);
        begun
    }

    /// One has come to its end; whether it was still on its way here.
    pub(crate) fn joined(&mut self, id: u32, channel: &ChannelName) -> bool {
        let Some(waiting) = self.joining.get_mut(channel) else { return false };
        let Some(at) = waiting.iter().position(|joining| joining.id == id) else { return false };
        waiting.remove(at);
        if waiting.is_empty() {
            self.joining.remove(channel);
            if self.joining.is_empty() {
                self.joining = Seats::default();
            }
        }
        true
    }

    /// Whether the client's frame is answered by what went out or waits in the outbox; its channel may still be on its way.
    pub(crate) fn has_answered(&self, id: u32) -> bool {
        let begun = |joining: &Joining| joining.id == id && joining.begun.load(Ordering::Relaxed);
        self.session.saw(id) && (!self.session.is_open(id) || self.joining.values().flatten().any(begun))
    }

    /// As [`Stay::joined`], if that is what `event` says.
    pub(crate) fn settle_joining(&mut self, event: &Event) {
        if let Event::Subscribed { id, channel, .. } = event {
            self.joined(*id, channel);
        }
    }

    /// The session listens to a channel again, after a resume.
    pub(crate) fn join_again(&mut self, again: Again) {
        let begun = self.joins(0, &again.channel, again.since, again.presence);
        begun.store(true, Ordering::Relaxed);
        self.lane.in_order(self.actor().resubscribe(again), 0);
    }

    /// A message goes out.
    pub(crate) fn joined_up_to(&mut self, label: Option<&Label>) {
        let Some(label) = label.filter(|label| label.offset != 0) else { return };
        let Some(channel) = &label.channel else { return };
        // They are joined one after the other.
        if let Some(joining) = self.joining.get_mut(channel).and_then(|waiting| waiting.first_mut()) {
            joining.at = Some(label.offset);
        }
    }

    /// Tells of what was said while nobody listened, where no log has it: whoever gets the stay listens, and does not know.
    pub(crate) fn tell_half_joined(&self) {
        for (channel, waiting) in &self.joining {
            if waiting.iter().any(|joining| joining.id == 0) && !self.edge.keeps(channel) {
                self.tell_gap(channel.as_str(), v1::GapReason::Failover);
            }
        }
    }

    /// Gives up those that are on their way and of which the client knows, when the stay is given away: how far they have
    /// come. The others are kept, to be refused.
    pub(crate) fn half_joined(&mut self) -> Vec<(ChannelName, Option<u64>, bool)> {
        let mut half = Vec::new();
        for (channel, waiting) in &mut self.joining {
            let begun = waiting.extract_if(.., |joining| joining.begun.load(Ordering::Relaxed)).last();
            half.extend(begun.map(|joining| (channel.clone(), joining.at, joining.presence)));
        }
        half
    }
}

/// Channels.
impl Stay {
    /// Keeps a seat. One that is there already stays: the room has the member by that one, and would lose it with it.
    pub(crate) fn seat(&mut self, channel: ChannelName, mut listening: Listening) {
        if self.session.state() == State::Pending {
            // Who is not there is not seen; a resume changes that.
            listening.present = None;
        }
        if let Entry::Vacant(free) = self.seats.entry(channel) {
            self.member.facts.lock().subscriptions.push(free.key().clone());
            free.insert(Box::new(listening));
        }
    }

    /// What the session listens to, all of it with nothing missing.
    pub(crate) fn subscriptions(&self) -> Vec<v1::Subscribed> {
        let heard = self.seats.iter().map(|(channel, listening)| v1::Subscribed {
            channel: channel.to_string(),
            recovered: true,
            offset: listening.seat.offset(),
        });
        heard.collect()
    }

    /// Leaves all channels.
    pub(crate) fn leave_channels(&mut self) {
        self.seats.clear();
        self.member.facts.lock().subscriptions.clear();
    }

    /// Leaves the channels that are not among `subscriptions`.
    pub(crate) fn leave_all_but(&mut self, subscriptions: &[(ChannelName, v1::Subscribed)]) {
        let kept = |channel: &ChannelName| subscriptions.iter().any(|(name, _)| name == channel);
        let left: Vec<_> = self.seats.keys().filter(|channel| !kept(channel)).cloned().collect();
        left.iter().for_each(|channel| self.unseat(channel));
    }

    /// Whether the client hears who comes to a channel that it sits in and who leaves it.
    pub(crate) fn watch(&mut self, channel: &ChannelName, watches: bool) {
        if let Some(listening) = self.seats.get_mut(channel)
            && listening.watch.is_some() != watches
        {
            listening.watch = watches.then(|| self.edge.hub.watch(&self.member, channel));
        }
    }

    /// Leaves everything: what comes from now on finds no session here, and who waits for its task is told.
    pub(crate) fn leave_all(&mut self) {
        self.leave_channels();
        self.groups.clear();
        self.presence = None;
        drop(self.member.mail.close());
    }

    /// Leaves the channels that `identity` may not listen to, and says why.
    pub(crate) fn leave_forbidden(&mut self, identity: &Identity) -> Vec<(ChannelName, Refusal)> {
        let refused = |channel: &ChannelName| Some((channel.clone(), self.edge.forbids(identity, channel)?));
        let refused: Vec<_> = self.seats.keys().filter_map(refused).collect();
        refused.iter().for_each(|(channel, _)| self.unseat(channel));
        refused
    }

    /// Leaves a channel.
    pub(crate) fn unseat(&mut self, channel: &ChannelName) {
        self.seats.remove(channel);
        self.member.facts.lock().subscriptions.retain(|name| name != channel);
    }
}

/// Groups.
impl Stay {
    /// Joins groups before the client is told that it is connected: what is pushed to them from then on is for it. One that
    /// cannot be joined now is joined later, as the session asks for it too.
    pub(crate) async fn join_now(&mut self, groups: impl IntoIterator<Item = &GroupName>) {
        let (hub, member) = (&self.edge.hub, &self.member);
        let join = async |group: GroupName| (group.clone(), hub.join_group(member, group).await);
        let joined = join_all(groups.into_iter().cloned().map(join)).await;
        self.groups.extend(joined.into_iter().filter_map(|(group, seat)| Some((group, seat.ok()?))));
        self.show_groups();
    }

    /// Lets others see which groups the session is in.
    fn show_groups(&self) {
        self.member.facts.lock().groups = self.groups.keys().cloned().collect();
    }

    /// Takes what a change of groups has come to.
    pub(crate) fn regrouped(&mut self, Regrouped { joined, left, late, done }: Regrouped) {
        for (group, seat) in joined {
            match seat {
                Ok(seat) => {
                    if late {
                        self.tell_gap("", v1::GapReason::Failover);
                    }
                    self.groups.entry(group).or_insert(seat);
                }
                Err(refusal) => {
                    tracing::warn!(%group, %refusal, session = %self.member.session, "a group is joined later");
                    self.join_later(group);
                }
            }
        }
        for group in left {
            self.groups.remove(&group);
        }
        self.show_groups();
        if let Some(done) = done {
            // Whoever asked may have gone.
            let _told = done.send(());
        }
    }

    /// Tries a group again in a while.
    fn join_later(&self, group: GroupName) {
        let member = Arc::downgrade(&self.member);
        self.edge.background.spawn(async move {
            sleep(JOIN_PAUSE).await;
            if let Some(member) = member.upgrade() {
                let _sent = Wish::Join(group).send(&member);
            }
        });
    }

    /// Joins a group that the session should be in; what was pushed there meanwhile is told as lost.
    pub(crate) fn join(&mut self, group: GroupName) {
        let wanted = self.session.groups().any(|name| *name == group);
        if wanted && !self.broken && !self.groups.contains_key(&group) {
            self.lane.in_order(self.actor().regroup(vec![group], Vec::new(), true, None), 0);
        }
    }
}

/// Being there.
impl Stay {
    /// What was taken from the outbox cannot be delivered any more, or its rooms not be kept up with.
    pub(crate) fn give_up_stream(&mut self) {
        self.broken = true;
        self.member.outbox.close();
        self.seats.clear();
        self.groups.clear();
    }

    /// The client is not there: others do not see it on its channels.
    pub(crate) fn disappear(&mut self) {
        if let Some(presence) = &self.presence {
            presence.set_away(true);
        }
        for listening in self.seats.values_mut() {
            listening.present = None;
        }
    }

    /// It is there again.
    pub(crate) fn reappear(&mut self) {
        if let Some(presence) = &self.presence {
            presence.set_away(false);
        }
        let unseen = self.unseen();
        if !unseen.is_empty() {
            self.lane.in_order(self.actor().reappear(unseen, REAPPEAR_PAUSE), 0);
        }
    }

    /// As [`Stay::reappear`], where that failed and `paused` was waited since.
    pub(crate) fn reappear_again(&mut self, paused: Duration) {
        let unseen = self.unseen();
        if !unseen.is_empty() && self.session.state() == State::Active {
            // Nothing that the client asks for waits for it.
            self.lane.beside(self.actor().reappear(unseen, (paused * 2).min(REAPPEAR_PAUSE_MAX)));
        }
    }

    /// Takes the places where it is seen; where it is not, that is tried again after the pause.
    pub(crate) fn seen(&mut self, present: Vec<(ChannelName, PresenceSeat)>, again: Option<Duration>) {
        // The client may have gone again since it was asked for.
        if self.session.state() != State::Active {
            return;
        }
        for (channel, seat) in present {
            if let Some(listening) = self.seats.get_mut(&channel) {
                listening.present = Some(seat);
            }
        }
        let Some(pause) = again else { return };
        let member = Arc::downgrade(&self.member);
        self.edge.background.spawn(async move {
            sleep(pause).await;
            if let Some(member) = member.upgrade() {
                let _sent = Wish::Reappear(pause).send(&member);
            }
        });
    }

    /// The channels where it should be seen by others and is not.
    fn unseen(&self) -> Vec<ChannelName> {
        let gone = self
            .seats
            .iter()
            .filter(|(channel, listening)| listening.present.is_none() && self.edge.has_presence(channel));
        gone.map(|(channel, _)| channel.clone()).collect()
    }
}

/// Answers from elsewhere.
impl Stay {
    /// Answers to these frames of the client are to come from `node`, for as long as that lives and sends them.
    pub(crate) fn waits_for(&mut self, node: NodeId, frames: &[u32]) {
        if frames.is_empty() {
            return;
        }
        self.late = frames.to_vec();
        let (member, nodes) = (Arc::downgrade(&self.member), Arc::clone(&self.edge.nodes));
        // Also of one that is there again: it has begun anew, and knows nothing.
        let mut changes = nodes.changes();
        self.edge.background.spawn(async move {
            let gone = async {
                while nodes.lives(&node) {
                    match changes.recv().await {
                        Ok(NodeChange::Down(gone)) if gone == node => return,
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            let _late = timeout(LATE_MAX + LATE_SLACK, gone).await;
            if let Some(member) = member.upgrade() {
                let _sent = Wish::NoMoreLate.send(&member);
            }
        });
    }
}
