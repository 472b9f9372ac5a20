//! A connection that can carry a session: an address in turn, a token, an upgrade, and the gateway's answer to a connect.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use trestle_wire::v1::{self, server_frame::Frame};

use crate::{
    Error, Options, Token,
    connection::no_frame,
    link::{Incoming, Link},
    upgrade::Upgrade,
    wire::{PROTOBUF, unpack},
};

/// Where connections are made, and with what.
pub(crate) struct Dialer {
    upgrade: Arc<Upgrade>,
    endpoints: Vec<String>,
    next: usize,
}

/// An upgraded connection on which nothing was said.
pub(crate) struct Dialed {
    pub(crate) link: Link,
    pub(crate) token: String,
}

/// A connection on which the gateway has agreed to a connect.
pub(crate) struct Greeted {
    pub(crate) link: Link,
    pub(crate) connected: v1::Connected,
    /// What came behind that.
    pub(crate) rest: Vec<v1::ServerFrame>,
}

impl Dialer {
    /// `url` and the other addresses of the options, in an order by chance.
    pub(crate) fn new(url: &str, options: Options) -> Self {
        let mut endpoints = vec![url.to_owned()];
        endpoints.extend(options.endpoints.iter().filter(|other| *other != url).cloned());
        fastrand::shuffle(&mut endpoints);
        Self { upgrade: Arc::new(Upgrade::new(PROTOBUF, options)), endpoints, next: 0 }
    }

    pub(crate) fn options(&self) -> &Options {
        self.upgrade.options()
    }

    /// How many addresses there are.
    pub(crate) fn endpoints(&self) -> u32 {
        self.endpoints.len().try_into().unwrap_or(u32::MAX)
    }

    /// The next address in turn.
    pub(crate) fn next_url(&mut self) -> String {
        let url = self.endpoints[self.next % self.endpoints.len()].clone();
        self.next += 1;
        url
    }

    /// Whether a gateway may name this address: not one where the token would travel in the clear if it did not before.
    pub(crate) fn allows(&self, url: &str) -> bool {
        url.starts_with("wss://") || self.endpoints.iter().any(|endpoint| endpoint.starts_with("ws://"))
    }

    /// Connects to `url` at that time, with a token that is not `refused`.
    pub(crate) fn dial(
        &self,
        url: String,
        at: Instant,
        refused: Option<String>,
    ) -> impl Future<Output = Result<Dialed, Error>> + Send + 'static {
        let upgrade = self.upgrade.clone();
        async move {
            sleep_until(at).await;
            let patience = upgrade.options().connect_timeout;
            let dialing = async {
                let token = token(upgrade.options().token.as_ref(), refused).await?;
                Ok(Dialed { link: Link::new(upgrade.open(&url).await?), token })
            };
            timeout(patience, dialing).await.map_err(|_| Error::Timeout(patience))?
        }
    }

    /// Sends the connect `id` and waits for the gateway to agree.
    pub(crate) fn greet(
        &self,
        link: Link,
        id: u32,
        connect: Message,
    ) -> impl Future<Output = Result<Greeted, Error>> + Send + 'static {
        let patience = self.options().connect_timeout;
        async move { timeout(patience, greeted(link, id, connect)).await.map_err(|_| Error::Timeout(patience))? }
    }
}

/// A token to connect with; empty for an anonymous client.
async fn token(token: Option<&Token>, refused: Option<String>) -> Result<String, Error> {
    let Some(token) = token else { return Ok(String::new()) };
    let token = token.get().await.map_err(Error::Token)?;
    match refused {
        Some(refused) if refused == token => Err(Error::Refused(v1::Error {
            code: v1::Code::Unauthenticated.into(),
            reason: "token_invalid".to_owned(),
            message: "the gateway refused the token, and there is no other".to_owned(),
            ..Default::default()
        })),
        _ => Ok(token),
    }
}

async fn greeted(mut link: Link, id: u32, connect: Message) -> Result<Greeted, Error> {
    let mut connect = Some(connect);
    loop {
        let message = match link.next(&mut connect).await {
            Incoming::Message(message) => message,
            Incoming::Closed(closed) => return Err(Error::Closed(closed)),
        };
        let mut frames = unpack(message).map_err(|fault| Error::Closed(no_frame(&fault)))?.into_iter();
        while let Some(v1::ServerFrame { reply_to, frame }) = frames.next() {
            match frame {
                Some(Frame::Connected(connected)) => {
                    let ping_interval = connected.ping_interval.and_then(|span| span.try_into().ok());
                    link.settle(ping_interval.unwrap_or_default());
                    return Ok(Greeted { link, connected, rest: frames.collect() });
                }
                Some(Frame::Error(error)) => return Err(Error::Refused(error)),
                _ if reply_to == id => return Err(Error::Unexpected { expected: "connected" }),
                other => tracing::debug!(?other, "a frame before the session has begun"),
            }
        }
    }
}
