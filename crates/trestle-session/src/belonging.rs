//! Which groups a session is in and which tags it has, by its token, by services and by rules.
//!
//! What always holds: the session is in exactly the groups that any of the three says; of a tag that both the token and a
//! service give, the service's value counts; a change that goes beyond a limit changes nothing.

use std::collections::BTreeSet;

use trestle_auth::Identity;
use trestle_wire::{
    GroupName, Reason, Refusal, Tags,
    selector::{TAGS_MAX, check_tag},
    v1,
};

use crate::{Action, Rules};

/// Groups and tags of one session.
#[derive(Debug, Default)]
pub(crate) struct Belonging {
    /// Groups that services put it into.
    given_groups: BTreeSet<GroupName>,
    /// Tags that services gave it.
    given_tags: Tags,
    /// Groups it is in now, as the owner was told.
    groups: BTreeSet<GroupName>,
    /// Tags it has now, as the owner was told.
    tags: Tags,
}

impl Belonging {
    /// What services gave a session in its earlier life.
    pub(crate) fn given(groups: Vec<GroupName>, tags: Tags) -> Self {
        Self { given_groups: groups.into_iter().collect(), given_tags: tags, ..Self::default() }
    }

    /// Groups that services put the session into.
    pub(crate) fn service_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.given_groups.iter()
    }

    /// Tags that services gave the session.
    pub(crate) fn service_tags(&self) -> &Tags {
        &self.given_tags
    }

    /// Groups the session is in.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.iter()
    }

    /// Takes what a service wants changed; whether anything is different now. What is left or removed goes first.
    ///
    /// # Errors
    /// [`Reason::InvalidTarget`] for a group's name, [`Reason::InvalidTag`], and for more than `groups_max` groups or 32
    /// tags; then nothing has changed.
    pub(crate) fn update(
        &mut self,
        change: &v1::UpdateSessionsRequest,
        identity: &Identity,
        groups_max: usize,
    ) -> Result<bool, Refusal> {
        let mut groups = self.given_groups.clone();
        for name in &change.leave_groups {
            groups.remove(&group(name, "leave_groups")?);
        }
        for name in &change.join_groups {
            groups.insert(group(name, "join_groups")?);
        }
        if groups.len() > groups_max.max(self.given_groups.len()) {
            let message =
                format!("services may put a session into {groups_max} groups; it would be in {}", groups.len());
            return Err(Refusal::new(Reason::InvalidTarget, message).field("join_groups"));
        }
        let mut tags = self.given_tags.clone();
        tags.retain(|key, _| !change.remove_tags.contains(key));
        for (key, value) in &change.set_tags {
            check_tag(key, value).map_err(|fault| Refusal::new(Reason::InvalidTag, fault).field("set_tags"))?;
            tags.insert(key.clone(), value.clone());
        }
        let count = merge(identity, &tags).len();
        if count > TAGS_MAX.max(self.tags.len()) {
            let message = format!("a session may have {TAGS_MAX} tags; it would have {count}");
            return Err(Refusal::new(Reason::InvalidTag, message).field("set_tags"));
        }
        let changed = groups != self.given_groups || tags != self.given_tags;
        (self.given_groups, self.given_tags) = (groups, tags);
        Ok(changed)
    }

    /// Tells the owner what has changed since it was told.
    pub(crate) fn settle(&mut self, identity: &Identity, rules: &Rules, actions: &mut Vec<Action>) {
        let merged = merge(identity, &self.given_tags);
        if merged != self.tags {
            self.tags.clone_from(&merged);
            actions.push(Action::Tags(merged));
        }
        let sources = identity.groups.iter().chain(&self.given_groups).chain(rules.groups(&self.tags));
        let now: BTreeSet<GroupName> = sources.cloned().collect();
        if now == self.groups {
            return;
        }
        actions.extend(self.groups.difference(&now).cloned().map(Action::LeaveGroup));
        actions.extend(now.difference(&self.groups).cloned().map(Action::JoinGroup));
        self.groups = now;
    }
}

fn group(name: &str, field: &str) -> Result<GroupName, Refusal> {
    GroupName::parse(name).map_err(|fault| Refusal::new(Reason::InvalidTarget, fault.to_string()).field(field))
}

/// The tags of the token, and over them those of services.
fn merge(identity: &Identity, tags: &Tags) -> Tags {
    let mut merged = identity.tags.clone();
    merged.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}
