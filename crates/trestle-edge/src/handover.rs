//! Giving a stay away: to the node that has the client now, or into the Kv where this node stops.
//!
//! What always holds: rooms are left before the outbox is emptied, so that what is handed over goes exactly as far as its
//! positions say; answers that come later are sent on.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep, sleep_until};
use trestle_bus::BusError;
use trestle_hub::{
    Member,
    planted::{Fault, is_planted},
};
use trestle_session::Taken;
use trestle_wire::{
    NodeId, Reason, Refusal,
    v1::{self, server_frame},
};

use crate::{Edge, stay::Stay};

/// What a claim's answer needs beside the frames: positions, groups and tags at their limits.
const ANSWER_BYTES_RESERVED: usize = 128 * 1024;
/// Frames that are taken from the outbox at once.
const REST_AT_ONCE: usize = 1024;
/// How long answers are sent on: no request takes longer by default (`session.request_timeout_max`).
pub(crate) const LATE_MAX: Duration = Duration::from_secs(60);
/// How long the other node may take to say that it has them, and how long is waited before they are sent again.
const LATE_TIMEOUT: Duration = Duration::from_secs(2);
const LATE_PAUSE: Duration = Duration::from_millis(500);

/// [`v1::Handover::first`] where no client can go on by its count: its frames are not there.
pub(crate) const NO_STREAM: u64 = u64::MAX;

/// What the node that claims `stay` gets. Answers that are still to come are sent on to it.
pub(crate) async fn to_node(mut stay: Box<Stay>, claim: &v1::Claim) -> v1::Handover {
    let edge = Arc::clone(&stay.edge);
    if claim.node != edge.node.as_str() {
        edge.registry.forget(&stay.member.session);
    }
    let same = stay.encoding.subprotocol() == claim.subprotocol && stay.begun == claim.epoch;
    // Their endings are answered by this node: the other one is to know nothing of them.
    let Stay { seats, session, .. } = &mut *stay;
    seats.retain(|channel, _| session.keeps(channel));
    stay.tell_half_joined();
    let mut handover = pack(&mut stay).await;
    match claim.received.filter(|_| same).and_then(|received| from(&handover, received)) {
        Some(skip) => {
            handover.first += skip as u64;
            handover.frames.drain(..skip);
        }
        None => give_up_stream(&mut handover),
    }
    let bytes: usize = handover.frames.iter().map(Bytes::len).sum();
    if bytes + ANSWER_BYTES_RESERVED > edge.fabric.bus.payload_bytes_max() {
        tracing::warn!(bytes, session = handover.session_id, "what waits for a session is more than the bus takes");
        give_up_stream(&mut handover);
    }
    if handover.first != NO_STREAM {
        handover.answered = claim.outstanding.iter().copied().filter(|id| stay.has_answered(*id)).collect();
        add_half_joined(&mut stay, &mut handover, false);
    }
    let open = |id: &u32| stay.session.is_open(*id) && !handover.answered.contains(id);
    handover.outstanding = claim.outstanding.iter().copied().filter(open).collect();
    if let Ok(node) = NodeId::parse(&claim.node) {
        edge.metrics.handed_over.inc();
        // A drain waits for them.
        edge.tasks.spawn(send_late(stay, node));
    }
    handover
}

/// Leaves what waits for a session whose node stops where the next node finds it.
pub(crate) async fn park(mut stay: Box<Stay>) {
    let edge = Arc::clone(&stay.edge);
    // Found until it lies where it is looked for next: who asks before that waits.
    let presence = stay.presence.take();
    let mut handover = pack(&mut stay).await;
    if handover.first != NO_STREAM {
        if !is_planted(Fault::ParkedAnswers) {
            // The answers of others will not come any more.
            let half = stay.session.open_frames().iter().copied().filter(|id| stay.has_answered(*id));
            handover.answered = stay.session.answered_frames().chain(half).collect();
        }
        add_half_joined(&mut stay, &mut handover, true);
    }
    match edge.registry.park(&handover).await {
        Ok(()) => _ = edge.metrics.parked.inc(),
        Err(error) => {
            tracing::warn!(%error, session = handover.session_id, "what waits for a session could not be kept")
        }
    }
    stay.presence = presence;
    stay.leave_all();
}

/// How many of the handover's frames a client has had that counts `received`; `None` if some are missing before them.
pub(crate) fn from(handover: &v1::Handover, received: u64) -> Option<usize> {
    let skip = usize::try_from(received.checked_sub(handover.first)?).ok()?;
    (skip <= handover.frames.len()).then_some(skip)
}

/// Nobody goes on with its frames.
fn give_up_stream(handover: &mut v1::Handover) {
    handover.frames.clear();
    handover.first = NO_STREAM;
}

