//! How a connection to NATS is set up.

use std::{path::PathBuf, time::Duration};

/// How a connection to NATS is set up.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// One or more servers of one cluster, separated by commas: `nats://host:4222` or `tls://host:4222`, with
    /// `user:password@` before the host where the server asks for that.
    pub url: String,
    /// What the server calls this connection in its own reports.
    pub name: String,
    /// How long the first connection is tried for before that is an error. Later ones are tried for ever.
    pub connect_timeout: Duration,
    /// How long an answer of the server is waited for.
    pub request_timeout: Duration,
    /// On how many servers each log and key is stored: 1, 3 or 5, at most as many as the cluster has.
    pub replicas: usize,
    /// Name of the JetStream bucket that holds the keys: letters, digits, `-` and `_`.
    pub bucket: String,
    /// A credentials file (a user's JWT and its key), as NATS's own tools write it.
    pub credentials: Option<PathBuf>,
    /// TLS beyond what `tls://` in the URL asks for with the system's authorities.
    pub tls: Option<TlsFiles>,
    /// Most messages that wait in one subscription.
    pub queue_messages_max: usize,
    /// Most bytes of payload that wait in one subscription.
    pub queue_bytes_max: usize,
}

/// Files in PEM form. Giving any asks for TLS whatever the URL says.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities that may have signed the server's certificate; `None` for the system's.
    pub authorities: Option<PathBuf>,
    /// The certificate this client shows, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl NatsConfig {
    /// The defaults, for the servers at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: "trestle".into(),
            connect_timeout: Duration::from_secs(10),
            // A store has 3 s in this house; the election after a server's death takes longer than any request should.
            request_timeout: Duration::from_secs(3),
            replicas: 1,
            bucket: "TRESTLE".into(),
            credentials: None,
            tls: None,
            // 16 Ki messages x about 200 B of queue = 3.2 MiB when full; a reader that is a second behind at 16 k/s.
            queue_messages_max: 16 << 10,
            // Worst for a channel of large messages: 32 x 1 MiB.
            queue_bytes_max: 32 << 20,
        }
    }

    /// The servers without passwords, for messages and logs.
    #[must_use]
    pub fn shown_url(&self) -> String {
        let shown = |server: &str| match (server.split_once("://"), server.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => server.to_owned(),
        };
        self.url.split(',').map(str::trim).map(shown).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_password() {
        for (url, shown) in [
            ("nats://a:4222", "nats://a:4222"),
            ("nats://u:p@a:4222, tls://u:p@b", "nats://a:4222,tls://b"),
            ("u:p@a", "a"),
            ("nats://u:p@ss@a", "nats://a"),
        ] {
            assert_eq!(NatsConfig::new(url).shown_url(), shown);
        }
    }
}
