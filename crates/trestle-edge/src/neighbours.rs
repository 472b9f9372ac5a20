//! What other nodes and operators want of this one: claims of sessions, late answers, questions.
//!
//! What always holds: a session that is given up here is given to the one who asked, or parked; a question is answered
//! by every node that it concerns, and by no other.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    sync::{broadcast, oneshot},
    time::{sleep, timeout},
};
use trestle_bus::{BusError, Heard, Message, Subject};
use trestle_hub::Member;
use trestle_wire::{
    NodeId, Reason, Refusal, SessionId,
    v1::{self, claim_answer, node_answer, node_ask},
};

use crate::{Edge, handover, stay::Stay, wish::Wish};

/// How long the node that holds a session may take to answer: it is asked by a client that waits.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client's task may take to give up its stay: it does so between two steps.
const YIELD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long what is left of a session that is another node's now is kept for that node's claim: it claims at once, after
/// it listens to what the session listens to.
const GONE_AFTER: Duration = Duration::from_secs(5);

impl Edge {
    /// Listens for the others as long as the bus lives.
    ///
    /// # Errors
    /// [`BusError`] if the bus cannot be listened to.
    pub(crate) async fn listen_to_neighbours(self: &Arc<Self>) -> Result<(), BusError> {
        let subjects = &self.subjects;
        for (subject, what) in [
            (subjects.claim(&self.node), Neighbour::Claim),
            (subjects.late_frames(&self.node), Neighbour::Late),
            (subjects.ask(&self.node), Neighbour::Ask),
            (subjects.ask_all(), Neighbour::Ask),
        ] {
            let mut subscription = self.fabric.bus.subscribe(&subject, None).await?;
            let edge = Arc::clone(self);
            self.background.spawn(async move {
                while let Some(heard) = subscription.next().await {
                    match heard {
                        Heard::Message(message) => edge.heard(what, message),
                        // Whoever asked has its own timeout.
                        Heard::Lost(count) => tracing::warn!(count, ?what, "the bus lost what other nodes asked"),
                    }
                }
            });
        }
        Ok(())
    }

