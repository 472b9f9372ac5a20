//! The gateway's HTTP side, as commands call it.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::net::TcpStream;
use trestle_wire::Reason;

use super::page;
use crate::output;

/// How long a gateway may take to answer. 30 s: batch work's own time limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which gateway.
#[derive(Args)]
pub(super) struct Gateway {
    /// Address of the HTTP side of a gateway with role bridge
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "TRESTLE_HTTP_URL")]
    url: String,
}

/// How the answer is shown.
#[derive(Args)]
pub(super) struct Shown {
    /// Print the gateway's own JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What a gateway has answered.
pub(super) struct Answer {
    status: u16,
    body: String,
}

impl Gateway {
    /// Reads a path.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    /// Sends `body` to a path.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Answer> {
        let Some(address) = self.url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
            bail!("{} is not http://host:port (--url)", self.url);
        };
        let called = tokio::time::timeout(PATIENCE, call(address, method, path, body)).await;
        called.with_context(|| format!("the gateway at {address} did not answer within {PATIENCE:?}"))?
    }
}

async fn call(address: &str, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address);
    let stream =
        stream.await.with_context(|| format!("no gateway at {address}; start one, or say where it is (--url)"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, address)
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body.unwrap_or_default()))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).trim_end().to_owned() })
}

/// `{"error":{...}}`, as much of it as a person is told.
#[derive(Deserialize)]
struct Refused {
    error: RefusedBecause,
}

#[derive(Deserialize)]
struct RefusedBecause {
    reason: String,
    message: String,
    #[serde(default)]
    field: String,
}

impl Answer {
    fn is_ok(&self) -> bool {
        self.status < 300
    }

    /// Prints the JSON; the exit code says whether it is an error.
    pub(super) fn print(&self) -> anyhow::Result<ExitCode> {
        if self.body.is_empty() {
            bail!(self.because());
        }
        page(&self.body)?;
        Ok(if self.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Shows it as `shown` says: the JSON, or what `told` makes of it for people.
    pub(super) fn show<T: DeserializeOwned>(
        &self,
        shown: &Shown,
        told: impl FnOnce(T) -> String,
    ) -> anyhow::Result<ExitCode> {
        if shown.json {
            return self.print();
        }
        if !self.is_ok() {
            output::remark(format!("trestle: {}", self.because()));
            return Ok(ExitCode::FAILURE);
        }
        let answer = serde_json::from_str(&self.body).context("the gateway's answer is not what was asked for")?;
        page(&told(answer))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Why it is refused, and what to do.
    fn because(&self) -> String {
        let Ok(Refused { error }) = serde_json::from_str::<Refused>(&self.body) else {
            return match self.status {
                404 => "the gateway has no HTTP API: http_api is off, or it has no role bridge".into(),
                status => format!("the gateway answered with status {status}: {}", self.body),
            };
        };
        let RefusedBecause { reason, message, field } = error;
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let row = Reason::of_word(&reason).map(Reason::row);
        let advice = row.map(|row| format!("\n{}", row.advice)).unwrap_or_default();
        format!("{reason}: {place}{message}{advice}")
    }
}

/// `text` as part of a path or a query: what is neither a letter, a digit nor one of `-._~:` is `%XX`.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_part_of_the_path() {
        assert_eq!(escaped("room:42"), "room:42");
        assert_eq!(escaped("a/b?c&d=e é"), "a%2Fb%3Fc%26d%3De%20%C3%A9");
    }

    #[test]
    fn a_refusal_is_told_with_its_field_and_what_to_do() {
        let body =
            r#"{"error":{"code":"NOT_FOUND","reason":"unknown_node","message":"no node x lives","field":"node"}}"#;
        let because = Answer { status: 404, body: body.into() }.because();
        assert!(because.starts_with("unknown_node: node: no node x lives\n"), "{because}");
        assert!(because.contains("`trestle nodes` lists them"), "{because}");
        let off = Answer { status: 404, body: String::new() }.because();
        assert!(off.contains("http_api"), "{off}");
        let odd = Answer { status: 502, body: "Bad Gateway".into() }.because();
        assert!(odd.contains("502") && odd.contains("Bad Gateway"), "{odd}");
    }
}
