//! The record of a session that no node holds, and what is parked of it: changed and ended in the Kv.
//!
//! What always holds: a record is changed only against the revision that was read, so that whoever has claimed the session
//! meanwhile has it as it was.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use trestle_bus::{BusError, Fabric};
use trestle_wire::{NodeId, SessionId, Subjects, selector::TAGS_MAX, v1};

use crate::store::{TRIES_MAX, contended, parked_key, session_key};

/// Most groups that services may put such a session into: what a session may be in by default. The node that its client
/// comes to holds what it finds, and no more.
const GROUPS_MAX: usize = 64;

/// What changes such records.
pub(crate) struct Estate {
    pub(crate) fabric: Fabric,
    pub(crate) subjects: Subjects,
    /// This node.
    pub(crate) node: NodeId,
    /// How long a record is kept that was changed or ended: a node that was cut off may come back and want to write its own.
    pub(crate) record_ttl: Duration,
}

impl Estate {
    /// Ends `session` for good, and tells services so, if `free` says of its record that nobody has it; whether it has.
    pub(crate) async fn end(
        &self,
        session: &SessionId,
        free: impl Fn(&v1::SessionRecord) -> bool + Send + Sync,
    ) -> Result<bool, BusError> {
        let ended = self.change(session, |record| {
            let over = free(record);
            record.set_state(v1::SessionState::Expired);
            // By this node: one that was cut off and comes back sees that it is no more its own.
            record.node = self.node.to_string();
            over
        });
        let Some(record) = ended.await? else { return Ok(false) };
        if let Err(error) = self.fabric.kv.delete(&parked_key(session)).await {
            tracing::debug!(%session, %error, "what was parked of a session that is over stays until it expires");
        }
        let event = v1::SessionEvent {
            change: v1::SessionChange::SessionExpired.into(),
            session_id: session.to_string(),
            user: record.user,
            node: self.node.to_string(),
            time: Some(SystemTime::now().into()),
        };
        let told = self.fabric.bus.publish(&self.subjects.session_events(), event.encode_to_vec().into()).await;
        if let Err(error) = told {
            tracing::warn!(%session, %error, "services are not told that a session is over");
        }
        Ok(true)
    }

    /// Changes groups and tags of `session`, if `free` says of its record that nobody has it; the record as it is then.
    pub(crate) async fn update(
        &self,
        session: &SessionId,
        change: &v1::UpdateSessionsRequest,
        free: impl Fn(&v1::SessionRecord) -> bool + Send + Sync,
    ) -> Result<Option<v1::SessionRecord>, BusError> {
        // First what is parked: whoever claims the record in between reads that next.
        self.update_parked(session, change).await?;
        self.change(session, |record| free(record) && apply(change, &mut record.groups, &mut record.tags)).await
    }

    /// Writes what `how` makes of the record, if it says so; gives that.
    async fn change(
        &self,
        session: &SessionId,
        how: impl Fn(&mut v1::SessionRecord) -> bool + Send + Sync,
    ) -> Result<Option<v1::SessionRecord>, BusError> {
        let key = session_key(session);
        let decode =
            |value| v1::SessionRecord::decode(value).ok().filter(|one| one.state() != v1::SessionState::Expired);
        for _ in 0..TRIES_MAX {
            let Some(entry) = self.fabric.kv.get(&key).await? else { return Ok(None) };
            let Some(mut record) = decode(entry.value) else { return Ok(None) };
            if !how(&mut record) {
                return Ok(None);
            }
            if self.set(&key, entry.revision, record.encode_to_vec().into()).await? {
                return Ok(Some(record));
            }
        }
        Err(contended(&key))
    }

    async fn update_parked(&self, session: &SessionId, change: &v1::UpdateSessionsRequest) -> Result<(), BusError> {
        let key = parked_key(session);
        for _ in 0..TRIES_MAX {
            let Some(entry) = self.fabric.kv.get(&key).await? else { return Ok(()) };
            let Ok(mut handover) = v1::Handover::decode(entry.value) else { return Ok(()) };
            let fits = apply(change, &mut handover.groups, &mut handover.tags);
            if !fits || self.set(&key, entry.revision, handover.encode_to_vec().into()).await? {
                return Ok(());
            }
        }
        Err(contended(&key))
    }

    async fn set(&self, key: &str, revision: u64, value: Bytes) -> Result<bool, BusError> {
        let kv = &self.fabric.kv;
        match kv.compare_and_set(key, revision, value.clone(), Some(self.record_ttl)).await {
            Ok(set) => Ok(set.is_some()),
            // It may have been set all the same.
            Err(BusError::Timeout(_)) => Ok(kv.get(key).await?.is_some_and(|entry| entry.value == value)),
            Err(error) => Err(error),
        }
    }
}

/// Does what a service wants; whether that fits. What is left or removed goes first, as it does in a session.
fn apply(change: &v1::UpdateSessionsRequest, groups: &mut Vec<String>, tags: &mut BTreeMap<String, String>) -> bool {
    groups.retain(|group| !change.leave_groups.contains(group));
    for group in &change.join_groups {
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    tags.retain(|key, _| !change.remove_tags.contains(key));
    tags.extend(change.set_tags.clone());
    groups.len() <= GROUPS_MAX && tags.len() <= TAGS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_made_whole_or_does_not_fit() {
        let (mut groups, mut tags) = (vec!["a".to_owned(), "b".to_owned()], BTreeMap::new());
        tags.insert("old".to_owned(), "1".to_owned());
        let change = v1::UpdateSessionsRequest {
            join_groups: vec!["b".into(), "c".into()],
            leave_groups: vec!["a".into()],
            set_tags: [("plan".to_owned(), "pro".to_owned())].into(),
            remove_tags: vec!["old".into()],
            ..v1::UpdateSessionsRequest::default()
        };
        assert!(apply(&change, &mut groups, &mut tags));
        assert_eq!((groups.join(" ").as_str(), tags), ("b c", [("plan".to_owned(), "pro".to_owned())].into()));
        let many = v1::UpdateSessionsRequest {
            join_groups: (0..GROUPS_MAX).map(|n| format!("g{n}")).collect(),
            ..v1::UpdateSessionsRequest::default()
        };
        assert!(!apply(&many, &mut groups, &mut BTreeMap::new()));
    }
}
