//! One unary call that answers with what it was asked.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

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
    let server = Server::builder().tcp_nodelay(true).add_service(DirectServer::new(Echo));
    server.serve_with_incoming(TcpListenerStream::new(listener)).await.context("cannot serve")
}
