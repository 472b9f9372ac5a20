//! How far users are done with their inboxes.
//!
//! What always holds: no ack goes further than the log has come, so that nothing that comes later is taken for done; what
//! was acked of a log that is lost counts for nothing in the one after it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use trestle_bus::{BusError, Fabric, logs};
use trestle_wire::{ChannelName, Subjects, UserId, name::INBOX};

use crate::store::{TRIES_MAX, contended};

/// The inboxes of all users.
pub(crate) struct Inboxes {
    pub(crate) fabric: Fabric,
    pub(crate) subjects: Subjects,
    /// How long an ack is kept.
    pub(crate) ttl: Duration,
}

impl Inboxes {
    /// How far `user` has acked.
    pub(crate) async fn acked(&self, user: &UserId) -> Result<u64, BusError> {
        let acked = self.fabric.kv.get(&key(user)).await?.map_or(0, |entry| offset(&entry.value));
        if self.within(user, acked).await? == acked {
            return Ok(acked);
        }
        tracing::warn!(
            acked,
            "an inbox was acked further than its log has come, which was lost: all that is there is sent"
        );
        Ok(0)
    }

    /// `user` has acked up to `offset`, or as far as the log has come; gives how far that is now, by all devices.
    pub(crate) async fn ack(&self, user: &UserId, acked: u64) -> Result<u64, BusError> {
        let (key, kv) = (key(user), &self.fabric.kv);
        let acked = self.within(user, acked).await?;
        for _ in 0..TRIES_MAX {
            let (before, revision) = match kv.get(&key).await? {
                Some(entry) => (offset(&entry.value), entry.revision),
                None => (0, 0),
            };
            if before == acked || (before > acked && self.within(user, before).await? == before) {
                return Ok(before);
            }
            if kv.compare_and_set(&key, revision, acked.to_string().into(), Some(self.ttl)).await?.is_some() {
                return Ok(acked);
            }
        }
        Err(contended(&key))
    }

    /// `offset`, or how far the log has come if that is less. What comes to the user later has a higher one.
    async fn within(&self, user: &UserId, offset: u64) -> Result<u64, BusError> {
        let log = logs::history_name(&self.subjects, INBOX);
        // Most acks are of a message that is there, which is asked for more cheaply.
        if offset == 0 || offset <= self.fabric.log.last(&log, &self.subjects.log(&ChannelName::inbox(user))).await? {
            return Ok(offset);
        }
        Ok(offset.min(self.fabric.log.reached(&log).await?))
    }
}

fn key(user: &UserId) -> String {
    format!("inbox.{}", BASE64.encode(user.as_str()))
}

fn offset(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
