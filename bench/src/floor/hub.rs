//! The leanest hub that still is one: each message encoded once, a bounded queue and one task per connection, the whole
//! queue in one vectored write, no buffer while idle.
//!
//! A client's binary message is a letter, a channel in four bytes, and a payload: `s` subscribes and is answered, `p`
//! publishes the payload to all of the channel.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::peer::SUBSCRIBED;

/// Frames that wait for one subscriber, 32 bytes of handle each; what comes on top is lost, and the bench says so.
const QUEUE_MAX: usize = 4096;
/// Slices of one vectored write.
const SLICES: usize = 64;
/// One read takes at most this much; all connections of a thread share the buffer.
const READ_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted: a storm's worth, cut to what the kernel allows.
const BACKLOG: u32 = 16 * 1024;

/// First byte of a frame that says goodbye.
const CLOSE: u8 = 0x88;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The frames that wait for one subscriber.
#[derive(Default)]
struct Queue {
    frames: Mutex<Vec<Bytes>>,
    filled: Notify,
}

impl Queue {
    fn push(&self, frame: Bytes) {
        let mut frames = self.frames.lock();
        if frames.len() < QUEUE_MAX {
            frames.push(frame);
        }
        if frames.len() == 1 {
            self.filled.notify_one();
        }
    }
}

type Channels = Arc<RwLock<HashMap<u32, Vec<Arc<Queue>>>>>;

/// A listener on a free port.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(BACKLOG)
}

/// Serves until killed.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let channels = Channels::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let channels = Arc::clone(&channels);
        // A connection that ends, ends: the bench will miss its messages.
        tokio::spawn(async move {
            let queue = Arc::new(Queue::default());
            let mut subscribed = Vec::new();
            let ended = converse(&stream, &queue, &channels, &mut subscribed).await;
            let mut channels = channels.write();
            for channel in subscribed {
                channels.entry(channel).and_modify(|all| all.retain(|other| !Arc::ptr_eq(other, &queue)));
            }
            ended
        });
    }
}

/// Shakes hands, then takes what comes and gives what is published, until the client is gone.
async fn converse(
    stream: &TcpStream,
    queue: &Arc<Queue>,
    channels: &Channels,
    subscribed: &mut Vec<u32>,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        stream.readable().await?;
        read(stream, &mut request)?;
    }
    let request = String::from_utf8_lossy(&request);
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    write_all(stream, &mut vec![answer.into()]).await?;
    let (mut frames, mut bytes) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            () = queue.filled.notified() => {
                std::mem::swap(&mut frames, &mut *queue.frames.lock());
                write_all(stream, &mut frames).await?;
            }
            ready = stream.readable() => {
                ready?;
                read(stream, &mut bytes)?;
                take(&mut bytes, queue, channels, subscribed)?;
            }
        }
    }
}

/// Does what the whole messages in `bytes` say, and takes them out.
fn take(bytes: &mut Vec<u8>, queue: &Arc<Queue>, channels: &Channels, subscribed: &mut Vec<u32>) -> io::Result<()> {
    let mut used = 0;
    while let Some((message, length)) = frame(&bytes[used..]) {
        if bytes[used] == CLOSE {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let [letter, a, b, c, d, payload @ ..] = message {
            let channel = u32::from_be_bytes([*a, *b, *c, *d]);
            if *letter == b's' {
                channels.write().entry(channel).or_default().push(Arc::clone(queue));
                subscribed.push(channel);
                queue.push(encode(SUBSCRIBED));
            } else {
                let frame = encode(payload);
                channels.read().get(&channel).into_iter().flatten().for_each(|queue| queue.push(frame.clone()));
            }
        }
        used += length;
    }
    bytes.drain(..used);
    if bytes.is_empty() {
        *bytes = Vec::new();
    }
    Ok(())
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

/// Adds what has come to `bytes`; nothing if nothing has.
fn read(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            bytes.extend_from_slice(&scratch[..count]);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    })
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
        frame.put_u16(u16::try_from(payload.len()).expect("the bench sends 1 KiB at most"));
    }
    frame.put_slice(payload);
    frame.freeze()
}
