//! One unary call that answers with what it was asked.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::v1::{
    Answer, Ask,
    direct_server::{Direct, DirectServer},
};

struct Echo;

#[tonic::async_trait]
impl Direct for Echo {
    async fn ask(&self, request: Request<Ask>) -> Result<Response<Answer>, Status> {
        Ok(Response::new(Answer { filling: request.into_inner().filling }))
    }
}

/// Serves until killed.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    // On the socket itself: the server's own setting does not reach sockets that are handed to it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(DirectServer::new(Echo)).serve_with_incoming(incoming).await.context("cannot serve")
}
