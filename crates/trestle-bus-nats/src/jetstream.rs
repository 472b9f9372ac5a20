//! Questions to JetStream and their answers, with one meaning for each error.

use async_nats::{HeaderMap, Message, Request, RequestErrorKind, header::IntoHeaderName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trestle_bus::BusError;

use crate::link::Link;

/// Error codes of JetStream that mean something to us.
pub(crate) mod code {
    /// No stream of that name.
    pub(crate) const STREAM_NOT_FOUND: u16 = 10_059;
    /// No message is there that is asked for.
    pub(crate) const NO_MESSAGE: u16 = 10_037;
    /// The subject's last message is another one.
    pub(crate) const WRONG_LAST_SEQUENCE: [u16; 2] = [10_071, 10_164];
    /// A message with this id is being stored.
    pub(crate) const SAME_ID_IN_PROCESS: u16 = 10_158;
    /// The stream could not store it, for the reason that is said.
    pub(crate) const STORE_FAILED: u16 = 10_077;
    /// The cluster cannot do it at the moment.
    pub(crate) const UNAVAILABLE: [u16; 2] = [10_008, 10_009];
}

/// Why JetStream did not do it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It could not be asked, or has not answered.
    Bus(BusError),
    /// Nobody listens where it was asked: there is no such stream, or none that is awake.
    Nobody,
    /// It said no.
    Refused { code: u16, said: String },
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        Fault::Bus(error)
    }
}

impl Fault {
    /// For a question to JetStream itself, where no listener means that there is none.
    pub(crate) fn without_jetstream(self) -> Self {
        match self {
            Fault::Nobody => BusError::Refused("JetStream is not enabled on the NATS server".into()).into(),
            fault => fault,
        }
    }

    /// The error for a caller to whom no listener means that there is no `what`.
    pub(crate) fn about(self, what: &str) -> BusError {
        match self {
            Fault::Bus(error) => error,
            Fault::Nobody => BusError::NoLog(what.into()),
            Fault::Refused { code: code::STREAM_NOT_FOUND, .. } => BusError::NoLog(what.into()),
            Fault::Refused { code, .. } if code::UNAVAILABLE.contains(&code) => BusError::Away,
            Fault::Refused { code, said } => BusError::Refused(format!("{said} (JetStream {code})")),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u16,
    #[serde(default)]
    description: String,
}

/// Where JetStream has stored a message.
pub(crate) struct Ack {
    pub(crate) sequence: u64,
    pub(crate) duplicate: bool,
}

impl Link {
    /// Asks and waits for the answer, on any connection that stands: also before the bus counts as connected again.
    pub(crate) async fn ask(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Message, Fault> {
        self.check_client()?;
        let (began, mut breaks) = (Instant::now(), self.breaks());
        let mut request = Request::new().payload(payload).timeout(Some(self.config.request_timeout));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let asked = self.client.send_request(subject, request);
        let answer = tokio::select! {
            answer = asked => answer,
            // Asked and not answered: it may or may not have been done.
            _ = breaks.changed() => return Err(BusError::Timeout(began.elapsed()).into()),
        };
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Fault::Nobody,
            RequestErrorKind::TimedOut => BusError::Timeout(self.config.request_timeout).into(),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                BusError::Refused(error.to_string()).into()
            }
            RequestErrorKind::Other => BusError::Timeout(began.elapsed()).into(),
        })
    }

    /// Asks the API for something and gives its answer as JSON.
    pub(crate) async fn api(&self, what: &str, request: &impl Serialize) -> Result<serde_json::Value, Fault> {
        let payload = serde_json::to_vec(request).map_err(|error| BusError::Refused(error.to_string()))?;
        let answer = self.ask(format!("$JS.API.{what}"), HeaderMap::new(), payload.into()).await?;
        refused(&answer.payload)?;
        serde_json::from_slice(&answer.payload).map_err(|error| unreadable(&error))
    }

    /// Stores a message and returns once JetStream says that it has.
    pub(crate) async fn store(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Ack, Fault> {
        let answer = self.ask(subject, headers, payload).await?;
        let answer = refused(&answer.payload)?;
        if answer.seq == 0 {
            // Somebody who is not JetStream listens there and answered.
            return Err(Fault::Nobody);
        }
        Ok(Ack { sequence: answer.seq, duplicate: answer.duplicate })
    }
}

fn refused(payload: &[u8]) -> Result<Answer, Fault> {
    let answer: Answer = serde_json::from_slice(payload).map_err(|error| unreadable(&error))?;
    match answer.error {
        Some(error) => {
            let code = if error.err_code == 0 { error.code } else { error.err_code };
            Err(Fault::Refused { code, said: error.description })
        }
        None => Ok(answer),
    }
}

fn unreadable(error: &serde_json::Error) -> Fault {
    BusError::Refused(format!("JetStream's answer cannot be read: {error}")).into()
}

/// A number in a header.
pub(crate) fn number(headers: Option<&HeaderMap>, name: impl IntoHeaderName) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}
