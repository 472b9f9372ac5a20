//! The real OpenTelemetry collector, and the spans that have reached it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long the collector may take to start: 0.2 s on a quiet machine, seconds on a busy one.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at something outside this process, of which there is no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The ports are chosen before the collector binds them; someone else may be faster.
const ATTEMPTS: usize = 3;

/// A span as it reached the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// Its own id: 16 hexadecimal digits.
    pub span_id: String,
    /// Id of the span it belongs to; `None` for the first of a trace.
    pub parent: Option<String>,
    /// What it is called.
    pub name: String,
    /// The `service.name` of who recorded it.
    pub service: String,
}

/// A running collector that takes OTLP by gRPC on a free port. Stopped when dropped.
#[derive(Debug)]
pub struct Collector {
    _child: Child,
    _dir: TempDir,
    endpoint: String,
    file: PathBuf,
}

impl Collector {
    /// Starts a collector; it takes spans when this returns. The first time on a machine it is built, which takes
    /// minutes.
    ///
    /// # Errors
    /// If it cannot be had, or does not start; with the end of its log.
    pub async fn start() -> anyhow::Result<Self> {
        let binary = crate::provide("otelcol").await?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::attempt(&binary).await {
                Ok(collector) => return Ok(collector),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there was an attempt")).context("the collector does not start")
    }

    async fn attempt(binary: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("spans.jsonl");
        let [otlp, health] = free_ports()?;
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{otlp}\"}}}}}}}}\n\
             exporters: {{file: {{path: {file:?}, flush_interval: 50ms}}}}\n\
             extensions: {{health_check: {{endpoint: \"127.0.0.1:{health}\"}}}}\n\
             service:\n  extensions: [health_check]\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n"
        );
        let (config_path, log_path) = (dir.path().join("config.yaml"), dir.path().join("log"));
        fs::write(&config_path, config)?;
        let mut child = Command::new(binary)
            .arg("--config")
            .arg(&config_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log_path)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be run", binary.display()))?;
        tokio::select! {
            healthy = timeout(START_TIMEOUT, healthy(health)) => healthy.context("not healthy in time")?,
            ended = child.wait() => {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("ended with {}: {}", ended?, log.lines().rev().take(5).collect::<Vec<_>>().join(" | "));
            }
        }
        Ok(Self { _child: child, _dir: dir, endpoint: format!("http://127.0.0.1:{otlp}"), file })
    }

    /// Where spans are sent, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The spans that have come so far.
    ///
    /// # Errors
    /// If what the collector wrote cannot be read.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        // There is no file before the first span.
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // The last line may be half written.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut spans = Vec::new();
        for line in whole.lines() {
            read_line(&serde_json::from_str(line).context("the collector wrote no JSON")?, &mut spans)?;
        }
        Ok(spans)
    }

    /// The spans of trace `trace_id`, once there is one of each name.
    ///
    /// # Errors
    /// If a name is missing after `within`; says which have come.
    pub async fn trace(&self, trace_id: &str, names: &[&str], within: Duration) -> anyhow::Result<Vec<Span>> {
        let until = Instant::now() + within;
        loop {
            let spans: Vec<_> = self.spans()?.into_iter().filter(|span| span.trace_id == trace_id).collect();
            if names.iter().all(|name| spans.iter().any(|span| span.name == *name)) {
                return Ok(spans);
            }
            if Instant::now() > until {
                let come: Vec<_> = spans.iter().map(|span| &*span.name).collect();
                bail!("trace {trace_id} has {come:?} after {within:?}, not all of {names:?}");
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// One line of the file exporter: an OTLP `TracesData` in JSON.
fn read_line(data: &Value, into: &mut Vec<Span>) -> anyhow::Result<()> {
    for resource in list(&data["resourceSpans"]) {
        let service = list(&resource["resource"]["attributes"])
            .find(|attribute| attribute["key"] == "service.name")
            .and_then(|attribute| attribute["value"]["stringValue"].as_str())
            .unwrap_or_default();
        for span in list(&resource["scopeSpans"]).flat_map(|scope| list(&scope["spans"])) {
            let text = |key: &str| span[key].as_str().with_context(|| format!("a span without {key}: {span}"));
            into.push(Span {
                trace_id: text("traceId")?.into(),
                span_id: text("spanId")?.into(),
                parent: text("parentSpanId").ok().filter(|id| !id.is_empty()).map(Into::into),
                name: text("name")?.into(),
                service: service.into(),
            });
        }
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Ports that were free a moment ago; both are held until both are known, so that they differ.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let (a, b) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([a.local_addr()?.port(), b.local_addr()?.port()])
}

/// Waits until the health check on `port` answers 200.
async fn healthy(port: u16) {
    loop {
        if is_healthy(port).await.unwrap_or(false) {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn is_healthy(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_service_and_parent() {
        let line = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "trestle"}}]},
            "scopeSpans": [{"spans": [
                {"traceId": "aa", "spanId": "01", "parentSpanId": "", "name": "decode"},
                {"traceId": "aa", "spanId": "02", "parentSpanId": "01", "name": "route"},
            ]}],
        }]});
        let mut spans = Vec::new();
        read_line(&line, &mut spans).expect("well-formed");
        let span = |span_id: &str, parent: Option<&str>, name: &str| Span {
            trace_id: "aa".into(),
            span_id: span_id.into(),
            parent: parent.map(Into::into),
            name: name.into(),
            service: "trestle".into(),
        };
        assert_eq!(spans, [span("01", None, "decode"), span("02", Some("01"), "route")]);
    }

    #[test]
    fn a_span_without_an_id_is_an_error() {
        let line =
            serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "aa", "name": "x"}]}]}]});
        assert!(read_line(&line, &mut Vec::new()).is_err());
    }
}
