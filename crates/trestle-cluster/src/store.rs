//! What lies in the Kv beside heartbeats: claims of records, parked sessions, the key of resume tokens.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use trestle_bus::{BusError, Entry, Kv};
use trestle_wire::{NodeId, SessionId, v1};

use crate::{
    records::FIRST_EPOCH,
    registry::{ClaimRefused, Claimed},
    token::{KEY_BYTES, Ticket},
};

/// While a token of the first epoch is younger than this, its session may have no record yet: records are written within
/// a second of their session's begin, and a bus takes up to 10 s to elect a leader.
pub const GRACE: Duration = Duration::from_secs(10);

/// How often a compare-and-set is tried: the losers of a race try again, and each round has a winner. More than one other
/// writer at a time is rare.
pub(crate) const TRIES_MAX: usize = 64;

/// Where the key of resume tokens is.
const KEY: &str = "key.resume";

pub(crate) fn session_key(session: &SessionId) -> String {
    format!("session.{session}")
}

pub(crate) fn parked_key(session: &SessionId) -> String {
    format!("parked.{session}")
}

/// Too many others at one key, which is as good as no answer.
pub(crate) fn contended(key: &str) -> BusError {
    BusError::Refused(format!("{key} changed {TRIES_MAX} times while it was to be set; try again"))
}

/// Who claims, and what is written.
pub(crate) struct Claimant<'a> {
    pub(crate) ticket: &'a Ticket,
    pub(crate) node: &'a NodeId,
    pub(crate) address: &'a str,
    pub(crate) ttl: Duration,
    /// The epoch of a session whose client was not heard since the ticket served: up to that it may serve again.
    pub(crate) unheard: u64,
    /// Different for each claim of a process, so that a write whose answer was lost is known again.
    pub(crate) now: SystemTime,
}

/// A claim that was stored: the record as it is now, and its revision.
pub(crate) struct Stored {
    pub(crate) claimed: Claimed,
    pub(crate) record: v1::SessionRecord,
    pub(crate) revision: u64,
}

/// Takes the session for the claimant's node: by compare-and-set, so that of all who try at once one has it.
pub(crate) async fn claim(kv: &dyn Kv, claimant: &Claimant<'_>) -> Result<Stored, ClaimRefused> {
    let key = session_key(&claimant.ticket.session);
    for _ in 0..TRIES_MAX {
        let entry = kv.get(&key).await.map_err(ClaimRefused::Away)?;
        let (previous, expected) = claimant.check(entry)?;
        let record = claimant.record(previous.as_ref());
        let value = Bytes::from(record.encode_to_vec());
        let revision = match kv.compare_and_set(&key, expected, value.clone(), Some(claimant.ttl)).await {
            Ok(None) => continue,
            Ok(Some(revision)) => revision,
            Err(error @ BusError::Timeout(_)) => match kv.get(&key).await {
                Ok(Some(entry)) if entry.value == value => entry.revision,
                _ => return Err(ClaimRefused::Away(error)),
            },
            Err(error) => return Err(ClaimRefused::Away(error)),
        };
        let connected = record.connected.and_then(|connected| SystemTime::try_from(connected).ok());
        let claimed = Claimed { previous, epoch: record.epoch, connected: connected.unwrap_or(claimant.now) };
        return Ok(Stored { claimed, record, revision });
    }
    Err(ClaimRefused::Away(contended(&key)))
}

impl Claimant<'_> {
    /// Whether the ticket is good for what is there: the record before, and the revision to replace.
    fn check(&self, entry: Option<Entry>) -> Result<(Option<v1::SessionRecord>, u64), ClaimRefused> {
        let Some(entry) = entry else {
            let young = match self.now.duration_since(self.ticket.issued) {
                Ok(age) => age < GRACE,
                Err(ahead) => ahead.duration() < GRACE,
            };
            return if young && self.ticket.epoch == FIRST_EPOCH { Ok((None, 0)) } else { Err(ClaimRefused::Expired) };
        };
        let record = v1::SessionRecord::decode(entry.value).map_err(|_| ClaimRefused::Expired)?;
        if record.state() == v1::SessionState::Expired || record.epoch < self.ticket.epoch {
            return Err(ClaimRefused::Expired);
        }
        if record.epoch > self.ticket.epoch {
            if record.heard == 0 || record.heard > self.ticket.epoch {
                return Err(ClaimRefused::Spent);
            }
            if record.epoch > self.unheard {
                return Err(ClaimRefused::Unheard { node: record.node, epoch: record.epoch });
            }
        }
        Ok((Some(record), entry.revision))
    }

    fn record(&self, previous: Option<&v1::SessionRecord>) -> v1::SessionRecord {
        let begun = || v1::SessionRecord {
            session_id: self.ticket.session.as_str().into(),
            user: self.ticket.user.as_ref().map(|user| user.as_str().into()).unwrap_or_default(),
            connected: Some(self.ticket.issued.into()),
            ..v1::SessionRecord::default()
        };
        v1::SessionRecord {
            epoch: previous.map_or(self.ticket.epoch, |record| record.epoch) + 1,
            // It has this token, so it was heard after the `connected` that brought it, as far as that matters.
            heard: self.ticket.epoch,
            state: v1::SessionState::Active.into(),
            node: self.node.as_str().into(),
            address: self.address.into(),
            written: Some(self.now.into()),
            ..previous.cloned().unwrap_or_else(begun)
        }
    }
}

