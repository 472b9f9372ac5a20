//! Upgrade: an HTTP request in, a WebSocket and its encoding out.
//!
//! What always holds: nothing is upgraded that breaks RFC 6455 section 4.2.1, comes from a page that is not allowed, is
//! one too many, or comes when the node is about to stop; every refusal is an HTTP answer that says why.

#![allow(clippy::result_large_err)] // a refusal is an HTTP answer, made once and sent at once

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trestle_codec::Encoding;
use trestle_wire::{Reason, Refusal, refusal::http_status};

use crate::{Edge, accept::Place, connection, part, websocket::WebSocket};

/// What the upgrade request said about the client.
pub struct Hello {
    /// How frames are written.
    pub encoding: Encoding,
    /// Where the client is.
    pub address: SocketAddr,
    /// Of the `Authorization` header or the `access_token` query.
    pub token: Option<String>,
}

/// Answers `GET /ws`.
pub(crate) async fn upgrade(
    State(edge): State<Arc<Edge>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    // Counted before the look at the drain, so that a drain either refuses this one or waits for it.
    let _counted = edge.tasks.token();
    if edge.leaving.is_cancelled() {
        edge.metrics.refused(Reason::Draining.row().word);
        let refusal = Refusal::new(Reason::Draining, "this node is about to stop; try another");
        return refuse(&refusal.retry_after(Duration::from_secs(1)));
    }
    let (hello, answer) = match handshake(&edge, &request, address) {
        Ok(agreed) => agreed,
        Err(refused) => return refused,
    };
    let Ok(place) = Arc::clone(&edge.places).try_acquire_owned() else {
        edge.metrics.refused(Reason::TooManyConnections.row().word);
        let refusal = Refusal::new(Reason::TooManyConnections, "this node has no place left; try another");
        return refuse(&refusal.retry_after(Duration::from_secs(1)));
    };
    // Told on the WebSocket, since a page cannot read what an upgrade is refused with.
    let turn = edge.admission.enter(Instant::now().into_std());
    let socket_place = request.extensions_mut().remove::<Place>();
    let upgraded = hyper::upgrade::on(&mut request);
    let task = Arc::clone(&edge);
    edge.tasks.spawn(async move {
        let _socket_place = socket_place; // for as long as the socket is open
        let upgraded = match upgraded.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, %address, "the client left during the upgrade"),
        };
        // What comes back is the very socket that `accept` gave to hyper, and what was read too far.
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                let (stream, most) = (parts.io.into_inner(), task.config.frame_bytes_max);
                let socket = WebSocket::new(stream, parts.read_buf, hello.encoding, most);
                match turn {
                    Ok(()) => connection::run(task.clone(), socket, hello, place).await,
                    // On the heap: it is as large as what it reads into, and every connection's task would be.
                    Err(wait) => Box::pin(part::turn_away(&task, socket, hello.encoding, wait)).await,
                }
            }
            Err(_) => tracing::error!("the socket under the upgrade is no TCP stream; serve the edge by `Accept`"),
        }
    });
    edge.metrics.upgrades.inc();
    answer
}

/// Checks the request; the answer is the 101 that agrees.
fn handshake(edge: &Edge, request: &Request, address: SocketAddr) -> Result<(Hello, Response), Response> {
    let headers = request.headers();
    let upgrade = request.method() == Method::GET
        && has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let plain = |status: StatusCode, why: &'static str| (status, why).into_response();
    if !upgrade {
        return Err(plain(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket (RFC 6455)\n"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = plain(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here\n");
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(answer);
    }
    let Some(key) = key.filter(|key| key.len() == 24) else {
        return Err(plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or not 16 bytes in base64\n"));
    };
    origin(edge, headers)?;
    let (encoding, protocol) = subprotocol(headers)?;
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()));
    let answer = match protocol {
        Some(protocol) => answer.header(header::SEC_WEBSOCKET_PROTOCOL, protocol),
        None => answer,
    };
    let answer = answer.body(Body::empty()).map_err(|_| StatusCode::BAD_REQUEST.into_response())?;
    Ok((Hello { encoding, address, token: token(request) }, answer))
}

fn origin(edge: &Edge, headers: &HeaderMap) -> Result<(), Response> {
    let Some(origin) = headers.get(header::ORIGIN).filter(|_| !edge.config.origins.is_empty()) else {
        return Ok(());
    };
    if edge.config.origins.iter().any(|allowed| origin == allowed.as_str()) {
        return Ok(());
    }
    edge.metrics.refused(Reason::OriginDenied.row().word);
    let refusal = Refusal::new(Reason::OriginDenied, "pages of this origin may not connect; see edge.origins");
    Err(refuse(&refusal))
}

/// The first subprotocol of the client's list that is spoken here; JSON where it names none.
fn subprotocol(headers: &HeaderMap) -> Result<(Encoding, Option<HeaderValue>), Response> {
    let mut asked = false;
    for name in tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL) {
        asked = true;
        if let Some(encoding) = Encoding::from_subprotocol(name) {
            return Ok((encoding, Some(HeaderValue::from_static(encoding.subprotocol()))));
        }
    }
    if asked {
        let [json, protobuf] = Encoding::ALL.map(Encoding::subprotocol);
        let why = format!("none of these subprotocols is spoken here; ask for {json} or {protobuf}\n");
        return Err((StatusCode::BAD_REQUEST, why).into_response());
    }
    Ok((Encoding::Json, None))
}

/// A bearer token of the header, else of the `access_token` query (RFC 6750, 2.1 and 2.3).
fn token(request: &Request) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    if let Some((_, token)) = bearer {
        return Some(token.trim().to_owned());
    }
    // JWTs are base64url and dots, which need no percent-encoding.
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| pair.strip_prefix("access_token=")).map(str::to_owned)
}

fn refuse(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(http_status(refusal.code())).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = (status, format!("{refusal}\n")).into_response();
    if let Some(wait) = refusal.retry_after {
        // RFC 9110, 10.2.3: whole seconds.
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    answer
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}
