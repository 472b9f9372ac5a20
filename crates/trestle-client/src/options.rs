//! How a client connects, how long and how much it waits, and how it comes back.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::error::Cause;

/// What a connection is made with. The default is anonymous and fits most programs.
#[derive(Clone, Debug)]
pub struct Options {
    /// A JWT, sent in the first frame; `None` connects as an anonymous client, where the gateway allows that.
    pub token: Option<Token>,
    /// Headers of the upgrade request, such as `Origin` or those of a proxy.
    pub headers: Vec<(String, String)>,
    /// More addresses of the same gateway. The first is taken by chance, the others follow in turn.
    pub endpoints: Vec<String>,
    /// How a lost connection is made again; `None` ends the client with its connection.
    pub reconnect: Option<Reconnect>,
    /// For how long a message is repeated whose answer was lost, or that was refused for the moment.
    // Below the two minutes for which the gateway knows a message by its id, and below `answer_timeout`.
    pub retry_for: Duration,
    /// Whose certificates are believed on `wss://`.
    pub roots: Roots,
    /// Longest wait for the connection to be made and the session to begin.
    pub connect_timeout: Duration,
    /// Longest wait for an answer, repeats and reconnects included; that to a request waits for its own timeout.
    // A type of ack level HANDLED is accepted only after a service's ack, for which the gateway waits 30 s.
    pub answer_timeout: Duration,
    /// Most messages that wait for the program, on each subscription and for pushes. More are counted as a gap.
    // 1,024 x 64 KiB, the largest frame by default, = 64 MiB at worst; 1 MiB of ordinary messages of 1 KiB.
    pub queue_messages_max: usize,
    /// Largest WebSocket message taken from the gateway, in bytes.
    // The gateway joins frames under load: 16 MiB is 256 of the largest by default.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            headers: Vec::new(),
            endpoints: Vec::new(),
            reconnect: Some(Reconnect::default()),
            retry_for: Duration::from_secs(30),
            roots: Roots::System,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(40),
            queue_messages_max: 1024,
            message_bytes_max: 16 << 20,
        }
    }
}

impl Options {
    /// The default with a token.
    #[must_use]
    pub fn with_token(token: impl Into<Token>) -> Self {
        Self { token: Some(token.into()), ..Self::default() }
    }
}

/// How a lost connection is made again: after a wait by chance between zero and a bound that doubles with each failure.
///
/// What the gateway says comes first: `retry_after` of an error, `reconnect_after` of a drain notice, `Retry-After` of an
/// HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The first bound.
    pub base: Duration,
    /// The largest bound.
    pub cap: Duration,
    /// Ends the client when it was without a connection for so long; `None` tries for ever.
    pub give_up: Option<Duration>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { base: Duration::from_millis(250), cap: Duration::from_secs(20), give_up: None }
    }
}

impl Reconnect {
    /// A wait for the `failures`-th try in a row.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        let most = self.base.saturating_mul(2_u32.saturating_pow(failures.min(31))).min(self.cap);
        most.mul_f64(fastrand::f64())
    }
}

/// Who the client is: a token, or where to get one.
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    Fixed(String),
    Asked(Arc<dyn Fn() -> BoxFuture<'static, Result<String, Cause>> + Send + Sync>),
}

impl Token {
    /// Asks for a token before each connection. If the gateway refuses it, once more at once: another one is tried, the
    /// same one ends the client.
    ///
    /// ```
    /// use trestle_client::{Options, Token};
    ///
    /// async fn log_in() -> Result<String, std::io::Error> {
    ///     Ok("a JWT".to_owned())
    /// }
    /// let options = Options::with_token(Token::asked(log_in));
    /// ```
    pub fn asked<F, T, E>(ask: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Source::Asked(Arc::new(move || {
            let token = ask();
            Box::pin(async move { token.await.map_err(|cause| Cause::from(cause.into())) })
        })))
    }

    /// Whether there may be another one.
    pub(crate) fn is_asked(&self) -> bool {
        matches!(self.0, Source::Asked(_))
    }

    pub(crate) async fn get(&self) -> Result<String, Cause> {
        match &self.0 {
            Source::Fixed(token) => Ok(token.clone()),
            Source::Asked(ask) => ask().await,
        }
    }
}

impl<T: Into<String>> From<T> for Token {
    fn from(token: T) -> Self {
        Self(Source::Fixed(token.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Fixed(_) => "Token(fixed)",
            Source::Asked(_) => "Token(asked)",
        })
    }
}

/// Whose certificates are believed on `wss://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those that the system believes.
    #[default]
    System,
    /// Only these, as PEM.
    Pem(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_lie_anywhere_below() {
        let reconnect = Reconnect { base: Duration::from_millis(100), cap: Duration::from_secs(1), give_up: None };
        for (failures, most) in [(0, 100), (1, 200), (3, 800), (4, 1000), (40, 1000), (u32::MAX, 1000)] {
            let most = Duration::from_millis(most);
            let waits: Vec<_> = (0..1000).map(|_| reconnect.wait(failures)).collect();
            assert!(waits.iter().all(|wait| *wait <= most), "{failures}");
            assert!(waits.iter().any(|wait| *wait < most / 10) && waits.iter().any(|wait| *wait > most / 10 * 9));
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        assert!(!format!("{:?}", Options::with_token("secret")).contains("secret"));
    }
}
