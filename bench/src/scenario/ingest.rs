//! Messages that a service pushes into a channel where nobody listens: what taking them costs, beside streams of the
//! same messages with nothing behind them, and one HTTP request for each where a peer is fed so.

mod post;

use std::time::Instant;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};
use trestle_wire::v1::{
    Envelope, Hello, PushRequest, PushStreamRequest, PushStreamResponse, ServiceFrame, Target,
    bridge_client::BridgeClient, gateway_frame, push_stream_response::Outcome as Pushed, service_frame::Frame, target,
};

use post::Post;

use crate::{
    bench::Bench,
    crowd::PATIENCE,
    floor::Role,
    process::Server,
    stamp,
    turns::{Found, Outcome, in_turns},
    v1::Tick,
};

/// Pushes that may be unanswered; the gateway's own window.
const WINDOW: usize = 256;

/// The peer that services feed by HTTP, and where.
const FED_BY_HTTP: (&str, &str) = ("centrifuge", "/publish/c0");

/// A server that takes pushes.
enum Taker {
    Bridge(Bridge),
    Http(Post, Server),
}

/// One with the gateway's contract for services.
struct Bridge {
    server: Server,
    bridge: BridgeClient<Channel>,
}

/// Measures the gateway and the bare streams, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let gateway = Server::gateway(&bench.gateway, "embedded").await?;
    let floor = Server::floor(Role::Streams, &[]).await?;
    let mut takers = vec![
        ("trestle", Taker::Bridge(Bridge::new(gateway, "grpc").await?)),
        ("floor", Taker::Bridge(Bridge::new(floor, "listen").await?)),
    ];
    let (name, path) = FED_BY_HTTP;
    if let Some(side) = bench.side(name) {
        let running = side.start().await?;
        takers.push((name, Taker::Http(Post::connect(&running.address, path).await?, running.server)));
    }
    let pushes = bench.scaled(100_000, 20_000);
    let measure = async |taker: &mut Taker| {
        Ok(match taker {
            Taker::Bridge(bridge) => vec![
                bridge.push_stream(pushes, WINDOW).await.context("PushStream")?,
                bridge.push_stream(pushes / 20, 1).await.context("PushStream")?,
                bridge.attach(pushes).await.context("Attach")?,
                bridge.push(pushes / 20).await.context("Push")?,
            ],
            Taker::Http(post, server) => vec![publish(post, server, pushes / 20).await.context("HTTP")?],
        })
    };
    Ok(in_turns("ingest", bench.rounds(), takers, measure).await)
}

/// One request for each message.
async fn publish(post: &mut Post, server: &Server, pushes: usize) -> anyhow::Result<Found> {
    let start = (Instant::now(), server.cpu_ns()?);
    for _ in 0..pushes {
        post.publish(&stamp::payload(128)).await?;
    }
    found(server, "one call each, 128 B, 1 at once".into(), pushes, 0, start)
}

impl Bridge {
    async fn new(server: Server, key: &str) -> anyhow::Result<Self> {
        let address = server.address(key)?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
        Ok(Self { server, bridge: BridgeClient::new(channel) })
    }

    async fn push_stream(&mut self, pushes: usize, window: usize) -> anyhow::Result<Found> {
        let (outgoing, requests) = mpsc::channel(window);
        let answers = self.bridge.push_stream(ReceiverStream::new(requests));
        let mut answers = answers.await?.into_inner().map(|answer| Ok(Some(answer?)));
        let load = format!("PushStream, 128 B, {window} at once");
        feed(&self.server, load, pushes, window, &outgoing, |push| push, &mut answers).await
    }

    async fn attach(&mut self, pushes: usize) -> anyhow::Result<Found> {
        let frame = |frame| ServiceFrame { frame: Some(frame) };
        let (outgoing, requests) = mpsc::channel(WINDOW + 1);
        outgoing.send(frame(Frame::Hello(Hello { service: "bench".into(), ..Hello::default() }))).await?;
        let answers = self.bridge.attach(ReceiverStream::new(requests)).await?.into_inner();
        let mut answers = answers.map(|frame| match frame?.frame {
            Some(gateway_frame::Frame::Pushed(answer)) => Ok(Some(answer)),
            Some(gateway_frame::Frame::Attached(_)) => Ok(None),
            other => bail!("not expected: {other:?}"),
        });
        let load = format!("Attach, 128 B, {WINDOW} at once");
        feed(&self.server, load, pushes, WINDOW, &outgoing, |push| frame(Frame::Push(push)), &mut answers).await
    }

    /// One call for each message: what a service does that has no stream.
    async fn push(&mut self, pushes: usize) -> anyhow::Result<Found> {
        let (begun, cpu) = (Instant::now(), self.server.cpu_ns()?);
        for seq in 0..pushes {
            self.bridge.push(push(seq).push.context("has one")?).await?;
        }
        found(&self.server, "one call each, 128 B, 1 at once".into(), pushes, 0, (begun, cpu))
    }
}

/// Pushes so many with a window, and waits until all are answered.
async fn feed<M>(
    server: &Server,
    load: String,
    pushes: usize,
    window: usize,
    outgoing: &mpsc::Sender<M>,
    wrap: impl Fn(PushStreamRequest) -> M,
    answers: &mut (impl tokio_stream::Stream<Item = anyhow::Result<Option<PushStreamResponse>>> + Unpin),
) -> anyhow::Result<Found> {
    let start = (Instant::now(), server.cpu_ns()?);
    let (mut sent, mut answered) = (0, 0);
    while answered < pushes {
        while sent < pushes && sent - answered < window {
            outgoing.try_send(wrap(push(sent))).ok().context("the server takes less than its window")?;
            sent += 1;
        }
        let Ok(answer) = tokio::time::timeout(PATIENCE, answers.next()).await else { break };
        if let Some(answer) = answer.context("the stream ended")?? {
            match answer.outcome {
                Some(Pushed::Report(_)) => answered += 1,
                other => bail!("not taken: {other:?}"),
            }
        }
    }
    found(server, load, answered, pushes - answered, start)
}

fn found(server: &Server, load: String, count: usize, lost: usize, start: (Instant, u64)) -> anyhow::Result<Found> {
    let cpu = (server.cpu_ns()? - start.1) as f64;
    let figures = vec![
        ("cpu_us", cpu / 1e3 / count as f64),
        ("per_cpu_second", count as f64 * 1e9 / cpu),
        ("per_second", count as f64 / start.0.elapsed().as_secs_f64()),
    ];
    Ok(Found { load, lost: lost as u64, figures })
}

fn push(seq: usize) -> PushStreamRequest {
    // Two bytes are the header of the message.
    let payload = Tick { filling: Bytes::from(stamp::payload(126)) }.encode_to_vec().into();
    let message = Envelope { message_type: "bench.v1.Tick".into(), payload, ..Envelope::default() };
    let target = Target { target: Some(target::Target::Channel("live:nobody".into())) };
    let push = PushRequest { target: Some(target), message: Some(message) };
    PushStreamRequest { seq: seq as u64, push: Some(push), count: false }
}
