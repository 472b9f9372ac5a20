//! What services and operators do with sessions: groups, tags, kicks. In: a request. Out: a [`v1::Control`] to the nodes
//! that hold the sessions, and to those that look after the sessions of nodes that are gone; and how many have done it.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use trestle_cluster::left_control;
use trestle_wire::{
    GroupName, Reason, Refusal,
    selector::{TAGS_MAX, check_tag},
    v1::{self, control::Action},
};

use crate::{Shared, target, target::Target};

/// Most groups that one update joins, and as many that it leaves: what a session can be in by default.
const GROUPS_MAX: usize = 64;
/// Longest reason of a kick, in bytes: a close frame holds 123.
const KICK_REASON_BYTES_MAX: usize = 100;
/// Whose sessions can be updated.
const UPDATABLE: &str = "session, user, group, tags, everyone";
/// Whose sessions can be ended.
const KICKABLE: &str = "session, user, group, tags";

impl Shared {
    /// Puts sessions into groups, takes them out, and sets their tags; returns how many have it.
    ///
    /// # Errors
    /// Those of the input, and of the bus.
    pub(crate) async fn update_sessions(&self, request: v1::UpdateSessionsRequest) -> Result<u32, Refusal> {
        let word = target::word(request.target.as_ref());
        let result = match check_update(&request) {
            Ok(target) => self.control(&target, request.target.clone(), Action::Update(request)).await,
            Err(refusal) => Err(refusal),
        };
        self.metrics.controlled("update", word, outcome(&result));
        result
    }

    /// Ends sessions for good; returns how many.
    ///
    /// # Errors
    /// Those of the input, and of the bus.
    pub(crate) async fn kick(&self, request: v1::KickRequest) -> Result<u32, Refusal> {
        let word = target::word(request.target.as_ref());
        let result = match check_kick(&request) {
            Ok(target) => self.control(&target, request.target.clone(), Action::Kick(request)).await,
            Err(refusal) => Err(refusal),
        };
        self.metrics.controlled("kick", word, outcome(&result));
        if let Ok(sessions) = result {
            tracing::info!(target = word, sessions, "sessions ended on request");
        }
        result
    }

    async fn control(&self, target: &Target, named: Option<v1::Target>, action: Action) -> Result<u32, Refusal> {
        let body = Bytes::from(v1::Control { target: named, action: Some(action) }.encode_to_vec());
        let (left, wait) = (left_control(&self.subjects), self.config.ask_wait);
        let holders = match target {
            Target::Session(session) => self.subjects.session_control(session),
            _ => self.subjects.control(),
        };
        let held = self.counts(target, &holders, body.clone(), wait);
        if let Target::Session(_) = target {
            let held = held.await?.delivered;
            // Whoever looks after it answers, and so do the others.
            return Ok(if held > 0 { held } else { self.counts_of_all(&left, body, wait).await?.delivered });
        }
        let (held, left) = tokio::try_join!(held, self.counts_of_all(&left, body, wait))?;
        Ok(held.delivered.saturating_add(left.delivered))
    }
}

fn outcome(result: &Result<u32, Refusal>) -> &'static str {
    result.as_ref().map_or_else(|refusal| refusal.reason.row().word, |_| "ok")
}

/// The target of an update that can be done.
fn check_update(update: &v1::UpdateSessionsRequest) -> Result<Target, Refusal> {
    let target = Target::parse(update.target.clone(), UPDATABLE)?.of_sessions(UPDATABLE)?;
    let v1::UpdateSessionsRequest { target: _, join_groups, leave_groups, set_tags, remove_tags } = update;
    if join_groups.is_empty() && leave_groups.is_empty() && set_tags.is_empty() && remove_tags.is_empty() {
        let sentence = "the update changes nothing: give join_groups, leave_groups, set_tags or remove_tags";
        return Err(Refusal::new(Reason::MalformedFrame, sentence));
    }
    let joined = check_groups(join_groups, "join_groups")?;
    let left = check_groups(leave_groups, "leave_groups")?;
    if let Some(both) = joined.intersection(&left).next() {
        let sentence = format!("group {both} is joined and left at once");
        return Err(Refusal::new(Reason::InvalidName, sentence).field("leave_groups"));
    }
    check_tags(set_tags, remove_tags)?;
    Ok(target)
}

fn check_groups<'a>(names: &'a [String], field: &str) -> Result<BTreeSet<&'a str>, Refusal> {
    if names.len() > GROUPS_MAX {
        let sentence = format!("{} groups; at most {GROUPS_MAX} go at once", names.len());
        return Err(Refusal::new(Reason::InvalidName, sentence).field(field));
    }
    for (index, name) in names.iter().enumerate() {
        GroupName::parse(name)
            .map_err(|error| Refusal::new(Reason::InvalidName, error.to_string()).field(format!("{field}[{index}]")))?;
    }
    Ok(names.iter().map(String::as_str).collect())
}

