//! What operators ask and do by HTTP: nodes, sessions, presence, updates, kicks, drains, rebalancing.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, header::CONTENT_TYPE};
use serde::Deserialize;
use trestle_wire::{
    Reason, Refusal,
    v1::{self, target::Target},
};

use super::{canonical, json_body, no_browser};
use crate::{Shared, status::HttpRefusal};

/// The paths of operators.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/nodes", get(nodes))
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/update", post(update))
        .route("/v1/presence/{channel}", get(presence))
        .route("/v1/kick", post(kick))
        .route("/v1/drain", post(drain))
        .route("/v1/rebalance", post(rebalance))
}

type Body = Result<Bytes, BytesRejection>;

/// An answer in canonical JSON.
pub(super) fn answer(name: &str, message: &impl prost::Message) -> Response {
    ([(CONTENT_TYPE, "application/json")], canonical::write(name, message)).into_response()
}

async fn nodes(State(shared): State<Arc<Shared>>) -> Response {
    answer("ListNodesResponse", &v1::ListNodesResponse { nodes: shared.nodes() })
}

/// `trestle.v1.ListSessionsRequest` as a query.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sessions {
    session: Option<String>,
    user: Option<String>,
    group: Option<String>,
    tags: Option<String>,
    channel: String,
    limit: u32,
    after: String,
}

impl TryFrom<Sessions> for v1::ListSessionsRequest {
    type Error = Refusal;

    fn try_from(query: Sessions) -> Result<Self, Refusal> {
        let Sessions { session, user, group, tags, channel, limit, after } = query;
        let named =
            [session.map(Target::Session), user.map(Target::User), group.map(Target::Group), tags.map(Target::Tags)];
        let mut named = named.into_iter().flatten();
        let target = named.next().map(|target| v1::Target { target: Some(target) });
        if named.next().is_some() {
            let sentence = "more than one of session, user, group and tags is given";
            return Err(Refusal::new(Reason::InvalidTarget, sentence).field("target"));
        }
        Ok(Self { target, channel, limit, after })
    }
}

async fn sessions(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Sessions>, QueryRejection>,
) -> Result<Response, HttpRefusal> {
    let list = async {
        let Query(query) = query.map_err(|error| {
            Refusal::new(Reason::MalformedFrame, format!("the query cannot be read: {}", error.body_text()))
                .field("query")
        })?;
        shared.sessions(query.try_into()?).await
    };
    Ok(answer("ListSessionsResponse", &list.await.map_err(HttpRefusal)?))
}

async fn presence(
    State(shared): State<Arc<Shared>>,
    channel: Result<Path<String>, PathRejection>,
) -> Result<Response, HttpRefusal> {
    let ask = async {
        let Path(channel) = channel.map_err(|error| {
            Refusal::new(Reason::InvalidChannel, format!("the path cannot be read: {}", error.body_text()))
                .field("channel")
        })?;
        shared.presence(v1::GetPresenceRequest { channel }).await
    };
    let presence = Some(ask.await.map_err(HttpRefusal)?);
    Ok(answer("GetPresenceResponse", &v1::GetPresenceResponse { presence }))
}

async fn update(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, HttpRefusal> {
    let update = async {
        let body = json_body(&shared, &headers, body)?;
        shared.update_sessions(canonical::read("UpdateSessionsRequest", &body)?).await
    };
    let sessions = update.await.map_err(HttpRefusal)?;
    Ok(answer("UpdateSessionsResponse", &v1::UpdateSessionsResponse { sessions }))
}

async fn kick(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, HttpRefusal> {
    let kick = async {
        no_browser(&headers, "end sessions")?;
        let body = json_body(&shared, &headers, body)?;
        shared.kick(canonical::read("KickRequest", &body)?).await
    };
    let sessions = kick.await.map_err(HttpRefusal)?;
    Ok(answer("KickResponse", &v1::KickResponse { sessions }))
}

async fn drain(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, HttpRefusal> {
    let drain = async {
        no_browser(&headers, "drain nodes")?;
        let body = json_body(&shared, &headers, body)?;
        shared.drain_node(canonical::read("DrainRequest", &body)?).await
    };
    let node = Some(drain.await.map_err(HttpRefusal)?);
    Ok(answer("DrainResponse", &v1::DrainResponse { node }))
}

async fn rebalance(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, HttpRefusal> {
    let rebalance = async {
        no_browser(&headers, "rebalance nodes")?;
        shared.rebalance().await
    };
    let nodes = rebalance.await.map_err(HttpRefusal)?;
    Ok(answer("RebalanceResponse", &v1::RebalanceResponse { nodes }))
}
