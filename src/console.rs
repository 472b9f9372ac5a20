//! What a person or a machine sees of a node: health, metrics, the page, the first lines on the terminal.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::sync::watch;
use trestle_bus::BusState;
use trestle_telemetry::metrics::Metrics;

use crate::app::{Node, is_connected};

/// Whether the node can serve.
pub(crate) struct Status {
    draining: AtomicBool,
    bus: watch::Receiver<BusState>,
}

impl Status {
    /// A node that serves as long as its bus is there.
    pub(crate) fn new(bus: watch::Receiver<BusState>) -> Self {
        Self { draining: AtomicBool::new(false), bus }
    }

    /// The node is about to stop.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining\n");
        }
        if !is_connected(*self.bus.borrow()) {
            return Err("the bus is not connected\n");
        }
        Ok(())
    }
}

/// `/healthz`, `/readyz`, `/metrics`, and the page.
pub(crate) fn router(status: &Arc<Status>, metrics: Metrics, page: bool) -> Router {
    let metrics = Arc::new(metrics);
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(Arc::clone(status)))
        .route("/metrics", get(render).with_state(metrics));
    if page { router.merge(pages()) } else { router }
}

async fn readyz(State(status): State<Arc<Status>>) -> Response {
    match status.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics.render())
}

/// The page and its files, which are part of the binary.
fn pages() -> Router {
    const HTML: &str = "text/html; charset=utf-8";
    const CSS: &str = "text/css; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text) })
    };
    Router::new()
        .route("/", file(HTML, include_str!("page/index.html")))
        .route("/page/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
        .route("/page/style.css", file(CSS, include_str!("page/style.css")))
        .route("/page/page.js", file(SCRIPT, include_str!("page/page.js")))
        .route("/page/connection.js", file(SCRIPT, include_str!("page/connection.js")))
        .route("/page/codec.js", file(SCRIPT, include_str!("page/codec.js")))
        .route("/page/protobuf.js", file(SCRIPT, include_str!("page/protobuf.js")))
        .route("/page/log.js", file(SCRIPT, include_str!("page/log.js")))
}

/// One line for machines: where the node really listens.
pub(crate) fn print_ready_json(node: &Node, bus: &str) {
    let ready = serde_json::json!({
        "event": "ready",
        "version": env!("CARGO_PKG_VERSION"),
        "node": node.id.as_str(),
        "listen": node.listen.to_string(),
        "grpc": node.grpc.map(|address| address.to_string()),
        "bus": bus,
    });
    println!("{ready}");
}

/// The first lines for people: addresses, and what to try.
pub(crate) fn print_welcome(node: &Node, bus: &str, demo: bool) {
    let listen = node.listen;
    println!("trestle {} is ready: node {}, bus {bus}", env!("CARGO_PKG_VERSION"), node.id);
    println!("  clients   ws://{listen}/ws");
    if let Some(grpc) = node.grpc {
        println!("  services  http://{grpc} (gRPC, trestle.v1.Bridge)");
    }
    println!("  page      http://{listen}/");
    if !demo {
        return;
    }
    println!("\nThe demo's schemas and services are in use (--schemas DIR for your own). Try, in another terminal:");
    println!("  trestle sub room:42 --url ws://{listen}/ws");
    println!("  trestle request GET_QUOTE '{{\"sku\":\"a1\",\"quantity\":3}}' --url ws://{listen}/ws");
    println!(
        "  curl --json '{{\"target\":{{\"channel\":\"room:42\"}},\"message\":{{\"messageType\":\"chat.v1.Comment\",\
         \"payload\":{{\"text\":\"hi\"}}}}}}' http://{listen}/v1/push"
    );
}
