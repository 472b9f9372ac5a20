//! The gRPC services of `trestle.v1`, each call handed to its station.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use trestle_wire::v1::{self, bridge_server};

use crate::{Shared, attach, outgoing, push::Origin, push_stream, status::status};

/// `trestle.v1.Bridge` on this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BridgeService(pub(crate) Arc<Shared>);

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl bridge_server::Bridge for BridgeService {
    type AttachStream = Frames<v1::GatewayFrame>;
    type PushStreamStream = Frames<v1::PushStreamResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ServiceFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let shared = self.0.clone();
        let traceparent = traceparent(request.metadata());
        // One for each push under way, and one for the frame being read.
        let (answers, answered) = mpsc::channel(shared.config.push_window + 1);
        let (accepted, attached) = oneshot::channel();
        let conversation = attach::converse(shared.clone(), request.into_inner(), answers, accepted, traceparent);
        shared.tasks.spawn(conversation);
        Ok(Response::new(Box::pin(outgoing::frames(answered, attached))))
    }

    async fn push(&self, request: Request<v1::PushRequest>) -> Result<Response<v1::PushResponse>, Status> {
        let traceparent = traceparent(request.metadata());
        let origin = Origin { service: None, traceparent: traceparent.as_deref() };
        let report = self.0.push(origin, request.into_inner(), true).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(v1::PushResponse { report: Some(report) }))
    }

    async fn push_stream(
        &self,
        request: Request<Streaming<v1::PushStreamRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        let shared = self.0.clone();
        let traceparent = traceparent(request.metadata());
        let (answers, answered) = mpsc::channel(shared.config.push_window);
        shared.tasks.spawn(push_stream::converse(shared.clone(), request.into_inner(), answers, traceparent));
        Ok(Response::new(Box::pin(ReceiverStream::new(answered))))
    }

    async fn update_sessions(
        &self,
        request: Request<v1::UpdateSessionsRequest>,
    ) -> Result<Response<v1::UpdateSessionsResponse>, Status> {
        let sessions = self.0.update_sessions(request.into_inner()).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(v1::UpdateSessionsResponse { sessions }))
    }
}

fn traceparent(metadata: &MetadataMap) -> Option<Arc<str>> {
    metadata.get("traceparent")?.to_str().ok().map(Arc::from)
}
