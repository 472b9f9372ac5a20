//! Whom a command is for.

use clap::Args;
use serde_json::{Value, json};

/// Sessions, by one of these.
#[derive(Args)]
pub(super) struct Whose {
    /// One session
    #[arg(long, value_name = "ID", group = "whose")]
    pub(super) session: Option<String>,
    /// The sessions of a user
    #[arg(long, value_name = "ID", group = "whose")]
    pub(super) user: Option<String>,
    /// The sessions in a group
    #[arg(long, value_name = "NAME", group = "whose")]
    pub(super) group: Option<String>,
    /// The sessions whose tags match, such as 'plan=pro AND region IN (eu, us)'
    #[arg(long, value_name = "SELECTOR", group = "whose")]
    pub(super) tags: Option<String>,
}

impl Whose {
    /// The kind and the name, if one is given.
    pub(super) fn named(&self) -> Option<(&'static str, &str)> {
        let kinds = [("session", &self.session), ("user", &self.user), ("group", &self.group), ("tags", &self.tags)];
        kinds.into_iter().find_map(|(kind, name)| Some((kind, name.as_deref()?)))
    }

    /// The target, if one is given.
    pub(super) fn target(&self) -> Option<Value> {
        self.named().map(|(kind, name)| json!({ kind: name }))
    }
}

/// Every session, or all but some.
#[derive(Args)]
pub(super) struct Everyone {
    /// Every session of every node
    #[arg(long, group = "whose")]
    everyone: bool,
    /// With --everyone: but not this session; up to 64 times
    #[arg(long, value_name = "ID", requires = "everyone")]
    except: Vec<String>,
}

impl Everyone {
    /// The target, if it is given.
    pub(super) fn target(&self) -> Option<Value> {
        self.everyone.then(|| json!({"everyone": {"exceptSessions": self.except}}))
    }
}

/// A target in one word: `channel:NAME`, `user:ID` and so on, `everyone`, or a channel as it is.
pub(super) fn target_of(word: &str) -> Value {
    match word.split_once(':') {
        None if word == "everyone" => json!({"everyone": {}}),
        Some((kind @ ("channel" | "session" | "group" | "user" | "tags" | "inbox"), name)) => json!({ kind: name }),
        _ => json!({"channel": word}),
    }
}
