//! The gateway's own contract for services with nothing behind it: every push is answered, and that is all. What raw
//! streams of the same messages cost.

use std::pin::Pin;

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use trestle_wire::v1::{
    Attached, GatewayFrame, PushReport, PushRequest, PushResponse, PushStreamRequest, PushStreamResponse, ServiceFrame,
    UpdateSessionsRequest, UpdateSessionsResponse,
    bridge_server::{Bridge, BridgeServer},
    gateway_frame, push_stream_response, service_frame,
};

/// Answers under way to one service; as many as the gateway's own window.
const ANSWERS_MAX: usize = 256;

struct Echo;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Bridge for Echo {
    type AttachStream = Answers<GatewayFrame>;
    type PushStreamStream = Answers<PushStreamResponse>;

    async fn attach(&self, request: Request<Streaming<ServiceFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(answers(request.into_inner(), |frame: ServiceFrame| match frame.frame {
            Some(service_frame::Frame::Push(push)) => gateway_frame(gateway_frame::Frame::Pushed(pushed(push.seq))),
            _ => gateway_frame(gateway_frame::Frame::Attached(Attached::default())),
        })))
    }

    async fn push(&self, _: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        Ok(Response::new(PushResponse { report: Some(PushReport::default()) }))
    }

    async fn push_stream(
        &self,
        request: Request<Streaming<PushStreamRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        Ok(Response::new(answers(request.into_inner(), |push: PushStreamRequest| pushed(push.seq))))
    }

    async fn update_sessions(
        &self,
        _: Request<UpdateSessionsRequest>,
    ) -> Result<Response<UpdateSessionsResponse>, Status> {
        Err(Status::unimplemented("no sessions here"))
    }
}

/// One answer for each message, through a channel as in any server that reads and writes at once.
fn answers<M, A>(mut incoming: Streaming<M>, answer: fn(M) -> A) -> Answers<A>
where
    M: Send + 'static,
    A: Send + 'static,
{
    let (outgoing, answers) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        while let Some(Ok(message)) = incoming.next().await {
            if outgoing.send(Ok(answer(message))).await.is_err() {
                break;
            }
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

fn pushed(seq: u64) -> PushStreamResponse {
    PushStreamResponse { seq, outcome: Some(push_stream_response::Outcome::Report(PushReport::default())) }
}

fn gateway_frame(frame: gateway_frame::Frame) -> GatewayFrame {
    GatewayFrame { frame: Some(frame) }
}

/// Serves until killed.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    // On the socket itself: the server's own setting does not reach sockets that are handed to it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(BridgeServer::new(Echo)).serve_with_incoming(incoming).await?)
}
