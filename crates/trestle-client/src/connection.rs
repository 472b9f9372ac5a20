//! One WebSocket and its two tasks: questions in, answers out, and whatever comes unasked to a listener.
//!
//! The writing task owns the sending half and ends when the last [`Connection`] is dropped, with a close frame, or when
//! the reading task has ended: nobody may take what it writes then, and it must not wait for that for ever. The reading
//! task owns the other half and ends when the gateway closes, breaks off or falls silent; its end is the
//! connection's: it tells everyone who waits.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    Closed, Error, Options,
    upgrade::{Socket, upgrade},
    wire::Wire,
};

/// Frames that wait to be written; a caller beyond that waits. 64 x 64 KiB, the largest by default, = 4 MiB.
const UNWRITTEN_FRAMES_MAX: usize = 64;
/// Longest wait for the gateway's half of a close. RFC 6455 names none; the gateway's own is as long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the gateway to hang up once both halves of a close are done; it does so at once.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest silence before the gateway has said how often it pings; its default is 25 s.
const FIRST_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How much later than two of its intervals a ping may come.
const PING_GRACE: Duration = Duration::from_secs(10);

/// Hears what comes unasked. Called by the reading task: must not wait.
pub(crate) trait Listener<F>: Send + Sync + 'static {
    fn hear(&self, frame: F);
    /// Nothing comes any more.
    fn end(&self);
}

/// The program's side of a connection.
pub(crate) struct Connection<W: Wire> {
    unwritten: mpsc::Sender<Message>,
    shared: Arc<Shared<W>>,
    next_id: AtomicU32,
    answer_timeout: Duration,
}

/// What the program and the reading task share.
struct Shared<W: Wire> {
    waiting: Mutex<HashMap<u32, oneshot::Sender<W::Frame>>>,
    ended: watch::Sender<Option<Closed>>,
    silence_max_ms: AtomicU64,
    frame_bytes_max: AtomicUsize,
}

impl<W: Wire> Connection<W> {
    /// Connects and starts the tasks; frames may be sent, the first is a connect.
    pub(crate) async fn open(
        url: &str,
        options: &Options,
        listener: Arc<dyn Listener<W::Frame>>,
    ) -> Result<Self, Error> {
        let socket = timeout(options.connect_timeout, upgrade(url, W::SUBPROTOCOL, options))
            .await
            .map_err(|_| Error::Timeout(options.connect_timeout))??;
        let (sink, stream) = socket.split();
        let (unwritten, queue) = mpsc::channel(UNWRITTEN_FRAMES_MAX);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            ended: watch::Sender::new(None),
            silence_max_ms: AtomicU64::new(millis(FIRST_SILENCE_MAX)),
            frame_bytes_max: AtomicUsize::new(usize::MAX),
        });
        tokio::spawn(write(sink, queue, shared.ended.subscribe()));
        tokio::spawn(read(stream, shared.clone(), listener));
        Ok(Self { unwritten, shared, next_id: AtomicU32::new(1), answer_timeout: options.answer_timeout })
    }

    /// Takes over what the gateway said of itself when the session began.
    pub(crate) fn settle(&self, ping_interval: Duration, frame_bytes_max: u32) {
        if !ping_interval.is_zero() {
            self.shared.silence_max_ms.store(millis(ping_interval * 2 + PING_GRACE), Ordering::Relaxed);
        }
        if let (1.., Ok(max)) = (frame_bytes_max, usize::try_from(frame_bytes_max)) {
            self.shared.frame_bytes_max.store(max, Ordering::Relaxed);
        }
    }

    /// Sends a frame and waits for its answer.
    pub(crate) async fn ask(&self, ask: W::Ask) -> Result<W::Frame, Error> {
        self.ask_for(ask, self.answer_timeout).await
    }

    /// The same with another patience than usual.
    pub(crate) async fn ask_for(&self, ask: W::Ask, patience: Duration) -> Result<W::Frame, Error> {
        let answer = async { self.begin(ask).await?.wait().await };
        timeout(patience, answer).await.map_err(|_| Error::Timeout(patience))?
    }

    /// Sends a frame; the answer can be waited for. Frames begun one after the other arrive in that order.
    pub(crate) async fn begin(&self, ask: W::Ask) -> Result<Answer<W>, Error> {
        let id = self.id();
        let message = W::pack(id, ask);
        let (bytes, max) = (message.len(), self.shared.frame_bytes_max.load(Ordering::Relaxed));
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(id, sender);
        let answer = Answer { id, receiver, shared: self.shared.clone() };
        // Only now: the reading task empties the map once, after it has said that it ends.
        if let Some(closed) = self.shared.closed() {
            return Err(Error::Closed(closed));
        }
        self.unwritten.send(message).await.map_err(|_| self.shared.closed_error())?;
        Ok(answer)
    }

    /// How long an answer may take if nothing else is said.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    /// Says goodbye and waits for the gateway to do the same.
    pub(crate) async fn close(&self) -> Closed {
        // If the queue is gone, the connection has ended already.
        let _ = timeout(CLOSE_TIMEOUT, self.unwritten.send(goodbye())).await;
        let no_answer = || Closed::broken("the gateway did not answer the close");
        timeout(CLOSE_TIMEOUT, self.closed()).await.unwrap_or_else(|_| no_answer())
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

impl<W: Wire> Shared<W> {
    fn closed(&self) -> Option<Closed> {
        self.ended.borrow().clone()
    }

    fn closed_error(&self) -> Error {
        Error::Closed(self.closed().unwrap_or_else(|| Closed::broken("the connection is closing")))
    }
}

/// An answer that is on its way. Dropped, it is not waited for.
pub(crate) struct Answer<W: Wire> {
    id: u32,
    receiver: oneshot::Receiver<W::Frame>,
    shared: Arc<Shared<W>>,
}

impl<W: Wire> Answer<W> {
    pub(crate) async fn wait(mut self) -> Result<W::Frame, Error> {
        (&mut self.receiver).await.map_err(|_| self.shared.closed_error())
    }
}

impl<W: Wire> Drop for Answer<W> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.id);
    }
}

