//! HTTP/JSON for pushing and for operators: for curl, and for languages without gRPC.
//!
//! `POST /v1/push`, `POST /v1/reload`, `GET /v1/routes`. Bodies are canonical proto3 JSON, strictly read; what is refused
//! is `{"error":{...}}` with the status of the one table.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use trestle_wire::{Reason, Refusal, v1};

use crate::{
    Bridge, Shared,
    push::Origin,
    status::{ErrorBody, HttpRefusal},
};

mod body;

impl Bridge {
    /// The HTTP side, to be merged into the router of the listen address.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/push", post(push))
            .route("/v1/reload", post(reload))
            .route("/v1/routes", get(routes))
            .layer(DefaultBodyLimit::max(self.0.config.message_bytes_max))
            .with_state(self.0.clone())
    }
}

#[derive(Serialize)]
struct Pushed {
    report: Report,
}

/// `trestle.v1.PushReport` in canonical JSON; a 64-bit number is a string there.
#[derive(Serialize)]
struct Report {
    delivered: u32,
    dropped: u32,
    offline: u32,
    counted: bool,
    offset: String,
}

async fn push(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Pushed>, HttpRefusal> {
    let request = read(&shared, &headers, body).map_err(HttpRefusal)?;
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let origin = Origin { service: None, traceparent };
    let report = shared.push(origin, request, true).await.map_err(HttpRefusal)?;
    let v1::PushReport { delivered, dropped, offline, counted, offset } = report;
    Ok(Json(Pushed { report: Report { delivered, dropped, offline, counted, offset: offset.to_string() } }))
}

fn read(shared: &Shared, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<v1::PushRequest, Refusal> {
    // A page of another origin can send a form or plain text without asking first; JSON it cannot.
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let sentence = format!("the content type is {essence:?}; it must be application/json");
        return Err(Refusal::new(Reason::MalformedFrame, sentence).field("content-type"));
    }
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let max = shared.config.message_bytes_max;
            Refusal::new(Reason::PayloadTooLarge, format!("the body is larger than {max} bytes"))
        }
        _ => Refusal::new(Reason::MalformedFrame, format!("the body could not be read: {error}")),
    })?;
    body::parse(&body, &shared.schemas.current())
}

#[derive(Serialize)]
struct Reloaded<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
    applied: bool,
    faults: Vec<String>,
    types: u32,
}

async fn reload(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, HttpRefusal> {
    // Without a body there is no content type to tell a page of another origin by; browsers say where they are instead.
    if headers.contains_key("origin") {
        let sentence = "browsers may not reload schemas; use curl or the admin API";
        return Err(HttpRefusal(Refusal::new(Reason::OriginDenied, sentence).field("origin")));
    }
    let v1::ReloadResponse { applied, faults, types } = shared.reload().await.map_err(HttpRefusal)?;
    if applied {
        return Ok(Json(Reloaded { error: None, applied, faults, types }).into_response());
    }
    let sentence = format!("the new schemas have {} faults; the old ones stay in use", faults.len());
    let refusal = Refusal::new(Reason::ReloadRefused, sentence);
    let body = Reloaded { error: Some(ErrorBody::from(&refusal)), applied, faults, types };
    Ok((StatusCode::BAD_REQUEST, Json(body)).into_response())
}

#[derive(Serialize)]
struct Routes {
    routes: Vec<RouteJson>,
}

/// `trestle.v1.RouteEntry` in canonical JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteJson {
    message_type: String,
    alias: String,
    version: String,
    service: String,
    transport: &'static str,
    destination: String,
    ack: &'static str,
    scopes: Vec<String>,
}

async fn routes(State(shared): State<Arc<Shared>>) -> Json<Routes> {
    let routes = shared.routes().into_iter().map(|entry| RouteJson {
        transport: entry.transport().as_str_name(),
        ack: entry.ack().as_str_name(),
        message_type: entry.message_type,
        alias: entry.alias,
        version: entry.version,
        service: entry.service,
        destination: entry.destination,
        scopes: entry.scopes,
    });
    Json(Routes { routes: routes.collect() })
}