fn check_tags(set: &std::collections::BTreeMap<String, String>, remove: &[String]) -> Result<(), Refusal> {
    let refuse = |sentence: String, field: &str| Err(Refusal::new(Reason::InvalidTag, sentence).field(field));
    for (count, field) in [(set.len(), "set_tags"), (remove.len(), "remove_tags")] {
        if count > TAGS_MAX {
            return refuse(format!("{count} tags; a session has at most {TAGS_MAX}"), field);
        }
    }
    for (key, value) in set {
        if let Err(sentence) = check_tag(key, value) {
            return refuse(sentence, "set_tags");
        }
    }
    for (index, key) in remove.iter().enumerate() {
        if let Err(sentence) = check_tag(key, "") {
            return refuse(sentence, &format!("remove_tags[{index}]"));
        }
        if set.contains_key(key) {
            return refuse(format!("tag {key} is set and removed at once"), "remove_tags");
        }
    }
    Ok(())
}

/// The target of a kick that can be done.
fn check_kick(kick: &v1::KickRequest) -> Result<Target, Refusal> {
    let target = Target::parse(kick.target.clone(), KICKABLE)?.of_sessions(KICKABLE)?;
    if matches!(target, Target::Everyone(_)) {
        return Err(target.unfit(KICKABLE));
    }
    if kick.reason.len() > KICK_REASON_BYTES_MAX || kick.reason.chars().any(char::is_control) {
        let sentence = format!("a reason is at most {KICK_REASON_BYTES_MAX} bytes without control characters");
        return Err(Refusal::new(Reason::MalformedFrame, sentence).field("reason"));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: v1::target::Target) -> Option<v1::Target> {
        Some(v1::Target { target: Some(target) })
    }

    fn ann() -> v1::UpdateSessionsRequest {
        let target = of(v1::target::Target::User("ann".into()));
        v1::UpdateSessionsRequest { target, join_groups: vec!["vips".into()], ..v1::UpdateSessionsRequest::default() }
    }

    #[test]
    fn an_update_that_cannot_be_done_names_the_field() {
        let with = |change: &dyn Fn(&mut v1::UpdateSessionsRequest)| {
            let mut update = ann();
            change(&mut update);
            check_update(&update).map_err(|refusal| (refusal.reason, refusal.field.unwrap_or_default()))
        };
        let many = |count: usize| (0..count).map(|n| format!("n{n}")).collect::<Vec<_>>();
        let tags = |count: usize| (0..count).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        let refused = |reason, field: &str| Err((reason, field.to_owned()));
        type T = v1::target::Target;
        assert!(with(&|_| {}).is_ok());
        assert_eq!(with(&|u| u.target = None), refused(Reason::InvalidTarget, "target"));
        assert_eq!(
            with(&|u| u.target = of(T::Channel("room:1".into()))),
            refused(Reason::InvalidTarget, "target.channel")
        );
        assert_eq!(with(&|u| u.target = of(T::Inbox("ann".into()))), refused(Reason::InvalidTarget, "target.inbox"));
        assert_eq!(with(&|u| u.join_groups.clear()), refused(Reason::MalformedFrame, ""));
        assert_eq!(with(&|u| u.join_groups.push("a b".into())), refused(Reason::InvalidName, "join_groups[1]"));
        assert_eq!(with(&|u| u.join_groups = many(65)), refused(Reason::InvalidName, "join_groups"));
        assert_eq!(with(&|u| u.leave_groups = vec![String::new()]), refused(Reason::InvalidName, "leave_groups[0]"));
        assert_eq!(with(&|u| u.leave_groups = vec!["vips".into()]), refused(Reason::InvalidName, "leave_groups"));
        assert_eq!(with(&|u| u.set_tags = tags(33)), refused(Reason::InvalidTag, "set_tags"));
        assert_eq!(
            with(&|u| drop(u.set_tags.insert("not".into(), "v".into()))),
            refused(Reason::InvalidTag, "set_tags")
        );
        assert_eq!(with(&|u| u.remove_tags = many(33)), refused(Reason::InvalidTag, "remove_tags"));
        assert_eq!(with(&|u| u.remove_tags = vec!["a b".into()]), refused(Reason::InvalidTag, "remove_tags[0]"));
        let both = |u: &mut v1::UpdateSessionsRequest| {
            u.set_tags = tags(1);
            u.remove_tags = vec!["k0".into()];
        };
        assert_eq!(with(&both), refused(Reason::InvalidTag, "remove_tags"));
        assert!(with(&|u| u.target = of(T::Everyone(v1::Everyone::default()))).is_ok());
    }

    #[test]
    fn everyone_cannot_be_kicked_at_once() {
        let kick = |target, reason: &str| {
            let kick = v1::KickRequest { target: of(target), reason: reason.into() };
            check_kick(&kick).map_err(|refusal| (refusal.reason, refusal.field.unwrap_or_default()))
        };
        type T = v1::target::Target;
        assert!(kick(T::User("ann".into()), &"x".repeat(100)).is_ok());
        assert_eq!(
            kick(T::Everyone(v1::Everyone::default()), ""),
            Err((Reason::InvalidTarget, "target.everyone".into()))
        );
        assert_eq!(kick(T::User("ann".into()), &"x".repeat(101)), Err((Reason::MalformedFrame, "reason".into())));
        assert_eq!(kick(T::User("ann".into()), "a\nb"), Err((Reason::MalformedFrame, "reason".into())));
    }
}
