//! Sets up logs, traces and metrics, once.
//!
//! Logs are `tracing` events on stderr ([`logs`]). Messages are traced with the OpenTelemetry API directly ([`trace`]),
//! because a `tracing` span costs a microsecond even when nobody records it. Metrics are a registry that each crate adds
//! its own to, rendered as OpenMetrics text ([`metrics`]).

pub mod config;
pub mod logs;
pub mod metrics;
pub mod trace;

mod counter;
mod export;

use std::time::Duration;

use trestle_wire::NodeId;

pub use config::{LogFormat, TelemetryConfig};
pub use counter::{Counter, Sharded};
pub use trace::{Kind, Span, TraceContext, Tracer};

/// How long a stopping process waits for its last spans to be exported: one batch takes milliseconds, and a tenth of the
/// 30 s that orchestrators give is what a collector that is away may cost.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up. The process should not start: the operator asked for something it cannot have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log_level` is not a filter.
    #[error("telemetry.log_level {filter:?} is not a level or a list of target=level")]
    LogLevel {
        /// What was given.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody has set up logs in this process already.
    #[error("logs are already set up in this process")]
    LogsTaken,
    /// `sample_ratio` is not a share.
    #[error("telemetry.sample_ratio {0} is not between 0 and 1")]
    SampleRatio(f64),
    /// The exporter does not take `otlp_endpoint`.
    #[error("telemetry.otlp_endpoint {endpoint:?} cannot be used")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What the exporter says.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
}

/// Logs and traces of this process, set up. One per process, owned by `main`.
#[derive(Debug)]
pub struct Telemetry {
    tracer: Tracer,
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logs on stderr and, where an endpoint is configured, the export of traces for `node`.
    ///
    /// Call it once, inside the tokio runtime (the exporter's connection lives there). It does not wait for the
    /// collector: one that is away costs its spans, never the start.
    ///
    /// # Errors
    /// [`Error`] names the key that cannot be used.
    pub fn init(config: &TelemetryConfig, node: &NodeId) -> Result<Self, Error> {
        logs::init(config)?;
        Self::without_logs(config, node)
    }

    /// As [`Telemetry::init`], but leaves logs alone: for processes that have set up their own.
    ///
    /// # Errors
    /// As [`Telemetry::init`].
    pub fn without_logs(config: &TelemetryConfig, node: &NodeId) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(Error::SampleRatio(config.sample_ratio));
        }
        let Some(endpoint) = config.endpoint() else {
            return Ok(Self { tracer: Tracer::disabled(), provider: None });
        };
        let provider = export::provider(&endpoint, "trestle", node)?;
        Ok(Self { tracer: Tracer::recording(&provider, config.sample_ratio), provider: Some(provider) })
    }

    /// The tracer, to be cloned into every station.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Exports the spans that have ended, for at most [`FLUSH_TIMEOUT`], then stops. Spans that end later are not
    /// recorded.
    ///
    /// Call it inside the runtime of [`Telemetry::init`], last of all. A collector that is away is logged, not returned:
    /// there is nothing left to do about it.
    pub async fn shutdown(self) {
        self.shutdown_within(FLUSH_TIMEOUT).await;
    }

    /// As [`Telemetry::shutdown`], for at most `within`.
    pub async fn shutdown_within(self, within: Duration) {
        let Some(provider) = self.provider else { return };
        // The provider blocks while its own thread exports, and that export needs the runtime's threads.
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within));
        match tokio::time::timeout(within, stopped).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(error)) => tracing::warn!(%error, "the exporter of spans failed"),
            Err(_) => tracing::warn!(?within, "the last spans were not exported in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn node() -> NodeId {
        NodeId::parse("edge-1").expect("valid")
    }

    fn all_to(endpoint: String) -> TelemetryConfig {
        TelemetryConfig { otlp_endpoint: Some(endpoint), sample_ratio: 1.0, ..TelemetryConfig::default() }
    }

    /// Ends `count` spans and says how long that took.
    fn end_spans(tracer: &Tracer, count: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..count {
            let root = tracer.begin(None).expect("all are sampled");
            drop(tracer.span("decode", Kind::Server, &root).expect("sampled"));
        }
        begun.elapsed()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_not_there_neither_blocks_nor_kills() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let telemetry =
            Telemetry::without_logs(&all_to(format!("http://{free}")), &node()).expect("starts all the same");
        // Five times what the queue holds.
        let spent = end_spans(&telemetry.tracer(), 10_000);
        assert!(spent < Duration::from_secs(5), "{spent:?}");
        let begun = Instant::now();
        telemetry.shutdown_within(Duration::from_millis(500)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_takes_the_connection_and_says_nothing_does_not_hold_up_the_shutdown() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
        let telemetry = Telemetry::without_logs(&all_to(endpoint), &node()).expect("starts");
        end_spans(&telemetry.tracer(), 1000);
        // Taken, held, never answered.
        let (_socket, _) = silent.accept().await.expect("the exporter connects");
        let begun = Instant::now();
        telemetry.shutdown_within(Duration::from_millis(500)).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn spans_that_have_ended_reach_a_real_collector_at_the_shutdown() {
        let collector = trestle_testkit::Collector::start().await.expect("a collector");
        let telemetry = Telemetry::without_logs(&all_to(collector.endpoint().into()), &node()).expect("starts");
        let tracer = telemetry.tracer();
        let root = tracer.begin(None).expect("all are sampled");
        let decode = tracer.span("decode", Kind::Server, &root).expect("sampled");
        drop(tracer.span("route", Kind::Internal, &decode.context()).expect("sampled"));
        drop(decode);
        telemetry.shutdown_within(Duration::from_secs(10)).await;

        let trace_id = format!("{:032x}", root.trace_id);
        let spans = collector.trace(&trace_id, &["decode", "route"], Duration::from_secs(10)).await.expect("both came");
        assert!(spans.iter().all(|span| span.service == "trestle"), "{spans:?}");
        let named = |name| spans.iter().find(|span| span.name == name).expect("it came");
        assert_eq!((&named("decode").parent, &named("route").parent), (&None, &Some(named("decode").span_id.clone())));
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named() {
        let refused =
            |config: TelemetryConfig| Telemetry::without_logs(&config, &node()).expect_err("unusable").to_string();
        assert!(refused(all_to("not a uri at all".into())).contains("otlp_endpoint"));
        let too_much = TelemetryConfig { sample_ratio: 1.5, ..TelemetryConfig::default() };
        assert!(refused(too_much).contains("sample_ratio 1.5"));
        let not_a_number = TelemetryConfig { sample_ratio: f64::NAN, ..TelemetryConfig::default() };
        assert!(refused(not_a_number).contains("sample_ratio"));
    }
}
