//! Whom something is for, as services and operators name it: parsed once, before anything is done.

use trestle_wire::{
    ChannelName, GroupName, Reason, Refusal, Selector, SessionId, UserId,
    name::INBOX,
    v1::{self, target},
};

/// Most sessions that do not get a push to everyone: 64 ids of up to 97 bytes are 6 KiB of each such push.
const EXCEPT_MAX: usize = 64;

/// A target whose names are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Everyone on a channel.
    Channel(ChannelName),
    /// One session.
    Session(SessionId),
    /// The sessions in a group.
    Group(GroupName),
    /// The sessions of a user.
    User(UserId),
    /// The sessions whose tags match.
    Tags(Selector),
    /// Every session but these.
    Everyone(Vec<SessionId>),
    /// What is kept for a user.
    Inbox(UserId),
}

/// The kinds, as metrics and the protocol name them.
pub(crate) const WORDS: [&str; 7] = ["channel", "session", "group", "user", "tags", "everyone", "inbox"];

impl Target {
    /// Parses a target; `whose` says in a refusal which kinds there could have been.
    ///
    /// # Errors
    /// [`Reason::InvalidTarget`], [`Reason::InvalidChannel`], [`Reason::InvalidSelector`]; the field is named from
    /// `target` on.
    pub(crate) fn parse(target: Option<v1::Target>, whose: &str) -> Result<Self, Refusal> {
        let target = target.and_then(|target| target.target).ok_or_else(|| {
            Refusal::new(Reason::InvalidTarget, format!("no target is named: one of {whose}")).field("target")
        })?;
        match target {
            target::Target::Channel(name) => channel(&name, "target.channel").map(Self::Channel),
            target::Target::Session(id) => session(&id, "target.session").map(Self::Session),
            target::Target::Group(name) => {
                GroupName::parse(&name).map(Self::Group).map_err(|error| invalid(&error, "target.group"))
            }
            target::Target::User(id) => user(&id, "target.user").map(Self::User),
            target::Target::Tags(text) => Selector::parse(&text)
                .map(Self::Tags)
                .map_err(|error| Refusal::new(Reason::InvalidSelector, error.to_string()).field("target.tags")),
            target::Target::Everyone(everyone) => everyone_but(&everyone.except_sessions).map(Self::Everyone),
            target::Target::Inbox(id) => user(&id, "target.inbox").map(Self::Inbox),
        }
    }

    /// The kind, as metrics and the protocol name it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::Session(_) => "session",
            Self::Group(_) => "group",
            Self::User(_) => "user",
            Self::Tags(_) => "tags",
            Self::Everyone(_) => "everyone",
            Self::Inbox(_) => "inbox",
        }
    }

    /// Refuses a channel and an inbox where sessions are meant; `whose` says which kinds there could have been.
    ///
    /// # Errors
    /// [`Reason::InvalidTarget`].
    pub(crate) fn of_sessions(self, whose: &str) -> Result<Self, Refusal> {
        match self {
            Self::Channel(_) | Self::Inbox(_) => Err(self.unfit(whose)),
            Self::Session(_) | Self::Group(_) | Self::User(_) | Self::Tags(_) | Self::Everyone(_) => Ok(self),
        }
    }

    /// The refusal of a kind that does not fit.
    pub(crate) fn unfit(&self, whose: &str) -> Refusal {
        let word = self.word();
        let sentence = format!("{word} is no target here; it takes one of {whose}");
        Refusal::new(Reason::InvalidTarget, sentence).field(format!("target.{word}"))
    }
}

/// The kind that an unparsed target names; for metrics of what was refused.
pub(crate) fn word(target: Option<&v1::Target>) -> &'static str {
    match target.and_then(|target| target.target.as_ref()) {
        None => "none",
        Some(target::Target::Channel(_)) => "channel",
        Some(target::Target::Session(_)) => "session",
        Some(target::Target::Group(_)) => "group",
        Some(target::Target::User(_)) => "user",
        Some(target::Target::Tags(_)) => "tags",
        Some(target::Target::Everyone(_)) => "everyone",
        Some(target::Target::Inbox(_)) => "inbox",
    }
}