    /// Ends what is left here of sessions that have gone on elsewhere while this node was cut off.
    pub(crate) async fn part_from_lost(edge: Weak<Self>, mut lost: broadcast::Receiver<SessionId>) {
        loop {
            let session = match lost.recv().await {
                Ok(session) => session,
                // Those end by their windows, or when their connections do.
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    tracing::warn!(count, "sessions that live elsewhere are still held here");
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let Some(edge) = edge.upgrade() else { return };
            let Some(member) = edge.hub.member(&session) else { continue };
            let member = Arc::downgrade(&member);
            edge.background.spawn(async move {
                // The node that has it now may be about to ask for what is here.
                sleep(GONE_AFTER).await;
                if let Some(member) = member.upgrade() {
                    // Without room in its mailbox its task has other ends before it.
                    let _sent = Wish::Gone.send(&member);
                }
            });
        }
    }

    fn heard(self: &Arc<Self>, what: Neighbour, message: Message) {
        let edge = Arc::clone(self);
        let Message { payload, reply_to, .. } = message;
        match what {
            Neighbour::Claim => {
                let (Ok(claim), Some(reply_to)) = (v1::Claim::decode(payload), reply_to) else { return };
                self.background.spawn(async move { edge.claimed(claim, reply_to).await });
            }
            Neighbour::Late => {
                let Ok(late) = v1::LateFrames::decode(payload) else { return };
                match SessionId::parse(&late.session_id).ok().and_then(|id| self.hub.member(&id)) {
                    // Not answered, they are sent again.
                    Some(member) if !Wish::Late(late.frames).send(&member) => return,
                    Some(_) => {}
                    None => tracing::debug!(session = late.session_id, "answers came for a session that is not here"),
                }
                let Some(reply_to) = reply_to else { return };
                self.background.spawn(async move { edge.reply(&reply_to, Vec::new()).await });
            }
            Neighbour::Ask => {
                let (Ok(ask), Some(reply_to)) = (v1::NodeAsk::decode(payload), reply_to) else { return };
                let Some(ask) = ask.ask else { return };
                self.background.spawn(async move {
                    let answer = edge.answer(ask).unwrap_or_else(|refusal| node_answer::Answer::Error(refusal.into()));
                    let answer = v1::NodeAnswer { node: edge.node.to_string(), answer: Some(answer) };
                    edge.reply(&reply_to, answer.encode_to_vec()).await;
                });
            }
        }
    }

    async fn reply(&self, to: &Subject, body: Vec<u8>) {
        if let Err(error) = self.fabric.bus.publish(to, body.into()).await {
            tracing::debug!(%error, "another node was not answered");
        }
    }

    /// Another node has a client of a session of this one.
    async fn claimed(self: Arc<Self>, claim: v1::Claim, reply_to: Subject) {
        let session = SessionId::parse(&claim.session_id).ok();
        if let Some(session) = session.as_ref().filter(|_| !claim.ask_heard) {
            self.coming.give_up(session, claim.claimed);
        }
        let member = session.and_then(|session| self.hub.member(&session));
        let answer = match member {
            None => claim_answer::Answer::Unknown(true),
            Some(member) if claim.ask_heard => match self.heard_of(&member.session).await {
                Some(epoch) => claim_answer::Answer::Heard(epoch),
                None => claim_answer::Answer::Unknown(true),
            },
            Some(member) if claim.prepare => {
                let (done, remembered) = oneshot::channel();
                let sent = Wish::Remember(done).send(&member);
                let prepared = sent && matches!(timeout(YIELD_TIMEOUT, remembered).await, Ok(Ok(())));
                if prepared { claim_answer::Answer::Prepared(true) } else { claim_answer::Answer::Unknown(true) }
            }
            Some(member) => match yielded(&member, claim.claimed).await {
                Some(stay) => claim_answer::Answer::Handover(handover::to_node(stay, &claim).await),
                None => claim_answer::Answer::Unknown(true),
            },
        };
        self.reply(&reply_to, v1::ClaimAnswer { answer: Some(answer) }.encode_to_vec()).await;
    }

    /// What `node` says to a claim of a session that it may hold; `None` if it is gone.
    pub(crate) async fn ask_holder(&self, node: &NodeId, claim: &v1::Claim) -> Option<claim_answer::Answer> {
        let asked = claim.encode_to_vec().into();
        match self.fabric.bus.request(&self.subjects.claim(node), asked, CLAIM_TIMEOUT).await {
            Ok(bytes) => v1::ClaimAnswer::decode(bytes).ok()?.answer,
            Err(BusError::NoResponders(_)) => None,
            Err(error) => {
                tracing::warn!(%error, %node, session = claim.session_id, "a session's node did not answer");
                None
            }
        }
    }

    /// The epoch of the connection on which the client of a session of this node was heard last; `None` if it is not here,
    /// or just coming.
    pub(crate) async fn heard_of(&self, session: &SessionId) -> Option<u64> {
        let member = self.hub.member(session).filter(|_| !self.coming.has(session))?;
        let (tell, told) = oneshot::channel();
        if !Wish::Heard(tell).send(&member) {
            return None;
        }
        timeout(YIELD_TIMEOUT, told).await.ok()?.ok()
    }

    fn answer(self: &Arc<Self>, ask: node_ask::Ask) -> Result<node_answer::Answer, Refusal> {
        Ok(match ask {
            node_ask::Ask::Sessions(request) => node_answer::Answer::Sessions(self.list(&request)?),
            node_ask::Ask::Drain(v1::DrainRequest { node }) => {
                if node != self.node.as_str() {
                    return Err(Refusal::new(Reason::UnknownNode, format!("this is {}, not {node}", self.node)));
                }
                let info = self.nodes.info();
                tracing::info!("an operator drains this node");
                self.told_to_drain.cancel();
                node_answer::Answer::Info(info)
            }
            node_ask::Ask::Shed(surplus) => {
                let asked = self.shed(surplus as usize);
                tracing::info!(surplus, asked, "clients are asked to connect again, to rebalance");
                node_answer::Answer::Info(v1::NodeInfo {
                    active: u32::try_from(asked).unwrap_or(u32::MAX),
                    ..self.nodes.info()
                })
            }
        })
    }
}

/// What comes from other nodes.
#[derive(Clone, Copy, Debug)]
enum Neighbour {
    Claim,
    Late,
    Ask,
}

/// The stay of a session of this node, given up by its task to whoever has claimed it in `epoch`; `None` if that has just
/// ended, or has it in a later one.
pub(crate) async fn yielded(member: &Member, epoch: u64) -> Option<Box<Stay>> {
    let (give, given) = oneshot::channel();
    if !Wish::Yield(give, epoch).send(member) {
        return None;
    }
    timeout(YIELD_TIMEOUT, given).await.ok()?.ok()
}
