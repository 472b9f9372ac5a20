//! The real OpenTelemetry collector, and the spans that have reached it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{Process, provide::provided};

/// Between two looks at the collector's file, of which there is no event to wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The port is chosen before the collector binds it; someone else may be faster.
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
pub struct Collector {
    _process: Process,
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
        let binary = provided("otelcol").await?;
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
        let endpoint = format!("127.0.0.1:{}", free_port()?);
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"{endpoint}\"}}}}}}}}\n\
             exporters: {{file: {{path: {file:?}, flush_interval: 50ms}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n"
        );
        let config_file = dir.path().join("config.yaml");
        fs::write(&config_file, config)?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(&config_file);
        let process = Process::start("the collector", command)?;
        process.line("that it is ready", |line| line.contains("Everything is ready")).await?;
        Ok(Self { _process: process, _dir: dir, endpoint: format!("http://{endpoint}"), file })
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

/// A port that was free a moment ago: the collector does not say which it took.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
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
