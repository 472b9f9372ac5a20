//! `trestle sessions`, `presence`, `update` and `kick`.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::bail;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{Gateway, Shown, escaped},
    target::{Everyone, Whose},
};
use crate::output::{self, count, table};

/// Most names of a list that one cell of a table shows.
const CELL_NAMES_MAX: usize = 3;

/// Flags of `trestle sessions`.
#[derive(Args)]
pub(crate) struct Sessions {
    #[command(flatten)]
    whose: Whose,
    /// Only those that listen to this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Most sessions, at most 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Sessions after this one, the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionList {
    sessions: Vec<Session>,
    more: bool,
    /// An older gateway does not say.
    #[serde(default)]
    silent_nodes: Vec<String>,
}

/// `trestle.v1.SessionInfo` in JSON.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Session {
    session_id: String,
    state: String,
    user: String,
    address: String,
    node: String,
    heartbeat_age: String,
    subscriptions: Vec<String>,
    groups: Vec<String>,
    tags: BTreeMap<String, String>,
    queue_frames: u32,
    queue_bytes: String,
}

impl Sessions {
    /// Prints a row for each session.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.get(&format!("/v1/sessions?{}", self.query())).await?;
        answer.show(&self.shown, |list: SessionList| {
            if list.more
                && let Some(last) = list.sessions.last()
            {
                output::remark(format!("there are more: --after {}", last.session_id));
            }
            if !list.silent_nodes.is_empty() {
                let nodes = list.silent_nodes.join(", ");
                output::remark(format!("without the sessions of nodes that did not answer in time: {nodes}"));
            }
            let head =
                ["SESSION", "STATE", "USER", "NODE", "ADDRESS", "HEARTBEAT", "QUEUE", "CHANNELS", "GROUPS", "TAGS"];
            table(head, list.sessions.into_iter().map(row))
        })
    }

    fn query(&self) -> String {
        let limit = self.limit.to_string();
        let named = self.whose.named();
        let parts =
            [("limit", Some(limit.as_str())), ("channel", self.channel.as_deref()), ("after", self.after.as_deref())];
        let parts = parts.into_iter().filter_map(|(key, value)| Some((key, value?)));
        parts.chain(named).map(|(key, value)| format!("{key}={}", escaped(value))).collect::<Vec<_>>().join("&")
    }
}

fn row(session: Session) -> [String; 10] {
    let bytes = if session.queue_bytes.is_empty() { "0" } else { &session.queue_bytes };
    let queue = format!("{} ({bytes} B)", session.queue_frames);
    let tags: Vec<_> = session.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        session.session_id,
        session.state.to_lowercase(),
        session.user,
        session.node,
        session.address,
        whole_seconds(&session.heartbeat_age),
        queue,
        cell(&session.subscriptions),
        cell(&session.groups),
        cell(&tags),
    ]
}

/// A duration in JSON without its fraction: `2.5s` is `2s`.
fn whole_seconds(duration: &str) -> String {
    duration.split_once('.').map_or_else(|| duration.to_owned(), |(seconds, _)| format!("{seconds}s"))
}

/// The first names of a list, and how many more there are.
fn cell(names: &[String]) -> String {
    let shown = names[..names.len().min(CELL_NAMES_MAX)].join(",");
    match names.len().saturating_sub(CELL_NAMES_MAX) {
        0 => shown,
        more => format!("{shown} +{more}"),
    }
}

/// Flags of `trestle presence`.
#[derive(Args)]
pub(crate) struct Presence {
    /// The channel, such as room:42
    channel: String,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct Present {
    presence: State,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    sessions: u32,
    users: u32,
    members: Vec<Member>,
    complete: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    session_id: String,
    user: String,
}

impl Presence {
    /// Prints a row for each session on the channel, or how many there are.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.get(&format!("/v1/presence/{}", escaped(&self.channel))).await?;
        answer.show(&self.shown, |Present { presence }: Present| {
            let State { sessions, users, members, complete } = presence;
            let total = format!("{}, {}", count(sessions, "session"), count(users, "user"));
            if !complete {
                return format!("{total}; too many to list");
            }
            let rows = members.into_iter().map(|member| [member.session_id, member.user]);
            format!("{}\n{total}", table(["SESSION", "USER"], rows))
        })
    }
}

