//! `trestle.v1.Admin`: what operators ask of a node.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trestle_schema::route;
use trestle_wire::{
    Reason, Refusal,
    v1::{self, admin_server},
};

use crate::{Shared, status::status};

/// `trestle.v1.Admin` on this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AdminService(pub(crate) Arc<Shared>);

impl Shared {
    /// Loads the schemas again from where they came. A set with faults is refused whole, and the answer lists them.
    ///
    /// # Errors
    /// [`Reason::Internal`] if the loading itself broke down.
    pub(crate) async fn reload(&self) -> Result<v1::ReloadResponse, Refusal> {
        let schemas = self.schemas.clone();
        // It reads and compiles files.
        let loaded = tokio::task::spawn_blocking(move || schemas.reload()).await;
        let loaded = loaded.map_err(|error| {
            tracing::error!(%error, "loading the schemas broke down");
            Refusal::new(Reason::Internal, "loading the schemas broke down; the gateway's log says more")
        })?;
        let faults: Vec<String> = match loaded {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        };
        let types = u32::try_from(self.schemas.current().types().count()).unwrap_or(u32::MAX);
        if faults.is_empty() {
            tracing::info!(types, "schemas loaded again");
        } else {
            tracing::warn!(faults = faults.len(), "new schemas refused, the old ones stay: {}", faults.join("; "));
        }
        Ok(v1::ReloadResponse { applied: faults.is_empty(), faults, types })
    }

    /// The routing table.
    pub(crate) fn routes(&self) -> Vec<v1::RouteEntry> {
        route::table(&self.schemas.current(), &self.subjects)
    }
}

#[tonic::async_trait]
impl admin_server::Admin for AdminService {
    async fn reload(&self, _: Request<v1::ReloadRequest>) -> Result<Response<v1::ReloadResponse>, Status> {
        answer(self.0.reload().await)
    }

    async fn list_routes(&self, _: Request<v1::ListRoutesRequest>) -> Result<Response<v1::ListRoutesResponse>, Status> {
        Ok(Response::new(v1::ListRoutesResponse { routes: self.0.routes() }))
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(v1::ListNodesResponse { nodes: self.0.nodes() }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        answer(self.0.sessions(request.into_inner()).await)
    }

    async fn get_presence(
        &self,
        request: Request<v1::GetPresenceRequest>,
    ) -> Result<Response<v1::GetPresenceResponse>, Status> {
        let presence = self.0.presence(request.into_inner()).await;
        answer(presence.map(|presence| v1::GetPresenceResponse { presence: Some(presence) }))
    }

    async fn kick(&self, request: Request<v1::KickRequest>) -> Result<Response<v1::KickResponse>, Status> {
        answer(self.0.kick(request.into_inner()).await.map(|sessions| v1::KickResponse { sessions }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        answer(self.0.drain_node(request.into_inner()).await.map(|node| v1::DrainResponse { node: Some(node) }))
    }

    async fn rebalance(&self, _: Request<v1::RebalanceRequest>) -> Result<Response<v1::RebalanceResponse>, Status> {
        answer(self.0.rebalance().await.map(|nodes| v1::RebalanceResponse { nodes }))
    }
}

fn answer<T>(result: Result<T, Refusal>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|refusal| status(&refusal))
}
