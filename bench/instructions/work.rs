//! What is counted: fixed works, each done again and again by one thread.

use trestle_codec::Encoding::{Json, Protobuf};

use crate::{codec, edge, fanout, session};

/// A fixed work.
pub(crate) struct Work {
    /// Its name, on the command line and in `instructions.toml`.
    pub(crate) name: &'static str,
    /// What is done once, in words.
    pub(crate) unit: &'static str,
    /// How often it is done in the shorter of two runs: some ten million instructions and more, in which the luck of a hash
    /// table's random seed is lost.
    pub(crate) times: u64,
    /// Does it so often.
    pub(crate) run: fn(u64) -> anyhow::Result<()>,
}

const fn work(name: &'static str, unit: &'static str, times: u64, run: fn(u64) -> anyhow::Result<()>) -> Work {
    Work { name, unit, times, run }
}

/// All of them, in the order of a message's way.
pub(crate) const WORKS: &[Work] = &[
    work("decode-json", "a publish with 5 fields", 1000, |n| codec::decode_publish(Json, n)),
    work("decode-protobuf", "the same", 2500, |n| codec::decode_publish(Protobuf, n)),
    work("decide-publish", "a publish -> actions", 10_000, session::publish),
    work("decide-subscribe", "subscribe and unsubscribe, both answered", 5000, session::subscribe),
    work("encode-json", "a delivery with 5 fields", 1500, |n| codec::encode_delivery(Json, n)),
    work("encode-protobuf", "the same", 5000, |n| codec::encode_delivery(Protobuf, n)),
    work("join-json", "16 deliveries in one message", 5000, |n| codec::join_deliveries(Json, n)),
    work("join-protobuf", "the same", 5000, |n| codec::join_deliveries(Protobuf, n)),
    work("fan-out", "one message -> 1,000 outboxes -> out", 60, |n| wait(fanout::room(n))),
    work("own-json", "a client's publish -> its answer and delivery", 600, |n| wait(edge::own(Json, n))),
    work("own-protobuf", "the same", 600, |n| wait(edge::own(Protobuf, n))),
    work("deliver", "one message on the bus -> 64 sockets", 200, |n| wait(edge::deliver(1, n))),
    work("deliver-16", "16 messages at once on the bus -> 64 sockets", 50, |n| wait(edge::deliver(16, n))),
];

/// On one thread: what another one does between two looks at the clock would be counted too.
fn wait(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
