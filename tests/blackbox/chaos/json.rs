//! A listener by hand in JSON, which resumes as the protocol says and keeps nothing from the log.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{
    check::{Heard, Log},
    listen::{CHANNELS, comment, is_last},
};
use crate::support::{Stay, number};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection on which nothing comes for so long is given up: two of the gateway's pings.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// What it knows.
struct Listener {
    stay: Stay,
    logs: Vec<Log>,
    /// Told when it listens to all channels for the first time.
    ready: Option<oneshot::Sender<()>>,
}

/// Listens to all channels until each has said its last word; says when it has begun.
pub(super) async fn listener(address: SocketAddr, name: String, ready: oneshot::Sender<()>) -> Vec<Log> {
    let log = |channel| Log { listener: name.clone(), channel, start: 0, heard: Vec::new() };
    let mut listener = Listener { stay: Stay::default(), logs: CHANNELS.map(log).into(), ready: Some(ready) };
    let mut old = None;
    while !listener.is_done() {
        if let Ok((socket, _)) = connect_async(format!("ws://{address}/ws")).await {
            old = listener.stay(socket, old.take()).await;
        }
        sleep(TRY_EVERY).await;
    }
    listener.logs
}

impl Listener {
    fn is_done(&self) -> bool {
        self.logs.iter().all(|log| log.heard.last().is_some_and(|(_, heard)| is_last(heard)))
    }

    /// One connection, until it ends, all is heard, or the gateway wants it to go elsewhere: then the connection is given
    /// back, and is to be kept until there is another. `old` is that.
    async fn stay(&mut self, mut socket: Socket, mut old: Option<Socket>) -> Option<Socket> {
        let resume = (!self.stay.session.is_empty()).then(|| self.stay.resume());
        let connect = json!({"id": 1, "connect": {"resume": resume}});
        if socket.send(Message::text(connect.to_string())).await.is_err() {
            return old;
        }
        while !self.is_done() {
            let text = match timeout(SILENCE_MAX, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                _ => return old,
            };
            let frames = match serde_json::from_str(&text).expect("JSON") {
                Value::Array(frames) => frames,
                frame => vec![frame],
            };
            let mut leaves = false;
            for frame in frames {
                if frame["connected"].is_object() {
                    old = None;
                }
                leaves |= frame["draining"].is_object();
                self.stay.took(&frame);
                for ask in self.took(&frame) {
                    if socket.send(Message::text(ask.to_string())).await.is_err() {
                        return None;
                    }
                }
            }
            if leaves {
                return Some(socket);
            }
        }
        let _closed = socket.close(None).await;
        None
    }

    /// Writes down what came; what is to be said to it.
    fn took(&mut self, frame: &Value) -> Vec<Value> {
        if frame["connected"].is_object() && frame["connected"]["resumed"] != true {
            return self.begin();
        }
        if let Some(channel) = frame["subscribed"]["channel"].as_str() {
            if self.ready.is_some() {
                self.log(channel).start = number(&frame["subscribed"]["offset"]);
            }
            if frame["replyTo"] == CHANNELS.len() as u64 + 1
                && let Some(ready) = self.ready.take()
            {
                let _told = ready.send(());
            }
        }
        if let (Some(channel), Some(text)) =
            (frame["delivery"]["channel"].as_str(), frame["delivery"]["payload"]["text"].as_str())
        {
            let heard = comment(text, number(&frame["delivery"]["offset"]));
            self.hear(channel, heard);
        }
        if let Some(channel) = frame["gap"]["channel"].as_str().filter(|channel| !channel.is_empty()) {
            let heard = Heard::Gap { from: number(&frame["gap"]["from"]), to: number(&frame["gap"]["to"]) };
            self.hear(channel, heard);
        }
        if let Some(reason) = frame["error"]["reason"].as_str() {
            assert!(["draining", "too_busy", "bus_away", "timeout"].contains(&reason), "{frame}");
        }
        Vec::new()
    }

    /// A new session: subscribes where it was.
    fn begin(&mut self) -> Vec<Value> {
        let mut asks = Vec::new();
        for (at, channel) in CHANNELS.into_iter().enumerate() {
            let mut subscribe = json!({"channel": channel});
            match self.stay.places.get(channel) {
                Some(0) => self.hear(channel, Heard::Gap { from: 0, to: 0 }),
                Some(offset) => subscribe["offset"] = json!(offset.to_string()),
                None => {}
            }
            asks.push(json!({"id": at + 2, "subscribe": subscribe}));
        }
        asks
    }

    fn log(&mut self, channel: &str) -> &mut Log {
        self.logs.iter_mut().find(|log| log.channel == channel).expect("a channel that it listens to")
    }

    fn hear(&mut self, channel: &str, heard: Heard) {
        let log = self.log(channel);
        // After the last word it has nothing to do there.
        if !log.heard.last().is_some_and(|(_, heard)| is_last(heard)) {
            log.heard.push((Instant::now(), heard));
        }
    }
}
