//! The span of a handler, below the delivery's own, by the tracer of the service.

use opentelemetry::{
    Context, KeyValue,
    global::BoxedTracer,
    trace::{
        SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer as _,
    },
};
use trestle_wire::v1;

const TRACEPARENT: &str = "traceparent";

/// Begins the span `process` if the delivery's trace is sampled. It ends with [`end`].
pub(crate) fn begin(tracer: &BoxedTracer, service: &str, attempt: u32, envelope: &v1::Envelope) -> Option<Context> {
    let parent = parse(envelope.headers.get(TRACEPARENT)?).filter(SpanContext::is_sampled)?;
    let parent = Context::new().with_remote_span_context(parent);
    let builder = SpanBuilder::from_name("process").with_kind(SpanKind::Consumer).with_attributes([
        KeyValue::new("messaging.system", "trestle"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.consumer.group.name", service.to_owned()),
        KeyValue::new("messaging.message.id", envelope.id.clone()),
        KeyValue::new("trestle.message_type", envelope.message_type.clone()),
        KeyValue::new("trestle.attempt", i64::from(attempt)),
    ]);
    let span = tracer.build_with_context(builder, &parent);
    Some(parent.with_span(span))
}

/// The context for pushes below the handler: its own span's if there is one, else the delivery's.
pub(crate) fn traceparent(span: Option<&Context>, envelope: &v1::Envelope) -> Option<String> {
    match span.map(|context| context.span().span_context().clone()).filter(SpanContext::is_valid) {
        Some(context) => {
            Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 1))
        }
        None => envelope.headers.get(TRACEPARENT).cloned(),
    }
}

/// Ends the span; `failed` says why it failed.
pub(crate) fn end(span: Option<&Context>, failed: Option<&'static str>) {
    let Some(context) = span else { return };
    if let Some(failed) = failed {
        context.span().set_status(Status::error(failed));
    }
    context.span().end();
}

/// A version 00 `traceparent`, or the part of a later version that is like it.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next().is_some();
    let lower_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let fits = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    if !fits || version == "ff" || (version == "00" && more) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()? & 1;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn envelope(traceparent: &str) -> v1::Envelope {
        let headers = [(TRACEPARENT.to_owned(), traceparent.to_owned())].into();
        v1::Envelope { id: "m1".into(), headers, ..v1::Envelope::default() }
    }

    #[test]
    fn the_handlers_span_is_below_the_deliverys_and_pushes_below_it() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracer = BoxedTracer::new(Box::new(provider.tracer("test")));
        let envelope = envelope(SAMPLED);
        let span = begin(&tracer, "billing", 2, &envelope).expect("sampled");
        let carried = traceparent(Some(&span), &envelope).expect("carried");
        end(Some(&span), Some("nack"));

        let spans = exporter.get_finished_spans().expect("exported");
        let [span] = &spans[..] else { panic!("one span, not {spans:?}") };
        assert_eq!((&*span.name, span.parent_span_id.to_string()), ("process", "00f067aa0ba902b7".into()));
        assert_eq!(span.status, Status::error("nack"));
        let own = &span.span_context;
        assert_eq!(carried, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", own.span_id()));
    }

    #[test]
    fn without_a_tracer_the_deliverys_trace_passes_through() {
        let envelope = envelope(SAMPLED);
        let tracer = opentelemetry::global::tracer("nobody has set one");
        let span = begin(&tracer, "billing", 1, &envelope);
        assert_eq!(traceparent(span.as_ref(), &envelope).as_deref(), Some(SAMPLED));
    }

    #[test]
    fn what_is_not_sampled_has_no_span() {
        let tracer = opentelemetry::global::tracer("nobody has set one");
        let unsampled = envelope(&SAMPLED.replace("-01", "-00"));
        assert!(begin(&tracer, "billing", 1, &unsampled).is_none());
        assert_eq!(traceparent(None, &unsampled), unsampled.headers.get(TRACEPARENT).cloned());
    }

    #[test]
    fn only_a_traceparent_is_one() {
        assert!(parse(SAMPLED).is_some());
        assert!(parse(&format!("cc-{}-later", &SAMPLED[3..])).is_some());
        for bad in [
            "",
            "00",
            &SAMPLED[..54],
            &format!("{SAMPLED}-more"),
            &SAMPLED.to_uppercase(),
            &SAMPLED.replace("00-", "ff-"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }
}
