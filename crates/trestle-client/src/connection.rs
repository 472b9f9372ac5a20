//! One connection in JSON: questions in, answers out, and whatever comes unasked to an inbox.
//!
//! One task owns the socket. It ends when the gateway closes, breaks off or falls silent, and tells everyone who waits.
//! When the last handle is dropped, it says goodbye and waits for the gateway to do the same.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Sleep, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    Closed, Error, Options,
    backlog::Backlog,
    json::JsonFrame,
    link::{Incoming, Link, goodbye},
    upgrade::Upgrade,
    wire::{JSON, pack_json, unpack_json},
};

/// Frames that wait to be written; a caller beyond that waits. 64 x 64 KiB, the largest by default, = 4 MiB.
const UNWRITTEN_FRAMES_MAX: usize = 64;
/// Longest wait for the gateway's half of a close. RFC 6455 names none; the gateway's own is as long.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The id of the connect.
const FIRST: u32 = 1;

/// The program's side of a connection.
pub(crate) struct Connection {
    unwritten: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    next_id: AtomicU32,
    answer_timeout: Duration,
    frame_bytes_max: usize,
}

/// What the program and the task share.
struct Shared {
    waiting: Mutex<HashMap<u32, oneshot::Sender<JsonFrame>>>,
    ended: watch::Sender<Option<Closed>>,
    unasked: Arc<Backlog<JsonFrame>>,
}

/// What the gateway says of itself when a session begins.
pub(crate) struct Terms {
    pub(crate) ping_interval: Duration,
    pub(crate) frame_bytes_max: usize,
}

impl Connection {
    /// Connects, and begins with the frame `connect`; `terms` reads the answer.
    pub(crate) async fn open(
        url: &str,
        options: &Options,
        connect: Map<String, Value>,
        unasked: Arc<Backlog<JsonFrame>>,
        terms: impl FnOnce(&JsonFrame) -> Result<Terms, Error>,
    ) -> Result<(Self, JsonFrame), Error> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), ended: watch::Sender::new(None), unasked });
        let upgrade = Upgrade::new(JSON, options.clone());
        let opening = async {
            let mut link = Link::new(upgrade.open(url).await?);
            let answer = begin(&mut link, &shared, pack_json(FIRST, connect)).await?;
            Ok((link, answer))
        };
        let opened = timeout(options.connect_timeout, opening).await;
        let (mut link, answer) = opened.map_err(|_| Error::Timeout(options.connect_timeout))??;
        let Terms { ping_interval, frame_bytes_max } = terms(&answer)?;
        link.settle(ping_interval);
        let (unwritten, queue) = mpsc::channel(UNWRITTEN_FRAMES_MAX);
        tokio::spawn(run(link, queue, shared.clone()));
        let next_id = AtomicU32::new(FIRST + 1);
        Ok((Self { unwritten, shared, next_id, answer_timeout: options.answer_timeout, frame_bytes_max }, answer))
    }

    /// Sends a frame and waits for its answer.
    pub(crate) async fn ask_for(&self, ask: Map<String, Value>, patience: Duration) -> Result<JsonFrame, Error> {
        timeout(patience, self.answered(ask)).await.map_err(|_| Error::Timeout(patience))?
    }

    async fn answered(&self, ask: Map<String, Value>) -> Result<JsonFrame, Error> {
        let id = self.id();
        let message = pack_json(id, ask);
        let (bytes, max) = (message.len(), self.frame_bytes_max);
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(id, sender);
        let _forgotten = Forget { id, shared: &self.shared };
        // Only now: the task empties the map once, after it has said that it ends.
        if let Some(closed) = self.shared.closed() {
            return Err(Error::Closed(closed));
        }
        self.unwritten.send(message).await.map_err(|_| self.shared.closed_error())?;
        receiver.await.map_err(|_| self.shared.closed_error())
    }

    /// How long an answer may take if nothing else is said.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Says goodbye and waits for the gateway to do the same.
    pub(crate) async fn close(&self) -> Closed {
        // If the queue is gone, the connection has ended already.
        let _ = timeout(CLOSE_TIMEOUT, self.unwritten.send(goodbye())).await;
        timeout(CLOSE_TIMEOUT, self.closed()).await.unwrap_or_else(|_| unanswered())
    }

    /// Waits for the end.
    pub(crate) async fn closed(&self) -> Closed {
        let mut ended = self.shared.ended.subscribe();
        let closed = ended.wait_for(Option::is_some).await.ok().and_then(|closed| closed.clone());
        closed.unwrap_or_else(|| Closed::broken("the connection's task is gone"))
    }

    /// Never 0, which asks for no answer.
    fn id(&self) -> u32 {
        match self.next_id.fetch_add(1, Ordering::Relaxed) {
            0 => self.next_id.fetch_add(1, Ordering::Relaxed),
            id => id,
        }
    }
}