/// Flags of `trestle update`.
#[derive(Args)]
pub(crate) struct Update {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    everyone: Everyone,
    /// Put them into this group; may be given several times
    #[arg(long, value_name = "GROUP")]
    join: Vec<String>,
    /// Take them out of this group; may be given several times
    #[arg(long, value_name = "GROUP")]
    leave: Vec<String>,
    /// Set this tag; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove this tag; may be given several times
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct Counted {
    sessions: u32,
}

impl Update {
    /// Changes groups and tags; says how many sessions have it.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.post("/v1/sessions/update", &self.request()?).await?;
        answer.show(&self.shown, |Counted { sessions }: Counted| format!("{} changed", count(sessions, "session")))
    }

    fn request(&self) -> anyhow::Result<Value> {
        let Some(target) = self.whose.target().or_else(|| self.everyone.target()) else {
            bail!("say whose sessions: --session, --user, --group, --tags or --everyone");
        };
        if self.join.is_empty() && self.leave.is_empty() && self.set.is_empty() && self.remove.is_empty() {
            bail!("say what to change: --join, --leave, --set or --remove");
        }
        let mut set = BTreeMap::new();
        for tag in &self.set {
            let Some((key, value)) = tag.split_once('=') else { bail!("--set {tag:?} is not KEY=VALUE") };
            set.insert(key, value);
        }
        let (join, leave, remove) = (&self.join, &self.leave, &self.remove);
        Ok(json!({"target": target, "joinGroups": join, "leaveGroups": leave, "setTags": set, "removeTags": remove}))
    }
}

/// Flags of `trestle kick`.
#[derive(Args)]
pub(crate) struct Kick {
    #[command(flatten)]
    whose: Whose,
    /// Told to the clients, at most 100 bytes
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

impl Kick {
    /// Ends sessions; says how many.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(target) = self.whose.target() else {
            bail!("say whose sessions: --session, --user, --group or --tags");
        };
        let answer = self.gateway.post("/v1/kick", &json!({"target": target, "reason": self.reason})).await?;
        answer.show(&self.shown, |Counted { sessions }: Counted| format!("{} ended", count(sessions, "session")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Command {
        Sessions(Sessions),
        Update(Update),
    }

    fn parse(args: &[&str]) -> Result<Command, String> {
        Command::try_parse_from(std::iter::once("x").chain(args.iter().copied())).map_err(|error| error.to_string())
    }

    fn update(args: &[&str]) -> Result<Value, String> {
        let all: Vec<_> = std::iter::once("update").chain(args.iter().copied()).collect();
        match parse(&all)? {
            Command::Update(update) => update.request().map_err(|error| error.to_string()),
            Command::Sessions(_) => panic!("an update"),
        }
    }

    #[test]
    fn an_update_says_all_that_changes() {
        let args = ["--user", "ann", "--join", "vips", "--join", "eu", "--set", "plan=a=b", "--remove", "trial"];
        let expected = json!({
            "target": {"user": "ann"}, "joinGroups": ["vips", "eu"], "leaveGroups": [],
            "setTags": {"plan": "a=b"}, "removeTags": ["trial"],
        });
        assert_eq!(update(&args), Ok(expected));
        for (args, said) in [
            (&["--join", "vips"][..], "whose"),
            (&["--user", "ann"], "what to change"),
            (&["--user", "ann", "--set", "plan"], "KEY=VALUE"),
            (&["--user", "ann", "--everyone", "--join", "x"], "cannot be used with"),
        ] {
            let error = update(args).expect_err("refused");
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }

    #[test]
    fn a_query_says_whose_and_where() {
        let query = |args: &[&str]| match parse(args) {
            Ok(Command::Sessions(sessions)) => sessions.query(),
            Ok(Command::Update(_)) => panic!("no sessions"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(query(&["sessions"]), "limit=100");
        let tags = ["sessions", "--tags", "plan=pro AND x", "--channel", "room:1", "--limit", "5", "--after", "n.1"];
        assert_eq!(query(&tags), "limit=5&channel=room:1&after=n.1&tags=plan%3Dpro%20AND%20x");
    }

    #[test]
    fn a_row_is_short_however_much_there_is() {
        let json = r#"{"sessionId":"n.1","state":"PENDING","user":"ann","node":"n","address":"10.0.0.1:5",
            "heartbeatAge":"2.5s","subscriptions":["a","b","c","d","e"],"groups":["g"],"tags":{"k":"v"},
            "queueFrames":3,"queueBytes":"99"}"#;
        let row = row(serde_json::from_str(json).expect("valid"));
        let expected = ["n.1", "pending", "ann", "n", "10.0.0.1:5", "2s", "3 (99 B)", "a,b,c +2", "g", "k=v"];
        assert_eq!(row, expected.map(str::to_owned));
    }
}