async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Message>,
    mut ended: watch::Receiver<Option<Closed>>,
) {
    let mut open = true;
    while open {
        let written = async {
            // No more: the last handle is gone.
            let message = queue.recv().await.unwrap_or_else(goodbye);
            write_ready(&mut sink, message, &mut queue).await
        };
        // What goes wrong here the reading task sees too, and says.
        open = tokio::select! {
            written = written => written.unwrap_or(false),
            _ = ended.wait_for(Option::is_some) => return,
        };
    }
}

/// Writes `message` and all that is ready behind it, and flushes once. Whether more may follow.
async fn write_ready(
    sink: &mut SplitSink<Socket, Message>,
    message: Message,
    queue: &mut mpsc::Receiver<Message>,
) -> Result<bool, tungstenite::Error> {
    let mut next = Some(message);
    while let Some(message) = next {
        if message.is_close() {
            sink.send(message).await?;
            return Ok(false);
        }
        sink.feed(message).await?;
        next = queue.try_recv().ok();
    }
    sink.flush().await?;
    Ok(true)
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() }))
}

async fn read<W: Wire>(mut stream: SplitStream<Socket>, shared: Arc<Shared<W>>, listener: Arc<dyn Listener<W::Frame>>) {
    let closed = read_until_closed(&mut stream, &shared, &*listener).await;
    tracing::debug!(%closed, "connection ended");
    shared.ended.send_replace(Some(closed));
    shared.waiting.lock().clear();
    listener.end();
}

async fn read_until_closed<W: Wire>(
    stream: &mut SplitStream<Socket>,
    shared: &Shared<W>,
    listener: &dyn Listener<W::Frame>,
) -> Closed {
    loop {
        let silence_max = Duration::from_millis(shared.silence_max_ms.load(Ordering::Relaxed));
        let message = match timeout(silence_max, stream.next()).await {
            Err(_) => return Closed::broken(format!("nothing heard for {silence_max:?}")),
            Ok(None) => return Closed::broken("the gateway broke off"),
            Ok(Some(Err(error))) => return Closed::broken(error.to_string()),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Close(frame) => {
                // Reading on sends our half of the close, and ends when the gateway hangs up.
                let _ = timeout(HANG_UP_TIMEOUT, async { while let Some(Ok(_)) = stream.next().await {} }).await;
                return match frame {
                    Some(frame) => Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() },
                    None => Closed { code: Some(CloseCode::Status.into()), reason: String::new() },
                };
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {} // tungstenite answers pings
            Message::Text(_) | Message::Binary(_) => match W::unpack(message) {
                Ok(frames) => frames.into_iter().for_each(|frame| deliver(frame, shared, listener)),
                Err(fault) => return Closed::broken(format!("the gateway sent what is no frame: {fault}")),
            },
        }
    }
}

fn deliver<W: Wire>(frame: W::Frame, shared: &Shared<W>, listener: &dyn Listener<W::Frame>) {
    match W::reply_to(&frame) {
        0 => listener.hear(frame),
        id => match shared.waiting.lock().remove(&id) {
            // Whoever asked may have gone in this moment.
            Some(asker) => _ = asker.send(frame),
            None => tracing::debug!(id, "an answer that nobody waits for any more"),
        },
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_writing_task_does_not_outlive_the_reading_one_when_the_peer_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("bound"));
        let (client, peer) = tokio::join!(tokio_tungstenite::connect_async(&url), async {
            let (stream, _) = listener.accept().await.expect("connects");
            tokio_tungstenite::accept_async(stream).await.expect("upgrades")
        });
        let (sink, _stream) = client.expect("upgraded").0.split();
        let (unwritten, queue) = mpsc::channel(1);
        let ended = watch::Sender::new(None);
        let writing = tokio::spawn(write(sink, queue, ended.subscribe()));
        // More than both sockets' buffers hold, so that the second is never taken while nobody reads.
        for _ in 0..2 {
            unwritten.send(Message::binary(vec![0; 32 << 20])).await.expect("the task lives");
        }
        assert!(!writing.is_finished());
        ended.send_replace(Some(Closed::broken("nothing heard")));
        timeout(Duration::from_secs(10), writing).await.expect("ends").expect("did not panic");
        drop(peer);
    }
}
