//! The decision to sample, and spans.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::SystemTime,
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
        TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::TraceContext;
use crate::export;

/// Decides what is traced, and begins spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Option<Arc<Recording>>);

#[derive(Debug)]
struct Recording {
    tracer: SdkTracer,
    /// Of the 2^63 values that a trace id's last 63 bits can have, how many are sampled.
    sampled: u64,
    /// Unknown outside: see [`Tracer::begin`].
    secret: RandomState,
}

/// What a span's station is to its neighbours, as OpenTelemetry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work inside the node.
    Internal,
    /// Answers a caller.
    Server,
    /// Asks another process, and waits.
    Client,
    /// Hands a message on, and does not wait.
    Producer,
    /// Takes a message.
    Consumer,
}

impl Tracer {
    /// Records nothing, and lets contexts pass.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Records to `provider` a share of `ratio` (0 to 1) of the traces that begin here.
    pub(crate) fn recording(provider: &SdkTracerProvider, ratio: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 2^63
        let sampled = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        Self(Some(Arc::new(Recording { tracer: provider.tracer("trestle"), sampled, secret: RandomState::new() })))
    }

    /// The edge's decision for a client's message, made once and before any span.
    ///
    /// `incoming` is the client's `traceparent`. Its trace goes on, but its sampled flag is not believed, nor can its id
    /// be chosen so that it is sampled: clients do not decide how much is recorded. `None` if there is nothing to carry:
    /// not sampled, and nothing came in.
    #[must_use]
    pub fn begin(&self, incoming: Option<&str>) -> Option<TraceContext> {
        let incoming = incoming.and_then(TraceContext::parse);
        let Some(recording) = &self.0 else {
            return incoming.map(|context| TraceContext { sampled: false, ..context });
        };
        match incoming {
            Some(context) => {
                let lot = recording.secret.hash_one(context.trace_id);
                Some(TraceContext { sampled: recording.takes(lot), ..context })
            }
            None => recording.root(),
        }
    }

    /// The decision for work that a service or an operator brings: their trace goes on, sampled or not as they say;
    /// without one, as [`Tracer::begin`].
    #[must_use]
    pub fn enter(&self, incoming: Option<&str>) -> Option<TraceContext> {
        incoming.and_then(TraceContext::parse).or_else(|| self.0.as_ref()?.root())
    }

    /// Begins a span below `parent`, or the first one of its trace. `None` if the trace is not sampled.
    #[must_use]
    pub fn span(&self, name: &'static str, kind: Kind, parent: &TraceContext) -> Option<Span> {
        self.span_since(name, kind, parent, None)
    }

    /// As [`Tracer::span`], for work that began before its context was known, at `start` (`None`: now).
    #[must_use]
    pub fn span_since(
        &self,
        name: &'static str,
        kind: Kind,
        parent: &TraceContext,
        start: Option<SystemTime>,
    ) -> Option<Span> {
        if !parent.sampled {
            return None;
        }
        let recording = self.0.as_ref()?;
        let trace_id = TraceId::from(parent.trace_id);
        let context = if parent.span_id == 0 {
            export::begin_trace(trace_id);
            Context::new()
        } else {
            let span_id = SpanId::from(parent.span_id);
            let remote = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE);
            Context::new().with_remote_span_context(remote)
        };
        let mut builder = SpanBuilder::from_name(name).with_kind(kind.into());
        builder.start_time = start;
        let inner = Box::new(recording.tracer.build_with_context(builder, &context));
        // After shutdown the API hands out spans that are nowhere; what is traced then is lost, and says so.
        inner.span_context().is_valid().then_some(Span { inner })
    }
}

impl Recording {
    /// A new trace, if it is sampled: by its id, as OpenTelemetry's `TraceIdRatioBased` decides, so that others who
    /// sample by the same ratio keep the same traces.
    fn root(&self) -> Option<TraceContext> {
        let trace_id = fastrand::u128(1..);
        #[allow(clippy::cast_possible_truncation)] // the last 64 bits are meant
        let lot = trace_id as u64;
        self.takes(lot).then_some(TraceContext { trace_id, span_id: 0, sampled: true })
    }

    fn takes(&self, lot: u64) -> bool {
        lot >> 1 < self.sampled
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
        }
    }
}

/// A station's part of a trace. Ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    /// Apart, because there nearly never is one, and room for it would be moved along with every message.
    inner: Box<opentelemetry_sdk::trace::Span>,
}

