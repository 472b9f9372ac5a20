//! `trestle push`: `POST /v1/push`, by hand.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{
    api::Gateway,
    target::{Everyone, Whose, target_of},
};

/// Flags of `trestle push`.
#[derive(Args)]
#[command(override_usage = "trestle push [OPTIONS] <TARGET> <MESSAGE_TYPE> [PAYLOAD]\n       \
                            trestle push [OPTIONS] --user <ID> <MESSAGE_TYPE> [PAYLOAD]  (or another target's flag)")]
pub(crate) struct Push {
    /// TARGET unless a flag names it: channel:NAME, session:ID, group:NAME, user:ID, tags:SELECTOR, inbox:ID or everyone;
    /// a channel may be named as it is (room:42). Then the full name or alias of the message type, and the payload as
    /// JSON [default: {}]
    #[arg(required = true, num_args = 1..=3, value_name = "TARGET MESSAGE_TYPE PAYLOAD")]
    words: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    everyone: Everyone,
    /// Everyone on a channel
    #[arg(long, value_name = "NAME", group = "whose")]
    channel: Option<String>,
    /// The inbox of a user, who gets it now or later
    #[arg(long, value_name = "ID", group = "whose")]
    inbox: Option<String>,
    /// Version of the type [default: the highest]
    #[arg(long)]
    version: Option<String>,
    /// Id of the message: on a channel with history, and in an inbox, one id is pushed once
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    gateway: Gateway,
}

impl Push {
    /// Pushes, and prints the report.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        self.gateway.post("/v1/push", &self.request()?).await?.print()
    }

    fn request(&self) -> anyhow::Result<Value> {
        let flag = self.whose.target().or_else(|| self.everyone.target());
        let flag = flag.or_else(|| self.channel.as_ref().map(|name| json!({"channel": name})));
        let flag = flag.or_else(|| self.inbox.as_ref().map(|user| json!({"inbox": user})));
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let (target, message_type, payload) = match (flag, &words[..]) {
            (Some(target), [message_type]) => (target, *message_type, "{}"),
            (Some(target), [message_type, payload]) => (target, *message_type, *payload),
            (Some(_), _) => bail!("a flag names the target already: give the message type and the payload only"),
            (None, [target, message_type]) => (target_of(target), *message_type, "{}"),
            (None, [target, message_type, payload]) => (target_of(target), *message_type, *payload),
            (None, _) => {
                bail!("give a target and a message type: trestle push room:42 chat.v1.Comment '{{\"text\":\"hi\"}}'")
            }
        };
        let payload: Value = serde_json::from_str(payload).context("the payload is not JSON")?;
        let mut message = json!({"messageType": message_type, "payload": payload});
        for (name, value) in [("version", &self.version), ("id", &self.id)] {
            if let Some(value) = value {
                message[name] = json!(value);
            }
        }
        Ok(json!({"target": target, "message": message}))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        push: Push,
    }

    fn request(args: &[&str]) -> Result<Value, String> {
        let args = std::iter::once("push").chain(args.iter().copied());
        let command = Command::try_parse_from(args).map_err(|error| error.to_string())?;
        command.push.request().map_err(|error| error.to_string())
    }

    #[test]
    fn every_target_has_a_flag_and_a_word() {
        for (args, target) in [
            (&["room:42"][..], json!({"channel": "room:42"})),
            (&["channel:room:42"], json!({"channel": "room:42"})),
            (&["--channel", "room:42"], json!({"channel": "room:42"})),
            (&["session:n.1"], json!({"session": "n.1"})),
            (&["--session", "n.1"], json!({"session": "n.1"})),
            (&["group:vips"], json!({"group": "vips"})),
            (&["--group", "vips"], json!({"group": "vips"})),
            (&["user:ann"], json!({"user": "ann"})),
            (&["--user", "ann"], json!({"user": "ann"})),
            (&["tags:plan=pro"], json!({"tags": "plan=pro"})),
            (&["--tags", "plan=pro"], json!({"tags": "plan=pro"})),
            (&["everyone"], json!({"everyone": {}})),
            (&["--everyone"], json!({"everyone": {"exceptSessions": []}})),
            (
                &["--everyone", "--except", "n.1", "--except", "n.2"],
                json!({"everyone": {"exceptSessions": ["n.1", "n.2"]}}),
            ),
            (&["inbox:ann"], json!({"inbox": "ann"})),
            (&["--inbox", "ann"], json!({"inbox": "ann"})),
        ] {
            for payload in [&[][..], &[r#"{"text":"hi"}"#]] {
                let all: Vec<&str> = args.iter().copied().chain(["a.B"]).chain(payload.iter().copied()).collect();
                let request = request(&all).unwrap_or_else(|error| panic!("{all:?}: {error}"));
                let text = if payload.is_empty() { json!({}) } else { json!({"text": "hi"}) };
                assert_eq!(request, json!({"target": target, "message": {"messageType": "a.B", "payload": text}}));
            }
        }
        let request = request(&["room:1", "a.B", "--version", "2", "--id", "m1"]).expect("valid");
        assert_eq!((&request["message"]["version"], &request["message"]["id"]), (&json!("2"), &json!("m1")));
    }

    #[test]
    fn what_names_no_target_or_two_is_refused() {
        for (args, said) in [
            (&["a.B"][..], "give a target"),
            (&["room:1", "a.B", "{"], "not JSON"),
            (&["--user", "ann", "room:1", "a.B", "{}"], "already"),
            (&["--user", "ann", "--group", "vips", "a.B"], "cannot be used with"),
            (&["--user", "ann", "--inbox", "ann", "a.B"], "cannot be used with"),
            (&["--except", "n.1", "everyone", "a.B"], "--everyone"),
            (&[], "required"),
        ] {
            let error = request(args).expect_err("refused");
            assert!(error.contains(said), "{args:?}: {error}");
        }
    }
}
