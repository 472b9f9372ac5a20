//! The first connection, and the rules for the later ones.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    config::NatsConfig,
    link::{Signals, jittered},
};

/// Longest pause between two attempts. A server that is back is found within this.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Shortest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// How often the server is asked for a sign of life while it says nothing. At the third time of asking the connection
/// counts as broken: a cut cable is noticed after 6 s, before a node's registration ends (10 s).
const PING_EVERY: Duration = Duration::from_secs(2);

/// Commands the client holds before a publish has to wait for the socket.
const COMMANDS_MAX: usize = 4 << 10;

/// Messages the client holds per subscription until our own queue takes them, which it does at once.
const CLIENT_QUEUE_MAX: usize = 64 << 10;

/// Why there is no connection to NATS.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The URL cannot be used.
    #[error("{url} is not a NATS URL such as nats://host:4222")]
    Url {
        /// The URL, without a password.
        url: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The credentials file cannot be used.
    #[error("cannot use the credentials in {path}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The server does not let us in; trying again would not help.
    #[error("NATS at {url} refused the connection")]
    Refused {
        /// The URL, without a password.
        url: String,
        /// What it said.
        source: ConnectError,
    },
    /// No server answered in time.
    #[error("no connection to NATS at {url} within {within:?}")]
    Unreachable {
        /// The URL, without a password.
        url: String,
        /// How long it was tried.
        within: Duration,
        /// What went wrong last.
        source: Option<ConnectError>,
    },
    /// The connection broke before it could be used.
    #[error("the connection to NATS at {url} broke at once")]
    Broke {
        /// The URL, without a password.
        url: String,
    },
}

/// Connects, trying again until the time is over. What happens to the connection is told to `signals`.
pub(crate) async fn connect(config: &NatsConfig, signals: &Arc<Signals>) -> Result<Client, NatsError> {
    let url = config.shown_url();
    let servers: Result<Vec<ServerAddr>, _> = config.url.split(',').map(|server| server.trim().parse()).collect();
    let servers = servers.and_then(|servers| match servers.iter().find(|server| server.host().is_empty()) {
        Some(_) => Err(io::Error::other("it names no host")),
        None => Ok(servers),
    });
    let servers = servers.map_err(|source| NatsError::Url { url: url.clone(), source })?;
    let options = options(config, &servers, signals).await?;
    let until = Instant::now() + config.connect_timeout;
    let (mut pause, mut last) = (PAUSE_MIN, None);
    loop {
        match timeout_at(until, options.clone().connect(servers.clone())).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(source)) if is_final(source.kind()) => return Err(NatsError::Refused { url, source }),
            Ok(Err(source)) => last = Some(source),
            Err(_) => {}
        }
        pause = jittered(pause * 2).min(PAUSE_MAX);
        if Instant::now() + pause >= until {
            return Err(NatsError::Unreachable { url, within: config.connect_timeout, source: last });
        }
        tracing::info!(url, "NATS cannot be reached yet");
        sleep(pause).await;
    }
}

fn is_final(kind: ConnectErrorKind) -> bool {
    match kind {
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls => true,
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => {
            false
        }
    }
}

async fn options(
    config: &NatsConfig,
    servers: &[ServerAddr],
    signals: &Arc<Signals>,
) -> Result<ConnectOptions, NatsError> {
    let signals = signals.clone();
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(config.request_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(PING_EVERY)
        .client_capacity(COMMANDS_MAX)
        .subscription_capacity(CLIENT_QUEUE_MAX)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| {
            let doubled = PAUSE_MIN * 2_u32.saturating_pow(u32::try_from(attempt).unwrap_or(u32::MAX).min(8));
            jittered(doubled.min(PAUSE_MAX))
        })
        .event_callback(move |event| {
            // Never waits: the client drops events while it waits for us.
            signals.hear(&event);
            std::future::ready(())
        });
    // The client does not look at the names in its URLs itself.
    if let Some(server) = servers.iter().find(|server| server.has_user_pass()) {
        let text = |part: Option<&str>| decoded(part.unwrap_or_default());
        options = options.user_and_password(text(server.username()), text(server.password()));
    }
    if let Some(path) = &config.credentials {
        let read = options.credentials_file(path).await;
        options = read.map_err(|source| NatsError::Credentials { path: path.clone(), source })?;
    }
    if let Some(tls) = &config.tls {
        options = options.require_tls(true);
        if let Some(authorities) = &tls.authorities {
            options = options.add_root_certificates(authorities.clone());
        }
        if let Some((certificate, key)) = &tls.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
    }
    Ok(options)
}

/// Text of a URL with each `%XX` as the byte it stands for.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_may_hold_anything() {
        for (text, is) in
            [("plain", "plain"), ("p%40ss%3Aw", "p@ss:w"), ("100%", "100%"), ("%zz", "%zz"), ("%C3%A9", "é")]
        {
            assert_eq!(decoded(text), is);
        }
    }
}
