//! One attached stream: hello, deliveries to handlers, what they return to the gateway.
//!
//! The loop never waits to send: what it says is bounded by the deliveries it has, and there is room for that, so the
//! stream is always read, and pushes, which do wait, are answered. A gateway that gives out credit again before it has
//! read the answers can fill that room all the same; then the stream is ended, since an answer that is not sent must not
//! be thought sent, and what was not answered comes again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::stream;
use opentelemetry::{global::BoxedTracer, trace::FutureExt as _};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, error::TrySendError},
    },
    task::{Id, JoinError, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};
use trestle_wire::v1::{self, bridge_client::BridgeClient, gateway_frame::Frame, service_frame::Frame as Say};

use crate::{
    Context, Nack,
    context::Link,
    events::{Events, Listener},
    handler::{Handler, Outcome},
    trace,
};

/// Pushes of handlers that may wait to be sent; more wait in the handlers.
const PUSHES_MAX: usize = 256;
/// How long the gateway may take to answer the hello; it has 5 s for its own part of it.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long the gateway may take to end the stream after the service has said all.
const END_WAIT: Duration = Duration::from_secs(3);
/// How long before work comes again whose handler has panicked.
const PANICKED_DELAY: Duration = Duration::from_secs(1);

/// What all streams of a service share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) max_in_flight: u32,
    pub(crate) stop_within: Duration,
    pub(crate) handlers: BTreeMap<String, Handler>,
    pub(crate) listener: Option<Listener>,
    pub(crate) tracer: Arc<BoxedTracer>,
    /// Room for running handlers.
    pub(crate) running: Arc<Semaphore>,
}

/// Attaches and serves until the gateway ends the stream, or `stop`. Calls `attached` once it is.
///
/// # Errors
/// The status with which the gateway refused or the stream broke.
pub(crate) async fn serve(
    shared: &Shared,
    mut client: BridgeClient<Channel>,
    stop: &CancellationToken,
    attached: impl FnOnce(),
) -> Result<(), Status> {
    // An answer for each delivery, a hello and a credit.
    let (answers, answered) = mpsc::channel(shared.max_in_flight as usize + 2);
    let (say, said) = mpsc::channel(PUSHES_MAX);
    let types = shared.handlers.keys();
    let hello = v1::Hello {
        service: shared.name.clone(),
        instance: shared.instance.clone(),
        types: types.map(|name| v1::ConsumedType { message_type: name.clone(), versions: Vec::new() }).collect(),
        max_in_flight: shared.max_in_flight,
        session_events: shared.listener.is_some(),
    };
    let link = Link { say, pending: Arc::default(), client: client.clone() };
    let mut stream = Attached {
        shared,
        answers,
        events: shared.listener.clone().map(|listener| Events::start(listener, link.clone())),
        link,
        handlers: JoinSet::new(),
        running: HashMap::new(),
        tokens: HashMap::new(),
    };
    stream.say(Say::Hello(hello))?;
    let frames = stream::select(ReceiverStream::new(answered), ReceiverStream::new(said));
    let hello = async {
        let mut frames = client.attach(frames).await?.into_inner();
        let first = frames.message().await?;
        Ok::<_, Status>((frames, first))
    };
    let (mut frames, first) = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        hello = tokio::time::timeout(HELLO_WAIT, hello) => {
            hello.map_err(|_| Status::deadline_exceeded("the gateway did not answer the hello"))??
        }
    };
    match first {
        Some(v1::GatewayFrame { frame: Some(Frame::Attached(hello)) }) => {
            tracing::info!(service = shared.name, instance = hello.instance, node = hello.node, "attached");
            attached();
        }
        Some(_) => return Err(Status::internal("the gateway's first frame was not `attached`")),
        None => return Ok(()),
    }
    let result = stream.run(&mut frames, stop).await;
    stream.link.pending.close();
    for token in stream.tokens.values() {
        token.cancel();
    }
    // What they do is done again elsewhere; they are told, not torn off.
    stream.handlers.detach_all();
    result
}

struct Attached<'a> {
    shared: &'a Shared,
    answers: mpsc::Sender<v1::ServiceFrame>,
    events: Option<Events>,
    link: Link,
    handlers: JoinSet<Outcome>,
    /// Delivery by task.
    running: HashMap<Id, Delivered>,
    /// By delivery id; those that are cancelled are gone.
    tokens: HashMap<u64, CancellationToken>,
}

