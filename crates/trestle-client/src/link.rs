//! One WebSocket, polled by the task that owns it: messages in, messages out, and how it ended.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{Closed, upgrade::Socket};

/// Longest wait for the gateway to hang up once both halves of a close are done; it does so at once.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest silence before the gateway has said how often it pings; its default is 25 s.
const FIRST_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How much later than two of its intervals a ping may come.
const PING_GRACE: Duration = Duration::from_secs(10);

/// What came of a connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message with frames.
    Message(Message),
    /// It has ended; nothing else comes.
    Closed(Closed),
}

/// One WebSocket.
pub(crate) struct Link {
    socket: Box<Socket>,
    unflushed: bool,
    /// What a write ended with; told if reading does not say it better.
    fault: Option<String>,
    silence_max: Duration,
    heard: Instant,
    silence: Pin<Box<Sleep>>,
    /// How the gateway closed, while it has not hung up.
    parting: Option<(Closed, Pin<Box<Sleep>>)>,
}

impl Link {
    pub(crate) fn new(socket: Socket) -> Self {
        let heard = Instant::now();
        Self {
            socket: Box::new(socket),
            unflushed: false,
            fault: None,
            silence_max: FIRST_SILENCE_MAX,
            heard,
            silence: Box::pin(sleep_until(heard + FIRST_SILENCE_MAX)),
            parting: None,
        }
    }

    /// Takes over how often the gateway pings.
    pub(crate) fn settle(&mut self, ping_interval: Duration) {
        if !ping_interval.is_zero() {
            self.silence_max = ping_interval * 2 + PING_GRACE;
            self.silence.as_mut().reset(self.heard + self.silence_max);
        }
    }

    /// Writes `message`, if there is one, and reads the next.
    pub(crate) async fn next(&mut self, message: &mut Option<Message>) -> Incoming {
        poll_fn(|context| self.poll(context, &mut |_| message.take())).await
    }

    /// Writes what `source` gives for as long as the socket takes it, and reads the next message. Pings are answered.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut dyn FnMut(&mut Context<'_>) -> Option<Message>,
    ) -> Poll<Incoming> {
        if self.parting.is_none() && self.fault.is_none() {
            self.poll_write(context, source);
        }
        self.poll_read(context).map(|incoming| match (incoming, self.fault.take()) {
            (Incoming::Closed(Closed { code: None, .. }), Some(fault)) => Incoming::Closed(Closed::broken(fault)),
            (incoming, _) => incoming,
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, source: &mut dyn FnMut(&mut Context<'_>) -> Option<Message>) {
        loop {
            match self.socket.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.fault = Some(error.to_string()),
                Poll::Pending => return,
            }
            let Some(message) = source(context) else { break };
            if let Err(error) = self.socket.start_send_unpin(message) {
                return self.fault = Some(error.to_string());
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match self.socket.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.fault = Some(error.to_string()),
                Poll::Pending => {}
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        while self.parting.is_none() {
            match self.socket.poll_next_unpin(context) {
                Poll::Pending if self.fault.is_some() => return closed("the gateway takes nothing"),
                Poll::Pending => return self.poll_silence(context),
                Poll::Ready(None) => return closed("the gateway broke off"),
                Poll::Ready(Some(Err(error))) => return closed(error.to_string()),
                Poll::Ready(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    match message {
                        Message::Close(frame) => {
                            self.parting = Some((how(frame), Box::pin(sleep(HANG_UP_TIMEOUT))));
                        }
                        // The WebSocket layer answers pings when it reads on, with what came in them.
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                        Message::Text(_) | Message::Binary(_) => return Poll::Ready(Incoming::Message(message)),
                    }
                }
            }
        }
        self.poll_parting(context)
    }

    /// Reading on sends our half of the close, and ends when the gateway hangs up.
    fn poll_parting(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        let Some((closed, patience)) = &mut self.parting else { return Poll::Pending };
        loop {
            match self.socket.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Pending if patience.as_mut().poll(context).is_pending() => return Poll::Pending,
                _ => return Poll::Ready(Incoming::Closed(closed.clone())),
            }
        }
    }

    /// The timer runs to the last deadline that was set, and is set anew only when it goes off.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Incoming> {
        while self.silence.as_mut().poll(context).is_ready() {
            let deadline = self.heard + self.silence_max;
            if deadline <= Instant::now() {
                return closed(format!("nothing heard for {:?}", self.silence_max));
            }
            self.silence.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

fn closed(reason: impl Into<String>) -> Poll<Incoming> {
    Poll::Ready(Incoming::Closed(Closed::broken(reason)))
}

fn how(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(frame) => Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() },
        None => Closed { code: Some(CloseCode::Status.into()), reason: String::new() },
    }
}

/// The client's own close; it ends the session.
pub(crate) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "done".into() }))
}
