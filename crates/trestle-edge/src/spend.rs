//! Spend: a resume token in, whose session it is out, or nothing.
//!
//! What always holds: of all who show a token one has the session; once the client was heard on the connection that the token
//! brought, the token is worth nothing. Until then it serves again: the `connected` with the next one may be lost.

use trestle_auth::Identity;
use trestle_cluster::{ClaimRefused, Claimed, Ticket};
use trestle_codec::Resume;
use trestle_wire::{
    NodeId, Refusal, SessionId,
    v1::{self, claim_answer::Answer},
};

use crate::{Edge, upgrade::Hello};

/// How often a session may go on while the node that has it is asked: a client has few sockets at once.
const ASKED_MAX: usize = 4;

/// A token that has served.
pub(crate) struct Spent {
    /// Who came with it.
    pub(crate) identity: Identity,
    /// The session, which is this node's now.
    pub(crate) claimed: Claimed,
    /// The epoch that the token said.
    pub(crate) epoch: u64,
    /// The epoch in which the stream began that its client counts.
    pub(crate) begun: u64,
}

/// Checks the resume token and spends it; `None` if it is good for nothing.
///
/// # Errors
/// Why the client's own token is not accepted, or that the bus does not answer.
pub(crate) async fn spend(
    edge: &Edge,
    hello: &Hello,
    token: Option<&str>,
    resume: &Resume,
) -> Result<Option<Spent>, Refusal> {
    let ticket = match edge.registry.read(&resume.token) {
        Ok(ticket) if ticket.session == resume.session => ticket,
        Ok(_) => return Ok(None),
        Err(refused) => {
            tracing::debug!(%refused, session = %resume.session, "a resume token is not accepted");
            return Ok(None);
        }
    };
    // A fresh token of the same user replaces what the old one granted; another user's session is not theirs.
    let identity = match token {
        Some(token) => {
            let identity = edge.gate.admit(Some(token))?;
            if identity.user != ticket.user {
                return Ok(None);
            }
            identity
        }
        None => identity_of(&ticket),
    };
    // A token that was seen on its way is not enough: whoever uses it a second time is the user, and shows it.
    let again = token.is_some() || ticket.user.is_none();
    match claim(edge, &ticket, &hello.address.to_string(), again).await {
        Ok(claimed) => Ok(Some(Spent { identity, claimed, epoch: ticket.epoch, begun: ticket.begun })),
        Err(ClaimRefused::Away(error)) => Err(Refusal::from(error)),
        Err(refused) => {
            tracing::debug!(%refused, session = %resume.session, "a session cannot be resumed");
            Ok(None)
        }
    }
}

/// Takes the session for this node; with `again` also by a ticket that has served, if its client was not heard since.
async fn claim(edge: &Edge, ticket: &Ticket, address: &str, again: bool) -> Result<Claimed, ClaimRefused> {
    let mut claimed = edge.registry.claim(ticket, address).await;
    for _ in 0..ASKED_MAX {
        let Err(ClaimRefused::Unheard { node, epoch }) = &claimed else { break };
        if !again || heard(edge, node, &ticket.session).await.is_some_and(|heard| heard > ticket.epoch) {
            return Err(ClaimRefused::Spent);
        }
        // Unless it has gone on again while its node was asked.
        claimed = edge.registry.claim_again(ticket, address, *epoch).await;
    }
    claimed
}

/// The connection on which a client was heard last, as the node that has its session says; `None` if that is gone or does not
/// have it.
async fn heard(edge: &Edge, node: &str, session: &SessionId) -> Option<u64> {
    let node = NodeId::parse(node).ok()?;
    if node == edge.node {
        return edge.heard_of(session).await;
    }
    let claim = v1::Claim { session_id: session.to_string(), ask_heard: true, ..v1::Claim::default() };
    match edge.ask_holder(&node, &claim).await? {
        Answer::Heard(epoch) => Some(epoch),
        Answer::Unknown(_) | Answer::Prepared(_) | Answer::Handover(_) => None,
    }
}

fn identity_of(ticket: &Ticket) -> Identity {
    Identity {
        user: ticket.user.clone(),
        scopes: ticket.scopes.clone(),
        groups: ticket.groups.clone(),
        tags: ticket.tags.clone(),
        expires: ticket.identity_expires,
    }
}