/// Leaves everything, then takes out what waits.
async fn pack(stay: &mut Stay) -> v1::Handover {
    let mut handover = v1::Handover {
        session_id: stay.member.session.to_string(),
        epoch: stay.epoch,
        begun: stay.begun,
        first: stay.replay.first(),
        subprotocol: stay.encoding.subprotocol().into(),
        groups: stay.session.service_groups().map(ToString::to_string).collect(),
        tags: stay.session.service_tags().clone().into_iter().collect(),
        ..v1::Handover::default()
    };
    for (channel, listening) in stay.seats.drain() {
        if listening.watch.is_some() {
            handover.watched.push(channel.to_string());
        }
        handover.positions.push(v1::Position { channel: channel.to_string(), offset: listening.seat.leave() });
    }
    stay.groups.clear();
    stay.presence = None;
    // An outbox that had no room has refused what the positions count, though nobody has looked yet.
    if stay.broken || stay.member.outbox.is_closed() {
        give_up_stream(&mut handover);
        return handover;
    }
    handover.live_ids = stay.remembered();
    handover.frames = stay
        .replay
        .since(handover.first)
        .into_iter()
        .flatten()
        .map(|frame| Bytes::copy_from_slice(frame.payload()))
        .collect();
    let Some(mut rest) = rest(&stay.member).await else {
        tracing::warn!(session = handover.session_id, "what was spilled for a session cannot be read back");
        give_up_stream(&mut handover);
        return handover;
    };
    stay.retain_wanted(&mut rest);
    for taken in rest {
        if let Taken::Frame(frame) = &taken
            && let Some(label) = frame.label()
            && label.offset == 0
        {
            handover.live_ids.push(label.id);
        }
        handover.frames.push(Bytes::copy_from_slice(stay.finished(taken).payload()));
    }
    handover
}

/// Channels of which the client knows and that are on their way to a seat go along with the stream, as far as it has them;
/// those that are to be left after that only with `ending`.
fn add_half_joined(stay: &mut Stay, handover: &mut v1::Handover, ending: bool) {
    for (channel, at, watch) in stay.half_joined() {
        if !ending && !stay.session.keeps(&channel) {
            continue;
        }
        if watch {
            handover.watched.push(channel.to_string());
        }
        handover.positions.push(v1::Position { channel: channel.to_string(), offset: at.unwrap_or(0) });
    }
}

/// All that waits for a member, also on the disk; `None` if some of it cannot be read back.
async fn rest(member: &Member) -> Option<Vec<Taken>> {
    member.outbox.close();
    let mut waiting = Vec::new();
    loop {
        let before = waiting.len();
        let read = poll_fn(|context| member.outbox.poll_rest(context, REST_AT_ONCE, &mut waiting)).await;
        read.ok()?;
        if waiting.len() == before {
            return Some(waiting);
        }
    }
}

/// Sends on what the stay's doings still come to, and in the end that the answers of the others are lost: those that took
/// too long, and those that another node was to send here.
async fn send_late(mut stay: Box<Stay>, node: NodeId) {
    let edge: Arc<Edge> = Arc::clone(&stay.edge);
    let mut stop = edge.stop.raised();
    let end = Instant::now() + LATE_MAX;
    while !stay.lane.is_idle() {
        let done = tokio::select! {
            done = stay.lane.next() => done,
            () = sleep_until(end) => break,
            () = &mut stop => break,
        };
        let frames = stay.late(done);
        tokio::select! {
            () = send_frames(&edge, &stay.member, &node, frames, end) => {}
            () = &mut stop => break,
        }
    }
    let frames = stay.session.open_frames().iter().map(|id| answer_lost(*id)).collect();
    tokio::select! {
        () = send_frames(&edge, &stay.member, &node, frames, end) => {}
        () = &mut stop => {}
    }
}

/// Sends `frames` until `node` has taken them, is gone, or it is too late. It may take them twice: an answer is given once.
async fn send_frames(edge: &Edge, member: &Member, node: &NodeId, frames: Vec<v1::ServerFrame>, end: Instant) {
    if frames.is_empty() {
        return;
    }
    let late = Bytes::from(v1::LateFrames { session_id: member.session.to_string(), frames }.encode_to_vec());
    loop {
        let taken = edge.fabric.bus.request(&edge.subjects.late_frames(node), late.clone(), LATE_TIMEOUT).await;
        let Err(error) = taken else { return };
        let passes = matches!(error, BusError::Away | BusError::NoResponders(_) | BusError::Timeout(_));
        if !passes || Instant::now() >= end || !edge.nodes.lives(node) {
            return tracing::warn!(%error, %node, "an answer could not be sent to the node that its session moved to");
        }
        sleep(LATE_PAUSE).await;
    }
}

fn answer_lost(id: u32) -> v1::ServerFrame {
    let refusal =
        Refusal::new(Reason::AnswerLost, "the session has moved on; repeat this frame with the same envelope id");
    v1::ServerFrame { reply_to: id, frame: Some(server_frame::Frame::Error(refusal.into())) }
}
