//! Servers that do the same work, and how each is spoken to. A peer is one small file; it knows no scenario.

mod centrifuge;
mod floor;
mod gorilla;
mod nats;
mod socketio;
mod sockudo;
mod trestle;

use bytes::Bytes;

pub(crate) use floor::SUBSCRIBED;

/// Ours.
pub(crate) const TRESTLE: &dyn Peer = &trestle::Trestle;
/// The limit: the minimal program of [`crate::floor::hub`].
pub(crate) const FLOOR: &dyn Peer = &floor::Floor;
/// What others built, each got and started by `bench/peers/provide.sh NAME`.
pub(crate) const OTHERS: [&dyn Peer; 5] =
    [&gorilla::Gorilla, &nats::Nats, &centrifuge::Centrifuge, &sockudo::Sockudo, &socketio::SocketIo];

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

    /// Turn by turn, from 0, what opens a connection and subscribes it to `channels`, in as few as the protocol allows.
    /// `answer` is the last one that came.
    ///
    /// # Errors
    /// If the answer is not what it should be.
    fn turn(&self, number: usize, channels: &[usize], answer: &[u8]) -> anyhow::Result<Option<Turn>>;

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

    /// Whether only who is subscribed may publish; the message then comes to all others.
    fn is_for_members(&self) -> bool {
        false
    }

    /// Whether WebSocket frames carry a stream of lines, cut anywhere. Then whole lines are heard.
    fn is_stream(&self) -> bool {
        false
    }
}

/// A single turn: nothing depends on its answers.
fn at_once(number: usize, say: Vec<Message>, answers: usize) -> anyhow::Result<Option<Turn>> {
    Ok((number == 0).then_some(Turn { say, answers }))
}

/// The server's words as an error.
fn refused(message: &[u8]) -> anyhow::Error {
    anyhow::anyhow!("not expected: {}", String::from_utf8_lossy(message))
}
