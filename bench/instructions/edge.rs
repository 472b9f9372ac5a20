//! The whole way, on streams in memory: read, decode, decide, act, bus, fan out, queue, write.

use prost::Message as _;
use trestle_codec::Encoding;
use trestle_wire::ChannelName;

use crate::{client::Client, node::Node, sample};

/// Clients that listen, in protobuf: what others do to count their frames would be more than what is counted.
const CLIENTS: usize = 64;

/// A client's publish -> its own delivery, and the answer.
pub(crate) async fn own(encoding: Encoding, times: u64) -> anyhow::Result<()> {
    let node = Node::open().await?;
    let mut client = Client::subscribed(&node, encoding).await?;
    let message = client.message(&sample::publish(encoding, &node.schemas.current()));
    node.settled().await;
    for _ in 0..times {
        client.send(&message).await?;
        client.frames(2).await?;
    }
    Ok(())
}

/// As many messages as `burst` says on the bus at once -> each client's socket, again and again.
pub(crate) async fn deliver(burst: usize, times: u64) -> anyhow::Result<()> {
    let node = Node::open().await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::subscribed(&node, Encoding::Protobuf).await?);
    }
    let subject = node.subjects.channel(&ChannelName::parse(sample::CHANNEL)?);
    let body: bytes::Bytes = sample::stamped(&node.schemas.current()).encode_to_vec().into();
    node.settled().await;
    for _ in 0..times {
        for _ in 0..burst {
            node.fabric.bus.publish(&subject, body.clone()).await?;
        }
        for client in &mut clients {
            client.frames(burst).await?;
        }
    }
    Ok(())
}
