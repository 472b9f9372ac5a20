//! A trace follows a message from the client to the service and back, and nobody pays for one who is not there.

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::sync::oneshot;
use trestle_service::{Context, Nack, Service, Target};
use trestle_testkit::{Collector, Gateway, otel::Span};

use crate::support::{EXAMPLES, OrderPaid, PATIENCE, Ws, comment, file, gateway};

/// The example of the specification; the client's own span is `00f067aa0ba902b7`.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN: &str = "00f067aa0ba902b7";

/// A gateway that records `ratio` of its traces at `endpoint`, and its configuration.
async fn traced(endpoint: &str, ratio: f64) -> (Gateway, NamedTempFile) {
    let config = file(&format!("[telemetry]\notlp_endpoint = \"{endpoint}\"\nsample_ratio = {ratio:?}\n"));
    let path = config.path().to_str().expect("a temp path is text");
    (gateway(&["--config", path, "--schemas", EXAMPLES]).await, config)
}

/// A tracer of a service, as any program in Rust sets one up.
fn service_provider(collector: &Collector) -> SdkTracerProvider {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(collector.endpoint());
    SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("billing").build())
        .with_batch_exporter(exporter.build().expect("an exporter"))
        .build()
}

/// Ends `provider` once its spans are exported. It blocks, and its export needs this runtime's other threads.
async fn flush(provider: SdkTracerProvider) {
    let flushed = tokio::task::spawn_blocking(move || provider.shutdown()).await.expect("does not panic");
    flushed.expect("the collector is there");
}

/// A message with the client's own context.
fn with_context(mut message: Value, flags: &str) -> Value {
    message["headers"] = json!({"traceparent": format!("00-{TRACE}-{CLIENTS_SPAN}-{flags}")});
    message
}

/// The span called `name` that belongs to `parent`.
fn below<'a>(spans: &'a [Span], name: &str, parent: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name && span.parent.as_deref() == Some(parent));
    found.unwrap_or_else(|| panic!("no {name} below {parent} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_has_a_span_of_every_station_from_the_client_to_the_service_and_back() {
    let collector = Collector::start().await.expect("a collector");
    let (mut gateway, _config) = traced(collector.endpoint(), 1.0).await;
    let provider = service_provider(&collector);
    let book = |context: Context, order: OrderPaid| async move {
        let client = Target::Session(context.sender().session.clone());
        context.push(client, "shop.v1.OrderPaid", &order).await?;
        Ok::<_, Nack>(())
    };
    let service = Service::builder("billing")
        .endpoint(format!("http://{}", gateway.grpc()))
        .tracer(provider.tracer("billing"))
        .on("shop.v1.OrderPaid", book);
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run(async { drop(stopped.await) }));

    let mut client = Ws::connect(&gateway).await;
    let paid = json!({"messageType": "ORDER_PAID", "version": "1.0", "payload": {"orderId": "o1", "cents": "5"}});
    client.send(json!({"id": 2, "message": with_context(paid, "00")})).await;
    let pushed = client.delivery().await;
    assert_eq!(client.answer(&json!(2)).await["accepted"]["level"], "HANDLED");
    drop(stop);
    service.await.expect("does not panic").expect("was attached");
    gateway.terminate().await.expect("ends");
    flush(provider).await;

    let stations = ["decode", "route", "publish", "serve", "process", "push", "fanout"];
    let spans = collector.trace(TRACE, &stations, PATIENCE).await.expect("every station has its span");
    let mut parent = CLIENTS_SPAN.to_owned();
    for station in stations {
        let span = below(&spans, station, &parent);
        assert_eq!(span.service, if station == "process" { "billing" } else { "trestle" }, "{span:?}");
        parent.clone_from(&span.span_id);
    }
    let carried = pushed["headers"]["traceparent"].as_str().unwrap_or_default();
    assert!(carried.starts_with(&format!("00-{TRACE}-")) && carried.ends_with("-01"), "{pushed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_context_begins_a_trace_at_the_edge() {
    let collector = Collector::start().await.expect("a collector");
    let (mut gateway, _config) = traced(collector.endpoint(), 1.0).await;
    let mut client = Ws::on(&gateway, "live:a").await;
    client.ask(json!({"id": 3, "publish": {"channel": "live:a", "message": comment("hi")}})).await;
    let delivery = client.delivery().await;
    let carried = delivery["headers"]["traceparent"].as_str().expect("a context is carried").to_owned();
    gateway.terminate().await.expect("ends");

    let trace = carried.split('-').nth(1).expect("a trace id");
    let stations = ["decode", "route", "publish", "fanout"];
    let spans = collector.trace(trace, &stations, PATIENCE).await.expect("every station has its span");
    let decode = spans.iter().find(|span| span.name == "decode").expect("it came");
    assert_eq!(decode.parent, None, "the first span of its trace");
    let mut parent = &decode.span_id;
    for station in &stations[1..] {
        parent = &below(&spans, station, parent).span_id;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_its_trace_but_does_not_decide_whether_it_is_recorded() {
    let collector = Collector::start().await.expect("a collector");
    let (mut gateway, _config) = traced(collector.endpoint(), 0.0).await;
    let mut client = Ws::on(&gateway, "live:a").await;
    let message = with_context(comment("hi"), "01");
    client.ask(json!({"id": 3, "publish": {"channel": "live:a", "message": message}})).await;
    let delivery = client.delivery().await;
    assert_eq!(delivery["headers"]["traceparent"], format!("00-{TRACE}-{CLIENTS_SPAN}-00"), "{delivery}");
    gateway.terminate().await.expect("ends");

    // What comes after the gateway's end comes after all it would have sent.
    let provider = service_provider(&collector);
    let later = provider.tracer("later").start("later");
    let trace = later.span_context().trace_id().to_string();
    drop(later);
    flush(provider).await;
    collector.trace(&trace, &["later"], PATIENCE).await.expect("it came");
    let names: Vec<_> = collector.spans().expect("readable").into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["later"]);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (mut gateway, _config) = traced(&format!("http://{free}"), 1.0).await;
    let mut client = Ws::on(&gateway, "live:a").await;
    for number in 0..100 {
        client.send(json!({"publish": {"channel": "live:a", "message": comment(&number.to_string())}})).await;
    }
    for number in 0..100 {
        assert_eq!(client.delivery().await["payload"]["text"], number.to_string());
    }
    client.close().await;
    let status = gateway.terminate().await.expect("ends in time");
    assert!(status.success(), "{status}; {}", gateway.output());
}
