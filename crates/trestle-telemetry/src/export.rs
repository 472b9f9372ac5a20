//! Export of spans by OTLP: a bounded queue, one thread, one gRPC connection.

use std::{cell::Cell, time::Duration};

use opentelemetry::{
    KeyValue,
    trace::{SpanId, TraceId},
};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _, tonic_types::transport::ClientTlsConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, Sampler, SdkTracerProvider},
};
use trestle_wire::NodeId;

use crate::Error;

/// How long one export may take. Spans that end meanwhile wait in the queue of 2,048 (2 MiB at 1 KiB each), and those
/// that find it full are dropped: telemetry never holds up a message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A provider whose spans go to `endpoint` in batches: every 5 s, or as soon as 512 have ended. OpenTelemetry's
/// `OTEL_BSP_*` variables change these numbers.
pub(crate) fn provider(endpoint: &str, service: &'static str, node: &NodeId) -> Result<SdkTracerProvider, Error> {
    let mut exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    if endpoint.starts_with("https:") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
    }
    let exporter = exporter.build().map_err(|source| Error::Endpoint { endpoint: endpoint.into(), source })?;
    Ok(builder(service, node).with_batch_exporter(exporter).build())
}

/// What all providers here have in common.
pub(crate) fn builder(service: &'static str, node: &NodeId) -> opentelemetry_sdk::trace::TracerProviderBuilder {
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", node.to_string()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    SdkTracerProvider::builder()
        .with_resource(resource)
        // The decision was made at the edge, before there was a span to ask about.
        .with_sampler(Sampler::AlwaysOn)
        .with_id_generator(Ids)
}

thread_local! {
    static NEXT_TRACE_ID: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Says which trace the next root span of this thread begins. The API has no argument for it, and the id exists before
/// the span: it is what sampling was decided by.
pub(crate) fn begin_trace(id: TraceId) {
    NEXT_TRACE_ID.set(Some(id));
}

/// Random ids, but for a trace that [`begin_trace`] has named.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE_ID.take().unwrap_or_else(|| TraceId::from(fastrand::u128(1..)))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(fastrand::u64(1..))
    }
}