impl Span {
    /// The context for what comes after, or below, this span.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        let context = self.inner.span_context();
        TraceContext {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        }
    }

    /// Says something about the span; `key` is OpenTelemetry's where it has one. Never a payload or a token.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.inner.set_attribute(KeyValue::new(key, value));
    }

    /// Marks the span as failed, and says why.
    pub fn fail(&mut self, what: &str) {
        self.inner.set_status(Status::error(what.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SpanData, SpanExporter},
    };
    use trestle_wire::NodeId;

    use super::*;

    /// Keeps what is exported.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("nothing panics holding it").extend(batch);
            Ok(())
        }
    }

    fn tracer(ratio: f64) -> (Tracer, SdkTracerProvider, Kept) {
        let kept = Kept::default();
        let node = NodeId::parse("edge-1").expect("valid");
        let provider = export::builder("trestle", &node).with_simple_exporter(kept.clone()).build();
        (Tracer::recording(&provider, ratio), provider, kept)
    }

    const CLIENTS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_client_keeps_its_trace_and_does_not_decide_whether_it_is_recorded() {
        let client = TraceContext::parse(CLIENTS).expect("valid");
        let (never, ..) = tracer(0.0);
        assert_eq!(never.begin(Some(CLIENTS)), Some(TraceContext { sampled: false, ..client }));
        let (always, ..) = tracer(1.0);
        assert_eq!(always.begin(Some(&CLIENTS.replace("-01", "-00"))), Some(client));
    }

    #[test]
    fn a_client_cannot_choose_an_id_that_is_sampled() {
        let (tracer, ..) = tracer(0.5);
        // By its low bits, TraceIdRatioBased would take every one of these.
        let taken = (1..=1000_u128).filter(|high| {
            let context = TraceContext { trace_id: high << 64, span_id: 1, sampled: true };
            tracer.begin(Some(&context.traceparent())).expect("goes on").sampled
        });
        let taken = taken.count();
        assert!((350..=650).contains(&taken), "{taken} of 1000");
    }

    #[test]
    fn one_trace_of_a_client_is_decided_once() {
        let (tracer, ..) = tracer(0.5);
        let first = tracer.begin(Some(CLIENTS));
        assert!((0..100).all(|_| tracer.begin(Some(CLIENTS)) == first));
    }

    #[test]
    fn a_service_is_believed() {
        let (never, ..) = tracer(0.0);
        assert!(never.enter(Some(CLIENTS)).expect("goes on").sampled);
        let (always, ..) = tracer(1.0);
        assert!(!always.enter(Some(&CLIENTS.replace("-01", "-00"))).expect("goes on").sampled);
        assert!(always.enter(None).expect("a new trace").sampled);
    }

    #[test]
    fn new_traces_are_sampled_by_their_ratio() {
        let (tracer, ..) = tracer(0.1);
        let taken = (0..10_000).filter(|_| tracer.begin(None).is_some()).count();
        assert!((800..=1200).contains(&taken), "{taken} of 10,000");
    }

    #[test]
    fn what_is_not_sampled_has_no_span() {
        let (tracer, _provider, kept) = tracer(1.0);
        let context = TraceContext { sampled: false, ..TraceContext::parse(CLIENTS).expect("valid") };
        assert!(tracer.span("decode", Kind::Server, &context).is_none());
        assert!(Tracer::disabled().span("decode", Kind::Server, &TraceContext { sampled: true, ..context }).is_none());
        assert!(kept.0.lock().expect("kept").is_empty());
    }

    #[test]
    fn spans_form_a_chain_from_a_root_without_a_parent() {
        let (tracer, _provider, kept) = tracer(1.0);
        let root = tracer.begin(None).expect("sampled");
        let mut decode = tracer.span("decode", Kind::Server, &root).expect("sampled");
        decode.set("messaging.message.id", "m1");
        let mut route = tracer.span("route", Kind::Internal, &decode.context()).expect("sampled");
        route.fail("unknown_type");
        let (decode_context, route_context) = (decode.context(), route.context());
        drop((route, decode));

        let spans = kept.0.lock().expect("kept");
        let [route, decode] = &spans[..] else { panic!("two spans, not {spans:?}") };
        assert_eq!((&*decode.name, &*route.name), ("decode", "route"));
        assert_eq!(decode.parent_span_id, SpanId::INVALID);
        assert_eq!(route.parent_span_id, decode.span_context.span_id());
        assert!([decode_context.trace_id, route_context.trace_id].iter().all(|id| *id == root.trace_id));
        assert_eq!(decode.attributes, [KeyValue::new("messaging.message.id", "m1")]);
        assert_eq!(route.status, Status::error("unknown_type"));
    }

    #[test]
    fn after_shutdown_nothing_is_traced_and_nothing_breaks() {
        let (tracer, provider, _kept) = tracer(1.0);
        let root = tracer.begin(None).expect("sampled");
        provider.shutdown().expect("stops");
        assert!(tracer.span("decode", Kind::Server, &root).is_none());
    }
}
