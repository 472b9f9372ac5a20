//! HTTP/JSON for pushing and for operators: for curl, and for languages without gRPC.
//!
//! `POST /v1/push`, `POST /v1/reload`, `GET /v1/routes`; the other paths of operators are in `http/operate.rs`. Bodies are
//! canonical proto3 JSON, strictly read; what is refused is `{"error":{...}}` with the status of the one table.

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
mod canonical;
mod operate;

impl Bridge {
    /// The HTTP side, to be merged into the router of the listen address.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/push", post(push))
            .route("/v1/reload", post(reload))
            .route("/v1/routes", get(routes))
            .merge(operate::router())
            .layer(DefaultBodyLimit::max(self.0.config.message_bytes_max))
            .with_state(self.0.clone())
    }
}

async fn push(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpRefusal> {
    let body = json_body(&shared, &headers, body).map_err(HttpRefusal)?;
    let request = body::parse(&body, &shared.schemas.current()).map_err(HttpRefusal)?;
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let origin = Origin { service: None, traceparent };
    let report = shared.push(origin, request, true).await.map_err(HttpRefusal)?;
    Ok(operate::answer("PushResponse", &v1::PushResponse { report: Some(report) }))
}

/// A body that says that it is JSON.
fn json_body(shared: &Shared, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    // A page of another origin can send a form or plain text without asking first; JSON it cannot.
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let sentence = format!("the content type is {essence:?}; it must be application/json");
        return Err(Refusal::new(Reason::MalformedFrame, sentence).field("content-type"));
    }
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let max = shared.config.message_bytes_max;
            Refusal::new(Reason::PayloadTooLarge, format!("the body is larger than {max} bytes"))
        }
        _ => Refusal::new(Reason::MalformedFrame, format!("the body could not be read: {error}")),
    })
}

/// Refuses a page in a browser: where there is no body, no content type tells one of another origin, and what operators
/// do is not for pages anyway. Browsers say where they are.
fn no_browser(headers: &HeaderMap, what: &str) -> Result<(), Refusal> {
    if headers.contains_key("origin") {
        let sentence = format!("browsers may not {what}; use curl or the admin API");
        return Err(Refusal::new(Reason::OriginDenied, sentence).field("origin"));
    }
    Ok(())
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
    no_browser(&headers, "reload schemas").map_err(HttpRefusal)?;
    let v1::ReloadResponse { applied, faults, types } = shared.reload().await.map_err(HttpRefusal)?;
    if applied {
        return Ok(Json(Reloaded { error: None, applied, faults, types }).into_response());
    }
    let sentence = format!("the new schemas have {} faults; the old ones stay in use", faults.len());
    let refusal = Refusal::new(Reason::ReloadRefused, sentence);
    let body = Reloaded { error: Some(ErrorBody::from(&refusal)), applied, faults, types };
    Ok((StatusCode::BAD_REQUEST, Json(body)).into_response())
}

async fn routes(State(shared): State<Arc<Shared>>) -> Response {
    operate::answer("ListRoutesResponse", &v1::ListRoutesResponse { routes: shared.routes() })
}