/// A channel's name; the inboxes of users are no channels that can be named.
///
/// # Errors
/// [`Reason::InvalidChannel`].
pub(crate) fn channel(name: &str, field: &str) -> Result<ChannelName, Refusal> {
    let refuse = |sentence: String| Refusal::new(Reason::InvalidChannel, sentence).field(field);
    let channel = ChannelName::parse(name).map_err(|error| refuse(error.to_string()))?;
    if channel.namespace() == INBOX {
        return Err(refuse(format!("the namespace {INBOX} is that of users' inboxes; use the target `inbox`")));
    }
    Ok(channel)
}

/// A session's id.
///
/// # Errors
/// [`Reason::InvalidTarget`].
pub(crate) fn session(id: &str, field: &str) -> Result<SessionId, Refusal> {
    SessionId::parse(id).map_err(|error| invalid(&error, field))
}

fn user(id: &str, field: &str) -> Result<UserId, Refusal> {
    UserId::parse(id).map_err(|error| invalid(&error, field))
}

fn everyone_but(except: &[String]) -> Result<Vec<SessionId>, Refusal> {
    if except.len() > EXCEPT_MAX {
        let sentence = format!("{} sessions are left out; at most {EXCEPT_MAX} can be", except.len());
        return Err(Refusal::new(Reason::InvalidTarget, sentence).field("target.everyone.except_sessions"));
    }
    let parsed = except.iter().enumerate();
    parsed.map(|(index, id)| session(id, &format!("target.everyone.except_sessions[{index}]"))).collect()
}

fn invalid(error: &trestle_wire::InvalidName, field: &str) -> Refusal {
    Refusal::new(Reason::InvalidTarget, error.to_string()).field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: target::Target) -> Result<Target, (Reason, Option<String>)> {
        let target = v1::Target { target: Some(target) };
        Target::parse(Some(target), "any").map_err(|refusal| (refusal.reason, refusal.field))
    }

    #[test]
    fn a_target_is_refused_by_the_field_that_is_wrong() {
        use target::Target as T;
        let but =
            |ids: &[&str]| T::Everyone(v1::Everyone { except_sessions: ids.iter().map(ToString::to_string).collect() });
        let one = "n.00000000000000000000000000000001";
        for (target, reason, field) in [
            (T::Channel("room:*".into()), Reason::InvalidChannel, "target.channel"),
            (T::Channel("inbox:ann".into()), Reason::InvalidChannel, "target.channel"),
            (T::Channel("inbox".into()), Reason::InvalidChannel, "target.channel"),
            (T::Session("ann".into()), Reason::InvalidTarget, "target.session"),
            (T::Group("a b".into()), Reason::InvalidTarget, "target.group"),
            (T::Group(String::new()), Reason::InvalidTarget, "target.group"),
            (T::User(" ann".into()), Reason::InvalidTarget, "target.user"),
            (T::Inbox(String::new()), Reason::InvalidTarget, "target.inbox"),
            (T::Tags(String::new()), Reason::InvalidSelector, "target.tags"),
            (T::Tags("plan=".into()), Reason::InvalidSelector, "target.tags"),
            (but(&[one, "x"]), Reason::InvalidTarget, "target.everyone.except_sessions[1]"),
            (but(&[one; 65]), Reason::InvalidTarget, "target.everyone.except_sessions"),
        ] {
            assert_eq!(parse(target.clone()), Err((reason, Some(field.into()))), "{target:?}");
        }
        assert_eq!(Target::parse(None, "any").map_err(|refusal| refusal.field), Err(Some("target".into())));
        assert!(matches!(parse(but(&[one; 64])), Ok(Target::Everyone(except)) if except.len() == 64));
    }

    #[test]
    fn a_parsed_target_has_the_word_of_the_unparsed_one() {
        use target::Target as T;
        let session = "n.00000000000000000000000000000001";
        for target in [
            T::Channel("room:1".into()),
            T::Session(session.into()),
            T::Group("vips".into()),
            T::User("ann".into()),
            T::Tags("plan=pro".into()),
            T::Everyone(v1::Everyone::default()),
            T::Inbox("ann".into()),
        ] {
            let unparsed = v1::Target { target: Some(target.clone()) };
            let word = word(Some(&unparsed));
            assert_eq!(parse(target).expect("valid").word(), word);
            assert!(WORDS.contains(&word), "{word} is counted");
        }
    }
}
