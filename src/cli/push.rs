//! `trestle push`: `POST /v1/push`, by hand.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::page;

/// Flags of `trestle push`.
#[derive(Args)]
pub(crate) struct Push {
    /// channel:NAME, user:ID, session:ID or everyone; a channel may be named as it is (room:42)
    target: String,
    /// Full name or alias of the message type
    message_type: String,
    /// The payload, as JSON
    #[arg(default_value = "{}")]
    payload: String,
    /// Address of the gateway's HTTP side
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
}

impl Push {
    /// Pushes, and prints the report.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let payload: serde_json::Value = serde_json::from_str(&self.payload).context("the payload is not JSON")?;
        let target = match self.target.split_once(':') {
            None if self.target == "everyone" => serde_json::json!({"everyone": {}}),
            Some((kind @ ("channel" | "user" | "session"), name)) => serde_json::json!({ kind: name }),
            _ => serde_json::json!({"channel": self.target}),
        };
        let message = serde_json::json!({"messageType": self.message_type, "payload": payload});
        let body = serde_json::json!({"target": target, "message": message}).to_string();
        let (status, answer) = post(&self.url, "/v1/push", body).await?;
        page(&answer)?;
        Ok(if status < 300 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn post(url: &str, path: &str, body: String) -> anyhow::Result<(u16, String)> {
    let Some(address) = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
        bail!("{url} is not http://host:port");
    };
    let stream = TcpStream::connect(address).await.with_context(|| format!("no gateway at {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header(hyper::header::HOST, address)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
}
