//! Servers that do the same work, and how each is spoken to. A peer is one small file; it knows no scenario.

mod centrifuge;
mod floor;
mod gorilla;
mod nats;
mod socketio;
mod trestle;

use bytes::Bytes;

pub(crate) use floor::SUBSCRIBED;

/// Ours.
pub(crate) const TRESTLE: &dyn Peer = &trestle::Trestle;
/// The limit: the minimal program of [`crate::floor::hub`].
pub(crate) const FLOOR: &dyn Peer = &floor::Floor;
/// What others built, each got and started by `bench/peers/provide.sh NAME`.
pub(crate) const OTHERS: [&dyn Peer; 4] =
    [&gorilla::Gorilla, &nats::Nats, &centrifuge::Centrifuge, &socketio::SocketIo];

/// One WebSocket message of a client.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Text, or binary.
    pub(crate) text: bool,
    pub(crate) bytes: Bytes,
}

impl Message {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: true, bytes: Bytes::from(text.into()) }
    }

    pub(crate) fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { text: false, bytes: bytes.into() }
    }
}

/// What a client says in one write, and how many answers it then waits for.
pub(crate) struct Turn {
    pub(crate) say: Vec<Message>,
    pub(crate) answers: usize,
}

/// One thing that a server said.
pub(crate) enum Heard<'a> {
    /// A message of a channel, in whatever it was wrapped.
    Delivery(&'a [u8]),
    /// The answer to something that the client said.
    Answer(&'a [u8]),
    /// A question of the protocol's own whether the client lives.
    Ping,
}

/// How a server is spoken to.
pub(crate) trait Peer: Sync {
    /// The name in tables, and of its folder in `bench/peers`.
    fn name(&self) -> &'static str;

    /// In which file of the workspace its version stands, behind which words.
    fn version(&self) -> (&'static str, &'static str);

    /// Path and subprotocol of its WebSocket.
    fn endpoint(&self) -> (&'static str, Option<&'static str>);

    /// What opens a connection and subscribes it to `channels`, in as few turns as the protocol allows.
    fn opening(&self, channels: &[usize]) -> Vec<Turn>;

    /// Publishes `payload` on `channel`.
    fn publish(&self, channel: usize, payload: &[u8]) -> Message;

    /// Hands each thing in a WebSocket message to `each`.
    ///
    /// # Errors
    /// If the server refuses something, or says what was not expected.
    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()>;

    /// The answer to a ping of the protocol's own.
    fn pong(&self) -> Option<Message> {
        None
    }

    /// Whether WebSocket frames carry a stream of lines, cut anywhere. Then whole lines are heard.
    fn is_stream(&self) -> bool {
        false
    }
}

/// The server's words as an error.
fn refused(message: &[u8]) -> anyhow::Error {
    anyhow::anyhow!("not expected: {}", String::from_utf8_lossy(message))
}
