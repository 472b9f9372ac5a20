//! A client that speaks JSON, frame by frame: for tools that have no schemas and people who read along.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::Stream;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use trestle_wire::v1;

use crate::{
    Closed, Error, Options,
    backlog::{Backlog, Item},
    connection::{Connection, Terms},
};

/// A session with the gateway in JSON, over one connection: it ends with that, [`Reconnect`](crate::Reconnect) is the
/// business of the [`Client`](crate::Client).
///
/// ```no_run
/// use serde_json::json;
/// use trestle_client::{JsonClient, Options};
///
/// # async fn example() -> Result<(), trestle_client::Error> {
/// let client = JsonClient::connect("ws://127.0.0.1:8080/ws", Options::default()).await?;
/// let mut frames = client.frames().expect("the first to ask");
/// client.ask(json!({"subscribe": {"channel": "room:42"}})).await?;
/// while let Some(frame) = frames.next().await {
///     println!("{frame}"); // {"delivery":{"messageType":"chat.v1.Comment", ...}}
/// }
/// # Ok(())
/// # }
/// ```
pub struct JsonClient {
    connection: Connection,
    connected: JsonFrame,
    frames: Mutex<Option<JsonFrames>>,
}

impl JsonClient {
    /// Connects, and begins a session.
    ///
    /// # Errors
    /// As [`Client::connect`](crate::Client::connect).
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let unasked = Arc::new(Backlog::new(options.queue_messages_max));
        let token = match &options.token {
            Some(token) => Some(token.get().await.map_err(Error::Token)?),
            None => None,
        };
        let connect = Map::from_iter([("connect".to_owned(), json!({"token": token}))]);
        let (connection, connected) = Connection::open(url, &options, connect, unasked.clone(), terms).await?;
        Ok(Self { connection, connected, frames: Mutex::new(Some(JsonFrames { backlog: unasked })) })
    }

    /// The gateway's `connected` frame.
    #[must_use]
    pub fn session(&self) -> &JsonFrame {
        &self.connected
    }

    /// Sends a frame, such as `{"subscribe":{"channel":"room:42"}}`, and waits for the frame that answers it.
    ///
    /// The id is put in here. That the gateway refused is an answer too: see [`JsonFrame::error`].
    ///
    /// # Errors
    /// [`Error::NotAnObject`], [`Error::TooLarge`], [`Error::Timeout`] and [`Error::Closed`].
    pub async fn ask(&self, frame: Value) -> Result<JsonFrame, Error> {
        self.ask_for(frame, self.connection.answer_timeout()).await
    }

    /// The same with another patience than [`Options::answer_timeout`].
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_for(&self, frame: Value, patience: Duration) -> Result<JsonFrame, Error> {
        let Value::Object(frame) = frame else { return Err(Error::NotAnObject) };
        self.connection.ask_for(frame, patience).await
    }

    /// The frames that come unasked, collected since the session began; `None` when they were taken before.
    #[must_use]
    pub fn frames(&self) -> Option<JsonFrames> {
        self.frames.lock().take()
    }

    /// Closes the connection, after what was sent before.
    pub async fn close(&self) -> Closed {
        self.connection.close().await
    }

    /// Waits until the connection has ended, however that happens.
    pub async fn closed(&self) -> Closed {
        self.connection.closed().await
    }
}

impl fmt::Debug for JsonClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonClient").field("connected", &self.connected.text).finish_non_exhaustive()
    }
}

/// A frame of the gateway, as it came and as a value. Prints as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonFrame {
    text: String,
    value: Value,
}

impl JsonFrame {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { text: text.to_owned(), value: serde_json::from_str(text)? })
    }

    /// The text as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, parsed.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The parsed frame, kept.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.value
    }

    /// What the gateway refused, if this frame says so.
    #[must_use]
    pub fn error(&self) -> Option<v1::Error> {
        let error = self.value.get("error")?;
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        Some(v1::Error {
            code: v1::Code::from_str_name(text("code")).unwrap_or(v1::Code::Unknown).into(),
            reason: text("reason").to_owned(),
            message: text("message").to_owned(),
            field: text("field").to_owned(),
            retryable: error.get("retryable").and_then(Value::as_bool).unwrap_or_default(),
            retry_after: text("retryAfter").parse().ok(),
        })
    }

    pub(crate) fn reply_to(&self) -> u32 {
        self.value.get("replyTo").and_then(Value::as_u64).and_then(|id| id.try_into().ok()).unwrap_or_default()
    }
}

impl fmt::Display for JsonFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Item for JsonFrame {
    fn missing(&self) -> v1::Gap {
        let delivery = self.value.get("delivery");
        let text = |name: &str| delivery.and_then(|of| of.get(name)).and_then(Value::as_str).unwrap_or_default();
        let offset = text("offset").parse().unwrap_or_default();
        let reason = v1::GapReason::Slow.into();
        v1::Gap { channel: text("channel").to_owned(), from: offset, to: offset, count: 1, reason }
    }

    /// The frame that the gateway would have sent.
    fn gap(gap: v1::Gap) -> Self {
        let mut said = Map::from_iter([("channel".to_owned(), gap.channel.into())]);
        for (name, number) in [("from", gap.from), ("to", gap.to), ("count", gap.count)] {
            if number != 0 {
                said.insert(name.to_owned(), number.to_string().into());
            }
        }
        said.insert("reason".to_owned(), v1::GapReason::Slow.as_str_name().into());
        let value = json!({"gap": said});
        Self { text: value.to_string(), value }
    }
}

/// Frames that come unasked: deliveries, gaps, and errors of frames without an id. A [`Stream`] that ends with the
/// connection.
pub struct JsonFrames {
    backlog: Arc<Backlog<JsonFrame>>,
}

impl JsonFrames {
    /// The next one; `None` after the connection has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<JsonFrame> {
        poll_fn(|context| self.backlog.poll_next(context)).await
    }
}

impl Stream for JsonFrames {
    type Item = JsonFrame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JsonFrame>> {
        self.backlog.poll_next(context)
    }
}

impl fmt::Debug for JsonFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonFrames").finish_non_exhaustive()
    }
}

/// A span of time as JSON has it, such as `25s`.
fn span(text: &str) -> Option<Duration> {
    text.parse::<prost_types::Duration>().ok()?.try_into().ok()
}

/// What the gateway says of itself in `connected`.
fn terms(connected: &JsonFrame) -> Result<Terms, Error> {
    if let Some(error) = connected.error() {
        return Err(Error::Refused(error));
    }
    let Some(Value::Object(session)) = connected.value.get("connected") else {
        return Err(Error::Unexpected { expected: "connected" });
    };
    let ping_interval = session.get("pingInterval").and_then(Value::as_str).and_then(span).unwrap_or_default();
    let frame_bytes_max = session.get("frameBytesMax").and_then(Value::as_u64).filter(|max| *max > 0);
    let frame_bytes_max = frame_bytes_max.and_then(|max| max.try_into().ok()).unwrap_or(usize::MAX);
    Ok(Terms { ping_interval, frame_bytes_max })
}
