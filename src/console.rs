//! What a person or a machine sees of a node: health, metrics, the page, the first lines on the terminal.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

use crate::{
    app::{Node, is_connected},
    config::Config,
    http_api::HttpApi,
};

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

/// What a node says first. Whether something may be said is the configuration's; where it listens, the node's.
pub(crate) struct Ready {
    bus: String,
    page: bool,
    demo: bool,
    push: bool,
}

impl Ready {
    /// What there is to say of a node with `config`.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            bus: config.shown_bus(),
            page: config.page,
            demo: config.schemas.is_none(),
            push: config.http_api != HttpApi::Off,
        }
    }

    /// One line for machines: where the node really listens.
    pub(crate) fn json(&self, node: &Node) -> String {
        let ready = serde_json::json!({
            "event": "ready",
            "version": env!("CARGO_PKG_VERSION"),
            "node": node.id.as_str(),
            "listen": node.listen.to_string(),
            "grpc": node.grpc.map(|address| address.to_string()),
            "bus": self.bus,
        });
        ready.to_string()
    }

    /// The first lines for people: addresses, and what to try.
    pub(crate) fn welcome(&self, node: &Node) -> String {
        let head = format!("trestle {} is ready: node {}, bus {}", env!("CARGO_PKG_VERSION"), node.id, self.bus);
        let lines = self.lines(node.listen, node.edge.is_some(), node.grpc);
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn lines(&self, listen: SocketAddr, edge: bool, grpc: Option<SocketAddr>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |said: bool, line: String| lines.extend(said.then_some(line));
        say(edge, format!("  clients   ws://{listen}/ws"));
        if let Some(grpc) = grpc {
            say(true, format!("  services  http://{grpc} (gRPC, trestle.v1.Bridge)"));
        }
        say(self.page && edge, format!("  page      http://{listen}/"));
        say(true, format!("  metrics   http://{listen}/metrics"));
        let (demo, push) = (self.demo && grpc.is_some(), self.push);
        let own = "The demo's schemas and services are in use (--schemas DIR for your own). Try, in another terminal:";
        say(demo && (edge || push), format!("\n{own}"));
        // As it was called: `target/release/trestle` is on nobody's path.
        let trestle = std::env::args().next().unwrap_or_else(|| "trestle".into());
        say(demo && edge, format!("  {trestle} sub room:42 --url ws://{listen}/ws"));
        let quote = r#"request GET_QUOTE '{"sku":"a1","quantity":3}'"#;
        say(demo && edge, format!("  {trestle} {quote} --url ws://{listen}/ws"));
        let body =
            r#"{"target":{"channel":"room:42"},"message":{"messageType":"chat.v1.Comment","payload":{"text":"hi"}}}"#;
        say(demo && push, format!("  curl --json '{body}' http://{listen}/v1/push"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ready: &Ready, edge: bool, grpc: bool) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        ready.lines(address, edge, grpc.then_some(address)).join("\n")
    }

    #[test]
    fn the_welcome_names_only_what_is_served() {
        let all = Ready::new(&Config::default());
        let text = said(&all, true, true);
        for part in ["clients ", "services ", "page ", " sub room:42", " request GET_QUOTE", "curl"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let bridge = said(&all, false, true);
        for part in ["clients ", "page ", "ws://"] {
            assert!(!bridge.contains(part), "{part} is in\n{bridge}");
        }
        assert!(bridge.contains("services "), "{bridge}");
        let edge = said(&all, true, false);
        for part in ["services ", "demo", "curl"] {
            assert!(!edge.contains(part), "{part} is in\n{edge}");
        }
        let bare = Config { page: false, http_api: HttpApi::Off, ..Config::default() };
        let bare = said(&Ready::new(&bare), true, true);
        for part in ["page ", "curl"] {
            assert!(!bare.contains(part), "{part} is in\n{bare}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let config = Config { bus: "nats://u:hunter2@a:4222,nats://u:hunter2@b:4222".into(), ..Config::default() };
        assert_eq!(Ready::new(&config).bus, "nats://a:4222,nats://b:4222");
        assert_eq!(Ready::new(&Config::default()).bus, "embedded");
    }
}
