//! Fan out: one message on the bus -> the outboxes of a room, drained by the same thread.

use std::{future::poll_fn, sync::Arc, task::Poll};

use prost::Message as _;
use trestle_codec::{Encoding, Since};
use trestle_hub::{Join, Joined, Member, Seat};
use trestle_session::{Outbox, OutboxLimits};
use trestle_wire::{ChannelName, SessionId};

use crate::{node::Node, sample};

/// Members of the room, half of them JSON, half protobuf.
const MEMBERS: u128 = 1000;
const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 1 << 20, frames_max: 1024 };

/// Says a message to the room, and waits until all have it.
pub(crate) async fn room(times: u64) -> anyhow::Result<()> {
    let node = Node::open().await?;
    let channel = ChannelName::parse(sample::CHANNEL)?;
    let mut room = Vec::new();
    for number in 0..MEMBERS {
        room.push(seated(&node, &channel, number).await?);
    }
    let subject = node.subjects.channel(&channel);
    let body: bytes::Bytes = sample::stamped(&node.schemas.current()).encode_to_vec().into();
    let mut taken = Vec::new();
    for _ in 0..times {
        node.fabric.bus.publish(&subject, body.clone()).await?;
        for (member, _seat) in &room {
            let one = poll_fn(|context| member.outbox.poll_take(context, 1, &mut taken)).await;
            anyhow::ensure!(one.is_ok() && taken.len() == 1, "an outbox has overflowed");
            taken.clear();
        }
    }
    Ok(())
}

async fn seated(node: &Node, channel: &ChannelName, number: u128) -> anyhow::Result<(Arc<Member>, Seat)> {
    let encoding = Encoding::ALL[usize::from(number.is_multiple_of(2))];
    let member = Arc::new(Member::new(SessionId::new(&node.id, number), encoding, Outbox::new(LIMITS)));
    let join = Join { channel: channel.clone(), since: Since::Now };
    let seat = node.hub.join(&member, join, |_: Joined| None).await?;
    // The taker of an outbox waits before the message comes, as a connection does.
    poll_fn(|context| {
        let _waits = member.outbox.poll_take(context, 1, &mut Vec::new());
        Poll::Ready(())
    })
    .await;
    Ok((member, seat))
}