/// Leaves `handover` for the node that its client comes to. Where it is larger than the bus takes, its oldest frames go.
pub(crate) async fn park(kv: &dyn Kv, handover: &v1::Handover, most: usize, ttl: Duration) -> Result<(), BusError> {
    let refused = |error| BusError::Refused(format!("session_id of the handover: {error}"));
    let session = SessionId::parse(&handover.session_id).map_err(refused)?;
    let value = shorten(handover, most).encode_to_vec();
    kv.put(&parked_key(&session), value.into(), Some(ttl)).await.map(|_revision| ())
}

/// Takes what was left for the node that `session` comes to.
pub(crate) async fn unpark(kv: &dyn Kv, session: &SessionId) -> Result<Option<v1::Handover>, BusError> {
    let key = parked_key(session);
    let Some(entry) = kv.get(&key).await? else { return Ok(None) };
    kv.delete(&key).await?;
    let handover = v1::Handover::decode(entry.value);
    Ok(handover.inspect_err(|error| tracing::warn!(%session, %error, "a parked session cannot be read")).ok())
}

/// Without as many of the oldest frames as it takes to fit; `first` counts them, so that the client is told.
fn shorten(handover: &v1::Handover, most: usize) -> v1::Handover {
    let mut left = handover.clone();
    let mut over = left.encoded_len().saturating_sub(most);
    if over == 0 {
        return left;
    }
    // `first` may take up to 10 bytes more than it did.
    over += 10;
    let mut dropped = 0;
    for frame in &left.frames {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(1 + prost::length_delimiter_len(frame.len()) + frame.len());
        dropped += 1;
    }
    left.frames.drain(..dropped);
    left.first += dropped as u64;
    tracing::warn!(session = left.session_id, dropped, "a parked session was larger than the bus takes");
    left
}

/// The key of resume tokens that all nodes share; made by the first.
pub(crate) async fn shared_key(kv: &dyn Kv) -> Result<Vec<u8>, BusError> {
    for _ in 0..TRIES_MAX {
        let there = kv.get(KEY).await?;
        let revision = match &there {
            Some(entry) if entry.value.len() >= KEY_BYTES => return Ok(entry.value.to_vec()),
            Some(entry) => entry.revision,
            None => 0,
        };
        kv.compare_and_set(KEY, revision, random()?.into(), None).await?;
    }
    Err(contended(KEY))
}

fn random() -> Result<Vec<u8>, BusError> {
    let mut key = vec![0; KEY_BYTES];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key);
    filled.map_err(|_| BusError::Refused("the operating system gives no random bytes for the resume key".into()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(frames: usize, bytes: usize) -> v1::Handover {
        v1::Handover {
            session_id: "n.0123456789abcdef0123456789abcdef".into(),
            first: 100,
            frames: (0..frames).map(|n| Bytes::from(vec![u8::try_from(n % 256).unwrap(); bytes])).collect(),
            ..v1::Handover::default()
        }
    }

    #[test]
    fn what_fits_is_left_whole() {
        let whole = handover(10, 100);
        assert_eq!(shorten(&whole, whole.encoded_len()), whole);
    }

    #[test]
    fn the_oldest_frames_go_and_the_count_says_so() {
        for most in [1_000, 5_000, 9_999, 10_000] {
            let (whole, left) = (handover(100, 100), shorten(&handover(100, 100), most));
            assert!(left.encoded_len() <= most, "{most}");
            let dropped = usize::try_from(left.first - 100).unwrap();
            assert_eq!(left.frames, whole.frames[dropped..], "{most}");
            let one_more = handover(100 - dropped + 1, 100).encoded_len();
            assert!(one_more + 12 > most, "no more are dropped than must be: {one_more} {most}");
        }
    }
}