struct Delivered {
    id: u64,
    request: bool,
}

impl Attached<'_> {
    async fn run(&mut self, frames: &mut Streaming<v1::GatewayFrame>, stop: &CancellationToken) -> Result<(), Status> {
        loop {
            tokio::select! {
                frame = frames.message() => match frame? {
                    Some(frame) => self.hear(frame)?,
                    None => return Ok(()),
                },
                Some(done) = self.handlers.join_next_with_id() => self.settle(done)?,
                () = stop.cancelled() => break,
            }
        }
        // Nothing new; what runs may finish.
        self.say(Say::Credit(v1::Credit { max_in_flight: 0 }))?;
        let finished = tokio::time::timeout(self.shared.stop_within, self.finish(frames)).await;
        if finished.is_err() {
            tracing::warn!(service = self.shared.name, running = self.running.len(), "handlers did not finish in time");
        }
        finished.unwrap_or(Ok(()))
    }

    /// Until no handler runs, those of session events included; then ends the stream and waits until the gateway has heard that.
    async fn finish(&mut self, frames: &mut Streaming<v1::GatewayFrame>) -> Result<(), Status> {
        let events = self.events.take();
        let told = async move {
            if let Some(events) = events {
                events.finish().await;
            }
        };
        tokio::pin!(told);
        let mut all_told = false;
        while !self.handlers.is_empty() || !all_told {
            tokio::select! {
                () = &mut told, if !all_told => all_told = true,
                frame = frames.message() => match frame? {
                    Some(frame) => self.hear(frame)?,
                    None => return Ok(()),
                },
                Some(done) = self.handlers.join_next_with_id() => self.settle(done)?,
            }
        }
        // Both sides of the merged stream end when their senders are gone.
        self.answers = mpsc::channel(1).0;
        self.link.say = mpsc::channel(1).0;
        let end = async {
            while frames.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(END_WAIT, end).await.unwrap_or(Ok(()))
    }

    fn hear(&mut self, frame: v1::GatewayFrame) -> Result<(), Status> {
        match frame.frame {
            Some(Frame::Deliveries(deliveries)) => {
                for delivery in deliveries.deliveries {
                    self.start(delivery)?;
                }
            }
            Some(Frame::Cancel(cancel)) => {
                if let Some(token) = self.tokens.remove(&cancel.delivery_id) {
                    token.cancel();
                }
            }
            Some(Frame::Pushed(pushed)) => self.link.pending.answered(pushed),
            Some(Frame::Error(error)) => {
                let v1::Error { reason, message, field, .. } = error;
                tracing::warn!(service = self.shared.name, reason, message, field, "the gateway objects");
            }
            Some(Frame::Draining(_)) => tracing::info!(service = self.shared.name, "the gateway is about to stop"),
            Some(Frame::SessionEvent(event)) => {
                if let Some(events) = &self.events {
                    events.tell(event);
                }
            }
            Some(Frame::Attached(_)) | None => {}
        }
        Ok(())
    }

    /// Runs the handler of a delivery.
    fn start(&mut self, mut delivery: v1::Delivery) -> Result<(), Status> {
        let delivered = Delivered { id: delivery.delivery_id, request: delivery.request };
        let envelope = delivery.envelope.take().unwrap_or_default();
        let Some(handler) = self.shared.handlers.get(&envelope.message_type).cloned() else {
            // The gateway was told which types are taken.
            tracing::error!(message_type = envelope.message_type, "a delivery of a type that was not asked for");
            return self.answer(&delivered, Err(Nack::later(PANICKED_DELAY)));
        };
        let token = CancellationToken::new();
        self.tokens.insert(delivered.id, token.clone());
        let span = trace::begin(&self.shared.tracer, &self.shared.name, delivery.attempt, &envelope);
        let traceparent = trace::traceparent(span.as_ref(), &envelope);
        let header = v1::Envelope { payload: bytes::Bytes::new(), ..envelope.clone() };
        let context = Context::new(&delivery, header, token, traceparent, self.link.clone());
        let running = self.shared.running.clone();
        let task = async move {
            // Handlers of an earlier stream, or cancelled ones, may still run.
            let _room = running.acquire_owned().await;
            let handled = handler(context, envelope);
            let outcome = match span.clone() {
                Some(span) => handled.with_context(span).await,
                None => handled.await,
            };
            trace::end(span.as_ref(), outcome.is_err().then_some("nack"));
            outcome
        };
        let task = self.handlers.spawn(task).id();
        self.running.insert(task, delivered);
        Ok(())
    }

    /// Says what became of the handlers that have finished; as many in a frame as there are.
    fn settle(&mut self, done: Result<(Id, Outcome), JoinError>) -> Result<(), Status> {
        let mut acked = Vec::new();
        let mut next = Some(done);
        while let Some(done) = next {
            let (task, outcome) = match done {
                Ok((task, outcome)) => (task, outcome),
                Err(error) => {
                    tracing::error!(service = self.shared.name, %error, "a handler broke down");
                    (error.id(), Err(Nack::later(PANICKED_DELAY)))
                }
            };
            if let Some(delivered) = self.running.remove(&task)
                // A cancelled delivery needs no answer.
                && self.tokens.remove(&delivered.id).is_some()
            {
                match outcome {
                    Ok(None) if !delivered.request => acked.push(delivered.id),
                    outcome => self.answer(&delivered, outcome)?,
                }
            }
            next = self.handlers.try_join_next_with_id();
        }
        if !acked.is_empty() {
            self.say(Say::Ack(v1::Ack { delivery_ids: acked }))?;
        }
        Ok(())
    }

    fn answer(&self, delivered: &Delivered, outcome: Outcome) -> Result<(), Status> {
        let delivery_id = delivered.id;
        self.say(match outcome {
            Ok(Some(message)) if delivered.request => Say::Reply(v1::Reply { delivery_id, message: Some(message) }),
            Ok(None) if delivered.request => {
                let sentence = "the service takes messages of this type, but does not answer requests";
                let nack = Nack::refuse(v1::Code::FailedPrecondition, "not_a_request", sentence);
                Say::Nack(v1::Nack { delivery_id, delay: None, error: nack.error })
            }
            Ok(_) => Say::Ack(v1::Ack { delivery_ids: vec![delivery_id] }),
            Err(Nack { delay, error }) => {
                Say::Nack(v1::Nack { delivery_id, delay: prost_types::Duration::try_from(delay).ok(), error })
            }
        })
    }

    fn say(&self, frame: Say) -> Result<(), Status> {
        match self.answers.try_send(v1::ServiceFrame { frame: Some(frame) }) {
            Err(TrySendError::Full(_)) => Err(Status::resource_exhausted("the gateway does not read the answers")),
            // The stream has ended, and the loop learns of that from it.
            Err(TrySendError::Closed(_)) | Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared {
            name: "users".into(),
            instance: String::new(),
            max_in_flight: 1,
            stop_within: Duration::from_secs(1),
            handlers: BTreeMap::new(),
            listener: None,
            tracer: Arc::new(opentelemetry::global::tracer("test")),
            running: Arc::new(Semaphore::new(1)),
        }
    }

    #[tokio::test]
    async fn an_answer_that_finds_no_room_ends_the_stream() {
        let shared = shared();
        let (answers, answered) = mpsc::channel(1);
        let (say, _said) = mpsc::channel(1);
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let link = Link { say, pending: Arc::default(), client: BridgeClient::new(channel) };
        let mut stream = Attached {
            shared: &shared,
            answers,
            events: None,
            link,
            handlers: JoinSet::new(),
            running: HashMap::new(),
            tokens: HashMap::new(),
        };
        // Nobody takes the type, so each delivery is answered at once; nobody reads the answers.
        let deliveries =
            |id| v1::Deliveries { deliveries: vec![v1::Delivery { delivery_id: id, ..v1::Delivery::default() }] };
        let frame = |id| v1::GatewayFrame { frame: Some(Frame::Deliveries(deliveries(id))) };
        stream.hear(frame(1)).expect("there is room for one");
        let status = stream.hear(frame(2)).expect_err("there is none for two");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(answered);
        stream.hear(frame(3)).expect("the stream has ended already");
    }
}
