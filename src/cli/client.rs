//! `trestle sub`, `send` and `request`: a client by hand, in JSON.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use trestle_client::{JsonClient, JsonFrame, Options};

use super::page;
use crate::output::{self, Reader};

/// How much longer than the gateway the command waits for a reply: the gateway's own refusal says more than a timeout here.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which gateway, and as whom.
#[derive(Args)]
struct Gateway {
    /// WebSocket address of the gateway
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws", env = "TRESTLE_URL")]
    url: String,
    /// Token of the user [default: anonymous]
    #[arg(long, env = "TRESTLE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Gateway {
    async fn connect(&self) -> anyhow::Result<JsonClient> {
        let options = self.token.as_ref().map_or_else(Options::default, Options::with_token);
        JsonClient::connect(&self.url, options).await.with_context(|| format!("no session at {}", self.url))
    }
}

/// A message, as the command line gives it.
#[derive(Args)]
struct Message {
    /// Full name or alias of the message type
    message_type: String,
    /// The payload, as JSON
    #[arg(default_value = "{}")]
    payload: String,
    /// Version of the type [default: the highest]
    #[arg(long)]
    version: Option<String>,
}

impl Message {
    fn envelope(&self) -> anyhow::Result<Value> {
        let payload: Value = serde_json::from_str(&self.payload).context("the payload is not JSON")?;
        let mut envelope = json!({"messageType": self.message_type, "payload": payload});
        if let Some(version) = &self.version {
            envelope["version"] = json!(version);
        }
        Ok(envelope)
    }
}

/// Flags of `trestle sub`.
#[derive(Args)]
pub(crate) struct Sub {
    /// Channels, such as room:42; none: only what is pushed to the session, its user or everyone
    channels: Vec<String>,
    #[command(flatten)]
    gateway: Gateway,
    /// End after so many frames [default: never]
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

impl Sub {
    /// Prints what comes, until the gateway closes.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.gateway.connect().await?;
        let mut frames = client.frames().context("the frames were taken before")?;
        for channel in &self.channels {
            let answer = client.ask(json!({"subscribe": {"channel": channel}})).await?;
            if answer.error().is_some() {
                return answered(&answer);
            }
            output::remark(&answer);
        }
        let mut left = self.count.unwrap_or(usize::MAX);
        while left > 0 {
            let Some(frame) = frames.next().await else {
                output::remark(client.closed().await);
                return Ok(ExitCode::FAILURE);
            };
            if output::print(&frame)? == Reader::Gone {
                break;
            }
            left -= 1;
        }
        client.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Flags of `trestle send`.
#[derive(Args)]
pub(crate) struct Send {
    #[command(flatten)]
    message: Message,
    /// Publish on this channel instead of sending to the type's service
    #[arg(long)]
    channel: Option<String>,
    #[command(flatten)]
    gateway: Gateway,
    /// How long to wait for `accepted`
    #[arg(long, default_value = "35s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Send {
    /// Sends, and prints how far the message came.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let envelope = self.message.envelope()?;
        let frame = match &self.channel {
            Some(channel) => json!({"publish": {"channel": channel, "message": envelope}}),
            None => json!({"message": envelope}),
        };
        let client = self.gateway.connect().await?;
        let answer = client.ask_for(frame, self.timeout).await?;
        client.close().await;
        answered(&answer)
    }
}

/// Flags of `trestle request`.
#[derive(Args)]
pub(crate) struct Request {
    #[command(flatten)]
    message: Message,
    #[command(flatten)]
    gateway: Gateway,
    /// How long the service may take
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Request {
    /// Asks, and prints the reply.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let timeout = format!("{}s", self.timeout.as_secs_f64());
        let frame = json!({"request": {"message": self.message.envelope()?, "timeout": timeout}});
        let client = self.gateway.connect().await?;
        let answer = client.ask_for(frame, self.timeout + PATIENCE).await?;
        client.close().await;
        answered(&answer)
    }
}

/// Prints an answer; the exit code says whether it is an error.
fn answered(answer: &JsonFrame) -> anyhow::Result<ExitCode> {
    page(&answer.to_string())?;
    Ok(if answer.error().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
