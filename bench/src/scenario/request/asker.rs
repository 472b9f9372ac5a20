//! Who asks, and how long each answer took.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use trestle_wire::v1::{ClientFrame, ClientFrames, Envelope, Request, ServerFrame, client_frame::Frame, server_frame};

use crate::{
    crowd::PATIENCE,
    peer::{Heard, Message, TRESTLE},
    socket::Socket,
    v1::{Answer, Ask, direct_client::DirectClient},
};

/// Bytes of a question, and of its answer.
const PAYLOAD_BYTES: usize = 128;

/// The filling of a question that is [`PAYLOAD_BYTES`] long: 3 bytes are its header.
const FILLING: Bytes = Bytes::from_static(&[b'x'; PAYLOAD_BYTES - 3]);

/// Asks one server.
pub(super) enum Asker {
    /// A client of the gateway.
    Through {
        /// Its connection.
        socket: Socket,
        /// The id of its last frame.
        last: u32,
    },
    /// A client of the direct call.
    Straight(DirectClient<Channel>),
}

impl Asker {
    /// Connects to the gateway at `address`.
    pub(super) async fn through(address: &str) -> anyhow::Result<Self> {
        Ok(Self::Through { socket: Socket::open(TRESTLE, address, &[]).await?, last: 1 })
    }

    /// Connects to the direct server at `address`.
    pub(super) async fn straight(address: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
        Ok(Self::Straight(DirectClient::new(channel)))
    }

    /// Asks `requests` times, `outstanding` at once. One latency in nanoseconds for each answer.
    ///
    /// # Errors
    /// If an answer is an error, or not what was asked for.
    pub(super) async fn ask(&mut self, requests: usize, outstanding: usize) -> anyhow::Result<Vec<u64>> {
        match self {
            Self::Through { socket, last } => through(socket, last, requests, outstanding).await,
            Self::Straight(client) => straight(client, requests, outstanding).await,
        }
    }
}

async fn through(socket: &mut Socket, last: &mut u32, requests: usize, outstanding: usize) -> anyhow::Result<Vec<u64>> {
    let mut pending: HashMap<u32, Instant> = HashMap::with_capacity(outstanding);
    let mut latencies = Vec::with_capacity(requests);
    let mut sent = 0;
    while latencies.len() < requests {
        let room = (outstanding - pending.len()).min(requests - sent);
        if room > 0 {
            let messages: Vec<_> = (0..room)
                .map(|_| {
                    *last += 1;
                    pending.insert(*last, Instant::now());
                    question(*last)
                })
                .collect();
            socket.writer().send(&messages).await?;
            sent += room;
        }
        let mut answers = Vec::new();
        let each = &mut |heard: Heard<'_>| {
            if let Heard::Answer(frame) = heard {
                answers.push(Bytes::copy_from_slice(frame));
            }
        };
        let Ok(read) = tokio::time::timeout(PATIENCE, socket.read(each)).await else { break };
        read?;
        for frame in answers {
            let begun = pending.remove(&replied(frame)?).context("a reply to nothing")?;
            latencies.push(nanoseconds(begun));
        }
    }
    Ok(latencies)
}

/// Which question a frame replies to, with what was asked.
fn replied(frame: Bytes) -> anyhow::Result<u32> {
    let frame = ServerFrame::decode(frame)?;
    let answer = match frame.frame {
        Some(server_frame::Frame::Reply(reply)) => Answer::decode(reply.payload)?,
        other => bail!("not a reply: {other:?}"),
    };
    ensure!(answer.filling == FILLING, "the answer is to another question");
    Ok(frame.reply_to)
}

fn question(id: u32) -> Message {
    let payload = Ask { filling: FILLING }.encode_to_vec().into();
    let message = Envelope { message_type: "bench.v1.Ask".into(), payload, ..Envelope::default() };
    let frame = Frame::Request(Request { message: Some(message), timeout: None });
    let frames = vec![ClientFrame { id, frame: Some(frame) }];
    Message::binary(ClientFrames { frames }.encode_to_vec())
}

async fn straight(client: &DirectClient<Channel>, requests: usize, outstanding: usize) -> anyhow::Result<Vec<u64>> {
    let mut askers = JoinSet::new();
    for number in 0..outstanding {
        let mut client = client.clone();
        let share = requests / outstanding + usize::from(number < requests % outstanding);
        askers.spawn(async move {
            let mut latencies = Vec::with_capacity(share);
            for _ in 0..share {
                let begun = Instant::now();
                let answer = client.ask(Ask { filling: FILLING }).await?;
                ensure!(answer.into_inner().filling == FILLING, "the answer is to another question");
                latencies.push(nanoseconds(begun));
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::with_capacity(requests);
    while let Some(some) = askers.join_next().await {
        latencies.append(&mut some??);
    }
    Ok(latencies)
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).expect("a bench does not take centuries")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor;

    #[tokio::test]
    async fn every_direct_call_is_answered_and_timed() {
        let listener = floor::hub::listen().expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(floor::direct::serve(listener));
        let mut asker = Asker::straight(&address).await.expect("connects");
        for outstanding in [1, 7] {
            assert_eq!(asker.ask(50, outstanding).await.expect("answered").len(), 50);
        }
    }
}
