//! What a service is made of, and how it is told to run.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use opentelemetry::global::{BoxedTracer, ObjectSafeTracer};

use trestle_wire::v1;

use crate::{Context, Nack, ServiceError, events, events::Listener, handler, handler::Handler, run};

/// Where the gateway listens unless told otherwise.
const ENDPOINT: &str = "http://127.0.0.1:9090";

/// A service of a company, on the gRPC side of a gateway.
#[derive(Debug)]
pub struct Service;

impl Service {
    /// Begins the description of the service that routes call `name`.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            instance: String::new(),
            endpoint: ENDPOINT.into(),
            max_in_flight: 64,
            stop_within: Duration::from_secs(20),
            handlers: BTreeMap::new(),
            listener: None,
            tracer: None,
        }
    }
}

/// A service before it runs.
#[must_use = "a service does nothing until `run`"]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) endpoint: String,
    pub(crate) max_in_flight: u32,
    pub(crate) stop_within: Duration,
    /// By full name of the type.
    pub(crate) handlers: BTreeMap<String, Handler>,
    pub(crate) listener: Option<Listener>,
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
}

impl Builder {
    /// Where the gateway's gRPC listens. Default `http://127.0.0.1:9090`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Name of this instance, for people. Default: the gateway makes one up.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = name.into();
        self
    }

    /// Most handlers that run at once. Default 64; the gateway allows at most 4096 unless its operator says otherwise.
    pub fn max_in_flight(mut self, max: u32) -> Self {
        self.max_in_flight = max.max(1);
        self
    }

    /// How long handlers may take to finish after `shutdown`. Default 20 s.
    pub fn stop_within(mut self, wait: Duration) -> Self {
        self.stop_within = wait;
        self
    }

    /// Records the handlers' spans. Default: the global tracer of `opentelemetry`, if the program has set one.
    pub fn tracer(mut self, tracer: impl ObjectSafeTracer + Send + Sync + 'static) -> Self {
        self.tracer = Some(Arc::new(BoxedTracer::new(Box::new(tracer))));
        self
    }

    /// Handles messages of a type, given by its full name. The message is acknowledged when `handler` returns, and comes
    /// again if it fails.
    pub fn on<M, F, Fut>(mut self, message_type: impl Into<String>, handler: F) -> Self
    where
        M: prost::Message + Default + 'static,
        F: Fn(Context, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Nack>> + Send + 'static,
    {
        self.handlers.insert(message_type.into(), handler::of_messages(handler));
        self
    }

    /// Answers requests of a type with messages of `reply_type`, both given by their full names.
    pub fn on_request<M, R, F, Fut>(
        mut self,
        message_type: impl Into<String>,
        reply_type: impl Into<String>,
        handler: F,
    ) -> Self
    where
        M: prost::Message + Default + 'static,
        R: prost::Message + 'static,
        F: Fn(Context, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Nack>> + Send + 'static,
    {
        self.handlers.insert(message_type.into(), handler::of_requests(reply_type.into(), handler));
        self
    }

    /// Hears what happens to sessions: connected, pending, resumed, expired. Each event goes to one instance of the service,
    /// once; `handler` gets them one after the other. Those that come while no instance is attached are not repeated. The
    /// context's sender is the session, so that the handler can push to it and change its groups and tags.
    pub fn on_session_event<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Context, v1::SessionEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.listener = Some(events::listener(handler));
        self
    }

    /// Attaches and handles until `shutdown`; attaches again, with growing waits, whenever the connection is lost. At the
    /// end handlers that run may finish, and what they did is acknowledged.
    ///
    /// # Errors
    /// [`ServiceError::Endpoint`]; [`ServiceError::Refused`] if the gateway says at the first hello that it will never
    /// take this service. A refusal after that is logged and tried again: routes change while services run.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServiceError> {
        run::run(self, shutdown).await
    }
}