/// The end of a connection whose gateway does not say goodbye.
pub(crate) fn unanswered() -> Closed {
    Closed::broken("the gateway did not answer the close")
}

impl Shared {
    fn closed(&self) -> Option<Closed> {
        self.ended.borrow().clone()
    }

    fn closed_error(&self) -> Error {
        Error::Closed(self.closed().unwrap_or_else(|| Closed::broken("the connection is closing")))
    }

    fn hear(&self, frame: JsonFrame) {
        match frame.reply_to() {
            0 => self.unasked.offer(frame),
            id => match self.waiting.lock().remove(&id) {
                // Whoever asked may have gone in this moment.
                Some(asker) => _ = asker.send(frame),
                None => tracing::debug!(id, "an answer that nobody waits for any more"),
            },
        }
    }
}

/// Whoever goes away is not kept in the map.
struct Forget<'a> {
    id: u32,
    shared: &'a Shared,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.id);
    }
}

/// Sends the first frame and reads until its answer has come.
async fn begin(link: &mut Link, shared: &Shared, connect: Message) -> Result<JsonFrame, Error> {
    let mut connect = Some(connect);
    loop {
        let message = match link.next(&mut connect).await {
            Incoming::Message(message) => message,
            Incoming::Closed(closed) => return Err(Error::Closed(closed)),
        };
        let frames = unpack_json(message).map_err(|fault| Error::Closed(no_frame(&fault)))?;
        let mut answer = None;
        for frame in frames {
            if frame.reply_to() == FIRST { answer = Some(frame) } else { shared.hear(frame) }
        }
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
}

async fn run(mut link: Link, mut queue: mpsc::Receiver<Message>, shared: Arc<Shared>) {
    let closed = run_until_closed(&mut link, &mut queue, &shared).await;
    tracing::debug!(%closed, "connection ended");
    shared.ended.send_replace(Some(closed));
    shared.waiting.lock().clear();
    shared.unasked.end();
}

async fn run_until_closed(link: &mut Link, queue: &mut mpsc::Receiver<Message>, shared: &Shared) -> Closed {
    let mut closing: Option<Pin<Box<Sleep>>> = None;
    loop {
        let incoming = poll_fn(|context| {
            let incoming = link.poll(context, &mut |context| next_unwritten(queue, &mut closing, context));
            match &mut closing {
                Some(patience) if incoming.is_pending() => patience.as_mut().poll(context).map(|()| None),
                _ => incoming.map(Some),
            }
        });
        match incoming.await {
            None => return unanswered(),
            Some(Incoming::Closed(closed)) => return closed,
            Some(Incoming::Message(message)) => match unpack_json(message) {
                Ok(frames) => frames.into_iter().for_each(|frame| shared.hear(frame)),
                Err(fault) => return no_frame(&fault),
            },
        }
    }
}

/// What is written next; goodbye when the last handle is gone, and nothing after it.
fn next_unwritten(
    queue: &mut mpsc::Receiver<Message>,
    closing: &mut Option<Pin<Box<Sleep>>>,
    context: &mut Context<'_>,
) -> Option<Message> {
    if closing.is_some() {
        return None;
    }
    let Poll::Ready(message) = queue.poll_recv(context) else { return None };
    let message = message.unwrap_or_else(goodbye);
    if message.is_close() {
        *closing = Some(Box::pin(sleep(CLOSE_TIMEOUT)));
    }
    Some(message)
}

/// The end of a connection on which something came that cannot be read.
pub(crate) fn no_frame(fault: &str) -> Closed {
    Closed::broken(format!("the gateway sent what is no frame: {fault}"))
}
